"""Losses and their gradients, each beside a slow form written from the equations in NumPy-like
steps: vector by vector, with autograd left to differentiate it."""

import pytest
import torch
from torch import Tensor, nn

from tendril.data.errors import ConfigError
from tendril.models.dictionaries.gated import Gated
from tendril.models.dictionaries.sae import SAE, Dictionary
from tendril.models.dictionaries.sparsity import Sparsity
from tendril.models.dictionaries.tied import Tied
from tendril.train.config import TrainConfig
from tendril.train.objectives.base import Loss, Objective, annealed, warmed
from tendril.train.objectives.batch_topk import BatchTopK, prefixes
from tendril.train.objectives.k_sparse import Aux, TopK
from tendril.train.objectives.penalised import GatedL1, JumpReLU, ReluL1, TiedL1

D, S, K, N = 6, 24, 3, 10
AUX = Aux(3, 1 / 32)
TOPK = TopK(k=K, aux=AUX, bias="median")
RELU = ReluL1(l1=0.7, warmup=0.5)


def filled(dictionary: Dictionary) -> Dictionary:
    """Every parameter random, in the order of their names."""
    generator = torch.Generator().manual_seed(0)
    for _, parameter in sorted(dictionary.named_parameters()):
        nn.init.normal_(parameter, generator=generator)
    return dictionary


def random_sae(sparsity: Sparsity, pre_bias: bool) -> SAE:
    sae = filled(SAE(D, S, sparsity, pre_bias=pre_bias))
    assert isinstance(sae, SAE)
    if sae.threshold is not None:
        sae.threshold.data.abs_()
    return sae


def vectors() -> Tensor:
    return torch.randn(N, D, generator=torch.Generator().manual_seed(1)) + 1


def dead(*latents: int) -> Tensor:
    dead_S = torch.zeros(S, dtype=torch.bool)
    dead_S[list(latents)] = True
    return dead_S


def gradients(sae: Dictionary, total: Tensor) -> list[Tensor]:
    """Of every parameter that is trained; zero where the loss does not depend on it."""
    trained = [p for p in sae.parameters() if p.requires_grad]
    return list(torch.autograd.grad(total, trained, allow_unused=True, materialize_grads=True))


def assert_same(sae: Dictionary, fast: Tensor, slow: Tensor) -> None:
    """Value, and the gradient of every parameter."""
    torch.testing.assert_close(fast, slow)
    for ours, theirs in zip(gradients(sae, fast), gradients(sae, slow), strict=True):
        torch.testing.assert_close(ours, theirs)


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
    assert_same(sae, fast, slow)


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
    assert_same(sae, fast, slow)


def slow_batch_topk(sae: SAE, x_ND: Tensor, weight_S: Tensor | None = None) -> Tensor:
    """z [N, S]: all that is not among the k N largest is zero."""
    z_NS = torch.relu((x_ND - sae.b_dec * sae.pre_bias) @ sae.W_enc + sae.b_enc)
    ranked_NS = (z_NS if weight_S is None else z_NS * weight_S).detach()
    kept = sorted(ranked_NS.flatten().tolist(), reverse=True)[: K * N]
    return z_NS * (ranked_NS >= kept[-1])


def slow_aux(sae: SAE, x_ND: Tensor, error_ND: Tensor, dead_latents: list[int]) -> Tensor:
    """AuxK's term, one vector after the other; mean over the batch."""
    total = torch.zeros(())
    for x, e in zip(x_ND, error_ND.detach(), strict=True):
        pre = (x - sae.b_dec * sae.pre_bias) @ sae.W_enc + sae.b_enc
        chosen = sorted(dead_latents, key=lambda i: -pre[i].item())[: AUX.count]
        if chosen:
            e_hat = sum(torch.relu(pre[i]) * sae.W_dec[i] for i in chosen)
            total = total + AUX.weight * ((e - e_hat) ** 2).sum() / len(x_ND)
    return total


