"""Controls of dictionaries of single vectors: random directions, units without company."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tendril.data.errors import ConfigError
from tendril.models.dictionaries.checkpoint import load_sae
from tendril.train.config import run_label
from tendril.train.loop import train
from tendril.train.objectives.base import make_objective
from tendril.train.sweep.config import SweepConfig
from tendril.train.sweep.sweep import sweep
from tendril.train.trainer import Trainer
from tendril.train.vectors import shuffled_units, source_of, store_of

from ..helpers.sparse import directions, make_store, tiny, vectors

OBJECTIVES = ("topk", "batch_topk", "matryoshka", "relu_l1", "gated", "jumprelu")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site of 32 channels whose vectors are sums of 64 known features."""
    home = tmp_path_factory.mktemp("home")
    make_store(home, {"here": vectors(8000, directions())})
    return home


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_frozen_decoder_keeps_its_directions_and_the_rest_is_trained(
    home: Path, objective: str
) -> None:
    config = tiny(home, objective=objective, control="frozen-decoder", resample_every=0)
    source = source_of(config, store_of(config))
    with_vectors = source.training(config, CPU)
    objective_of = make_objective(config, source.width)
    trainer = Trainer(config, objective_of, with_vectors, source.scale(), CPU)
    before = {name: p.detach().clone() for name, p in trainer.sae.named_parameters()}
    for _ in range(5):
        trainer.advance()
    with_vectors.close()
    for name, parameter in trainer.sae.named_parameters():
        assert torch.equal(parameter, before[name]) == (name == "W_dec"), name


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
    ("fields", "message"),
    [
        ({"objective": "pca"}, "--control frozen-decoder needs an objective with a decoder"),
        ({"objective": "tied"}, "--control frozen-decoder needs an objective with a decoder"),
        ({"resample_every": 10}, "--resample-every must be 0 with --control frozen-decoder"),
    ],
)
def test_a_decoder_that_cannot_be_frozen_is_refused(
    home: Path, fields: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        train(tiny(home, control="frozen-decoder", **fields))
