"""What the page shows of curves planted at any orientation: sentences, a table and a chart."""

from collections.abc import Sequence

import numpy as np

from tendril.models.subjects.synthetic.planted_features import REPRESENTS

from ..page import svg as drawing
from .findings import Findings
from .rings import AT_RANDOM, Ring
from .truth import RECOVERED

SIDE, STRIP, APART = 300.0, 80.0, 26.0  # of the square, and the height of the strip below it
COLUMNS = (
    "radius",
    "planted",
    "with a latent along them (chance)",
    "that has their orientation",
    "latents",
    "cosine, 5 to 95 %",
    "chance",
    "error of orientation, 5 to 95 %",
    f"within {RECOVERED:g}° (chance)",
    "best radius of these latents",
    "median cosine of a unit",
)


def ring_text(findings: Findings) -> str:
    """How many planted curves are found, against chance."""
    result = findings.planted_result()
    units = sum(ring.figures()["represented_by_units"] for ring in findings.rings)
    return (
        f"The weights of this network were written by rule. Its curves have any orientation, at "
        f"{len(findings.rings)} radii; {result['planted']} reference orientations stand for them. "
        f"{result['represented']} of the {result['planted']} have a latent along them, whose "
        f"decoder row has a cosine of at least {REPRESENTS:g} with the planted direction (chance "
        f"{result['represented_by_chance']:.0f}; units {units}). In "
        f"{result['oriented']} of these cases the latent also prefers an orientation within "
        f"{RECOVERED:g}° of the planted one (chance {result['oriented_by_chance']:.0f}). "
        f"The orientation alone shows little here: a curve latent of any direction lies within "
        f"{RECOVERED:g}° of {result['recovered_latents']} of them, where as many latents of random "
        f"orientation would do so for {result['recovered_by_chance']:.0f}."
    )


def ring_tiles(findings: Findings) -> list[dict[str, str]]:
    """The tiles at the top of the page."""
    result = findings.planted_result()
    planted = f"of {result['planted']}"
    return [
        {
            "value": str(result["represented"]),
            "of": planted,
            "text": f"planted curves have a latent along them (cosine {REPRESENTS:g}; chance "
            f"{result['represented_by_chance']:.0f})",
        },
        {
            "value": str(result["oriented"]),
            "of": planted,
            "text": f"planted curves also have its orientation, within {RECOVERED:g}°",
        },
    ]


def ring_rows(rings: Sequence[Ring]) -> list[list[str]]:
    """A row of COLUMNS for each ring."""
    rows = []
    for ring in rings:
        one = ring.figures()
        cosine, low, high = one["cosine"]
        error, least, most = one["error"]
        rows.append(
            [
                f"{ring.radius:g} px",
                str(one["planted"]),
                f"{one['represented']} ({one['represented_by_chance']:.0f})",
                str(one["oriented"]),
                str(one["latents"]),
                f"{cosine:.2f}, {low:.2f} to {high:.2f}",
                f"{one['cosine_chance']:.2f}",
                f"{error:.1f}°, {least:.1f} to {most:.0f}°",
                f"{one['within']} ({one['planted'] * AT_RANDOM:.0f})",
                f"{one['best_radius']:g} px",
                f"{one['unit_cosine']:.2f}",
            ]
        )
    return rows


def ring_charts(rings: Sequence[Ring]) -> list[dict[str, object]]:
    """For each ring, found orientation against the planted one, and below it the cosine."""
    zoom, below = SIDE / 360, SIDE + APART
    charts: list[dict[str, object]] = []
    for ring in rings:
        dots, strip = [], []
        columns = (ring.planted, ring.found, ring.cosine, ring.latent)
        for planted, found, cosine, latent in zip(*columns, strict=True):
            x, hue = f"{planted * zoom:.1f}", f"{planted:.1f}"
            along = "fill hue" if cosine >= REPRESENTS else "stroke hue"
            title = f"planted at {planted:g}°: latent {latent}, cosine {cosine:.2f}"
            y = below + STRIP * (1 - max(float(cosine), 0.0))
            strip.append({"x": x, "y": f"{y:.1f}", "h": hue, "along": along, "title": title})
            if np.isfinite(found):
                where = f"{SIDE - found * zoom:.1f}"
                shown = f"{title}, prefers {found:.0f}°"
                dots.append({"x": x, "y": where, "h": hue, "along": along, "title": shown})
        chance = zip(ring.planted * zoom, below + STRIP * (1 - ring.chance), strict=True)
        charts.append(
            {
                "title": f"Curves of radius {ring.radius:g} pixels",
                "dots": dots,
                "strip": strip,
                "chance": drawing.line_path((float(x), float(y)) for x, y in chance),
                "limit": f"{below + STRIP * (1 - REPRESENTS):.1f}",
            }
        )
    return charts
