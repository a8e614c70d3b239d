"""What a run can be asked for beside an objective: several sites, baselines, resampling,
evaluations, and what it says where something is wrong."""

import csv
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tendril.data import order
from tendril.data.errors import ConfigError
from tendril.data.store.batches import Batches
from tendril.data.store.moments import Moments
from tendril.data.store.reader import Store
from tendril.models.dictionaries.checkpoint import load_dictionary, read_tensors
from tendril.models.dictionaries.crosscoder import joined
from tendril.models.dictionaries.sae import SAE, initialised
from tendril.models.dictionaries.sparsity import Sparsity
from tendril.train.config import BASELINES, OBJECTIVES, TrainConfig
from tendril.train.dry_run import dry_run
from tendril.train.loop import memory_errors, run_folder, train
from tendril.train.objectives.base import make_objective
from tendril.train.recipes import RECIPES
from tendril.train.resample import resample
from tendril.train.trainer import Trainer, learning_rate, make_adam
from tendril.train.vectors import source_of, store_of

from ..helpers import sparse
from ..helpers.stopping import check_stop_changes_nothing

ROWS = 4000


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sites that see the same features, by other directions and in other units."""
    home = tmp_path_factory.mktemp("home")
    z_directions = sparse.directions(32, 24)
    rows = sparse.vectors(ROWS, z_directions)
    sites = {"early": rows[:, :16].copy(), "later": rows[:, 16:] * 100}
    sites["positive"] = np.maximum(rows[:, :16], 0)
    sparse.make_store(home, sites)
    return home


JOINT: list[dict[str, Any]] = [
    {"objective": "batch_topk"},
    {"objective": "relu_l1", "l1": 0.5, "lr": 3e-3},
    {"objective": "matryoshka", "sources": "random"},
    {"objective": "relu_l1", "sources": "one"},
]


@pytest.mark.parametrize("fields", JOINT)
def test_a_crosscoder_takes_raw_vectors_of_all_sites(home: Path, fields: dict[str, Any]) -> None:
    """What is exported, on raw vectors, is what was trained, on vectors scaled site by site."""
    config = sparse.tiny(home, sites=("early", "later"), eval_every=30, **fields)
    result = train(config)
    told = json.loads((result.run / "config.json").read_text())
    assert told["sites"] == {"early": 16, "later": 8}
    assert result.site == told["site"] == "early+later"
    store = store_of(config)
    rows = {site: torch.from_numpy(store.read(site, slice(0, 500))) for site in told["sites"]}
    scales = []
    for site, width in told["sites"].items():
        moments = store.moments(site)
        scales += [(width / float((moments.variance + moments.mean**2).sum())) ** 0.5] * width
    x_ND, scale_D = joined(rows), torch.tensor(scales)
    trained = make_objective(config, 24, (16, 8)).start(x_ND, 64, torch.Generator())
    tensors, _ = read_tensors(result.run / "state.safetensors")
    trained.load_state_dict({name: tensors[f"sae.{name}"] for name in trained.state_dict()})
    exported = load_dictionary(result.run)
    torch.testing.assert_close(
        exported(x_ND) * scale_D, trained(x_ND * scale_D), rtol=1e-3, atol=1e-3
    )
    if fields.get("sources") == "one":
        assert (exported.W_enc[16:] == 0).all()
        assert (exported.W_enc[:16] != 0).any()
    else:
        assert result.fvu < 0.9


@pytest.mark.many_steps
def test_a_crosscoder_finds_features_in_all_sites(home: Path) -> None:
    config = sparse.tiny(home, sites=("early", "later"), objective="batch_topk", lr=6e-3)
    result = train(replace(config, steps=600, latents=32, log_every=300, checkpoint_every=600))
    assert result.fvu < 0.15
    assert result.l0 == pytest.approx(3, rel=0.25), "the threshold gives the k of training"
    sae = load_dictionary(result.run)
    truth_SD = sparse.directions(32, 24) * np.repeat([1.0, 100.0], [16, 8])
    truth_SD = torch.nn.functional.normalize(torch.from_numpy(truth_SD).float(), dim=1)
    found_S = (truth_SD @ torch.nn.functional.normalize(sae.W_dec, dim=1).T).max(dim=1).values
    assert float(found_S.mean()) > 0.9


def test_several_sites_want_an_objective_for_them(home: Path) -> None:
    with pytest.raises(
        ConfigError,
        match="several --sites must be used with one of the objectives batch_topk",
    ):
        train(sparse.tiny(home, sites=("early", "later")))
    with pytest.raises(ConfigError, match="--sites must name each site once"):
        train(sparse.tiny(home, sites=("early", "early"), objective="relu_l1"))
    with pytest.raises(ConfigError, match=r"got 'ealy'.*near it: early"):
        train(sparse.tiny(home, sites=("ealy", "later"), objective="relu_l1"))


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_is_a_run_like_any_other(home: Path, name: str) -> None:
    site = "positive" if name == "nmf" else "early"
    config = sparse.tiny(home, objective=name, k=4, site=site)
    first = train(config)
    again = train(replace(config, steps=7, l1=3.0, log_every=1))
    assert again == replace(first, reused=True), "steps and lambda change nothing"
    assert (first.steps, first.vectors > 3000) == (0, True)
    assert 0 < first.fvu < 1.5
    assert first.l0 <= 4
    assert load_dictionary(first.run).encode(torch.ones(2, 16)).shape[0] == 2
    assert json.loads((first.run / "config.json").read_text())["objective"] == name


def test_evaluations_on_held_out_vectors_are_kept(home: Path) -> None:
    config = sparse.tiny(home, objective="batch_topk", eval_every=25)
    result = train(config)
    lines = list(csv.DictReader((result.run / "evaluations.csv").read_text().splitlines()))
    assert [int(line["step"]) for line in lines] == [25, 50, 60]
    fvus = [float(line["fvu"]) for line in lines]
    assert fvus[0] > fvus[1] > fvus[2] == result.fvu
    assert float(lines[2]["l0"]) == result.l0
    assert train(replace(config, eval_every=0)).reused, "looking changes nothing"


@pytest.mark.many_steps
def test_options_change_the_run_and_a_stop_does_not(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Resampling, warm-ups, annealing and evaluations, stopped and gone on with."""
    options: dict[str, Any] = {
        "lr_warmup": 0.2,
        "k_anneal": 0.5,
        "resample_every": 10,
        "dead_after": 300,
        "latents": 256,
        "eval_every": 20,
        "objective": "batch_topk",
        "k": 2,
    }
    config = sparse.tiny(home, **options)
    check_stop_changes_nothing(config, home, tmp_path, monkeypatch)
    store = store_of(config)
    for option in ("lr_warmup", "k_anneal", "resample_every"):
        other = replace(config, **{option: 0 if option == "resample_every" else 0.0})
        assert run_folder(other, source_of(other, store)) != run_folder(
            config, source_of(config, store)
        )


