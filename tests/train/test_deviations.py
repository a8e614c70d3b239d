"""Where objectives differ from their papers and from other programs: what docstrings say of it."""

import pytest
import torch
from torch import Tensor

from tendril.data.group.dihedral import Dihedral
from tendril.models.dictionaries.sae import SAE
from tendril.models.dictionaries.sparsity import Sparsity
from tendril.models.dictionaries.straight_through import paper_bandwidth, step_st
from tendril.models.dictionaries.tied import Tied
from tendril.train.config import TrainConfig
from tendril.train.objectives.base import Objective, Shape, make_objective
from tendril.train.objectives.batch_topk import BatchTopK
from tendril.train.objectives.equivariant import equivariant
from tendril.train.objectives.k_sparse import Aux, TopK, aux_term
from tendril.train.objectives.penalised import JumpReLU, TiedL1

from .test_objectives import (
    AUX,
    D,
    K,
    N,
    S,
    assert_same,
    dead,
    filled,
    random_sae,
    slow_aux,
    slow_batch_topk,
    vectors,
)


@pytest.mark.parametrize("fractions", [(1.0,), (0.5, 0.5)])
def test_the_auxiliary_term_can_be_divided_by_the_variance_of_the_residual(
    fractions: tuple[float, ...],
) -> None:
    """||e - e_hat||^2 / ||e - mean e||^2 over the batch, as in OpenAI's `normalized_mse`; the
    numerator and the denominator are sums over vectors and dimensions."""
    dead_latents = [0, 2, 5, 11, 19, 23]
    aux = Aux(AUX.count, AUX.weight, "residual")
    topk = random_sae(Sparsity("topk", K), True)
    jump = random_sae(Sparsity("jumprelu"), True)
    assert jump.threshold is not None
    jump.threshold.requires_grad_(False)
    x_ND = vectors()
    cases: list[tuple[SAE, Objective[SAE], Tensor]] = []
    if len(fractions) == 1:
        z_NS = topk.encode(x_ND)
        error_ND = x_ND - (z_NS @ topk.W_dec + topk.b_dec)
        cases.append((topk, TopK(K, aux, "median"), (error_ND**2).sum() / (N * D)))
    z_NS = slow_batch_topk(jump, x_ND)
    errors = [x_ND - (z_NS[:, :e] @ jump.W_dec[:e] + jump.b_dec) for e in (12, 24)]
    used = errors if len(fractions) > 1 else errors[-1:]
    missed = torch.stack([(e**2).sum() for e in used]).sum() / (N * D)
    cases.append((jump, BatchTopK(K, aux, "median", 10, fractions=fractions), missed))
    for sae, objective, missed in cases:
        error_ND = (x_ND - objective.loss(sae, x_ND, dead(), 0.5).x_hat_ND).detach()
        variance = ((error_ND - error_ND.mean(dim=0)) ** 2).sum() / N
        slow = missed + slow_aux(sae, x_ND, error_ND, dead_latents) / variance
        fast = objective.loss(sae, x_ND, dead(*dead_latents), 0.5).total
        assert_same(sae, fast, slow)
        plain = objective.loss(sae, x_ND, dead(), 0.5).total
        torch.testing.assert_close(plain, missed)  # without dead latents nothing is divided


def test_the_auxiliary_term_is_zero_where_residuals_do_not_vary() -> None:
    aux = Aux(AUX.count, AUX.weight, "residual")
    for error_ND in (torch.zeros(N, D), torch.ones(N, D)):
        e_hat_ND = torch.ones(N, D, requires_grad=True)
        term = aux_term(error_ND, e_hat_ND, aux)
        assert term.item() == 0.0
        (grad_ND,) = torch.autograd.grad(term, e_hat_ND)
        assert (grad_ND == 0).all()


def test_the_divided_auxiliary_term_does_not_depend_on_the_scale_of_the_residual() -> None:
    error_ND, e_hat_ND = vectors(), torch.randn(N, D, generator=torch.Generator().manual_seed(2))
    divided = Aux(1, AUX.weight, "residual")
    whole, short = (aux_term(error_ND * c, e_hat_ND * c, divided) for c in (1.0, 1e-3))
    torch.testing.assert_close(whole, short)
    whole, short = (aux_term(error_ND * c, e_hat_ND * c, AUX) for c in (1.0, 1e-3))
    torch.testing.assert_close(whole * 1e-6, short)


