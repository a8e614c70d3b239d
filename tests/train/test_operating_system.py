"""Errors of the operating system in train, sweep, study, export and import: one sentence each, no
file left over, and the same command succeeds afterwards."""

import errno
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tendril.__main__ import run_stage
from tendril.data.cli import run_command
from tendril.data.errors import StoreFullError
from tendril.train.exchange import export_run
from tendril.train.loop import train

from ..helpers import sparse

ROOT = Path(__file__).parents[2]
STEPS = ["--steps", "6", "--batch-size", "64", "--device", "cpu", "--dead-after", "64"]
SMALL = ["--latents", "8", "--k", "2", *STEPS]
COMMANDS = {
    "train": ["train", "topk", *SMALL, "--checkpoint-every", "2", "--name", "new"],
    "sweep": ["train", "sweep", "--latents", "8", *STEPS, "--sparsities", "k=1,2"],
    "study": ["study", "compare", "--run", "first", "second", "--device", "cpu"],
    "index": ["study", "index"],
    "export": ["train", "export", "first", "exported"],
    "import": ["train", "import", "saelens"],
}
STRIDES = {"train": 3, "sweep": 11}  # writes between two that fail
NUMBERS = ("EROFS", "EACCES", "ENAMETOOLONG", "ENOTDIR", "EFBIG", "ENOSPC", "EIO")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a store, two runs and a SAELens folder."""
    home = tmp_path_factory.mktemp("home")
    sparse.make_store(home, {"here": sparse.vectors(800, sparse.directions(12, 8))})
    config = sparse.tiny(home, latents=8, steps=6, batch_size=64)
    first = train(replace(config, name="first")).run
    train(replace(config, name="second", seed=1))
    export_run(first, home / "saelens")
    return home


@pytest.fixture
def home(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, as the current folder."""
    subprocess.run(["cp", "-r", f"{made}/.", str(tmp_path)], check=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TENDRIL_HOME", raising=False)
    return tmp_path


def leave(words: list[str]) -> object:
    with pytest.raises(SystemExit) as left:
        run_command(lambda: run_stage(words))
    return left.value.code


def failing_open(number: int) -> Callable[..., Any]:
    """`Path.open` that can read only."""
    whole = Path.open

    def opened(path: Path, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        if set(mode) & set("wxa"):
            raise OSError(number, os.strerror(number), str(path))
        return whole(path, mode, *arguments, **options)

    return opened


def failing_fsync(number: int) -> Callable[[int], None]:
    """`os.fsync` of a disk that takes nothing."""

    def fsync(_: int) -> None:
        raise OSError(number, os.strerror(number))

    return fsync


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.many_steps
def test_each_is_one_sentence_and_the_same_command_succeeds_afterwards(
    command: str, number: str, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    code = getattr(errno, number)
    for place, broken in (
        ((Path, "open"), failing_open(code)),
        ((os, "fsync"), failing_fsync(code)),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(*place, broken)
            assert leave(COMMANDS[command]) == 2
        said = capsys.readouterr().err
        assert said.splitlines()[-1].startswith("error: "), said
        assert "Traceback" not in said
        assert not list(home.rglob("*.part"))
    assert leave(COMMANDS[command]) == 0


class Killed(BaseException):
    """What no code handles."""


@pytest.mark.parametrize("kind", [OSError, Killed])
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.many_steps
def test_a_command_that_ends_at_any_write_continues_and_leaves_nothing(
    command: str,
    kind: type[BaseException],
    home: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The n-th fsync of a file fails, as of a full disk, or the process is killed there."""
    kept = tmp_path_factory.mktemp("kept")
    subprocess.run(["cp", "-r", f"{home}/.", str(kept)], check=True)
    whole: set[str] = set()
    for number in range(0, 400, STRIDES.get(command, 1)):
        subprocess.run(f"rm -rf {home}/* && cp -r {kept}/. {home}", shell=True, check=True)
        count, fsync = iter(range(-number, 10**6)), os.fsync

        def failing(handle: int, count: Any = count, fsync: Any = fsync) -> None:
            if next(count) >= 0:
                raise kind(errno.ENOSPC, "No space left on device")
            fsync(handle)

        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", failing)
            try:
                run_stage(COMMANDS[command])
                ended = False
            except (kind, StoreFullError):
                ended = True
        if not (home / "exported" / "cfg.json").exists():  # an export that is whole is refused
            run_stage(COMMANDS[command])
        present = {str(p.relative_to(home)) for p in home.rglob("*")}
        whole = whole or present
        assert present == whole, number
        assert not [name for name in present if name.endswith(".part")]
        if not ended:
            break
    assert number > 1 and not ended


@pytest.mark.parametrize("command", ["train", "study"])
def test_a_path_of_the_wrong_kind_is_named(command: str, home: Path, capsys: Any) -> None:
    (home / "file").write_text("")
    long = "x" * 300
    for words in (["--home", "file"], ["--home", f"file/{long}"], ["--home", long]):
        assert leave([*COMMANDS[command], *words]) == 2
        said = capsys.readouterr().err.splitlines()[-1]
        assert said.startswith("error: ") and said.endswith(".")


def test_a_limit_of_the_file_size_is_named_and_leaves_nothing(home: Path) -> None:
    """The real limit, in a process of its own; then the run continues without it."""
    command = [sys.executable, "-m", "tendril", *COMMANDS["train"], "--latents", "500"]
    done = subprocess.run(
        command,
        cwd=home,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "the file would exceed the size limit" in done.stderr.splitlines()[-1]
    assert not list(home.rglob("*.part"))


@pytest.mark.parametrize(
    "text", ["DefaultCPUAllocator: can't allocate memory", "CUDA out of memory"]
)
def test_too_little_memory_is_one_sentence(text: str, capsys: Any) -> None:
    def body() -> None:
        raise RuntimeError(text)

    with pytest.raises(SystemExit) as left:
        run_command(body)
    assert left.value.code == 2
    assert capsys.readouterr().err.startswith("error: there is not enough memory")
