"""Feature patching of a model that was trained here, by dictionaries that were: these need fewer
features than principal components."""

from pathlib import Path
from typing import Any

import pytest

from tendril.harvest.config import LanguageConfig
from tendril.harvest.run import harvest
from tendril.study.core.study import run_study
from tendril.study.patching.config import PatchingConfig
from tendril.study.patching.study import PatchingStudy
from tendril.train.config import TrainConfig
from tendril.train.loop import train

from ..helpers import talkers

pytestmark = pytest.mark.slow  # trains a model and two dictionaries


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model, a store of its first block's residual stream, and two dictionaries of it."""
    home = talkers.save(tmp_path_factory.mktemp("home"))
    harvest(
        LanguageConfig(
            inputs=str(home / "text.jsonl"), subject=str(home / "model"), sites=("resid_post.0",),
            context=talkers.CONTEXT, dtype="float32", device="cpu", home=str(home),
        )
    )  # fmt: skip
    told: dict[str, Any] = {
        "latents": 256, "steps": 300, "batch_size": 1024, "lr": 2e-3, "device": "cpu",
        "home": str(home),
    }  # fmt: skip
    train(TrainConfig(name="topk", objective="topk", k=4, **told))
    train(TrainConfig(name="gated", objective="gated", l1=3.0, **told))
    return home


def needed(home: Path, change: Any) -> dict[str, dict[str, dict[str, int]]]:
    """Features that each order needs for half and for four fifths of the KL."""
    told = run_study(
        PatchingStudy(),
        PatchingConfig(
            run=("topk", "gated"), names=talkers.SPOKEN_TO, change=change, pairs=28, fitted=12,
            features=24, candidates=16, greedy=9, acdc=0, device="cpu", home=str(home),
        ),
    ).figures  # fmt: skip
    assert told["kl_before"] > 5, "the model has learned to say the name"
    assert told["right_base"] == told["right_counterfactual"] == 1
    return {
        name.partition("-")[0]: {way: one["needed"] for way, one in ways.items()}
        for name, ways in told["curves"].items()
    }


def test_for_one_change_of_name_one_order_of_latents_serves_all_prompts(home: Path) -> None:
    told = needed(home, "same-name")
    for way in ("greedy", "own_greedy", "attribution", "own_attribution"):
        for share in ("50%", "80%"):
            for name in ("topk", "gated"):
                assert 2 * told[name][way][share] <= told["pca"][way][share]


def test_for_any_change_of_names_each_pair_needs_fewer_latents(home: Path) -> None:
    told = needed(home, "name")
    for way in ("own_greedy", "own_attribution"):
        for share in ("50%", "80%"):
            for name in ("topk", "gated"):
                assert told[name][way][share] < told["pca"][way][share]
