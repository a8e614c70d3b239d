"""Readers ask what they can know: digests of metadata, names, lengths, kinds of entries."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tendril.data.errors import StoreDamagedError, StoreVersionError, TendrilError
from tendril.data.listing.describe import overview
from tendril.data.listing.entries import at_path, exact_entry
from tendril.data.listing.remove import remove_entry
from tendril.data.store.codec import ChunkError, decode_chunk, encode_chunk
from tendril.data.store.folder import LocalFolder, sweep_beside
from tendril.data.store.inspect import describe_store, summarise
from tendril.data.store.reader import open_store
from tendril.data.store.record import is_complete
from tendril.data.store.verify import verify_store

from ..helpers import arithmetic, sparse_store
from .test_flips import begun, content_of, stopped, whole  # fixtures

__all__ = ["begun", "stopped", "whole"]


@pytest.fixture
def path(whole: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(whole, tmp_path / whole.name))


def swap(first: Path, second: Path) -> None:
    aside = first.with_name("aside")
    first.rename(aside)
    second.rename(first)
    aside.rename(second)


SWAPS = {
    "rows": ("activations/sine/c/0/0", "activations/sine/c/1/0"),
    "columns": ("input/c/0", "input/c/1"),
    "other columns": ("y/c/1", "x/c/1"),
    "norms": ("norms/sine/c/0", "norms/wave/c/0"),
    "records": ("records/00000/zarr.json", "records/00001/zarr.json"),
    "statistics": ("statistics/sine/mean/c/0", "statistics/sine/variance/c/0"),
    "sites": ("statistics/sine/zarr.json", "statistics/wave/norm_quantiles/zarr.json"),
}


@pytest.mark.parametrize(("compressor", "at_once"), [("zstd", 2**26), ("none", 0)])
@pytest.mark.parametrize("kind", SWAPS)
def test_swapped_files_are_found(
    tmp_path: Path, kind: str, compressor: str, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records, too, when they are checked only as they are read."""
    monkeypatch.setattr("tendril.data.store.chunks.RECORDS_AT_ONCE", at_once)
    shape = arithmetic.layout(inputs=12)
    shape = type(shape)(**(vars(shape) | {"compressor": compressor}))
    path = tmp_path / arithmetic.spec().folder("plain")
    arithmetic.write_store(
        path,
        arithmetic.spec(),
        shape,
        arithmetic.produce_slowly(shape),
        origin={},
        environment={},
    )
    truth = content_of(open_store(path))
    swap(*(path / name for name in SWAPS[kind]))
    with pytest.raises(StoreDamagedError):
        content_of(open_store(path))
    try:
        found = verify_store(str(path)).faults
    except TendrilError as error:
        found = [str(error)]
    assert found
    swap(*(path / name for name in SWAPS[kind]))
    assert content_of(open_store(path)) == truth


def test_a_store_under_the_name_of_another_is_refused(path: Path) -> None:
    other = path.with_name("arithmetic-0123456789ab")
    path.rename(other)
    with pytest.raises(StoreDamagedError, match=r"must end with .*; got 0123456789ab"):
        open_store(other)
    with pytest.raises(StoreDamagedError, match=r"must end with"):
        is_complete(LocalFolder(other))
    assert "must end with" in "".join(verify_store(str(other)).faults)
    other.rename(path.with_name("any"))
    open_store(path.with_name("any"))


@pytest.mark.parametrize(
    "change",
    [
        lambda about: about["spec"].update(seed=7),
        lambda about: about["spec"]["subject"].update(name="other"),
        lambda about: about["origin"].update(inputs="elsewhere"),
        lambda about: about["layout"].update(inputs=9),
    ],
)
def test_changed_metadata_are_found(path: Path, change: Callable[[Any], None]) -> None:
    root = json.loads((path / "zarr.json").read_bytes())
    change(root["attributes"]["tendril"])
    (path / "zarr.json").write_text(json.dumps(root))
    with pytest.raises(StoreDamagedError):
        open_store(path)
    with pytest.raises(StoreDamagedError):
        is_complete(LocalFolder(path))
    assert verify_store(str(path)).faults


