"""Norm outliers: rows that a trainer may keep, drop or cap."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tendril.data.errors import ConfigError
from tendril.data.store.reader import open_store

from ..helpers import sparse_store


@pytest.fixture(scope="module", params=["float16", "float32", "int8"])
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sparse_store.harvest(tmp_path_factory.mktemp("home"), request.param)


def epoch(path: Path, site: str = "sine", **options: object) -> np.ndarray:
    """All rows of an epoch, sorted."""
    batches = open_store(path).batches(site, 50, part="all", epochs=1, **options)  # type: ignore[arg-type]
    rows = torch.cat(list(batches)).numpy()
    return rows[np.lexsort(rows.T)]


def stored(path: Path, site: str = "sine") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Valid rows by plain zarr, which of them are norm outliers, and the limit."""
    rows = sparse_store.decoded(path, site)[open_store(path).column("valid")]
    norms = np.linalg.norm(rows, axis=1)
    limit = 10 * np.median(norms)
    return rows.astype(np.float32), norms > limit, limit


def test_norms_are_those_of_the_rows_as_a_reader_gets_them(path: Path) -> None:
    store = open_store(path)
    norms, valid = store.norms("sine"), store.column("valid")
    expected = np.linalg.norm(sparse_store.decoded(path, "sine"), axis=1)
    np.testing.assert_allclose(norms[valid], expected[valid], rtol=1e-6)
    assert np.isnan(norms[~valid]).all()
    assert np.flatnonzero(store.norm_outliers("sine")).tolist() == list(sparse_store.OUTLIERS)


def test_drop_removes_exactly_the_outliers(path: Path) -> None:
    rows, outliers, _ = stored(path)
    assert outliers.sum() == 2
    expected = rows[~outliers]
    assert np.array_equal(epoch(path, norm_outliers="drop"), expected[np.lexsort(expected.T)])
    assert np.array_equal(epoch(path, norm_outliers="keep"), rows[np.lexsort(rows.T)])


def test_cap_scales_the_outliers_to_the_limit_and_no_other_rows(path: Path) -> None:
    rows, outliers, limit = stored(path)
    norms = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    expected = np.where(outliers[:, None], rows * (limit / norms), rows).astype(np.float32)
    got = epoch(path, norm_outliers="cap")
    expected = expected[np.lexsort(expected.T)]
    np.testing.assert_allclose(got, expected, rtol=2e-6)
    lengths = np.linalg.norm(got.astype(np.float64), axis=1)
    assert lengths.max() == pytest.approx(limit, rel=1e-5)
    assert np.isclose(lengths, limit, rtol=1e-5).sum() == 2


def test_the_limit_is_a_number_of_medians(path: Path) -> None:
    rows, _, limit = stored(path)
    norms = np.linalg.norm(rows, axis=1)
    for times in (1.1, 50.0):
        kept = epoch(path, norm_outliers="drop", outlier_times=times)
        assert len(kept) == (norms <= times * limit / 10).sum() < len(rows)


def test_of_several_sites_a_row_is_dropped_if_it_is_an_outlier_of_any(path: Path) -> None:
    store = open_store(path)
    outliers = store.norm_outliers("sine", 1.05) | store.norm_outliers("wave", 1.05)
    options = {"part": "all", "epochs": 1, "norm_outliers": "drop", "outlier_times": 1.05}
    batches = list(store.batches(["sine", "wave"], 50, **options))  # type: ignore[arg-type]
    assert sum(len(batch["sine"]) for batch in batches) == (store.column("valid") & ~outliers).sum()


def test_an_unknown_rule_is_named(path: Path) -> None:
    with pytest.raises(ConfigError, match=r"must be one of keep, drop, cap; got 'clip'"):
        open_store(path).batches("sine", 4, norm_outliers="clip")
