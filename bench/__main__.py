"""python -m bench WHAT: a thing and its yardstick, in turns, in one process."""

import sys
from collections.abc import Mapping
from importlib import import_module

import tyro

from data.command import run_command

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


def main() -> Mapping[str, object]:
    """Parse, measure, and tell the ratios, or the tables."""
    chosen = [name for name in sys.argv[1:2] if name in BENCHES] or BENCHES
    modules = {name: import_module(f"{__package__}.{name}") for name in chosen}
    configs = {name: getattr(module, BENCHES[name]) for name, module in modules.items()}
    bench = tyro.extras.subcommand_cli_from_dict(configs, prog="python -m bench")
    module = sys.modules[type(bench).__module__]
    measured: Mapping[str, object] = module.measure(bench)
    return measured


if __name__ == "__main__":
    run_command(main)