@pytest.mark.parametrize("fractions", [(1.0,), (0.125, 0.125, 0.25, 0.5)])
@pytest.mark.parametrize("dead_latents", [[], [0, 2, 5, 11, 19, 23]])
def test_batch_topk_and_matryoshka_equal_their_equations(
    dead_latents: list[int], fractions: tuple[float, ...]
) -> None:
    objective = BatchTopK(K, AUX, "median", window=10, fractions=fractions)
    sae, x_ND = random_sae(Sparsity("jumprelu"), True), vectors()
    assert sae.threshold is not None
    sae.threshold.requires_grad_(False)
    fast = objective.loss(sae, x_ND, dead(*dead_latents), 0.5)
    z_NS = slow_batch_topk(sae, x_ND)
    ends = [3, 6, 12, 24] if len(fractions) > 1 else [24]
    slow = torch.zeros(())
    for end in ends:
        error_ND = x_ND - (z_NS[:, :end] @ sae.W_dec[:end] + sae.b_dec)
        slow = slow + (error_ND**2).sum() / N
    slow = slow + slow_aux(sae, x_ND, error_ND, dead_latents)
    assert_same(sae, fast.total, slow / D)
    assert fast.least is not None
    torch.testing.assert_close(fast.least, z_NS[z_NS > 0].min().detach())
    assert torch.equal(fast.fired_S, (z_NS > 0).any(dim=0))
    assert float(fast.active) == pytest.approx(float((z_NS > 0).sum()) / N)
    torch.testing.assert_close(fast.x_hat_ND, (z_NS @ sae.W_dec + sae.b_dec).detach())


def test_a_crosscoder_ranks_and_penalises_by_the_sum_of_norms() -> None:
    """Two sites of widths 2 and 4."""
    x_ND, blocks = vectors(), (2, 4)
    sae = random_sae(Sparsity("jumprelu"), False)
    assert sae.threshold is not None
    sae.threshold.requires_grad_(False)

    def weights(sae: SAE) -> Tensor:
        return torch.stack([d[:2].norm() + d[2:].norm() for d in sae.W_dec])

    objective = BatchTopK(K, AUX, "median", window=10, blocks=blocks)
    fast = objective.loss(sae, x_ND, dead(1, 4), 0.5)
    z_NS = slow_batch_topk(sae, x_ND, weights(sae))
    error_ND = x_ND - z_NS @ sae.W_dec - sae.b_dec
    slow = (error_ND**2).sum() / N + slow_aux(sae, x_ND, error_ND, [1, 4])
    assert_same(sae, fast.total, slow / D)
    assert fast.least is not None
    ranked_NS = (z_NS * weights(sae)).detach()
    torch.testing.assert_close(fast.least, ranked_NS[ranked_NS > 0].min())
    objective.settle(sae, fast)
    relu = random_sae(Sparsity("relu"), False)
    fast = ReluL1(0.7, 0.0, blocks).loss(relu, x_ND, dead(), 0.5)
    z_NS = torch.relu(x_ND @ relu.W_enc + relu.b_enc)
    error_ND = x_ND - z_NS @ relu.W_dec - relu.b_dec
    slow = ((error_ND**2).sum(dim=1) + 0.7 * z_NS @ weights(relu)).mean()
    assert_same(relu, fast.total, slow)


def test_tied_equals_its_equations() -> None:
    tied, x_ND = filled(Tied(D, S)), vectors()
    assert isinstance(tied, Tied)
    tied.b_dec.data.zero_()
    fast = TiedL1(0.3, 0.0).loss(tied, x_ND, dead(), 0.5)
    losses = []
    for x in x_ND:
        c = torch.relu(tied.W_dec @ x + tied.b_enc)
        losses.append(((x - tied.W_dec.T @ c) ** 2).sum() + 0.3 * c.abs().sum())
    assert_same(tied, fast.total, torch.stack(losses).mean())
    assert not tied.b_dec.requires_grad


def test_gated_equals_its_equations() -> None:
    """Also that the auxiliary term teaches the gate and not the decoder."""
    gated, x_ND = filled(Gated(D, S)).double(), vectors().double()
    assert isinstance(gated, Gated)
    fast = GatedL1(0.3, 0.0, "mean").loss(gated, x_ND, dead(), 0.5)
    W_dec, b_dec = gated.W_dec.detach().clone(), gated.b_dec.detach().clone()
    losses = []
    for x in x_ND:
        gate = gated.W_enc.T @ (x - gated.b_dec) + gated.b_gate
        W_mag = gated.r_mag.exp()[:, None] * gated.W_enc.T
        z = (gate > 0) * torch.relu(W_mag @ (x - gated.b_dec) + gated.b_mag)
        opened = torch.relu(gate)
        missed = ((x - gated.W_dec.T @ z - gated.b_dec) ** 2).sum()
        aux = ((x - W_dec.T @ opened - b_dec) ** 2).sum()
        losses.append(missed + 0.3 * opened.sum() + aux)
    assert_same(gated, fast.total, torch.stack(losses).mean())


