"""The page's pictures: findings in, shapes for the template out."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from ..measures.curve_scores import gaps
from ..measures.latent_families import LatentFamily
from ..measures.stabilisers import cosines
from ..measures.symmetry_analysis import RAW, RELABELLED, SymmetryAnalysis
from ..page import svg as drawing
from .findings import SHOWN_KINDS, SymmetryFindings
from .tables import class_slug, fixed_by, percent

RING, ROSE, MEMBERS = 150.0, 46.0, 40.0
LABELLED = 0.07  # fraction of a bar that has room for a number
CHANCE = (260.0, 110.0)
BINS = 26
MAP = (760.0, 460.0)
PATCH_PIXELS = 96
WIDE_GAP = 30.0
POSITIVE, NEGATIVE = (38, 92, 140), (196, 98, 16)
LEGEND = {"latents": "the latents", RAW: "raw anchors", RELABELLED: "blocks in a random order"}
KIND_NAMES = {"C2": "Half turn (C2)", "D1": "One reflection (D1)", "D2": "Both (D2)"}


def class_bars(findings: SymmetryFindings) -> list[dict[str, Any]]:
    """One bar per run: how its latents divide into classes."""
    bars = []
    for analysis in (findings.analysis, *findings.controls):
        total = len(analysis.latents)
        parts = [
            {
                "slug": class_slug(name),
                "many": many,
                "text": f"{100 * many / total:.0f}" if many >= LABELLED * total else "",
                "title": f"{name}: {many} of {total}",
            }
            for name, many in analysis.counts().items()
        ]
        about = f"{total} latents, {analysis.about}"
        bars.append({"run": analysis.run, "about": about, "parts": parts})
    return bars


def chance_charts(analysis: SymmetryAnalysis) -> list[dict[str, Any]]:
    """For each kind of subgroup the distribution of the largest fraction, of latents and nulls."""
    charts: list[dict[str, Any]] = []
    width, height = CHANCE
    edges = np.linspace(0, 1, BINS + 1)
    varying_F = analysis.symmetry.variation > 0
    if not varying_F.any():
        return charts
    for kind in (kind for kind in SHOWN_KINDS if kind in analysis.symmetry.kinds):
        sets = {"latents": analysis.symmetry.of_kind(kind)[0][varying_F]}
        sets |= {name: null[kind] for name, null in analysis.null.fractions.items()}
        parts = {name: _histogram(values, edges) for name, values in sets.items()}
        top = max(max(part.max() for part in parts.values()), 1e-9)
        limit = analysis.limits[kind]
        charts.append(
            {
                "kind": KIND_NAMES[kind],
                "lines": [
                    {"slug": name.replace(" ", "-"), "path": _steps(part / top, width, height)}
                    for name, part in parts.items()
                ],
                "limit": f"{width * limit:.1f}",
                "text": f"{limit:.2f}",
                "anchor": "end" if limit > 0.5 else "start",
                "medians": ", ".join(
                    f"{name} {np.median(values):.2f}"
                    for name, values in sets.items()
                    if len(values)
                ),
                "above": int((sets["latents"] >= limit).sum()),
                "varying": int(varying_F.sum()),
            }
        )
    return charts


def family_row(findings: SymmetryFindings, number: int) -> dict[str, Any]:
    """One family: its ring, its head's blocks, irreducible representations and patches."""
    family, analysis = findings.families[number], findings.analysis
    row = family.head
    latent = findings.listing[row]
    size = len(family.members)
    facts = [
        ("fixed by", fixed_by(latent)),
        ("fraction", f"{latent['fraction']:.2f}"),
        ("above raw anchors", percent(latent["null"])),
        ("varies", f"{100 * latent['variation']:.0f} %"),
        ("fires on", f"{100 * analysis.frequency[list(family.members)].sum():.2g} %"),
    ]
    if findings.planted:
        facts.insert(0, ("planted", findings.planted.represents[row] or "nothing"))
    if family.gap is not None and size > 1:
        facts.insert(0, ("widest gap", f"{family.gap.degrees:.0f}° of {family.period:.0f}°"))
    return {
        "anchor": f"family-{number}",
        "title": f"Family {number}",
        "size": f"{size} latent{'s' if size > 1 else ''}",
        "kind": analysis.classes[row],
        "slug": class_slug(analysis.classes[row]),
        "name": findings.names[row],
        "head": latent["latent"],
        "ring": _ring(family, analysis),
        "norms": _norm_rose(analysis, row),
        "fixes": _correlation_rose(analysis, row),
        "matrix": matrix_picture(cosines(analysis.blocks[row : row + 1])[0]),
        "irreps": _irrep_bars(analysis, row),
        "facts": [(name, value) for name, value in facts if value],
        "visualised": [
            {
                "url": drawing.data_url(image.pixels, "JPEG", PATCH_PIXELS),
                "name": image.name,
                "cosine": f"{image.cosine:.2f}",
            }
            for image in findings.visualised.get(row, ())
        ],
        "patches": [
            {
                "url": drawing.data_url(patch.pixels, "JPEG", PATCH_PIXELS),
                "name": patch.name,
                "value": f"{patch.value:.3g}",
            }
            for patch in findings.patches.get(row, ())
        ],
    }


