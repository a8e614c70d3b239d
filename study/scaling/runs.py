"""What the dictionaries of runs look like: frequencies, decoder rows, latents a manifold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
from jaxtyping import Float

from tendril.data.store.truth import FEATURES, Truth, open_truth
from tendril.models.dictionaries.checkpoint import (
    LATENTS,
    load_frequency,
    load_sae,
    read_config,
    read_figures,
)

from ..core.stores import stored_run
from ..measures.allocation import Allocation, Kind, LossCurve, Measured, PowerLaw, allocate
from ..measures.decoder_geometry import (
    FiringSlope,
    Neighbours,
    firing_slope,
    neighbours,
    random_like,
)
from ..measures.manifold_counts import Counts, count_latents
from .circle import Circle, circle_of
from .config import ScalingConfig
from .toy_loss import Toy, toy_of


@final
@dataclass(frozen=True)
class Shape:
    """The manifolds of a synthetic store: their shape, dimension, number and 1 + alpha, which is 0
    where frequencies follow no power law."""

    name: str
    dimension: int
    features: int
    exponent: float


@final
@dataclass(frozen=True)
class Dictionary:
    """A run and what was measured of it.

    frequency_S: how often each latent fires on held-out rows; NaN where this is unknown, as for an
                 imported dictionary
    near, like:  neighbours of its decoder rows that fire, and of random directions with the same
                 second moments
    counts:      latents of each manifold, where manifolds are known
    toy, circle: loss and picture of a run on one manifold
    """

    run: str
    objective: str
    site: str
    subject: str
    latents: int
    seed: int
    fvu: float
    frequency_S: Float[np.ndarray, " s"]
    slope: FiringSlope | None
    near: Neighbours | None
    like: Neighbours | None
    shape: Shape | None
    counts: Counts | None
    toy: Toy | None = None
    circle: Circle | None = None

    @property
    def alive(self) -> int:
        """Latents that fire on held-out rows; all where this is unknown."""
        return int((~(self.frequency_S <= 0)).sum())

    def record(self) -> dict[str, Any]:
        """One record for result.json and dictionaries.csv."""
        slope, near, like = self.slope, self.near, self.like
        return {
            "run": self.run,
            "objective": self.objective,
            "subject": self.subject,
            "site": self.site,
            "latents": self.latents,
            "alive": self.alive,
            "seed": self.seed,
            "fvu": round(self.fvu, 5),
            "slope": round(slope.slope, 3) if slope else "",
            "slope_error": round(slope.error, 3) if slope else "",
            "first_rank": slope.first if slope else "",
            "last_rank": slope.last if slope else "",
            "nearest_cosine": near.quantiles()["0.5"] if near else "",
            "nearest_cosine_random": like.quantiles()["0.5"] if like else "",
            "dimension": _finite(near),
            "dimension_random": _finite(like),
            "manifolds": self.shape.features if self.shape else "",
            "shape": f"{self.shape.name} {self.shape.dimension}" if self.shape else "",
            "manifolds_found": self.counts.found if self.counts else "",
            "latents_of_none": self.counts.none if self.counts else "",
        }


def _finite(one: Neighbours | None) -> float | str:
    return round(one.dimension, 2) if one and np.isfinite(one.dimension) else ""


def read_dictionary(config: ScalingConfig, folder: Path) -> Dictionary:
    """Measure a run. Raises ConfigError for a dictionary that is no SAE."""
    sae, trained = load_sae(folder), read_config(folder)
    rows_SD = sae.W_dec.detach().float().cpu().numpy()
    frequency_S = np.full(len(rows_SD), np.nan)
    if (folder / LATENTS).is_file():
        frequency_S = load_frequency(folder).double().numpy()
    alive_SD = rows_SD[~(frequency_S <= 0)]
    truth = truth_of(folder, trained, config.home)
    shape = shape_of(truth)
    counts, toy, circle = None, None, None
    if truth is not None and shape is not None:
        counts = count_latents(alive_SD, truth.directions_FdD)
        if shape.features == 1:
            toy, circle = toy_of(sae, trained, truth), circle_of(sae, truth)
    return Dictionary(
        run=folder.name,
        objective=str(trained.get("objective", "")),
        site=str(trained.get("site", "")),
        subject=str((trained.get("subject") or {}).get("name", "")),
        latents=len(rows_SD),
        seed=int(trained.get("seed", 0)),
        fvu=float(read_figures(folder).get("fvu", np.nan)),
        frequency_S=frequency_S,
        slope=firing_slope(frequency_S, config.first_rank, config.last_rank),
        near=neighbours(alive_SD),
        like=neighbours(random_like(alive_SD)) if len(alive_SD) > 2 else None,
        shape=shape,
        counts=counts,
        toy=toy,
        circle=circle,
    )


def truth_of(folder: Path, trained: Mapping[str, Any], home: str) -> Truth | None:
    """The truth of a run's store; None for activations of a network, or where it is gone."""
    store = stored_run(folder, trained, "", home)
    return open_truth(store) if store and FEATURES in store.sites else None


def shape_of(truth: Truth | None) -> Shape | None:
    """The manifolds of a truth; None without one."""
    if truth is None:
        return None
    about = truth.store.spec["subject"]
    d = int(about.get("dimension", 1))
    name = str(about.get("shape", "direction"))
    features, exponent, active = int(about["features"]), float(about["exponent"]), about["active"]
    first = active / float((np.arange(1, features + 1) ** -exponent).sum())
    if active == 0 or first > about["most"] * (1 + 1e-9):  # stretched, or cut off at the top
        exponent = 0.0
    return Shape(name, d, features, exponent)


def measured_curve(
    found: Sequence[Dictionary], shape: Shape, objective: str, setting: str = ""
) -> Measured | None:
    """L(n) of one manifold from runs on it of the same objective (and `Toy.setting`), as
    the mean loss of runs with n latents that fire; None without such runs. L(0) = 1."""
    losses: dict[int, list[float]] = {}
    for one in found:
        alike = one.shape and (one.shape.name, one.shape.dimension) == (shape.name, shape.dimension)
        if not alike or one.toy is None or one.objective != objective:
            continue
        if np.isfinite(one.toy.loss) and setting in ("", one.toy.setting):
            losses.setdefault(one.alive, []).append(one.toy.loss)
    if not losses:
        return None
    numbers = sorted(losses)
    return Measured([0, *numbers], [1.0, *(float(np.mean(losses[n])) for n in numbers)])


def predicted(
    config: ScalingConfig, one: Dictionary, found: Sequence[Dictionary]
) -> list[tuple[str, Allocation]]:
    """What the model says of a run on many manifolds: by the measured loss of one such manifold
    if there are runs on it, else by each beta."""
    shape = one.shape
    if shape is None or shape.features == 1 or shape.exponent <= 1 or not one.alive:
        return []
    measured = measured_curve(found, shape, one.objective)
    curves: list[tuple[str, LossCurve]] = [("measured L(n)", measured)] if measured else []
    curves = curves or [(f"beta {beta:g}", PowerLaw(beta, config.shifted)) for beta in config.beta]
    return [
        (name, allocate(one.alive, shape.exponent - 1, [Kind(curve)], shape.features))
        for name, curve in curves
    ]
