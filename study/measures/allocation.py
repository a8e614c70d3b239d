"""How latents are shared out among features when each is a manifold: the allocation model.

Feature i occurs with probability p_i and costs L(n_i) when n_i latents serve it. The model is

    minimise  sum_i p_i L(n_i)   subject to  sum_i n_i = N,  n_i integers,  p_i ~ i^-(1 + alpha).

L falls and is convex, so giving each latent in turn to the feature that gains most is optimal:
feature i has its k-th latent if p_i gain(k) is at least some lambda, with gain(k) = L(k-1) - L(k).
Features are held as blocks of equal n_i, so N and the number of features can be 1e9 and more.

Source: Michaud, Gorton and McGrath, "Understanding sparse autoencoder scaling in the presence of
feature manifolds", 2025 (arXiv 2509.02565), after Brill 2024 (arXiv 2412.07942).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float, Int64
from scipy.special import zeta

STEPS = 200
"""Bisections of lambda; doubles hold no more."""
MOST = 1 << 62


class LossCurve(ABC):
    """The loss L(n) of a feature that n latents serve: falling and convex, with a limit."""

    @abstractmethod
    def loss(self, n_K: Float[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
        """L(n)."""

    @abstractmethod
    def gain(self, k_K: Float[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
        """L(k - 1) - L(k), for k from 1 on; it never rises with k."""


@final
@dataclass(frozen=True)
class PowerLaw(LossCurve):
    """A manifold: L(n) = n^-beta for n >= 1 with L(0) = 2, so that the first latent gains 1; or,
    `shifted`, L(n) = (n + 1)^-beta, so that L(0) = 1."""

    beta: float
    shifted: bool = False

    def loss(self, n_K: Float[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
        if self.shifted:
            return np.asarray((n_K + 1.0) ** -self.beta)
        return np.where(n_K >= 1, np.maximum(n_K, 1.0) ** -self.beta, 2.0)

    def gain(self, k_K: Float[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
        # n^-b - (n + 1)^-b without cancellation
        n_K = k_K if self.shifted else np.maximum(k_K - 1.0, 1.0)
        falls_K = n_K**-self.beta * -np.expm1(-self.beta * np.log1p(1.0 / n_K))
        return falls_K if self.shifted else np.where(k_K <= 1, 1.0, falls_K)


@final
@dataclass(frozen=True)
class Saturating(LossCurve):
    """A feature that `capacity` latents represent as well as ever: L falls evenly from 1 to `floor`
    and stays. A discrete feature has capacity 1."""

    capacity: int = 1
    floor: float = 0.0

    def loss(self, n_K: Float[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
        return 1.0 - (1.0 - self.floor) * np.minimum(n_K / self.capacity, 1.0)

    def gain(self, k_K: Float[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
        return np.where(k_K <= self.capacity, (1.0 - self.floor) / self.capacity, 0.0)


@final
class Measured(LossCurve):
    """A measured curve: the lower convex hull of points (n, L) at whole n, straight between them,
    constant after the last. Raises ValueError unless the first point is n = 0."""

    def __init__(self, n: Sequence[int], loss: Sequence[float]) -> None:
        points = sorted(zip(map(float, n), map(float, loss), strict=True))
        if not points or points[0][0] != 0:
            raise ValueError("the first point of a measured curve must be n = 0")
        hull: list[tuple[float, float]] = []
        low = math.inf
        for at, value in points:
            low = min(low, value)  # more latents can be left unused
            while len(hull) > 1 and _above(hull[-2], hull[-1], (at, low)):
                hull.pop()
            hull.append((at, low))
        self._n, self._loss = (np.array(values) for values in zip(*hull, strict=True))

    def loss(self, n_K: Float[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
        return np.asarray(np.interp(n_K, self._n, self._loss))

    def gain(self, k_K: Float[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
        slopes = np.append(-np.diff(self._loss) / np.diff(self._n), 0.0)
        return np.asarray(slopes[np.searchsorted(self._n[1:], k_K - 0.5)])


def _above(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> bool:
    """True if b lies on or above the line from a to c."""
    return (b[1] - a[1]) * (c[0] - a[0]) >= (c[1] - a[1]) * (b[0] - a[0])


@final
@dataclass(frozen=True)
class Kind:
    """A fraction of the features, spread evenly over the ranks, with one loss curve.

    The r-th feature of the kind has rank (r - h) / f, with h = (1 - f) / 2 and f the fraction.
    """

    curve: LossCurve
    fraction: float = 1.0

    @property
    def shift(self) -> float:
        """h."""
        return 0.5 * (1.0 - self.fraction)


@final
@dataclass(frozen=True)
class Block:
    """Features `first` to `last` of a kind, numbered from 1 by falling frequency, have `latents`
    latents each."""

    kind: int
    first: int
    last: int
    latents: int


@final
@dataclass(frozen=True)
class Allocation:
    """The best allocation of N latents.

    blocks:   features with at least one latent, by kind and falling frequency
    features: D, the number of features with at least one latent
    loss:     sum_i p_i L(n_i) over all features
    unused:   latents that lower no loss, where there are fewer features than they could serve
    """

    latents: int
    blocks: tuple[Block, ...]
    features: int
    loss: float
    unused: int

    @property
    def efficiency(self) -> float:
        """D / N, the fraction of latents that are the first of their feature."""
        return self.features / self.latents


def allocate(
    latents: int, alpha: float, kinds: Sequence[Kind], features: int | None = None
) -> Allocation:
    """The best allocation of `latents` latents among `features` features (None: infinitely many).

    p_i = C i^-(1 + alpha), with C such that they sum to 1. Exact up to the rounding of gains to
    doubles. The fractions of the kinds must sum to 1, alpha must be above 0. Takes seconds for
    1e9 latents, since features of equal n_i are one block. Raises ValueError where there is no
    feature.
    """
    ranks = [_Ranks(one, alpha, features) for one in kinds]
    total = sum(one.weight(1, one.count) for one in ranks)
    if total == 0:
        raise ValueError(f"there must be features of some kind; got {features} in all")
    scale = 1.0 / total
    high = scale * max(float(one.gain(1)) * one.power(1) for one in ranks) * 2
    low = high
    while sum(one.number(low / scale, latents) for one in ranks) < latents and low > 1e-290:
        low /= 16
    for _ in range(STEPS):
        middle = math.sqrt(low * high)
        if not low < middle < high:
            break
        if sum(one.number(middle / scale, latents) for one in ranks) > latents:
            low = middle
        else:
            high = middle
    left = latents
    shares = [one.share(high / scale, low / scale, latents) for one in ranks]
    left -= sum(share.number for share in shares)
    for share in shares:
        left -= share.add(left)
    blocks, loss = [], 0.0
    for index, (one, share) in enumerate(zip(ranks, shares, strict=True)):
        found = share.blocks(index)
        blocks += found
        sizes = np.array([block.latents for block in found], np.float64)
        weights = np.array([one.weight(block.first, block.last) for block in found])
        loss += float((one.curve.loss(sizes) * weights).sum())
        served = found[-1].last if found else 0
        loss += float(one.curve.loss(np.zeros(1))[0]) * one.weight(served + 1, one.count)
    served = sum(block.last - block.first + 1 for block in blocks)
    return Allocation(latents, tuple(blocks), served, scale * loss, left)


@final
class _Share:
    """How many latents each feature of a kind has: `counts_K[k]` features have more than k, for k
    below K; the first `extra_I` have that many besides K. `_more` says what the next lower lambda
    would add."""

    def __init__(
        self,
        counts_K: Int64[np.ndarray, " k"],
        extra_I: Int64[np.ndarray, " i"],
        more_K: Int64[np.ndarray, " k"],
        more_I: Int64[np.ndarray, " i"],
    ) -> None:
        self._counts_K, self._extra_I = counts_K, extra_I
        self._more = (more_K, more_I)

    @property
    def number(self) -> int:
        """All latents of the kind."""
        return int(self._counts_K.sum()) + int(self._extra_I.sum())

    def add(self, latents: int) -> int:
        """Add up to `latents` of those that the next lower lambda would add; how many were."""
        left = latents
        for held, more in zip((self._counts_K, self._extra_I), self._more, strict=True):
            for at in np.flatnonzero(more > held):
                added = min(left, int(more[at] - held[at]))
                held[at] += added
                left -= added
        return latents - left

    def blocks(self, kind: int) -> list[Block]:
        """Features of equal numbers together."""
        size = len(self._counts_K)
        found = [
            (i + 1, i + 1, size + int(extra)) for i, extra in enumerate(self._extra_I) if extra
        ]
        ends = np.append(self._counts_K[1:], len(found))
        for k in range(size - 1, -1, -1):
            if self._counts_K[k] > ends[k]:
                found.append((int(ends[k]) + 1, int(self._counts_K[k]), k + 1))
        return [Block(kind, *one) for one in found]


@final
class _Ranks:
    """The features of one kind: their frequencies, without the factor C, and gains."""

    def __init__(self, kind: Kind, alpha: float, features: int | None) -> None:
        self.curve, self._shift, self._fraction = kind.curve, kind.shift, kind.fraction
        self._power = 1.0 + alpha
        self.count = (
            MOST if features is None else math.floor(kind.shift + kind.fraction * features + 1e-9)
        )
        self._infinite = features is None

    def gain(self, k: int) -> float:
        """gain(k) of one number."""
        return float(self.curve.gain(np.array([float(k)]))[0])

    def power(self, number: int) -> float:
        """p of a feature, over C."""
        return float(((number - self._shift) / self._fraction) ** -self._power)

    def weight(self, first: int, last: int) -> float:
        """The sum of `power` over features `first` to `last`."""
        if last < first:
            return 0.0
        if first == last:
            return self.power(first)
        start = float(zeta(self._power, first - self._shift))
        end = 0.0 if self._infinite and last >= MOST else zeta(self._power, last + 1 - self._shift)
        return float(self._fraction**self._power * (start - end))

    def number(self, level: float, latents: int) -> int:
        """Latents whose gain is at least `level`; a feature counts for `latents` + K at most."""
        counts_K, extra_I = self._counts(level, latents)
        return int(min(counts_K.sum(dtype=np.float64), 4e18)) + int(extra_I.sum())

    def share(self, high: float, low: float, latents: int) -> _Share:
        """The share at the level `high`, and what `low` would add."""
        more_K, more_I = self._counts(low, latents)
        size = len(more_K)
        counts_K = self._served(np.arange(1, size + 1), high)
        extra_I = self._each(len(more_I), size, high, latents) - size
        return _Share(counts_K, np.maximum(extra_I, 0), more_K, more_I)

    def _counts(
        self, level: float, latents: int
    ) -> tuple[Int64[np.ndarray, " k"], Int64[np.ndarray, " i"]]:
        """For k = 1 .. K the features with at least k latents, where K is about as large as the
        number of features with more; and for each of those the latents beyond K."""
        low, high = 0, 1 << 61
        while high - low > 1:  # the least k that at most k features reach, 64 places at a time
            ratio = (high / max(low, 1)) ** (np.arange(1, 65) / 65)
            places = np.unique(np.clip((max(low, 1) * ratio).astype(np.int64), low + 1, high - 1))
            few = self._served(places, level) <= places
            first = int(few.argmax()) if few.any() else len(places)
            low = int(places[first - 1]) if first else low
            high = int(places[first]) if first < len(places) else high
        counts_K = self._served(np.arange(1, high + 1), level)
        more = int(self._served(np.array([high + 1]), level)[0])
        return counts_K, self._each(more, high, level, latents) - high

    def _served(self, k_K: Int64[np.ndarray, " k"], level: float) -> Int64[np.ndarray, " k"]:
        """The number of features whose k-th latent gains at least `level`."""
        gains_K = self.curve.gain(k_K.astype(np.float64))
        ranks_K = (gains_K / level) ** (1.0 / self._power)
        numbers_K = np.floor(self._shift + self._fraction * ranks_K)
        served_K = np.minimum(numbers_K, float(min(self.count, MOST >> 2)))
        return np.where(gains_K > 0, served_K, 0.0).astype(np.int64)

    def _each(
        self, features: int, least: int, level: float, latents: int
    ) -> Int64[np.ndarray, " i"]:
        """The latents of each of the first features, at least `least`, by bisection."""
        numbers_I = np.arange(1, features + 1)
        low_I = np.full(features, least, np.int64)
        high_I = np.full(features, latents + least + 1, np.int64)
        while (high_I - low_I > 1).any():
            middle_I = (low_I + high_I) // 2
            enough_I = self._served(middle_I, level) >= numbers_I
            low_I = np.where(enough_I, middle_I, low_I)
            high_I = np.where(enough_I, high_I, middle_I)
        return low_I


@final
@dataclass(frozen=True)
class Slope:
    """A least-squares line through log y against log x: its slope, the standard error of the slope
    (None for two points), and the root mean square of the residuals."""

    slope: float
    error: float | None
    residual: float


def log_slope(x_M: Float[np.ndarray, " m"], y_M: Float[np.ndarray, " m"]) -> Slope:
    """The exponent of y ~ x^slope. Raises ValueError for fewer than two positive points."""
    kept = (x_M > 0) & (y_M > 0)
    x_M, y_M = np.log(x_M[kept]), np.log(y_M[kept])
    if len(np.unique(x_M)) < 2:
        raise ValueError("a slope needs two positive points")
    apart_M = x_M - x_M.mean()
    slope = float((apart_M * y_M).sum() / (apart_M**2).sum())
    left_M = y_M - y_M.mean() - slope * apart_M
    squares = float((left_M**2).sum())
    error = (
        math.sqrt(squares / (len(x_M) - 2) / float((apart_M**2).sum())) if len(x_M) > 2 else None
    )
    return Slope(slope, error, math.sqrt(squares / len(x_M)))
