"""Controls of dictionaries of single vectors: random directions, units without company."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tendril.data.errors import ConfigError
from tendril.data.group.dihedral import Dihedral
from tendril.models.dictionaries.checkpoint import load_sae
from tendril.train.config import TrainConfig, run_label
from tendril.train.frozen import LEAST_COSINE, hold_near
from tendril.train.groups import FROZEN
from tendril.train.loop import train
from tendril.train.objectives.base import make_objective
from tendril.train.sweep.config import SweepConfig
from tendril.train.sweep.sweep import sweep
from tendril.train.trainer import Trainer
from tendril.train.vectors import shuffled_units, source_of, store_of

from ..helpers import orbits
from ..helpers.sparse import directions, make_store, vectors
from ..helpers.sparse import tiny as tiny_of
from ..helpers.stopping import check_stop_changes_nothing

OBJECTIVES = ("topk", "batch_topk", "matryoshka", "relu_l1", "gated", "jumprelu")
CPU = torch.device("cpu")
SITES = ("here", "there")


def tiny(home: Path, **fields: Any) -> TrainConfig:
    return tiny_of(home, **({"store": "sparse"} | fields))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sites of 32 channels whose vectors are sums of 64 known features, and orbits under D4."""
    home = tmp_path_factory.mktemp("home")
    group = Dihedral(4)
    rows = orbits.orbits(group, orbits.families(group, 8, 6), 1600, 2)
    orbits.make_store(home, group, {"here": rows})
    features = directions()
    sites = {name: vectors(8000, features, seed=seed) for seed, name in enumerate(SITES)}
    make_store(home, sites)
    return home


CASES: list[dict[str, Any]] = [
    *({"objective": objective} for objective in OBJECTIVES),
    {"objective": "relu_l1", "sites": ("here", "there"), "sources": "one"},
    {"objective": "batch_topk", "sites": ("here", "there")},
    {"objective": "equivariant", "store": "orbits", "families": 8, "k": 2},
]


def trainer_of(config: TrainConfig) -> Trainer:
    source = source_of(config, store_of(config))
    objective = make_objective(config, source.width, source.joint, source.group)
    return Trainer(config, objective, source.training(config, CPU), source.scale(), CPU)


def start_of(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in trainer.sae.named_parameters()}


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case.values())))
def test_a_frozen_part_keeps_its_bits_and_the_rest_is_trained(
    home: Path, case: dict[str, Any]
) -> None:
    """With dead latents, which AuxK trains, and rows held at norm 1."""
    for control, frozen in (("frozen-decoder", "W_dec"), ("frozen-encoder", "W_enc")):
        config = tiny(home, control=control, dead_after=128, lr=1e-2, **case)
        trainer = trainer_of(config)
        before = start_of(trainer)
        for _ in range(5):
            trainer.advance()
        for name, parameter in trainer.sae.named_parameters():
            assert torch.equal(parameter, before[name]) == (name == frozen), (control, name)


@pytest.mark.parametrize(
    "case",
    [*CASES, {"objective": "tied"}, {"objective": "topk", "resample_every": 5}],
    ids=lambda case: "-".join(map(str, case.values())),
)
def test_a_soft_frozen_decoder_stays_near_its_start(home: Path, case: dict[str, Any]) -> None:
    config = tiny(home, control="soft-frozen-decoder", dead_after=128, lr=3e-2, **case)
    trainer = trainer_of(config)
    start_SD = start_of(trainer)["W_dec"].flatten(1).double()
    for _ in range(15):
        trainer.advance()
        row_SD = trainer.sae.W_dec.detach().flatten(1).double()
        cosine_S = torch.nn.functional.cosine_similarity(row_SD, start_SD, dim=1)
        assert cosine_S.min() >= LEAST_COSINE
        if trainer.objective.unit_rows and not config.resample_every:
            torch.testing.assert_close(row_SD.norm(dim=1).float(), torch.ones(len(row_SD)))
    assert cosine_S.min() < LEAST_COSINE + 1e-4, "some row would have gone further"
    free = trainer_of(replace(config, control="none"))
    for _ in range(15):
        free.advance()
    row_SD = free.sae.W_dec.detach().flatten(1).double()
    assert torch.nn.functional.cosine_similarity(row_SD, start_SD, dim=1).min() < LEAST_COSINE


def test_rows_are_turned_back_to_the_nearest_one_that_is_near_enough() -> None:
    start_SD = torch.tensor([[2.0, 0, 0]] * 4)
    rows_SD = torch.tensor([[3.0, 1, 0], [0, 3, 4], [-2, 0, 0], [0, 0, 0]])
    W_dec = torch.nn.Parameter(rows_SD.clone())
    hold_near(W_dec, start_SD)
    assert torch.equal(W_dec[0], rows_SD[0]), "near enough"
    torch.testing.assert_close(W_dec[1], torch.tensor([4.0, 1.8, 2.4]), atol=2e-4, rtol=0)
    torch.testing.assert_close(W_dec[2], torch.tensor([2.0, 0, 0]))
    assert torch.equal(W_dec[3], rows_SD[3])