def compass(findings: SymmetryFindings, rows: Sequence[int]) -> dict[str, Any]:
    """Latents at their orientations round a circle, each with its responses to drawn curves."""
    angles = [(findings.orientations[row] or 0.0) % 360 for row in rows]
    levels = drawing.label_levels(angles, 9.0, 2)
    marks = []
    for row, angle, level in zip(rows, angles, levels, strict=True):
        apart = 16 + 12 * abs(math.cos(math.radians(angle)))
        x, y = drawing.point(angle, RING + 4 + apart * (1 + (level or 0)))
        latent = int(findings.analysis.latents[row])
        tuning_A = findings.tuning.tuning(row, "curve") if findings.tuning else np.zeros(8)
        petal = tuning_A / max(float(tuning_A.max()), 1e-30)
        marks.append(
            {
                "h": f"{angle:.1f}",
                "petal": drawing.polar_path(petal, RING - 10),
                "arc": drawing.arc_path(angle - 3, angle + 3, RING),
                "title": f"latent {latent}, {angle:.1f}°",
                "text": str(latent),
                "x": None if level is None else f"{x:.1f}",
                "y": f"{y:.1f}",
            }
        )
    sectors = []
    for gap in gaps(angles) if angles else []:
        if gap.degrees >= WIDE_GAP:
            x, y = drawing.point(gap.middle, RING + 24)
            end = gap.start + min(gap.degrees, 359.9)
            sectors.append(
                {
                    "path": drawing.wedge_path(gap.start, end, RING),
                    "x": f"{x:.1f}",
                    "y": f"{y:.1f}",
                    "text": f"{gap.degrees:.0f}°",
                    "widest": gap == findings.curve_gap,
                }
            )
    faint = f"{min(1.0, 24 / max(len(rows), 1)):.2f}"
    return {"marks": marks, "gaps": sectors, "label": "Orientations of curves", "faint": faint}


def map_pictures(findings: SymmetryFindings) -> list[dict[str, Any]]:
    """The maps of the latents, side by side."""
    return [
        {"title": title} | _points(findings, at_F2, len(findings.maps))
        for title, at_F2 in findings.maps.items()
    ]


def _points(
    findings: SymmetryFindings, at_F2: Float[np.ndarray, "f 2"], maps: int
) -> dict[str, Any]:
    analysis = findings.analysis
    low, high = at_F2.min(axis=0, initial=0), at_F2.max(axis=0, initial=0)
    width, height = MAP[0] / maps, MAP[1]
    scale = min(width / max(high[0] - low[0], 1e-9), height / max(high[1] - low[1], 1e-9))
    points = [
        {
            "x": f"{(x - low[0]) * scale:.1f}",
            "y": f"{(y - low[1]) * scale:.1f}",
            "slug": class_slug(kind),
            "title": f"latent {latent}, {kind}, family {analysis.family_of[row]}",
        }
        for row, ((x, y), latent, kind) in enumerate(
            zip(at_F2, analysis.latents, analysis.classes, strict=True)
        )
    ]
    return {"points": points, "width": f"{width + 16:.0f}", "height": f"{height + 16:.0f}"}


