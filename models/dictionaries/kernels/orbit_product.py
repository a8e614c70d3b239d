"""The copies of families written out as rows, for one product with a batch of orbits.

    rows[f G + h] = (W[f, table[h, g]] for all g),   [F G, G D]

So the group correlation of N orbits with F families is one product of [N, G D] by [G D, F G]. Only
the weights are gathered, once a step.
"""

from typing import Any, final

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional


def spread(W_FGD: Float[Tensor, "f g d"], table_HG: Int[Tensor, "h g"]) -> Float[Tensor, "f*h g*d"]:
    """The copies of every family as rows. Row h of the table is a permutation of the elements."""
    rows: Tensor = _Spread.apply(W_FGD, table_HG)  # type: ignore[no-untyped-call]
    return rows


@final
class _Spread(Function):
    """dW[f, u] = sum of the gradient over the copies h, at the block for which each read u."""

    @staticmethod
    def forward(ctx: Any, W_FGD: Tensor, table_HG: Tensor) -> Tensor:
        ctx.save_for_backward(table_HG)
        families, elements, width = W_FGD.shape
        places = _places(table_HG, families, elements)
        rows = W_FGD.reshape(-1, width).index_select(0, places)
        return rows.view(families * len(table_HG), elements * width)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_SE: Tensor) -> tuple[Tensor, None]:
        (table_HG,) = ctx.saved_tensors
        copies, elements = table_HG.shape
        families = len(grad_SE) // copies
        width = grad_SE.shape[1] // elements
        copy_H1 = torch.arange(copies, device=grad_SE.device)[:, None]
        at_UH = (copy_H1 * elements + table_HG.argsort(dim=1)).T.contiguous()
        places = _places(at_UH, families, copies * elements).view(-1, copies)
        table = grad_SE.reshape(-1, width)
        return functional.embedding_bag(places, table, mode="sum").view(families, -1, width), None


def _places(within: Tensor, families: int, size: int) -> Tensor:
    """Flat positions in all families, from positions within one family of `size` rows."""
    first_F1 = torch.arange(families, device=within.device)[:, None] * size
    return (first_F1 + within.reshape(1, -1)).reshape(-1)
