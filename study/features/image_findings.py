"""What the study of features finds of a vision network's dictionary, latent by latent."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

import numpy as np
from jaxtyping import Float32, Float64, Int64
from torch import Tensor

from tendril.data.store.labels import Labels
from tendril.models.sites.receptive import ReceptiveField

from ..measures.image_activity import ClassSpread, Together
from ..measures.image_maps import ExampleMaps
from ..measures.latent_activity import Activity
from .findings import DENSE, short

TOP_CLASSES = 5


@final
@dataclass(frozen=True)
class Shown:
    """The M examples on the page, sorted by latent: the strongest of a latent first, then weaker
    ones.

    Example m is the row row_M[m] of the store, where the latent has the activation value_M[m].
    level_M is the quantile that it stands for, NaN for one of the strongest.
    """

    latent_M: Int64[np.ndarray, " m"]
    row_M: Int64[np.ndarray, " m"]
    value_M: Float32[np.ndarray, " m"]
    level_M: Float64[np.ndarray, " m"]

    def of(self, latent: int) -> range:
        """The numbers of a latent's examples."""
        first, end = np.searchsorted(self.latent_M, (latent, latent + 1))
        return range(int(first), int(end))


@final
@dataclass(frozen=True)
class ImageFindings:
    """All that the page shows except the words around it.

    `maps` are those of the examples in `shown`, and `cell_M` their cells. `whole` says where the
    maps come from: "network" or "store" for whole maps, "positions" for the stored positions only,
    or, with `no_images` saying why, empty. `names` are those of the images shown, by number.
    """

    run: str
    store: str
    subject: str
    sites: tuple[str, ...]
    part: str
    images: int
    activity: Activity
    images_S: Int64[np.ndarray, " s"]
    labels: Labels | None
    spread: ClassSpread | None
    together: Together
    neighbours: tuple[Int64[Tensor, "s k"], Float32[Tensor, "s k"]]
    norm_S: Float32[np.ndarray, " s"]
    shown: Shown
    maps: ExampleMaps | None
    whole: str
    names: Mapping[int, str]
    field: ReceptiveField
    size: int
    grid: tuple[int, int]
    cell_M: Int64[np.ndarray, "m 2"]
    no_images: str

    @property
    def latents(self) -> int:
        """S."""
        return self.activity.latents

    @cached_property
    def frequency_S(self) -> Float64[np.ndarray, " s"]:
        """The fraction of positions on which each latent is active."""
        return self.activity.frequency_S

    @cached_property
    def mean_S(self) -> Float64[np.ndarray, " s"]:
        """The mean activation of each latent over the positions on which it is active."""
        return self.activity.mean_S

    @cached_property
    def moran_S(self) -> Float64[np.ndarray, " s"]:
        """The mean of Moran's I over the maps of the strongest images of each latent; NaN where
        there are none, and for sites that hold no map of two dimensions."""
        if self.maps is None or self.whole not in ("network", "store") or min(self.grid) < 2:
            return np.full(self.latents, np.nan)
        used = np.isnan(self.shown.level_M) & np.isfinite(self.maps.moran_M)
        latent = self.shown.latent_M[used]
        count = np.bincount(latent, minlength=self.latents)
        total = np.bincount(latent, self.maps.moran_M[used], minlength=self.latents)
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)

    def input_of(self, example: int) -> int:
        """The number of an example's image."""
        return int(self.shown.row_M[example]) // self.activity.length

    @cached_property
    def figures(self) -> dict[str, Any]:
        """The figures of result.json."""
        frequency = self.activity.frequency_S
        alive = frequency > 0
        nearest = self.neighbours[1][:, 0].numpy() if self.neighbours[1].numel() else np.zeros(0)
        moran = self.moran_S[np.isfinite(self.moran_S)]
        found: dict[str, Any] = {
            "run": self.run,
            "store": self.store,
            "site": "+".join(self.sites),
            "part": self.part,
            "images": self.images,
            "rows": self.activity.rows,
            "latents_total": self.latents,
            "latents_never_on": int((~alive).sum()),
            "latents_dense": int((frequency > DENSE).sum()),
            "l0": round(float(self.activity.fired_S.sum() / max(self.activity.rows, 1)), 3),
            "frequency_median": short(np.median(frequency[alive])) if alive.any() else None,
            "nearest_median": short(np.median(nearest)) if len(nearest) else None,
            "moran_median": short(np.median(moran)) if len(moran) else None,
            "maps": self.whole or None,
        }
        if self.spread and self.labels:
            found["classes"] = len(self.labels.names)
            effective = self.spread.effective_S[alive]
            found["classes_median"] = short(np.median(effective)) if alive.any() else None
        return found

    def row(self, latent: int) -> dict[str, Any]:
        """A latent as a row of latents.csv; lists are JSON."""
        activity, (numbers, cosines) = self.activity, self.neighbours
        moran = self.moran_S[latent]
        classes = self.spread.top(latent, TOP_CLASSES) if self.spread else []
        names = self.labels.names if self.labels else ()
        others = self.together.number_SK[latent]
        strongest = [m for m in self.shown.of(latent) if np.isnan(self.shown.level_M[m])]
        return {
            "latent": latent,
            "fired": int(activity.fired_S[latent]),
            "frequency": short(self.frequency_S[latent]),
            "images": int(self.images_S[latent]),
            "max": short(activity.max_S[latent]),
            "mean_when_on": short(self.mean_S[latent]),
            "decoder_norm": short(self.norm_S[latent]),
            "nearest": int(numbers[latent, 0]) if numbers.numel() else "",
            "nearest_cosine": short(cosines[latent, 0]) if numbers.numel() else "",
            "moran": short(moran) if np.isfinite(moran) else "",
            "effective_classes": short(self.spread.effective_S[latent]) if self.spread else "",
            "classes": json.dumps([names[c] for c, _ in classes], ensure_ascii=False),
            "class_parts": json.dumps([short(part) for _, part in classes]),
            "together": json.dumps(others[others >= 0].tolist()),
            "strongest_rows": json.dumps([int(self.shown.row_M[m]) for m in strongest]),
            "strongest_images": json.dumps(
                [self.names.get(self.input_of(m), "") for m in strongest], ensure_ascii=False
            ),
        }


