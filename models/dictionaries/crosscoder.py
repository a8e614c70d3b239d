"""Crosscoders: one dictionary for several sites, or for all elements of an orbit.

Site g has vectors x_g of width D_g. A crosscoder encodes them jointly and decodes each site:

    z       = sparsity(sum_g x_g W_enc,g + b_enc)
    x_hat_g = z W_dec,g + b_dec,g

This is an SAE of the concatenated vectors x [N, sum_g D_g], with W_enc,g and W_dec,g stacked, so
objectives and files of SAEs apply unchanged. This module adds what is specific to crosscoders:
how the norms of the directions d_i,g (row i of W_dec,g) are combined, and which sites the encoder
sees during training.

In a group crosscoder the elements g of a group take the place of sites: x_g = a(T_g p) is the
activation of one site on the input p transformed by T_g. `equivariant.blocks_of` returns its
directions d_i,g.

Source: Lindsey et al., Sparse crosscoders for cross-layer features and model diffing (Anthropic,
October 2024), which weights latents by `sum_of_norms` and encodes all sites; Gorton, Group
crosscoders for mechanistic analysis of symmetry (2410.24184).
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from .sae import SAE

Sources = Literal["all", "one", "random"]
Ranking = Literal["sum_of_norms", "norm_of_sums"]


def joined(rows: Mapping[str, Float[Tensor, "n *g _"]]) -> Float[Tensor, "n *g d"]:
    """Concatenate aligned vectors of several sites, in the order of the mapping."""
    return torch.cat(list(rows.values()), dim=-1)


def split(
    x_ND: Float[Tensor, "*n d"], blocks: Mapping[str, int]
) -> dict[str, Float[Tensor, "*n _"]]:
    """Inverse of `joined`, given the sites' names and widths, as in a run's config.json.

    Applied to W_dec [S, sum D_g] it gives the directions of each site.
    """
    return dict(zip(blocks, torch.split(x_ND, list(blocks.values()), dim=-1), strict=True))


def block_norms(W_dec: Float[Tensor, "s d"], blocks: Sequence[int] = ()) -> Float[Tensor, "s g"]:
    """The norm ||d_i,g|| of each latent's direction at each site.

    `blocks` are the widths of the sites; empty means one site.
    """
    parts = torch.split(W_dec, list(blocks) or [W_dec.shape[1]], dim=1)
    return torch.stack([part.norm(dim=1) for part in parts], dim=1)


def weights(
    W_dec: Float[Tensor, "s d"], blocks: Sequence[int], ranking: Ranking
) -> Float[Tensor, " s"]:
    """The weight of each latent in the sparsity penalty, and in the ranking of BatchTopK.

    `sum_of_norms` is sum_g ||d_i,g||, as in Lindsey et al.; it favours latents that write to few
    sites. `norm_of_sums` is ||d_i|| = sqrt(sum_g ||d_i,g||^2), which does not.
    """
    return block_norms(W_dec, blocks if ranking == "sum_of_norms" else ()).sum(dim=1)


def sourced(
    x_ND: Float[Tensor, "n d"], blocks: Sequence[int], sources: Sources
) -> Float[Tensor, "n d"]:
    """Mask joined vectors to the sites that the encoder sees during training.

    `all`: every site. `one`: the first site; the others are zero, so their encoder weights get
    no gradient, and the exported dictionary takes them as zero. `random`: one site per vector,
    multiplied by the number of sites G, as in dropout; the trained encoder then accepts all
    sites, or any single site multiplied by G. Row n sees site n mod G: since rows come shuffled,
    this is a random choice, balanced over sites and reproducible when a run resumes.

    `one` and `random` are not part of Lindsey et al.
    """
    count = len(blocks)
    if sources == "all" or count < 2:
        return x_ND
    if sources == "one":
        scale_NG = torch.zeros(len(x_ND), count, device=x_ND.device)
        scale_NG[:, 0] = 1
    else:
        rows_N = torch.arange(len(x_ND), device=x_ND.device)
        scale_NG = (rows_N[:, None] % count == torch.arange(count, device=x_ND.device)) * count
    widths = torch.tensor(list(blocks), device=x_ND.device)
    return x_ND * scale_NG.to(x_ND.dtype).repeat_interleave(widths, dim=1)


@torch.no_grad()
def reading_first(sae: SAE, blocks: Sequence[int]) -> SAE:
    """A crosscoder trained with `random` sources, as one that reads the first site alone.

    Its encoder takes x_0 multiplied by the number of sites G, as in training; the other sites do
    not count. Thresholds were learned on single sites, whose sums vary more than the mean over all
    sites, so that few latents would pass on all sites together.
    """
    alone = sae.plain()
    alone.W_enc[: blocks[0]] *= len(blocks)
    alone.W_enc[blocks[0] :] = 0
    return alone
