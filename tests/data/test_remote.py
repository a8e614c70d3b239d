"""Stores at URLs: in memory, on an S3 server and on a web server on the loopback interface."""

import json
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
import zarr
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry

from tendril.bench.remote import late_server
from tendril.data.cli import run_command
from tendril.data.errors import (
    ConfigError,
    StoreDamagedError,
    StoreIncompleteError,
    StoreNotFoundError,
    StoreUnreachableError,
)
from tendril.data.home import store_location
from tendril.data.listing.entries import list_entries
from tendril.data.store import cache
from tendril.data.store import chunks as arrays
from tendril.data.store.create import writing
from tendril.data.store.folder import RemoteFolder, open_folder
from tendril.data.store.reader import open_store
from tendril.data.store.record import is_complete
from tendril.data.store.verify import verify_store
from tendril.harvest.__main__ import main
from tendril.harvest.loop import Harvested
from tendril.train.config import TrainConfig
from tendril.train.loop import train

from ..harvest.test_run import MINE, config
from ..helpers import arithmetic

__all__ = ["config"]  # imported as a fixture

NAME = arithmetic.spec().folder("arithmetic")
HARMS = ("delete", "empty", "truncate", "flip")


@pytest.fixture
def memory() -> Iterator[str]:
    """An empty home in memory."""
    files = fsspec.filesystem("memory")
    yield "memory://home"
    if files.exists("/home"):
        files.rm("/home", recursive=True)


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """A bucket of an S3 server on loopback, which s3fs finds through the usual variables."""
    from moto.moto_server.threaded_moto_server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "nobody")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        fsspec.filesystem("s3").mkdir("bucket")
        yield "s3://bucket"
    server.stop()


def harvest(
    location: str, rank: int = 0, ranks: int = 1, declared: bool = True, inputs: int = 50
) -> Harvested:
    """Harvest the arithmetic subject to a location."""
    shape, spec = arithmetic.layout(inputs=inputs), arithmetic.spec()
    produce = arithmetic.produce_slowly(shape)
    about = {"origin": {}, "environment": {"device": "none"}}
    return arithmetic.write_store(
        location, spec, shape, produce, **about, rank=rank, ranks=ranks, declared=declared
    )


def contents(location: str | Path) -> dict[str, bytes]:
    """Every file of a store."""
    folder = open_folder(location)
    return {name: folder.read(name) for name in sorted(folder.sizes())}


def check_everything(url: str, tmp_path: Path, inputs: int) -> None:
    """Write, read, resume and copy a store at a URL."""
    local, shape = tmp_path / "here" / NAME, arithmetic.layout(inputs=inputs)
    harvest(str(local), inputs=inputs)
    with pytest.raises(ConfigError, match="Give --ranks 1 if"):
        harvest(url, declared=False, inputs=inputs)
    with writing(url, arithmetic.spec(), shape, origin={}, environment={}, declared=True) as writer:
        assert writer.missing() == list(range(shape.shards))
    with pytest.raises(StoreIncompleteError, match=f"0 of {shape.shards} shards"):
        open_store(url)
    assert not is_complete(open_folder(url))
    assert harvest(url, inputs=inputs).rows == shape.rows
    assert contents(url) == contents(local)
    open_folder(url).remove("records/00002")
    with pytest.raises(StoreDamagedError, match="records/00002"):
        open_store(url)
    assert harvest(url, inputs=inputs).rows == 24  # of one shard
    assert contents(url) == contents(local)
    here, there = (open_store(at) for at in (local, url))
    assert (there.name, there.location) == (NAME, url)
    everything = slice(0, shape.rows)
    assert np.array_equal(here.read("wave", everything), there.read("wave", everything), True)
    for mine, theirs in zip(*(s.batches("sine", 64, epochs=1) for s in (here, there)), strict=True):
        assert torch.equal(mine, theirs)
    plain = zarr.open(url, mode="r")
    assert np.array_equal(
        plain["activations/sine"][:], zarr.open(local)["activations/sine"][:], True
    )


def test_a_store_in_memory(memory: str, tmp_path: Path) -> None:
    check_everything(f"{memory}/store/{NAME}", tmp_path, inputs=50)


def test_a_store_on_s3(bucket: str, tmp_path: Path) -> None:
    """With five shards, the last one short: a request takes ten milliseconds."""
    check_everything(f"{bucket}/store/{NAME}", tmp_path, inputs=18)


