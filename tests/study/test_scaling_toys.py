"""Runs on one manifold: L(n), its exponent or plateau, and pictures of circles."""

import dataclasses
import math
import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tendril.data.errors import RunNotFoundError
from tendril.data.store.reader import open_store
from tendril.data.store.truth import open_truth
from tendril.harvest.config import SyntheticConfig
from tendril.harvest.recipes import RECIPES
from tendril.harvest.run import harvest
from tendril.models.dictionaries.checkpoint import load_sae
from tendril.models.dictionaries.sae import SAE
from tendril.models.dictionaries.sparsity import Sparsity
from tendril.study.measures.manifold_losses import Losses, Penalty, manifold_losses
from tendril.study.run import study
from tendril.study.scaling.circle import circle_of, drawing
from tendril.study.scaling.config import ScalingConfig
from tendril.study.scaling.mixture import measured_curve, measured_losses
from tendril.study.scaling.runs import Dictionary, Shape, read_dictionary
from tendril.study.scaling.sweeps import runs_called
from tendril.study.scaling.toys import curves
from tendril.train.config import TrainConfig
from tendril.train.sweep.config import SweepConfig
from tendril.train.sweep.recipes import SWEEPS
from tendril.train.sweep.sweep import sweep

from .test_page import check


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of one circle with sweeps of TopK and of ReLU L1."""
    folder = tmp_path_factory.mktemp("toys")
    one: dict[str, Any] = {"features": 1, "active": 1.0, "most": 1.0, "width": 3}
    config = SyntheticConfig(
        kind="manifolds", rows=16_384, name="circle", home=str(folder), device="cpu", **one
    )
    base = TrainConfig(
        store=harvest(config).store,
        home=str(folder),
        device="cpu",
        threads=1,
        name="tiles",
        steps=250,
        batch_size=256,
        lr=1e-2,
        lr_decay=1.0,
        k=1,
        log_every=250,
    )
    tiles = replace(base, bias="none", dead_after=3000, resample_every=50)
    sweep(SweepConfig(("topk",), (4, 8, 16, 64), ("k=1",), base=tiles))
    lasso = replace(base, name="lasso", steps=100)
    sweep(SweepConfig(("relu_l1",), (4, 24), ("l1=0.5",), (0, 1), base=lasso))
    return folder


def missed(m: int) -> float:
    """1 - EV of a circle with m atoms, of which one is active with a free scale."""
    return 0.5 - math.sin(2 * math.pi / m) / (4 * math.pi / m)


def test_a_circle_is_tiled_as_the_formula_says(home: Path) -> None:
    result = study("scaling", run=("tiles", "sweep-lasso"), home=str(home))
    runs = {one["latents"]: one for one in result.figures["runs"] if one["objective"] == "topk"}
    for m in (4, 8, 16, 64):
        assert runs[m]["fvu"] == pytest.approx(missed(m), abs=0.01), m
        b_dec = load_sae(home / "runs" / runs[m]["run"]).b_dec
        assert (b_dec == 0).all(), "b_dec would do better than the formula"
    (lasso, tiles) = result.figures["toys"]
    assert (lasso["objective"], lasso["seeds"], lasso["setting"]) == (
        "relu_l1",
        2,
        "l1 0.5, 0.026 M vectors",
    )
    assert tiles["beta"] > 1 and tiles["verdict"] == "falls to 64" and tiles["level"] == ""
    check(text := result.report.read_text())
    assert text.count('<svg class="circle"') == 2 + 2, "4 and 24 of ReLU, 4 and 8 of TopK"
    assert "tiles" in text and "l1 0.5" in text and "circle" in text
    head, *rows = (result.report.parent / "toys.csv").read_text().splitlines()
    assert head.startswith("objective,setting,shape") and len(rows) == 2
    again = study("scaling", run=("sweep-tiles", "lasso"), home=str(home))
    assert len(again.figures["runs"]) == 8


def test_the_loss_of_a_run_is_that_of_its_objective_on_held_out_rows(home: Path) -> None:
    _, folders = runs_called("lasso", str(home))
    for folder in folders:
        one = read_dictionary(ScalingConfig(run=("x",), home=str(home)), folder)
        sae = load_sae(folder)
        store = open_store(next((home / "store").iterdir()))
        rows_ND = torch.from_numpy(store.read("rows", slice(0, store.rows)))
        scale = 3**0.5  # of rows of norm 1 and width 3
        z_NS = sae.encode(rows_ND)
        missed_N = (rows_ND - sae.decode(z_NS)).square().sum(dim=1) * scale**2
        penalty_N = 0.5 * scale * (z_NS @ sae.W_dec.norm(dim=1))
        loss = float((missed_N + penalty_N).mean().detach())
        assert one.losses is not None and one.loss == pytest.approx(loss / 3, rel=0.02)
        assert one.losses.bound == pytest.approx((0.5 * scale - 0.5**2 / 4) / 3, rel=1e-3)
        assert one.losses.bound < one.loss < 1
    found = [read_dictionary(ScalingConfig(run=("x",), home=str(home)), f) for f in folders]
    other = dataclasses.replace(found[0], objective="topk")
    measured = measured_curve(measured_losses(found, found[0]))
    assert measured is not None and not measured_losses(found, other)
    first = np.mean([one.loss for one in found if one.alive == 4])
    assert float(measured.loss(np.array([4.0]))[0]) == pytest.approx(float(first))


def test_bounds_of_other_objectives(home: Path) -> None:
    truth = open_truth(open_store(next((home / "store").iterdir())))
    sae = SAE(3, 8, Sparsity("relu"), pre_bias=False)  # says zero
    cheap = manifold_losses(sae, truth, Penalty("l0", 0.3), 0.05)
    assert (cheap.total, cheap.bound) == (pytest.approx(1, rel=1e-3), pytest.approx(0.3))
    costly = manifold_losses(sae, truth, Penalty("l0", 3.0), 0.05)
    assert costly.bound == pytest.approx(1, rel=1e-3), "no latent is worth it"
    assert manifold_losses(sae, truth, Penalty(), 0.05).bound == 0
    unknown = manifold_losses(sae, truth, Penalty("unknown"), 0.05)
    assert unknown.fvu == pytest.approx(1) and np.isnan([unknown.total, unknown.bound]).all()


def runs_of(
    loss: Callable[[int], float], sizes: tuple[int, ...], seeds: int = 3, noise: float = 0.0
) -> list[Dictionary]:
    draws = np.random.default_rng(0)
    common: dict[str, Any] = {"run": "x", "objective": "relu_l1", "site": "rows", "subject": ""}
    common |= {"slope": None, "near": None, "like": None, "counts": None}
    common |= {"shape": Shape("sphere", 3, 1, 0.0), "fvu": 0.1}
    return [
        Dictionary(
            latents=n,
            seed=seed,
            frequency_S=np.ones(n),
            losses=Losses(
                0.5 + loss(n) * (1 + noise * float(draws.normal())), 0.5, 0.1, np.ones(1), 9
            ),
            **common,
        )
        for n in sizes
        for seed in range(seeds)
    ]


def test_an_exponent_comes_from_a_line_and_a_plateau_from_a_level() -> None:
    sizes = tuple(4**i for i in range(7))
    (one,) = curves(runs_of(lambda n: 0.4 / n, sizes, noise=0.05))
    assert one.beta == pytest.approx(1, abs=0.1) and one.verdict == "falls to 4,096"
    assert one.error is not None and abs(one.beta - 1) < 4 * one.error < 0.4
    (two,) = curves(runs_of(lambda n: 0.1 + 0.4 / n**2, sizes, noise=0.01))
    assert two.level == 16 and two.record()["level_over_2d"] == round(16 / 6, 2)
    assert two.verdict == "levels off at 16"
    (alone,) = curves(runs_of(lambda n: 0.4 / n, (8,)))
    assert alone.beta is None and alone.level is None and alone.verdict == "too few sizes"
    (rising,) = curves(runs_of(lambda n: abs(math.log(n / 16)) / 100 + 0.1, sizes))
    assert rising.level == 16 and rising.verdict == "least at 16, then rises"


def test_the_picture_shows_where_latents_are_active(home: Path) -> None:
    truth = open_truth(open_store(next((home / "store").iterdir())))
    sae = SAE(3, 5, Sparsity("topk", 1), pre_bias=True)
    plane = torch.from_numpy(truth.directions_FdD[0])
    axes = torch.tensor([[1.0, 0], [0, 1], [-1, 0], [0, -1], [0, 0]])
    with torch.no_grad():
        sae.W_dec.copy_(axes @ plane)
        sae.W_enc.copy_(sae.W_dec.T)
    one = circle_of(sae, truth)
    assert one is not None
    np.testing.assert_allclose(one.rows_S2, axes.numpy(), atol=1e-6)
    np.testing.assert_allclose(one.on_AS.mean(axis=0), [0.25] * 4 + [0], atol=0.01)
    text = drawing(one, "four")
    assert text.count("<title>latent") == text.count('class="hue" style') == 4
    assert text.count('class="ink"') == 4, "the reconstruction jumps between latents"
    assert circle_of(SAE(3, 33, Sparsity("relu"), pre_bias=False), truth) is None


def test_a_name_of_no_run_and_no_sweep(home: Path) -> None:
    with pytest.raises(RunNotFoundError, match="there is no run 'nothing'"):
        runs_called("nothing", str(home))
    name, folders = runs_called("tiles", str(home))
    assert name.startswith("sweep-tiles-") and len(folders) == 4
    assert runs_called(folders[0].name, str(home)) == (folders[0].name, [folders[0]])


def make_says(*words: str) -> str:
    """The commands of make, without running them."""
    done = subprocess.run(
        ["make", "--no-print-directory", "-n", "study", *words],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_make_trains_what_its_study_of_scaling_reads() -> None:
    said = make_says("RECIPE=scaling")
    study_words = said[said.index("tendril study scaling") :].replace("\\", "").split()
    shapes = re.findall(r"for toy in (.*?);", said)[0].split()
    harvested = re.findall(r"tendril harvest (\S+)", said)
    assert harvested == [f"toy_{shape}" for shape in shapes] and set(harvested) <= set(RECIPES)
    trained = re.findall(r"tendril train (\S+) --store (\S+) --name (\S+)", said)
    assert {recipe for recipe, _, _ in trained} <= set(SWEEPS) and len(trained) == 3
    names = [name for _, _, name in trained]
    expanded = {name.replace("$toy", shape) for name in names for shape in shapes}
    assert set(study_words[study_words.index("--run") + 1 :]) == expanded
    assert "--model" in study_words
    assert "harvest" not in make_says("RECIPE=scaling", "RUN=mine")
    assert "harvest" not in make_says()
