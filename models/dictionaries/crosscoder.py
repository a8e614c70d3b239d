"""One dictionary over several sites, or all elements of an orbit: an SAE of their vectors, side by
side.

Site g has vectors x_g of width D_g; joined they are x [N, sum D_g]. The encoder of the joined
vector is the sum of the sites' encoders, its rows d_i are the sites' directions d_i,g side by
side, so every objective and every file of an SAE serves. What is the crosscoder's own: how
the norms of its directions are added up, and which sites the encoder sees while training.

A group crosscoder is the same with the elements g of a group in place of sites: x_g = a(T_g p) is
what one site does on the input taken through T_g. `orbit.blocks_of` gives its directions d_i,g.

Source: Lindsey et al., Sparse crosscoders (Anthropic, October 2024); Gorton, Group crosscoders
(2410.24184).
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Sources = Literal["all", "one", "random"]
Ranking = Literal["sum_of_norms", "norm_of_sums"]


def joined(rows: Mapping[str, Float[Tensor, "n *g _"]]) -> Float[Tensor, "n *g d"]:
    """Aligned vectors of several sites, side by side, in the order of the mapping."""
    return torch.cat(list(rows.values()), dim=-1)


def split(
    x_ND: Float[Tensor, "*n d"], blocks: Mapping[str, int]
) -> dict[str, Float[Tensor, "*n _"]]:
    """The way back: by the sites' names and widths, as a run's config.json holds them. Rows of
    W_dec are split the same way into the directions of each site."""
    return dict(zip(blocks, torch.split(x_ND, list(blocks.values()), dim=-1), strict=True))


def block_norms(W_dec: Float[Tensor, "s d"], blocks: Sequence[int] = ()) -> Float[Tensor, "s g"]:
    """||d_i,g||, the length of each latent's direction at each site; no blocks are one."""
    parts = torch.split(W_dec, list(blocks) or [W_dec.shape[1]], dim=1)
    return torch.stack([part.norm(dim=1) for part in parts], dim=1)


def weights(
    W_dec: Float[Tensor, "s d"], blocks: Sequence[int], ranking: Ranking
) -> Float[Tensor, " s"]:
    """What a latent weighs in the penalty and in the choice of those that are on: sum_g ||d_i,g||,
    or ||d_i|| of all sites side by side, which does not prefer latents at few of them."""
    return block_norms(W_dec, blocks if ranking == "sum_of_norms" else ()).sum(dim=1)


def sourced(
    x_ND: Float[Tensor, "n d"], blocks: Sequence[int], sources: Sources
) -> Float[Tensor, "n d"]:
    """What the encoder sees of joined vectors, by the choice of its sources.

    `all`: every site. `one`: the first site alone; the others are zero, so their encoders
    stay as they started and the exported dictionary takes their rows as zero. `random`: one
    site a vector, times the number of sites, as dropout scales what it keeps: the trained
    encoder then works on the sum of all, and on any one site alone times their number. Rows
    come shuffled, so "row n sees site n mod G" is a random choice, a balanced one, and the
    same one again when a run goes on after a stop.
    """
    count = len(blocks)
    if sources == "all" or count < 2:
        return x_ND
    if sources == "one":
        sees_NG = torch.zeros(len(x_ND), count, device=x_ND.device)
        sees_NG[:, 0] = 1
    else:
        rows_N = torch.arange(len(x_ND), device=x_ND.device)
        sees_NG = (rows_N[:, None] % count == torch.arange(count, device=x_ND.device)) * count
    widths = torch.tensor(list(blocks), device=x_ND.device)
    return x_ND * sees_NG.to(x_ND.dtype).repeat_interleave(widths, dim=1)
