"""Latent scaling: how much of what a latent of a crosscoder does in one network is in the other.

For latent j with activations z_j and the direction d_j of the network that owns it (where its norm
is larger), the strength in the vectors y of network m is the least-squares factor

    beta_j(y) = argmin_b sum_n ||y_n - b z_nj d_j||^2
              = <sum_n z_nj y_n, d_j> / (|d_j|^2 sum_n z_nj^2)

Of each network two kinds of y are used: the error, y = x - x_hat + z_j d_j^m, with x_hat the
reconstruction and d_j^m the network's own direction, so that the latent itself is not subtracted;
and the reconstruction, y = x_hat - b_dec. With beta of the other network over beta of the owner,

    nu_eps = beta(error, other) / beta(error, owner)
    nu_r   = beta(reconstruction, other) / beta(reconstruction, owner)

a latent is specific to its owner if nu_eps < 0.2 and nu_r < 0.5. nu_eps is large where the sparsity
penalty shrank a direction to nothing although the network has it; nu_r where other latents hold it.

Source: Minder et al., Overcoming sparsity artifacts in crosscoders (2504.02922), with these
thresholds. They leave b_dec in the reconstruction.

Where the two networks differ in width, or have unlike bases, d_j means nothing in the other one. In
place of beta then stands the length of the best direction, |sum_n z_nj y_n| / sum_n z_nj^2, from
two halves of the rows, so that noise does not lengthen it. This form is not in the paper.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tendril.models.dictionaries.crosscoder import block_norms
from tendril.models.dictionaries.sae import SAE

NU_ERROR, NU_RECONSTRUCTION = 0.2, 0.5  # a latent is specific below both
QUARTERS = 4  # of the rows: two to each half
LEAST_ACTIVE = 10  # rows; of rarer latents nothing is said


@final
@dataclass(frozen=True)
class LatentScaling:
    """beta of every latent in both networks, from all rows and from each half of them.

    Arrays [h, y, m, S]: all rows and the two halves, error and reconstruction, network. `owner_S`
    is the network, 0 or 1, in which the latent's norm is larger. `free` is True if best directions
    took the place of the owner's.
    """

    rows: int
    active_S: Int[np.ndarray, " s"]
    owner_S: Int[np.ndarray, " s"]
    beta_HYMS: Float[np.ndarray, "h y m s"]
    free: bool

    def nu(self, half: int = 0) -> Float[np.ndarray, "y s"]:
        """nu_eps and nu_r of every latent; NaN for one that is active on fewer than LEAST_ACTIVE
        rows, and infinite for one that its owner does not have either."""
        beta_YMS, owner_S = self.beta_HYMS[half], self.owner_S
        at = np.arange(len(owner_S))
        own_YS, other_YS = beta_YMS[:, owner_S, at], beta_YMS[:, 1 - owner_S, at]
        nu_YS: Float[np.ndarray, "y s"] = np.where(
            own_YS > 0, other_YS / np.where(own_YS > 0, own_YS, 1), np.inf
        )
        nu_YS[:, ~self.known_S] = np.nan
        return nu_YS

    @property
    def known_S(self) -> Bool[np.ndarray, " s"]:
        """True for latents that are active often enough."""
        known: Bool[np.ndarray, " s"] = self.active_S >= LEAST_ACTIVE
        return known

    def specific(self, half: int = 0) -> Bool[np.ndarray, " s"]:
        """True for latents that are specific to their owner."""
        error_S, reconstruction_S = self.nu(half)
        below: Bool[np.ndarray, " s"] = error_S < NU_ERROR
        return np.asarray(below & (reconstruction_S < NU_RECONSTRUCTION))

    def agreement(self, of_S: Bool[np.ndarray, " s"]) -> float | None:
        """The fraction of some latents of which both halves of the rows say the same."""
        chosen_S = of_S & self.known_S
        same_S = self.specific(1) == self.specific(2)
        return float(same_S[chosen_S].mean()) if chosen_S.any() else None


@torch.inference_mode()
def latent_scaling(
    sae: SAE,
    widths: Sequence[int],
    scales: Sequence[float],
    batches: Iterable[Float[Tensor, "n d"]],
    *,
    free: bool = False,
) -> LatentScaling:
    """Latent scaling of a crosscoder of two networks, over batches of joined vectors.

    `widths` and `scales` are of the two networks; the scales make their vectors comparable (see
    `Source.scale`). With `free` the best direction takes the place of the owner's, as it must where
    widths differ. Batches are dealt to the quarters in turn. Memory: 8 S (D_1 + D_2) numbers.
    """
    device, both = sae.W_dec.device, zip(widths, scales, strict=True)
    scale_D = torch.cat([torch.full((width,), float(scale)) for width, scale in both]).to(device)
    W_SD = sae.W_dec * scale_D
    sums_QYSD = torch.zeros(QUARTERS, 2, *W_SD.shape, device=device)
    squares_QS = torch.zeros(QUARTERS, sae.latents, device=device)
    active_S = torch.zeros(sae.latents, device=device, dtype=torch.int64)
    rows = 0
    for number, x_ND in enumerate(batches):
        z_NS = sae.encode(x_ND)
        made_ND = z_NS @ sae.W_dec
        quarter = number % QUARTERS
        error_SD, reconstruction_SD = sums_QYSD[quarter]
        error_SD.addmm_(z_NS.T, (x_ND - made_ND - sae.b_dec) * scale_D)
        reconstruction_SD.addmm_(z_NS.T, made_ND * scale_D)
        squares_QS[quarter] += z_NS.square().sum(dim=0)
        active_S += (z_NS > 0).sum(dim=0)
        rows += len(x_ND)
    sums_QYSD[:, 0] += squares_QS[..., None] * W_SD  # the latent itself is no part of the error
    owner_S = block_norms(W_SD, widths).argmax(dim=1)
    free = free or widths[0] != widths[1]
    strengths = _lengths if free else _factors
    found = [
        strengths(sums_QYSD[chosen], squares_QS[chosen], W_SD, owner_S, list(widths))
        for chosen in ([0, 1, 2, 3], [0, 1], [2, 3])
    ]
    return LatentScaling(
        rows, active_S.cpu().numpy(), owner_S.cpu().numpy(), torch.stack(found).cpu().numpy(), free
    )


def _factors(
    sums_QYSD: Float[Tensor, "q y s d"],
    squares_QS: Float[Tensor, "q s"],
    W_SD: Float[Tensor, "s d"],
    owner_S: Int[Tensor, " s"],
    widths: list[int],
) -> Float[Tensor, "y m s"]:
    """beta along the owner's direction, in the errors and reconstructions of both networks."""
    d_SD = _owners(W_SD, owner_S, widths)
    size_S = (d_SD.square().sum(dim=1) * squares_QS.sum(dim=0)).clamp_min(1e-30)
    parts = torch.split(sums_QYSD.sum(dim=0), widths, dim=-1)
    return torch.stack([(part_YSD * d_SD).sum(dim=-1) / size_S for part_YSD in parts], dim=1)


