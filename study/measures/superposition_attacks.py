"""How vulnerable toy models of superposition are, by two attacks of the same L2 norm.

gradient   one step along the gradient of the reconstruction error, as in adversarial training.
           Where outputs are on the flat side of the ReLU it is small or absent, so this attack
           understates the vulnerability of sparse models.
analytic   the best attack on the output of feature i in the linear part, along
           (W^T W)_i / ||(W^T W)_i||, for the feature i that harms an input most (Elhage and others,
           2022). `single` takes one feature i for all inputs.

With the target always the clean input x, the gain of an attack d is

    (mean ||x - x'(x + d)||^2 - mean ||x - x'(x)||^2) / ||d||^2

the error that it adds to an input, in units of its own squared norm. A model that copies m features
and ignores the rest has a gain of about 1. Vulnerability is the gain divided by that of the clean
model of the densest sweep point. The paper names "loss under attack relative to the model without
superposition" and prints no formula; losses themselves cannot be compared between densities, since
inputs and attacks are smaller where features are rarer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from .superposition import (
    NOISE,
    TINY,
    Toys,
    blocks,
    gradient_step,
    outputs,
    place,
    radius,
    stream,
)

ATTACKS = ("gradient", "analytic", "single")
CELLS = 4_000_000
"""Numbers that the analytic attack holds at once."""


@final
@dataclass(frozen=True)
class Harm:
    """Mean squared errors ||x - x'||^2 of an input, for each model: clean and under each attack.

    radius_M: the norm of every attack; power_M: the mean ||x||^2
    """

    clean_M: Float[np.ndarray, " m"]
    attacked_AM: Float[np.ndarray, "a m"]
    radius_M: Float[np.ndarray, " m"]
    power_M: Float[np.ndarray, " m"]

    @property
    def gain_AM(self) -> Float[np.ndarray, "a m"]:
        """Error that an attack adds, in units of its squared norm."""
        return np.asarray((self.attacked_AM - self.clean_M) / self.radius_M**2)


def harm(toys: Toys, inputs: int, attack: float, seed: int) -> Harm:
    """Errors on inputs that no training step drew."""
    generator = stream("inputs", seed)
    features = toys.b_MF.shape[1]
    u_BF = torch.rand(inputs, features, generator=generator)
    noise_BF = torch.randn(inputs, features, generator=generator) * NOISE
    rows: list[Float[Tensor, "r m"]] = []
    for part in blocks(toys.robust_M):
        some = toys.part(part)
        x_MBF = place(u_BF, some.density_M)
        radius_M = radius(x_MBF, attack)
        step_MBF = gradient_step(some, x_MBF, noise_BF, radius_M)
        worst = [analytic_errors(some.W_MDF[i], some.b_MF[i], x_MBF[i], float(radius_M[i]))
                 for i in range(len(x_MBF))]  # fmt: skip
        rows.append(
            torch.stack(
                [
                    errors(some, x_MBF, x_MBF),
                    errors(some, x_MBF + step_MBF, x_MBF),
                    torch.tensor([each for each, _ in worst]),
                    torch.tensor([single for _, single in worst]),
                    radius_M,
                    x_MBF.square().sum(-1).mean(-1),
                ]
            )
        )
    table = torch.cat(rows, 1).double().numpy()
    return Harm(table[0], table[1:4], table[4], table[5])


def errors(
    toys: Toys, x_MBF: Float[Tensor, "m b f"], target_MBF: Float[Tensor, "m b f"]
) -> Float[Tensor, " m"]:
    """Mean ||target - x'(x)||^2 of each model."""
    return (outputs(toys, x_MBF) - target_MBF).square_().sum(-1).mean(-1)


def analytic_directions(W_DF: Float[Tensor, "d f"]) -> Float[Tensor, "f f"]:
    """Row i is (W^T W)_i / ||(W^T W)_i||; zero for a feature that the model ignores."""
    gram_FF = W_DF.T @ W_DF
    norm_F1: Tensor = gram_FF.norm(dim=1, keepdim=True)
    return gram_FF / norm_F1.clamp_min(TINY)


def analytic_errors(
    W_DF: Float[Tensor, "d f"],
    b_F: Float[Tensor, " f"],
    x_BF: Float[Tensor, "b f"],
    norm: float,
) -> tuple[float, float]:
    """Mean ||x - x'||^2 under the worst direction of each input, and under the worst for all."""
    shift_FF = norm * (analytic_directions(W_DF) @ W_DF.T @ W_DF)
    before_BF = torch.addmm(b_F, x_BF @ W_DF.T, W_DF)
    size = max(1, CELLS // shift_FF.numel())
    each, by_feature_F = 0.0, torch.zeros(len(shift_FF), dtype=torch.float64)
    for first in range(0, len(x_BF), size):
        some_B1F = before_BF[first : first + size, None]
        error_BFF = (some_B1F + shift_FF).relu_().sub_(x_BF[first : first + size, None])
        error_BF = error_BFF.square_().sum(-1).double()
        each += float(error_BF.amax(1).sum())
        by_feature_F += error_BF.sum(0)
    return each / len(x_BF), float(by_feature_F.max()) / len(x_BF)


def randomly_turned(toys: Toys, seed: int) -> Toys:
    """A control: models whose features keep their norms, and so their features per dimension, but
    point in random directions."""
    generator = stream("directions", seed)
    random_DF = torch.randn(toys.W_MDF.shape[1:], generator=generator)
    W_MDF = random_DF / random_DF.norm(dim=0) * toys.W_MDF.norm(dim=1, keepdim=True)
    return Toys(W_MDF, toys.b_MF, toys.density_M, toys.robust_M)


def correlation(x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray) -> float:
    """Pearson's correlation; NaN where one side does not vary."""
    a, b = np.asarray(x, float), np.asarray(y, float)
    if len(a) < 2 or np.ptp(a) < TINY or np.ptp(b) < TINY:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])
