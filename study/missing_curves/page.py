"""What the page of missing curve detectors shows."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from ..measures.circle import Circle, centred, principal
from ..measures.curve_family import CurveFamily
from ..measures.curve_scores import Gap
from ..measures.gap_chance import Chance, p_text
from ..measures.image_examples import Patch
from ..page import svg as drawing
from . import words
from .decompose import Component, Decomposition
from .findings import Site, Trained, chance_gap, corrected, preferred, remaining

INNER, FIRST, NEXT = 104.0, 128.0, 15.0
CLOUD = 130.0
PATCH_PIXELS = 100
STRONGEST = 10


def context(sites: Sequence[Site]) -> dict[str, Any]:
    """What page.html shows of the findings."""
    return {
        "numbers": _tiles(sites[0]) if len(sites) == 1 else [],
        "sites": [_site(site, corrected(sites)) for site in sites],
        "method": words.method(sites[0].units.thresholds),
        "caveats": words.CAVEATS,
    }


def _tiles(site: Site) -> list[dict[str, str]]:
    units, trained = site.units, site.trained
    tiles = [(str(len(units.members)), f"of {len(units.scores.max)}", "units are curve detectors")]
    if units.members:
        tiles.append((f"{units.gap.degrees:.0f}°", "", "widest gap between curve units"))
    if any(run.family.members for run in trained):
        widths = [run.family.gap.degrees for run in trained]
        runs = "of one run" if len(trained) == 1 else f"mean of {len(trained)} runs"
        tiles += [
            (f"{np.mean(widths):.0f}°", "", f"widest gap between curve latents, {runs}"),
            (
                f"{np.mean([chance_gap(len(run.family.members)) for run in trained]):.0f}°",
                "",
                "expected widest gap of as many random directions",
            ),
        ]
    return [{"value": value, "of": of, "text": text} for value, of, text in tiles]


def _site(site: Site, p_values: Mapping[str, float]) -> dict[str, Any]:
    rows, angles = site.pooled
    gaps = site.gaps if site.units.members else []
    return {
        "name": site.name,
        "subject": site.subject,
        "anchor": f"{site.name}-{site.subject}".replace(" ", "-"),
        "units": len(site.units.members),
        "width": len(site.units.scores.max),
        "gap_units": f"{site.units.gap.degrees:.0f}°",
        "sentence": words.sentence(site, p_values),
        "strongest": strongest(site) if site.empty else [],
        "rings": None if site.empty else rings(site),
        "runs": [_run_row(run, gaps, site, p_values) for run in site.runs],
        "units_chance": _chance_cell(site.units_chance),
        "control_text": words.controls(site),
        "controls": list(dict.fromkeys(run.control for run in site.runs if run.control)),
        "gaps": [f"{g.degrees:.0f}° about {degrees(g.middle)}" for g in gaps],
        "decompositions": [_decomposition(site, one) for one in site.decompositions],
        "examples_note": site.examples_note,
        "clouds": clouds(rows, angles, site.umap),
        "circle": None if site.circle is None else words.circle(site.circle),
        "modes": None if site.circle is None else mode_bars(site.circle),
    }


def degrees(angle: float) -> str:
    """A rounded orientation, from 0° to 359°."""
    return f"{round(angle) % 360}°"


def strongest(site: Site) -> list[dict[str, Any]]:
    """The units, and the latents of each run, with the highest tuning curves."""
    families = [("units", site.units)]
    families += [(f"latents of {run.name}", run.family) for run in site.runs]
    tables = []
    for title, family in families:
        order = np.argsort(-family.scores.max, kind="stable")[:STRONGEST]
        active = [int(i) for i in order if family.scores.max[i] > 0]
        rows = [(i, family.orientation(i), family.scores.row(i)) for i in active]
        cells = [
            {
                "index": i,
                "angle": angle,
                "figures": [degrees(angle)]
                + [f"{scores[name]:.2f}" for name in ("resultant", "echo", "max")],
            }
            for i, angle, scores in rows
        ]
        tables.append({"title": title, "kind": family.kind, "rows": cells})
    return tables


def rings(site: Site) -> dict[str, Any]:
    """The tuning curves of the units, and a ring outside them for the curve latents of each run."""
    outer = FIRST + NEXT * max(len(site.runs) - 1, 0)
    return {
        "view": f"{-outer - 76:.0f} {-outer - 30:.0f} {2 * outer + 152:.0f} {2 * outer + 60:.0f}",
        "inner": INNER,
        "gaps": [_sector(g, outer) for g in site.gaps],
        "units": [
            {
                "h": f"{site.units.orientation(m):.1f}",
                "petal": _petal(site.units, m, INNER - 6),
                "arc": drawing.arc_path(*_about(site.units.orientation(m), 4.0), INNER),
                "title": f"unit {m}, {site.units.orientation(m):.1f}°",
            }
            for m in site.units.members
        ],
        "runs": [
            {
                "r": FIRST + NEXT * i,
                "control": run.control,
                "dots": [
                    dict(zip("xy", _text(drawing.point(a, FIRST + NEXT * i)), strict=True))
                    | {"h": f"{a:.1f}", "title": f"latent {m}, {a:.1f}° ({run.name})"}
                    for m, a in zip(run.family.members, run.orientations, strict=True)
                ],
            }
            for i, run in enumerate(site.runs)
        ],
    }


def _sector(gap: Gap, outer: float) -> dict[str, str]:
    """A gap as a grey sector, and its width beside it."""
    x, y = drawing.point(gap.middle, outer + 14)
    side = x / outer
    return {
        "path": drawing.wedge_path(gap.start, gap.start + min(gap.degrees, 359.9), outer + 6),
        "text": f"{gap.degrees:.0f}° wide",
        "anchor": "mid" if abs(side) < 0.4 else "end" if side < 0 else "",
        "x": f"{x:.1f}",
        "y": f"{y:.1f}",
    }


def _run_row(
    run: Trained, gaps: Sequence[Gap], site: Site, p_values: Mapping[str, float]
) -> dict[str, Any]:
    circle, chance = run.circle, site.chances.get(run.name)
    kinds = dict.fromkeys(one.control for one in site.runs if one.control)
    return {
        "name": run.name,
        "short": run.name.rpartition("-")[0] or run.name,
        "objective": run.objective if run.damage == "none" else f"{run.objective}, {run.damage}",
        "seed": run.seed,
        "latents": len(run.family.scores.max),
        "fvu": "" if math.isnan(run.fvu) else f"{run.fvu:.3f}",
        "curves": len(run.family.members),
        "gap": f"{run.family.gap.degrees:.0f}°",
        "chance": _chance_cell(chance and chance.widest),
        "total": f"{chance.left.observed:.0f}°" if chance and chance.left else "",
        "uniform": _chance_cell(chance and chance.left),
        "copies": str(sum(run.copies)),
        "with_new": f"{chance.surplus.observed:.0f}°" if chance and chance.surplus else "",
        "surplus": _chance_cell(chance and chance.surplus),
        "corrected": f"{p_values[run.name]:.3f}" if run.name in p_values else "",
        "of_controls": [_chance_cell(chance.control.get(k) if chance else None) for k in kinds],
        "left": [f"{remaining(gap, run.orientations):.0f}°" for gap in gaps],
        "circle": "" if circle is None else f"{circle.order:.2f} ({p_text(circle.p)})",
        "control": run.control,
    }


def _chance_cell(chance: Chance | None) -> str:
    """The mean under the null hypothesis, and the P value."""
    return "" if chance is None else f"{chance.mean:.0f}° ({p_text(chance.p)})"


def _decomposition(site: Site, one: Decomposition) -> dict[str, Any]:
    run = site.trained[0]
    return {
        "unit": one.unit,
        "peaks": " and ".join(degrees(angle) for angle in one.peaks[:3]),
        "h": f"{one.peaks[0] if one.peaks else 0:.1f}",
        "petal": _petal(site.units, one.unit, 60.0),
        "patches": _patches(one.patches[0]) if one.patches else [],
        "all": f"{100 * one.all_latents:.0f} %",
        "control": ", ".join(f"{100 * fraction:.0f}" for fraction in one.control),
        "components": [
            _component(run.family, component, one.patches[i + 1] if one.patches else ())
            for i, component in enumerate(one.components)
        ],
    }


def _component(
    family: CurveFamily, component: Component, patches: Sequence[Patch]
) -> dict[str, Any]:
    scores = family.scores.row(component.latent)
    angle = preferred(family, component.latent)
    tuning = f"{degrees(angle or 0.0)}, resultant {scores['resultant']:.2f}"
    kind = ", a curve detector" if component.latent in family.members else ""
    return {
        "latent": component.latent,
        "h": f"{scores['orientation']:.1f}",
        "tuning": tuning + kind if angle is not None else "silent on drawn curves",
        "weight": f"{component.weight:.2f}",
        "explained": f"{100 * component.explained:.0f} %",
        "petal": _petal(family, component.latent, 60.0),
        "patches": _patches(patches),
    }


def _patches(patches: Sequence[Patch]) -> list[dict[str, str]]:
    return [
        {
            "url": drawing.data_url(patch.pixels, "JPEG", PATCH_PIXELS),
            "name": f"{patch.name}: {patch.value:.3g}",
        }
        for patch in patches
    ]


def clouds(
    rows: Float[np.ndarray, "s d"], angles: Sequence[float], umap: Float[np.ndarray, "s 3"] | None
) -> list[dict[str, Any]]:
    """Decoder rows as points in principal components and in UMAP; none for fewer than three."""
    if len(rows) < 3:
        return []
    drawn = [("principal components 1 and 2", principal(centred(rows), 2))]
    if umap is not None:
        drawn += [
            ("UMAP to 4, components 1 and 2", umap[:, :2]),
            ("UMAP to 4, components 1 and 3", umap[:, [0, 2]]),
        ]
    return [{"title": title, "dots": _cloud(at, angles)} for title, at in drawn]


def _cloud(at_SP: Float[np.ndarray, "s 2"], angles: Sequence[float]) -> list[dict[str, str]]:
    largest = max(float(np.abs(at_SP).max()), 1e-30)
    return [
        {"x": f"{CLOUD * x / largest:.1f}", "y": f"{CLOUD * y / largest:.1f}", "h": f"{a:.1f}"}
        for (x, y), a in zip(at_SP, angles, strict=True)
    ]


def mode_bars(circle: Circle) -> list[dict[str, str]]:
    """A bar for each Fourier mode."""
    return [
        {"k": str(k + 1), "text": f"{100 * share:.0f} %", "bar": f"{100 * max(share, 0):.1f}"}
        for k, share in enumerate(circle.modes)
    ]


def _petal(family: CurveFamily, member: int, radius: float) -> str:
    curve = family.radial[:, member]
    return drawing.polar_path(curve / max(float(curve.max()), 1e-30), radius)


def _about(angle: float, half: float) -> tuple[float, float]:
    return angle - half, angle + half


def _text(point: tuple[float, float]) -> tuple[str, str]:
    assert all(math.isfinite(value) for value in point)
    return f"{point[0]:.1f}", f"{point[1]:.1f}"
