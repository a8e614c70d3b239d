"""Sparsity functions: they map pre-activations to latents, and have no weights."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

SparsityName = Literal["relu", "topk", "jumprelu"]


def relu(pre_NS: Float[Tensor, "*n s"]) -> Float[Tensor, "*n s"]:
    """z = max(pre, 0).

    Source: Bricken et al., Towards monosemanticity (Anthropic, 2023).
    """
    return torch.relu(pre_NS)


def topk(pre_NS: Float[Tensor, "*n s"], k: int) -> Float[Tensor, "*n s"]:
    """z = ReLU(TopK(pre)): the k largest pre-activations of each vector; all others are zero.

    Source: Gao et al., Scaling and evaluating sparse autoencoders (2406.04093), eq. 3. The ReLU
    is not in their equation but in their code; it keeps latents non-negative if fewer than k
    pre-activations are positive.
    """
    values_NK, indices_NK = topk_entries(pre_NS, k)
    return torch.zeros_like(pre_NS).scatter(-1, indices_NK, values_NK)


def topk_entries(
    pre_NS: Float[Tensor, "*n s"], k: int
) -> tuple[Float[Tensor, "*n k"], Int[Tensor, "*n k"]]:
    """The result of `topk` in sparse form: k values and their latents, in arbitrary order."""
    values_NK, indices_NK = pre_NS.topk(k, dim=-1, sorted=False)
    return torch.relu(values_NK), indices_NK


def jumprelu(
    pre_NS: Float[Tensor, "*n s"], threshold_S: Float[Tensor, " s"]
) -> Float[Tensor, "*n s"]:
    """z = pre 1[pre > max(threshold, 0)], with one threshold per latent.

    Source: Rajamanoharan et al., Jumping ahead (2407.14435), eq. 3, whose thresholds are
    positive by construction; here negative ones act as zero. The threshold gets no gradient:
    see `straight_through` for the estimators that train it.
    """
    return torch.where(pre_NS > threshold_S.clamp_min(0), pre_NS, 0)


@final
@dataclass(frozen=True)
class Sparsity:
    """A sparsity function by name with its parameters, so that it can be saved.

    All functions are homogeneous: f(c pre, c threshold) = c f(pre, threshold) for c > 0. A scale
    of the activations can therefore be folded into biases and thresholds (see `folding`).

    With several `parts` the latents are as many equal blocks, one after another, and TopK chooses
    k in each of them.
    """

    name: SparsityName
    k: int = 0
    parts: int = 1

    def __call__(
        self, pre_NS: Float[Tensor, "*n s"], threshold_S: Float[Tensor, " s"] | None = None
    ) -> Float[Tensor, "*n s"]:
        if self.name == "topk":
            if self.parts == 1:
                return topk(pre_NS, self.k)
            blocks = pre_NS.reshape(*pre_NS.shape[:-1], self.parts, -1)
            return topk(blocks, self.k).flatten(-2)
        if self.thresholded:
            assert threshold_S is not None, "jumprelu needs thresholds"
            return jumprelu(pre_NS, threshold_S)
        return ELEMENTWISE[self.name](pre_NS)

    @property
    def thresholded(self) -> bool:
        """True if each latent has a threshold, a parameter of the dictionary."""
        return self.name == "jumprelu"

    @property
    def elementwise(self) -> bool:
        """True if each latent depends on its own pre-activation only, so that latents can be
        rescaled independently."""
        return self.thresholded or self.name in ELEMENTWISE


ELEMENTWISE: dict[str, Callable[[Tensor], Tensor]] = {"relu": relu}