def test_a_bandwidth_of_zero_is_the_papers_in_our_units() -> None:
    """Vectors of mean squared norm 1 with bandwidth 0.001, and the same vectors sqrt(D) times as
    long: theta's gradients differ by the factor of the units alone."""
    jumprelu = make_objective(TrainConfig(objective="jumprelu", bandwidth=0.0), 96)
    assert isinstance(jumprelu, JumpReLU)
    assert jumprelu.bandwidth == pytest.approx(0.001 * 96**0.5)
    default = make_objective(TrainConfig(objective="jumprelu"), 96)
    assert isinstance(default, JumpReLU)
    assert default.bandwidth == 0.1
    factor = D**0.5
    pre_NS = torch.rand(4000, S, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    theta_S = torch.full((S,), 0.5, dtype=torch.float64, requires_grad=True)
    theirs = step_st(pre_NS, theta_S, 0.001).sum(dim=1).mean()
    (to_theirs,) = torch.autograd.grad(theirs, theta_S)
    ours_S = (theta_S * factor).detach().requires_grad_()
    ours = step_st(pre_NS * factor, ours_S, paper_bandwidth(D)).sum(dim=1).mean()
    (to_ours,) = torch.autograd.grad(ours, ours_S)
    assert float(to_theirs.abs().sum()) > 0
    torch.testing.assert_close(to_ours * factor, to_theirs)
    assert ours == theirs


def test_the_first_term_is_the_normalised_error_for_zero_means_only() -> None:
    """Of b_dec = mean alone, scaled to E||x||^2 = D: 1 where the mean is zero; less elsewhere."""
    for shift, expected in ((0.0, 1.0), (3.0, None)):
        x_ND = torch.randn(4000, D, generator=torch.Generator().manual_seed(4))
        x_ND = x_ND - x_ND.mean(dim=0) + shift
        x_ND = x_ND * (D / x_ND.square().sum(dim=1).mean()).sqrt()
        sae = SAE(D, S, Sparsity("topk", K), pre_bias=True)
        sae.b_dec.data.copy_(x_ND.mean(dim=0))
        total = TopK(K, AUX, "mean").loss(sae, x_ND, dead(), 0.5).total.item()
        fraction = (x_ND - x_ND.mean(dim=0)).square().sum() / x_ND.square().sum()
        assert total == pytest.approx(float(fraction), rel=1e-4)
        assert total == pytest.approx(expected, rel=1e-4) if expected else total < 0.2


def test_tied_inputs_that_are_longer_need_a_larger_alpha() -> None:
    """What the docstring says: s x with alpha s is x with alpha, times s^2."""
    tied, x_ND = filled(Tied(D, S)), vectors()
    assert isinstance(tied, Tied)
    tied.b_dec.data.zero_()
    short = TiedL1(0.3, 0.0).loss(tied, x_ND, dead(), 0.5).total
    tied.b_enc.data.mul_(5.0)
    long = TiedL1(1.5, 0.0).loss(tied, x_ND * 5, dead(), 0.5).total
    torch.testing.assert_close(long, short * 25)


def test_families_can_have_the_divided_term_too() -> None:
    group = Dihedral(3)
    x_NE = torch.randn(N, len(group) * D, generator=torch.Generator().manual_seed(5))
    totals = {}
    for norm in ("none", "residual"):
        config = TrainConfig(objective="equivariant", families=8, k=2, aux_norm=norm)
        objective = equivariant(config, Shape(len(group) * D, group=group))
        crosscoder = objective.start(x_NE, 8, torch.Generator().manual_seed(0))
        none_dead = torch.zeros(8, dtype=torch.bool)
        plain = objective.loss(crosscoder, x_NE, none_dead, 0.5)
        some_dead = torch.arange(8) < 3
        term = objective.loss(crosscoder, x_NE, some_dead, 0.5).total - plain.total
        totals[norm] = term.item()
        error_NE = x_NE - plain.x_hat_ND
    variance = (error_NE - error_NE.mean(dim=0)).square().sum(dim=1).mean()
    expected = totals["none"] * len(group) * D / float(variance)
    assert totals["residual"] == pytest.approx(expected, rel=1e-3)


def test_what_changes_nothing_is_not_in_the_name_of_a_run() -> None:
    plain = TrainConfig(objective="topk").identity()
    assert "aux_norm" not in plain
    divided = TrainConfig(objective="topk", aux_norm="residual").identity()
    assert divided == plain | {"aux_norm": "residual"}
    assert "aux_norm" not in TrainConfig(objective="relu_l1", aux_norm="residual").identity()
