"""Match the latents of dictionaries of successive layers (SAE Match).

A latent's threshold is folded into its weights, so that all thresholds become 1 and latents of
layers whose activations differ in size can be compared:

    W_enc' = W_enc / theta,  b_enc' = b_enc / theta,  d' = theta d

The cost of a pair is the squared distance of its folded encoder and decoder rows, and the matching
is the permutation with the lowest summed cost. It reads no data, so it is checked by the
correlation of activations on data, which is also what layers of different widths are matched by.

Source: Balagansky et al., Mechanistic permutability: match features across layers (2410.07656),
for JumpReLU. A dictionary without thresholds is folded by the mean activation of each latent.
"""

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy import sparse
from scipy.optimize import linear_sum_assignment
from scipy.sparse.csgraph import min_weight_full_bipartite_matching
from torch import Tensor

from tendril.models.dictionaries.sae import SAE

LARGEST_DENSE = 30_000
"""Latents above which only the most similar candidates of each latent are considered."""
CANDIDATES = 32
BLOCK = 2048
TINY = 1e-12


@final
@dataclass(frozen=True)
class Folded:
    """The rows of a dictionary with thresholds of 1: `encoder_SE` holds W_enc' and b_enc'."""

    encoder_SE: Float[np.ndarray, "s e"]
    decoder_SD: Float[np.ndarray, "s d"]

    @property
    def rows(self) -> Float[np.ndarray, "s r"]:
        """What the cost is the squared distance of."""
        return np.concatenate([self.encoder_SE, self.decoder_SD], axis=1)


@torch.no_grad()
def fold(sae: SAE, scale_S: Float[np.ndarray, " s"] | None = None) -> Folded:
    """Fold the thresholds theta of an SAE into its weights, or `scale_S` in their place.

    With `pre_bias`, b_enc - b_dec W_enc takes the place of b_enc. A theta of 0 counts as 1.
    """
    theta_S = scale_S
    if theta_S is None:
        assert sae.threshold is not None, "a dictionary without thresholds needs scale_S"
        theta_S = sae.threshold.detach().double().cpu().numpy()
    theta_S = np.where(theta_S > 0, theta_S, 1.0)
    bias_S = sae.b_enc - sae.b_dec @ sae.W_enc if sae.pre_bias else sae.b_enc
    weights_SE = torch.cat([sae.W_enc.T, bias_S[:, None]], dim=1).double().cpu().numpy()
    decoder_SD = sae.W_dec.double().cpu().numpy()
    return Folded(weights_SE / theta_S[:, None], decoder_SD * theta_S[:, None])


@final
@dataclass(frozen=True)
class Assignment:
    """Pairs of rows of two matrices with a high summed score.

    second_M: the partner of each row of `first_M`; rows of the larger side may have none
    bound:    no assignment has a larger sum; equal to `total` where the assignment is optimal
    """

    first_M: Int[np.ndarray, " m"]
    second_M: Int[np.ndarray, " m"]
    score_M: Float[np.ndarray, " m"]
    bound: float

    @property
    def total(self) -> float:
        """The summed score."""
        return float(self.score_M.sum())

    @property
    def gap(self) -> float:
        """How far the sum may be below the best one, as a fraction of the bound."""
        return max(0.0, self.bound - self.total) / abs(self.bound) if self.bound else 0.0

    def partner(self, size: int) -> Int[np.ndarray, " s"]:
        """The partner of each of `size` rows of the first matrix; -1 for none."""
        found_S = np.full(size, -1)
        found_S[self.first_M] = self.second_M
        return found_S


def assign(score_ST: Float[np.ndarray, "s t"]) -> Assignment:
    """The assignment with the largest sum; of two sizes, all rows of the smaller one have a
    partner (the Hungarian method of scipy)."""
    rows, columns = linear_sum_assignment(score_ST, maximize=True)
    score_M = np.asarray(score_ST)[rows, columns].astype(float)
    return Assignment(rows, columns, score_M, float(score_M.sum()))