def matrix_picture(cosine_GG: Float[np.ndarray, "g g"]) -> str:
    """A PNG as a data URL, one pixel per pair of blocks: blue for alike, orange for opposite."""
    picture = np.empty((*cosine_GG.shape, 4), np.uint8)
    picture[..., :3] = np.where(cosine_GG[..., None] >= 0, POSITIVE, NEGATIVE)
    picture[..., 3] = np.round(255 * np.clip(np.abs(cosine_GG), 0, 1))
    return drawing.data_url(picture, "PNG")


def _irrep_bars(analysis: SymmetryAnalysis, row: int) -> list[dict[str, str]]:
    """A bar per irreducible representation except the mean, against the highest."""
    irreps = analysis.symmetry.irreps
    power = {name: float(values[row]) for name, values in irreps.items() if name != "A1"}
    most = max([*power.values(), 1e-9])
    return [
        {
            "name": name,
            "height": f"{44 * min(value / most, 1):.1f}",
            "title": f"{name}: {100 * value:.1f} % of the power",
        }
        for name, value in power.items()
    ]


def _ring(family: LatentFamily, analysis: SymmetryAnalysis) -> dict[str, Any]:
    """Where members point, and the widest gap. A pattern with d turns shows each member d times."""
    if family.stabiliser is None:
        return {"marks": [], "gap": "", "round": True}
    copies = range(family.stabiliser.turns)
    marks = []
    for member, direction in zip(family.members, family.directions, strict=True):
        for i in copies:
            angle = direction + i * family.period
            (x0, y0), (x1, y1) = (drawing.point(angle, r) for r in (MEMBERS - 4, ROSE + 5))
            marks.append(
                {
                    "h": f"{angle % 360:.1f}",
                    "path": f"M{x0:.1f} {y0:.1f}L{x1:.1f} {y1:.1f}",
                    "title": f"latent {analysis.latents[member]}, {direction:.0f}°",
                }
            )
    gap, wedges = family.gap, []
    if gap is not None and gap.degrees >= 1 and len(family.members) > 1:
        for i in copies:
            start = gap.start + i * family.period
            wedges.append(drawing.wedge_path(start, start + min(gap.degrees, 359.9), MEMBERS))
    return {"marks": marks, "gap": "".join(wedges), "round": False}


def _norm_rose(analysis: SymmetryAnalysis, row: int) -> dict[str, str]:
    """The norms of a latent's blocks, relative to the largest: turns, then reflections."""
    norm_G = np.linalg.norm(analysis.blocks[row].astype(np.float64), axis=1)
    return _rose(analysis, norm_G / max(float(norm_G.max()), 1e-30), axes=False)


def _correlation_rose(analysis: SymmetryAnalysis, row: int) -> dict[str, str]:
    """r(s) from -1 in the middle to 1 on the rim: a turn by a at the angle a, a reflection at both
    ends of its axis."""
    half_G = np.clip((analysis.symmetry.correlation[row] + 1) / 2, 0, 1)
    return _rose(analysis, half_G, axes=True)


def _rose(analysis: SymmetryAnalysis, value_G: np.ndarray, *, axes: bool) -> dict[str, str]:
    n = analysis.group.rotations
    turns, mirrors = value_G[:n], np.tile(value_G[n:], 2 if axes else 1)
    mirrored = drawing.polar_path(mirrors, ROSE) if analysis.group.reflections else ""
    return {"turns": drawing.polar_path(turns, ROSE), "mirrors": mirrored}


def _histogram(values: Float[np.ndarray, " m"], edges: Float[np.ndarray, " e"]) -> np.ndarray:
    counts, _ = np.histogram(np.clip(values, 0, 1), edges)
    return np.asarray(counts / max(len(values), 1))


def _steps(part: Float[np.ndarray, " b"], width: float, height: float) -> str:
    points = [(0.0, height)]
    for i, value in enumerate(part):
        down = height * (1 - float(value))
        points += [(width * i / len(part), down), (width * (i + 1) / len(part), down)]
    return drawing.line_path([*points, (width, height)])
