"""Products with sparse latents z [N, S], at a cost proportional to the number of active latents.

With k of S latents active, a dense training step spends four of its five large products, and most
of its memory, on zeros. Here an *entry* m is one non-zero of z: latent `latents_M[m]` of vector
`bags_M[m]`. A training step needs three operations, with hand-written gradients:

    largest     the k largest pre-activations of each vector, one block of vectors at a time
    at_entries  these pre-activations as a differentiable function of x, W_enc and b_enc
    decode      z W_dec

Each gradient is one more pass over the entries. The gradient of a weight matrix is a sum over the
entries of each latent, which is the same `embedding_bag` with entries sorted by latent instead of
by vector. No dense [N, S] tensor is created, except for blocks of pre-activations in `largest`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

CPU_BLOCK = 2**21  # pre-activations per block, few enough to stay in the cache
LEAST_ROWS = 512  # vectors per block; with fewer, reading W_enc dominates the product
GPU_BLOCK = 2**28
GROUPS = (8, 4)  # group sizes of the two-stage search in `top`


@final
@dataclass(frozen=True)
class Entries:
    """The positions of the non-zeros of z [B, S], in row order; duplicates add up.

    `latents_M` is the column of each entry and `bags_M` its row (non-decreasing); `bags` is B and
    `latents` is S. Rows are called bags because, with nested prefixes, a vector has several.
    """

    latents_M: Int[Tensor, " m"]
    bags_M: Int[Tensor, " m"]
    bags: int
    latents: int

    @cached_property
    def by_bag(self) -> Int[Tensor, " b1"]:
        """The offset of each row's first entry, followed by the number of entries."""
        return _starts(self.bags_M, self.bags)

    @cached_property
    def by_latent(self) -> tuple[Int[Tensor, " m"], Int[Tensor, " s1"]]:
        """A permutation that sorts entries by latent, and the offset of each latent's entries."""
        return self.latents_M.argsort(stable=True), _starts(self.latents_M, self.latents)


def entries_of_rows(latents_NK: Int[Tensor, "n k"], latents: int) -> Entries:
    """The entries of K active latents for each vector."""
    count, k = latents_NK.shape
    bags_M = torch.arange(count, device=latents_NK.device).repeat_interleave(k)
    return Entries(latents_NK.reshape(-1), bags_M, count, latents)


def decode(
    values_M: Float[Tensor, " m"], entries: Entries, W_dec: Float[Tensor, "s d"]
) -> Float[Tensor, "b d"]:
    """z W_dec: row b is the sum of values[m] W_dec[latents[m]] over the entries m of row b.

    Differentiable in `values_M` and `W_dec`.
    """
    x_hat_BD: Tensor = _Decode.apply(values_M, W_dec, entries)  # type: ignore[no-untyped-call]
    return x_hat_BD


def at_entries(
    values_M: Float[Tensor, " m"],
    entries: Entries,
    rows_M: Int[Tensor, " m"],
    x_ND: Float[Tensor, "n d"],
    W_enc: Float[Tensor, "d s"],
    b_enc: Float[Tensor, " s"],
) -> Float[Tensor, " m"]:
    """Pre-activations <x[rows[m]], W_enc[:, latents[m]]> + b_enc[latents[m]].

    Choosing the entries has already computed them: `values_M` is returned unchanged, but with
    gradients for x, W_enc and b_enc.
    """
    pre_M: Tensor = _AtEntries.apply(  # type: ignore[no-untyped-call]
        values_M, x_ND, W_enc, b_enc, entries, rows_M
    )
    return pre_M


