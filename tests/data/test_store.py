import base64
import errno
import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xxhash
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tendril.data.errors import (
    StoreDamagedError,
    StoreFullError,
    StoreIncompleteError,
    StoreLockedError,
    StoreNotFoundError,
    StoreVersionError,
)
from tendril.data.store import atomic as files
from tendril.data.store import writer
from tendril.data.store.create import writing
from tendril.data.store.folder import LocalFolder
from tendril.data.store.reader import open_store
from tendril.data.store.record import is_complete, missing_shards
from tendril.data.store.spec import StoreSpec
from tendril.data.store.verify import verify_store

from ..helpers import arithmetic

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a store that no test changes."""
    home = tmp_path_factory.mktemp("made")
    arithmetic.harvest(home)
    return home


@pytest.fixture
def home(made: Path, tmp_path: Path) -> Path:
    """A copy of that home."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.fixture
def path(home: Path) -> Path:
    return home / arithmetic.spec().folder("arithmetic")


def contents(path: Path) -> dict[str, str]:
    """The digest of every file of a store."""
    return {
        p.relative_to(path).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(path.rglob("*"))
        if p.is_file()
    }


def test_a_store_is_the_same_whether_its_description_was_compiled(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "COMPILE_FROM", 0)
    arithmetic.harvest(tmp_path / "compiled")
    assert contents(tmp_path / "compiled" / path.name) == contents(path)


def test_stored_rows_are_what_was_produced(path: Path) -> None:
    store = open_store(path)
    valid = store.column("valid")
    assert valid.sum() == 49 * 6
    assert not valid[18:24].any()
    for site in store.sites:
        expected = arithmetic.rows_of(site, range(50), 6).astype(np.float16)
        got = store.read(site, slice(0, store.rows))
        assert np.array_equal(got[valid], expected[valid].astype(np.float32))
        assert np.isnan(got[~valid]).all()
    assert np.array_equal(store.column("input"), np.repeat(np.arange(50), 6))
    assert np.array_equal(store.column("y"), np.tile(np.arange(6), 50))
    assert store.input_name(49) == "number 49"


def test_a_plain_zarr_program_reads_everything(path: Path) -> None:
    group = zarr.open(path, mode="r")
    rows, valid = group["activations/sine"][:], group["valid"][:]
    assert rows.dtype == np.float16
    kept = rows[valid].astype(np.float64)
    np.testing.assert_allclose(group["statistics/sine/mean"][:], kept.mean(0), rtol=1e-12)
    np.testing.assert_allclose(group["statistics/sine/variance"][:], kept.var(0), rtol=1e-12)
    about = group.attrs["tendril"]
    assert about["complete"] is True
    assert about["spec"]["sites"] == ["sine", "wave"]
    record = group["records/00000"].attrs
    assert record["inputs"] == [f"number {i}" for i in range(4)]
    assert record["failures"] == [{"input": 3, "name": "number 3", "reason": "three is broken"}]
    first, end = record["rows"]
    own = rows[first:end][valid[first:end]].astype(np.float64)
    moments = record["moments"]["sine"]
    mean = np.frombuffer(base64.b64decode(moments["mean"]), "<f8")
    zeros = np.frombuffer(base64.b64decode(moments["zeros"]), "<i8")
    np.testing.assert_allclose(mean, own.mean(0), rtol=1e-12)
    assert (moments["count"], zeros.tolist()) == (len(own), (own == 0).sum(0).tolist())
    for name, file in record["files"].items():
        assert xxhash.xxh128_hexdigest((path / name).read_bytes()) == file["xxh128"]
    assert len(list(group.members(max_depth=None))) > 20  # zarr can list all of it


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("compressor", ["zstd", "lz4", "none"])
def test_every_dtype_and_compressor(tmp_path: Path, dtype: str, compressor: str) -> None:
    shape = arithmetic.layout(inputs=9)
    shape = type(shape)(**(vars(shape) | {"compressor": compressor}))
    spec = arithmetic.spec(dtype)
    path = tmp_path / spec.folder("a")
    arithmetic.write_store(
        path, spec, shape, arithmetic.produce_slowly(shape), origin={}, environment={}
    )
    store = open_store(path)
    valid = store.column("valid")
    expected = arithmetic.rows_of("wave", range(9), 6)
    tolerance = {"float16": 5e-4, "bfloat16": 4e-3, "float32": 0}[dtype]
    np.testing.assert_allclose(
        store.read("wave", slice(0, 54))[valid], expected[valid], rtol=0, atol=tolerance
    )
    bits = zarr.open(path)["activations/wave"].attrs.get("bits_of")
    assert bits == ("bfloat16" if dtype == "bfloat16" else None)


