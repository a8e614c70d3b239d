"""Straight-through gradient estimators for the thresholds of JumpReLU SAEs.

JumpReLU and the step function are discontinuous in the threshold theta. With the rectangle kernel
K(u) = 1[|u| < 1/2] and a bandwidth eps, their derivatives are replaced by

    d jumprelu(p, theta) / d theta := -theta / eps K((p - theta) / eps)
    d step(p, theta)     / d theta := -1 / eps     K((p - theta) / eps)

The derivatives with respect to the pre-activation p are exact: 1[p > theta] and 0. Averaged over
many vectors, the pseudo-derivatives are kernel estimates of the gradient of the expected loss.

Source: Rajamanoharan et al., Jumping ahead (2407.14435), eqs. 11 and 12. Their vectors have a mean
squared norm of 1, and eps is 0.001. `paper_bandwidth` converts it.
"""

import math
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

PAPER_BANDWIDTH = 0.001  # for E||x||^2 = 1


def paper_bandwidth(width: int) -> float:
    """The paper's eps for vectors with E||x||^2 = D, `width`: 0.001 sqrt(D).

    Rows of W_dec have norm 1, so pre-activations grow as the vectors do.
    """
    return PAPER_BANDWIDTH * math.sqrt(width)


def jumprelu_st(
    pre_NS: Float[Tensor, "n s"], threshold_S: Float[Tensor, " s"], bandwidth: float
) -> Float[Tensor, "n s"]:
    """JumpReLU z = pre 1[pre > threshold], with a gradient for the threshold.

    `bandwidth` is eps, in the units of the pre-activations.
    """
    z_NS: Tensor = _JumpReLU.apply(pre_NS, threshold_S, bandwidth)  # type: ignore[no-untyped-call]
    return z_NS


def step_st(
    pre_NS: Float[Tensor, "n s"], threshold_S: Float[Tensor, " s"], bandwidth: float
) -> Float[Tensor, "n s"]:
    """Step function 1[pre > threshold], with a gradient for the threshold.

    Its sum over latents is L0. `bandwidth` is eps, in the units of the pre-activations.
    """
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
