"""What the page of a crosscoder's parts shows."""

from typing import Any

import numpy as np
from jaxtyping import Float

from .findings import PartFindings

SHOWN = 40  # latents of each kind in the page's table; all are in the CSV
CHART = (900.0, 180.0)


def context(found: PartFindings, own: float, bins: int) -> dict[str, Any]:
    """A histogram of each part's fractions (of two parts one says it all), and the latents that
    belong most to one part."""
    figures, names, fractions_SP = found.figures(), found.names, found.fractions_SP
    drawn = [1] if len(names) == 2 else list(range(len(names)))
    order = np.argsort(-fractions_SP.max(axis=1), kind="stable")
    rows = [int(i) for p in range(len(names)) for i in order[found.owner_S[order] == p][:SHOWN]]
    shared = [int(i) for i in order[::-1] if found.owner_S[i] < 0][:SHOWN]
    return {
        "numbers": _tiles(figures),
        "two": len(names) == 2,
        "names": names,
        "own": f"{own:.0%}",
        "cosines": bool(np.isfinite(found.cosine_S).any()),
        "charts": [_histogram(names[p], fractions_SP[:, p], bins) for p in drawn],
        "rows": [
            {
                "latent": i,
                "own": found.owner(i, "several"),
                "fractions": [f"{fraction:.3f}" for fraction in fractions_SP[i]],
                "cosine": "" if np.isnan(found.cosine_S[i]) else f"{found.cosine_S[i]:.2f}",
            }
            for i in rows + shared
        ],
        "shown": SHOWN,
        "caveats": [
            "A latent of one part alone may also be a shared feature that the sparsity penalty "
            "split in two. Look for a twin in the other part that is active on the same inputs."
        ],
    }


def _tiles(figures: dict[str, Any]) -> list[dict[str, str]]:
    tiles = [{"value": str(figures["shared"]), "text": "latents that several parts share"}]
    tiles += [
        {"value": str(count), "text": f"of {name} alone"} for name, count in figures["own"].items()
    ]
    cosine = figures["median_cosine_of_shared"]
    if cosine is not None:
        text = "median cosine between the directions of a shared latent"
        tiles.append({"value": f"{cosine:.2f}", "text": text})
    return [{"of": "", **tile} for tile in tiles]


def _histogram(name: str, fractions_S: Float[np.ndarray, " s"], bins: int) -> dict[str, Any]:
    """A histogram from 0 to 1 as rectangles of the chart."""
    counts, edges = np.histogram(fractions_S, bins, (0.0, 1.0))
    width, height = CHART
    scale = height / max(int(counts.max()), 1)
    bars = [
        {
            "x": f"{edges[i] * width:.1f}",
            "y": f"{height - count * scale:.1f}",
            "width": f"{width / bins - 1:.1f}",
            "height": f"{count * scale:.1f}",
            "title": f"{edges[i]:.2f} to {edges[i + 1]:.2f}: {count} latents",
        }
        for i, count in enumerate(counts.tolist())
    ]
    return {"name": name, "bars": bars, "most": int(counts.max())}
