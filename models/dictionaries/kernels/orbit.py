"""The active copies of orbits and their reconstructions, at the cost of the active copies.

Copy h of family f reads and writes block g of an orbit through row g h of its own E_f and D_f. So
block (n, g) of a batch is a vector of width D whose latents are the rows (f, g h) of one table
[F G, D], and the products of `sparse_product` apply as they are: work and memory grow as G. Copies
are written out only to choose among all of them, a block of orbits at a time and without gradients.
Reference: `EquivariantCrosscoder.encode` and `decode`, under autograd.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tendril.data.group.dihedral import Dihedral

from ..equivariant import EquivariantCrosscoder
from .orbit_fourier import PAY, copies_of, correlated, waves_of
from .orbit_product import spread
from .sparse_product import Active, Entries, at_entries, decode, entries_of_rows, largest

BLOCK = 2**21  # pre-activations at a time

AllCopies = Callable[[Tensor], Tensor]  # orbits [n, G D] -> pre-activations [n, F, G]


def orbit_active(
    crosscoder: EquivariantCrosscoder,
    x_NE: Float[Tensor, "n e"],
    k: int,
    families: Int[Tensor, " l"] | None = None,
    rounds: int = 1,
) -> Active:
    """The k families with the largest best pose (or the k largest copies) of joined orbits, with
    k / rounds of them in each round. `families` restricts the choice to some. Indices are f G + h,
    with f among the families considered; E = G D."""
    W_enc: Tensor = crosscoder.W_enc
    W_dec: Tensor = crosscoder.W_dec
    bias_F = crosscoder.bias()
    if families is not None:
        W_enc, W_dec, bias_F = W_enc[families], W_dec[families], bias_F[families]
    choose = _chooser(crosscoder, W_enc.detach(), bias_F.detach(), k // rounds)
    values, indices = [], []
    x_hat_NE, left_NE = torch.zeros_like(x_NE), x_NE
    for _ in range(rounds):
        pre_NK, indices_NK = choose(left_NE)
        rows = _rows_of(indices_NK, crosscoder.table_HG, len(W_enc))
        values_NK = torch.relu(_read(pre_NK, rows, left_NE, W_enc, bias_F))
        x_hat_NE = x_hat_NE + _written(values_NK, rows, W_dec)
        left_NE = x_NE - x_hat_NE
        values.append(values_NK)
        indices.append(indices_NK)
    on_NK, at_NK = torch.cat(values, dim=1), torch.cat(indices, dim=1)
    return Active(on_NK.flatten(), at_NK.flatten(), x_hat_NE[None])


def _rows_of(
    indices_NK: Int[Tensor, "n k"], table_HG: Int[Tensor, "h g"], families: int
) -> Entries:
    """For every block (n, g) the rows f G + g h of the active copies (f, h)."""
    count, k = indices_NK.shape
    elements = table_HG.shape[1]
    family_NK, pose_NK = indices_NK // elements, indices_NK % elements
    rows_NKG = family_NK[:, :, None] * elements + table_HG[pose_NK]
    return entries_of_rows(rows_NKG.mT.reshape(count * elements, k), families * elements)


def _read(
    pre_NK: Float[Tensor, "n k"],
    rows: Entries,
    x_NE: Float[Tensor, "n e"],
    W_FGD: Float[Tensor, "f g d"],
    bias_F: Float[Tensor, " f"],
) -> Float[Tensor, "n k"]:
    """`pre_NK` unchanged, but with gradients for x, E and b: a sum over g of equal parts."""
    table_RD = W_FGD.flatten(0, 1)
    count, elements = len(pre_NK), W_FGD.shape[1]
    parts_M = _over_blocks(pre_NK / elements, elements)
    bias_R = (bias_F / elements).repeat_interleave(elements)
    blocks_BD = x_NE.reshape(count * elements, -1)
    read_M = at_entries(parts_M, rows, rows.bags_M, blocks_BD, table_RD.T, bias_R)
    return read_M.view(count, elements, -1).sum(dim=1)


def _written(
    values_NK: Float[Tensor, "n k"], rows: Entries, W_FGD: Float[Tensor, "f g d"]
) -> Float[Tensor, "n e"]:
    """sum_f z[f] D_f[g h_f] for every g, joined."""
    values_M = _over_blocks(values_NK, W_FGD.shape[1])
    return decode(values_M, rows, W_FGD.flatten(0, 1)).view(len(values_NK), -1)


def _over_blocks(values_NK: Float[Tensor, "n k"], elements: int) -> Float[Tensor, " m"]:
    """The values repeated for every block of an orbit."""
    return values_NK[:, None].expand(-1, elements, -1).reshape(-1)


def _chooser(
    crosscoder: EquivariantCrosscoder,
    W_FGD: Float[Tensor, "f g d"],
    bias_F: Float[Tensor, " f"],
    k: int,
) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """A function from orbits to the k copies that a round chooses, and their pre-activations."""
    copies = len(bias_F) * len(crosscoder.group)
    if crosscoder.poses == "best" and copies >= PAY and crosscoder.side == "right":
        waves = through_waves(W_FGD, bias_F, crosscoder.group)
        return lambda x_NE: best_poses(x_NE, waves, copies, k)
    rows_ES = spread(W_FGD, crosscoder.table_HG).T
    bias_S = bias_F.repeat_interleave(len(crosscoder.group))
    if crosscoder.poses == "all":
        return lambda x_NE: largest(x_NE, rows_ES, bias_S, k)
    rows = through_rows(rows_ES, bias_S, len(crosscoder.group))
    return lambda x_NE: best_poses(x_NE, rows, copies, k)


def through_rows(
    rows_ES: Float[Tensor, "e s"], bias_S: Float[Tensor, " s"], copies: int
) -> AllCopies:
    """All copies by one product with every copy written out; its cost grows as G^2."""

    def all_copies(part_NE: Float[Tensor, "n e"]) -> Float[Tensor, "n f g"]:
        return torch.addmm(bias_S, part_NE, rows_ES).view(len(part_NE), -1, copies)

    return all_copies


def through_waves(
    W_FGD: Float[Tensor, "f g d"], bias_F: Float[Tensor, " f"], group: Dihedral
) -> AllCopies:
    """All copies by Fourier transforms over the rotations; see `orbit_fourier`."""
    copies_WSE = copies_of(W_FGD, group)

    def all_copies(part_NE: Float[Tensor, "n e"]) -> Float[Tensor, "n f g"]:
        waves_WNE = waves_of(part_NE.view(len(part_NE), len(group), -1), group)
        return correlated(waves_WNE, copies_WSE, group) + bias_F[:, None]

    return all_copies


@torch.no_grad()
def best_poses(
    x_NE: Float[Tensor, "n e"], all_copies: AllCopies, latents: int, k: int
) -> tuple[Float[Tensor, "n k"], Int[Tensor, "n k"]]:
    """The largest copy of each of the k families in which that copy is largest, in no order."""
    values, chosen = [], []
    for part_NE in torch.split(x_NE, max(1, BLOCK // latents)):
        pre_NFH = all_copies(part_NE)
        best_NF, poses_NF = pre_NFH.max(dim=2)
        top_NK, families_NK = best_NF.topk(k, dim=1, sorted=False)
        values.append(top_NK)
        chosen.append(families_NK * pre_NFH.shape[2] + poses_NF.gather(1, families_NK))
    return torch.cat(values).to(x_NE.dtype), torch.cat(chosen)
