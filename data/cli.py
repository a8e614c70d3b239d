"""What every command shares: errors in one sentence, a line for people, a JSON object last."""

import errno
import json
import math
import os
import shlex
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, final

from .errors import (
    CAUSES,
    ConfigError,
    MissingPackageError,
    SubjectError,
    TendrilError,
    is_out_of_memory,
)

if TYPE_CHECKING:
    from tqdm import tqdm

    from .cards import Card

DONE, FAULT, MISTAKE, INTERRUPTED = 0, 1, 2, 130

# OpenMP threads spin this often before they sleep. The default keeps a core busy for a millisecond.
SPINS = "10000"


@final
@dataclass(frozen=True)
class Outcome:
    """What a command made.

    `result` becomes the last line of stdout, one short JSON object. `sentence` says the same
    for a person, with two or three figures; `next_command` is what is usually typed next.
    """

    result: Mapping[str, object]
    sentence: str = ""
    next_command: str = ""


class Shown:
    """What Python and a notebook show as a card (`cards.py`)."""

    def _card(self) -> "Card":
        raise NotImplementedError

    def __repr__(self) -> str:
        return self._card().text()

    def _repr_html_(self) -> str:
        return self._card().html()


C = TypeVar("C")

CONFIG_HELP = (
    "--config FILE.yaml reads the fields from a file; a flag beside it takes precedence. "
    "--save-config FILE.yaml writes them to one."
)


@final
@dataclass(frozen=True)
class ConfigFiles:
    """The files that `--config` and `--save-config` name; empty if they are not given."""

    read: str = ""
    write: str = ""

    def over(self, default: C, only: Collection[str] | None = None) -> C:
        """A config with the fields in the file to read, or those of `only`. Raises ConfigError."""
        if not self.read:
            return default
        from .config_file import from_yaml  # most commands need no YAML

        return from_yaml(default, self.read, only)

    def save(
        self, config: Any, command: Sequence[str], only: Collection[str] | None = None
    ) -> None:
        """Write the fields of a config to the file to write."""
        if self.write:
            from .config_file import save, to_yaml

            save(self.write, to_yaml(config, only, command))


def config_files(words: Sequence[str]) -> tuple[list[str], ConfigFiles]:
    """The words of a command without `--config` and `--save-config`, and the files that these name.

    Raises ConfigError for one of them that names no file, or is given twice.
    """
    rest: list[str] = []
    files: dict[str, str] = {}
    remaining = iter(words)
    for word in remaining:
        flag, equals, value = word.partition("=")
        name = flag.replace("_", "-")
        if name not in ("--config", "--save-config"):
            rest.append(word)
            continue
        value = value if equals else next(remaining, "")
        if not value or value.startswith("--"):
            raise ConfigError(f"{name} must name a YAML file; got nothing. Give its path.")
        if name in files:
            raise ConfigError(
                f"{name} must be given once; got {files[name]} and {value}. Leave one of them out."
            )
        files[name] = value
    return rest, ConfigFiles(files.get("--config", ""), files.get("--save-config", ""))


LARGEST = 2**53  # in size: from there on floats skip integers
RANGES = {
    "seed": (0, 2**63 - 1),
    "seeds": (0, 2**63 - 1),
    "threads": (0, 1024),
    "workers": (0, 1024),
    "rotations": (0, 3600),
}
"""The integers that a field of this name takes, in every command."""

EXTRAS = {
    "aiohttp": ("aiohttp", "http"),
    "datasets": ("datasets", "language"),
    "huggingface_hub": ("huggingface_hub", "hub"),
    "lucent": ("torch-lucent", "visualise"),
    "matplotlib": ("matplotlib", "study"),
    "numba": ("numba", "fast"),
    "s3fs": ("s3fs", "s3"),
    "scipy": ("scipy", "study"),
    "sklearn": ("scikit-learn", "study"),
    "tensorboard": ("tensorboard", "tensorboard"),
    "timm": ("timm", "timm"),
    "tokenizers": ("tokenizers", "language"),
    "torchvision": ("torchvision", "vision"),
    "transformers": ("transformers", "language"),
    "umap": ("umap-learn", "study"),
    "wandb": ("wandb", "wandb"),
}
"""Modules that the base install lacks: the package of each, and the extra of Tendril with it."""

