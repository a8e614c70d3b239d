"""The plan of a harvest of images: sites on whole images, or on orbits of patches."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import torch

from tendril.data.errors import ConfigError, SubjectError
from tendril.data.group.dihedral import Dihedral
from tendril.data.home import network_place
from tendril.data.inputs.images import ImageSource, open_images
from tendril.data.store.dtypes import ITEM_BYTES
from tendril.data.store.labels import Labels
from tendril.data.store.layout import SHARD_INPUTS, Layout, plan_layout
from tendril.data.store.spec import StoreSpec
from tendril.models.sites.dimensions import CLASS, find_tokens, tokens_of
from tendril.models.sites.hooks import describe_sites, sequence_lengths
from tendril.models.sites.tokens import has_tokens, other_tokens, with_tokens
from tendril.models.sites.window import ReceptivePatch, find_receptive_patch
from tendril.models.subjects.load import load_subject
from tendril.models.subjects.subject import Subject, site_modules

from .config import HarvestConfig
from .cost import seconds_per_image, seconds_per_orbit
from .loop import Produce
from .orbit_rows import OrbitRule, orbit_rows
from .plan import Plan
from .sites import chosen_sites
from .vision_rows import PositionRule, vision_rows

SHARD_PATCHES = 2**15  # patches in a shard of orbits: less than a minute of work


@final
@dataclass(frozen=True)
class VisionPlan(Plan):
    """The plan of a harvest of images. `window` reads the patches of a group; None without one."""

    config: HarvestConfig
    subject: Subject
    source: ImageSource
    window: ReceptivePatch | None = None

    @property
    def settings(self) -> HarvestConfig:
        return self.config

    @property
    def labels(self) -> Labels | None:
        return self.source.labels

    def producer(self, inputs_per_slice: int) -> Produce:
        config, workers = self.config, self.config.workers or os.cpu_count() or 1
        if self.window:
            return orbit_rows(
                self.subject,
                self.source,
                self.window,
                orbit_rule(config),
                device=self.device,
                workers=workers,
                batch_size=inputs_per_slice,
                dtype=config.dtype,
            )
        return vision_rows(
            self.subject,
            self.source,
            self.spec.sites,
            PositionRule(config.positions, config.per_input, config.seed),
            device=self.device,
            workers=workers,
            batch_size=inputs_per_slice,
            dtype=config.dtype,
        )

    def layout(self) -> Layout:
        config = self.config
        shapes = describe_sites(self.subject, self.spec.sites)
        first = self.spec.sites[0]
        cells = math.prod(shapes[first].grid)
        where = f"of the map of {first}"
        if self.window:
            cells = len(self.window.inside(self.subject.input_size))
            where += f" whose receptive field ({self.window.size} pixels) lies within the image"
        per_input = cells if config.per_input == "all" else config.per_input
        if not 1 <= per_input <= cells:
            raise ConfigError(
                f"--per-input must be `all` or a number from 1 to {cells}, the positions {where}; "
                f"got {per_input}."
            )
        elements = len(orbit_rule(config).group) if self.window else 0
        return plan_layout(
            inputs=len(self.source),
            rows_per_input=per_input,
            widths={site: shape.width for site, shape in shapes.items()},
            grids={site: shape.grid for site, shape in shapes.items()},
            inputs_per_slice=config.batch_size,
            compressor=config.compressor,
            item_bytes=ITEM_BYTES[config.dtype],
            columns=("y", "x", "turn") if self.window else ("y", "x"),
            elements=elements,
            shard_inputs=max(1, min(SHARD_INPUTS, SHARD_PATCHES // max(per_input * elements, 1))),
        )

    def seconds(self, layout: Layout) -> float:
        pace = seconds_per_image(self.subject, self.source, self.spec.sites, self.device)
        if self.window:
            group = orbit_rule(self.config).group
            one = seconds_per_orbit(self.subject, self.source, self.window, group, self.device)
            pace += one * layout.rows_per_input
        return layout.inputs * pace

    def about(self, site: str) -> str:
        lengths, image = sequence_lengths(self.subject, [site])
        if lengths.get(site, 0) < 2:
            return ""
        keep, others = tokens_of(self.subject.module).keep, other_tokens(self.subject)
        skipped = (find_tokens(self.subject.module).split(lengths[site], image) or (0,))[0]
        left_out = f", without {others}" if skipped and others else ""
        return {
            "patches": f" of patches{left_out}",
            CLASS: ", the class token",
            "all": ", one for each of all tokens",
        }[keep]

    def sources(self) -> dict[str, str]:
        return {
            "inputs": self.source.origin,
            "subject": self.config.subject,
            "weights": self.config.weights,
            "normalisation": self.config.normalisation,
        }


def orbit_rule(config: HarvestConfig) -> OrbitRule:
    """The group and the anchors that a config requests. Raises ConfigError."""
    group = Dihedral(config.rotations, config.reflections)
    return OrbitRule(group, config.positions, config.per_input, config.turn, config.seed)


def check_reproducible(config: HarvestConfig, subject: Subject) -> None:
    """Raise SubjectError if the function of a subject file returns other weights at each call.

    Studies and deep verification call it again and must get the network that was harvested.
    """
    if ".py:" in config.subject and load_subject(config.subject).identity != subject.identity:
        raise SubjectError(
            f"{config.subject} must return the same weights at each call; two calls gave different "
            "ones. Load the weights from a file, or seed them with torch.manual_seed."
        )


def _check_convolutional(subject: Subject, sites: Sequence[str]) -> None:
    """Raise ConfigError for sites of tokens, whose vectors depend on more than a patch."""
    for site in sites:
        if has_tokens(subject, site):
            raise ConfigError(
                f"--rotations needs sites whose vectors depend on a patch of the image; {site} of "
                f"{subject.name} holds tokens, each of which depends on the whole image. Leave "
                "--rotations out, or choose convolutional sites."
            )


def plan_vision(config: HarvestConfig, device: torch.device) -> VisionPlan:
    """Open subject and images, and fix the identity of the harvest.

    Raises ConfigError, and what `open_images` and `load_subject` raise.
    """
    for value, flag in ((config.rotations, "--rotations"), (config.workers, "--workers")):
        if value < 0:
            raise ConfigError(f"{flag} must be a whole number of at least 0; got {value}.")
    if not config.subject:
        raise ConfigError(
            "--subject must be FILE.py:FUNCTION, hf:NAME, timm:NAME, torchvision:NAME, "
            "inceptionv1, handmade or planted; got nothing. FUNCTION takes no arguments and "
            "returns a torch.nn.Module."
        )
    config = replace(config, subject=network_place(config.subject, config.home))
    source = open_images(config.inputs, config.limit)
    subject = load_subject(
        config.subject, weights=config.weights, normalisation=config.normalisation
    )
    sites = chosen_sites(config, subject)
    site_modules(subject, sites)
    check_reproducible(config, subject)
    subject = with_tokens(subject, config.tokens, sites)
    if config.rotations:
        _check_convolutional(subject, sites)
    one = tokens_of(subject.module).keep == CLASS and has_tokens(subject, sites[0])
    single = math.prod(describe_sites(subject, sites)[sites[0]].grid) == 1
    if single and config.per_input != 0:
        config = replace(config, per_input="all")
    everywhere = config.per_input == "all"
    drawn = {"rule": config.positions, "per_input": config.per_input}
    inputs: dict[str, Any] = source.identity | {"size": subject.input_size}
    window = find_receptive_patch(subject, sites) if config.rotations else None
    if window:
        inputs["orbit"] = orbit_rule(config).identity(window)
    spec = StoreSpec(
        subject=subject.identity,
        inputs=inputs,
        sites=sites,
        positions={"rule": "all"} if everywhere else drawn,
        seed=0 if everywhere and not window else config.seed,
        dtype=config.dtype,
    )
    of_class = f"-{CLASS}" if "tokens" in subject.identity and one else ""
    name = f"{subject.name}{of_class}-{Path(source.origin).name}"
    return VisionPlan(spec, name, device, config, subject, source, window)
