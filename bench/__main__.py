"""python -m bench WHAT: a thing and its yardstick, in turns, in one process."""

from collections.abc import Callable, Mapping
from typing import Any

import tyro

from data.command import run_command

from . import group, harvest, language, read, recovery, remote, storage, train, write

# what can be measured: the flags it takes, and the function that takes them
BENCHES: dict[str, tuple[Callable[..., Any], Callable[..., Mapping[str, object]]]] = {
    "group": (group.GroupBench, group.measure),
    "harvest": (harvest.HarvestBench, harvest.measure),
    "language": (language.LanguageBench, language.measure),
    "read": (read.ReadBench, read.measure),
    "remote": (remote.RemoteBench, remote.measure),
    "storage": (storage.StorageBench, storage.measure),
    "recovery": (recovery.RecoveryBench, recovery.measure),
    "train": (train.TrainBench, train.measure),
    "write": (write.WriteBench, write.measure),
}


def main() -> Mapping[str, object]:
    """Parse, measure, and tell the ratios, or the tables."""
    configs = {name: config for name, (config, _) in BENCHES.items()}
    bench = tyro.extras.subcommand_cli_from_dict(configs, prog="python -m bench")
    return next(measure for config, measure in BENCHES.values() if config is type(bench))(bench)


if __name__ == "__main__":
    run_command(main)