def test_two_harvests_are_byte_identical(home: Path, path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    arithmetic.harvest(other)
    assert contents(other / path.name) == contents(path)


def test_a_harvest_killed_ten_times_is_byte_identical(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.helpers.arithmetic"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run([*command, whole, "200", "0"], cwd=ROOT, check=True)
    for moment in np.random.default_rng(0).uniform(0.3, 0.8, 10):
        process = subprocess.Popen([*command, killed, "200", "0.06"], cwd=ROOT)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=moment)
        process.kill()
        process.wait()
    subprocess.run([*command, killed, "200", "0"], cwd=ROOT, check=True)
    assert contents(killed) == contents(whole)


@settings(max_examples=10)
@given(stops=st.lists(st.integers(1, 60), max_size=4))
def test_a_write_that_fails_anywhere_loses_nothing(
    six_shards: Path, tmp_path_factory: pytest.TempPathFactory, stops: list[int]
) -> None:
    """The disk is full at the n-th file, several times; then there is room."""
    home = tmp_path_factory.mktemp("full")
    for stop in stops:
        with pytest.MonkeyPatch.context() as patch, pytest.raises(StoreFullError):
            fail_at(patch, stop)
            arithmetic.harvest(home, inputs=24)
            raise StoreFullError("the harvest ended first")  # a later stop may come after the end
    arithmetic.harvest(home, inputs=24)
    assert contents(home) == contents(six_shards)


@pytest.fixture(scope="module")
def six_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("six")
    arithmetic.harvest(home, inputs=24)
    return home


def fail_at(patch: pytest.MonkeyPatch, number: int) -> None:
    """Raise ENOSPC at a given number of fsyncs of files from now on."""
    real, count = os.fsync, iter(range(1, 10**6))

    def fsync(handle: int) -> None:
        if stat.S_ISREG(os.fstat(handle).st_mode) and next(count) >= number:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    patch.setattr(files.os, "fsync", fsync)


def test_a_full_disk_is_one_sentence_and_leaves_no_litter(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        fail_at(patch, 7)
        with pytest.raises(StoreFullError, match=r"disk is full.*Make room"):
            arithmetic.harvest(tmp_path)
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize("harm", ["delete", "empty", "truncate"])
def test_a_lost_shard_file_is_named_and_made_anew(home: Path, path: Path, harm: str) -> None:
    whole = contents(path)
    file = path / "activations/sine/c/5/0"
    content = file.read_bytes()
    store = open_store(path)
    if harm == "delete":
        file.unlink()
    else:
        file.write_bytes(b"" if harm == "empty" else content[:-9])
    with pytest.raises(StoreDamagedError, match=r"sine/c/5/0 \(rows 120 to 143\)"):
        open_store(path)
    with pytest.raises(StoreDamagedError, match=r"sine/c/5/0"):
        store.read("sine", slice(0, 300))  # also if it vanishes after opening
    assert not is_complete(LocalFolder(path))
    arithmetic.harvest(home)
    assert contents(path) == whole


@given(st.data())
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_flipped_bit_in_a_chunk_is_named(path: Path, data: st.DataObject) -> None:
    shard = data.draw(st.integers(0, 12))
    file = path / f"activations/sine/c/{shard}/0"
    content = file.read_bytes()
    place = data.draw(st.integers(0, len(content) - 1))
    flipped = bytearray(content)
    flipped[place] ^= 1 << data.draw(st.integers(0, 7))
    file.write_bytes(bytes(flipped))
    try:
        with pytest.raises(
            StoreDamagedError, match=r"chunk \d+ of array activations/sine \(rows \d+ to \d+\)"
        ):
            open_store(path).read("sine", slice(0, 300))
        assert verify_store(str(path)).faults
    finally:
        file.write_bytes(content)
    assert verify_store(str(path)).faults == []


def test_a_damaged_statistic_is_named(path: Path) -> None:
    (path / "statistics/sine/mean/c/0").unlink()
    with pytest.raises(StoreDamagedError, match="statistics/sine/mean"):
        open_store(path).moments("sine")


def test_two_writers_are_one_too_many(tmp_path: Path) -> None:
    spec, shape = arithmetic.spec(), arithmetic.layout()
    path = tmp_path / "store"
    with (
        writing(path, spec, shape, origin={}, environment={}),
        pytest.raises(StoreLockedError, match="another process"),
        writing(path, spec, shape, origin={}, environment={}),
    ):
        pass
    with writing(path, spec, shape, origin={}, environment={}) as writer:
        assert len(writer.missing()) == 13


def test_an_incomplete_store_is_not_read(home: Path, path: Path) -> None:
    metadata = json.loads((path / "zarr.json").read_bytes())
    metadata["attributes"]["tendril"]["complete"] = False
    (path / "zarr.json").write_text(json.dumps(metadata))
    shutil.rmtree(path / "records/00004")
    with pytest.raises(StoreIncompleteError, match="12 of 13 shards"):
        open_store(path)
    assert missing_shards(LocalFolder(path)) == [4]


def test_another_version_or_no_store_is_said(path: Path) -> None:
    with pytest.raises(StoreNotFoundError, match=rf"holds {path.name}\)\. `tendril harvest"):
        open_store(path.with_name("nowhere"))
    text = (path / "zarr.json").read_text().replace('"format": 3', '"format": 99')
    (path / "zarr.json").write_text(text)
    with pytest.raises(StoreVersionError, match="format 3; got format 99"):
        open_store(path)
    (path / "zarr.json").write_text("{")
    with pytest.raises(StoreDamagedError, match=r"zarr\.json"):
        open_store(path)


def test_a_store_holds_no_absolute_path(path: Path) -> None:
    for file in path.rglob("zarr.json"):
        assert str(path.parent) not in file.read_text()


def test_the_spec_in_the_store_is_its_identity(path: Path) -> None:
    about = json.loads((path / "zarr.json").read_bytes())["attributes"]["tendril"]
    canonical = json.dumps(about["spec"], sort_keys=True, separators=(",", ":"))
    assert hashlib.sha256(canonical.encode()).hexdigest() == about["digest"]
    assert path.name.endswith(about["digest"][:12])
    assert isinstance(arithmetic.spec(), StoreSpec)
