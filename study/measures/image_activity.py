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
MOST_ENTRIES = 2**25  # activations in the sample: 768 MB
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
        self.class_CS = np.zeros((classes, latents))
        self.class_rows_C = np.zeros(classes, np.int64)
        self._fraction = min(1.0, TOGETHER_ROWS / max(rows, 1))
        self._sample = (np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))
        self._waiting: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def add(
        self, inputs: Int64[np.ndarray, " b"], z_NS: Float[torch.Tensor, "n s"], found: Entries
    ) -> None:
        """Count whole images; `found` are their activations, as `Activity.add` returns them."""
        image = found.row_M // self.length
        new = np.ones(len(image), bool)
        new[1:] = (found.latent_M[1:] != found.latent_M[:-1]) | (image[1:] != image[:-1])
        self.images_S += np.bincount(found.latent_M[new], minlength=len(self.images_S))
        if len(self.class_CS):
            class_B, class_M = self.class_B[inputs], self.class_B[image]
            known_B, known_M = class_B >= 0, class_M >= 0
            place_M = class_M[known_M].astype(np.int64) * len(self.images_S)
            place_M += found.latent_M[known_M]
            np.add.at(self.class_CS.reshape(-1), place_M, found.value_M[known_M])
            valid_B = torch.isfinite(z_NS[:, 0]).view(len(inputs), -1).sum(1).cpu().numpy()
            np.add.at(self.class_rows_C, class_B[known_B], valid_B[known_B])
        drawn = np.stack([order.uniform(self.length, TOGETHER_KEY, int(i)) for i in inputs])
        draw_M = drawn[np.searchsorted(inputs, image), found.row_M % self.length]
        kept = draw_M < self._fraction
        self._waiting.append((found.row_M[kept], found.latent_M[kept], draw_M[kept]))
        if sum(len(row) for row, _, _ in self._waiting) > MOST_ENTRIES // 4:
            self._merge()

    def _merge(self) -> None:
        """Join what waits with the sample; of a dictionary with very many active latents keep half
        of the rows, until the sample is small enough."""
        parts = zip(self._sample, *self._waiting, strict=True)
        row, latent, draw = (np.concatenate(part) for part in parts)
        while len(row) > MOST_ENTRIES:
            self._fraction /= 2
            kept = draw < self._fraction
            row, latent, draw = row[kept], latent[kept], draw[kept]
        self._sample, self._waiting = (row, latent, draw), []

    def together(self, count: int) -> "Together":
        """For each latent the `count` latents most often active on the same positions."""
        self._merge()
        row, latent, _ = self._sample
        return together(row, latent, len(self.images_S), count)

    def spread(self) -> "ClassSpread":
        """How the activation of each latent spreads over classes."""
        return class_spread(self.class_CS, self.class_rows_C)


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
        one, other = both.row.astype(np.int64) + start, both.col.astype(np.int64)
        n_ij = both.data
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