def test_ranks_write_a_store_elsewhere(memory: str, tmp_path: Path) -> None:
    """One after the other, rank 0 last, since it waits for the others."""
    url, local = f"{memory}/store/{NAME}", tmp_path / NAME
    spec, shape = arithmetic.spec(), arithmetic.layout()
    with writing(url, spec, shape, origin={}, environment={}, declared=True, ranks=2) as first:
        assert first.missing() == [0, 2, 4, 6, 8, 10, 12]
    assert harvest(url, rank=1, ranks=2).rows == 6 * 24
    with pytest.raises(StoreIncompleteError, match="6 of 13 shards"):
        open_store(url)
    assert harvest(url, rank=0, ranks=2).rows == 300 - 6 * 24
    harvest(str(local))
    assert contents(url) == contents(local)


@pytest.fixture(scope="module")
def on_s3(bucket: str) -> str:
    """A store of seven shards; each test that damages it repairs it."""
    url = f"{bucket}/whole/{NAME}"
    harvest(url, inputs=28)
    return url


@pytest.mark.parametrize("harm", HARMS)
def test_a_damaged_object_is_named(memory: str, harm: str) -> None:
    url = f"{memory}/store/{NAME}"
    harvest(url, inputs=28)
    check_damage(url, harm)


@pytest.mark.parametrize("harm", HARMS)
def test_a_damaged_object_on_s3_is_named(on_s3: str, harm: str) -> None:
    check_damage(on_s3, harm)


def check_damage(url: str, harm: str) -> None:
    """A damaged file is named on opening or on reading; the same harvest writes it anew."""
    whole = contents(url)
    store, name = open_store(url), "activations/sine/c/5/0"
    content = bytearray(whole[name])
    folder = open_folder(url)
    if harm == "delete":
        folder.remove(name)
    else:
        content[9] ^= 4
        folder.write(name, {"empty": b"", "truncate": whole[name][:-9]}.get(harm, bytes(content)))
    said = "chunk 10 of array activations/sine" if harm == "flip" else r"sine/c/5/0 \(rows 120 to"
    with pytest.raises(StoreDamagedError, match=said):
        store.read("sine", slice(0, 168))
    with pytest.raises(StoreDamagedError, match=said):
        open_store(url).read("sine", slice(0, 168))
    if harm == "flip":
        folder.remove("records/00005")
    harvest(url, inputs=28)
    assert contents(url) == whole


def test_a_store_behind_a_web_server(tmp_path: Path) -> None:
    """A web server cannot list files, so missing ones are found when they are read."""
    harvest(str(tmp_path / NAME))
    here = open_store(tmp_path / NAME)
    with late_server(tmp_path, 0.001) as url:
        there = open_store(f"{url}/{NAME}")
        assert np.array_equal(
            here.read("sine", np.arange(300)), there.read("sine", np.arange(300)), True
        )
        batches = (s.batches("wave", 64, epochs=1, window=3) for s in (here, there))
        for mine, theirs in zip(*batches, strict=True):
            assert torch.equal(mine, theirs)
        file = tmp_path / NAME / "activations/sine/c/5/0"
        for content in (file.read_bytes()[:40], b""):
            file.write_bytes(content)
            with pytest.raises(StoreDamagedError, match=rf"sine/c/5/0 .* has {len(content)}\."):
                open_store(f"{url}/{NAME}").read("sine", slice(0, 300))
            with pytest.raises(StoreDamagedError, match=rf"sine/c/5/0 .* has {len(content)}\."):
                there.read("sine", slice(0, 300))
        file.unlink()
        with pytest.raises(StoreDamagedError, match=r"sine/c/5/0 .* is missing"):
            open_store(f"{url}/{NAME}").read("sine", slice(0, 300))
        with pytest.raises(StoreNotFoundError, match="no store at http"):
            open_store(f"{url}/nowhere")
        with pytest.raises(ConfigError, match="cannot list its files"):
            is_complete(open_folder(f"{url}/{NAME}"))
        about = tmp_path / NAME / "zarr.json"
        about.write_text(about.read_text().replace('"complete": true', '"complete": false'))
        with pytest.raises(StoreIncompleteError, match=r"is not complete\. Run the same harvest"):
            open_store(f"{url}/{NAME}")
    with pytest.raises(StoreUnreachableError, match="cannot be reached"):
        there.read("wave", slice(0, 300))  # the server has stopped


