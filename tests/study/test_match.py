"""Matching the latents of successive layers: a planted permutation, chains, and the study."""

import numpy as np
import pytest
import torch
from scipy import sparse

from tendril.models.dictionaries.sae import SAE
from tendril.models.dictionaries.sparsity import Sparsity
from tendril.study.measures.layer_matching import (
    assign,
    assign_rows,
    correlations,
    fold,
    pair_correlations,
)


def jumprelu(width: int, latents: int, seed: int) -> SAE:
    draws = torch.Generator().manual_seed(seed)
    sae = SAE(width, latents, Sparsity("jumprelu"), pre_bias=True)
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draws))
        assert sae.threshold is not None
        sae.threshold.abs_().add_(0.1)
    return sae


def test_folding_changes_no_reconstruction() -> None:
    sae = jumprelu(5, 7, 0)
    assert sae.threshold is not None
    found = fold(sae)
    x_ND = np.random.default_rng(0).normal(size=(50, 5))
    pre_NS = x_ND @ found.encoder_SE[:, :5].T + found.encoder_SE[:, 5]
    z_NS = pre_NS * (pre_NS > 1)
    expected = sae(torch.from_numpy(x_ND).float()).detach().numpy()
    rebuilt = z_NS @ found.decoder_SD + sae.b_dec.detach().numpy()
    np.testing.assert_allclose(rebuilt, expected, rtol=1e-3, atol=1e-4)


def test_a_planted_permutation_is_found_though_a_layer_is_larger() -> None:
    """The same latents in another order, of activations three times as large, and noise."""
    sae, order = jumprelu(6, 40, 1), torch.randperm(40, generator=torch.Generator().manual_seed(2))
    grown = jumprelu(6, 40, 1)
    assert sae.threshold is not None and grown.threshold is not None
    with torch.no_grad():  # latent order[i] of the second is latent i of the first
        back = torch.argsort(order)
        grown.W_enc.copy_(sae.W_enc[:, back])
        grown.W_dec.copy_(sae.W_dec[back])
        grown.b_enc.copy_(sae.b_enc[back])
        grown.threshold.copy_(sae.threshold[back])
        grown.W_enc.mul_(3)  # z and the threshold grow by 3, and the decoder shrinks by it
        grown.threshold.mul_(3)
        grown.W_dec.div_(3)
        grown.b_enc.copy_(3 * (grown.b_enc))
        grown.W_enc.add_(0.01 * torch.randn(grown.W_enc.shape))
    found = assign_rows(fold(sae).rows, fold(grown).rows)
    assert found.partner(40).tolist() == order.tolist()
    plain = np.ones(40)
    far = assign_rows(fold(sae, plain).rows, fold(grown, plain).rows)
    distance = [np.sum((one.rows - two.rows[order]) ** 2) for one, two in (
        (fold(sae), fold(grown)), (fold(sae, plain), fold(grown, plain)))]  # fmt: skip
    assert distance[0] < 0.01 * distance[1] and far.gap == 0


def test_of_two_sizes_all_of_the_smaller_have_a_partner() -> None:
    draws = np.random.default_rng(0)
    rows = draws.normal(size=(9, 4))
    found = assign_rows(rows, rows[[3, 1, 7]])
    assert dict(zip(found.first_M.tolist(), found.second_M.tolist(), strict=True)) == {
        1: 1, 3: 0, 7: 2,
    }  # fmt: skip
    assert found.partner(9)[0] == -1


def test_candidates_give_nearly_the_best_assignment_and_say_how_near() -> None:
    draws = np.random.default_rng(0)
    first = draws.normal(size=(200, 3))
    second = first[draws.permutation(200)] + 0.3 * draws.normal(size=(200, 3))
    exact = assign_rows(first, second)
    near = assign_rows(first, second, largest=50, candidates=8)
    assert exact.gap == 0 and sorted(near.second_M.tolist()) == list(range(200))
    assert exact.total - 1e-2 <= near.bound and near.total <= exact.total * (1 + 1e-6)
    assert near.gap < 0.02 and near.total > exact.total * (1 - near.gap) - 1e-6
    few = assign_rows(first, second, largest=50, candidates=1)
    assert few.total <= near.total and few.gap >= near.gap


def test_correlations_are_those_of_numpy() -> None:
    draws = np.random.default_rng(0)
    a, b = (draws.normal(size=(30, n)) * (draws.random((30, n)) < 0.4) for n in (4, 3))
    b[:, 2] = 0
    found = correlations(sparse.csr_array(a), sparse.csr_array(b))
    expected = np.corrcoef(a.T, b[:, :2].T)[:4, 4:]
    np.testing.assert_allclose(found[:, :2], expected, atol=1e-5)
    assert (found[:, 2] == 0).all()
    assert assign(found[:2, :2]).gap == pytest.approx(0)
    partner_S = np.array([1, 2, 0, -1])
    pairs = pair_correlations(sparse.csr_array(a), sparse.csr_array(b), partner_S)
    np.testing.assert_allclose(pairs[[0, 2]], [expected[0, 1], expected[2, 0]])
    assert np.isnan(pairs[[1, 3]]).all(), "a constant latent, and no partner"
