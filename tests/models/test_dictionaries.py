"""What all kinds of dictionaries share: conversion to a plain SAE, folding, joining sites."""

import pytest
import torch
from torch import Tensor, nn

from tendril.models.dictionaries.crosscoder import block_norms, joined, sourced, split
from tendril.models.dictionaries.folding import folded
from tendril.models.dictionaries.gated import Gated
from tendril.models.dictionaries.sae import SAE, Dictionary
from tendril.models.dictionaries.sparsity import Sparsity
from tendril.models.dictionaries.tied import Tied

D, S, K, N = 6, 20, 4, 40
KINDS = ["topk", "relu", "relu without b_dec", "jumprelu", "tied", "gated"]


def make(kind: str) -> Dictionary:
    """Random parameters in float64: none is zero, and no row of W_dec has norm 1."""
    if kind in ("tied", "gated"):
        dictionary = {"tied": Tied, "gated": Gated}[kind](D, S)
    else:
        name, *without = kind.split(" ", 1)
        dictionary = SAE(D, S, Sparsity(name, K), pre_bias=not without)
    generator = torch.Generator().manual_seed(0)
    for _, parameter in sorted(dictionary.named_parameters()):
        nn.init.normal_(parameter, generator=generator)
    return dictionary.double()


def vectors(count: int = N) -> Tensor:
    return torch.randn(count, D, generator=torch.Generator().manual_seed(1)).double()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_a_plain_sae(kind: str) -> None:
    """Negative thresholds act as zero: latents are never negative."""
    dictionary, x_ND = make(kind), vectors()
    plain = dictionary.plain()
    z_NS = plain.encode(x_ND)
    torch.testing.assert_close(z_NS, dictionary.encode(x_ND))
    torch.testing.assert_close(plain(x_ND), dictionary(x_ND))
    assert 0 < (z_NS > 0).double().mean() < 1
    assert (z_NS >= 0).all()
    with torch.no_grad():
        plain.W_dec.zero_()
    assert (dictionary.W_dec != 0).all(), "a copy"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", [0.02, 3.0])
def test_folding_is_exact_for_every_kind(kind: str, scale: float) -> None:
    """The same latents are active, with 1 / scale of the value (times the norm of d_i)."""
    dictionary, x_ND = make(kind), vectors()
    raw = folded(dictionary, scale)
    norm_S = torch.ones(S) if kind == "topk" else dictionary.W_dec.norm(dim=1)
    expected_NS = dictionary.encode(x_ND * scale) * norm_S / scale
    torch.testing.assert_close(raw.encode(x_ND), expected_NS)
    assert torch.equal(raw.encode(x_ND) > 0, expected_NS > 0)
    torch.testing.assert_close(raw(x_ND), dictionary(x_ND * scale) / scale)
    if kind != "topk":
        torch.testing.assert_close(raw.W_dec.norm(dim=1), torch.ones(S).double())


@pytest.mark.parametrize("kind", KINDS)
def test_folding_with_a_scale_a_site_is_exact(kind: str) -> None:
    scale_D = torch.tensor([0.5] * 2 + [7.0] * 4).double()
    dictionary, x_ND = make(kind), vectors()
    raw = folded(dictionary, scale_D)
    torch.testing.assert_close(raw(x_ND), dictionary(x_ND * scale_D) / scale_D)
    on_NS = dictionary.encode(x_ND * scale_D) > 0
    assert torch.equal(raw.encode(x_ND) > 0, on_NS)


def test_sites_are_joined_and_split() -> None:
    rows = {"a": torch.ones(3, 2), "b": torch.full((3, 4), 2.0)}
    x_ND = joined(rows)
    assert x_ND.tolist() == [[1, 1, 2, 2, 2, 2]] * 3
    again = split(x_ND, {"a": 2, "b": 4})
    assert again.keys() == rows.keys()
    assert all(torch.equal(again[site], rows[site]) for site in rows)
    W_dec = torch.tensor([[3.0, 4, 0, 0, 0, 5], [0, 0, 1, 0, 0, 0]])
    assert block_norms(W_dec, (2, 4)).tolist() == [[5, 5], [0, 1]]
    torch.testing.assert_close(block_norms(W_dec), W_dec.norm(dim=1, keepdim=True))


def test_the_encoder_sees_the_sites_that_it_is_to_see() -> None:
    x_ND, blocks = vectors(6), (1, 2, 3)
    assert torch.equal(sourced(x_ND, blocks, "all"), x_ND)
    one_ND = sourced(x_ND, blocks, "one")
    assert torch.equal(one_ND[:, :1], x_ND[:, :1])
    assert (one_ND[:, 1:] == 0).all()
    random_ND = sourced(x_ND, blocks, "random")
    for n in range(6):
        for site, (start, end) in enumerate([(0, 1), (1, 3), (3, 6)]):
            expected = 3 * x_ND[n, start:end] if n % 3 == site else torch.zeros(end - start)
            torch.testing.assert_close(random_ND[n, start:end], expected.double())
    mean_ND = torch.stack(
        [sourced(x_ND.roll(i, 0), blocks, "random").roll(-i, 0) for i in (0, 1, 2)]
    )
    torch.testing.assert_close(mean_ND.mean(dim=0), x_ND, msg="right on average, as dropout is")
    assert torch.equal(sourced(x_ND, (), "random"), x_ND)
