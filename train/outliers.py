"""Norm outliers, outlier channels and large means of a store, and its figures without them.

The moments of a store are those of all valid rows. A run that drops or caps norm outliers needs
figures of the rows as it reads them. Norms, which are stored for each row, suffice for most.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, final

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Shaped
from torch import Tensor

from tendril.data.cli import note
from tendril.data.device import float64
from tendril.data.store.moments import QUANTILES, Moments
from tendril.data.store.reader import Store

Rule = Literal["keep", "drop", "cap"]
IsOutlier = Callable[[Float[Tensor, "n d"]], Bool[Tensor, " n"]]
MOST_VARIANCE = 0.1
"""Fraction of the variance beyond which norm outliers or few outlier channels are named."""
OUTLIER_DEVIATIONS = 4.0
"""An outlier channel deviates by more than this multiple of the median channel."""
FEW = 1 / 8
"""Fraction of the channels up to which outlier channels are few (one is always few)."""
LARGE_MEAN = 3.0
"""||mean||^2 is large above this multiple of the variance. Of the sites of the networks that were
measured it is 0.05 to 0.6 of it."""
FAR = 5.0
"""The mean of a channel is far from zero above this multiple of its deviation (measured: 3)."""
FAR_SQUARES = 0.05
"""Fraction of the variance that the squared means of channels far from zero may reach."""
MOST_ROUNDING = 0.01
"""Fraction of the variance that the dtype of a store may lose without a warning."""
MANTISSA = {"float32": 23, "float16": 10, "bfloat16": 7}
INT8_STEPS = 127


@final
@dataclass(frozen=True)
class Channels:
    """Mean and variance of each channel of a site; of orbits, over all elements together."""

    mean_C: Float64[np.ndarray, " c"]
    variance_C: Float64[np.ndarray, " c"]

    @property
    def severity(self) -> float:
        """||mean|| / ||std||, the outlier severity; zero if the vectors do not vary."""
        variance = float(self.variance_C.sum())
        return math.sqrt(float(np.square(self.mean_C).sum()) / variance) if variance > 0 else 0.0

    @property
    def off_centre(self) -> bool:
        """True if the mean is so large, in all channels together or in a few, that vectors scaled
        to E||x||^2 = D would have little variance left."""
        squares_C, variance = np.square(self.mean_C), float(self.variance_C.sum())
        far_C = squares_C > FAR**2 * self.variance_C
        return variance > 0 and bool(
            squares_C.sum() > LARGE_MEAN * variance
            or squares_C[far_C].sum() > FAR_SQUARES * variance
        )

    def outlying(self) -> tuple[Shaped[np.ndarray, " n"], float]:
        """The outlier channels, largest first, and the fraction of the variance that they hold."""
        variance_C = self.variance_C
        if not (variance_C > 0).any():
            return np.zeros(0, np.int64), 0.0
        median = np.median(variance_C[variance_C > 0])
        found = np.flatnonzero(variance_C > OUTLIER_DEVIATIONS**2 * median)
        found = found[np.argsort(-variance_C[found], kind="stable")]
        return found, float(variance_C[found].sum() / variance_C.sum())

    def lost(self, dtype: str) -> float:
        """The fraction of the variance that rounding to a dtype loses, at least: of all channels
        together, or of the median channel, whichever is larger.

        Rounding by steps of size h adds h^2 / 12. Of a float, h is that at the mean of the channel;
        of int8, max_c |x_c| / 127 of each row, and E max_c x_c^2 >= max_c E x_c^2.
        """
        varies_C = self.variance_C > 0
        if not varies_C.any():
            return 0.0
        if dtype == "int8":
            most = float((np.square(self.mean_C) + self.variance_C).max())
            step_C = np.full(len(self.mean_C), math.sqrt(most) / INT8_STEPS)
        else:
            exponent_C = np.frexp(self.mean_C)[1] - 1 - MANTISSA[dtype]
            step_C = np.where(self.mean_C == 0, 0.0, np.ldexp(1.0, exponent_C))
        error_C = np.minimum(step_C**2 / 12, np.square(self.mean_C) + self.variance_C)[varies_C]
        variance_C = self.variance_C[varies_C]
        return float(max(error_C.sum() / variance_C.sum(), np.median(error_C / variance_C)))


def channels_of(moments: Moments, width: int) -> Channels:
    """Mean and variance of each channel: of moments of orbits, [elements * width], over the
    elements together, so that a control that permutes them changes nothing."""
    mean_GC = moments.mean.reshape(-1, width)
    mean_C = mean_GC.mean(axis=0)
    variance_GC = moments.variance.reshape(-1, width) + np.square(mean_GC - mean_C)
    return Channels(mean_C, variance_GC.mean(axis=0))


def has_outliers(store: Store, sites: Sequence[str], times: float) -> bool:
    """True if any row has an outlying norm at any site. Reads quantiles instead of norms."""
    for site in sites:
        quantiles = store.norm_quantiles(site)
        if quantiles[-1] > times * np.interp(0.5, QUANTILES, quantiles):
            return True
    return False


def used_norms(
    store: Store, site: str, sites: Sequence[str], rule: Rule, times: float
) -> Float64[np.ndarray, " n"]:
    """The norms at `site` of all valid rows, as `Store.batches` of `sites` gives them.

    A row that is an outlier of any of the sites is dropped from all of them; it is capped at each
    site by itself.
    """
    used = store.column("valid").copy()
    norms = store.norms(site).astype(np.float64)
    if rule == "drop":
        for other in sites:
            used &= ~store.norm_outliers(other, times)
    elif rule == "cap":
        norms = np.fmin(norms, store.norm_limit(site, times))
    kept: Float64[np.ndarray, " n"] = norms[used]
    return kept


def outlier_test(
    limits: Sequence[float], widths: Sequence[int], elements: int, of_orbit: int
) -> IsOutlier:
    """A test for vectors with a norm outlier in any part.

    limits: the largest usual norm of each part, of a whole orbit if there are orbits.
    widths: the width of each part, of one element.
    elements: the elements in a vector; a vector with fewer than `of_orbit`, the elements of an
        orbit, is held against sqrt(elements / of_orbit) of the limit.
    """
    share = math.sqrt(elements / of_orbit)

    def test(x_ND: Float[Tensor, "n d"]) -> Bool[Tensor, " n"]:
        rows = x_ND.view(len(x_ND), elements, sum(widths))
        parts = torch.split(rows, list(widths), dim=2)
        outlying = torch.zeros(len(x_ND), dtype=torch.bool, device=x_ND.device)
        for part, limit in zip(parts, limits, strict=True):
            norms = torch.linalg.vector_norm(float64(part), dim=(1, 2))
            outlying |= (norms > limit * share).to(x_ND.device)
        return outlying

    return test


def variance_of_outliers(
    store: Store, site: str, times: float, capped: Channels | None = None
) -> tuple[int, float]:
    """The number of norm outliers, and the least fraction of the variance that they hold; if they
    are capped, of that of `capped`, the rows after capping.

    A row contributes ||x - mean||^2 >= (||x|| - ||mean||)^2, and the right-hand side needs no row.
    """
    moments = store.moments(site)
    norms = store.norms(site)[store.norm_outliers(site, times)].astype(np.float64)
    mean, total = float(np.linalg.norm(moments.mean)), float(moments.m2.sum())
    if capped is not None:
        elements = len(moments.mean) // len(capped.mean_C)
        norms = np.fmin(norms, store.norm_limit(site, times))
        mean = float(np.linalg.norm(capped.mean_C)) * math.sqrt(elements)
        total = float(capped.variance_C.sum()) * elements * moments.count
    beyond = np.maximum(norms - mean, 0)
    return len(norms), float(np.square(beyond).sum()) / total if total > 0 else 0.0


def outlier_warnings(
    parts: Mapping[str, tuple[Store, str]],
    channels: Mapping[str, Channels],
    rule: Rule,
    times: float,
) -> list[str]:
    """What makes the figures of a run say little: few rows or few channels that hold most of the
    variance, and a dtype too coarse for the mean. `channels` are those of the rows that the run
    reads."""
    warnings: list[str] = []
    for name, (store, site) in parts.items():
        where, found = f"{site} in {store.name}", channels[name]
        if rule != "drop" and has_outliers(store, (site,), times):
            capped = found if rule == "cap" else None
            count, fraction = variance_of_outliers(store, site, times, capped)
            if fraction > MOST_VARIANCE:
                valid = store.moments(site).count
                warnings.append(
                    f"{count:,} of {valid:,} rows of {where} ({count / valid:.2%}) are "
                    f"norm outliers, above {times:g} times the median norm, and hold at least "
                    f"{fraction:.0%} of the variance{' even when capped' if capped else ''}. They "
                    "set the scale and the FVU of this dictionary. Pass --norm-outliers "
                    f"drop{'' if capped else ' (or cap)'}."
                )
                continue  # the variance of channels is that of these rows
        warnings += _channel_warnings(found, where, store.name)
        lost = found.lost(str(store.spec["dtype"]))
        if lost > MOST_ROUNDING:
            warnings.append(
                f"rows of {where} are stored as {store.spec['dtype']}, which loses at "
                f"least {lost:.1%} of their variance, because values are large next to their "
                "variation. That fraction cannot be explained. Harvest with a finer --dtype."
            )
    return warnings


def note_of_centring(
    parts: Mapping[str, tuple[Store, str]], channels: Mapping[str, Channels]
) -> None:
    """Note which parts of the vectors are centred because their mean is large."""
    for name, (store, site) in parts.items():
        found = channels[name]
        if found.off_centre:
            note(
                f"||mean||^2 of {site} in {store.name} is {found.severity**2:,.3g} times the "
                "variance, so the mean is subtracted before training, and added to b_dec of "
                "the finished dictionary."
            )


def _channel_warnings(channels: Channels, where: str, store: str) -> list[str]:
    """A warning if few channels hold much of the variance."""
    outlying, fraction = channels.outlying()
    total = len(channels.variance_C)
    if 0 < len(outlying) <= max(1, FEW * total) < total and fraction > MOST_VARIANCE:
        named = ", ".join(map(str, outlying[:5])) + (", ..." if len(outlying) > 5 else "")
        return [
            f"{len(outlying)} of {total:,} channels of {where} (number {named}) hold "
            f"{fraction:.0%} of the variance, so the FVU says little about the others. Look at "
            f"the channels with `tendril data stats {store}`."
        ]
    return []