def test_the_rate_rises_over_the_warm_up() -> None:
    rates = [learning_rate(step, 100, 0.5, 0.2, 0.1) for step in range(100)]
    np.testing.assert_allclose(rates[:10], np.linspace(0.05, 0.5, 10))
    assert rates[10:81] == [0.5] * 71
    assert rates[99] == pytest.approx(0.5 / 20)


def test_dead_latents_start_anew_where_the_error_is_large() -> None:
    generator = torch.Generator().manual_seed(0)
    sae = SAE(6, 10, Sparsity("jumprelu"), pre_bias=True)
    initialised(sae, generator, bias_D=torch.ones(6))
    assert sae.threshold is not None
    sae.threshold.data.copy_(torch.arange(10.0))
    sae.b_enc.data.fill_(0.5)
    adam = make_adam(sae.parameters(), 1e-3)
    x_ND = torch.randn(50, 6, generator=generator)
    torch.autograd.backward(sae(x_ND).square().sum() + sae.threshold.sum())
    adam.step()
    before = {name: p.detach().clone() for name, p in sae.named_parameters()}
    dead_S = torch.zeros(10, dtype=torch.bool)
    dead_S[[2, 7]] = True
    error_ND = torch.zeros(50, 6)
    error_ND[[11, 30]] = 1.0
    given_S = resample(sae, adam, x_ND, error_ND, dead_S, torch.Generator().manual_seed(1))
    assert torch.equal(given_S, dead_S)
    wanted_ND = torch.nn.functional.normalize(x_ND[[11, 30]] - before["b_dec"], dim=1)
    length = before["W_dec"][~dead_S].norm(dim=1).mean()
    rows_ND = sae.W_dec[dead_S] / length
    assert torch.allclose(rows_ND, wanted_ND) or torch.allclose(rows_ND, wanted_ND.flip(0))
    mean = before["W_enc"][:, ~dead_S].norm(dim=0).mean()
    torch.testing.assert_close(sae.W_enc[:, dead_S], 0.2 * mean * rows_ND.T)
    assert (sae.b_enc[dead_S] == 0).all()
    torch.testing.assert_close(sae.threshold[dead_S], before["threshold"][~dead_S].mean().expand(2))
    assert torch.equal(sae.b_dec, before["b_dec"])
    for name, parameter in sae.named_parameters():
        axis = 1 if name == "W_enc" else 0
        moments = adam.state[parameter]["exp_avg_sq"]
        if name != "b_dec":
            living = (~dead_S).nonzero().squeeze(1)
            kept, was = (t.index_select(axis, living) for t in (parameter, before[name]))
            assert torch.equal(kept, was), name
            gone = moments.index_select(axis, dead_S.nonzero().squeeze(1))
            assert (gone == 0).all()
        assert (moments != 0).any()
    none = resample(sae, adam, x_ND, error_ND * 0, dead_S, torch.Generator())
    assert not none.any(), "nothing to learn from"


