"""Is an input unlike those that a network was trained on? Scores, and how well they tell.

Every score is larger for inputs further outside.

    maximum softmax  1 - max_c softmax(logits)_c            Hendrycks and Gimpel, 2017
    energy           -log sum_c exp(logits_c)               Liu and others, 2020
    Mahalanobis      min_c (f - m_c)^T C^-1 (f - m_c)       Lee and others, 2018
    nearest          distance of f / ||f|| to the k-th      Sun and others, 2022
                     nearest one of the fitted inputs
    profile          KL(P || Q_c) on the core of class c    2604.26409

f is the mean of a site's vectors over an input's positions, m_c the mean of f over class c, C the
covariance of f - m_c over all classes. Profiles are of codes z, of a dictionary's latents or of
units: CAP_c is the mean code of class c, its core the largest 15 % of its entries, Q_c the CAP on
the core and P the input's code there, both scaled to sum 1. c is the class that the network
answers.
"""

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor
from torch.nn import functional

CORE = 0.15
NEIGHBOURS = 50
FLOOR = 1e-6  # what every entry of P and Q is raised by, so that KL is finite
AT_ONCE = 2**24  # distances computed at a time
RIDGE = 1e-6  # of the mean variance, added to each variance before inversion


def softmax_score(logits_NC: Float[Tensor, "n c"]) -> Float[Tensor, " n"]:
    """1 - the probability of the answer."""
    return 1 - logits_NC.double().softmax(dim=1).amax(dim=1)


def energy_score(logits_NC: Float[Tensor, "n c"]) -> Float[Tensor, " n"]:
    """-logsumexp of the logits, at temperature 1."""
    return -logits_NC.double().logsumexp(dim=1)


@final
class ClassMeans:
    """Sums over the inputs of each class, from which means of any width are computed."""

    def __init__(self, classes: int, width: int) -> None:
        self.sum_CD = torch.zeros(classes, width, dtype=torch.float64)
        self.count_C = torch.zeros(classes, dtype=torch.int64)

    def add(self, class_N: Int64[Tensor, " n"], x_ND: Float[Tensor, "n d"]) -> None:
        """Count inputs of known classes."""
        self.sum_CD.index_add_(0, class_N, x_ND.double())
        self.count_C += torch.bincount(class_N, minlength=len(self.count_C))

    @property
    def mean_CD(self) -> Float64[Tensor, "c d"]:
        """The mean of each class; zero for a class without inputs."""
        return self.sum_CD / self.count_C.clamp_min(1)[:, None]


@final
@dataclass(frozen=True)
class Gaussians:
    """Class means m_c and the inverse of the covariance that classes share."""

    mean_CD: Float64[Tensor, "c d"]
    inverse_DD: Float64[Tensor, "d d"]

    @classmethod
    def fitted(cls, x_ND: Float[Tensor, "n d"], class_N: Int64[Tensor, " n"]) -> "Gaussians":
        """From vectors and their classes. Classes without vectors are left out."""
        seen, place_N = torch.unique(class_N, return_inverse=True)
        means = ClassMeans(len(seen), x_ND.shape[1])
        means.add(place_N, x_ND)
        centred = x_ND.double() - means.mean_CD[place_N]
        covariance = centred.T @ centred / max(len(centred) - len(seen), 1)
        covariance.diagonal().add_(RIDGE * covariance.diagonal().mean().clamp_min(1e-12))
        return cls(means.mean_CD, torch.linalg.inv(covariance))

    def score(self, x_ND: Float[Tensor, "n d"]) -> Float64[Tensor, " n"]:
        """The smallest squared Mahalanobis distance to a class mean."""
        best_N = torch.full((len(x_ND),), torch.inf, dtype=torch.float64)
        for mean_D in self.mean_CD:
            off = x_ND.double() - mean_D
            best_N = torch.minimum(best_N, ((off @ self.inverse_DD) * off).sum(dim=1))
        return best_N


