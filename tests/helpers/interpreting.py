"""A home with planted classes of words, and a config that interprets them by the rule server."""

from pathlib import Path
from typing import Any

import torch

from tendril.harvest.config import LanguageConfig
from tendril.harvest.run import harvest
from tendril.study.core.study import StudyResult, run_study
from tendril.study.interpret.config import InterpretConfig
from tendril.study.interpret.study import InterpretStudy

from . import planted_language as planted
from .rule_server import Rules


def make_home(home: Path) -> Path:
    """A store of a model with planted classes, and a run whose latents are these."""
    directions = planted.save_model(home / "tiny")
    planted.write_text(home / "text.txt", contexts=200, words=32)
    made = harvest(
        LanguageConfig(
            inputs=str(home / "text.txt"),
            subject=str(home / "tiny"),
            sites=(planted.SITE,),
            context=33,
            dtype="float32",
            device="cpu",
            home=str(home),
        )
    )
    planted.save_run(home / "runs" / "known", Path(made.store), directions)
    torch.save(directions, home / "directions.pt")
    return home


def link_home(home: Path, folder: Path) -> Path:
    """The same home without answers and reports."""
    for name in ("store", "runs", "tiny", "text.txt"):
        (folder / name).symlink_to(home / name)
    return folder


def study_interpret(config: InterpretConfig) -> StudyResult:
    """The study of a config."""
    return run_study(InterpretStudy(), config)


def config(home: Path, rules: Rules, **fields: Any) -> InterpretConfig:
    """A config for the rule server."""
    asked = {"tested": 10, "per_request": 5, "example_tokens": 16, "backoff": 0.01, "timeout": 20.0}
    return InterpretConfig(
        run="known", endpoint=rules.url, model="rule", home=str(home), **(asked | fields)
    )
