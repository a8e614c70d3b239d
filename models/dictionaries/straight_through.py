"""Gradients for thresholds: two functions that jump, and what stands for their derivatives.

With K the rectangle, K(u) = 1 for |u| < 1/2 and 0 elsewhere, and bandwidth eps:

    d jumprelu(p, theta) / d theta := -theta / eps K((p - theta) / eps)
    d step(p, theta)     / d theta := -1 / eps     K((p - theta) / eps)

and with respect to p the derivatives where they exist: 1[p > theta] and 0. Averaged over many
vectors they are kernel estimates of the derivatives of the expected loss.

Source: Rajamanoharan et al., Jumping ahead (2407.14435), eqs. 11 and 12.
"""

from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor


def jumprelu_st(
    pre_NS: Float[Tensor, "n s"], threshold_S: Float[Tensor, " s"], bandwidth: float
) -> Float[Tensor, "n s"]:
    """pre 1[pre > threshold], with a gradient for the threshold."""
    z_NS: Tensor = _JumpReLU.apply(pre_NS, threshold_S, bandwidth)  # type: ignore[no-untyped-call]
    return z_NS


def step_st(
    pre_NS: Float[Tensor, "n s"], threshold_S: Float[Tensor, " s"], bandwidth: float
) -> Float[Tensor, "n s"]:
    """1[pre > threshold], with a gradient for the threshold; its sum over latents is L0."""
    on_NS: Tensor = _Step.apply(pre_NS, threshold_S, bandwidth)  # type: ignore[no-untyped-call]
    return on_NS


def _kernel(pre_NS: Tensor, threshold_S: Tensor, bandwidth: float) -> Tensor:
    return ((pre_NS - threshold_S).abs() < bandwidth / 2).to(pre_NS.dtype) / bandwidth


@final
class _JumpReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pre_NS: Tensor, threshold_S: Tensor, bandwidth: float) -> Tensor:
        ctx.save_for_backward(pre_NS, threshold_S)
        ctx.bandwidth = bandwidth
        return torch.where(pre_NS > threshold_S, pre_NS, 0)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor, Tensor, None]:
        (grad_NS,) = grad
        pre_NS, threshold_S = ctx.saved_tensors
        near_NS = _kernel(pre_NS, threshold_S, ctx.bandwidth)
        to_threshold_S = -threshold_S * (grad_NS * near_NS).sum(dim=0)
        return torch.where(pre_NS > threshold_S, grad_NS, 0), to_threshold_S, None


@final
class _Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pre_NS: Tensor, threshold_S: Tensor, bandwidth: float) -> Tensor:
        ctx.save_for_backward(pre_NS, threshold_S)
        ctx.bandwidth = bandwidth
        return (pre_NS > threshold_S).to(pre_NS.dtype)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[None, Tensor, None]:
        (grad_NS,) = grad
        pre_NS, threshold_S = ctx.saved_tensors
        return None, -(grad_NS * _kernel(pre_NS, threshold_S, ctx.bandwidth)).sum(dim=0), None
