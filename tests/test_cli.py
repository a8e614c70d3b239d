"""What every command shares: exit statuses, sentences, the last line, the command that repeats."""

import errno
import json
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass, field

import pytest

from tendril.__main__ import STAGES, run_stage
from tendril.data.cli import (
    Outcome,
    as_json,
    check_finite,
    command_line,
    run_command,
    scalars,
)
from tendril.data.errors import CAUSES, ConfigError
from tendril.train.config import TrainConfig


def leave(body, **how):
    with pytest.raises(SystemExit) as left:
        run_command(body, **how)
    return left.value.code


def raising(error: BaseException):
    def body():
        raise error

    return body


def test_the_sentence_and_the_next_command_stand_above_the_json(capsys: pytest.CaptureFixture[str]):
    assert leave(lambda: Outcome({"a": 1.0}, "Made it.", "tendril study")) == 0
    assert capsys.readouterr().out == 'Made it.\nnext: tendril study\n{"a": 1.0}\n'


@pytest.mark.parametrize("number", sorted(CAUSES))
def test_errors_of_the_operating_system_are_one_sentence(number: int, capsys) -> None:
    error = OSError(number, os.strerror(number), "some/file")
    assert leave(raising(error)) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and "some/file" in said and said.count("\n") == 1


def test_mistakes_memory_and_interrupts(capsys) -> None:
    assert leave(raising(ConfigError("--k must be 1 or more; got 0."))) == 2
    assert capsys.readouterr().err == "error: --k must be 1 or more; got 0.\n"
    assert leave(raising(MemoryError())) == 2
    assert "not enough memory" in capsys.readouterr().err
    assert leave(raising(KeyboardInterrupt()), stopped="stopped here.") == 130
    assert capsys.readouterr().err == "stopped here.\n"


def test_faults_of_ours_keep_their_traceback() -> None:
    with pytest.raises(OSError, match="no such thing"):
        run_command(raising(OSError(errno.EBADF, "no such thing")))
    with pytest.raises(ZeroDivisionError):
        run_command(lambda: {"a": 1 / 0})


def test_a_stage_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match="must be one of harvest, train, study, data, bench"):
        run_stage(["harvset"])


def test_json_is_strict_and_short() -> None:
    assert as_json({"a": float("nan"), "b": [float("inf"), 1]}) == '{"a": null, "b": [null, 1]}'
    assert scalars({"a": 1, "b": [1], "c": {"d": 1}, "e": None, "f": "x"}) == {
        "a": 1,
        "e": None,
        "f": "x",
    }


@dataclass(frozen=True)
class Inner:
    radii: tuple[float, ...] = ()
    deep: bool = True


@dataclass(frozen=True)
class Config:
    word: str = ""
    k: int = 4
    rate: float = 1e-3
    inner: Inner = field(default_factory=Inner)
    limit: int | None = None


def test_a_command_line_has_the_flags_that_differ() -> None:
    config = Config("it's", 4, 0.1 + 0.2, Inner((1.5, 2.0), False), 7)
    words = shlex.split(command_line(["tendril", "x"], config, Config()))
    assert words == [
        *("tendril", "x", "--word", "it's", "--rate", "0.30000000000000004"),
        *("--radii", "1.5", "2.0", "--no-deep", "--limit", "7"),
    ]
    assert command_line(["tendril"], Config(), Config()) == "tendril"


def test_import_and_help_are_quick_and_import_no_torch() -> None:
    """In one process, each measured alone: half a second of a core for help, a fifth to import."""
    code = """
import contextlib, io, json, sys, time
began = time.process_time()
import tendril
took = {"import": time.process_time() - began}
from tendril.__main__ import STAGES, usage
assert all(f"tendril {stage}" in usage() for stage in STAGES)
assert "torch" not in sys.modules, "import tendril"
print(json.dumps(took))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["import"] < 0.2
    assert set(STAGES) == {"harvest", "train", "study", "data", "bench"}


def test_numbers_that_are_not_finite_are_refused_wherever_they_are_given() -> None:
    for number in (float("nan"), float("inf"), -float("inf")):
        with pytest.raises(ConfigError, match="--rate must be a finite number; got"):
            check_finite(Config(rate=number))
        with pytest.raises(ConfigError, match="--radii must be a finite number"):
            check_finite(Config(inner=Inner((1.0, number))))
        with pytest.raises(ConfigError, match="--outlier-times must be a finite number"):
            TrainConfig(outlier_times=number).check(8)
    check_finite(Config())
    with pytest.raises(ConfigError, match="--outlier-times must be above 0; got -1"):
        TrainConfig(outlier_times=-1.0).check(8)
