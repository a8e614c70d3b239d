"""What int8 loses is measured as rows are written, and told."""

import json
from pathlib import Path

import numpy as np
import pytest

from tendril.data.store.dtypes import quantise
from tendril.data.store.inspect import describe_store, summarise
from tendril.data.store.rounding import SAMPLE, no_rounding, rounding_of, rounding_warning
from tendril.data.store.tables import statistics
from tendril.data.store.tables import store as table

from ..helpers import sparse_store


def rows(times: float, count: int = 4000, width: int = 64) -> np.ndarray:
    """Normal rows, one channel of which is `times` as large."""
    found = np.random.default_rng(0).standard_normal((count, width)).astype(np.float32)
    found[:, 7] = times * (1 + 0.1 * found[:, 7])
    return found


@pytest.mark.parametrize(
    ("times", "low", "high"), [(1, 0, 1e-3), (100, 0.03, 0.2), (600, 0.9, 1.1)]
)
def test_the_error_is_that_of_the_other_channels(times: float, low: float, high: float) -> None:
    x_RD = rows(times)
    stored, scale = quantise(x_RD, "here")
    total = no_rounding(64)
    for start in range(0, len(x_RD), 200):
        at = slice(start, start + 200)
        total = total.merge(rounding_of(x_RD[at], stored[at], scale[at]))
    found = total.summary()
    assert found is not None
    error = (stored.astype(np.float64) * scale[:, None] - x_RD) ** 2
    variance = x_RD.astype(np.float64).var(axis=0)
    assert found["median"] == pytest.approx(np.median(error.mean(axis=0) / variance), rel=1e-3)
    assert found["total"] == pytest.approx(error.mean(axis=0).sum() / variance.sum(), rel=1e-3)
    assert found["rows"] == len(x_RD)
    assert low <= found["median"] <= high
    assert ("median channel of here" in rounding_warning("here", found)) == (low > 0.01)


def test_a_large_slice_is_measured_on_a_sample() -> None:
    x_RD = rows(100)
    found = rounding_of(x_RD, *quantise(x_RD, "here")).summary()
    assert found is not None
    assert SAMPLE // 2 < found["rows"] <= SAMPLE
    error = (lambda q, s: q * s[:, None].astype(np.float64) - x_RD)(*quantise(x_RD, "here")) ** 2
    of_all = np.median(error.mean(axis=0) / x_RD.var(axis=0))
    assert found["median"] == pytest.approx(of_all, rel=0.2)


def test_rows_that_are_none_or_all_the_same_have_no_error_to_tell() -> None:
    assert no_rounding(4).summary() is None
    same = np.ones((5, 4), np.float32)
    assert rounding_of(same, *quantise(same, "here")).summary() is None
    none = np.zeros((0, 4), np.float32)
    assert rounding_of(none, *quantise(none, "here")).before.count == 0
    assert rounding_warning("here", None) == ""


@pytest.mark.parametrize("elements", [0, 3])
def test_info_and_stats_tell_it(tmp_path: Path, elements: int) -> None:
    path = sparse_store.harvest(tmp_path, "int8", elements)
    about, stats = describe_store(str(path), path.name), summarise(str(path))
    lost = about["sites"]["sine"]["int8_error"]
    assert lost == stats["sites"]["sine"]["int8_error"]
    assert 0 < lost["total"] < 0.01
    assert f"sine: int8 loses {lost['total']:.2%} of the variance" in table(about)
    assert "wave: int8 loses" in statistics(stats)
    record = json.loads((path / "records/00000/zarr.json").read_bytes())["attributes"]
    assert record["rounding"].keys() == {"sine", "wave"}


def test_stores_of_other_dtypes_and_old_ones_are_as_they_were(tmp_path: Path) -> None:
    path = sparse_store.harvest(tmp_path, "float16")
    record = json.loads((path / "records/00000/zarr.json").read_bytes())["attributes"]
    assert "rounding" not in record
    assert "int8_error" not in summarise(str(path))["sites"]["sine"]
    old = sparse_store.harvest(tmp_path, "int8")
    for file in old.glob("records/*/zarr.json"):
        content = json.loads(file.read_bytes())
        for key in ("rounding", "digest"):
            content["attributes"].pop(key)
        file.write_text(json.dumps(content))
    assert "was not measured" in table(describe_store(str(old), old.name))