def shown_examples(activity: Activity, quantiles: int) -> Shown:
    """The strongest images of each latent, one position an image, and examples at the middles of
    `quantiles` equal parts of the sampled activations, no row twice."""
    latent: list[int] = []
    row: list[int] = []
    value: list[float] = []
    level: list[float] = []
    levels = (np.arange(quantiles)[::-1] + 0.5) / max(quantiles, 1)
    for one in np.flatnonzero(activity.fired_S > 0).tolist():
        found = _of_latent(activity, one, levels)
        latent += [one] * len(found)
        row += [r for r, _, _ in found]
        value += [v for _, v, _ in found]
        level += [part for _, _, part in found]
    return Shown(
        np.array(latent, np.int64),
        np.array(row, np.int64),
        np.array(value, np.float32),
        np.array(level, np.float64),
    )


def _of_latent(
    activity: Activity, latent: int, levels: Sequence[float] | Float64[np.ndarray, " q"]
) -> list[tuple[int, float, float]]:
    """(row, value, level) of the examples of a latent."""
    best, sample = activity.top, activity.sample
    there = best.row_SN[latent] >= 0
    rows, values = best.row_SN[latent, there].tolist(), best.value_SN[latent, there].tolist()
    found = [(row, value, float("nan")) for row, value in zip(rows, values, strict=True)]
    if sample is None:
        return found
    shown = set(rows)
    places = np.flatnonzero(sample.row_SN[latent] >= 0)
    places = places[np.argsort(sample.value_SN[latent, places], kind="stable")]
    for part in levels:
        place = int(places[int(part * len(places))]) if len(places) else -1
        if place >= 0 and int(sample.row_SN[latent, place]) not in shown:
            shown.add(int(sample.row_SN[latent, place]))
            row, value = sample.row_SN[latent, place], sample.value_SN[latent, place]
            found.append((int(row), float(value), float(part)))
    return found