@pytest.mark.many_steps
@pytest.mark.parametrize("control", ["soft-frozen-decoder", "frozen-encoder"])
def test_a_stop_changes_nothing_of_a_frozen_run(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, control: str
) -> None:
    config = tiny(home, control=control, lr=1e-2, dead_after=300, eval_every=20)
    check_stop_changes_nothing(config, home, tmp_path, monkeypatch)


def test_a_sweep_trains_each_objective_with_its_own_control(home: Path, tmp_path: Path) -> None:
    (tmp_path / "store").symlink_to((home / "store").resolve())
    base = tiny(tmp_path, steps=60, batch_size=256, lr=1e-2, store="sparse", site="here")
    names = ["topk", *(f"topk:{control}" for control in FROZEN), "random"]
    grid = SweepConfig(base=base, objectives=tuple(names), sizes=(64,), sparsities=("k=3",))
    result = sweep(grid)
    assert (result.runs, result.failed) == (5, {})
    table = json.loads((result.sweep / "table.json").read_text())
    fvu = {(point["objective"], point["control"]): point["fvu"] for point in table["points"]}
    assert list(fvu) == [("topk", "none"), *(("topk", c) for c in FROZEN), ("random", "none")]
    assert fvu["topk", "none"] < fvu["topk", "soft-frozen-decoder"] < fvu["topk", "frozen-decoder"]
    alone = train(replace(base, control="frozen-encoder"))
    assert alone.reused and alone.fvu == fvu["topk", "frozen-encoder"] > fvu["topk", "none"] + 0.05
    for words, message in (
        (("topk:shuffled",), "the control in --objectives topk:shuffled must be one of frozen-de"),
        (("topk:frozen-decodr",), "near it: frozen-decoder"),
    ):
        with pytest.raises(ConfigError, match=message):
            replace(grid, objectives=words).runs()
    damaged = replace(grid, base=replace(base, control="shuffled-units"))
    with pytest.raises(ConfigError, match="--control must be none where --objectives name contro"):
        damaged.runs()


def test_a_frozen_decoder_explains_less_in_a_sweep_as_alone(home: Path, tmp_path: Path) -> None:
    config = tiny(home, control="frozen-decoder", steps=100)
    alone = train(config)
    free = train(replace(config, control="none"))
    assert alone.fvu > free.fvu + 0.05
    (tmp_path / "store").symlink_to((home / "store").resolve())
    base = replace(config, home=str(tmp_path))
    result = sweep(SweepConfig(base=base, objectives=("topk",), sizes=(64,), sparsities=("k=3",)))
    assert result.runs == 1
    (run,) = (tmp_path / "runs").glob("topk-*")
    assert run.name == Path(alone.run).name
    for name, tensor in load_sae(Path(alone.run)).state_dict().items():
        torch.testing.assert_close(load_sae(run).state_dict()[name], tensor, msg=name)


def test_shuffled_units_keep_their_values_and_lose_their_company() -> None:
    rng = np.random.default_rng(0)
    shared_N1 = rng.normal(size=(4096, 1))
    x_ND = torch.from_numpy(shared_N1 + 0.1 * rng.normal(size=(4096, 8)))
    moved_ND = shuffled_units(x_ND)
    assert torch.equal(moved_ND.sort(dim=0).values, x_ND.sort(dim=0).values)
    apart = np.abs(np.corrcoef(moved_ND.numpy().T) - np.eye(8)).max()
    assert np.corrcoef(x_ND.numpy().T).min() > 0.95 and apart < 0.06


def test_shuffled_units_are_read_in_training_and_evaluation(home: Path) -> None:
    config = tiny(home, control="shuffled-units")
    source = source_of(config, store_of(config))
    for part in ("train", "held_out"):
        plain = next(source.once(replace(config, control="none"), CPU, part))
        assert torch.equal(next(source.once(config, CPU, part)), shuffled_units(plain))
    run = train(replace(config, steps=100))
    assert run.fvu > train(replace(config, steps=100, control="none")).fvu + 0.05


def test_the_label_of_a_run_names_its_control() -> None:
    config = {"objective": "topk", "latents": 8, "k": 2, "site": "here"}
    assert run_label(config) == "TopK 8, k 2, here"
    assert (
        run_label({**config, "control": "frozen-decoder"}) == "TopK 8, k 2, here (frozen-decoder)"
    )


@pytest.mark.parametrize(
    ("control", "fields", "message"),
    [
        ("frozen-decoder", {"objective": "pca"}, "needs an objective with a decoder of its own"),
        ("frozen-encoder", {"objective": "nmf"}, "needs an objective with an encoder of its own"),
        ("frozen-decoder", {"objective": "tied"}, "'tied', whose encoder and decoder are one mat"),
        ("frozen-encoder", {"objective": "tied"}, "'tied', whose encoder and decoder are one mat"),
        ("frozen-decoder", {"resample_every": 10}, "--resample-every must be 0 with --control fr"),
        ("frozen-encoder", {"resample_every": 10}, "--resample-every must be 0 with --control fr"),
        ("frozen-encoder", {"objective": "equivariant"}, "needs a store of orbits"),
        ("frozen-encoder", {"store": "orbits", "objective": "equivariant", "orbits": "each"}, "--"),
    ],
)
def test_a_part_that_cannot_be_frozen_is_refused(
    home: Path, control: str, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        train(tiny(home, control=control, **fields))
