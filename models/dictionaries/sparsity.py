"""Which latents stay on: functions of pre-activations alone, without weights."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

SparsityName = Literal["relu", "topk"]


def relu(pre_NS: Float[Tensor, "*n s"]) -> Float[Tensor, "*n s"]:
    """z = max(pre, 0)."""
    return torch.relu(pre_NS)


def topk(pre_NS: Float[Tensor, "*n s"], k: int) -> Float[Tensor, "*n s"]:
    """z = ReLU(TopK(pre)): the k largest of each vector, the rest zero.

    Source: Gao et al., Scaling and evaluating sparse autoencoders (2406.04093), eq. 3; the
    ReLU keeps latents at or above zero where fewer than k are positive.
    """
    values_NK, indices_NK = topk_entries(pre_NS, k)
    return torch.zeros_like(pre_NS).scatter(-1, indices_NK, values_NK)


def topk_entries(
    pre_NS: Float[Tensor, "*n s"], k: int
) -> tuple[Float[Tensor, "*n k"], Int[Tensor, "*n k"]]:
    """The same as `topk`, as k values and the latents they belong to, in no order."""
    values_NK, indices_NK = pre_NS.topk(k, dim=-1, sorted=False)
    return torch.relu(values_NK), indices_NK


@final
@dataclass(frozen=True)
class Sparsity:
    """A sparsity function and its numbers, so that they can be written to a file.

    All of them are homogeneous, f(c pre) = c f(pre) for c > 0, which is what lets a scale of
    the activations be folded into the biases alone.
    """

    name: SparsityName
    k: int = 0

    def __call__(self, pre_NS: Float[Tensor, "*n s"]) -> Float[Tensor, "*n s"]:
        return topk(pre_NS, self.k) if self.name == "topk" else ELEMENTWISE[self.name](pre_NS)

    @property
    def elementwise(self) -> bool:
        """Whether each latent is decided by itself, so that each may have its own scale."""
        return self.name in ELEMENTWISE


ELEMENTWISE: dict[str, Callable[[Tensor], Tensor]] = {"relu": relu}
