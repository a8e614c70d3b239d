"""Recompute slices with another batch size: the rows of an input must not depend on its batch.

Recomputing as the harvest did repeats a mistake about which dimension holds the images. With
another batch size such a mistake gives other rows.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tendril.data.store.layout import Layout

from .loop import SliceRows
from .plan import Plan

MOVED = 0.01  # fraction of rows whose drawn position may differ through rounding

Compare = Callable[[np.ndarray, np.ndarray], np.ndarray]  # rows, rows -> difference of each row


@dataclass
class OtherBatch:
    """The batch sizes that were compared, and for each site the rows that differ by more than
    the tolerance; `rows` counts all rows that were compared, `moved` those drawn elsewhere."""

    size: int = 0
    other: int = 0
    rows: int = 0
    moved: int = 0
    largest: float = 0.0

    def faults(self, differing: dict[str, int]) -> list[str]:
        """One sentence for each site whose rows depend on the batch size."""
        with_other = f"with batches of {self.other} in place of {self.size}"
        why = "The rows of an input must not depend on its batch: harvest another site."
        told = [
            f"{with_other}, {count} of {self.rows} rows at {site} differ. {why}"
            for site, count in differing.items()
            if count
        ]
        if self.moved > 1 + MOVED * (self.rows + self.moved):
            total = self.rows + self.moved
            told.append(
                f"{with_other}, {self.moved} of {total} rows are drawn at other positions. {why}"
            )
        return told


def with_other_batch(
    plan: Plan,
    layout: Layout,
    parts: Sequence[SliceRows],
    compare: Compare,
    tolerance: float,
) -> tuple[OtherBatch, list[str]]:
    """Recompute `parts` with another batch size, and compare their rows. Returns what was
    compared and the faults. A store of a single input has no other batch size."""
    done, differing = OtherBatch(), dict.fromkeys(layout.widths, 0)
    for part in parts:
        batches = _other_batches(part.inputs, layout.inputs)
        if not batches:
            continue
        done.size, done.other = len(part.inputs), len(batches[0])
        again = list(plan.producer(done.other)(batches))
        place = {
            key: (p, row) for p, piece in enumerate(again) for key, row in _keys(piece, layout)
        }
        pairs = [(row, place.get(key)) for key, row in _keys(part, layout)]
        found = [(row, at) for row, at in pairs if at is not None]
        done.rows += len(found)
        done.moved += len(pairs) - len(found)
        rows = [row for row, _ in found]
        for site in layout.widths:
            if not found:
                continue
            fresh = np.stack([again[p].activations[site][row] for _, (p, row) in found])
            relative = compare(fresh, part.activations[site][rows])
            differing[site] += int((~(relative <= tolerance)).sum())
            done.largest = max(done.largest, float(relative.max(initial=0)))
    return done, done.faults(differing)


def _other_batches(inputs: range, total: int) -> list[range]:
    """Slices of another size that hold `inputs`: halves, or two inputs in place of one."""
    if len(inputs) > 1:
        middle = inputs.start + len(inputs) // 2
        return [range(inputs.start, middle), range(middle, inputs.stop)]
    start = min(inputs.start, total - 2)
    return [range(start, start + 2)] if total > 1 else []


def _keys(part: SliceRows, layout: Layout) -> list[tuple[tuple[int, ...], int]]:
    """The (input, position) and the number of each valid row of a slice."""
    columns = [part.columns[c] for c in layout.columns]
    keys = []
    for row in range(len(part.inputs) * layout.rows_per_input):
        index = part.inputs.start + row // layout.rows_per_input
        if index not in part.failures and (part.valid is None or part.valid[row]):
            keys.append(((index, *(int(column[row]) for column in columns)), row))
    return keys
