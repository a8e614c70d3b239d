"""Pictures and tables of the page, as shapes and text for the template."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from ..measures.curve_family import CurveFamily
from ..measures.curve_scores import angle_between, degrees, envelope, gaps, minima
from ..measures.gap_chance import WIDE
from ..measures.image_examples import Patch
from ..measures.rival_stimuli import RIVALS
from ..page import svg as drawing
from .findings import Findings

RING, PETALS = 150.0, 140.0
CHART = (900.0, 200.0)
LABEL_APART, LABEL_LEVELS = 9.0, 2
MOST_CARDS = 60
PATCH_PIXELS = 100
LOW = 0.75
LABEL = 100  # of the frame's 900: the width of a label
GLYPHS = {
    "curve": "M4 16A12 12 0 0 1 16 4",
    "corner": "M4 16V4H16",
    "edge": "M4 4H10V16H4ZM5 5V15M7 5V15M9 5V15",
    "line": "M10 3V17",
    "line end": "M10 17V10",
    "circle": "M16 10A6 6 0 1 1 4 10A6 6 0 1 1 16 10",
    "grating": "M4 4V16M8 4V16M12 4V16M16 4V16",
}
"""Pictures of a curve and of each kind of rival, in a box of 20 units."""
PANELS = {"loss": "loss", "fvu": "FVU", "l0": "L0", "dead": "dead"}


def shown(family: CurveFamily) -> list[int]:
    """The detectors that get a card: all, or the strongest, in order of orientation."""
    strongest = sorted(family.members, key=lambda m: -float(family.scores.max[m]))[:MOST_CARDS]
    return [member for member in family.members if member in set(strongest)]


def ring(family: CurveFamily) -> dict[str, object]:
    members = family.members
    angles = [family.orientation(member) for member in members]
    levels = drawing.label_levels(angles, LABEL_APART, LABEL_LEVELS)
    half = min(6.0, 150.0 / max(len(members), 1))
    marks = []
    for member, angle, level in zip(members, angles, levels, strict=True):
        # Numbers are wider than high, so beside the ring they need more room than above it.
        apart = 16 + 12 * abs(math.cos(math.radians(angle)))
        x, y = drawing.point(angle, RING + 4 + apart * (1 + (level or 0)))
        marks.append(
            {
                "h": f"{angle:.1f}",
                "petal": drawing.polar_path(_scaled(family, member), PETALS),
                "arc": drawing.arc_path(angle - half, angle + half, RING),
                "title": f"{family.kind} {member}, {angle:.1f}°",
                "text": str(member),
                "x": None if level is None else f"{x:.1f}",
                "y": f"{y:.1f}",
            }
        )
    wide = [gap for gap in gaps(angles) if gap.degrees >= WIDE]
    sectors = []
    for gap in wide if members else []:
        x, y = drawing.point(gap.middle, RING + 24)
        # A sector of the whole circle has no corners to draw it by.
        end = gap.start + min(gap.degrees, 359.9)
        sectors.append(
            {
                "path": drawing.wedge_path(gap.start, end, RING),
                "x": f"{x:.1f}",
                "y": f"{y:.1f}",
                "text": f"{gap.degrees:.0f}°",
                "widest": gap in family.gaps,
            }
        )
    label = f"Orientations of the curve {family.kind}s round the circle"
    return {"marks": marks, "gaps": sectors, "label": label, "faint": faint(len(members))}


def faint(members: int) -> str:
    """Opacity of each curve: lower where there are many."""
    return f"{min(1.0, 24 / max(members, 1)):.2f}"


def envelope_of(family: CurveFamily) -> np.ndarray:
    return envelope(family.radial[:, family.members])


def envelope_chart(family: CurveFamily) -> dict[str, object]:
    width, height = CHART
    step = width / len(family.orientations)

    def path(values: np.ndarray, *, closed: bool) -> str:
        points = [(i * step, height * (1 - v)) for i, v in enumerate([*values, values[0]])]
        if closed:  # beyond the frame, which clips it, so that no side shows
            begin, end = (-9.0, points[0][1]), (width + 9, points[-1][1])
            points = [(-9.0, height + 9), begin, *points, end, (width + 9, height + 9)]
        return drawing.line_path(points, closed=closed)

    curve = envelope_of(family)
    low: list[dict[str, str]] = []
    labelled: list[float] = []  # of dips whose labels would overlap, the deeper has one
    dips = [i for i in minima(curve) if curve[i] < LOW] if family.members else []
    for index in sorted(dips, key=lambda i: float(curve[i])):
        x, text = index * step, ""
        if all(abs(x - other) >= LABEL for other in labelled):
            labelled.append(x)
            text = f"{family.orientations[index]:.0f}°, {curve[index]:.2f}"
        y = height * (1 - curve[index])
        low.append({"x": f"{x:.1f}", "y": f"{y:.1f}", "text": text})
    return {
        "label": f"Tuning curves of the curve {family.kind}s and their envelope",
        "curves": [
            {
                "h": f"{family.orientation(member):.1f}",
                "path": path(_scaled(family, member), closed=True),
                "title": f"{family.kind} {member}, {family.orientation(member):.1f}°",
            }
            for member in family.members
        ],
        "line": path(curve, closed=False),
        "minima": low,
        "faint": faint(len(family.members)),
        "hues": [
            {"h": h, "x": f"{h * width / 360:.1f}", "width": f"{width / 72 + 0.4:.1f}"}
            for h in range(0, 360, 5)
        ],
        "ticks": [{"x": f"{a * width / 360:.0f}", "text": f"{a}°"} for a in range(0, 361, 45)],
    }


def card(findings: Findings, family: CurveFamily, member: int) -> dict[str, object]:
    scores = family.scores.row(member)
    angle, size = family.orientation(member), float(findings.receptive_field)
    zoom = 110.0 / size
    joint_QEA = np.maximum(family.responses[..., member], 0).transpose(1, 2, 0)
    joint_QEA = joint_QEA / max(float(joint_QEA.max()), 1e-30)
    return {
        "anchor": f"{family.kind}-{member}",
        "name": f"{family.kind} {member}",
        "where": _part(findings, member) if family.kind == "unit" else "",
        "h": f"{angle:.1f}",
        "orientation": degrees(angle),
        "petal": drawing.polar_path(_scaled(family, member), 60.0),
        "curve": drawing.curve_path(scores["radius"] * zoom, 120.0),
        "numbers": [
            ("resultant", f"{scores['resultant']:.2f}"),
            ("width", f"{scores['width']:.0f}°"),
            ("echo", f"{scores['echo']:.2f}"),
            ("max", _figures(scores["max"])),
            ("best radius", f"{scores['radius']:.0f} px"),
            ("radii held", f"{100 * scores['tolerance']:.0f} %"),
            ("line ↔ edge", _signed(scores["line_edge"])),
        ],
        "heat": [
            (style, drawing.heat_map(joint_QEA[:, index], angle))
            for index, style in enumerate(family.styles)
        ],
        "rivals": rival_bars(family, member),
        "patches": [_patch(patch) for patch in family.patches.get(member, ())],
    }


def rival_bars(family: CurveFamily, member: int) -> list[dict[str, object]]:
    """The greatest response to a curve and to each kind of rival, relative to the greatest of
    all; empty where no rivals were shown."""
    if family.rivals is None:
        return []
    curve = max(float(family.responses[..., member].max()), 0.0)
    best = [curve, *(float(value) for value in family.best_rivals[:, member])]
    top = max(*best, 1e-30)
    return [
        {
            "kind": kind,
            "glyph": GLYPHS[kind],
            "x": 26 * i,
            "height": f"{26 * value / top:.1f}",
            "value": _figures(value),
        }
        for i, (kind, value) in enumerate(zip(("curve", *RIVALS), best, strict=True))
    ]


def _patch(patch: Patch) -> dict[str, str]:
    return {
        "url": drawing.data_url(patch.pixels, "JPEG", PATCH_PIXELS),
        "name": patch.name,
        "value": _figures(patch.value),
    }


def _part(findings: Findings, unit: int) -> str:
    return next((name for name, channels in findings.branches.items() if unit in channels), "")


def row(family: CurveFamily, index: int, reason: str = "") -> dict[str, object]:
    scores = family.scores.row(index)
    return {
        "index": index,
        "angle": family.orientation(index),
        "reason": reason,
        "figures": [
            degrees(family.orientation(index), 1),
            degrees(scores["peak"], 1),
            f"{scores['resultant']:.3f}",
            f"{scores['width']:.0f}°",
            f"{scores['echo']:.3f}",
            _figures(scores["max"]),
            f"{scores['radius']:.0f} px",
            f"{100 * scores['tolerance']:.0f} %",
            _signed(scores["line_edge"]),
            rival_cell(family, index),
        ],
    }


def rival_cell(family: CurveFamily, index: int) -> str:
    """The strongest rival and its response relative to that to curves, e.g. `corner 0.81`."""
    ratio = float(family.scores.rival[index])
    kind = family.rival(index)
    return "" if not kind else f"{kind} only" if math.isinf(ratio) else f"{kind} {ratio:.2f}"


def truth_rows(findings: Findings) -> list[dict[str, object]]:
    rows = []
    for truth in findings.truths:
        cells = []
        for family in findings.families:
            found = truth.found.get(family.kind)
            cells += ["none", ""] if found is None else [str(found[0]), f"{found[1]:.1f}°"]
        if truth.aligned and findings.latents:
            latent, cosine = truth.aligned
            error = angle_between(findings.latents.orientation(latent), truth.orientation)
            cells += [str(latent), f"{cosine:.2f}", f"{error:.1f}°"]
        rows.append(
            {
                "unit": truth.label,
                "angle": truth.orientation,
                "orientation": f"{truth.orientation:g}°",
                "cells": cells,
            }
        )
    return rows


def training_panels(metrics: Mapping[str, Sequence[float]]) -> list[dict[str, str]]:
    """A small line chart of each measure in metrics.csv."""
    steps = np.asarray(metrics.get("step", ()), dtype=float)
    panels = []
    for column, name in PANELS.items():
        values = np.asarray(metrics.get(column, ()), dtype=float)
        known = np.isfinite(values)
        if len(values) != len(steps) or known.sum() < 2:
            continue
        x, y = steps[known], values[known]
        keep = np.unique(np.linspace(0, len(x) - 1, 300).round().astype(int))
        x, y = x[keep], y[keep]
        low, high = float(y.min()), float(y.max())
        across = 260 * (x - x[0]) / max(x[-1] - x[0], 1e-30)
        down = 90 * (high - y) / max(high - low, 1e-30)
        panels.append(
            {
                "name": name,
                "last": _figures(float(y[-1])),
                "path": drawing.line_path(zip(across.tolist(), down.tolist(), strict=True)),
                "x": f"{across[-1]:.1f}",
                "y": f"{down[-1]:.1f}",
                "low": _figures(low),
                "high": _figures(high),
                "first": f"{x[0]:.0f}",
                "steps": f"{x[-1]:.0f}",
            }
        )
    return panels


def _scaled(family: CurveFamily, member: int) -> np.ndarray:
    """One tuning curve, its maximum at 1."""
    curve = family.radial[:, member]
    return np.asarray(curve / max(float(curve.max()), 1e-30))


def _figures(value: float) -> str:
    """Three significant digits, without an exponent for ordinary magnitudes."""
    if value == 0 or not 1e-3 <= abs(value) < 1e6:
        return f"{value:.3g}"
    digits = max(0, 2 - int(np.floor(np.log10(abs(value)))))
    return f"{value:,.{digits}f}"


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "\N{MINUS SIGN}")
