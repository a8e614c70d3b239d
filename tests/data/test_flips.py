"""One flipped bit anywhere: an error in a sentence, or what is read is what was written.

`-m slow` tries more than a thousand places.
"""

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tendril.data.errors import TendrilError
from tendril.data.inputs.packing import Cut
from tendril.data.inputs.tokens import LEFT_OUT, Contexts, TokenSource, contexts_of
from tendril.data.store.reader import Store, open_store
from tendril.data.store.verify import verify_store

from ..helpers import arithmetic, sparse_store

Flips = Iterator[tuple[Path, int, int]]


@pytest.fixture(autouse=True)
def _no_syncs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting for the disk would take most of the time."""
    monkeypatch.setattr("tendril.data.store.atomic.sync", lambda _path: None)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete store of three shards."""
    home = tmp_path_factory.mktemp("whole")
    arithmetic.harvest(home, inputs=10)
    return home / arithmetic.spec().folder("arithmetic")


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An incomplete store, of which two shards of three are written."""
    home = tmp_path_factory.mktemp("begun")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(sparse_store.StoppedError):
        patch.setattr(arithmetic, "produce_slowly", stopped(arithmetic.produce_slowly))
        arithmetic.harvest(home, inputs=10)
    path = home / arithmetic.spec().folder("arithmetic")
    assert len(list(path.glob("records/*/zarr.json"))) == 2
    return path


def stopped(produce: Callable[..., Any]) -> Callable[..., Any]:
    """A subject that stops after four slices of two shards."""

    def slowly(*arguments: Any) -> Any:
        def rows(slices: Any) -> Iterator[Any]:
            yield from produce(*arguments)(slices[:4])
            raise sparse_store.StoppedError

        return rows

    return slowly


def flips(folder: Path, count: int, seed: int = 0) -> Flips:
    """`count` bits, the files in turn: (file, byte, bit)."""
    rng = np.random.default_rng(seed)
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.stat().st_size)
    for number in range(count):
        file = files[number % len(files)]
        yield file, int(rng.integers(file.stat().st_size)), int(rng.integers(8))


def flip(file: Path, place: int, bit: int) -> None:
    content = bytearray(file.read_bytes())
    content[place] ^= 1 << bit
    file.write_bytes(bytes(content))


def content_of(store: Store) -> dict[str, Any]:
    """Everything that a reader gets from a store, as bytes or JSON."""
    found: dict[str, Any] = {"spec": json.dumps(store.spec), "origin": json.dumps(store.origin)}
    for column in ("input", "y", "x", "valid"):
        found[column] = store.column(column).tobytes()
    found["names"] = [store.input_name(i) for i in range(store.arrays.layout.inputs)]
    for site in store.sites:
        found[site] = store.read(site, slice(0, store.rows)).tobytes()
        found[f"norms {site}"] = store.norms(site).tobytes()
        moments = store.moments(site)
        found[f"moments {site}"] = [moments.count, moments.mean.tobytes(), moments.m2.tobytes()]
        found[f"quantiles {site}"] = store.norm_quantiles(site).tobytes()
    return found


def of_complete(whole: Path, place: Path, count: int) -> Counter[str]:
    """Flip bits of a complete store; every one is found on verifying, none is read."""
    truth, counts = content_of(open_store(whole)), Counter[str]()
    path = Path(shutil.copytree(whole, place / whole.name))
    for file, at, bit in flips(path, count):
        before = file.read_bytes()
        flip(file, at, bit)
        where = f"{file.relative_to(path)}, bit {bit} of byte {at}"
        try:
            found = bool(verify_store(str(path)).faults)
        except TendrilError:
            found = True
        assert found, f"{where} is not found by verify"
        try:
            assert content_of(open_store(path)) == truth, f"{where} is read"
            counts["found by verify, harmless to readers"] += 1
        except TendrilError:
            counts["found by both"] += 1
        file.write_bytes(before)
    return counts


def of_begun(begun: Path, place: Path, count: int) -> Counter[str]:
    """Flip bits of an incomplete store, and continue it."""
    path, counts = place / begun.name, Counter[str]()
    shutil.copytree(begun, path)
    arithmetic.harvest(place, inputs=10)
    truth = content_of(open_store(path))
    for file, at, bit in flips(begun, count):
        shutil.rmtree(path)
        shutil.copytree(begun, path)
        flip(path / file.relative_to(begun), at, bit)
        where = f"{file.relative_to(begun)}, bit {bit} of byte {at}"
        try:
            arithmetic.harvest(place, inputs=10)
        except TendrilError:
            counts["found on continuing"] += 1
            continue
        try:
            found = bool(verify_store(str(path)).faults)
        except TendrilError:
            found = True
        try:
            same = content_of(open_store(path)) == truth
        except TendrilError:
            same = True
        assert same, f"{where} is read"
        if not found:
            assert content_of(open_store(path)) == truth, f"{where} ends in no faults"
        counts["found by verify" if found else "written again"] += 1
    return counts


def source() -> TokenSource:
    documents = [[10 + i] * (5 + i) for i in range(9)]
    made = TokenSource({"kind": "test"}, "here", lambda: iter(documents))
    made.left_out.rows = 3
    return made


def of_packed_text(place: Path, count: int) -> Counter[str]:
    """Flip bits of packed text; it is packed again."""

    def read() -> tuple[Contexts, list[Any]]:
        contexts = contexts_of(source(), Cut(8, (1,)), None, place)
        return contexts, [contexts.tokens_BT.tolist(), contexts.documents_BT.tolist()]

    first, truth = read()
    (kept,) = place.iterdir()
    assert {p.name for p in kept.iterdir()} == {
        "tokens.npy",
        "documents.npy",
        "digest",
        LEFT_OUT,
    }
    before = {p.name: p.read_bytes() for p in kept.iterdir()}
    counts = Counter[str]()
    for file, at, bit in flips(kept, count):
        flip(file, at, bit)
        again, values = read()
        assert (again.digest, values) == (first.digest, truth), f"{file.name}, {at}, {bit}"
        rebuilt = {p.name: p.read_bytes() for p in kept.iterdir()} == before
        counts["packed again" if rebuilt else "harmless"] += 1
        for name, content in before.items():
            (kept / name).write_bytes(content)
    return counts


def test_a_flip_in_a_complete_store_is_found(whole: Path, tmp_path: Path) -> None:
    assert of_complete(whole, tmp_path, 40).total() == 40


def test_a_flip_in_an_incomplete_store_is_found_or_written_again(
    begun: Path, tmp_path: Path
) -> None:
    assert of_begun(begun, tmp_path, 36).total() == 36


def test_a_flip_in_packed_text_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    counts = of_packed_text(tmp_path / "tokens", 24)
    told = capsys.readouterr().err
    assert told.count("is damaged. It is packed again") == counts["packed again"]
    assert told.count("3 rows of here have no text") == 25


@pytest.mark.slow
def test_of_a_thousand_flips_none_is_silent(whole: Path, begun: Path, tmp_path: Path) -> None:
    counts = {
        "complete": of_complete(whole, tmp_path / "complete", 600),
        "incomplete": of_begun(begun, tmp_path / "incomplete", 600),
        "packed text": of_packed_text(tmp_path / "tokens", 400),
    }
    print(counts)
    assert sum(count.total() for count in counts.values()) == 1600