def neighbour_score(
    x_ND: Float[Tensor, "n d"], fitted_MD: Float[Tensor, "m d"], k: int = NEIGHBOURS
) -> Float64[Tensor, " n"]:
    """Euclidean distance to the k-th nearest fitted vector, all scaled to norm 1; k is at most M.

    A vector of zeros stays zero.
    """
    x, fitted = functional.normalize(x_ND.double()), functional.normalize(fitted_MD.double())
    k = min(k, len(fitted))
    blocks = [
        torch.cdist(some, fitted).kthvalue(k, dim=1).values
        for some in torch.split(x, max(1, AT_ONCE // len(fitted)))
    ]
    return torch.cat(blocks)


@final
@dataclass(frozen=True)
class Profiles:
    """Class activation profiles: Q_c as `profile_CS`, which is 0 outside the core of class c.

    `known_C` says which classes had inputs with a code that is not zero.
    """

    profile_CS: Float64[Tensor, "c s"]
    core_CS: Bool[Tensor, "c s"]
    known_C: Bool[Tensor, " c"]

    @classmethod
    def fitted(cls, means: ClassMeans, core: float = CORE) -> "Profiles":
        """From the mean codes of classes, which must not be negative."""
        mean_CS = means.mean_CD
        count = max(1, round(core * mean_CS.shape[1]))
        places = mean_CS.topk(count, dim=1).indices
        core_CS = torch.zeros_like(mean_CS, dtype=torch.bool).scatter_(1, places, value=True)
        core_CS &= mean_CS > 0
        return cls(_distribution(mean_CS, core_CS), core_CS, core_CS.any(dim=1))

    def score(
        self, z_NS: Float[Tensor, "n s"], class_N: Int64[Tensor, " n"]
    ) -> Float64[Tensor, " n"]:
        """KL(P || Q_c) in nats, c = class_N; infinite for a class without a profile.

        Entries are raised by FLOOR / (size of the core) before they are scaled, so a code that is
        zero on the core becomes the uniform distribution.
        """
        core_NS = self.core_CS[class_N]
        p_NS, q_NS = _distribution(z_NS.double(), core_NS), self.profile_CS[class_N]
        ratio = torch.where(core_NS, p_NS / q_NS.clamp_min(1e-300), 1.0)
        kl_N = (p_NS * ratio.log()).sum(dim=1)
        return torch.where(self.known_C[class_N], kl_N, torch.inf)


def _distribution(
    z_NS: Float[Tensor, "n s"], core_NS: Bool[Tensor, "n s"]
) -> Float64[Tensor, "n s"]:
    """Codes on their cores, scaled to sum 1 and raised by the floor; 0 elsewhere."""
    kept = torch.where(core_NS, z_NS.double(), 0.0)
    total = kept.sum(dim=1, keepdim=True)
    size = core_NS.sum(dim=1, keepdim=True).clamp_min(1)
    raised = torch.where(core_NS, kept / total.clamp_min(1e-300) + FLOOR / size, 0.0)
    return raised / raised.sum(dim=1, keepdim=True).clamp_min(1e-300)


def auroc(inside_N: Float64[np.ndarray, " n"], outside_M: Float64[np.ndarray, " m"]) -> float:
    """Probability that an outside input has a higher score than an inside one, ties as a half."""
    scores = np.concatenate([inside_N, outside_M])
    _, place, count = np.unique(scores, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2)[place]
    n, m = len(inside_N), len(outside_M)
    return float((rank[n:].sum() - m * (m + 1) / 2) / (n * m))


def auroc_error(area: float, inside: int, outside: int) -> float:
    """Standard error of an AUROC (Hanley and McNeil, 1982)."""
    both, twice = area / (2 - area), 2 * area**2 / (1 + area)
    spread = (outside - 1) * (both - area**2) + (inside - 1) * (twice - area**2)
    return float(np.sqrt(max(area * (1 - area) + spread, 0.0) / (inside * outside)))


def false_positives(
    inside_N: Float64[np.ndarray, " n"],
    outside_M: Float64[np.ndarray, " m"],
    accepted: float = 0.95,
) -> float:
    """FPR95: the fraction of outside inputs accepted at the lowest threshold that accepts 95 % of
    the inside ones. An input is accepted if its score is at most the threshold."""
    ordered = np.sort(inside_N)
    threshold = ordered[int(np.ceil(accepted * len(ordered))) - 1]
    return float((outside_M <= threshold).mean())


def operating_curve(
    inside_N: Float64[np.ndarray, " n"], outside_M: Float64[np.ndarray, " m"]
) -> tuple[Float64[np.ndarray, " t"], Float64[np.ndarray, " t"]]:
    """Fractions of inside and of outside inputs that are rejected, as the threshold falls."""
    at = np.unique(np.concatenate([inside_N, outside_M]))[::-1]
    inside, outside = np.sort(inside_N), np.sort(outside_M)
    wrong = 1 - np.searchsorted(inside, at, side="left") / len(inside)
    right = 1 - np.searchsorted(outside, at, side="left") / len(outside)
    return np.r_[0.0, wrong], np.r_[0.0, right]