def test_a_spec_with_right_digests_of_files_is_held_against_its_own(path: Path) -> None:
    root = json.loads((path / "zarr.json").read_bytes())
    root["attributes"]["tendril"]["spec"]["seed"] = 7
    (path / "zarr.json").write_text(json.dumps(root))
    sparse_store.reseal(path)
    with pytest.raises(StoreDamagedError, match="does not match its digest"):
        open_store(path)
    (fault,) = verify_store(str(path)).faults
    assert "does not match its digest" in fault


VALUES: list[Any] = [None, True, -1, 10**30, 1e400, "text", [], [[]], {}, {"a": []}]


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON value, outermost first."""
    inner = value.items() if isinstance(value, dict) else []
    if isinstance(value, list):
        inner = enumerate(value[:2])
    return [at] + [place for key, one in inner for place in places(one, (*at, key))]


@pytest.mark.parametrize("name", ["zarr.json", "records/00001/zarr.json", "records/zarr.json"])
@pytest.mark.parametrize("kind", ["complete", "incomplete"])
def test_malformed_metadata_are_sentences(
    request: pytest.FixtureRequest, tmp_path: Path, name: str, kind: str
) -> None:
    """Values of every other kind at every place, with and without right digests."""
    path = tmp_path / arithmetic.spec().folder("arithmetic")
    shutil.copytree(request.getfixturevalue("whole" if kind == "complete" else "begun"), path)
    before = {p: p.read_bytes() for p in path.rglob("zarr.json")}
    rng = np.random.default_rng(0)
    for at in places(json.loads((path / name).read_bytes())):
        value = VALUES[int(rng.integers(len(VALUES)))]
        for resealed in (False, True) if kind == "complete" and name == "zarr.json" else (False,):
            changed = json.loads(before[path / name])
            holder = changed
            for key in at[:-1]:
                holder = holder[key]
            if at:
                holder[at[-1]] = value
            else:
                changed = value
            (path / name).write_text(json.dumps(changed))
            if resealed:
                sparse_store.reseal(path)
            for call in (
                lambda: content_of(open_store(path)),
                lambda: verify_store(str(path)),
                lambda: describe_store(str(path), "it"),
                lambda: summarise(str(path)),
                lambda: is_complete(LocalFolder(path)),
            ):
                try:
                    call()
                except TendrilError as error:
                    assert len(str(error).splitlines()) == 1
            entry = at_path(str(path))
            assert entry is not None
            overview(entry)
            for file, content in before.items():
                file.write_bytes(content)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 10**5, b"1" * 5000])
def test_roots_that_are_no_json_are_sentences(path: Path, content: bytes) -> None:
    (path / "zarr.json").write_bytes(content)
    for call in (open_store, lambda p: verify_store(str(p)), lambda p: describe_store(str(p), "")):
        with pytest.raises((StoreDamagedError, StoreVersionError)):
            call(path)


@pytest.mark.parametrize("compressor", ["zstd", "lz4", "none"])
@pytest.mark.parametrize("count", [1, 5, 200, 70_000])
def test_a_chunk_that_unpacks_to_another_length_is_an_error(compressor: str, count: int) -> None:
    rows = np.arange(count, dtype=np.float32)
    content = np.frombuffer(encode_chunk(rows, compressor), np.uint8)
    again = np.full(count, -1, np.float32)
    decode_chunk(content, compressor, again)
    assert np.array_equal(again, rows)
    for other in (count - 1, count + 1, 2 * count + 300):
        with pytest.raises(ChunkError, match=rf"must have {4 * other} bytes; got {4 * count}"):
            decode_chunk(content, compressor, np.empty(other, np.float32))


def test_an_earlier_store_is_read_and_continued(
    whole: Path, begun: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without digests of records, checksums of chunks, and digests of unfinished metadata."""
    for made, name in ((whole, "read"), (begun, "continued")):
        path = tmp_path / name / made.name
        shutil.copytree(made, path)
        truth = content_of(open_store(whole))
        for record_at in path.glob("records/*/zarr.json"):
            record = json.loads(record_at.read_bytes())
            record["attributes"].pop("digest")
            for file in record["attributes"]["files"].values():
                file.pop("crc32c")
            record_at.write_text(json.dumps(record))
        listed = json.loads((path / "records/zarr.json").read_bytes())
        kept = {"bytes", "xxh128"} if name == "read" else set()
        listed["attributes"] = {k: v for k, v in listed["attributes"].items() if k in kept}
        for file in listed["attributes"].get("xxh128", {}):
            content = (path / file).read_bytes()
            listed["attributes"]["xxh128"][file] = sparse_store.file_digest(content)
        (path / "records/zarr.json").write_text(json.dumps(listed))
        arithmetic.harvest(tmp_path / name, inputs=10)
        said = "begun by an earlier version" in capsys.readouterr().err
        assert said == (name == "continued")
        assert content_of(open_store(path)) == truth
        assert verify_store(str(path)).faults == []


