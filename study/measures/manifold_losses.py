"""The loss of a dictionary on rows whose manifolds are known, for each manifold by itself.

The unit is the squared norm of the rows, so that a dictionary of no latents has the loss 1.
"""

from dataclasses import dataclass
from typing import Literal, final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tendril.data import order
from tendril.data.store.truth import ROWS, Truth
from tendril.models.dictionaries.sae import SAE

MOST_ROWS, MOST_ROWS_ALONE = 50_000, 8192
BATCH = 1024


@final
@dataclass(frozen=True)
class Penalty:
    """What an objective adds to the squared error of raw rows: weight sum_i z_i ||d_i|| for `l1`,
    weight times the number of active latents for `l0`. `unknown` where the objective's penalty is
    not known."""

    kind: Literal["none", "l1", "l0", "unknown"] = "none"
    weight: float = 0.0


@final
@dataclass(frozen=True)
class Losses:
    """Losses on held-out rows, in units of the rows' squared norm, so that L(0) = 1.

    total: squared error and penalty over the squared norm, over all rows; NaN where the penalty is
           not known
    bound: no dictionary of any size has a lower total (without b_dec): every point has a latent of
           its own, in its direction
    fvu:   the squared error alone
    loss_F: `total` over rows in which a manifold alone is on; NaN where there are none
    rows:  number of rows
    """

    total: float
    bound: float
    fvu: float
    loss_F: Float[np.ndarray, " f"]
    rows: int


@torch.no_grad()
def manifold_losses(
    sae: SAE, truth: Truth, penalty: Penalty, held_out: float, most: int = MOST_ROWS
) -> Losses:
    """Measure up to `most` of the rows that were held out of training; of one manifold fewer are
    enough."""
    store = truth.store
    if len(truth.directions_FdD) == 1:
        most = min(most, MOST_ROWS_ALONE)
    numbers = np.flatnonzero(order.held_out(store.column("input"), held_out))[:most]
    norms = sae.W_dec.norm(dim=1)
    count = len(truth.directions_FdD)
    cost_F, energy_F = np.zeros(count), np.zeros(count)
    cost, least, missed, energy = 0.0, 0.0, 0.0, 0.0
    for start in range(0, len(numbers), BATCH):
        some = numbers[start : start + BATCH]
        x_ND = torch.from_numpy(store.read(ROWS, some))
        z_NS = sae.encode(x_ND)
        error_N = (x_ND - sae.decode(z_NS)).double().square().sum(dim=1)
        cost_N = error_N.clone()
        if penalty.kind == "l1":
            cost_N += penalty.weight * (z_NS @ norms).double()
        elif penalty.kind == "l0":
            cost_N += penalty.weight * (z_NS > 0).sum(dim=1)
        energy_N = x_ND.double().square().sum(dim=1)
        cost += float(cost_N.sum())
        least += float(_least(energy_N, penalty).sum())
        missed += float(error_N.sum())
        energy += float(energy_N.sum())
        features_NK = truth.features(some)
        alone_N = (features_NK >= 0).sum(axis=1) == 1
        which = features_NK[alone_N].max(axis=1)
        cost_F += np.bincount(which, cost_N.numpy()[alone_N], count)
        energy_F += np.bincount(which, energy_N.numpy()[alone_N], count)
    loss_F = np.divide(cost_F, energy_F, out=np.full(count, np.nan), where=energy_F > 0)
    if penalty.kind == "unknown":
        cost = least = np.nan
        cost_F[:] = np.nan
    return Losses(cost / energy, least / energy, missed / energy, loss_F, len(numbers))


def _least(energy_N: Float[Tensor, " n"], penalty: Penalty) -> Float[Tensor, " n"]:
    """The lowest loss of each row: of a squared norm r^2, by a latent in the row's direction."""
    if penalty.kind == "l1":  # min over z of (r - z)^2 + weight z
        z_N = (energy_N.sqrt() - penalty.weight / 2).clamp(min=0)
        return (energy_N.sqrt() - z_N) ** 2 + penalty.weight * z_N
    if penalty.kind == "l0":
        return energy_N.clamp(max=penalty.weight)
    return torch.zeros_like(energy_N)
