"""Matching the latents of two dictionaries, and similarity of latents within one."""

from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.optimize import linear_sum_assignment

SHARED = 0.7  # cosine of both sides above which two latents are the same one
DENSE = 0.1  # fraction of vectors above which a latent is dense
ANTIPODAL = 0.9  # product of both cosines above which two opposed latents are a pair
FIRST_RANK, LAST_RANK = 100, 10_000  # where the slope of firing frequencies is taken


@final
@dataclass(frozen=True)
class Directions:
    """Encoder and decoder directions of each latent, and how often it fires.

    `encoder` holds the columns of W_enc [S, D], `decoder` the rows of W_dec [S, D], both of
    norm 1 (rows of zeros stay); `frequency` is the fraction of vectors, NaN where it is unknown.
    """

    encoder_SD: Float[np.ndarray, "s d"]
    decoder_SD: Float[np.ndarray, "s d"]
    frequency_S: Float[np.ndarray, " s"]

    def __len__(self) -> int:
        return len(self.decoder_SD)


@final
@dataclass(frozen=True)
class Match:
    """Pairs of latents, one of each dictionary, and the cosines of their two sides."""

    first_M: Int[np.ndarray, " m"]
    second_M: Int[np.ndarray, " m"]
    encoder_M: Float[np.ndarray, " m"]
    decoder_M: Float[np.ndarray, " m"]

    @property
    def shared_M(self) -> Bool[np.ndarray, " m"]:
        """True where both cosines are above 0.7.

        Source: Paulo and Belrose, Sparse autoencoders trained on the same data learn different
        features (2501.16615).
        """
        return np.asarray(np.minimum(self.encoder_M, self.decoder_M) > SHARED)


def match(first: Directions, second: Directions) -> Match:
    """The pairing of latents with the largest sum of encoder and decoder cosines.

        max over permutations p of  sum_i cos(enc_i, enc'_p(i)) + cos(dec_i, dec'_p(i))

    by the Hungarian method. Of dictionaries of two sizes all latents of the smaller one are
    paired. Time grows with the cube of the size: under a second for 2,000 latents.
    """
    encoder = first.encoder_SD @ second.encoder_SD.T
    decoder = first.decoder_SD @ second.decoder_SD.T
    rows, columns = linear_sum_assignment(encoder + decoder, maximize=True)
    return Match(rows, columns, encoder[rows, columns], decoder[rows, columns])


def stability(first: Directions, second: Directions) -> float:
    """Mean cosine of decoder rows under the pairing that makes it largest; 1 is the same
    dictionary in another order.

    Source: Fel et al., Archetypal SAE (2502.12892).
    """
    cosine = first.decoder_SD @ second.decoder_SD.T
    rows, columns = linear_sum_assignment(cosine, maximize=True)
    return float(cosine[rows, columns].mean())


def nearest_cosine(directions: Directions) -> Float[np.ndarray, " s"]:
    """The cosine of each latent's decoder row with the most similar other row."""
    cosine = directions.decoder_SD @ directions.decoder_SD.T
    np.fill_diagonal(cosine, -np.inf)
    nearest: np.ndarray = cosine.max(axis=1)
    return nearest


def dense_latents(directions: Directions) -> Int[np.ndarray, " n"]:
    """Latents that fire on more than a tenth of the vectors, the most frequent first."""
    dense = np.flatnonzero(directions.frequency_S > DENSE)
    ordered: np.ndarray = dense[np.argsort(-directions.frequency_S[dense], kind="stable")]
    return ordered


def antipodal_pairs(directions: Directions) -> list[tuple[int, int, float]]:
    """Pairs of dense latents with opposite encoder and decoder directions, with their score:

        cos(enc_i, enc_j) cos(dec_i, dec_j) > .9,  both cosines below zero.

    Source: Sun et al., Dense SAE latents are features, not bugs (2506.15679). (The product
    alone would count copies of a latent too.)
    """
    dense = dense_latents(directions)
    encoder = directions.encoder_SD[dense] @ directions.encoder_SD[dense].T
    decoder = directions.decoder_SD[dense] @ directions.decoder_SD[dense].T
    score = np.triu(encoder * decoder, k=1)
    opposed = (score > ANTIPODAL) & (decoder < 0)
    return [(int(dense[i]), int(dense[j]), float(score[i, j])) for i, j in np.argwhere(opposed)]


def frequency_slope(
    frequency_S: Float[np.ndarray, " s"],
) -> tuple[float, tuple[int, int]] | None:
    """The slope of log frequency against log rank, by least squares, and the ranks it is of:
    100 to 10,000 where that many latents fire, else from a tenth of those that do to half of
    them, since the last ones fall off a cliff. None where fewer than ten fire.

    Source: the power law of firing frequencies in 2509.02565.
    """
    firing = np.sort(frequency_S[frequency_S > 0])[::-1]
    if len(firing) < 10:
        return None
    ranks = min(FIRST_RANK, max(1, len(firing) // 10)), min(LAST_RANK, len(firing) // 2)
    rank = np.arange(ranks[0], ranks[1] + 1)
    slope = np.polyfit(np.log(rank), np.log(firing[rank - 1]), 1)[0]
    return float(slope), ranks
