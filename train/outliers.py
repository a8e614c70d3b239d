"""Norm outliers of a store: what they hold of its variance, and its figures without them.

The moments of a store are those of all valid rows. A run that drops or caps norm outliers needs
figures of the rows as it reads them. Norms, which are stored for each row, suffice for these.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from tendril.data.cli import note
from tendril.data.store.moments import QUANTILES
from tendril.data.store.reader import Store

Rule = Literal["keep", "drop", "cap"]
IsOutlier = Callable[[Float[Tensor, "n d"]], Bool[Tensor, " n"]]
MOST_VARIANCE = 0.5
"""Fraction of the variance beyond which few rows or few channels are named."""
FEW = 0.01
"""Fraction of the channels that counts as few."""
FEW_FROM = 64
"""Channels from which 1 % of them is worth naming."""


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
            norms = torch.linalg.vector_norm(part, dim=(1, 2), dtype=torch.float64)
            outlying |= norms > limit * share
        return outlying

    return test


def variance_of_outliers(store: Store, site: str, times: float) -> tuple[int, float]:
    """The number of norm outliers, and the least fraction of the variance that they hold.

    A row contributes ||x - mean||^2 >= (||x|| - ||mean||)^2, and the right-hand side needs no row.
    """
    moments = store.moments(site)
    norms = store.norms(site)[store.norm_outliers(site, times)].astype(np.float64)
    beyond = np.maximum(norms - np.linalg.norm(moments.mean), 0)
    total = float(moments.m2.sum())
    return len(norms), float(np.square(beyond).sum()) / total if total > 0 else 0.0


def warn_of_outliers(parts: Mapping[str, tuple[Store, str]], rule: Rule, times: float) -> None:
    """Note it if few rows, or few channels, hold most of the variance of a site."""
    for store, site in parts.values():
        if has_outliers(store, (site,), times):
            count, fraction = variance_of_outliers(store, site, times)
            if fraction > MOST_VARIANCE and rule == "keep":
                valid = store.moments(site).count
                note(
                    f"warning: {count:,} of {valid:,} rows of {site} in {store.name} "
                    f"({count / valid:.2%}) are norm outliers, above {times:g} times the median "
                    f"norm, and hold at least {fraction:.0%} of the variance. They set the scale "
                    "and the FVU of this dictionary. Pass --norm-outliers drop (or cap)."
                )
            if fraction > MOST_VARIANCE:
                continue  # the variance of channels is that of these rows
        variance = np.sort(store.moments(site).variance)[::-1]
        few = math.ceil(FEW * len(variance))
        fraction = float(variance[:few].sum() / max(variance.sum(), np.finfo(float).tiny))
        if len(variance) >= FEW_FROM and fraction > MOST_VARIANCE:
            note(
                f"warning: {few} of {len(variance):,} channels of {site} in {store.name} hold "
                f"{fraction:.0%} of the variance, so the FVU says little about the others. Look "
                f"at the channels with `tendril data stats {store.name}`."
            )
