"""The loss of a dictionary on rows whose manifolds are known, for each manifold by itself."""

from dataclasses import dataclass
from typing import Literal, final

import numpy as np
import torch
from jaxtyping import Float

from tendril.data import order
from tendril.data.store.truth import ROWS, Truth
from tendril.models.dictionaries.sae import SAE

MOST_ROWS = 50_000
BATCH = 4096


@final
@dataclass(frozen=True)
class Penalty:
    """What an objective adds to the squared error of raw rows: weight sum_i z_i ||d_i|| for `l1`,
    weight times the number of active latents for `l0`."""

    kind: Literal["none", "l1", "l0"] = "none"
    weight: float = 0.0


@final
@dataclass(frozen=True)
class Losses:
    """Losses on held-out rows, in units of the rows' squared norm, so that L(0) = 1.

    total: squared error and penalty over the squared norm, over all rows
    fvu:   the squared error alone
    loss_F: `total` over rows in which a manifold alone is on; NaN where there are none
    rows:  number of rows
    """

    total: float
    fvu: float
    loss_F: Float[np.ndarray, " f"]
    rows: int


@torch.no_grad()
def manifold_losses(
    sae: SAE, truth: Truth, penalty: Penalty, held_out: float, most: int = MOST_ROWS
) -> Losses:
    """Measure up to `most` of the rows that were held out of training."""
    store = truth.store
    numbers = np.flatnonzero(order.held_out(store.column("input"), held_out))[:most]
    norms = sae.W_dec.norm(dim=1)
    count = len(truth.directions_FdD)
    cost_F, energy_F = np.zeros(count), np.zeros(count)
    cost, missed, energy = 0.0, 0.0, 0.0
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
        missed += float(error_N.sum())
        energy += float(energy_N.sum())
        features_NK = truth.features(some)
        alone_N = (features_NK >= 0).sum(axis=1) == 1
        which = features_NK[alone_N].max(axis=1)
        cost_F += np.bincount(which, cost_N.numpy()[alone_N], count)
        energy_F += np.bincount(which, energy_N.numpy()[alone_N], count)
    loss_F = np.divide(cost_F, energy_F, out=np.full(count, np.nan), where=energy_F > 0)
    return Losses(cost / energy, missed / energy, loss_F, len(numbers))
