"""What latents do on images, besides `latent_activity`: classes, and latents active together."""

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Float64, Int32, Int64
from scipy import sparse

from tendril.data import order

from .latent_activity import Entries, place_within

TOGETHER_KEY = 0x70C3  # of the order in which rows are sampled
TOGETHER_ROWS = 2**16  # rows whose active latents are compared
MOST_PAIRS = 3 * 10**8  # pairs of active latents, over all these rows
FEWEST = 3  # rows on which two latents must be active together to be called so
BLOCK = 512  # latents compared with all others at a time


@final
class ImageActivity:
    """Counts of latents over images.

    images_S: images on which each latent is active. class_CS: sum of the activations over the
    positions of each class, class_rows_C the number of these positions; images without a class
    are left out. Memory: 8 bytes for each pair of a class and a latent.
    """

    def __init__(
        self, latents: int, length: int, class_B: Int32[np.ndarray, " b"], classes: int, rows: int
    ) -> None:
        self.length, self.class_B = length, class_B
        self.images_S = np.zeros(latents, np.int64)
        self.class_CS = torch.zeros(classes, latents, dtype=torch.float64)
        self.class_rows_C = np.zeros(classes, np.int64)
        self._fraction = min(1.0, TOGETHER_ROWS / max(rows, 1))
        self._rows: list[Int64[np.ndarray, " m"]] = []
        self._latents: list[Int64[np.ndarray, " m"]] = []

    def add(
        self, inputs: Int64[np.ndarray, " b"], z_NS: Float[torch.Tensor, "n s"], found: Entries
    ) -> None:
        """Count whole images; `found` are their activations, as `Activity.add` returns them."""
        image = found.row_M // self.length
        new = np.ones(len(image), bool)
        new[1:] = (found.latent_M[1:] != found.latent_M[:-1]) | (image[1:] != image[:-1])
        self.images_S += np.bincount(found.latent_M[new], minlength=len(self.images_S))
        if len(self.class_CS):
            z_BPS = z_NS.view(len(inputs), self.length, -1)
            class_B = self.class_B[inputs]
            known = np.flatnonzero(class_B >= 0)
            sum_BS = z_BPS[torch.from_numpy(known)].nan_to_num().sum(1).double().cpu()
            self.class_CS.index_add_(0, torch.from_numpy(class_B[known]).long(), sum_BS)
            valid_B = torch.isfinite(z_BPS[..., 0]).sum(1).cpu().numpy()
            np.add.at(self.class_rows_C, class_B[known], valid_B[known])
        drawn = np.stack([order.uniform(self.length, TOGETHER_KEY, int(i)) for i in inputs])
        kept = drawn[np.searchsorted(inputs, image), found.row_M % self.length] < self._fraction
        self._rows.append(found.row_M[kept])
        self._latents.append(found.latent_M[kept].astype(np.int32))

    def together(self, count: int) -> "Together":
        """For each latent the `count` latents most often active on the same positions."""
        row = np.concatenate([*self._rows, np.empty(0, np.int64)])
        latent = np.concatenate([*self._latents, np.empty(0, np.int32)])
        return together(row, latent, len(self.images_S), count)

    def spread(self) -> "ClassSpread":
        """How the activation of each latent spreads over classes."""
        return class_spread(self.class_CS.numpy(), self.class_rows_C)


@final
@dataclass(frozen=True)
class Together:
    """Latents that are active together with each latent, with their Jaccard index, falling; -1 and
    0 where there are no more. `rows` is the number of positions compared."""

    number_SK: Int64[np.ndarray, "s k"]
    jaccard_SK: Float32[np.ndarray, "s k"]
    rows: int


