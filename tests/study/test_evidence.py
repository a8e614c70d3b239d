"""Evidence for missing curve detectors, on a network whose detectors are mixed."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tendril.data.errors import ConfigError, InputsNotFoundError
from tendril.data.store.reader import Store, open_store
from tendril.harvest.config import HarvestConfig
from tendril.harvest.run import harvest
from tendril.models.dictionaries.checkpoint import save_dictionary
from tendril.models.dictionaries.sae import SAE
from tendril.models.dictionaries.sparsity import Sparsity
from tendril.study.evidence.findings import Candidate, Limits
from tendril.study.measures.latent_effects import (
    LatentsTogether,
    OneLatent,
    matched_sets,
    other_directions,
)
from tendril.study.run import study

from ..helpers.mixed_subject import CURVES, mixing
from .test_curves import QUICK, ROOT, draw_inputs
from .test_page import check

SUBJECT = f"{ROOT / 'tests' / 'helpers' / 'mixed_subject.py'}:make"
FEW = {"directions": 7, "level": 0.2, "turned": 2, "photographs": 3, "candidates": 8, "copies": 2}
FEW["together"] = 4


def save_run(home: Path, store: Store, name: str, rows: torch.Tensor, seed: int) -> None:
    """A run whose decoder rows are these, and whose encoder is their transpose."""
    sae = SAE(rows.shape[1], len(rows), Sparsity("relu", 0), pre_bias=False)
    with torch.no_grad():
        sae.W_dec.copy_(rows)
        sae.W_enc.copy_(rows.T)
    run = home / "runs" / f"{name}-0123456789ab"
    config = {
        "site": "mixed",
        "held_out": 0.5,
        "seed": seed,
        "store": store.name,
        "store_path": os.path.relpath(store.path, run),
        "subject": store.spec["subject"],
    }
    save_dictionary(run, sae, config)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of the mixed site; runs with the true directions, the same in another order, and
    random ones."""
    folder = tmp_path_factory.mktemp("home")
    draw_inputs(folder / "images" / "one")
    draw_inputs(folder / "images" / "two", (40.0, 20.0))
    config = HarvestConfig(
        subject=SUBJECT,
        inputs=str(folder / "images"),
        sites=("mixed",),
        per_input="all",
        device="cpu",
        home=str(folder),
    )
    store = open_store(harvest(config).store)
    true = mixing()
    save_run(folder, store, "true", true, 0)
    save_run(folder, store, "again", true[torch.randperm(10)], 1)
    random, _ = torch.linalg.qr(torch.randn(10, 10, generator=torch.Generator().manual_seed(9)))
    save_run(folder, store, "other", random, 2)
    return folder


def evidence(home: Path, *runs: str, **fields: object) -> Any:
    """The study of some runs, quickly."""
    return study("evidence", run=runs, home=str(home), **{**QUICK, **FEW, **fields})


def test_mixed_curve_detectors_are_missing_ones(home: Path) -> None:
    result = evidence(home, "true", "again", downstream="apart")
    figures = result.figures
    assert figures["curve_units"] == 0 and figures["new_latents"] == [CURVES, CURVES]
    assert figures["candidates"] == 2 * CURVES
    for one in figures["latents"]:
        assert one["distance"] == 360.0 and one["rival_ratio"] < 1 and one["found_in"] == 1, one
        assert one["found_by_chance"] == 0 and one["best_cosine"] > 0.999
        assert one["tuning_observed"] > 0.5 > one["tuning_mean"] and one["tuning_p"] <= 0.125, one
        assert one["kl_observed"] > one["kl_mean"] >= 0
        assert abs(one["off_on_photographs"]) < 10, one
    assert figures["missing_detectors"] == 2 * CURVES
    text = result.report.read_text()
    check(text)
    assert "meet all five criteria" in text and "data:image/jpeg" in text
    rows = (result.report.parent / "evidence.csv").read_text().splitlines()
    assert len(rows) == 1 + 2 * CURVES
    assert figures["together"] == [], "too few other latents"
    again = evidence(home, "true", "again", downstream="apart")
    assert again.reused and again.figures == json.loads(json.dumps(figures))


def test_latents_that_no_other_run_finds_are_no_missing_detectors(home: Path) -> None:
    figures = evidence(home, "true", "other", downstream="apart", candidates=2).figures
    own = [one for one in figures["latents"] if one["seed"] == 0]
    assert own and all(one["found_in"] == 0 and not one["missing"] for one in own)


def test_curve_latents_removed_together_beside_others(home: Path, tmp_path: Path) -> None:
    store = open_store(next((home / "store").iterdir()))
    others = torch.randn(30, 10, generator=torch.Generator().manual_seed(4)) / 10**0.5
    save_run(home, store, "wide", torch.cat([mixing(), others]), 3)
    images = sorted(path.stem for path in (home / "images").rglob("*.png"))
    classes = tmp_path / "classes.txt"
    classes.write_text("".join(f"{name}\n" for name in dict.fromkeys(images)))
    result = evidence(home, "wide", downstream="apart", candidates=1, copies=0, labels=str(classes))
    assert result.figures["right_answers"] == "file"
    (one,) = result.figures["together"]
    assert one["latents"] >= CURVES and one["photographs"] == 4
    assert one["tuning_observed"] > one["tuning_mean"] and one["tuning_p"] == 0.125, one
    check(text := result.report.read_text())
    assert "Removed together" in text and (result.report.parent / "together.csv").is_file()
    with pytest.raises(InputsNotFoundError, match="--labels must be a file"):
        evidence(home, "wide", labels=str(tmp_path / "none"))


