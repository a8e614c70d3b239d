"""Orders of features by ACDC: start with all of them patched, and leave out what is not needed.

For one threshold tau, Algorithm 4.1 of Cunningham et al. (2309.08600), after Conmy et al.
(2304.14997): F = all features; for each feature f, remove f from F if KL rises by less than tau
without it. KL(counterfactual || patched) is that of one pair of prompts, or a mean over pairs. The
thresholds are swept, and a feature comes the earlier in the order the more of them keep it.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from .activation_patching import Patching

LEAST, MOST = 1e-4, 0.5  # thresholds as fractions of the mean KL of the base prompts


def thresholds(patching: Patching, count: int) -> Float[Tensor, " q"]:
    """`count` thresholds in nats, geometric from LEAST to MOST times the mean KL with nothing
    patched."""
    before = float(patching.kl(torch.zeros_like(patching.whole_PTD)).mean())
    spaced = np.geomspace(LEAST, MOST, count) * max(before, 0.0)
    return torch.from_numpy(spaced).to(patching.whole_PTD)


def kept_for_all(patching: Patching, tau_Q: Float[Tensor, " q"]) -> Bool[Tensor, "q f"]:
    """The features that ACDC keeps at each threshold, one set for all pairs: the mean KL decides.

    Features are visited from the one whose part of the edits is smallest (mean L2 norm over pairs).
    """
    size_PF = patching.size_PF.mean(dim=0).expand_as(patching.size_PF)
    return _kept(patching, tau_Q, size_PF, shared=True)[:, 0]


def kept_for_each(patching: Patching, tau_Q: Float[Tensor, " q"]) -> Bool[Tensor, "q p f"]:
    """The features that ACDC keeps at each threshold for each pair by itself."""
    return _kept(patching, tau_Q, patching.size_PF, shared=False)


def order_of(
    kept_QPF: Bool[Tensor, "q *p f"], size_PF: Float[Tensor, "*p f"]
) -> Int[Tensor, "..."]:
    """Features by the number of thresholds that keep them, the largest first; of equals the one of
    the larger edit comes first."""
    by_size = size_PF.argsort(dim=-1, descending=True, stable=True)
    votes = kept_QPF.sum(dim=0).gather(-1, by_size)
    order: Tensor = by_size.gather(-1, votes.argsort(dim=-1, descending=True, stable=True))
    return order


@torch.no_grad()
def _kept(
    patching: Patching, tau_Q: Float[Tensor, " q"], size_PF: Float[Tensor, "p f"], *, shared: bool
) -> Bool[Tensor, "q p f"]:
    """All thresholds side by side.

    As long as thresholds have left out the same features of a pair, they share its forward pass:
    `first_QP` is the first threshold in the same state.
    """
    count, (pairs, _) = len(tau_Q), size_PF.shape
    order_PF = size_PF.argsort(dim=1, stable=True)
    rows_P = torch.arange(pairs, device=order_PF.device)
    number_Q1 = torch.arange(count, device=order_PF.device)[:, None]
    first_QP = torch.zeros(count, pairs, dtype=torch.int64, device=order_PF.device)
    kept_QPF = (size_PF > 0).expand(count, -1, -1).clone()
    everything = torch.ones(patching.count, dtype=torch.bool, device=order_PF.device)
    edit_PTD = patching.edit(everything)
    edit_QPTD = edit_PTD.expand(count, -1, -1, -1).clone()
    kl_QP = patching.kl(edit_PTD).expand(count, -1).clone()
    for visited_P in order_PF.T:
        change_PT = patching.change_PTF[rows_P, :, visited_P]
        if not (change_PT != 0).any():  # the order begins with features that change nothing
            continue
        part_PTD = change_PT[:, :, None] * patching.directions_FD[visited_P][:, None, :]
        without_QPTD = edit_QPTD - part_PTD
        own_Q, own_P = ((first_QP == number_Q1) & (change_PT != 0).any(dim=1)).nonzero().T
        lower_QP = kl_QP.clone()
        lower_QP[own_Q, own_P] = patching.kl(without_QPTD[own_Q, own_P], own_P)
        lower_QP = lower_QP.gather(0, first_QP)
        rise_QP = lower_QP - kl_QP
        if shared:
            rise_QP = rise_QP.mean(dim=1, keepdim=True).expand(-1, pairs)
        left_out_QP = rise_QP < tau_Q[:, None]
        edit_QPTD = torch.where(left_out_QP[:, :, None, None], without_QPTD, edit_QPTD)
        kl_QP = torch.where(left_out_QP, lower_QP, kl_QP)
        kept_QPF[:, rows_P, visited_P] &= ~left_out_QP
        state_QP = 2 * first_QP + left_out_QP
        first_QP = (state_QP[:, None] == state_QP[None]).int().argmax(dim=1)
    return kept_QPF
