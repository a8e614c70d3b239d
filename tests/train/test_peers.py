"""Faults that other tools had, which no other test here would catch. See docs/reliability.md."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tendril.train import distributed
from tendril.train.distributed import Together
from tendril.train.loop import train
from tendril.train.objectives.base import Loss, make_objective
from tendril.train.trainer import Ranks, Trainer

from ..helpers import sparse


class Same:
    """One batch, again and again."""

    def __next__(self) -> Tensor:
        return torch.randn(32, 16, generator=torch.Generator().manual_seed(0))

    def state(self) -> dict[str, int]:
        return {}

    def restore(self, state: dict[str, int]) -> None:
        pass


def trainer(ranks: Ranks | None = None, **fields: Any) -> Trainer:
    config = sparse.tiny(Path(), aux_weight=0.0, **fields)
    objective = make_objective(config, 16)
    device = torch.device("cpu")
    return Trainer(config, objective, Same(), None, device, ranks or Ranks())


def test_the_compiled_loss_is_the_one_that_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def compiled(loss: Any) -> Any:
        def counted(*inputs: Any) -> Loss:
            calls.append(1)
            result: Loss = loss(*inputs)
            return result

        return counted

    monkeypatch.setattr(torch, "compile", compiled)
    training = trainer(compile=True)
    for _ in range(3):
        training.advance()
    assert len(calls) == 3
    plain = trainer()
    plain.advance()
    assert len(calls) == 3


@pytest.mark.parametrize("ranks", [1, 4])
def test_vectors_without_firing_are_counted_over_all_ranks(ranks: int) -> None:
    training = trainer(Ranks(0, ranks))
    with torch.no_grad():
        training.sae.b_enc[:16] = -100  # type: ignore[index, operator]
    for _ in range(3):
        training.advance()
    assert (training._quiet_S[:16] == 3 * 32 * ranks).all()


def test_a_latent_that_fires_on_any_rank_is_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    other_S = torch.tensor([1, 0, 0], dtype=torch.uint8)

    def all_reduce(tensor: Tensor, op: Any = None) -> None:
        if tensor.dtype == torch.uint8:
            tensor.copy_(torch.maximum(tensor, other_S))
        else:
            tensor.mul_(2)

    monkeypatch.setattr(distributed.group, "all_reduce", all_reduce)
    here = Loss(
        total=torch.tensor(1.0),
        x_hat_ND=torch.zeros(1, 2),
        fired_S=torch.tensor([False, True, False]),
        active=torch.tensor(1.0),
    )
    whole = Together(0, 2).whole(replace(here))
    assert whole.fired_S.tolist() == [True, True, False]
    assert float(whole.total) == float(whole.active) == 1


def test_a_continued_run_takes_only_the_steps_that_are_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that began again would end with the same bits, and take all of its steps twice."""
    sparse.make_store(tmp_path, {"here": sparse.vectors(1600, sparse.directions())})
    config = sparse.tiny(tmp_path, steps=20, checkpoint_every=7)
    advance, steps = Trainer.advance, list[int]()

    def counted(training: Trainer) -> Any:
        if training.step == 16 and 16 not in steps:
            steps.append(16)
            raise KeyboardInterrupt
        steps.append(training.step)
        return advance(training)

    monkeypatch.setattr(Trainer, "advance", counted)
    with pytest.raises(KeyboardInterrupt):
        train(config)
    steps.clear()
    steps.append(16)
    train(config)
    assert steps == [16, *range(14, 20)]