def together(
    row_M: Int64[np.ndarray, " m"], latent_M: Int64[np.ndarray, " m"], latents: int, count: int
) -> Together:
    """The `count` latents j of the highest Jaccard index with each latent i,

        J_ij = n_ij / (n_i + n_j - n_ij),

    where n_ij rows have both active, and n_i have i. Pairs with n_ij below FEWEST do not count. Of
    rows with very many active latents fewer are compared, so that the work stays bounded.
    """
    rows, at_M, each = np.unique(row_M, return_inverse=True, return_counts=True)
    step = 1 + int((each.astype(np.float64) ** 2).sum() // MOST_PAIRS)
    kept = at_M % step == 0
    on = np.ones(int(kept.sum()), np.int32)
    shape = (-(-len(rows) // step), latents)
    active_RS = sparse.csr_matrix((on, (at_M[kept] // step, latent_M[kept])), shape=shape)
    active_SR = active_RS.T.tocsr()
    n_S = np.diff(active_SR.indptr)
    number = np.full((latents, count), -1, np.int64)
    jaccard = np.zeros((latents, count), np.float32)
    for start in range(0, latents, BLOCK):
        both = (active_SR[start : start + BLOCK] @ active_RS).tocoo()
        one, other, n_ij = both.row + start, both.col.astype(np.int64), both.data
        pair = (one != other) & (n_ij >= FEWEST)
        one, other, n_ij = one[pair], other[pair], n_ij[pair]
        score = n_ij / (n_S[one] + n_S[other] - n_ij)
        ranked = np.lexsort((other, -score, one))
        ranked = ranked[place_within(one[ranked]) < count]
        place = place_within(one[ranked])
        number[one[ranked], place] = other[ranked]
        jaccard[one[ranked], place] = score[ranked]
    return Together(number, jaccard, shape[0])


@final
@dataclass(frozen=True)
class ClassSpread:
    """How the activation of latents spreads over C classes.

    part_SC: the mean activation on each class, over the sum of these means, so that large classes
    count as much as small ones; 0 for a latent that is never active. effective_S: the effective
    number of classes, exp of the entropy of part_SC: 1 for a latent of a single class, C for one
    that is as active on all.
    """

    part_SC: Float32[np.ndarray, "s c"]
    effective_S: Float32[np.ndarray, " s"]

    def top(self, latent: int, count: int) -> list[tuple[int, float]]:
        """The classes with the largest parts, and these, falling."""
        part_C = self.part_SC[latent]
        best = np.argsort(-part_C, kind="stable")[:count]
        return [(int(c), float(part_C[c])) for c in best if part_C[c] > 0]


def class_spread(
    sum_CS: Float64[np.ndarray, "c s"], rows_C: Int64[np.ndarray, " c"]
) -> ClassSpread:
    """The spread of sums of activations over the positions of each class."""
    mean_CS = sum_CS / np.maximum(rows_C, 1)[:, None]
    total_S = mean_CS.sum(axis=0)
    part_CS = mean_CS / np.where(total_S > 0, total_S, 1)
    log_CS = np.log(part_CS, where=part_CS > 0, out=np.zeros_like(part_CS))
    effective_S = np.where(total_S > 0, np.exp(-(part_CS * log_CS).sum(axis=0)), 0)
    return ClassSpread(np.ascontiguousarray(part_CS.T, np.float32), effective_S.astype(np.float32))


def morans_i(map_MHW: Float[np.ndarray, "m h w"]) -> Float64[np.ndarray, " m"]:
    """Moran's I of maps, over pairs of cells that share an edge:

        I = N / W  sum_ij w_ij (z_i - m) (z_j - m) / sum_i (z_i - m)^2

    with N cells of mean m, w_ij = 1 for neighbours and W the sum of w. It is near 1 where the
    activation forms patches, about 0 where it is scattered, and negative for a chessboard. NaN for
    a constant map, and where a cell is unknown (NaN) or there is only one.

    Source: Moran, Notes on continuous stochastic phenomena, Biometrika 37 (1950).
    """
    height, width = map_MHW.shape[1:]
    pairs = height * (width - 1) + (height - 1) * width
    off_MHW = (
        map_MHW.astype(np.float64) - map_MHW.mean(axis=(1, 2), dtype=np.float64)[:, None, None]
    )
    products = (off_MHW[:, 1:] * off_MHW[:, :-1]).sum(axis=(1, 2))
    products += (off_MHW[:, :, 1:] * off_MHW[:, :, :-1]).sum(axis=(1, 2))
    squares = (off_MHW**2).sum(axis=(1, 2))
    flat: Bool[np.ndarray, " m"] = ~(squares > 0)
    found: Float64[np.ndarray, " m"] = (
        height * width / max(pairs, 1) * products / np.where(flat, np.nan, squares)
    )
    return found