@pytest.mark.parametrize(
    "fields", [{"objective": "topk", "aux_weight": 0.0, "k": 6}, {"objective": "relu_l1"}]
)
@pytest.mark.many_steps
def test_resampling_brings_latents_back(home: Path, fields: dict[str, Any]) -> None:
    """Latents pushed out of reach are dead without it, and fire with it."""

    def dead(every: int) -> float:
        config = sparse.tiny(home, dead_after=500, resample_every=every, **fields)
        batches = store_of(config).batches("early", 128)
        training = Trainer(config, make_objective(config, 16), batches, 1.0, torch.device("cpu"))
        training.sae.b_enc.data[:32] = -100  # type: ignore[index, operator, union-attr]
        for _ in range(20):
            training.advance()
        return training.dead_fraction()

    assert dead(0) >= 0.5
    assert dead(8) < 0.2


@pytest.mark.parametrize("objective", ["topk", "pca"])
@pytest.mark.parametrize("in_moments", [False, True])
def test_a_row_that_is_no_number_is_named(
    home: Path, monkeypatch: pytest.MonkeyPatch, objective: str, in_moments: bool
) -> None:
    """Found by its moments before training, or by the first batch that holds it."""
    config = sparse.tiny(home, seed=5, objective=objective)
    column = store_of(config).column("input")
    training = np.flatnonzero(~order.held_out(column, config.held_out))
    bad = int(training[training > 700][0])
    read, moments, following = Store.read, Store.moments, Batches.__next__
    given = []

    def spoilt(store: Store, site: str, rows: Any) -> np.ndarray:
        found = read(store, site, rows)
        found[np.arange(store.rows)[rows] == bad, 3] = np.nan
        return found

    def batch(batches: Any) -> dict[str, torch.Tensor]:
        given.append(following(batches))
        if len(given) > 3:
            next(iter(given[-1].values()))[5, 3] = torch.nan
        return given[-1]

    def of_all(store: Store, site: str) -> Moments:
        found = moments(store, site)
        return Moments(found.count, found.mean * np.nan, found.m2 * np.nan)

    monkeypatch.setattr(Store, "read", spoilt)
    if in_moments:
        monkeypatch.setattr(Store, "moments", of_all)
    else:
        monkeypatch.setattr(Batches, "__next__", batch)
    sentence = rf"row {bad} of activations/early in .* \(input 'number {column[bad]}'\)"
    with pytest.raises(ConfigError, match=sentence):
        train(config)


