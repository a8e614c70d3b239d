"""tendril bench WHAT: a thing and its yardstick, in turns, in one process."""

import sys
from collections.abc import Mapping, Sequence
from importlib import import_module

import tyro

from tendril.data.cli import run_command

# what can be measured: the module, its flags, and what it measures
BENCHES = {
    "group": "GroupBench",
    "harvest": "HarvestBench",
    "language": "LanguageBench",
    "read": "ReadBench",
    "remote": "RemoteBench",
    "storage": "StorageBench",
    "recovery": "RecoveryBench",
    "train": "TrainBench",
    "write": "WriteBench",
}


def main(arguments: Sequence[str] | None = None) -> Mapping[str, object]:
    """Parse, measure, and tell the ratios, or the tables."""
    asked = sys.argv[1:] if arguments is None else list(arguments)
    chosen = [name for name in asked[:1] if name in BENCHES] or BENCHES
    modules = {name: import_module(f"{__package__}.{name}") for name in chosen}
    configs = {name: getattr(module, BENCHES[name]) for name, module in modules.items()}
    bench = tyro.extras.subcommand_cli_from_dict(configs, prog="tendril bench", args=asked)
    module = sys.modules[type(bench).__module__]
    measured: Mapping[str, object] = module.measure(bench)
    return measured


if __name__ == "__main__":
    run_command(main)