"""Texts of a RuntimeError or an ImportError that means that there is no memory."""


def run_command(
    body: Callable[[], Outcome | Mapping[str, object] | None], stopped: str = "stopped."
) -> NoReturn:
    """Run a command and leave with its exit status; `body` is the first to import torch.

    Status 0: done, with the outcome on stdout. Status 2: a `TendrilError`, an error of the
    operating system that is in CAUSES, or too little memory, told in one sentence on stderr.
    Status 130: Ctrl-C, with the sentence `stopped`. Any other exception is a fault of Tendril and
    keeps its traceback (status 1).
    """
    os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
    try:
        print_outcome(body())
    except BrokenPipeError:  # the reader of stdout has closed it: `... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except TendrilError as error:
        note(f"error: {error}")
        sys.exit(MISTAKE)
    except OSError as error:
        if error.errno not in CAUSES:
            raise
        _refuse(error.errno, error.filename2 or error.filename)
    except (MemoryError, RuntimeError, ImportError) as error:
        if isinstance(error, ModuleNotFoundError) and str(error.name).split(".")[0] in EXTRAS:
            note(f"error: {_missing('this', [str(error.name).split('.')[0]])}")
            sys.exit(MISTAKE)
        if not is_out_of_memory(error):
            raise
        _refuse(errno.ENOMEM)
    except KeyboardInterrupt:
        note(stopped)
        sys.exit(INTERRUPTED)
    sys.exit(DONE)


def need(what: str, *modules: str, extra: str = "") -> None:
    """Check that modules of EXTRAS are installed, before any work that needs them.

    `what` is the subject of the sentence, and `extra` names another extra than that of EXTRAS
    which has all of them. Raises MissingPackageError.
    """
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        raise MissingPackageError(_missing(what, missing, extra))


def _missing(what: str, modules: Sequence[str], extra: str = "") -> str:
    """What is missing, and the command that installs it."""
    packages = [EXTRAS[name][0] for name in modules]
    extras = extra or ",".join(sorted({EXTRAS[name][1] for name in modules}))
    several = len(packages) > 1
    listed = " and ".join(filter(None, (", ".join(packages[:-1]), packages[-1])))
    return (
        f"{what} needs the package{'s' if several else ''} {listed}, which "
        f"{'are' if several else 'is'} not installed. Run `pip install 'tendril[{extras}]'`."
    )


def _refuse(number: int, place: object = None) -> NoReturn:
    """Tell an error of the operating system in one sentence, and leave."""
    cause, remedy = CAUSES[number]
    where = f" ({place})" if place else ""
    note(f"error: {cause}{where}. {remedy}, then run the same command again.")
    try:
        sys.stdout.flush()
    except OSError:  # stdout itself is full: Python would fail once more as it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(MISTAKE)


def print_outcome(outcome: Outcome | Mapping[str, object] | None) -> None:
    """The sentence and the next command, where there are any, then the JSON object."""
    if outcome is None:
        return
    if isinstance(outcome, Outcome):
        if outcome.sentence:
            print(printable(outcome.sentence))
        if outcome.next_command:
            print(printable(f"next: {outcome.next_command}"))
        outcome = outcome.result
    print(as_json(outcome), flush=True)


def as_json(result: Mapping[str, object]) -> str:
    """One line of strict JSON: what is not finite becomes null."""
    try:
        return json.dumps(result, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(result), allow_nan=False)


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    return [_finite(inner) for inner in value] if isinstance(value, list | tuple) else value


def scalars(figures: Mapping[str, Any]) -> dict[str, Any]:
    """The entries that fit into a short JSON line: numbers, words, and nothing nested."""
    return {name: v for name, v in figures.items() if v is None or isinstance(v, int | float | str)}


