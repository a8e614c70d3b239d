"""What a harvest will cost: rows, bytes and seconds."""

from typing import Any

from tendril.data.store.dtypes import ITEM_BYTES
from tendril.data.store.layout import Layout

from .plan import Plan

SPARSE = 0.3  # of raw float16, about what zstd leaves of rows after a ReLU
DENSE = 0.9  # and of a residual stream, where hardly a number is zero


def estimate(plan: Plan, layout: Layout) -> dict[str, Any]:
    """Rows, bytes and seconds that a harvest will take, with a sentence for the terminal."""
    dtype, elements = plan.spec.dtype, max(layout.elements, 1)
    raw = layout.rows * elements * sum(layout.widths.values()) * ITEM_BYTES[dtype]
    left = DENSE if "token" in layout.columns else SPARSE
    stored = raw if layout.compressor == "none" else int(raw * left)
    seconds = plan.seconds(layout)
    of_group = f" of {layout.elements} elements" if layout.elements else ""
    sentence = (
        f"{layout.inputs:,} inputs x {layout.rows_per_input} positions = {layout.rows:,} "
        f"rows{of_group} of "
        + ", ".join(f"{site} ({width})" for site, width in layout.widths.items())
        + f"; about {stored / 1e6:,.0f} MB ({raw / 1e6:,.0f} MB raw {dtype}) and "
        f"{_duration(seconds)} on {plan.device}, into {plan.location}"
    )
    return {
        "rows": layout.rows,
        "bytes": stored,
        "seconds": round(seconds, 1),
        "sentence": sentence,
    }


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
