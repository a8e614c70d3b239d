import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tendril.models.dictionaries.folding import folded
from tendril.models.dictionaries.sae import SAE, described, initialised
from tendril.models.dictionaries.sparsity import Sparsity, relu, topk, topk_entries

D, S, K, N = 6, 20, 4, 9
KINDS = [(Sparsity("topk", K), True), (Sparsity("relu"), False), (Sparsity("relu"), True)]


def random_sae(sparsity: Sparsity, pre_bias: bool = True) -> SAE:
    """Random parameters: none is zero, and no row of W_dec has norm 1."""
    generator = torch.Generator().manual_seed(0)
    sae = SAE(D, S, sparsity, pre_bias=pre_bias)
    for parameter in sae.parameters():
        nn.init.normal_(parameter, generator=generator)
    return sae


def vectors(count: int = N) -> Tensor:
    return torch.randn(count, D, generator=torch.Generator().manual_seed(1))


@settings(deadline=None)
@given(k=st.integers(1, S), seed=st.integers(0, 99))
def test_topk_keeps_the_k_largest_that_are_positive(k: int, seed: int) -> None:
    pre_NS = torch.randn(N, S, generator=torch.Generator().manual_seed(seed))
    z_NS = topk(pre_NS, k)
    for pre, z in zip(pre_NS.numpy(), z_NS.numpy(), strict=True):
        largest = np.sort(pre)[::-1][:k]
        np.testing.assert_array_equal(np.sort(z[z > 0])[::-1], largest[largest > 0])


def test_topk_keeps_no_more_than_k_of_equal_ones() -> None:
    assert int((topk(torch.ones(3, S), K) > 0).sum()) == 3 * K


@pytest.mark.parametrize("sparsity", [Sparsity("topk", K), Sparsity("relu")])
@settings(deadline=None)
@given(factor=st.floats(0.01, 100))
def test_sparsity_functions_are_homogeneous(sparsity: Sparsity, factor: float) -> None:
    pre_NS = torch.randn(N, S, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(sparsity(pre_NS * factor), sparsity(pre_NS) * factor)


@pytest.mark.parametrize(("sparsity", "pre_bias"), KINDS)
def test_values_are_those_of_the_equations(sparsity: Sparsity, pre_bias: bool) -> None:
    sae, x_ND = random_sae(sparsity, pre_bias), vectors()
    W_enc, b_enc, W_dec, b_dec = (
        p.detach().double().numpy() for p in (sae.W_enc, sae.b_enc, sae.W_dec, sae.b_dec)
    )
    x = x_ND.double().numpy()
    pre = (x - b_dec if pre_bias else x) @ W_enc + b_enc
    z = np.maximum(pre, 0)
    if sparsity.name == "topk":
        z[pre < np.sort(pre, axis=1)[:, -K, None]] = 0
    np.testing.assert_allclose(sae.encode(x_ND).detach(), z, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(sae(x_ND).detach(), z @ W_dec + b_dec, rtol=1e-4, atol=1e-5)


def test_vectors_may_have_any_number_of_leading_dimensions() -> None:
    sae, x_ND = random_sae(Sparsity("topk", K)), vectors(12)
    torch.testing.assert_close(sae(x_ND.reshape(2, 3, 2, D)).reshape(12, D), sae(x_ND))


def gradients(sae: SAE, x_hat_ND: Tensor) -> list[Tensor]:
    """Gradients of all parameters for a weighted sum of the output."""
    weight_ND = torch.linspace(-1, 1, x_hat_ND.numel()).reshape(x_hat_ND.shape)
    return list(torch.autograd.grad((x_hat_ND * weight_ND).sum(), list(sae.parameters())))


def test_combining_the_active_latents_equals_decoding_all() -> None:
    """Compare values, and the gradients of all parameters, with a loop over vectors."""
    sae, x_ND = random_sae(Sparsity("topk", K)), vectors()
    values_NK, indices_NK = topk_entries(sae.pre(x_ND), K)
    fast_ND = sae.combine(values_NK, indices_NK) + sae.b_dec
    rows = []
    for x in x_ND:
        pre = (x - sae.b_dec) @ sae.W_enc + sae.b_enc
        rows.append(sae.b_dec + sum(pre[i].clamp_min(0) * sae.W_dec[i] for i in pre.topk(K)[1]))
    slow_ND = torch.stack(rows)
    torch.testing.assert_close(fast_ND, slow_ND)
    torch.testing.assert_close(fast_ND, sae(x_ND))
    for fast, slow in zip(gradients(sae, fast_ND), gradients(sae, slow_ND), strict=True):
        torch.testing.assert_close(fast, slow)


@pytest.mark.parametrize(("sparsity", "pre_bias"), KINDS)
@pytest.mark.parametrize("scale", [0.02, 3.0])
def test_folding_takes_raw_vectors_to_the_same_place(
    sparsity: Sparsity, pre_bias: bool, scale: float
) -> None:
    sae, x_ND = random_sae(sparsity, pre_bias).double(), vectors().double()
    raw = folded(sae, scale)
    norm_S = sae.W_dec.norm(dim=1) if sparsity.name == "relu" else torch.ones(S).double()
    torch.testing.assert_close(raw.encode(x_ND), sae.encode(x_ND * scale) * norm_S / scale)
    torch.testing.assert_close(raw(x_ND), sae(x_ND * scale) / scale)
    assert not raw.training
    assert not any(p.requires_grad for p in raw.parameters())


def test_folding_gives_unit_rows_where_latents_do_not_compete() -> None:
    sae = random_sae(Sparsity("relu"))
    with torch.no_grad():
        sae.W_dec[3] = 0
    norm_S = folded(sae, 2.0).W_dec.norm(dim=1)
    expected_S = torch.ones(S)
    expected_S[3] = 0
    torch.testing.assert_close(norm_S, expected_S)


def test_initial_weights_are_transposed_of_one_norm_and_a_function_of_the_seed() -> None:
    def start(seed: int) -> SAE:
        generator = torch.Generator().manual_seed(seed)
        sae = SAE(D, S, Sparsity("relu"), pre_bias=True)
        return initialised(sae, generator, decoder_norm=0.3, bias_D=torch.arange(6.0))

    sae = start(5)
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.full((S,), 0.3))
    assert torch.equal(sae.W_enc, sae.W_dec.T)
    assert torch.equal(sae.b_dec, torch.arange(6.0))
    assert torch.equal(sae.W_dec, start(5).W_dec)
    assert not torch.equal(sae.W_dec, start(6).W_dec)


def test_a_description_leads_back() -> None:
    sae = random_sae(Sparsity("topk", K), pre_bias=True)
    assert described(sae.description()).description() == sae.description()
    assert relu(torch.tensor([-1.0, 2.0])).tolist() == [0.0, 2.0]
