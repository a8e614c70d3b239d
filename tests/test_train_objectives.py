"""Losses and their gradients, each beside a slow form written from the equations in NumPy-like
steps: vector by vector, with autograd left to differentiate it."""

import pytest
import torch
from torch import Tensor, nn

from models.dictionaries.sae import SAE
from models.dictionaries.sparsity import Sparsity
from train.objective import Loss
from train.objectives_dense import ReluL1
from train.objectives_sparse import Aux, TopK

D, S, K, N = 6, 24, 3, 10
TOPK = TopK(k=K, aux=Aux(3, 1 / 32), bias="median")
RELU = ReluL1(l1=0.7, warmup=0.5)


def random_sae(sparsity: Sparsity, pre_bias: bool) -> SAE:
    generator = torch.Generator().manual_seed(0)
    sae = SAE(D, S, sparsity, pre_bias=pre_bias)
    for parameter in sae.parameters():
        nn.init.normal_(parameter, generator=generator)
    return sae


def vectors() -> Tensor:
    return torch.randn(N, D, generator=torch.Generator().manual_seed(1)) + 1


def dead(*latents: int) -> Tensor:
    dead_S = torch.zeros(S, dtype=torch.bool)
    dead_S[list(latents)] = True
    return dead_S


def gradients(sae: SAE, total: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(total, [sae.W_enc, sae.b_enc, sae.W_dec, sae.b_dec]))


def slow_topk(sae: SAE, x_ND: Tensor, dead_latents: list[int]) -> Tensor:
    """The loss of one vector after the other."""
    losses = []
    for x in x_ND:
        pre = sae.W_enc.T @ (x - sae.b_dec) + sae.b_enc
        order = sorted(range(S), key=lambda i: -pre[i].item())[:K]
        x_hat = sae.b_dec + sum(torch.relu(pre[i]) * sae.W_dec[i] for i in order)
        loss = ((x - x_hat) ** 2).sum()
        if dead_latents:
            chosen = sorted(dead_latents, key=lambda i: -pre[i].item())[: TOPK.aux.count]
            e_hat = sum(torch.relu(pre[i]) * sae.W_dec[i] for i in chosen)
            loss = loss + TOPK.aux.weight * (((x - x_hat).detach() - e_hat) ** 2).sum()
        losses.append(loss)
    return torch.stack(losses).mean() / D


@pytest.mark.parametrize("dead_latents", [[], [7], [0, 2, 5, 11, 19, 23]])
def test_topk_equals_its_equations_in_value_and_gradients(dead_latents: list[int]) -> None:
    sae, x_ND = random_sae(Sparsity("topk", K), True), vectors()
    fast = TOPK.loss(sae, x_ND, dead(*dead_latents), 0.5).total
    slow = slow_topk(sae, x_ND, dead_latents)
    torch.testing.assert_close(fast, slow)
    for ours, theirs in zip(gradients(sae, fast), gradients(sae, slow), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(("progress", "weight"), [(0.0, 0.0), (0.25, 0.35), (0.5, 0.7), (1.0, 0.7)])
def test_relu_l1_equals_its_equations_in_value_and_gradients(
    progress: float, weight: float
) -> None:
    sae, x_ND = random_sae(Sparsity("relu"), False), vectors()
    fast = RELU.loss(sae, x_ND, dead(1), progress).total
    losses = []
    for x in x_ND:
        z = torch.relu(sae.W_enc.T @ x + sae.b_enc)
        x_hat = sae.b_dec + sae.W_dec.T @ z
        norms = torch.stack([d.norm() for d in sae.W_dec])
        losses.append(((x - x_hat) ** 2).sum() + weight * (z * norms).sum())
    slow = torch.stack(losses).mean()
    torch.testing.assert_close(fast, slow)
    for ours, theirs in zip(gradients(sae, fast), gradients(sae, slow), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_aux_acts_on_dead_latents_only() -> None:
    """Live latents get the gradient that they get without it, dead ones another."""
    sae, x_ND = random_sae(Sparsity("topk", K), True), vectors()
    marked = dead(0, 2, 5, 11, 19, 23)
    # what is dead cannot be among the k largest
    with torch.no_grad():
        sae.b_enc[marked] -= 3
        sae.W_enc[:, marked] *= 2

    def by_latent(loss: Loss) -> list[Tensor]:
        W_enc, b_enc, W_dec, _ = gradients(sae, loss.total)
        return [W_enc.T, b_enc[:, None], W_dec]

    fired_S = TOPK.loss(sae, x_ND, dead(), 0.5).fired_S
    marked &= ~fired_S
    assert marked.sum() >= 2
    without = by_latent(TOPK.loss(sae, x_ND, dead(), 0.5))
    with_aux = by_latent(TOPK.loss(sae, x_ND, marked, 0.5))
    for before, after in zip(without, with_aux, strict=True):
        assert torch.equal(before[~marked], after[~marked])
        assert (before[marked] == 0).all()
        assert (after[marked] != 0).any()


@pytest.mark.parametrize("objective", [TOPK, RELU])
def test_what_the_loop_counts_is_what_encode_gives(objective: TopK | ReluL1) -> None:
    x_ND = vectors()
    sae = objective.start(x_ND, S, torch.Generator().manual_seed(0))
    loss = objective.loss(sae, x_ND, dead(), 0.5)
    z_NS = sae.encode(x_ND)
    assert torch.equal(loss.fired_S, (z_NS > 0).any(dim=0))
    assert float(loss.active) == pytest.approx(float((z_NS > 0).sum()) / N)
    torch.testing.assert_close(loss.x_hat_ND, sae(x_ND).detach())
    assert not loss.x_hat_ND.requires_grad


def test_a_topk_dictionary_starts_in_the_middle_of_its_vectors() -> None:
    x_ND = vectors()
    x_ND[0] += 1000  # one far off moves the mean, and hardly the median
    starts = {
        bias: TopK(K, Aux(3, 0.0), bias).start(x_ND, S, torch.Generator().manual_seed(0))
        for bias in ("median", "mean", "zero")
    }
    assert torch.equal(starts["mean"].b_dec, x_ND.mean(dim=0))
    assert (starts["median"].b_dec - 1).abs().max() < 1
    assert (starts["zero"].b_dec == 0).all()
    torch.testing.assert_close(starts["median"].W_dec.norm(dim=1), torch.ones(S))
    torch.testing.assert_close(
        RELU.start(x_ND, S, torch.Generator()).W_dec.norm(dim=1), torch.full((S,), 0.1)
    )
