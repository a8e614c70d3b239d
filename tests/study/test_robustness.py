"""Plain against robust networks: effective features, effects with intervals, and the study."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tendril.data.errors import ConfigError
from tendril.harvest.config import HarvestConfig
from tendril.harvest.run import harvest
from tendril.models.dictionaries.baselines import neurons
from tendril.models.dictionaries.checkpoint import save_dictionary
from tendril.models.subjects.load import load_subject
from tendril.study.core.study import run_study
from tendril.study.measures.effective_features import ConditionSums, effective_features
from tendril.study.robustness.config import RobustnessConfig
from tendril.study.robustness.findings import (
    Measured,
    NetworkFigures,
    Robustness,
    effects,
    half_interval,
    verdict_on_error,
    verdict_on_features,
)
from tendril.study.robustness.inputs import Trained
from tendril.study.robustness.study import RobustnessStudy


def test_effective_features_are_counted_by_entropy() -> None:
    assert effective_features(torch.ones(7)) == pytest.approx(7)
    assert effective_features(torch.tensor([5.0, 0, 0])) == pytest.approx(1)
    assert effective_features(torch.zeros(3)) == 0
    p = np.array([0.5, 0.3, 0.2])
    expected = math.exp(-(p * np.log(p)).sum())
    assert effective_features(torch.tensor(10 * p)) == pytest.approx(expected)


def test_sums_over_batches_are_those_of_all_vectors() -> None:
    torch.manual_seed(0)
    x = torch.rand(100, 6)
    sums = ConditionSums(neurons(x, 2), 6)
    for some in x.split(33):
        sums.add(some)
    top = torch.zeros_like(x).scatter(1, x.topk(2).indices, x.topk(2).values)
    expected = (x - top).square().sum() / (x - x.mean(0)).square().sum()
    found = sums.figures()
    assert found["fvu"] == pytest.approx(float(expected), rel=1e-5)
    assert found["l0"] == 2
    assert found["effective_latents"] == pytest.approx(effective_features(top.sum(0)), rel=1e-6)
    assert found["effective_units"] == pytest.approx(effective_features(x.sum(0)), rel=1e-6)


def run(
    width: int, epsilon: float, seed: int, fvu: float, features: float, **more: str
) -> Measured:
    figures = {"fvu": fvu, "l0": 8.0, "effective_latents": features, "effective_units": 5.0}
    return Measured(
        run=f"{width}-{epsilon}-{seed}", site=more.get("site", "relu"), seed=0, latents=64,
        network=Trained(f"net-{width}-{epsilon}-{seed}", "d", "cnn", width, epsilon, "pgd", seed),
        objective=more.get("objective", "topk"), setting=more.get("setting", "k 8"), neurons=16,
        fvu_of_training=fvu, figures=dict.fromkeys(("clean", "fgsm", "pgd"), figures),
    )  # fmt: skip


def test_effects_are_told_from_the_noise_of_seeds() -> None:
    from scipy.stats import ttest_ind

    lower = [run(4, e, s, f, 30.0 - 90 * e) for e, s, f in (
        (0.0, 0, 0.40), (0.0, 1, 0.41), (0.0, 2, 0.42),
        (0.1, 3, 0.2), (0.1, 4, 0.21), (0.1, 5, 0.2),
        (0.05, 6, 0.9),  # the largest epsilon counts
    )]  # fmt: skip
    (effect,) = effects(lower, "fvu")
    plain, robust = (np.log([o.value("fvu") for o in lower[a:b]]) for a, b in ((0, 3), (3, 6)))
    interval = ttest_ind(robust, plain, equal_var=False).confidence_interval(0.95)
    assert effect.log_ratio - effect.half == pytest.approx(interval.low)
    assert effect.log_ratio + effect.half == pytest.approx(interval.high)
    assert effect.direction == "lower" and effect.networks == (3, 3)
    assert "supported here" in verdict_on_error([effect])
    noisy = [run(4, e, s, f, 30.0) for e, s, f in (
        (0.0, 0, 0.2), (0.0, 1, 0.4), (0.1, 2, 0.3), (0.1, 3, 0.15))]  # fmt: skip
    (effect,) = effects(noisy, "fvu")
    assert effect.direction == "open" and "not decided" in verdict_on_error([effect])
    one = effects([noisy[0], noisy[2]], "fvu")
    assert math.isnan(half_interval(np.zeros(1), np.zeros(3))) and one[0].direction == "open"
    assert effects(noisy[:2], "fvu") == [] and "Nothing can be said" in verdict_on_error([])
    penalised = [run(4, e, s, 0.1, 30.0, setting="l1 2") for e in (0.0, 0.1) for s in (0, 1)]
    assert effects(penalised, "fvu") == [] and len(effects(penalised, "l0")) == 1


def test_features_must_rise_in_wide_networks_and_fall_in_narrow_ones() -> None:
    def some(narrow: float, wide: float) -> list[Measured]:
        return [
            run(w, e, s, 0.3, 20 * (change if e else 1) * (1 + 0.01 * s))
            for w, change in ((4, narrow), (16, wide))
            for e in (0.0, 0.1)
            for s in range(3)
        ]

    for narrow, wide, said in (
        (0.7, 1.4, "supported"),
        (1.4, 0.7, "contradicted"),
        (1.3, 1.4, "not decided"),
        (1.0, 1.0, "not decided"),
    ):
        assert f"is {said} here" in verdict_on_features(effects(some(narrow, wide), "features"))


def test_networks_that_did_not_learn_are_compared_with_none() -> None:
    runs = [run(4, e, s, 0.3 + 0.1 * s, 30.0) for e in (0.0, 0.1) for s in (0, 1)]
    networks = [
        NetworkFigures(
            one.network, {"clean": 0.11 if n == 3 else 0.98, "fgsm": 0.0, "pgd": 0.0}, 50
        )
        for n, one in enumerate(runs)
    ]
    found = Robustness(networks, runs, "linf", 0.1)
    assert found.failed == [runs[3].network.name]
    assert found.effects("fvu")[0].networks == (2, 1)
    assert found.figures()["failed"] == found.failed


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(ConfigError, match="names of 2 runs or more"):
        RobustnessConfig(run=("one",)).check()
    with pytest.raises(
        ConfigError,
        match=r"--epsilon .*, from 0 to 1 for the norm linf; got -1\.",
    ):
        RobustnessConfig(run=("one", "two"), epsilon=-1.0).check()


SUBJECTS = """
from tests.helpers.splice_subject import Colours
from tendril.models.subjects.module import subject_from_module