def test_no_store_and_no_protocol_are_sentences(
    memory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StoreNotFoundError, match=f"no store at {memory}/nowhere"):
        open_store(f"{memory}/nowhere")
    with pytest.raises(ConfigError, match="a URL that fsspec can open"):
        open_store("gopher://hole/store")
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(_registry, "s3", raising=False)
    with pytest.raises(
        ConfigError, match=r"Install the package for s3: pip install 'tendril\[s3\]'"
    ):
        open_store("s3://bucket/store")
    with pytest.raises(StoreUnreachableError, match=r"127\.0\.0\.1:9/store/zarr\.json cannot"):
        open_store("http://127.0.0.1:9/store")
    with pytest.raises(ConfigError, match="a web server, which takes no files"):
        store_location("a", "https://here")


class NoCredentialsError(Exception):
    """As botocore raises it; no child of OSError."""


@pytest.mark.parametrize("what", ["cat_file", "info", "find", "rm", "pipe_file"])
@pytest.mark.parametrize(
    "error", [NoCredentialsError("Unable to locate\ncredentials"), PermissionError("Forbidden")]
)
def test_a_server_that_denies_access_is_one_sentence(
    memory: str, monkeypatch: pytest.MonkeyPatch, what: str, error: Exception
) -> None:
    url = f"{memory}/store/{NAME}"
    harvest(url, inputs=4)

    def deny(*_arguments: object, **_options: object) -> None:
        raise error

    calls = {
        "cat_file": [open_store, lambda at: harvest(at, inputs=4), lambda at: verify_store(at)],
        "info": [lambda at: open_folder(at).size("zarr.json")],
        "find": [open_store, lambda _: list_entries(memory), lambda at: open_folder(at).remove()],
        "rm": [lambda at: open_folder(at).remove()],
        "pipe_file": [lambda at: harvest(f"{at}-other", inputs=4)],
    }
    monkeypatch.setattr(MemoryFileSystem, what, deny)
    for call in calls[what]:
        with pytest.raises(StoreUnreachableError, match=r"cannot be reached .*credentials") as told:
            call(url)
        assert len(str(told.value).splitlines()) == 1


class Counted:
    """Records the files that are requested from a URL."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.parts: list[str] = []
        fetch = RemoteFolder._fetch

        def count(folder: RemoteFolder, name: str, start: int, length: int | None) -> bytes:
            self.parts.append(name)
            return fetch(folder, name, start, length)

        patch.setattr(RemoteFolder, "_fetch", count)


@pytest.fixture
def cached(memory: str, tmp_path: Path) -> tuple[str, Path]:
    """A store in memory and a folder for its chunks."""
    harvest(f"{memory}/store/{NAME}")
    return f"{memory}/store/{NAME}", tmp_path / "cache"


def epoch_of(url: str, folder: Path | None) -> torch.Tensor:
    """All rows of an epoch, through windows of two chunks."""
    return torch.cat(list(open_store(url, folder).batches("sine", 50, epochs=1, window=2)))


def test_the_second_epoch_asks_the_server_for_nothing(
    cached: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, folder = cached
    monkeypatch.setenv("TENDRIL_CACHE", str(folder))
    asked = Counted(monkeypatch)
    store = open_store(url)
    stream = store.batches("sine", 50, window=2)
    per_epoch = -(-stream.rows_per_epoch // 50)
    first = torch.cat(list(islice(stream, per_epoch + 3)))  # reads ahead into the second epoch
    asked.parts.clear()
    assert torch.equal(epoch_of(url, None), first[: stream.rows_per_epoch])
    assert not [name for name in asked.parts if name.startswith("activations")]
    asked.parts.clear()
    for _ in range(3 * per_epoch):
        next(stream)
    assert asked.parts == []


@pytest.mark.parametrize("harm", [lambda b: b"", lambda b: b[:-3], lambda b: b[:4] + b"!" + b[5:]])
def test_what_a_cache_holds_wrong_is_fetched_again(cached: tuple[str, Path], harm) -> None:  # type: ignore[no-untyped-def]
    url, folder = cached
    whole = epoch_of(url, folder)
    parts = [p for p in folder.rglob("*") if p.is_file()]
    assert len(parts) > 25
    for part in parts:
        part.write_bytes(harm(part.read_bytes()))
    assert torch.equal(epoch_of(url, folder), whole)
    assert torch.equal(epoch_of(url, folder), whole)


def test_swapped_parts_of_a_cache_are_fetched_again(cached: tuple[str, Path]) -> None:
    """Each has a right checksum of its own."""
    url, folder = cached
    whole = epoch_of(url, folder)
    parts = [p for p in folder.rglob("*") if p.is_file()]
    contents = [part.read_bytes() for part in parts]
    for part, content in zip(parts, [*contents[1:], contents[0]], strict=True):
        part.write_bytes(content)
    assert torch.equal(epoch_of(url, folder), whole)


def test_chunks_that_are_not_compressed_are_fetched_whole_and_again(
    memory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Remote chunks are read in one request, since each request has a latency."""
    monkeypatch.setattr(arrays, "PIECE", 64)
    shape = type(arithmetic.layout())(**vars(arithmetic.layout()) | {"compressor": "none"})
    url, folder = f"{memory}/plain", tmp_path / "cache"
    produce = arithmetic.produce_slowly(shape)
    arithmetic.write_store(
        url, arithmetic.spec(), shape, produce, origin={}, environment={}, declared=True
    )
    whole = epoch_of(url, folder)
    parts = [p for p in folder.rglob("*") if p.is_file()]
    assert len(parts) == 25 + 13  # chunks and shard indexes
    for part in parts:
        part.write_bytes(part.read_bytes()[:-1] + b"?")
    assert torch.equal(epoch_of(url, folder), whole)


