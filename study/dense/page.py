"""What the study of dense latents shows."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tendril.data.store.tables import columns

from ..page.charts import Axis, Series, chart
from .findings import ALMOST, Dense

MOST = 60  # latents in the table of the page
RUNS = ("run", "latents", "alive", "dense", "denser than 0.3", "with an opposite", "span removed",
        "FVU")  # fmt: skip
PARTS = ("property", "counts above", "of dense latents", "of others")


def run_rows(figures: Mapping[str, Any]) -> list[list[str]]:
    """A row a run."""
    return [[str(value) if value != "" else "-" for value in one.values()]
            for one in figures["runs"]]  # fmt: skip


def property_rows(figures: Mapping[str, Any]) -> list[list[str]]:
    """A row a property: how many dense latents, and how many others, it counts for."""
    return [
        [
            one["property"],
            f"{one['above']:g}",
            *(_percent(one[name]) for name in ("dense", "others")),
        ]
        for one in figures["properties"]
    ]


def _percent(value: float | str) -> str:
    return "-" if isinstance(value, str) else f"{100 * value:.0f} %"


def table(figures: Mapping[str, Any]) -> str:
    """Runs and properties as text."""
    return "\n\n".join(
        columns(rows) for rows in ([RUNS, *run_rows(figures)], [PARTS, *property_rows(figures)])
    )


def headline(figures: Mapping[str, Any]) -> str:
    """How many latents are dense, and how many of them are explained."""
    share = figures["dense"] / figures["latents"]
    said = (
        f"{figures['dense']} of {figures['latents']} latents ({100 * share:.1f} %) are active on "
        f"more than {100 * figures['above']:g} % of the vectors"
    )
    if not figures["dense"]:
        return f"{said}."
    return (
        f"{said}; {figures['with_opposite']} of them have an opposite, and "
        f"{figures['unexplained']} neither an opposite nor one of the properties."
    )


def context(found: Dense, command: str) -> dict[str, Any]:
    """What page.html shows."""
    figures = found.figures()
    records = found.records()[: min(MOST, int(found.dense_S.sum()))]
    return {
        "lead": headline(figures),
        "command": command,
        "runs": [list(RUNS), *run_rows(figures)],
        "properties": [list(PARTS), *property_rows(figures)],
        "latents": [list(records[0]), *([_cell(v) for v in one.values()] for one in records)]
        if records
        else [],
        "density": _density(found),
        "pairs": _pairs(found),
        "almost": ALMOST,
        "others": int((~found.dense_S).sum()),
        "several": len(found.counted) > 1,
        "rows": f"{found.rows:,}",
    }


def _cell(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def _density(found: Dense) -> Any:
    alive = np.sort(found.all_frequency[found.all_frequency > 0])[::-1]
    rank = np.arange(1, len(alive) + 1, dtype=float)
    level = np.full(2, found.threshold)
    return chart(
        [
            Series("latents", rank, alive),
            Series("dense above", np.array([1.0, max(len(alive), 2.0)]), level, dashed=True),
        ],
        Axis("latents, most frequent first", log=True),
        Axis("fraction of vectors", log=True),
    )


def _pairs(found: Dense) -> Any:
    alive = found.all_frequency > 0
    dense = found.all_frequency > found.threshold
    return chart(
        [
            Series("others", found.all_frequency[alive & ~dense], found.all_score[alive & ~dense],
                   points=True),
            Series("dense", found.all_frequency[dense], found.all_score[dense], points=True),
        ],
        Axis("fraction of vectors", log=True),
        Axis("antipodality", from_zero=True),
    )  # fmt: skip
