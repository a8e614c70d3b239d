"""A dictionary at random, an edit computed by hand, and a check that no hook is left."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from tendril.models.dictionaries.sae import SAE, initialised
from tendril.models.dictionaries.sparsity import Sparsity

D, S = 16, 40


def make_sae(width: int, sparsity: Sparsity) -> SAE:
    made = SAE(width, S, sparsity, pre_bias=True).requires_grad_(False)
    initialised(made, torch.Generator().manual_seed(1), bias_D=0.1 * torch.ones(width))
    return made


@contextmanager
def no_hooks_left(module: nn.Module) -> Iterator[None]:
    def hooks() -> list[tuple[int, int]]:
        return [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in module.modules()]

    before = hooks()
    try:
        yield
    finally:
        assert hooks() == before


def hand(sae: SAE, x: Tensor, change: dict[int, Tensor | float]) -> Tensor:
    """x + x_hat(z') - x_hat(z), decoded in full, in float64."""
    double = sae.plain().double()
    z = double.encode(x.double())
    edited = z.clone()
    for latent, value in change.items():
        edited[..., latent] = value
    return (x.double() + double.decode(edited) - double.decode(z)).to(x.dtype)