def test_the_last_good_checkpoint_is_kept(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = sparse.tiny(home, seed=77)
    advance = Trainer.advance

    def spoiling(trainer: Trainer) -> Any:
        if trainer.step == 40:
            trainer.sae.W_dec.data[0, 0] = torch.inf
        return advance(trainer)

    monkeypatch.setattr(Trainer, "advance", spoiling)
    with pytest.raises(ConfigError, match=r"at step 41 \(the checkpoint of step 35 is kept"):
        train(config)
    run = run_folder(config, source_of(config, store_of(config)))
    _, numbers = read_tensors(run / "state.safetensors")
    assert numbers["step"] == 35
    assert not (run / "result.json").exists()


def test_running_out_of_memory_says_what_lowers_it() -> None:
    config = TrainConfig(batch_size=4096, latents=100)
    for error in (
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ):
        with (
            pytest.raises(ConfigError, match=r"Lower --batch-size \(now 4096\) first, then --l"),
            memory_errors(config, 16),
        ):
            raise error
    with pytest.raises(ConfigError, match=r"Lower --latents .* first"), memory_errors(config, 4096):
        torch.empty(2**60, dtype=torch.uint8)
    with pytest.raises(RuntimeError, match="something else"), memory_errors(config, 16):
        raise RuntimeError("something else")


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["topk", "relu_l1"])
def test_a_compiled_loss_gives_the_same_figures(home: Path, recipe: str) -> None:
    """As a command: the checks of annotations that tests run with cannot be compiled."""
    columns = []
    for name, flags in {"plain": [], "compiled": ["--compile"]}.items():
        fields = ["--steps", "20", "--log-every", "1", "--batch-size", "128", "--latents", "64"]
        asked = [recipe, *fields, "--name", name, "--device", "cpu", "--home", str(home), *flags]
        done = subprocess.run(
            [sys.executable, "-m", "tendril", "train", *asked],
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        run = Path(json.loads(done.stdout.splitlines()[-1])["run"])
        lines = csv.DictReader((run / "metrics.csv").read_text().splitlines())
        columns.append([float(line["loss"]) for line in lines])
    assert len(columns[0]) == 20
    assert columns[1] == pytest.approx(columns[0], rel=1e-4)


EVERY: list[dict[str, Any]] = [
    *({"objective": name} for name in OBJECTIVES if name not in ("equivariant", "nmf")),
    {"objective": "batch_topk", "sites": ("early", "later")},
    {"objective": "nmf", "site": "positive"},
]


@pytest.mark.parametrize("fields", EVERY)
def test_a_dry_run_counts_the_parameters_of_the_run(home: Path, fields: dict[str, Any]) -> None:
    config = sparse.tiny(home, steps=3, seed=9, **fields)
    told = dry_run(config).result
    made = train(config)
    assert Path(str(told["run"])) == made.run
    assert told["parameters"] == made.parameters
    assert told["steps"] == made.steps


def test_what_is_not_worth_training_is_said(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Many passes over few rows, and a dictionary that is worse than the mean, are warned of."""
    sparse.make_store(tmp_path, {"here": sparse.vectors(800, sparse.directions())})
    config = sparse.tiny(tmp_path, steps=12, batch_size=4096, lr=30.0)
    result = train(config)
    said = capsys.readouterr().err
    assert re.search(r"warning: 12 steps of 4,096 vectors are \d+ passes over about 760", said)
    assert result.fvu > 1 and "is above 1, so the mean vector reconstructs" in said
    quiet = replace(config, steps=40, batch_size=64, lr=1e-3, held_out=0.5)
    assert train(quiet).fvu < 1
    assert "warning" not in capsys.readouterr().err


def test_a_store_of_few_inputs_holds_one_out(tmp_path: Path) -> None:
    sparse.make_store(tmp_path, {"here": sparse.vectors(160, sparse.directions())})
    assert train(sparse.tiny(tmp_path, steps=2, batch_size=16)).eval_rows >= 1


def test_a_store_of_one_input_is_refused_before_the_first_step(tmp_path: Path) -> None:
    one = sparse.vectors(sparse.PER_INPUT, sparse.directions())
    sparse.make_store(tmp_path, {"here": one})
    with pytest.raises(ConfigError, match=r"'held_out' of the store .* has no valid rows"):
        train(sparse.tiny(tmp_path, steps=2, batch_size=16))
    assert not list(tmp_path.glob("runs/*/metrics.csv"))


def test_every_objective_has_a_recipe_of_its_name_or_several() -> None:
    made = {make().objective for make in RECIPES.values()}
    assert made == set(OBJECTIVES)
