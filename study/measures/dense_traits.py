"""What dense latents are: antipodal pairs, and what their activations go with.

    antipodality  s_i = max_{j != i} cos(enc_i, enc_j) cos(dec_i, dec_j), over opposed j

is near 1 for a latent whose opposite is also in the dictionary: together they are one line through
the origin, which no sparse code needs two latents for.

Source: Sun et al., Dense SAE latents are features, not bugs (2506.15679).
"""

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.stats import rankdata

from .matching import Directions

BLOCK = 1024


def antipodality(directions: Directions) -> tuple[Float[np.ndarray, " s"], Int[np.ndarray, " s"]]:
    """s_i of each latent, and the latent that it is of. 0 and -1 without an opposed latent, whose
    decoder direction has a cosine below zero. (The product alone would count copies.)"""
    size = len(directions)
    score_S, partner_S = np.zeros(size), np.full(size, -1)
    for start in range(0, size, BLOCK):
        part = slice(start, start + BLOCK)
        decoder = directions.decoder_SD[part] @ directions.decoder_SD.T
        product = (directions.encoder_SD[part] @ directions.encoder_SD.T) * decoder
        product[decoder >= 0] = 0
        best = product.argmax(axis=1)
        score_S[part] = product[np.arange(len(best)), best]
        partner_S[part] = np.where(score_S[part] > 0, best, -1)
    return np.maximum(score_S, 0), partner_S


def ranks(z_NS: Float[np.ndarray, "n s"]) -> Float[np.ndarray, "n s"]:
    """Ranks of each column from 1; equal values share their mean rank."""
    found: np.ndarray = rankdata(z_NS, axis=0)
    return found


def spearman(
    rank_NS: Float[np.ndarray, "n s"], value_N: Float[np.ndarray, " n"]
) -> Float[np.ndarray, " s"]:
    """Rank correlation of each column of ranks with a value; 0 where one side is constant."""
    a_NS, b_N = rank_NS - rank_NS.mean(axis=0), rankdata(value_N)
    b_N = b_N - b_N.mean()
    scale_S = np.sqrt((a_NS**2).sum(axis=0) * (b_N**2).sum())
    found: np.ndarray = np.divide(
        b_N @ a_NS, scale_S, out=np.zeros(len(scale_S)), where=scale_S > 0
    )
    return found


def auc(
    rank_NS: Float[np.ndarray, "n s"], inside_N: Bool[np.ndarray, " n"]
) -> Float[np.ndarray, " s"]:
    """Probability that a row inside has the larger value than one outside, ties counting half."""
    count = int(inside_N.sum())
    others = len(inside_N) - count
    total_S = rank_NS[inside_N].sum(axis=0) - count * (count + 1) / 2
    found: np.ndarray = total_S / (count * others)
    return found


def best_auc(
    rank_NS: Float[np.ndarray, "n s"], group_N: Int[np.ndarray, " n"], least: int
) -> tuple[Float[np.ndarray, " s"], Int[np.ndarray, " s"]]:
    """The largest AUC over groups (numbers from 0 up) with at least `least` rows inside and
    outside, and the group. 0.5 and -1 without one."""
    best_S = np.full(rank_NS.shape[1], 0.5)
    which_S = np.full(rank_NS.shape[1], -1)
    for group in np.unique(group_N[group_N >= 0]):
        inside_N = group_N == group
        if not least <= inside_N.sum() <= len(group_N) - least:
            continue
        value_S = auc(rank_NS, inside_N)
        which_S = np.where(value_S > best_S, group, which_S)
        best_S = np.maximum(best_S, value_S)
    return best_S, which_S


def tail_fraction(
    rows_SD: Float[np.ndarray, "s d"], W_VD: Float[np.ndarray, "v d"], share: float
) -> Float[np.ndarray, " s"]:
    """Fraction of the squared norm of unit rows in the directions that W reads least: those of the
    smallest singular values, a share of all. By chance it is the share."""
    _, basis_DD = np.linalg.eigh(W_VD.T @ W_VD)  # ascending
    count = max(1, round(share * W_VD.shape[1]))
    found: np.ndarray = ((rows_SD @ basis_DD[:, :count]) ** 2).sum(axis=1)
    return found
