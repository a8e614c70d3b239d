"""The command that trains a run again, from its config.json."""

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from tendril.data.cli import command_line

from .config import OBJECTIVES, TrainConfig, fields_of
from .recipes import RECIPES

IDLE = ("device", "threads", "compile", "home", "name", "dry_run", "overwrite", "tensorboard")


def train_command(trained: Mapping[str, Any]) -> str:
    """`tendril train RECIPE ...`, with the flags that differ from the recipe; for an imported run,
    the import; empty if the objective is not known."""
    if "imported" in trained:
        return "tendril train import FOLDER"
    objective = str(trained.get("objective", ""))
    if objective not in OBJECTIVES:
        return ""
    used = fields_of(objective)
    known = {f.name for f in fields(TrainConfig)} & trained.keys() & used - {*IDLE, "sites"}
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value := trained[name], list) else value for name in known
    }
    values["latents"] = trained.get("latents", 0) if "latents" in used else TrainConfig.latents
    values["name"] = trained.get("name", "")
    sites = list(trained.get("sites") or ())
    if trained.get("paired_store"):
        named = [part.rpartition(":")[2] for part in sites]
        theirs = trained.get("paired_sites") or named[len(named) // 2 :]
        sites = named[: len(named) - len(theirs)]
        values["paired_sites"] = () if list(theirs) == sites else tuple(theirs)
        values["site"] = sites[0]
    if len(sites) > 1:
        values |= {"sites": tuple(sites), "site": TrainConfig.site}
    lines: dict[str, str] = {}
    for name, make in RECIPES.items():
        default = make()
        if default.objective == objective:
            config = replace(default, **values)
            lines[name] = command_line(["tendril", "train", name], config, default)
    return min(lines.items(), key=lambda line: ("demo" in line[0], len(line[1])))[1]


def store_of(run: Path, trained: Mapping[str, Any]) -> Path | None:
    """The folder of the store that a run was trained on, if it lies where config.json says."""
    place = run / str(trained.get("store_path") or "")
    return place if trained.get("store_path") and (place / "zarr.json").is_file() else None