@torch.no_grad()
def largest(
    x_ND: Float[Tensor, "n d"],
    W_enc: Float[Tensor, "d s"],
    b_enc: Float[Tensor, " s"],
    k: int,
    parts: int = 1,
) -> tuple[Float[Tensor, "np k"], Int[Tensor, "np k"]]:
    """The k largest of x W_enc + b_enc for each vector, in arbitrary order, and their latents.

    With `parts` > 1 the latents are those of several dictionaries of equal size, concatenated.
    The result then has k values for each vector and part, in rows (vector, part).
    """
    latents = W_enc.shape[1]
    values, indices = [], []
    for _, part_ND in _blocks(x_ND, latents):
        pre_NS = (part_ND @ W_enc).add_(b_enc).view(-1, latents // parts)
        top_NK, latents_NK = top(pre_NS, k)
        values.append(top_NK)
        indices.append(latents_NK)
    indices_NK = torch.cat(indices)
    if parts > 1:
        first_P1 = torch.arange(parts, device=x_ND.device)[:, None] * (latents // parts)
        indices_NK = (indices_NK.view(-1, parts, k) + first_P1).view(-1, k)
    return torch.cat(values).to(x_ND.dtype), indices_NK


@torch.no_grad()
def largest_of_batch(
    x_ND: Float[Tensor, "n d"],
    W_enc: Float[Tensor, "d s"],
    b_enc: Float[Tensor, " s"],
    count: int,
    weight_S: Float[Tensor, " s"] | None = None,
) -> tuple[Float[Tensor, " m"], Int[Tensor, " m"], Int[Tensor, " m"]]:
    """The `count` largest weight * ReLU(x W_enc + b_enc) over all vectors and latents.

    Returns pre-activations, latents and vectors of those above zero (at most `count`), ordered by
    vector. Every 64th vector is used to estimate a threshold that about 25 % too many entries
    pass, and one pass over the batch collects these. If they are too few, a second pass collects
    all positive ones.
    """
    sample_ND = x_ND[:: min(64, len(x_ND))]
    score_NS = _score(functional.linear(sample_ND, W_enc.T, b_enc), weight_S)
    target = min(score_NS.numel(), -(-count * len(sample_ND) * 5 // (len(x_ND) * 4)))
    level = float(score_NS.flatten().topk(target, sorted=False).values.min())
    pre_M, flat_M = _above(x_ND, W_enc, b_enc, weight_S, level)
    if len(flat_M) < count and level > 0:
        pre_M, flat_M = _above(x_ND, W_enc, b_enc, weight_S, 0.0)
    latents_M = flat_M % W_enc.shape[1]
    if len(flat_M) > count:
        score_M = pre_M if weight_S is None else pre_M * weight_S[latents_M]
        kept_M = score_M.topk(count, sorted=False).indices.sort().values
        pre_M, flat_M, latents_M = pre_M[kept_M], flat_M[kept_M], latents_M[kept_M]
    return pre_M.to(x_ND.dtype), latents_M, flat_M // W_enc.shape[1]


def top(pre_NS: Float[Tensor, "n s"], k: int) -> tuple[Float[Tensor, "n k"], Int[Tensor, "n k"]]:
    """`pre_NS.topk(k, sorted=False)`, faster on a CPU if k is much smaller than S.

    The k largest values lie in the k groups of latents with the largest maxima, so the search has
    two stages: over the groups, then within the chosen ones.
    """
    count, latents = pre_NS.shape
    sizes = [size for size in GROUPS if latents % size == 0 and 4 * size * k <= latents]
    if pre_NS.device.type != "cpu" or not sizes:
        values_NK, latents_NK = pre_NS.topk(k, dim=1, sorted=False)
        return values_NK, latents_NK
    size = sizes[0]
    pre_NGC = pre_NS.view(count, size, latents // size)  # column c is group c
    columns_NK = pre_NGC.amax(dim=1).topk(k, dim=1, sorted=False).indices
    candidates_NGK = pre_NGC.gather(2, columns_NK[:, None].expand(count, size, k))
    values_NK, flat_NK = candidates_NGK.view(count, -1).topk(k, dim=1, sorted=False)
    within_NK = flat_NK // k * (latents // size)
    return values_NK, within_NK + columns_NK.gather(1, flat_NK % k)


def _blocks(x_ND: Tensor, latents: int) -> Iterator[tuple[int, Tensor]]:
    """Blocks of vectors to encode at a time, each with the index of its first vector."""
    block = CPU_BLOCK if x_ND.device.type == "cpu" else GPU_BLOCK
    rows = max(LEAST_ROWS, block // latents)
    for first in range(0, len(x_ND), rows):
        yield first, x_ND[first : first + rows]


def _above(
    x_ND: Tensor, W_enc: Tensor, b_enc: Tensor, weight_S: Tensor | None, level: float
) -> tuple[Tensor, Tensor]:
    """Pre-activations with a score above zero and at least `level`, and their flat indices."""
    latents = W_enc.shape[1]
    blocks = []
    for first, part_ND in _blocks(x_ND, latents):
        pre_NS = (part_ND @ W_enc).add_(b_enc)
        score_NS = _score(pre_NS, weight_S)
        reached_NS = score_NS >= level if level > 0 else score_NS > 0
        flat_M = reached_NS.flatten().nonzero().squeeze(1)
        blocks.append((pre_NS.flatten()[flat_M], flat_M + first * latents))
    pre, flat = zip(*blocks, strict=True)
    return torch.cat(pre), torch.cat(flat)


def _score(pre_NS: Tensor, weight_S: Tensor | None) -> Tensor:
    """The value that latents are ranked by, valid where positive."""
    return pre_NS if weight_S is None else pre_NS * weight_S


def _starts(sorted_M: Tensor, count: int) -> Tensor:
    """The offset of the first occurrence of each of 0 .. count in the sorted numbers."""
    return functional.pad(torch.bincount(sorted_M, minlength=count).cumsum(0), (1, 0))


def _gather_sums(
    values_M: Tensor, indices_M: Tensor, starts_B1: Tensor, table_RD: Tensor
) -> Float[Tensor, "b d"]:
    """out[b] = sum of values[m] table[indices[m]] over the entries m of bag b."""
    return functional.embedding_bag(
        indices_M,
        table_RD.contiguous(),
        starts_B1,
        per_sample_weights=values_M,
        mode="sum",
        include_last_offset=True,
    )


def _sums_by_latent(
    values_M: Tensor, entries: Entries, rows_M: Tensor, table_RD: Tensor
) -> Float[Tensor, "s d"]:
    """z^T table: out[s] = sum of values[m] table[rows[m]] over the entries m of latent s."""
    order_M, starts_S1 = entries.by_latent
    return _gather_sums(values_M[order_M], rows_M[order_M], starts_S1, table_RD)


class _Decode(Function):
    """x_hat = z W_dec;  dvalues[m] = <g[bags[m]], W_dec[latents[m]]>;  dW_dec = z^T g."""

    @staticmethod
    def forward(ctx: Any, values_M: Tensor, W_dec: Tensor, entries: Entries) -> Tensor:
        ctx.save_for_backward(values_M, W_dec)
        ctx.entries = entries
        return _gather_sums(values_M, entries.latents_M, entries.by_bag, W_dec)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_BD: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (values_M, W_dec), entries = ctx.saved_tensors, ctx.entries
        g_BD = g_BD.contiguous()
        dvalues_M = dW_SD = None
        if ctx.needs_input_grad[0]:
            dvalues_M = torch.ops.aten._embedding_bag_per_sample_weights_backward(
                g_BD, W_dec, entries.latents_M, entries.by_bag[:-1], entries.bags_M, 0
            )
        if ctx.needs_input_grad[1]:
            dW_SD = _sums_by_latent(values_M, entries, entries.bags_M, g_BD)
        return dvalues_M, dW_SD, None


class _AtEntries(Function):
    """dW_enc = x^T g,  db_enc = sum of g over each latent's entries,  dx = g W_enc^T."""

    @staticmethod
    def forward(
        ctx: Any,
        values_M: Tensor,
        x_ND: Tensor,
        W_enc: Tensor,
        b_enc: Tensor,
        entries: Entries,
        rows_M: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(x_ND, W_enc, rows_M)
        ctx.entries = entries
        return values_M.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_M: Tensor) -> tuple[Tensor | None, ...]:
        (x_ND, W_enc, rows_M), entries = ctx.saved_tensors, ctx.entries
        dx_ND = dW_DS = db_S = None
        if ctx.needs_input_grad[1]:
            order_M = rows_M.argsort(stable=True)
            starts = _starts(rows_M, len(x_ND))
            dx_ND = _gather_sums(g_M[order_M], entries.latents_M[order_M], starts, W_enc.T)
        if ctx.needs_input_grad[2]:
            dW_DS = _sums_by_latent(g_M, entries, rows_M, x_ND).T
        if ctx.needs_input_grad[3]:
            db_S = g_M.new_zeros(entries.latents).index_add(0, entries.latents_M, g_M)
        return None, dx_ND, dW_DS, db_S, None, None
