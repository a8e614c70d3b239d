"""Sparse products and all their gradients equal the dense forms under autograd."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from tendril.models.dictionaries.kernels import sparse_product
from tendril.models.dictionaries.kernels.sparse_product import (
    Entries,
    at_entries,
    decode,
    entries_of_rows,
    largest,
    largest_of_batch,
    top,
)

N, D, S = 7, 5, 11


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def ragged() -> Entries:
    """Rows of 3, 0, 1, 4, 0, 2 and 0 entries; row 3 has latent 8 twice; latent 10 has none."""
    latents = [0, 4, 9, 4, 8, 1, 8, 2, 3, 4]
    bags = [0, 0, 0, 2, 3, 3, 3, 3, 5, 5]
    return Entries(torch.tensor(latents), torch.tensor(bags), N, S)


def none() -> Entries:
    nothing = torch.zeros(0, dtype=torch.int64)
    return Entries(nothing, nothing, N, S)


def even() -> Entries:
    return entries_of_rows(normal(N, S).topk(3).indices, S)


ENTRIES: dict[str, Callable[[], Entries]] = {"ragged": ragged, "none": none, "even": even}


def dense(entries: Entries, values_M: Tensor) -> Tensor:
    """z as a dense [B, S] tensor."""
    z_BS = values_M.new_zeros(entries.bags, entries.latents)
    return z_BS.index_put((entries.bags_M, entries.latents_M), values_M, accumulate=True)


def assert_same(fast: Tensor, slow: Tensor, inputs: list[Tensor]) -> None:
    """Compare values, and gradients for a random weighting of the output."""
    torch.testing.assert_close(fast, slow)
    direction = normal(*slow.shape, seed=9)
    ours = torch.autograd.grad((fast * direction).sum(), inputs, materialize_grads=True)
    theirs = torch.autograd.grad((slow * direction).sum(), inputs, materialize_grads=True)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("make", ENTRIES.values(), ids=ENTRIES)
def test_decoding_equals_the_dense_product(make: Callable[[], Entries]) -> None:
    entries = make()
    values_M = normal(len(entries.latents_M)).requires_grad_()
    W_dec = normal(S, D, seed=1).requires_grad_()
    fast = decode(values_M, entries, W_dec)
    assert_same(fast, dense(entries, values_M) @ W_dec, [values_M, W_dec])
    assert gradcheck(lambda v, w: decode(v, entries, w), (values_M, W_dec))


@pytest.mark.parametrize("make", ENTRIES.values(), ids=ENTRIES)
def test_pre_activations_equal_the_dense_product(make: Callable[[], Entries]) -> None:
    entries = make()
    x_ND = normal(N, D).requires_grad_()
    W_enc, b_enc = normal(D, S, seed=1).requires_grad_(), normal(S, seed=2).requires_grad_()
    slow = (x_ND @ W_enc + b_enc)[entries.bags_M, entries.latents_M]
    fast = at_entries(slow.detach(), entries, entries.bags_M, x_ND, W_enc, b_enc)
    assert_same(fast, slow, [x_ND, W_enc, b_enc])


def test_rows_may_be_told_apart_from_bags() -> None:
    """In Matryoshka a vector has entries in several bags, so entries are not ordered by vector."""
    given = ragged()
    rows_M = torch.tensor([6, 0, 2, 2, 0, 1, 5, 3, 3, 6])
    x_ND = normal(N, D).requires_grad_()
    W_enc, b_enc = normal(D, S, seed=1).requires_grad_(), normal(S, seed=2).requires_grad_()
    slow = (x_ND @ W_enc + b_enc)[rows_M, given.latents_M]
    fast = at_entries(slow.detach(), given, rows_M, x_ND, W_enc, b_enc)
    assert_same(fast, slow, [x_ND, W_enc, b_enc])


@pytest.mark.parametrize("block", [1, 2 * S, 10**6])
@pytest.mark.parametrize("k", [1, 4, S])
def test_the_largest_are_those_of_topk(k: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """For any number of vectors per block."""
    monkeypatch.setattr(sparse_product, "CPU_BLOCK", block)
    monkeypatch.setattr(sparse_product, "LEAST_ROWS", 1)
    x_ND, W_enc, b_enc = normal(N, D), normal(D, S, seed=1), normal(S, seed=2)
    values_NK, latents_NK = largest(x_ND, W_enc, b_enc, k)
    pre_NS = x_ND @ W_enc + b_enc
    torch.testing.assert_close(values_NK, pre_NS.gather(1, latents_NK))
    torch.testing.assert_close(values_NK.sort().values, pre_NS.topk(k).values.flip(1))


@pytest.mark.parametrize("latents", [64, 96, 100, 1000])
@pytest.mark.parametrize("k", [1, 2, 3, 30])
def test_looking_at_groups_first_finds_the_same(k: int, latents: int) -> None:
    pre_NS = normal(50, latents)
    values_NK, latents_NK = top(pre_NS, k)
    torch.testing.assert_close(values_NK, pre_NS.gather(1, latents_NK))
    assert torch.equal(values_NK.sort().values, pre_NS.topk(k).values.flip(1))
    some_equal_NS = pre_NS.round()
    values_NK, latents_NK = top(some_equal_NS, k)
    assert torch.equal(values_NK.sort().values, some_equal_NS.topk(k).values.flip(1))
    assert torch.equal(some_equal_NS.gather(1, latents_NK), values_NK)
    assert all(len(set(row.tolist())) == k for row in latents_NK)


def test_among_equals_some_k_are_chosen() -> None:
    values_NK, latents_NK = largest(torch.ones(3, 2), torch.ones(2, 6), torch.zeros(6), 4)
    assert (values_NK == 2).all()
    assert all(len(set(row.tolist())) == 4 for row in latents_NK)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("block", [S, 10**6])
@pytest.mark.parametrize("count", [1, 9, 30, N * S])
def test_the_largest_of_a_batch_are_those_of_a_flat_topk(
    count: int, block: int, weighted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Entries at or below zero are omitted."""
    monkeypatch.setattr(sparse_product, "CPU_BLOCK", block)
    monkeypatch.setattr(sparse_product, "LEAST_ROWS", 1)
    x_ND, W_enc, b_enc = normal(N, D), normal(D, S, seed=1), normal(S, seed=2) - 1
    weight_S = normal(S, seed=3).abs() if weighted else None
    pre_NS = x_ND @ W_enc + b_enc
    score_NS = pre_NS if weight_S is None else pre_NS * weight_S
    wanted = score_NS.flatten().topk(count).indices
    wanted = wanted[score_NS.flatten()[wanted] > 0].sort().values
    pre_M, latents_M, rows_M = largest_of_batch(x_ND, W_enc, b_enc, count, weight_S)
    assert torch.equal(rows_M * S + latents_M, wanted)
    torch.testing.assert_close(pre_M, pre_NS.flatten()[wanted])


def test_a_sample_that_misleads_costs_a_second_pass_and_nothing_else() -> None:
    """The sampled vectors are much larger than the rest, so the first threshold is too high."""
    x_ND, W_enc = normal(128, D), normal(D, S, seed=1)
    x_ND[::64] *= 100
    pre_NS = x_ND @ W_enc
    wanted = pre_NS.flatten().topk(500).indices.sort().values
    assert (pre_NS.flatten()[wanted] > 0).all()
    _, latents_M, rows_M = largest_of_batch(x_ND, W_enc, torch.zeros(S).double(), 500)
    assert torch.equal(rows_M * S + latents_M, wanted)


def test_where_nothing_is_positive_nothing_is_on() -> None:
    x_ND, W_enc, b_enc = normal(N, D), normal(D, S, seed=1), torch.full((S,), -100.0).double()
    pre_M, latents_M, rows_M = largest_of_batch(x_ND, W_enc, b_enc, 9)
    assert len(pre_M) == len(latents_M) == len(rows_M) == 0