def test_runs_of_one_seed_are_no_repetitions(home: Path) -> None:
    store = open_store(next((home / "store").iterdir()))
    save_run(home, store, "twin", mixing(), 0)
    figures = evidence(home, "true", "twin", downstream="apart", candidates=1).figures
    assert all(one["other_runs"] == 0 and one["recurs"] == "" for one in figures["latents"])
    assert figures["missing_detectors"] == 0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"directions": 9, "level": 0.05}, "--directions must be larger for --level 0.05; got 9"),
        ({"step": 90.0}, "--step must be at most 30 degrees"),
        ({"candidates": 0}, "--candidates must be 1 or more"),
    ],
)
def test_settings_that_could_not_give_a_verdict_are_refused(
    home: Path, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        evidence(home, "true", "again", **fields)


def test_without_a_site_downstream_the_answers_are_compared(home: Path) -> None:
    figures = evidence(home, "true", candidates=1, copies=0, downstream="").figures
    (one,) = figures["latents"]
    assert figures["downstream"] == "" and one["tuning_p"] == ""
    assert one["kl_p"] <= 0.25 and one["matters"] == int(one["kl_p"] <= 0.2)
    assert one["recurs"] == "" and not one["missing"], "one run only"


def test_as_much_is_removed_along_other_directions() -> None:
    generator = torch.Generator().manual_seed(0)
    sae = SAE(6, 9, Sparsity("relu", 0), pre_bias=False)
    with torch.no_grad():
        sae.W_dec.copy_(torch.randn(9, 6, generator=generator))
        sae.W_enc.copy_(torch.randn(6, 9, generator=generator))
    x_ND = torch.randn(12, 6, generator=generator)
    directions_RD = other_directions(sae, [0, 1, 2, 5], 3)
    torch.testing.assert_close(directions_RD.norm(dim=1), torch.ones(3))
    removed = OneLatent(sae, 4, directions_RD)
    own_ND, *others = removed.variants(x_ND)
    z_N = sae.encode(x_ND)[:, 4]
    torch.testing.assert_close(own_ND, x_ND - z_N[:, None] * sae.W_dec[4])
    for changed_ND, direction_D in zip(others, directions_RD, strict=True):
        gone_ND = x_ND - changed_ND
        torch.testing.assert_close(gone_ND.norm(dim=1), (x_ND - own_ND).norm(dim=1))
        torch.testing.assert_close(gone_ND, (gone_ND @ direction_D)[:, None] * direction_D)
    assert removed.active(x_ND).tolist() == (z_N > 0).tolist()
    first_ND, second_ND = LatentsTogether(sae, [[1, 4], [0, 2]]).variants(x_ND)
    z_NS = sae.encode(x_ND)
    by_hand_ND = x_ND - z_NS[:, 1, None] * sae.W_dec[1] - z_NS[:, 4, None] * sae.W_dec[4]
    torch.testing.assert_close(first_ND, by_hand_ND)
    torch.testing.assert_close(second_ND, x_ND - z_NS[:, [0, 2]] @ sae.W_dec[[0, 2]])
    with pytest.raises(ConfigError, match="--directions must be at most 4"):
        other_directions(sae, [0, 1, 2, 5], 5)


def test_matched_sets_are_as_frequent_and_as_strong() -> None:
    rng = np.random.default_rng(0)
    frequency_S = np.exp(rng.uniform(-6, -1, 400))
    energy_S = np.exp(rng.uniform(-3, 3, 400))
    chosen = list(range(12))
    sets = matched_sets(chosen, range(12, 400), frequency_S, energy_S, 19)
    assert len(sets) == 19 and all(len(set(one)) == 12 for one in sets)
    assert all(min(one) >= 12 for one in sets) and len({tuple(sorted(one)) for one in sets}) > 10

    def mean(values: np.ndarray, some: list[int]) -> float:
        return float(np.log(values[some]).mean())

    for values in (frequency_S, energy_S):
        of_sets = [mean(values, one) for one in sets]
        assert all(abs(one - mean(values, chosen)) < 0.4 for one in of_sets), of_sets


@pytest.mark.parametrize(
    ("change", "fails"),
    [
        ({}, ""),
        ({"nearest": (3, 5.0)}, "uncovered"),
        ({"copies": True}, "uncovered"),
        ({"rival": ("corner", 1.2)}, "curves"),
        ({"off": 40.0}, "photographs"),
        ({"found_in": (0.2, 0.9, 0.1)}, "recurs"),
    ],
)
def test_each_criterion_fails_by_itself(change: dict[str, Any], fails: str) -> None:
    fields: dict[str, Any] = {
        **{"run": "a", "seed": 0, "latent": 1, "copies": False, "orientation": 10.0},
        **{"nearest": (3, 15.0), "envelope": 0.5, "rival": ("corner", 0.8), "off": 3.0},
        **{"patches_turned": 4, "found_in": (0.9, 0.8), "by_chance": (0.1, 0.1), "alike": 0.7},
        **{"tuning": None, "kl": None, "top5": None, "watched": 0},
    }
    one = Candidate(**(fields | change))
    verdicts = one.verdicts(Limits(apart=10.0, rival=1.0, off=20.0, recurs=0.5, level=0.05))
    assert verdicts.pop("matters") is None
    assert [name for name, verdict in verdicts.items() if not verdict] == ([fails] if fails else [])
