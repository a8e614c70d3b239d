"""tendril bench NAME: measure something and its yardstick in turns, in one process."""

import inspect
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import tyro

from tendril.data.cli import CONFIG_HELP, Outcome, check_finite, config_files, need, run_command

from .config import BENCHES

NEEDS = {  # modules of `data.cli.EXTRAS`, by benchmark
    "faults": ("datasets", "transformers"),
    "group": ("scipy",),
    "language": ("tokenizers", "transformers"),
    "recovery": ("sklearn",),
}


def main(arguments: Sequence[str] | None = None) -> Outcome:
    """Parse the arguments, then import the chosen benchmark and run it.

    Each module of this package that is named like a benchmark has a function `measure`.
    """
    words, files = config_files(sys.argv[1:] if arguments is None else arguments)
    first = words[0] if words else ""
    bench: Any = tyro.extras.overridable_config_cli(
        {
            name: (
                f"{inspect.getdoc(kind)}\n\n{CONFIG_HELP}",
                files.over(kind()) if name == first else kind(),
            )
            for name, kind in BENCHES.items()
        },
        prog="tendril bench",
        description="Measure speed and memory, each against a yardstick in the same process.",
        args=words or ["--help"],
    )
    check_finite(bench)
    files.save(bench, ["tendril", "bench", first])
    (name,) = (name for name, config in BENCHES.items() if config is type(bench))
    if name in NEEDS:
        need(f"bench {name}", *NEEDS[name])
    measured: Outcome | Mapping[str, object] = import_module(f"{__package__}.{name}").measure(bench)
    return measured if isinstance(measured, Outcome) else Outcome(measured, ratios_of(measured))


def ratios_of(measured: Mapping[str, Any]) -> str:
    """The ratios of a benchmark in one line; empty if it has none."""
    ratios = [f"{name} {ratio:.4g}" for name, ratio in measured.get("ratios", {}).items()]
    return f"yardstick over ours, larger is better: {', '.join(ratios)}" if ratios else ""


if __name__ == "__main__":
    run_command(main)
