"""Dataset examples: the strongest rows against sorting all of them, and what is cut out."""

from pathlib import Path

import numpy as np
import pytest

from tendril.data.store.reader import open_store
from tendril.study.measures import image_examples as examples
from tendril.study.measures.image_examples import (
    BLOCK,
    cut,
    keep_best,
    spread_blocks,
    strongest_rows,
)

from ..helpers.arithmetic import BROKEN, harvest


def slow_best(values: np.ndarray, inputs: np.ndarray, count: int) -> list[tuple[float, int]]:
    """Sort everything, take the first row of each input."""
    found: dict[int, tuple[float, int]] = {}
    for row in np.argsort(-values, kind="stable"):
        found.setdefault(int(inputs[row]), (float(values[row]), int(row)))
    return [pair for pair in found.values() if pair[0] > 0][:count]


@pytest.mark.parametrize("block", [7, 64, BLOCK])
def test_strongest_rows_are_those_of_a_full_sort(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
):
    monkeypatch.setattr(examples, "BLOCK", block)
    harvest(tmp_path)
    store = open_store(next(tmp_path.iterdir()))
    inputs, valid = store.column("input"), store.column("valid")
    everything = np.where(valid[:, None], store.read("sine", slice(0, store.rows)), -1)
    best = strongest_rows(store, "sine", lambda x_ND: x_ND[:, [3, 0]], 2, 5)
    for rows, column in zip(best, (3, 0), strict=True):
        expected = slow_best(everything[:, column], inputs, 5)
        assert [(row.value, row.number) for row in rows] == expected
        chosen = [inputs[row.number] for row in rows]
        assert len(set(chosen)) == 5 and BROKEN not in chosen


def test_of_many_rows_blocks_spread_over_the_store_are_read(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(examples, "MOST_ROWS", 4 * BLOCK)
    assert spread_blocks(3 * BLOCK + 1) == [0, BLOCK, 2 * BLOCK, 3 * BLOCK]
    spread = spread_blocks(100 * BLOCK)
    assert len(spread) == 4 and spread[0] == 0 and spread[-1] == 99 * BLOCK


def test_only_the_best_row_of_an_input_is_kept():
    inputs = np.array([0, 0, 0, 1, 1, 2])
    values = np.array([5.0, 9.0, 7.0, 8.0, 1.0, 2.0])
    kept, rows = keep_best(values, np.arange(6), inputs, 2)
    assert kept.tolist() == [9.0, 8.0] and rows.tolist() == [1, 3]


def test_silent_units_have_no_examples():
    values, rows = keep_best(np.empty(0), np.empty(0, dtype=int), np.arange(9), 3)
    assert len(values) == len(rows) == 0


def test_a_patch_repeats_the_edges_of_its_image():
    image = np.arange(5 * 5 * 3, dtype=np.uint8).reshape(5, 5, 3)
    np.testing.assert_array_equal(cut(image, (2, 2), 3), image[1:4, 1:4])
    corner = cut(image, (0, 4), 3)
    np.testing.assert_array_equal(corner[0], corner[1])
    np.testing.assert_array_equal(corner[1:, :2], image[:2, 3:])
    np.testing.assert_array_equal(corner[:, 2], corner[:, 1])
