"""Pictures of symmetries: findings in, shapes and figures for the templates out."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from ..measures.curve_scores import gaps
from ..measures.latent_families import Family
from ..measures.stabilisers import CLASSES, cosines
from ..page import svg as drawing
from .analysis import MIXED, RAW, Reading, scaled_map, umap_map
from .findings import PROOF, SymmetryFindings

RING, ROSE = 150.0, 46.0
BAR, CHANCE = 760.0, (260.0, 110.0)
BINS = 26
MAP = (760.0, 460.0)
PATCH_PIXELS = 96
MOST_ROWS = 600
FEWEST_UMAP = 16
WIDE_GAP = 30.0
TRAINED = ("FVU (training)", "L0", "dead", "parameters", "time")
POSITIVE, NEGATIVE = (38, 92, 140), (196, 98, 16)


def class_slug(name: str) -> str:
    """The CSS class of a class of symmetry."""
    return "class-" + name.replace(" ", "-")


def class_bars(findings: SymmetryFindings) -> list[dict[str, Any]]:
    """A bar a run: how its latents divide into classes."""
    bars = []
    for reading in (findings.reading, *findings.controls):
        total = max(len(reading.latents), 1)
        x, pieces = 0.0, []
        for name, many in reading.counts().items():
            width = BAR * many / total
            pieces.append(
                {
                    "slug": class_slug(name),
                    "x": f"{x:.1f}",
                    "width": f"{max(width - 1.5, 0.5):.1f}",
                    "middle": f"{x + width / 2:.1f}",
                    "text": f"{100 * many / total:.0f}" if width > 26 else "",
                    "title": f"{name}: {many} of {total}",
                }
            )
            x += width
        about = f"{total} latents, {reading.about}"
        bars.append({"run": reading.run, "about": about, "pieces": pieces})
    return bars


def class_table(findings: SymmetryFindings) -> dict[str, Any]:
    """The same in numbers: a row a run, a column a class."""
    readings = (findings.reading, *findings.controls)
    there = [name for name in CLASSES if any(reading.counts().get(name) for reading in readings)]
    rows = []
    for reading in readings:
        counts = [str(reading.counts().get(name, 0)) for name in there]
        cells = [*trained_cells(reading), str(len(reading.latents)), *counts]
        rows.append({"run": reading.run, "about": reading.about, "cells": cells})
    classes = [{"name": name, "slug": class_slug(name)} for name in there]
    return {"heads": (*TRAINED, "latents"), "classes": classes, "rows": rows}


def trained_cells(reading: Reading) -> list[str]:
    """What a run's training ended in, in the order of TRAINED; dashes where that is not known."""
    told = reading.trained
    if not told:
        return ["-"] * len(TRAINED)
    seen = told.get("fvu_train")
    return [
        f"{told['fvu']:.3f}" + ("" if seen is None else f" ({seen:.3f})"),
        f"{told['l0']:.1f}",
        f"{100 * told['dead']:.0f} %",
        f"{told['parameters']:,}",
        f"{told['seconds']:.0f} s",
    ]


def chance_charts(reading: Reading) -> list[dict[str, Any]]:
    """For each kind of subgroup how the best shares are spread, of latents and by chance."""
    charts = []
    width, height = CHANCE
    edges = np.linspace(0, 1, BINS + 1)
    for kind in (kind for kind in PROOF if kind in reading.symmetry.kinds):
        varying_F = reading.symmetry.variation > 0
        sets = {"latents": reading.symmetry.of_kind(kind)[0][varying_F]}
        sets |= {name: null[kind] for name, null in reading.null.shares.items()}
        parts = {name: _part(values, edges) for name, values in sets.items()}
        top = max(max(part.max() for part in parts.values()), 1e-9)
        limit = reading.thresholds[kind]
        charts.append(
            {
                "kind": kind,
                "lines": [
                    {"slug": name.replace(" ", "-"), "path": _steps(part / top, width, height)}
                    for name, part in parts.items()
                ],
                "limit": f"{width * limit:.1f}",
                "text": f"{limit:.2f}",
                "anchor": "end" if limit > 0.8 else "start",
                "medians": ", ".join(
                    f"{name} {np.median(values):.2f}"
                    for name, values in sets.items()
                    if len(values)
                ),
                "above": int((sets["latents"] >= limit).sum()),
            }
        )
    return charts