def test_a_store_made_anew_under_a_cache(
    cached: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new store has other offsets; cached parts of the old one must do no harm."""
    url, folder = cached
    whole = epoch_of(url, folder)
    monkeypatch.setenv("TENDRIL_CACHE", str(folder))
    shape = type(arithmetic.layout())(**vars(arithmetic.layout()) | {"compressor": "none"})
    arithmetic.write_store(
        url,
        arithmetic.spec(),
        shape,
        arithmetic.produce_slowly(shape),
        origin={},
        environment={},
        overwrite=True,
        declared=True,
    )
    assert zarr.open(url, mode="r").attrs["tendril"]["layout"]["compressor"] == "none"
    assert torch.equal(epoch_of(url, None), whole)


def test_the_oldest_go_when_the_cache_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "precious").write_bytes(b"mine" * 999)
    monkeypatch.setattr(cache, "CACHE_BYTES", 1000)
    kept = cache.ChunkCache(tmp_path)
    for number in range(30):
        kept.put(f"part {number}", bytes([number]) * 100)
        files = [p for p in (tmp_path / "chunks").rglob("*") if p.is_file()]
        assert sum(p.stat().st_size for p in files) <= 1000
    assert kept.get("part 0") is None
    assert kept.get("part 29") == bytes([29]) * 100
    left = [n for n in range(30) if kept.get(f"part {n}") is not None]
    assert left == list(range(30 - len(left), 30))
    assert len(left) >= 9
    assert (tmp_path / "precious").exists()


def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *flags: str
) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of `tendril harvest`."""
    monkeypatch.setattr(sys, "argv", ["harvest", "inceptionv1", *flags])
    with pytest.raises(SystemExit) as left:
        run_command(main)
    return (int(left.value.code or 0), *capsys.readouterr())


def test_the_command_at_a_url(
    config,  # type: ignore[no-untyped-def]
    memory: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It is refused unless ranks are declared; then harvested, reused, and trained on."""
    flags = ["--subject", f"{MINE}:network", "--inputs", config.inputs, "--sites", "late"]
    flags += ["--per-input", "20", "--home", memory, "--device", "cpu", "--batch-size", "4"]
    status, out, err = command(monkeypatch, capsys, *flags)
    assert (status, out) == (2, "")
    assert "no lock prevents two harvests from writing the same store. Give --ranks 1" in err
    assert not fsspec.filesystem("memory").exists("/home")
    status, out, err = command(monkeypatch, capsys, *flags, "--ranks", "1")
    assert status == 0, err
    made = json.loads(out.splitlines()[-1])
    assert made["store"].startswith(f"{memory}/store/")
    assert made["rows"] == 180
    status, out, _ = command(monkeypatch, capsys, *flags)
    assert json.loads(out.splitlines()[-1])["reused"] is True
    home = str(tmp_path / "home")
    asked = TrainConfig(
        store=made["store"], steps=5, batch_size=16, latents=8, k=2, held_out=0.5, home=home
    )
    result = train(asked)
    told = json.loads((result.run / "config.json").read_text())
    assert told["store_path"] == made["store"]
    assert train(asked).reused