@pytest.mark.parametrize("target", [0.0, 4.0])
@pytest.mark.parametrize("bandwidth", [0.5, 2.0])
def test_jumprelu_equals_its_equations(target: float, bandwidth: float) -> None:
    """The value, gradients of all but theta by autograd of the loss with the mask fixed, and
    theta's from the paper's estimate, written out."""
    sae, x_ND = random_sae(Sparsity("jumprelu"), True), vectors()
    assert sae.threshold is not None
    weight = 0.2
    fast = JumpReLU(weight, target, bandwidth, 0.0, "mean").loss(sae, x_ND, dead(), 0.5)
    theta_S = sae.threshold
    pre_NS = (x_ND - sae.b_dec) @ sae.W_enc + sae.b_enc
    on_NS = (pre_NS > theta_S).float()
    x_hat_ND = (pre_NS * on_NS) @ sae.W_dec + sae.b_dec
    l0 = on_NS.sum() / N
    penalty = weight * ((l0 / target - 1) ** 2 if target else l0)
    slow = ((x_ND - x_hat_ND) ** 2).sum() / (N * D) + penalty
    torch.testing.assert_close(fast.total, slow)
    others = [p for p in sae.parameters() if p is not theta_S]
    found = torch.autograd.grad(fast.total, [*others, theta_S])
    for ours, theirs in zip(found, torch.autograd.grad(slow, others), strict=False):
        torch.testing.assert_close(ours, theirs)
    kernel_NS = ((pre_NS - theta_S).abs() / bandwidth < 0.5).float() / bandwidth
    to_z_NS = -2 * (x_ND - x_hat_ND) @ sae.W_dec.T / (N * D)
    to_l0 = weight * (2 * (l0 / target - 1) / target if target else 1)
    expected_S = (-theta_S * kernel_NS * to_z_NS - kernel_NS * to_l0 / N).sum(dim=0)
    assert float(kernel_NS.sum()) > 0
    torch.testing.assert_close(found[-1], expected_S)


def test_thresholds_of_batch_topk_are_a_running_mean_of_the_least_that_is_on() -> None:
    objective = BatchTopK(K, AUX, "zero", window=4)
    sae = objective.start(vectors(), S, torch.Generator().manual_seed(0))
    assert sae.threshold is not None
    expected = None
    for factor in (1.0, 1.5, 0.5):
        loss = objective.loss(sae, vectors() * factor, dead(), 0.5)
        z_NS = slow_batch_topk(sae, vectors() * factor)
        least = float(z_NS[z_NS > 0].detach().min())
        expected = least if expected is None else expected + (least - expected) / 4
        objective.settle(sae, loss)
        torch.testing.assert_close(sae.threshold, torch.full((S,), expected))
    nothing = objective.loss(sae, torch.zeros(N, D), dead(), 0.5)
    assert nothing.least is not None
    assert torch.isinf(nothing.least), "nothing is on"
    objective.settle(sae, nothing)
    torch.testing.assert_close(sae.threshold, torch.full((S,), expected))


def test_schedules() -> None:
    assert [warmed(2.0, 0.5, p) for p in (0.0, 0.25, 0.5, 1.0)] == [0.0, 1.0, 2.0, 2.0]
    assert warmed(2.0, 0.0, 0.0) == 2.0
    assert [annealed(4, 24, 0.5, p) for p in (0.0, 0.25, 0.5, 1.0)] == [24, 14, 4, 4]
    assert annealed(4, 24, 0.0, 0.0) == 4
    assert annealed(30, 24, 0.5, 0.0) == 30
    x_ND = vectors()
    objective = TopK(K, AUX, "mean", anneal=0.5)
    sae = objective.start(x_ND, S, torch.Generator().manual_seed(0))
    active = [float(objective.loss(sae, x_ND, dead(), p).active) for p in (0.0, 0.25, 0.5)]
    assert active[0] > active[1] > active[2] == K
    assert prefixes((1 / 16, 1 / 16, 1 / 8, 1 / 4, 1 / 2), 96) == (6, 12, 24, 48, 96)
    assert prefixes((1.0, 1.0), 3) == (2, 3)


