"""The loss of a run on one manifold, and the lowest that any dictionary could have there."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tendril.data import order
from tendril.data.store.reader import Store
from tendril.data.store.truth import ROWS, Truth
from tendril.models.dictionaries.sae import SAE

L1, L0 = ("relu_l1", "tied"), ("jumprelu",)
"""Objectives whose lambda is `l1`, and `l0`."""
UNPENALISED = ("topk", "batch_topk")
MOST_ROWS, BATCH = 8192, 1024


@final
@dataclass(frozen=True)
class Toy:
    """The held-out loss of a run on one manifold, where 1 is the loss of no latents. NaN for an
    objective whose loss is not known here.

    setting: what was the same in runs that are compared: lambda or k, and the steps of training
    loss:    of the objective, penalty included
    bound:   no dictionary of any size has a lower one (without b_dec): every point has a latent of
             its own
    """

    setting: str
    loss: float
    bound: float


@torch.no_grad()
def toy_of(sae: SAE, trained: Mapping[str, Any], truth: Truth) -> Toy:
    """The loss of a run, with the config that it was trained with."""
    objective = str(trained.get("objective", ""))
    if objective not in (*L1, *L0, *UNPENALISED):
        return Toy("", np.nan, np.nan)
    if objective in L0 and trained.get("target_l0"):
        return Toy(f"target L0 {trained['target_l0']:g}", np.nan, np.nan)
    rows_ND, width = held_out_rows(truth.store, float(trained["held_out"])), int(trained["width"])
    steps = f"{int(trained['steps']):,} steps"
    scale = float(trained["scales"][ROWS])  # so that E||x||^2 is the width
    missed_N, length_N, active_N = _parts(sae, rows_ND, scale)
    if objective in UNPENALISED:
        return Toy(f"k {trained['k']}, {steps}", float(missed_N.mean()) / width, 0.0)
    weight = float(trained["l1" if objective in L1 else "l0"])
    norm_N = scale * rows_ND.double().norm(dim=1).numpy()
    if objective in L1:
        z_N = np.maximum(norm_N - weight / 2, 0)  # minimises (r - z)^2 + lambda z
        loss_N = (missed_N + weight * length_N) / width
        bound_N = ((norm_N - z_N) ** 2 + weight * z_N) / width
    else:
        loss_N = missed_N / width + weight * active_N
        bound_N = np.minimum(norm_N**2 / width, weight)
    start = float(trained.get("start_l0", 0)) if objective in L0 else 0.0
    began = f", first L0 {start:g}" if start else ""
    return Toy(f"lambda {weight:g}{began}, {steps}", float(loss_N.mean()), float(bound_N.mean()))


def held_out_rows(store: Store, fraction: float) -> Float[Tensor, "n d"]:
    """The first MOST_ROWS rows that were held out of training."""
    inputs_R = store.column("input").astype(np.int64)
    rows = np.flatnonzero(order.held_out(inputs_R, fraction))[:MOST_ROWS]
    read_ND = store.read(ROWS, rows).astype(np.float32)
    return torch.from_numpy(read_ND.reshape(len(rows), -1))


def _parts(
    sae: SAE, rows_ND: Float[Tensor, "n d"], scale: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each row, in the units of training: ||x - x_hat||^2, sum_i z_i ||d_i||, and the number of
    active latents."""
    norm_S = sae.W_dec.norm(dim=1)
    parts = []
    for x_ND in torch.split(rows_ND, BATCH):
        z_NS = sae.encode(x_ND)
        missed_N = (x_ND - sae.decode(z_NS)).double().square().sum(dim=1) * scale**2
        parts.append((missed_N, scale * (z_NS @ norm_S).double(), (z_NS > 0).sum(dim=1).double()))
    missed, length, active = (torch.cat(each).numpy() for each in zip(*parts, strict=True))
    return missed, length, active
