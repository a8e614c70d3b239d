"""Several processes on one store: the same bytes as one's, whoever dies and comes back.

The processes of a group exchange nothing but files, so no backend of torch.distributed is
needed: a launcher's RANK and WORLD_SIZE say which shards are whose.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tendril.data.cli import run_command
from tendril.data.errors import StoreLockedError
from tendril.data.store.create import writing
from tendril.data.store.reader import open_store
from tendril.harvest.__main__ import main

from ..data.test_store import ROOT, contents
from ..helpers import arithmetic
from .test_run import MINE

RANKS = 2
NAME = arithmetic.spec().folder("arithmetic")


def start(home: Path, inputs: int, seconds: float, *rest: int) -> "subprocess.Popen[str]":
    """A rank of an arithmetic harvest, as a process."""
    command = [
        sys.executable,
        "-m",
        "tests.helpers.arithmetic",
        *map(str, (home, inputs, seconds, *rest)),
    ]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=ROOT, **pipes)  # type: ignore[call-overload, no-any-return]


def end(processes: "list[subprocess.Popen[str]]") -> list[tuple[int, str]]:
    """Status and stderr of each, when they have ended."""
    told = [process.communicate(timeout=300)[1] for process in processes]
    return [(process.returncode, said) for process, said in zip(processes, told, strict=True)]


def check_whole(home: Path, inputs: int, tmp_path: Path) -> None:
    """The store is byte for byte what one process makes without interruption."""
    arithmetic.harvest(tmp_path / "whole", inputs=inputs)
    assert contents(home) == contents(tmp_path / "whole")
    assert not [p for p in home.rglob("*") if p.name.endswith(".part") or p.name.startswith(".")]
    store = open_store(home / NAME)
    assert np.array_equal(store.column("input"), np.repeat(np.arange(inputs), 6))


def records(home: Path) -> int:
    """Shards committed so far."""
    return len(list((home / NAME / "records").glob("*/zarr.json")))


def kill_and_restart(home: Path, inputs: int, seconds: float, rounds: int) -> int:
    """SIGKILL one rank or both at random moments; in how many rounds shards had been written."""
    rng = np.random.default_rng(rounds)
    running: dict[int, subprocess.Popen[str]] = {}
    hit = 0
    for number in range(rounds):
        for rank in range(RANKS):
            if rank not in running:
                running[rank] = start(home, inputs, seconds, rank, RANKS)
        before, deadline = records(home), time.monotonic() + 60
        if number % 2:  # every other time at any moment, importing too
            while records(home) == before and time.monotonic() < deadline:
                time.sleep(0.005)
                if all(process.poll() is not None for process in running.values()):
                    break
        time.sleep(rng.uniform(0, 0.4))
        hit += records(home) > before
        for rank in ([0], [1], [0, 1])[rng.integers(3)]:
            running[rank].kill()
            running.pop(rank).communicate()
        for rank in [r for r, process in running.items() if process.poll() is not None]:
            assert end([running.pop(rank)])[0][0] == 0  # done with its part
    for rank in range(RANKS):
        if rank not in running:
            running[rank] = start(home, inputs, 0, rank, RANKS)
    for status, said in end(list(running.values())):
        assert status == 0, said
    return hit


def test_ranks_killed_five_times(tmp_path: Path) -> None:
    hit = kill_and_restart(tmp_path / "killed", inputs=300, seconds=0.02, rounds=5)
    assert hit >= 2
    check_whole(tmp_path / "killed", 300, tmp_path)


@pytest.mark.slow
def test_ranks_killed_two_hundred_times(tmp_path: Path) -> None:
    began = time.monotonic()
    hit = kill_and_restart(tmp_path / "killed", inputs=6000, seconds=0.01, rounds=200)
    done = time.monotonic() - began
    print(f"200 rounds in {done:.0f} s, shards written before the kill in {hit}")
    assert hit >= 100
    check_whole(tmp_path / "killed", 6000, tmp_path)


def test_a_rank_that_died_comes_back_alone(tmp_path: Path) -> None:
    """Rank 1 dies; rank 0 writes its part and waits; rank 1 comes back, and both end well."""
    home = tmp_path / "home"
    first, second = (start(home, 60, 0.05, rank, RANKS) for rank in range(RANKS))
    deadline = time.monotonic() + 60
    while records(home) < 2 and time.monotonic() < deadline:
        time.sleep(0.005)
    second.kill()
    second.communicate()
    while records(home) < 8 and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(0.5)
    assert first.poll() is None
    assert [status for status, _ in end([start(home, 60, 0, 1, RANKS), first])] == [0, 0]
    check_whole(home, 60, tmp_path)


def test_a_group_that_finds_no_room_goes_on_when_there_is(tmp_path: Path) -> None:
    home, told = tmp_path / "home", []
    for room in (70, 30, 55):  # files, for each rank; the first has the metadata to write
        group = [start(home, 240, 0, rank, RANKS, room) for rank in range(RANKS)]
        deadline = time.monotonic() + 120
        while any(p.poll() is None for p in group) and time.monotonic() < deadline:
            if any(p.poll() for p in group):  # as a launcher does
                [p.terminate() for p in group]
            time.sleep(0.02)
        told += end(group)
    assert sum(status == 2 and "disk is full" in said for status, said in told) >= 3, told
    assert 0 < records(home) < 60
    group = [start(home, 240, 0, rank, RANKS) for rank in range(RANKS)]
    assert [status for status, _ in end(group)] == [0, 0]
    check_whole(home, 240, tmp_path)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of a megabyte."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if os.geteuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting a small disk is not allowed here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_group_on_a_disk_that_is_really_full(disk: Path, tmp_path: Path) -> None:
    (disk / "ballast").write_bytes(b"0" * 800_000)
    group = [start(disk / "home", 40, 0.01, rank, RANKS) for rank in range(RANKS)]
    while all(p.poll() is None for p in group):
        time.sleep(0.02)
    [p.terminate() for p in group]
    assert any(status == 2 and "disk is full" in said for status, said in end(group))
    (disk / "ballast").unlink()
    group = [start(disk / "home", 40, 0, rank, RANKS) for rank in range(RANKS)]
    assert [status for status, _ in end(group)] == [0, 0]
    check_whole(disk / "home", 40, tmp_path)


def test_a_second_group_is_told(tmp_path: Path) -> None:
    path, spec, shape = tmp_path / "store", arithmetic.spec(), arithmetic.layout()

    def join(rank: int, ranks: int):  # type: ignore[no-untyped-def]
        return writing(path, spec, shape, origin={}, environment={}, rank=rank, ranks=ranks)

    with join(0, 2) as first, join(1, 2) as second:
        assert sorted(first.missing() + second.missing()) == list(range(13))
        for rank, ranks in ((0, 2), (0, 3), (0, 1)):
            with pytest.raises(StoreLockedError, match="another process"), join(rank, ranks):
                pass
    with join(0, 1), pytest.raises(StoreLockedError, match="another process"), join(0, 2):
        pass


@pytest.fixture
def flags(tmp_path: Path) -> list[str]:
    """A harvest of 300 small images: two shards."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(300):
        pixels = np.random.default_rng(i).integers(0, 255, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(photos / f"{i:03}.png")
    (photos / "007.png").write_bytes(b"broken")
    asked = ["inceptionv1", "--subject", f"{MINE}:network", "--inputs", str(photos)]
    return [*asked, "--sites", "late", "early", "--per-input", "20", "--device", "cpu"]


def test_torchrun_makes_what_one_process_makes(flags: list[str], tmp_path: Path) -> None:
    """Byte for byte, with the same threads; one outcome, and one bar."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    alone = ["-m", "tendril", "harvest", *flags, "--threads", "1", "--home", str(tmp_path / "one")]
    group = [
        *torchrun,
        "-m",
        "tendril",
        "harvest",
        *flags,
        "--threads",
        "1",
        "--home",
        str(tmp_path / "two"),
    ]
    done = [
        subprocess.run([sys.executable, *c], cwd=ROOT, capture_output=True, text=True, timeout=300)
        for c in (alone, group)
    ]
    for process in done:
        assert process.returncode == 0, process.stderr
        _, _, line = process.stdout.splitlines()
        assert json.loads(line)["rows"] == 6000
        assert process.stderr.count("300/300") >= 1
        assert process.stderr.count("300 inputs x 20 positions") == 1
    one, two = (contents(tmp_path / home / "store") for home in ("one", "two"))
    assert one == two
    assert sum("records/0" in name for name in one) == 2


def run(
    patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *flags: str
) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of the command."""
    patch.setattr(sys, "argv", ["harvest", *flags])
    with pytest.raises(SystemExit) as left:
        run_command(main)
    return (int(left.value.code or 0), *capsys.readouterr())


def test_what_ranks_are_told(
    flags: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    flags = [*flags, "--home", str(tmp_path / "home")]
    for wrong in (["--rank", "2", "--ranks", "2"], ["--rank", "-1", "--ranks", "2"]):
        status, out, err = run(monkeypatch, capsys, *flags, *wrong)
        assert (status, out) == (2, "")
        assert "a rank must be from 0 to the number of processes - 1" in err
    status, _, err = run(monkeypatch, capsys, *flags, "--rank", "3")
    assert (status, "--rank must come with --ranks" in err) == (2, True), err
    for rank, size, said in (("3", "", "rank 3 of 1 from RANK"), ("x", "2", "whole numbers")):
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("WORLD_SIZE", size or "1")
        status, _, err = run(monkeypatch, capsys, *flags)
        assert (status, said in err) == (2, True), err
    monkeypatch.delenv("RANK")
    monkeypatch.delenv("WORLD_SIZE")
    dry = [run(monkeypatch, capsys, *flags, "--ranks", "2", "--rank", r, "--dry-run") for r in "01"]
    assert [bool(out) for _, out, _ in dry] == [True, False]
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    status, out, err = run(monkeypatch, capsys, *flags, "--overwrite")
    assert (status, out) == (2, "")
    assert "--overwrite needs a single process; got 2" in err
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("source", ["environment", "flags"])
@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_says_at_once_whom_it_waits_for(
    source: str,
    rank: int,
    flags: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """RANK and WORLD_SIZE may be left over from another command."""
    words = [*flags, "--home", str(tmp_path / "home"), "--limit", "2"]
    if source == "flags":
        words += ["--rank", str(rank), "--ranks", "2"]
    else:
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "2")

    def tired(_: float) -> None:
        raise KeyboardInterrupt  # instead of waiting

    monkeypatch.setattr("tendril.harvest.loop.time.sleep", tired)
    monkeypatch.setattr("tendril.data.store.create.time.sleep", tired)
    if rank == 0:
        monkeypatch.setattr("tendril.data.store.writer.StoreWriter.finish", lambda _: False)
    status, _, err = run(monkeypatch, capsys, *words)
    named = "--rank and --ranks" if source == "flags" else "RANK and WORLD_SIZE"
    first = err.splitlines()[0]
    assert status == 130
    assert first.startswith(f"rank {rank} of 2 (from {named}")
    assert ("waits for rank 0 to create it" in first) == (rank == 1)
    assert "If this is the only process, stop it and pass --ranks 1" in first
    if rank == 0:
        assert "waits for 0 shards of the other ranks" in err or "waits for 1 shards" in err