def family_row(findings: SymmetryFindings, number: int) -> dict[str, Any]:
    """One family: its ring, its head's blocks, irreducible parts and patches."""
    family, reading = findings.families[number], findings.reading
    row = family.head
    latent = findings.listing[row]
    power = {name: float(values[row]) for name, values in reading.symmetry.irreps.items()}
    most = max([*(v for name, v in power.items() if name != "A1"), 1e-9])
    gap = family.gap
    size = len(family.members)
    facts = [
        ("fixed by", _fixed(latent)),
        ("share", f"{latent['share']:.2f}"),
        ("above raw anchors", _percent(latent["null"])),
        ("varies", f"{100 * latent['variation']:.0f} %"),
        ("fires on", f"{100 * reading.frequency[list(family.members)].sum():.2g} %"),
    ]
    if findings.planted:
        facts.insert(0, ("planted", findings.planted.represents[row] or "nothing"))
    if gap is not None and size > 1:
        facts.insert(0, ("widest gap", f"{gap.degrees:.0f}° of {family.period:.0f}°"))
    return {
        "anchor": f"family-{number}",
        "title": f"Family {number}",
        "size": f"{size} latent{'s' if size > 1 else ''}",
        "kind": reading.classes[row],
        "slug": class_slug(reading.classes[row]),
        "name": findings.names[row],
        "head": latent["latent"],
        "ring": _ring(family),
        "norms": _norm_rose(reading, row),
        "fixes": _correlation_rose(reading, row),
        "matrix": matrix_picture(cosines(reading.blocks[row : row + 1])[0]),
        "irreps": [
            {
                "name": name,
                "height": f"{44 * min(value / most, 1):.1f}",
                "title": f"{name}: {100 * value:.1f} % of the power",
            }
            for name, value in power.items()
            if name != "A1"
        ],
        "facts": [(name, value) for name, value in facts if value],
        "made": [
            {
                "url": drawing.data_url(image.pixels, "JPEG", PATCH_PIXELS),
                "name": image.name,
                "cosine": f"{image.cosine:.2f}",
            }
            for image in findings.made_images.get(row, ())
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
    """Latents round a circle at their orientations, each with its answers to drawn curves."""
    angles = [(findings.orientations[row] or 0.0) % 360 for row in rows]
    levels = drawing.label_levels(angles, 9.0, 2)
    marks = []
    for row, angle, level in zip(rows, angles, levels, strict=True):
        apart = 16 + 12 * abs(math.cos(math.radians(angle)))
        x, y = drawing.point(angle, RING + 4 + apart * (1 + (level or 0)))
        latent = int(findings.reading.latents[row])
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


def latent_maps(findings: SymmetryFindings) -> list[dict[str, Any]]:
    """Every latent as a point, near those that it is like in some pose; by UMAP, too, of as many
    as it can say something of."""
    likeness_FF = findings.reading.likeness
    maps = [("Classical scaling", scaled_map(likeness_FF))]
    if findings.umap and len(likeness_FF) >= FEWEST_UMAP:
        maps.append(("UMAP", umap_map(likeness_FF)))
    return [{"title": title} | _points(findings, at_F2, len(maps)) for title, at_F2 in maps]


def _points(
    findings: SymmetryFindings, at_F2: Float[np.ndarray, "f 2"], maps: int
) -> dict[str, Any]:
    reading = findings.reading
    low, high = at_F2.min(axis=0, initial=0), at_F2.max(axis=0, initial=0)
    width, height = MAP[0] / maps, MAP[1]
    scale = min(width / max(high[0] - low[0], 1e-9), height / max(high[1] - low[1], 1e-9))
    points = [
        {
            "x": f"{(x - low[0]) * scale:.1f}",
            "y": f"{(y - low[1]) * scale:.1f}",
            "slug": class_slug(kind),
            "title": f"latent {latent}, {kind}, family {reading.family_of[row]}",
        }
        for row, ((x, y), latent, kind) in enumerate(
            zip(at_F2, reading.latents, reading.classes, strict=True)
        )
    ]
    return {"points": points, "width": f"{width + 16:.0f}", "height": f"{height + 16:.0f}"}


def table_rows(findings: SymmetryFindings) -> list[dict[str, Any]]:
    """A line a latent, those that fire most often."""
    often = np.argsort(-findings.reading.frequency, kind="stable")[:MOST_ROWS]
    lines = []
    for row in sorted(int(r) for r in often):
        latent = findings.listing[row]
        irreps = {k.removeprefix("power_"): v for k, v in latent.items() if k.startswith("power_")}
        strongest = max((n for n in irreps if n != "A1"), key=lambda n: irreps[n], default="")
        shares = [latent.get(f"share_{kind}") for kind in PROOF]
        turned = latent["orientation"]
        lines.append(
            {
                "latent": latent["latent"],
                "slug": class_slug(latent["class"]),
                "class": latent["class"],
                "name": latent["name"],
                "angle": turned,
                "figures": [
                    str(latent["family"]),
                    _fixed(latent),
                    "" if turned is None else f"{turned:.1f}°",
                    f"{latent['share']:.2f}",
                    _percent(latent["null"]),
                    *("" if share is None else f"{share:.2f}" for share in shares),
                    f"{100 * latent['variation']:.0f} %",
                    strongest,
                    f"{100 * latent['frequency']:.2g} %",
                ],
            }
        )
    return lines


def matrix_picture(cosine_GG: Float[np.ndarray, "g g"]) -> str:
    """A data URL of a PNG, one pixel a pair of blocks: blue for alike, orange for opposite."""
    picture = np.empty((*cosine_GG.shape, 4), np.uint8)
    picture[..., :3] = np.where(cosine_GG[..., None] >= 0, POSITIVE, NEGATIVE)
    picture[..., 3] = np.round(255 * np.clip(np.abs(cosine_GG), 0, 1))
    return drawing.data_url(picture, "PNG")


def _fixed(latent: dict[str, Any]) -> str:
    between = " between" if latent["axis_class"] == "between" else ""
    return f"{latent['stabiliser']}{between}"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.0f} %"


def _ring(family: Family) -> dict[str, Any]:
    """Where members point, and the widest gap; a pattern with d turns has each d times."""
    if family.stabiliser is None:
        return {"marks": [], "gap": "", "round": True}
    copies = range(family.stabiliser.turns)
    marks = []
    for member, direction in zip(family.members, family.directions, strict=True):
        for i in copies:
            angle = direction + i * family.period
            (x0, y0), (x1, y1) = drawing.point(angle, 36.0), drawing.point(angle, ROSE + 5)
            marks.append(
                {
                    "h": f"{angle % 360:.1f}",
                    "path": f"M{x0:.1f} {y0:.1f}L{x1:.1f} {y1:.1f}",
                    "title": f"row {member}, {direction:.0f}°",
                }
            )
    gap, wedges = family.gap, []
    if gap is not None and gap.degrees >= 1:
        for i in copies:
            start = gap.start + i * family.period
            wedges.append(drawing.wedge_path(start, start + min(gap.degrees, 359.9), 40.0))
    return {"marks": marks, "gap": "".join(wedges), "round": False}


def _norm_rose(reading: Reading, row: int) -> dict[str, str]:
    """The norms of the blocks of a latent, against the largest: turns, then reflections."""
    norm_G = np.linalg.norm(reading.blocks[row].astype(np.float64), axis=1)
    scaled_G = norm_G / max(float(norm_G.max()), 1e-30)
    n = reading.group.rotations
    mirrored = drawing.polar_path(scaled_G[n:], ROSE) if reading.group.reflections else ""
    return {"turns": drawing.polar_path(scaled_G[:n], ROSE), "mirrors": mirrored}


def _correlation_rose(reading: Reading, row: int) -> dict[str, str]:
    """r(s) from -1 in the middle to 1 on the rim: of the turn by a at the angle a, of the
    reflection at both ends of its axis."""
    half_G = np.clip((reading.symmetry.correlation[row] + 1) / 2, 0, 1)
    n = reading.group.rotations
    twice = np.concatenate([half_G[n:], half_G[n:]])
    mirrored = drawing.polar_path(twice, ROSE) if reading.group.reflections else ""
    return {"turns": drawing.polar_path(half_G[:n], ROSE), "mirrors": mirrored}


def _part(values: Float[np.ndarray, " m"], edges: Float[np.ndarray, " e"]) -> np.ndarray:
    counts, _ = np.histogram(np.clip(values, 0, 1), edges)
    return np.asarray(counts / max(len(values), 1))


def _steps(part: Float[np.ndarray, " b"], width: float, height: float) -> str:
    points = [(0.0, height)]
    for i, value in enumerate(part):
        down = height * (1 - float(value))
        points += [(width * i / len(part), down), (width * (i + 1) / len(part), down)]
    return drawing.line_path([*points, (width, height)])


LEGEND = {"latents": "the latents", RAW: "raw anchors", MIXED: "blocks in a random order"}