def test_damaged_shards_of_an_unfinished_store_are_written_again(
    begun: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path(shutil.copytree(begun, tmp_path / begun.name))
    sparse_store.flip(path / "y/c/1")
    sparse_store.flip(path / "records/00000/zarr.json")
    assert arithmetic.harvest(tmp_path, inputs=10).rows == 60
    assert "2 of 2 finished shards" in capsys.readouterr().err
    assert content_of(open_store(path)) == content_of(open_store(whole))


def test_a_stop_before_the_root_says_complete_is_continued(
    begun: Path, whole: Path, tmp_path: Path
) -> None:
    """The list is then that of the complete store, and the root that of the incomplete one."""
    path = Path(shutil.copytree(begun, tmp_path / begun.name))
    write = LocalFolder.write

    def stop_at_the_root(folder: LocalFolder, name: str, content: bytes) -> None:
        if name == "zarr.json":
            raise sparse_store.StoppedError
        write(folder, name, content)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(sparse_store.StoppedError):
        patch.setattr(LocalFolder, "write", stop_at_the_root)
        arithmetic.harvest(tmp_path, inputs=10)
    assert not is_complete(LocalFolder(path))
    arithmetic.harvest(tmp_path, inputs=10)
    for file in filter(Path.is_file, whole.rglob("*")):
        assert (path / file.relative_to(whole)).read_bytes() == file.read_bytes(), file


def test_what_a_killed_process_left_is_swept_at_the_next_start(begun: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(begun, tmp_path / begun.name))
    litter = [path / "y/c/2.99999.part", path / "records/00002/zarr.json.12.part"]
    litter += [tmp_path / f".other-0123456789ab.{word}/a/b" for word in ("creating", "removing")]
    kept = [path / "mine.part", path / "y/notes.txt.part", tmp_path / ".other.removing/a"]
    kept += [tmp_path / "other-0123456789ab.removing/a", tmp_path / ".git-0123456789ab/a"]
    outside = tmp_path / "outside/b"
    for file in (*litter, *kept, outside):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("left")
    (tmp_path / ".linked-0123456789ab.removing").symlink_to(outside.parent)
    (litter[-1].parent / "linked").symlink_to(outside.parent)
    arithmetic.harvest(tmp_path, inputs=10)
    assert not [file for file in litter if file.exists()]
    assert not list(tmp_path.glob(".other-0123456789ab.*"))
    assert all(file.exists() for file in (*kept, outside))
    assert (tmp_path / ".linked-0123456789ab.removing").is_symlink()


def test_what_another_process_still_removes_is_left_alone(tmp_path: Path) -> None:
    from tendril.data.store.atomic import locked

    left = tmp_path / ".other-0123456789ab.removing"
    left.mkdir()
    with locked(left):
        sweep_beside(tmp_path / "any")
        assert left.exists()
    sweep_beside(tmp_path / "any")
    assert not left.exists()


def test_a_removal_sweeps_the_whole_home(begun: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(begun, tmp_path / "store" / begun.name))
    places = {n: tmp_path / n / ".other-0123456789ab.removing" for n in ("store", "runs", "mine")}
    for place in places.values():
        (place / "deep").mkdir(parents=True)
        (place / "deep/file").write_text("left")
    remove_entry(exact_entry(str(path)))
    assert [name for name, place in places.items() if place.exists()] == ["mine"]
