"""The pictures of the page of missing curve detectors: findings in, shapes for the template out."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from ..curves.figures import PATCH_PIXELS
from ..curves.findings import Family, Patch
from ..measures.circle import MODES, Circle, centred, principal
from ..page import svg as drawing
from .decompose import Piece
from .findings import Site, TakenApart, Trained, answered, chance_gap, left_of

INNER, FIRST, NEXT = 104.0, 128.0, 15.0
CLOUD = 130.0


def site_context(site: Site) -> dict[str, Any]:
    """Everything that the template says of one site."""
    rows, angles = site.pooled
    return {
        "name": site.name,
        "subject": site.subject,
        "anchor": f"{site.name}-{site.subject}".replace(" ", "-"),
        "units": len(site.units.members),
        "width": len(site.units.scores.max),
        "gap_units": f"{site.units.gap.degrees:.0f}°",
        "sentence": sentence(site),
        "rings": rings(site),
        "runs": [_run_row(site, run) for run in site.runs],
        "gaps": [f"{gap.degrees:.0f}° about {gap.middle:.0f}°" for gap in site.gaps],
        "apart": [_apart(site, one) for one in site.apart],
        "clouds": clouds(rows, angles, site.umap),
        "circle": None if site.circle is None else circle_words(site.circle),
        "modes": None if site.circle is None else mode_bars(site.circle),
    }


NARROWER = 2.5
"""Degrees: a gap that is narrower by less is as wide; half a step of the drawn orientations."""


def sentence(site: Site) -> str:
    """What became of the widest gap, over the runs."""
    if not site.trained:
        return "Only controls were trained here."
    own = site.units.gap.degrees
    widths = [run.family.gap.degrees for run in site.trained]
    closer = sum(width < own - NARROWER for width in widths)
    chance = [run.family.gap.degrees for run in site.runs if run.control]
    controls = (
        f" Controls leave {min(chance):.0f}° to {max(chance):.0f}°: where that is narrower too, "
        "a narrow gap alone is no sign of what was learnt."
        if chance
        else ""
    )
    counts = ", ".join(str(len(run.family.members)) for run in site.trained)
    return (
        f"{len(site.units.members)} of {len(site.units.scores.max)} units are curve detectors, "
        f"and leave a gap of {own:.0f}°. The dictionaries have {counts} curve latents, with "
        f"widest gaps of {np.mean(widths):.0f}° on average ({min(widths):.0f}° to "
        f"{max(widths):.0f}°): more than {NARROWER:g}° narrower than the units' in "
        f"{closer} of {len(widths)}.{controls}"
    )


def rings(site: Site) -> dict[str, Any]:
    """The units' circle, and one ring outside it for every run's curve latents."""
    outer = FIRST + NEXT * max(len(site.runs) - 1, 0)
    return {
        "view": f"{-outer - 44:.0f} {-outer - 30:.0f} {2 * outer + 88:.0f} {2 * outer + 60:.0f}",
        "inner": INNER,
        "gaps": [
            {
                "path": drawing.wedge_path(g.start, g.start + min(g.degrees, 359.9), outer + 6),
                "text": f"{g.degrees:.0f}°",
                "x": f"{drawing.point(g.middle, outer + 22)[0]:.1f}",
                "y": f"{drawing.point(g.middle, outer + 22)[1]:.1f}",
            }
            for g in site.gaps
        ],
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
                    dict(zip("xy", _told(drawing.point(a, FIRST + NEXT * i)), strict=True))
                    | {"h": f"{a:.1f}", "title": f"latent {m}, {a:.1f}° ({run.name})"}
                    for m, a in zip(run.family.members, run.orientations, strict=True)
                ],
            }
            for i, run in enumerate(site.runs)
        ],
    }


def _run_row(site: Site, run: Trained) -> dict[str, Any]:
    circle = run.circle
    return {
        "name": run.name,
        "objective": run.objective,
        "seed": run.seed,
        "latents": len(run.family.scores.max),
        "fvu": f"{run.fvu:.3f}",
        "curves": len(run.family.members),
        "gap": f"{run.family.gap.degrees:.0f}°",
        "chance": f"{chance_gap(len(run.family.members)):.0f}°",
        "left": [f"{left_of(gap, run.orientations):.0f}°" for gap in site.gaps],
        "order": "" if circle is None else f"{circle.order:.2f}",
        "order_chance": "" if circle is None else f"{circle.chance:.2f}",
        "control": run.control,
    }


def _apart(site: Site, one: TakenApart) -> dict[str, Any]:
    run = site.trained[0]
    return {
        "unit": one.unit,
        "peaks": " and ".join(f"{angle:.0f}°" for angle in one.peaks[:3]),
        "h": f"{one.peaks[0] if one.peaks else 0:.1f}",
        "petal": _petal(site.units, one.unit, 60.0),
        "patches": _patches(one.patches[0]) if one.patches else [],
        "all": f"{100 * one.all_latents:.0f} %",
        "control": ", ".join(f"{100 * share:.0f}" for share in one.control),
        "run": one.run,
        "pieces": [
            _piece(run.family, piece, one.patches[i + 1] if one.patches else ())
            for i, piece in enumerate(one.pieces)
        ],
    }


def _piece(family: Family, piece: Piece, patches: Sequence[Patch]) -> dict[str, Any]:
    scores = family.scores.row(piece.latent)
    angle = answered(family, piece.latent)
    told = f"{scores['orientation']:.0f}°, resultant {scores['resultant']:.2f}"
    kind = ", a curve" if piece.latent in family.members else ""
    return {
        "latent": piece.latent,
        "h": f"{scores['orientation']:.1f}",
        "answers": told + kind if angle is not None else "silent on drawn curves",
        "weight": f"{piece.weight:.2f}",
        "explained": f"{100 * piece.explained:.0f} %",
        "bar": f"{max(0.0, min(1.0, piece.explained)) * 100:.1f}",
        "petal": _petal(family, piece.latent, 60.0),
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
    """Decoder rows as points: principal components, and UMAP's; empty of fewer than three."""
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


def circle_words(circle: Circle) -> str:
    """The two numbers of a circle with what chance gives."""
    modes = ", ".join(f"{100 * share:.0f} %" for share in circle.modes)
    return (
        f"Of the {circle.count} rows of the first run, the angle in the first two principal "
        f"components correlates with the orientation at {circle.order:.2f} (95 % of dealt-out "
        f"orientations stay below {circle.chance:.2f}). Fourier modes 1 to {MODES} of the "
        f"orientation hold {modes} of their variance, one mode by chance "
        f"{100 * circle.modes_chance:.0f} %."
    )


def mode_bars(circle: Circle) -> list[dict[str, str]]:
    """One bar a mode."""
    return [
        {"k": str(k + 1), "share": f"{100 * share:.0f} %", "bar": f"{100 * max(share, 0):.1f}"}
        for k, share in enumerate(circle.modes)
    ]


def _petal(family: Family, member: int, radius: float) -> str:
    curve = family.radial[:, member]
    return drawing.polar_path(curve / max(float(curve.max()), 1e-30), radius)


def _about(angle: float, half: float) -> tuple[float, float]:
    return angle - half, angle + half


def _told(point: tuple[float, float]) -> tuple[str, str]:
    assert all(math.isfinite(value) for value in point)
    return f"{point[0]:.1f}", f"{point[1]:.1f}"
