"""The reference kernels against dense forms that keep all latents."""

import pytest
import torch
from torch import Tensor, nn

from tendril.models.dictionaries.kernels.reference import (
    Active,
    batch_topk_active,
    matryoshka_active,
    topk_active,
)
from tendril.models.dictionaries.sae import SAE
from tendril.models.dictionaries.sparsity import Sparsity

D, S, K, N = 6, 24, 3, 10


def random_sae() -> SAE:
    generator = torch.Generator().manual_seed(0)
    sae = SAE(D, S, Sparsity("topk", K), pre_bias=True)
    for parameter in sae.parameters():
        nn.init.normal_(parameter, generator=generator)
    return sae


def vectors() -> Tensor:
    """Vectors of different norms, so that BatchTopK distributes latents unevenly."""
    x_ND = torch.randn(N, D, generator=torch.Generator().manual_seed(1))
    return x_ND * torch.linspace(0.1, 2, N)[:, None]


def dense_batch_topk(sae: SAE, x_ND: Tensor, k: int, weight_S: Tensor) -> Tensor:
    """All latents [N, S], with all but the k N largest set to zero."""
    z_NS = torch.relu((x_ND - sae.b_dec) @ sae.W_enc + sae.b_enc)
    ranked = (z_NS * weight_S).flatten().sort(descending=True)
    mask = torch.zeros(z_NS.numel())
    mask[ranked.indices[: k * len(x_ND)]] = 1
    return z_NS * mask.reshape(z_NS.shape)


def assert_same(sae: SAE, fast: Tensor, slow: Tensor) -> None:
    """Compare values, and the gradients of all parameters for a weighted sum of the output."""
    torch.testing.assert_close(fast, slow)
    weight = torch.linspace(-1, 1, fast.numel()).reshape(fast.shape)
    parameters = list(sae.parameters())
    for ours, theirs in zip(
        torch.autograd.grad((fast * weight).sum(), parameters),
        torch.autograd.grad((slow * weight).sum(), parameters),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


def dense(active: Active, rows_M: Tensor) -> Tensor:
    """The entries as a dense [N, S] tensor."""
    z_NS = torch.zeros(N, S)
    z_NS[rows_M, active.indices_M] = active.values_M.detach()
    return z_NS


def test_topk_equals_keeping_all() -> None:
    sae, x_ND = random_sae(), vectors()
    active = topk_active(sae, x_ND, K)
    assert_same(sae, active.x_hat_ND, sae(x_ND))
    torch.testing.assert_close(
        dense(active, torch.arange(N).repeat_interleave(K)), sae.encode(x_ND)
    )


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("k", [1, K, S])
def test_batch_topk_equals_keeping_all(k: int, weighted: bool) -> None:
    sae, x_ND = random_sae(), vectors()
    weight_S = torch.linspace(0.1, 3, S) if weighted else None
    active = batch_topk_active(sae, x_ND, k, weight_S)
    z_NS = dense_batch_topk(sae, x_ND, k, torch.ones(S) if weight_S is None else weight_S)
    assert_same(sae, active.x_hat_ND, z_NS @ sae.W_dec + sae.b_dec)
    assert int((active.values_M > 0).sum()) == int((z_NS > 0).sum())
    assert len({int(n) for n in (z_NS > 0).sum(dim=1)}) > 1, "vectors share k N unevenly"


@pytest.mark.parametrize("weighted", [False, True])
def test_matryoshka_equals_a_dense_sum_over_each_prefix(weighted: bool) -> None:
    sae, x_ND = random_sae(), vectors()
    prefixes = (2, 4, 7, 12, S)
    weight_S = torch.linspace(0.1, 3, S) if weighted else torch.ones(S)
    active = matryoshka_active(sae, x_ND, K, prefixes, weight_S if weighted else None)
    z_NS = dense_batch_topk(sae, x_ND, K, weight_S)
    slow = torch.stack([z_NS[:, :p] @ sae.W_dec[:p] + sae.b_dec for p in prefixes])
    assert_same(sae, active.x_hats_PND, slow)
    assert (z_NS[:, :2] == 0).any(dim=1).any(), "some vectors have nothing in a prefix"