def _lengths(
    sums_QYSD: Float[Tensor, "q y s d"],
    squares_QS: Float[Tensor, "q s"],
    W_SD: Float[Tensor, "s d"],
    owner_S: Int[Tensor, " s"],
    widths: list[int],
) -> Float[Tensor, "y m s"]:
    """The length of the best direction over that of the owner's: sqrt(<v, v'>) with v and v' from
    two halves of these rows, whose noise is independent."""
    half = len(squares_QS) // 2
    size_S = block_norms(W_SD, widths).gather(1, owner_S[:, None])[:, 0].clamp_min(1e-30)
    ends = (slice(0, half), slice(half, None))
    best = [sums_QYSD[e].sum(0) / squares_QS[e].sum(0).clamp_min(1e-30)[:, None] for e in ends]
    parts = torch.split(best[0] * best[1], widths, dim=-1)
    squares = [part_YSD.sum(dim=-1).clamp_min(0) for part_YSD in parts]
    return torch.stack([square_YS.sqrt() / size_S for square_YS in squares], dim=1)


def _owners(
    W_SD: Float[Tensor, "s d"], owner_S: Int[Tensor, " s"], widths: list[int]
) -> Float[Tensor, "s m"]:
    """The direction of each latent in the network that owns it; both are of one width."""
    first_SD, second_SD = torch.split(W_SD, widths, dim=1)
    return torch.where((owner_S == 0)[:, None], first_SD, second_SD)
