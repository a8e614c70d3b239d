"""Features of a vision network's dictionary: what is read, and how it is computed."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Bool, Int64

from tendril.data import order
from tendril.data.cli import note
from tendril.data.errors import ConfigError, InputsNotFoundError
from tendril.data.store.labels import NO_CLASS, Labels
from tendril.data.store.moments import OUTLIER_TIMES
from tendril.data.store.reader import BATCH_DEFAULTS, Store
from tendril.models.dictionaries.checkpoint import load_sae, read_config
from tendril.models.dictionaries.sae import SAE
from tendril.models.sites.receptive import receptive_field

from ..core.config import dropped_identity, outlier_remark
from ..core.report import file_digest
from ..core.stores import dictionary_digests, trained_sites, training_warnings
from ..core.vision_inputs import VisionInputs, find_vision_inputs, training_remark
from ..measures.decoder_directions import neighbours
from ..measures.image_activity import ImageActivity
from ..measures.image_maps import (
    IMAGE_AT_ONCE,
    ExampleMaps,
    NetworkVectors,
    StoredVectors,
    example_maps,
)
from ..measures.latent_activity import SAMPLE, Activity, chosen_contexts, encoded
from .config import FeaturesConfig
from .image_findings import ImageFindings, Shown, shown_examples

NEIGHBOURS = 8
MOST_SPREAD = 2**28  # pairs of a class and a latent: 2 GB


@final
@dataclass(frozen=True)
class ImageFeatureInputs:
    """All that the study reads. `chosen` are the numbers of the images that are read."""

    found: VisionInputs
    store: Store
    run: Path
    trained: Mapping[str, Any]
    dictionary: SAE
    sites: tuple[str, ...]
    valid_BP: Bool[np.ndarray, "b p"]
    chosen: Int64[np.ndarray, " c"]
    labels: Labels | None

    def identity(self, config: FeaturesConfig) -> dict[str, Any]:
        """What determines findings besides the settings."""
        return {
            "dictionary": dictionary_digests([self.run]),
            "store": self.store.name,
            "subject": self.store.spec["subject"],
            "sites": list(self.sites),
            "held_out": self.trained.get("held_out"),
            "images": self.found.images is not None,
            "maps": config.maps,
            "labels": file_digest(Path(config.labels))
            if config.labels
            else self.labels is not None,
            **dropped_identity(self.trained),
        }

    def remarks(self, config: FeaturesConfig) -> list[str]:
        """What a reader must know of the examples."""
        found = []
        if self.trained.get("store") != self.store.name:
            found += training_remark(self.store, self.trained)
        elif config.part == "all":
            fraction = float(self.trained.get("held_out", BATCH_DEFAULTS["held_out"]))
            seen = int((~order.held_out(self.chosen, fraction)).sum())
            found.append(
                f"Figures and examples are of {len(self.chosen):,} images of {self.store.name}, "
                f"{seen:,} of which the run was trained on."
            )
        if self.found.no_images:
            found.append(self.found.no_images)
        found += outlier_remark([self.trained], dropped=True)
        return found + training_warnings([self.run])

    @property
    def subject_name(self) -> str:
        """The name of the vision network."""
        return self.found.subject.name

    def compute(self, config: FeaturesConfig, device: torch.device) -> ImageFindings:
        """Read the store once, and the images that are shown once."""
        store, length = self.store, self.valid_BP.shape[1]
        latents = self.dictionary.latents
        labels = self.labels
        if labels and len(labels.names) * latents > MOST_SPREAD:
            note(f"{len(labels.names):,} classes of {latents:,} latents are too many to compare.")
            labels = None
        sample = max(SAMPLE, config.quantiles) if config.quantiles else 0
        activity = Activity(latents, length, config.top, sample, 1)
        seen = ImageActivity(
            latents,
            length,
            labels.number_B if labels else np.zeros(0, np.int32),
            len(labels.names) if labels else 0,
            len(self.chosen) * length,
        )
        for some, z_NS in encoded(
            store,
            self.sites,
            self.dictionary,
            self.valid_BP,
            self.chosen,
            device,
            "images",
            IMAGE_AT_ONCE,
        ):
            seen.add(some, z_NS, activity.add(some, z_NS))
        shown = shown_examples(activity, config.quantiles)
        maps, whole = self._maps(config, shown, device)
        W_dec = self.dictionary.W_dec.detach()
        site = self.sites[-1]
        inputs = np.unique(shown.row_M // length).tolist()
        return ImageFindings(
            run=self.run.resolve().name,
            store=store.name,
            subject=self.subject_name,
            sites=self.sites,
            part=config.part,
            images=len(self.chosen),
            activity=activity,
            images_S=seen.images_S,
            labels=labels,
            spread=seen.spread() if labels else None,
            together=seen.together(NEIGHBOURS),
            neighbours=neighbours(W_dec, NEIGHBOURS),
            norm_S=W_dec.norm(dim=1).float().cpu().numpy(),
            shown=shown,
            maps=maps,
            whole=whole,
            names={int(i): store.input_name(i) for i in inputs},
            field=receptive_field(self.found.subject, site),
            size=self.found.subject.input_size,
            grid=map_grid(store, site),
            cell_M=np.stack(
                np.divmod(cells_of_rows(store, site, shown.row_M), _width(store, site)), 1
            ),
            no_images=self.found.no_images,
        )

    def _maps(
        self, config: FeaturesConfig, shown: Shown, device: torch.device
    ) -> tuple[ExampleMaps | None, str]:
        """The maps of the examples, and where they come from."""
        images, store, length = self.found.images, self.store, self.valid_BP.shape[1]
        if images is None:
            return None, ""
        site, grid = self.sites[-1], map_grid(self.store, self.sites[-1])
        grids = {map_grid(store, s) for s in (*self.sites, store.sites[0])}
        stored = store.spec["positions"]["rule"] == "all" and len(grids) == 1
        network = not stored and config.maps and len({map_grid(store, s) for s in self.sites}) == 1
        subject = self.found.subject
        vectors = (
            NetworkVectors(subject, self.sites, device, images)
            if network
            else StoredVectors(store, self.sites, length)
        )

        def cells_of(number: int) -> Int64[np.ndarray, " p"]:
            if network or stored:
                return np.arange(grid[0] * grid[1])
            return cells_of_rows(store, site, np.arange(number * length, (number + 1) * length))

        found = example_maps(
            images,
            subject.input_size,
            self.dictionary,
            shown.row_M // length,
            shown.latent_M,
            vectors,
            cells_of,
            grid,
            device,
        )
        return found, "network" if network else "store" if stored else "positions"


def find_image_features(config: FeaturesConfig, run: Path, store: Store) -> ImageFeatureInputs:
    """Find what the study of a vision network's features reads.

    Raises ConfigError for a store of orbits, and for a part without images, and what
    `find_vision_inputs` raises.
    """
    if store.group:
        raise ConfigError(
            f"the store must hold rows of images as they are; {store.name} holds them under "
            f"{len(store.group)} transforms. `tendril study symmetry` shows such runs."
        )
    trained, dictionary = read_config(run), load_sae(run)
    sites = trained_sites(run, store, dictionary.width)
    if len(sites) == 1:
        found = find_vision_inputs(config, str(run), sites[0])
    else:  # no site of the network has the run's name for them
        found = find_vision_inputs(replace(config, store=store.location), "", sites[-1])
    count = int(store.spec["inputs"]["count"])
    valid = store.column("valid").copy()
    if trained.get("norm_outliers") == "drop":
        times = float(trained.get("outlier_times", OUTLIER_TIMES))
        valid &= ~np.logical_or.reduce([store.norm_outliers(site, times) for site in sites])
    valid_BP = valid.reshape(count, -1)
    held_out = float(trained.get("held_out", BATCH_DEFAULTS["held_out"]))
    chosen = chosen_contexts(count, config.part, held_out, config.limit)
    if not len(chosen) or not valid_BP[chosen].any():
        raise ConfigError(
            f"--part must name images that could be read; {config.part} of {store.name} has none "
            f"with {held_out:g} of its {count} images held out. Choose another --part, or harvest "
            "more images."
        )
    if config.labels:
        labels: Labels | None = file_labels(Path(config.labels), store)
    else:  # a store of an earlier version has none, but its images may
        labels = store.labels() or (found.images.labels if found.images else None)
    return ImageFeatureInputs(
        found, store, run, trained, dictionary, sites, valid_BP, chosen, labels
    )


def file_labels(path: Path, store: Store) -> Labels:
    """The classes of a store's images from a file with a class a line: an id, then a name.

    Raises InputsNotFoundError where there is no such file, and ConfigError if no image has a class.
    """
    if not path.is_file():
        raise InputsNotFoundError(
            f"--labels must be a file with a class a line; {path} is no file. Check the path."
        )
    lines = [line.strip() for line in path.read_text().splitlines()]
    parts = [re.split(r"[\s,]+", line, maxsplit=1) for line in lines]
    number = {part[0]: i for i, part in reversed(list(enumerate(parts))) if part[0]}
    found = []
    for index in range(int(store.spec["inputs"]["count"])):
        above = reversed(Path(store.input_name(index)).parts)
        ids = (re.split(r"[_.\s]", name)[0] for name in above)
        found.append(next((number[name] for name in ids if name in number), NO_CLASS))
    if max(found, default=NO_CLASS) == NO_CLASS:
        raise ConfigError(
            f"no line of {path} begins with the id of an image of {store.name}, such as "
            f"{store.input_name(0)!r}. Pass the class list of these images, or leave --labels out."
        )
    return Labels(tuple(part[-1] for part in parts), np.array(found, np.int32))


def map_grid(store: Store, site: str) -> tuple[int, int]:
    """Rows and columns of a site's map; (1, 1) for one vector an image."""
    grid = store.grid(site)
    return (int(grid[0]), int(grid[1])) if len(grid) == 2 else (1, 1)


def _width(store: Store, site: str) -> int:
    return map_grid(store, site)[1]


def cells_of_rows(
    store: Store, site: str, rows: Int64[np.ndarray, " n"]
) -> Int64[np.ndarray, " n"]:
    """The cells of a site's map, numbered row by row, at rows of the store: of those that the
    store's columns number on its first site, the ones that hold their middle."""
    drawn_on, grid = map_grid(store, store.sites[0]), map_grid(store, site)
    y, x = (
        (2 * store.column(name)[rows].astype(np.int64) + 1) * grid[axis] // (2 * drawn_on[axis])
        for axis, name in enumerate(("y", "x"))
    )
    return np.asarray(y * grid[1] + x)
