"""`verify_store` finds every change of a store and names its place."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tendril.data.__main__ import main
from tendril.data.cli import run_command
from tendril.data.errors import TendrilError
from tendril.data.store.faults import shard_faults
from tendril.data.store.reader import open_store
from tendril.data.store.verify import finite_rows, verify_store

from ..helpers import arithmetic, sparse_store

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sparse_store.harvest(tmp_path_factory.mktemp("home"))


@pytest.fixture
def path(whole: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(whole, tmp_path / whole.name))


@pytest.mark.parametrize(
    ("dtype", "elements"), [("float16", 0), ("bfloat16", 0), ("float32", 2), ("int8", 0)]
)
def test_a_whole_store_has_no_faults_and_tells_its_largest_norms(
    tmp_path: Path, dtype: str, elements: int
) -> None:
    path = sparse_store.harvest(tmp_path, dtype, elements)
    found = verify_store(str(path))
    assert found.faults == []
    store = open_store(path)
    for site, told in found.sites.items():
        rows = sparse_store.decoded(path, site)
        valid = store.column("valid")
        norms = np.linalg.norm(rows.reshape(len(rows), -1), axis=1)
        assert told["valid_rows"] == valid.sum() == 174
        assert told["median_norm"] == pytest.approx(np.median(norms[valid]), rel=1e-6)
        outliers = np.flatnonzero(norms > 10 * np.median(norms[valid])).tolist()
        assert told["norm_outliers"] == len(outliers) == 2
        assert [row["row"] for row in told["largest"][:2]] == [37, 100]
        first = told["largest"][0]
        assert (first["input"], first["name"], first["y"], first["x"]) == (6, "number 6", 1, 0)
        assert first["norm"] == pytest.approx(norms[37], rel=1e-6)
        assert first["times_median"] == pytest.approx(norms[37] / told["median_norm"], rel=1e-6)


KINDS = {
    "rows": ("activations/sine/c/3/0", r"chunk 7 of array activations/sine \(rows 84 to 95\)"),
    "an index column": ("x/c/2", r"chunk 2 of array x \(rows 48 to 71\)"),
    "validity": ("valid/c/0", r"chunk 0 of array valid \(rows 0 to 23\)"),
    "norms": ("norms/wave/c/1", r"chunk 1 of array norms/wave \(rows 24 to 47\)"),
    "a mean": ("statistics/sine/mean/c/0", "statistics/sine/mean is missing or altered"),
    "quantiles": (
        "statistics/wave/norm_quantiles/c/0",
        "statistics/wave/norm_quantiles is missing or altered",
    ),
    "a record": ("records/00002/zarr.json", r"records/00002/zarr\.json, metadata of the store"),
    "an array's metadata": ("activations/wave/zarr.json", r"activations/wave/zarr\.json, metadata"),
    "a group's metadata": ("activations/zarr.json", r"activations/zarr\.json, metadata"),
    "the list of files": ("records/zarr.json", r"records/zarr\.json|metadata of the store"),
    "the root": ("zarr.json", r"zarr\.json|must be a store of format"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("part", [0.1, 0.5, 0.95])
def test_a_flipped_bit_in_any_kind_of_file_is_found(path: Path, kind: str, part: float) -> None:
    name, place = KINDS[kind]
    file = path / name
    sparse_store.flip(file, int(part * file.stat().st_size))
    try:
        found = "\n".join(verify_store(str(path)).faults)
    except TendrilError as error:  # the root or the list of files is damaged
        found = str(error)
    if "chunk 7" in place:  # the bit may be in either chunk or in the index
        place = r"chunk [67] of array activations/sine \(rows (72 to 83|84 to 95)\)"
    assert re.search(place, found), found


def test_every_fault_is_listed_and_the_command_leaves_with_2(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sparse_store.flip(path / "x/c/2")
    sparse_store.flip(path / "activations/sine/c/3/0", 10)
    sparse_store.flip(path / "activations/sine/c/4/0", 10)
    (path / "activations/wave/c/1/0").unlink()
    (path / "norms/sine/c/0").write_bytes(b"")
    (path / "records/00006/zarr.json").unlink()
    for flags in ([], ["--json"]):
        monkeypatch.setattr(sys, "argv", ["data", "verify", str(path), *flags])
        with pytest.raises(SystemExit) as left:
            run_command(main)
        out, err = capsys.readouterr()
        assert left.value.code == 2
        assert "7 faults" in err
        assert "Traceback" not in err
        if flags:
            (line,) = out.splitlines()
            found = json.loads(line)["faults"]
        else:
            found = [line for line in out.splitlines() if line.startswith("fault: ")]
        assert len(found) == 7
        for place in (
            r"chunk 2 of array x \(rows 48 to 71\)",
            r"chunk 6 of array activations/sine \(rows 72 to 83\)",
            r"chunk 8 of array activations/sine \(rows 96 to 107\)",
            r"activations/wave/c/1/0 \(rows 24 to 47\) .*is missing",
            r"norms/sine/c/0 \(rows 0 to 23\) .*has 0",
            r"records/00006/zarr.json, metadata of the store, is missing",
            r"record of shard 6",
        ):
            assert any(re.search(place, fault) for fault in found), place


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_found_though_every_digest_is_right(path: Path, value: float) -> None:
    sparse_store.plant(path, "sine", 75, value)
    arrays = open_store(path).arrays
    sizes = arrays.folder.sizes()
    assert not [f for s in range(arrays.layout.shards) for f in shard_faults(arrays, s, sizes)]
    found = verify_store(str(path))
    (fault,) = found.faults
    assert "1 valid rows of chunk 6 of array activations/sine hold NaN or Inf" in fault
    assert "row 75 (input 12, number 12, y 3, x 0)" in fault
    assert found.sites["sine"]["not_finite_rows"] == 1
    assert found.sites["wave"]["not_finite_rows"] == 0


def test_nan_where_the_input_was_unreadable_is_no_fault(whole: Path) -> None:
    store = open_store(whole)
    assert np.isnan(store.read("sine", slice(18, 24))).all()
    assert verify_store(str(whole)).faults == []


def test_rows_that_are_not_those_of_their_norms_and_statistics(path: Path) -> None:
    sparse_store.plant(path, "sine", 75, 9.0)
    told = "\n".join(verify_store(str(path)).faults)
    assert "1 norms of array norms/sine differ from those of the rows of chunk 6" in told
    for name in ("mean", "variance", "zeros"):
        assert f"statistics/sine/{name}" in told
    assert "wave" not in told


def test_int8_rows_without_a_scale_or_of_no_row_are_not_finite() -> None:
    rows = np.array([[1, 2], [3, -128], [5, 6]], np.int8)
    scale = np.array([1, 1, np.nan], np.float32)
    assert finite_rows(rows, "int8", scale).tolist() == [True, False, False]


PEAK = """
import sys
from tendril.bench.measure import peak_memory
from tendril.data.store.verify import verify_store
assert verify_store(sys.argv[1]).faults == []
print(peak_memory())
"""


@pytest.mark.slow
def test_memory_is_flat_when_rows_grow_tenfold(tmp_path: Path) -> None:
    peaks = []
    for inputs in (60, 600):
        path = tmp_path / str(inputs)
        shape = arithmetic.layout(inputs=inputs, per_input=600)
        plain = arithmetic.produce_slowly(shape)
        arithmetic.write_store(
            path, arithmetic.spec("float32"), shape, plain, origin={}, environment={}
        )
        done = subprocess.run(
            [sys.executable, "-c", PEAK, path], cwd=ROOT, capture_output=True, text=True, check=True
        )
        peaks.append(float(done.stdout))
    assert peaks[1] < 1.1 * peaks[0], f"{peaks} MB"
