"""What the dictionaries of runs look like: frequencies, decoder rows, latents a manifold."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
from jaxtyping import Float

from tendril.data.errors import ConfigError
from tendril.data.store.reader import BATCH_DEFAULTS
from tendril.data.store.truth import FEATURES, ROWS, Truth, open_truth
from tendril.models.dictionaries.checkpoint import (
    LATENTS,
    load_frequency,
    load_sae,
    read_config,
    read_figures,
)

from ..core.stores import stored_run
from ..core.trained import K_SPARSE, TrainedSparsity, series_name, setting_text, sparsity_of
from ..measures.decoder_geometry import (
    FiringSlope,
    Neighbours,
    firing_slope,
    neighbours,
    random_like,
)
from ..measures.manifold_counts import Counts, count_latents
from ..measures.manifold_losses import Losses, Penalty, manifold_losses
from .circle import Circle, circle_of
from .config import ScalingConfig

SYNTHETIC = ("features", "manifolds")
"""Kinds of rows that no network made."""


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
    sparsity:    how sparse it was trained to be, and `setting` how it was trained, in words
    losses:      its loss on held-out rows, where manifolds are known
    circle:      its picture, of a run on one circle
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
    store: str = ""
    series: str = ""
    """What it shares with runs of other sizes and seeds."""
    damaged: bool = False
    sparsity: TrainedSparsity | None = None
    setting: str = ""
    losses: Losses | None = None
    circle: Circle | None = None

    @property
    def loss(self) -> float:
        """Squared error and penalty over the squared norm of rows; FVU where this is unknown."""
        known = self.losses is not None and np.isfinite(self.losses.total)
        return self.losses.total if self.losses and known else self.fvu

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
            "loss": round(self.loss, 5) if self.losses else "",
            "setting": self.setting,
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
    counts = losses = circle = None
    if truth is not None and shape is not None:
        counts = count_latents(alive_SD, truth.directions_FdD)
        held_out = float(trained.get("held_out", BATCH_DEFAULTS["held_out"]))
        losses = manifold_losses(sae, truth, penalty_of(trained), held_out)
        circle = circle_of(sae, truth)
    return Dictionary(
        run=folder.name,
        store=str(trained.get("store", "")),
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
        sparsity=sparsity_of(trained),
        setting=setting_text(trained),
        losses=losses,
        circle=circle,
        series=series_name(trained),
        damaged=trained.get("control", "none") != "none",
    )


def penalty_of(trained: Mapping[str, Any]) -> Penalty:
    """What the objective of a run adds to the squared error of raw rows."""
    objective, sparsity = trained.get("objective"), sparsity_of(trained)
    if objective in K_SPARSE:
        return Penalty()
    if sparsity and np.isfinite(sparsity.raw):
        if objective in ("relu_l1", "tied"):
            return Penalty("l1", sparsity.raw)
        if sparsity.field == "l0":
            return Penalty("l0", sparsity.raw)
    return Penalty("unknown")


def truth_of(folder: Path, trained: Mapping[str, Any], home: str) -> Truth | None:
    """The truth of a run's store; None for activations of a network. Raises ConfigError where the
    store of synthetic rows is gone, and where the dictionary is not of its rows."""
    store = stored_run(folder, trained, "", home)
    if store is None and (trained.get("subject") or {}).get("kind") in SYNTHETIC:
        raise ConfigError(
            f"the truth of {folder.name} must be there to count its latents; its store "
            f"{trained.get('store', '')} is gone. Harvest the store again, or leave the run out."
        )
    if store is None or FEATURES not in store.sites:
        return None
    sites = tuple(trained.get("sites") or (trained["site"],))
    if sites != (ROWS,):
        raise ConfigError(
            f"runs on a synthetic store must be of its site {ROWS}; {folder.name} is of "
            f"{', '.join(sites)}. Train with --site {ROWS}."
        )
    return open_truth(store)


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
