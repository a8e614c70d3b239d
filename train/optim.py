"""The optimiser: Adam, its schedule, unit rows, and its state as plain tensors."""

from collections.abc import Iterable
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor, nn

BETAS, EPS = (0.9, 0.999), 6.25e-10  # Gao et al. (2406.04093), A.3: rare latents, small gradients
MOMENTS = ("step", "exp_avg", "exp_avg_sq")


def make_adam(parameters: Iterable[nn.Parameter], lr: float) -> torch.optim.Adam:
    """Adam, updating all parameters in one kernel."""
    return torch.optim.Adam(parameters, lr=lr, betas=BETAS, eps=EPS, fused=True)


def learning_rate(step: int, steps: int, peak: float, decay: float, warmup: float = 0.0) -> float:
    """The rate at a step counted from 0: straight up to the peak over the first share, then
    constant, then straight to zero over the last share.

    Source: Anthropic, circuits update of April 2024 (decay = .2, no warm-up).
    """
    head, tail = warmup * steps, decay * steps
    rising = (step + 1) / head if head else 1.0
    falling = (steps - step) / tail if tail else 1.0
    return peak * min(1.0, rising, falling)


@torch.no_grad()
def remove_parallel_gradient(W_dec: nn.Parameter) -> None:
    """grad_i -= <grad_i, d_i> d_i for unit rows d_i: Adam then spends nothing on lengths that
    `normalise_rows` takes away. Source: Bricken et al. 2023; Gao et al. (2406.04093), A.1."""
    assert W_dec.grad is not None, "comes after backward"
    rows_SD, grad_SD = W_dec.flatten(1), W_dec.grad.flatten(1)  # the same memory
    along_S1 = torch.einsum("sd,sd->s", grad_SD, rows_SD)[:, None]  # no third such matrix
    grad_SD.addcmul_(along_S1, rows_SD, value=-1)


@torch.no_grad()
def normalise_rows(W_dec: nn.Parameter) -> None:
    """d_i /= ||d_i||, where d_i may be of several blocks."""
    rows_SD = W_dec.flatten(1)
    rows_SD.div_(rows_SD.norm(dim=1, keepdim=True))


@lru_cache(maxsize=1)  # the runs of a sweep all start from one batch
def geometric_median(x_ND: Float[Tensor, "n d"], iterations: int = 100) -> Float[Tensor, " d"]:
    """The point with the smallest sum of distances to the vectors, by Weiszfeld's iteration
    m <- sum_n x_n / ||x_n - m||  /  sum_n 1 / ||x_n - m||, until it moves by less than 1e-5
    of its distance to the vectors."""
    median_D = x_ND.mean(dim=0)
    for _ in range(iterations):
        distance_N = (x_ND - median_D).norm(dim=1).clamp_min(1e-8)
        weight_N = 1 / distance_N
        moved_D = (weight_N @ x_ND) / weight_N.sum()
        small = (moved_D - median_D).norm() <= 1e-5 * distance_N.mean()
        median_D = moved_D
        if small:
            break
    return median_D


def middle(x_ND: Float[Tensor, "n d"], bias: str) -> Float[Tensor, " d"]:
    """Where b_dec starts: the geometric median of a batch, its mean, or zero."""
    if bias == "median":
        return geometric_median(x_ND)
    return x_ND.mean(dim=0) if bias == "mean" else torch.zeros_like(x_ND[0])


def adam_tensors(optimizer: torch.optim.Adam, names: list[str]) -> dict[str, Tensor]:
    """The state of Adam as `adam.<parameter>.<moment>`; empty before the first step."""
    state = optimizer.state_dict()["state"]
    return {
        f"adam.{names[number]}.{moment}": values[moment]
        for number, values in state.items()
        for moment in MOMENTS
    }


def restore_adam(optimizer: torch.optim.Adam, names: list[str], tensors: dict[str, Tensor]) -> None:
    """The way back from `adam_tensors`."""
    state = {
        number: {moment: tensors[f"adam.{name}.{moment}"].clone() for moment in MOMENTS}
        for number, name in enumerate(names)
    }
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
