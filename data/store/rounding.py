"""What storing rows as int8 loses: the error of rounding, next to the variance of the rows.

All values of a row share one scale, so a channel that is a hundred times larger than the others
leaves the others few of the 127 steps. The error of a channel is held against its own variance,
because the large channel's variance would hide it.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from jaxtyping import Float32, Int8

from ..errors import ConfigError
from .dtypes import decode_rows
from .moments import Moments, moments_from_json, moments_of, moments_to_json, no_moments

MOST_ERROR = 0.01
"""Fraction of the variance that rounding may lose without a warning."""
REFUSED = 0.25
"""Fraction of the median channel's variance above which int8 is refused."""
SAMPLE = 256
"""Rows of a slice that are measured, at most."""


@final
@dataclass(frozen=True)
class Rounding:
    """The moments of rows before rounding, and in `error` those of what rounding adds to them."""

    before: Moments
    error: Moments

    def merge(self, other: "Rounding") -> "Rounding":
        """The rounding of the rows of both."""
        return Rounding(self.before.merge(other.before), self.error.merge(other.error))

    def summary(self) -> dict[str, float | int] | None:
        """`total`: the sum over channels of E(x' - x)^2, as a fraction of that of the variance.
        `median`: the median over channels that vary of E(x' - x)^2 / variance. `rows` were
        measured. None if no row varies."""
        variance_D = self.before.variance
        error_D = self.error.variance + self.error.mean**2
        varies_D = variance_D > 0
        if not varies_D.any():
            return None
        return {
            "total": float(error_D.sum() / variance_D.sum()),
            "median": float(np.median(error_D[varies_D] / variance_D[varies_D])),
            "rows": self.before.count,
        }


def no_rounding(width: int) -> Rounding:
    """The rounding of zero rows, from which merging starts."""
    return Rounding(no_moments(width), no_moments(width))


def rounding_of(
    rows: Float32[np.ndarray, " r *d"],
    stored: Int8[np.ndarray, " r *d"],
    scale: Float32[np.ndarray, " r"],
) -> Rounding:
    """The rounding of a sample of rows, evenly spaced."""
    width = math.prod(rows.shape[1:])
    if not len(rows):
        return no_rounding(width)
    some = slice(None, None, -(-len(rows) // SAMPLE))
    before = np.ascontiguousarray(rows[some], np.float32).reshape(-1, width)
    after = decode_rows(stored[some], "int8", scale[some]).reshape(-1, width)
    return Rounding(moments_of(before), moments_of(after - before))


def rounding_to_json(rounding: Rounding) -> dict[str, Any]:
    """The entry of a site in a record."""
    return {
        "before": moments_to_json(rounding.before),
        "error": moments_to_json(rounding.error),
    }


def rounding_on_record(
    records: Iterable[Mapping[str, Any]], site: str
) -> dict[str, float | int] | None:
    """The summary of the rounding of a site; None for stores that have none on record."""
    total: Rounding | None = None
    for record in records:
        fields = record.get("rounding", {}).get(site)
        if fields is not None:
            of_shard = Rounding(
                moments_from_json(fields["before"]), moments_from_json(fields["error"])
            )
            total = of_shard if total is None else total.merge(of_shard)
    return total.summary() if total else None


def rounding_warning(site: str, found: Mapping[str, float | int] | None) -> str:
    """A sentence if int8 loses much of the variance of a site, else an empty string."""
    if found is None or max(found["total"], found["median"]) <= MOST_ERROR:
        return ""
    return (
        f"warning: int8 loses {found['median']:.1%} of the variance of the median channel of "
        f"{site} ({found['total']:.1%} of the variance of all channels together), because the "
        "largest channels of a row set its scale. Harvest with --dtype bfloat16 (or float16)."
    )


def refuse_rounding(site: str, found: Mapping[str, float | int] | None) -> None:
    """Raise ConfigError if int8 loses more than a quarter of the median channel's variance."""
    if found is not None and found["median"] > REFUSED:
        raise ConfigError(
            f"--dtype int8 must lose at most {REFUSED:.0%} of the variance of the median channel; "
            f"at {site} it loses {found['median']:.0%}, because the largest channels of a row set "
            "its scale. Harvest with --dtype bfloat16 (or float16)."
        )