def command_line(words: Sequence[str], config: Any, default: Any) -> str:
    """The command that gives `config` where `default` is what `words` alone would give.

    Only fields that differ become flags: `--name value`, `--names a b`, `--flag` or `--no-flag`;
    fields of a nested config are flags of their own.
    """
    return shlex.join([*words, *_flags(config, default)])


def _flags(config: Any, default: Any) -> list[str]:
    found: list[str] = []
    for field in fields(config):
        value, usual = getattr(config, field.name), getattr(default, field.name)
        if is_dataclass(value):
            found += _flags(value, usual)
        elif value != usual:
            found += _flag(field.name.replace("_", "-"), value)
    return found


@contextmanager
def no_exit(subject: str) -> Iterator[None]:
    """Code of a subject that calls `sys.exit` is an error of the subject: the command has not done
    what it was asked for, so it must not end with the status that the subject gives."""
    try:
        yield
    except SystemExit as error:
        raise SubjectError(
            f"the subject {subject or 'of the run'} must not end the program; it called "
            f"sys.exit({'' if error.code is None else repr(error.code)}). Correct its code."
        ) from error


def check_finite(config: Any) -> None:
    """Raise ConfigError for a number of a config that no command can use, nested ones included.

    That is NaN and infinity, through which checks of ranges would go, as comparisons with NaN are
    false; integers beyond LARGEST; and seeds and threads outside of their RANGES.
    """
    for field in fields(config):
        value = getattr(config, field.name)
        if is_dataclass(value):
            check_finite(value)
        numbers = value if isinstance(value, list | tuple) else (value,)
        for number in numbers:
            if isinstance(number, float) and not math.isfinite(number):
                raise ConfigError(
                    f"--{field.name.replace('_', '-')} must be a finite number; got {number}."
                )
            least, most = RANGES.get(field.name, (-LARGEST, LARGEST))
            if isinstance(number, int) and not least <= number <= most:
                raise ConfigError(
                    f"--{field.name.replace('_', '-')} must be a whole number from {least:,} to "
                    f"{most:,}; got {number:,}."
                )


def _flag(name: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [f"--{name}" if value else f"--no-{name}"]
    if isinstance(value, list | tuple):
        return [f"--{name}", *map(_word, value)]
    return [f"--{name}", _word(value)]


def _word(value: Any) -> str:
    return repr(value) if isinstance(value, float) and f"{value:g}" != repr(value) else f"{value}"


def progress_bar(*arguments: Any, **options: Any) -> "tqdm[Any]":
    """A tqdm bar on stderr. A terminal is updated twice a second, a log every 20 seconds. In a
    notebook it is a widget, or a line of text where there is no ipywidgets."""
    from tqdm import tqdm  # not needed to parse a command

    if in_notebook():
        from importlib.util import find_spec

        if not find_spec("ipywidgets"):
            return tqdm(*arguments, file=sys.stdout, mininterval=0.5, **options)
        from tqdm.notebook import tqdm as widget

        bar: tqdm[Any] = widget(*arguments, **{**options, "dynamic_ncols": False})
        return bar
    return tqdm(*arguments, mininterval=0.5 if sys.stderr.isatty() else 20, **options)


def in_notebook() -> bool:
    """True in a cell of a notebook."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return hasattr(shell, "kernel")


def note(message: str) -> None:
    """A line for the person at the terminal; stdout belongs to the result. A notebook shows what
    is on stderr as if something were wrong, so there it is on stdout."""
    print(one_line(message), file=sys.stdout if in_notebook() else sys.stderr, flush=True)


def one_line(text: str) -> str:
    """A text with all control characters escaped, so that the name of a file forges no line."""
    return printable(text).replace("\n", "\\n")


def printable(text: str) -> str:
    """A text with control characters escaped, except line breaks, e.g. in the name of a file."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text
    )
