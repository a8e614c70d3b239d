"""k-sparse probing: how well a few columns of a matrix tell a label.

The columns are latents, units or components; the rows are examples. For a label the best k columns
are those with the largest difference of means between its two values, divided by the standard
deviation, on the training part. A logistic regression on them is judged on the other part:

    AUC        probability that an example with the label scores higher than one without; 0.5 is
               chance
    accuracy   the mean of the accuracies on examples with and without the label; 0.5 is chance

No input (an image, a document) has examples in both parts.

Source: Gurnee et al. (2305.01610); SAEBench (2503.09532), which chooses by the difference of means.
It is divided here because columns differ in scale.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64, Shaped
from scipy.sparse import csc_matrix
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from tendril.data import order

SPLIT, SHUFFLE, RESAMPLE = 0x9B0, 0x9B1, 0x9B2  # what random numbers are for
FEWEST = 5  # examples with and without a label in each part
STRENGTHS = (1e-3, 1e-1, 10.0)  # inverse penalties of a probe of all columns
RESAMPLES = 2000
LEVEL = 0.95


@final
@dataclass(frozen=True)
class Columns:
    """A matrix [examples, columns], dense or sparse."""

    values: Float[np.ndarray, "n s"] | csc_matrix

    @property
    def count(self) -> int:
        """The number of columns."""
        return int(self.values.shape[1])

    def sums(self, weight_N: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " s"]:
        """sum_n w_n x_ns."""
        return np.asarray(self.values.T @ weight_N, np.float64)

    def squares(self, weight_N: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " s"]:
        """sum_n w_n x_ns^2."""
        if isinstance(self.values, np.ndarray):
            return np.asarray(np.square(self.values, dtype=np.float64).T @ weight_N)
        return np.asarray(self.values.power(2).T @ weight_N, np.float64)

    def take(self, columns: Int64[np.ndarray, " k"]) -> Float64[np.ndarray, "n k"]:
        """Some columns."""
        some = self.values[:, columns]
        dense = some if isinstance(some, np.ndarray) else some.toarray()
        return np.asarray(dense, np.float64)


@final
@dataclass(frozen=True)
class Split:
    """Which examples are trained on; the others are judged."""

    train_N: Bool[np.ndarray, " n"]

    def usable(self, label_N: Bool[np.ndarray, " n"]) -> bool:
        """True if both parts hold enough examples with and without a label."""
        parts = (label_N[self.train_N], label_N[~self.train_N])
        return all(min(int(p.sum()), int((~p).sum())) >= FEWEST for p in parts)


def split_by_input(input_N: Shaped[np.ndarray, " n"], judged: float, seed: int) -> Split:
    """Put a random fraction of the inputs, with all their examples, into the judged part."""
    inputs, number_N = np.unique(input_N, return_inverse=True)
    drawn = order.permutation(len(inputs), seed, SPLIT)
    aside_I = np.zeros(len(inputs), bool)
    aside_I[drawn[: max(1, round(judged * len(inputs)))]] = True
    return Split(~aside_I[number_N])


def shuffled(label_N: Bool[np.ndarray, " n"], seed: int) -> Bool[np.ndarray, " n"]:
    """The labels in a random order, which columns cannot tell."""
    return np.asarray(label_N[order.permutation(len(label_N), seed, SHUFFLE)], bool)


def ranked(
    columns: Columns, label_N: Bool[np.ndarray, " n"], split: Split, most: int
) -> Int64[np.ndarray, " k"]:
    """The columns that tell a label best on the training part, best first; at most `most`.

    Ranked by |mean with - mean without| / standard deviation; a constant column comes last.
    """
    train_N = split.train_N.astype(np.float64)
    with_N = (split.train_N & label_N).astype(np.float64)
    count, positive = train_N.sum(), with_N.sum()
    sum_S, with_S, square_S = columns.sums(train_N), columns.sums(with_N), columns.squares(train_N)
    apart_S = np.abs(with_S / positive - (sum_S - with_S) / (count - positive))
    variance_S = square_S / count - (sum_S / count) ** 2
    there_S = variance_S > 1e-9 * np.maximum(square_S / count, 1e-300)
    score_S = np.where(there_S, apart_S / np.sqrt(np.where(there_S, variance_S, 1)), -1)
    return np.argsort(-score_S, kind="stable")[:most].astype(np.int64)


@final
@dataclass(frozen=True)
class Judged:
    """How well a probe tells a label on examples that it was not trained on."""

    auc: float
    accuracy: float


def probed(
    columns: Columns, label_N: Bool[np.ndarray, " n"], split: Split, ks: Sequence[int]
) -> dict[int, Judged]:
    """Probes of the best k columns for each k, which is a key of the result. A k above the number
    of columns is left out."""
    best = ranked(columns, label_N, split, max(ks))
    x_NK = columns.take(best)
    return {k: _judged(x_NK[:, :k], label_N, split) for k in ks if k <= columns.count}


def probed_whole(columns: Columns, label_N: Bool[np.ndarray, " n"], split: Split) -> Judged:
    """A probe of all columns. Its penalty is the best of STRENGTHS on the last quarter of the
    training part."""
    x_ND = columns.take(np.arange(columns.count))
    inner = split.train_N.nonzero()[0]
    checked = inner[np.arange(len(inner)) % 4 == 3]
    part_N = split.train_N.copy()
    part_N[checked] = False
    with_N = label_N[checked]
    strength = STRENGTHS[1]
    if 0 < with_N.sum() < len(with_N) and 0 < label_N[part_N].sum() < part_N.sum():
        scores = [_score(x_ND, label_N, part_N, c)[checked] for c in STRENGTHS]
        aucs = [roc_auc_score(with_N, score) for score in scores]
        strength = STRENGTHS[int(np.argmax(aucs))]
    return _judged(x_ND, label_N, split, strength)


def _judged(x_NK: np.ndarray, label_N: np.ndarray, split: Split, strength: float = 1.0) -> Judged:
    score_N = _score(x_NK, label_N, split.train_N, strength)
    with_M, score_M = label_N[~split.train_N], score_N[~split.train_N]
    return Judged(
        float(roc_auc_score(with_M, score_M)), float(balanced_accuracy_score(with_M, score_M > 0))
    )


def _score(
    x_NK: np.ndarray, label_N: np.ndarray, train_N: np.ndarray, strength: float
) -> Float64[np.ndarray, " n"]:
    """The log odds of each example, by a logistic regression on standardised columns in which
    both values of the label weigh the same."""
    mean_K, std_K = x_NK[train_N].mean(axis=0), x_NK[train_N].std(axis=0)
    z_NK = (x_NK - mean_K) / np.where(std_K > 0, std_K, 1)
    model = LogisticRegression(C=strength, class_weight="balanced", max_iter=300)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a few more steps change little
        model.fit(z_NK[train_N], label_N[train_N])
    return np.asarray(model.decision_function(z_NK), np.float64)


def interval(value_M: Float64[np.ndarray, " m"], seed: int = 0) -> tuple[float, float]:
    """The 95 % bootstrap interval (percentiles) of the mean of values; NaN for fewer than two."""
    if len(value_M) < 2:
        return float("nan"), float("nan")
    drawn = order.uniform(RESAMPLES * len(value_M), seed, RESAMPLE).reshape(RESAMPLES, -1)
    means = value_M[(drawn * len(value_M)).astype(np.int64)].mean(axis=1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