def test_losses_stay_finite_and_near_under_autocast() -> None:
    """What a GPU does with --precision bf16, on a CPU."""
    x_ND = vectors()
    for objective in EVERY:
        sae = objective.start(x_ND, S, torch.Generator().manual_seed(0))
        full = objective.loss(sae, x_ND, dead(1, 2), 0.5)
        with torch.autocast("cpu", torch.bfloat16):
            short = objective.loss(sae, x_ND, dead(1, 2), 0.5)
        assert short.total.dtype == torch.float32
        assert short.total.item() == pytest.approx(full.total.item(), rel=0.1), objective
        torch.autograd.backward(short.total)
        assert all(p.grad is not None for p in sae.parameters() if p.requires_grad)


def test_aux_acts_on_dead_latents_only() -> None:
    """Live latents get the gradient that they get without it, dead ones another."""
    sae, x_ND = random_sae(Sparsity("topk", K), True), vectors()
    marked = dead(0, 2, 5, 11, 19, 23)
    # what is dead cannot be among the k largest
    with torch.no_grad():
        sae.b_enc[marked] -= 3
        sae.W_enc[:, marked] *= 2

    def by_latent(loss: Loss) -> list[Tensor]:
        found = dict(zip(dict(sae.named_parameters()), gradients(sae, loss.total), strict=True))
        W_enc, b_enc, W_dec = (found[name] for name in ("W_enc", "b_enc", "W_dec"))
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


EVERY: list[Objective] = [  # type: ignore[type-arg]
    TOPK,
    BatchTopK(K, AUX, "median", window=10),
    BatchTopK(K, AUX, "median", window=10, fractions=(0.5, 0.5)),
    RELU,
    TiedL1(0.7, 0.5),
    GatedL1(0.7, 0.5, "median"),
    JumpReLU(0.1, 0.0, 0.2, 0.5, "median"),
    JumpReLU(0.1, 3.0, 0.2, 0.5, "median"),
]


@pytest.mark.parametrize("objective", [o for o in EVERY if not isinstance(o, BatchTopK)])
def test_what_the_loop_counts_is_what_encode_gives(objective: Objective) -> None:  # type: ignore[type-arg]
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
        for bias in ("median", "mean", "zero", "none")
    }
    assert torch.equal(starts["mean"].b_dec, x_ND.mean(dim=0))
    assert (starts["median"].b_dec - 1).abs().max() < 1
    assert (starts["zero"].b_dec == 0).all() and (starts["none"].b_dec == 0).all()
    torch.testing.assert_close(starts["median"].W_dec.norm(dim=1), torch.ones(S))
    torch.testing.assert_close(
        RELU.start(x_ND, S, torch.Generator()).W_dec.norm(dim=1), torch.full((S,), 0.1)
    )


@pytest.mark.parametrize("start", [0.0, 1.0, 3.0])
def test_thresholds_of_jumprelu_start_where_so_many_latents_pass(start: float) -> None:
    objective = JumpReLU(0.1, 0.0, 0.02, 0.0, "none", start)
    x_ND = torch.randn(512, D, generator=torch.Generator().manual_seed(4))
    sae = objective.start(x_ND, 64, torch.Generator().manual_seed(0))
    active = float((sae.encode(x_ND) > 0).sum()) / 512
    assert active == pytest.approx(start or 32, abs=0.01 if start else 1.0)
    assert sae.threshold is not None and len(sae.threshold.unique()) == 1
    few = objective.start(x_ND, 2, torch.Generator().manual_seed(0))
    assert few.threshold is not None and (few.threshold >= 0.01 - 1e-9).all()


@pytest.mark.parametrize(("value", "said"), [(5.0, "at most 4, the"), (-1.0, "0 or more")])
def test_no_more_latents_can_start_active_than_there_are(value: float, said: str) -> None:
    with pytest.raises(ConfigError, match=f"--start-l0 must be {said}"):
        TrainConfig(objective="jumprelu", latents=4, start_l0=value).check(6)