def plain():
    return subject_from_module(Colours(), input_size=8, name="plain")


def other():
    module = Colours()
    module.two.weight.data *= 0.5
    return subject_from_module(module, input_size=8, name="other")
"""


def test_the_study_measures_networks_clean_and_attacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of networks that were not trained here no effect is claimed; figures stand on the page."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))
    (tmp_path / "subjects.py").write_text(SUBJECTS)
    rng = np.random.default_rng(0)
    for number in range(60):
        pixels = rng.integers(60, 100, (8, 8, 3))
        pixels[..., number % 3] += 60
        folder = tmp_path / "images" / f"{number % 3}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number:02}.png")
    for name in ("plain", "other"):
        subject = f"{tmp_path / 'subjects.py'}:{name}"
        made = harvest(
            HarvestConfig(
                inputs=str(tmp_path / "images"), subject=subject, sites=("relu",), device="cpu",
                home=str(tmp_path), name=name,
            )
        )  # fmt: skip
        about = {
            "site": "relu", "subject": dict(load_subject(subject).identity), "held_out": 0.5,
            "objective": "topk", "k": 1, "seed": 0,
            "store": Path(made.store).name, "store_path": str(made.store),
        }  # fmt: skip
        save_dictionary(tmp_path / "runs" / name, neurons(torch.rand(9, 2), 1), about)
        (tmp_path / "runs" / name / "result.json").write_text(json.dumps({"fvu": 0.1, "l0": 1}))
    config = RobustnessConfig(
        run=("plain", "other"), epsilon=0.2, attack_steps=3, device="cpu", home=str(tmp_path)
    )
    made = run_study(RobustnessStudy(), config)
    accuracies = {one["network"].split(":")[1]: one for one in made.figures["accuracies"]}
    assert accuracies["plain"]["clean"] == 1 and accuracies["plain"]["pgd"] < 0.5
    assert accuracies["other"]["clean"] < 1  # red and green seem darker to it
    first = made.figures["dictionaries"][0]
    assert first["l0_clean"] == 1 and first["fvu_clean"] > 0
    assert made.figures["effects"] == [] and "Nothing can be said" in made.headline
    assert "Clean and attacked inputs" in made.report.read_text()
    for run_names, match in ((("plain", "plain"), "all runs given are of one network"),):
        with pytest.raises(ConfigError, match=match):
            run_study(RobustnessStudy(), replace(config, run=run_names))
    with pytest.raises(ConfigError, match="--epsilon must say how strong"):
        run_study(RobustnessStudy(), replace(config, epsilon=0.0))