def assign_rows(
    first_SR: Float[np.ndarray, "s r"],
    second_TR: Float[np.ndarray, "t r"],
    largest: int = LARGEST_DENSE,
    candidates: int = CANDIDATES,
) -> Assignment:
    """The assignment of two sets of rows with the lowest summed squared distance.

    Above `largest` rows only the nearest `candidates` of each row are considered, of both sides,
    and a path of poor candidates that makes a full assignment possible. `bound` then says how far
    the result can be from the best: the summed score of each row with its best partner, or of each
    partner with its best row, whichever is smaller.

    Scores are a common constant minus the squared distance, so that they are positive.
    """
    size = max(len(first_SR), len(second_TR))
    if len(first_SR) > len(second_TR):
        turned = assign_rows(second_TR, first_SR, largest, candidates)
        order = np.argsort(turned.second_M)
        pairs = (turned.second_M[order], turned.first_M[order], turned.score_M[order])
        return Assignment(*pairs, turned.bound)
    first = torch.from_numpy(np.ascontiguousarray(first_SR, np.float32))
    second = torch.from_numpy(np.ascontiguousarray(second_TR, np.float32))
    top = float(first.norm(dim=1).max() + second.norm(dim=1).max()) ** 2  # of any distance
    if size <= largest:
        return assign((top - torch.cdist(first, second) ** 2).numpy())
    edges, bound = _candidates(first, second, top, min(candidates, len(second)))
    rows, columns = min_weight_full_bipartite_matching(edges, maximize=True)
    score_M = np.asarray(edges[rows, columns]).ravel().astype(float)
    return Assignment(rows, columns, score_M, bound)


def _candidates(
    first: Tensor, second: Tensor, top: float, count: int
) -> tuple[sparse.csr_array, float]:
    """Scores of the best `count` partners of each row of both sides and of row i with column i,
    and the bound."""
    size, other = len(first), len(second)
    best_S, best_T = torch.zeros(size), torch.full((other,), -np.inf)
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    top_T, which_T = torch.full((count, other), -np.inf), torch.zeros(count, other, dtype=torch.int)
    for start in range(0, size, BLOCK):
        score = top - torch.cdist(first[start : start + BLOCK], second) ** 2
        rows = torch.arange(start, start + len(score))
        value, column = score.topk(count, dim=1)
        best_S[rows], best_T = value[:, 0], torch.maximum(best_T, score.max(dim=0).values)
        repeated = rows[:, None].expand_as(column)
        parts.append((repeated.numpy().ravel(), column.numpy().ravel(), value.numpy().ravel()))
        parts.append((rows.numpy(), rows.numpy(), score[rows - start, rows].numpy()))
        both = torch.cat([top_T, score]), torch.cat([which_T, rows[:, None].int().expand_as(score)])
        top_T, place = both[0].topk(count, dim=0)
        which_T = both[1].gather(0, place)
    column = torch.arange(other).expand(count, other)
    parts.append((which_T.numpy().ravel(), column.numpy().ravel(), top_T.numpy().ravel()))
    row, col, score_E = (np.concatenate(each) for each in zip(*parts, strict=True))
    _, first_seen = np.unique(row.astype(np.int64) * other + col, return_index=True)
    row, col, score_E = row[first_seen], col[first_seen], score_E[first_seen]
    edges = sparse.csr_array((np.maximum(score_E, 1e-6), (row, col)), shape=(size, other))
    bound = float(best_S.double().sum())
    if size == other:
        bound = min(bound, float(best_T.double().sum()))
    return edges, bound


def correlations(
    first_NS: sparse.csr_array, second_NT: sparse.csr_array
) -> Float[np.ndarray, "s t"]:
    """Pearson correlation of the activations of latents on the same N rows; 0 for constant ones."""
    (mean_S, std_S), (mean_T, std_T) = _moments(first_NS), _moments(second_NT)
    together = (first_NS.T @ second_NT).toarray().astype(np.float32) / first_NS.shape[0]
    together -= np.outer(mean_S, mean_T).astype(np.float32)
    scale = np.outer(std_S, std_T).astype(np.float32)
    blank = np.zeros_like(together)
    found: np.ndarray = np.divide(together, scale, out=blank, where=scale > TINY)
    return found


def pair_correlations(
    first_NS: sparse.csr_array, second_NT: sparse.csr_array, partner_S: Int[np.ndarray, " s"]
) -> Float[np.ndarray, " s"]:
    """The correlation of each latent with its partner; NaN unless both vary."""
    (mean_S, std_S), (mean_T, std_T) = _moments(first_NS), _moments(second_NT)
    known = np.flatnonzero(partner_S >= 0)
    partner = partner_S[known]
    both = sparse.csc_array(first_NS)[:, known].multiply(sparse.csc_array(second_NT)[:, partner])
    together = np.asarray(both.mean(axis=0)).ravel() - mean_S[known] * mean_T[partner]
    scale = std_S[known] * std_T[partner]
    found = np.full(len(partner_S), np.nan)
    found[known] = np.divide(together, scale, out=np.full(len(known), np.nan), where=scale > TINY)
    return found


def _moments(z_NS: sparse.csr_array) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each latent."""
    mean_S = np.asarray(z_NS.mean(axis=0)).ravel().astype(float)
    power_S = np.asarray(z_NS.multiply(z_NS).mean(axis=0)).ravel()
    return mean_S, np.sqrt(np.maximum(power_S - mean_S**2, 0))
