"""Which latents stay on: functions of pre-activations alone, without weights."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

SparsityName = Literal["relu", "topk", "jumprelu"]


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


def jumprelu(
    pre_NS: Float[Tensor, "*n s"], threshold_S: Float[Tensor, " s"]
) -> Float[Tensor, "*n s"]:
    """z = pre 1[pre > max(threshold, 0)], each latent with its own threshold.

    Source: Rajamanoharan et al., Jumping ahead (2407.14435), eq. 3. No gradient reaches the
    threshold here: `straight_through` has those that train it.
    """
    return torch.where(pre_NS > threshold_S.clamp_min(0), pre_NS, 0)


@final
@dataclass(frozen=True)
class Sparsity:
    """A sparsity function and its numbers, so that they can be written to a file.

    All of them are homogeneous, f(c pre, c threshold) = c f(pre, threshold) for c > 0, which
    is what lets a scale of the activations be folded into biases and thresholds alone.
    """

    name: SparsityName
    k: int = 0

    def __call__(
        self, pre_NS: Float[Tensor, "*n s"], threshold_S: Float[Tensor, " s"] | None = None
    ) -> Float[Tensor, "*n s"]:
        if self.name == "topk":
            return topk(pre_NS, self.k)
        if self.thresholded:
            assert threshold_S is not None, "a dictionary with thresholds passes them"
            return jumprelu(pre_NS, threshold_S)
        return ELEMENTWISE[self.name](pre_NS)

    @property
    def thresholded(self) -> bool:
        """Whether each latent has a threshold, which the dictionary then holds."""
        return self.name == "jumprelu"

    @property
    def elementwise(self) -> bool:
        """Whether each latent is decided by itself, so that each may have its own scale."""
        return self.thresholded or self.name in ELEMENTWISE


ELEMENTWISE: dict[str, Callable[[Tensor], Tensor]] = {"relu": relu}
