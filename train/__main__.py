"""`tendril train RECIPE --field value`: a store -> a dictionary (a run), or a sweep of them."""

import inspect
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, cast

import tyro

from tendril.data.cli import (
    CONFIG_HELP,
    ConfigFiles,
    Outcome,
    command_line,
    config_files,
    run_command,
)
from tendril.data.errors import ConfigError

from .config import (
    OBJECTIVES,
    TrainConfig,
    flag,
    flags_of,
    group_fields,
    refuse_unknown,
    users_of,
)
from .recipes import RECIPES


def main(arguments: Sequence[str] | None = None) -> Outcome | None:
    """Parse, then run; what is heavy is imported after parsing. Of several processes only the first
    one has an outcome."""
    name, *words = (sys.argv[1:] if arguments is None else list(arguments)) or [""]
    if name not in RECIPES:
        from .commands import run_other

        return run_other(name, words)
    default = RECIPES[name]()
    words, files = config_files(words)
    config = parse(name, from_file(name, default, files), words)
    files.save(config, ["tendril", "train", name], own_fields(config.objective))
    if config.dry_run:
        from .dry_run import dry_run

        wet = replace(config, dry_run=False)
        return dry_run(config, command_line(["tendril", "train", name], wet, default))
    from .loop import is_first, train

    result = train(config)
    return result.outcome(config.home) if is_first() else None


def own_fields(objective: str) -> set[str]:
    """The fields that a file holds for an objective, which is one of them."""
    return {f.name for group in OBJECTIVES[objective].groups for f in group_fields(group)} | {
        "objective"
    }


def from_file(recipe: str, default: TrainConfig, files: ConfigFiles) -> TrainConfig:
    """A recipe's config with the fields of the file of `--config`. Raises ConfigError."""
    given = files.over(default, own_fields(default.objective))
    if given.objective != default.objective:
        raise ConfigError(
            f"the objective in {files.read} must be {default.objective}, as the recipe is "
            f"{recipe}; got {given.objective}. Choose the recipe that the file was saved from."
        )
    return given


def parse(recipe: str, default: TrainConfig, words: Sequence[str]) -> TrainConfig:
    """The config of `tendril train RECIPE WORDS`. `--help` has a section for each group.

    Raises ConfigError for a flag that the recipe's objective does not use.
    """
    refuse_others(recipe, default.objective, words)
    groups = OBJECTIVES[default.objective].groups
    sections = tuple(Annotated[one, tyro.conf.arg(name=one.title)] for one in groups)
    parts = tuple(
        one(**{f.name: getattr(default, f.name) for f in group_fields(one)}) for one in groups
    )
    parsed = tyro.cli(
        cast(Any, tuple[sections]),  # type: ignore[valid-type]
        default=cast(Any, parts),
        config=(tyro.conf.OmitArgPrefixes,),
        args=list(words),
        prog=f"tendril train {recipe}",
        description=f"{inspect.getdoc(RECIPES[recipe])}\n\n{CONFIG_HELP}",
    )
    return replace(default, **{name: v for part in parsed for name, v in vars(part).items()})


def refuse_others(recipe: str, objective: str, words: Sequence[str]) -> None:
    """Raise ConfigError for the first flag that the recipe does not take."""
    own = [f.name for group in OBJECTIVES[objective].groups for f in group_fields(group)]
    for name in flags_of(words):
        if name in own:
            continue
        if name == "objective":
            raise ConfigError(
                f"the objective of the recipe {recipe} is {objective}; it cannot be changed. "
                "Choose another recipe: `tendril train --help` lists them."
            )
        users = users_of(name)
        if not users:
            refuse_unknown(recipe, name, own)
        listed = " and ".join(filter(None, (", ".join(users[:-1]), users[-1])))
        raise ConfigError(
            f"--{flag(name)} is a flag of {listed}; the recipe {recipe} has objective {objective}, "
            "which does not use it. Leave it out or choose another recipe."
        )


if __name__ == "__main__":
    run_command(main)
