"""A stack's step beside the steps of its members, one after the other."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tendril.models.dictionaries.sae import SAE
from tendril.models.dictionaries.sparsity import Sparsity
from tendril.train.config import TrainConfig
from tendril.train.objectives.base import make_objective
from tendril.train.objectives.k_sparse import Aux, TopK
from tendril.train.sweep import stacked_topk as stack
from tendril.train.sweep.stacked_topk import stacked_losses, stacks, topk_losses
from tendril.train.trainer import Trainer

D, S, K, N = 6, 24, 3, 10


class Same:
    """The same batch for ever."""

    def __init__(self, x_ND: Tensor) -> None:
        self._x_ND = x_ND

    def __next__(self) -> Tensor:
        return self._x_ND

    def state(self) -> dict[str, int]:
        return {}

    def restore(self, state: dict[str, int]) -> None:
        pass


def vectors() -> Tensor:
    return torch.randn(N, D, generator=torch.Generator().manual_seed(9), dtype=torch.float64) + 1


def dictionaries(count: int) -> list[SAE]:
    found = []
    for seed in range(count):
        sae = SAE(D, S, Sparsity("topk", K), pre_bias=True).double()
        for parameter in sae.parameters():
            nn.init.normal_(parameter, generator=torch.Generator().manual_seed(seed))
        found.append(sae)
    return found


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("anneal", [0.0, 1.0])
def test_losses_and_gradients_are_those_of_each_alone(count: int, anneal: float) -> None:
    objective = TopK(K, Aux(4, 0.5), "mean", anneal)
    saes, x_ND = dictionaries(count), vectors()
    dead = [torch.arange(S) % 5 == m for m in range(count)]
    stacked = topk_losses(objective, saes, x_ND, dead, 0.5)
    for m, (sae, loss) in enumerate(zip(saes, stacked, strict=True)):
        alone = objective.loss(sae, x_ND, dead[m], 0.5)
        torch.testing.assert_close(loss.total, alone.total)
        torch.testing.assert_close(loss.x_hat_ND, alone.x_hat_ND)
        assert torch.equal(loss.fired_S, alone.fired_S)
        assert loss.active == alone.active
        parameters = list(sae.parameters())
        ours = torch.autograd.grad(loss.total, parameters, retain_graph=True)
        theirs = torch.autograd.grad(alone.total, parameters)
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other)


def trainer(x_ND: Tensor, **fields: Any) -> Trainer:
    settings: dict[str, Any] = {"latents": S, "k": K, "batch_size": N, "steps": 20}
    config = TrainConfig(**(settings | fields))
    return Trainer(config, make_objective(config, D), Same(x_ND), None, torch.device("cpu"))


def test_trainers_take_the_same_steps_together_as_alone() -> None:
    x_ND = vectors().float()
    together, alone = ([trainer(x_ND, seed=seed) for seed in range(3)] for _ in range(2))
    for _ in range(5):
        for member, loss in zip(together, stacked_losses(together, x_ND), strict=True):
            member.update(x_ND, loss)
        for member in alone:
            member.advance()
    for one, other in zip(together, alone, strict=True):
        for ours, theirs in zip(one.sae.parameters(), other.sae.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs)


def test_one_that_diverges_leaves_the_others_alone() -> None:
    x_ND = vectors().float()
    together, alone = ([trainer(x_ND, seed=seed) for seed in range(3)] for _ in range(2))
    with torch.no_grad():
        together[1].sae.W_dec.fill_(torch.nan)
    losses = stacked_losses(together, x_ND)
    assert losses[1].total.isnan()
    for number in (0, 2):
        together[number].update(x_ND, losses[number])
        alone[number].advance()
        for ours, theirs in zip(
            together[number].sae.parameters(), alone[number].sae.parameters(), strict=True
        ):
            torch.testing.assert_close(ours, theirs)


def test_what_agrees_in_shape_is_stacked(monkeypatch: pytest.MonkeyPatch) -> None:
    x_ND = vectors().float()
    same = [trainer(x_ND, seed=seed) for seed in range(5)]
    others = [
        trainer(x_ND, latents=S + 1),
        trainer(x_ND, k=K + 1),
        trainer(x_ND, objective="relu_l1"),
        trainer(x_ND, objective="relu_l1", seed=1),
    ]
    sizes = sorted(len(group) for group in stacks([*others[:2], *same, *others[2:]]))
    assert sizes == [1, 1, 1, 1, 5]
    monkeypatch.setattr(stack, "CPU_FLOATS", 2 * N * D)
    assert [len(group) for group in stacks(same)] == [2, 2, 1]


def test_a_sweep_stacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That its results are those of single runs is tested where sweeps are."""
    from tendril.train.sweep import sweep
    from tendril.train.sweep.config import SweepConfig

    from ..helpers import sparse

    sparse.make_store(tmp_path, {"here": sparse.vectors(1600, sparse.directions())})
    seen: list[int] = []
    taken = sweep.stacked_losses

    def counting(trainers: Any, x_ND: Tensor) -> Any:
        seen.append(len(trainers))
        return taken(trainers, x_ND)

    monkeypatch.setattr(sweep, "stacked_losses", counting)
    base = sparse.tiny(tmp_path, steps=4)
    sweep.sweep(SweepConfig(base=base, sparsities=("k=2,3",), seeds=(0, 1, 2)))
    assert seen == [3, 3] * 4
