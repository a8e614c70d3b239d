"""Examine the curve latents of a run: where they are, and what removing them changes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from tendril.data.cli import note, progress_bar
from tendril.data.errors import ConfigError
from tendril.data.inputs.images import readable
from tendril.models.dictionaries.checkpoint import LATENTS, load_frequency, load_sae
from tendril.models.dictionaries.run import Run
from tendril.models.dictionaries.sae import SAE
from tendril.models.sites.receptive import ReceptiveField, receptive_field
from tendril.models.sites.window import find_receptive_patch

from ..core.image_labels import image_labels
from ..core.vision_inputs import VisionInputs
from ..measures.curve_family import CurveFamily, latent_family, unit_family
from ..measures.curve_scores import angle_between, envelope
from ..measures.curve_stimuli import draw_curve
from ..measures.gap_chance import copies_a_unit
from ..measures.image_examples import Row, cut_patches, strongest_rows
from ..measures.joint_orientations import Detector, combine
from ..measures.latent_effects import (
    Effect,
    OneLatent,
    answer_effect,
    other_directions,
    tuning_effect,
)
from ..measures.turned_patches import align, record_turned
from .config import EvidenceConfig
from .findings import Candidate

AROUND = 45.0
"""Curve units downstream count for a latent up to this many degrees from its orientation."""
SHOWN = 4
"""Dataset examples of each latent."""
DOWNSTREAM = {"inceptionv1": "mixed4a"}


@final
@dataclass(frozen=True)
class Measured:
    """A run with its dictionary and its curve latents."""

    run: Run
    dictionary: SAE
    family: CurveFamily
    alive: Sequence[int]
    """Latents that fire on held-out vectors; all where this is unknown."""

    @property
    def seed(self) -> int:
        """The seed that the run was trained with; 0 where it is unknown."""
        return int(self.run.config.get("seed", 0))

    @property
    def rows(self) -> Float[np.ndarray, "m d"]:
        """Decoder rows of the curve latents."""
        chosen: np.ndarray = self.dictionary.W_dec.detach().float().cpu().numpy()
        return chosen[self.family.members]


@final
@dataclass(frozen=True)
class Downstream:
    """The site whose curve units are watched."""

    site: str
    field: ReceptiveField
    units: CurveFamily


def measure(inputs: VisionInputs, units: CurveFamily, device: torch.device) -> Measured:
    """The dictionary of a run and its curve latents."""
    assert inputs.run is not None
    dictionary = load_sae(inputs.run).to(device)
    family = latent_family(units, dictionary, device)
    alive = list(range(dictionary.latents))
    if (inputs.run / LATENTS).is_file():  # an imported dictionary has none
        alive = torch.nonzero(load_frequency(inputs.run) > 0).flatten().tolist()
    return Measured(Run(inputs.run), dictionary, family, alive)


def downstream_of(
    config: EvidenceConfig, inputs: VisionInputs, device: torch.device
) -> Downstream | None:
    """The curve units downstream; None where no site is named and the subject has no default."""
    site = config.downstream or DOWNSTREAM.get(inputs.subject.name, "")
    if not site:
        note("no --downstream site is named, so only the network's answers are compared.")
        return None
    units = unit_family(inputs.subject, site, config.curves, device)
    return Downstream(site, receptive_field(inputs.subject, site), units)


def chosen_latents(
    one: Measured, units: CurveFamily, candidates: int, copies: int
) -> tuple[list[int], list[int]]:
    """The new curve latents farthest from every curve unit, and the strongest that copy a unit."""
    members, copied = one.family.members, copies_a_unit(one.rows)
    new = [m for m, copy in zip(members, copied, strict=True) if not copy]
    old = [m for m, copy in zip(members, copied, strict=True) if copy]

    def distance(member: int) -> float:
        nearest = units.nearest(one.family.orientation(member))
        return 360.0 if nearest is None else nearest[1]

    new.sort(key=lambda m: (-distance(m), m))
    old.sort(key=lambda m: (-float(one.family.scores.max[m]), m))
    return new[:candidates], old[:copies]


def candidates_of(
    config: EvidenceConfig,
    inputs: VisionInputs,
    units: CurveFamily,
    measured: Sequence[Measured],
    index: int,
    watched: Downstream | None,
    device: torch.device,
) -> list[Candidate]:
    """The candidates of one run, examined."""
    one = measured[index]
    new, copies = chosen_latents(one, units, config.candidates, config.copies)
    latents = [*new, *copies]
    if not latents:
        return []
    best = strongest(inputs, one, latents, max(config.turned, config.photographs), device)
    offs = on_photographs(config, inputs, one, units, latents, best, device)
    assert inputs.store is not None and inputs.images is not None
    site_field = receptive_field(inputs.subject, inputs.site)
    few = [rows[:SHOWN] for rows in best]
    patches = cut_patches(
        inputs.store, inputs.site, site_field, inputs.images, inputs.subject.input_size, few
    )
    shape = envelope(units.radial[:, units.members])
    # runs of one seed begin with the same weights, so they are no repetitions
    others = [other for other in measured if other.seed != one.seed]
    found = []
    for place, latent in enumerate(progress_bar(latents, "removing latents")):
        angle = one.family.orientation(latent)
        at = round(angle / (360 / len(shape))) % len(shape)
        effects = effects_of(config, inputs, one, latent, best[place], watched, device)
        row_D = one.dictionary.W_dec[latent].detach().float().cpu()
        mixed_D = row_D[torch.randperm(len(row_D), generator=torch.Generator().manual_seed(0))]
        found.append(
            Candidate(
                run=one.run.name,
                seed=one.seed,
                latent=latent,
                copies=latent in copies,
                orientation=angle,
                nearest=units.nearest(angle),
                envelope=float(shape[at]),
                rival=(one.family.rival(latent), float(one.family.scores.rival[latent])),
                off=offs[place],
                patches_turned=min(config.turned, len(best[place])),
                found_in=[most_alike(row_D, angle, other, config.apart) for other in others],
                by_chance=[most_alike(mixed_D, angle, other, config.apart) for other in others],
                alike=config.alike,
                tuning=effects[0],
                kl=effects[1],
                top5=effects[2],
                watched=len(near_units(watched, angle)),
                patches=patches[place],
            )
        )
    return found


def strongest(
    inputs: VisionInputs, one: Measured, latents: list[int], count: int, device: torch.device
) -> list[list[Row]]:
    """The rows of the store that excite each latent most, one a photograph."""
    assert inputs.store is not None
    respond = responder(one, [], latents, device)
    return strongest_rows(inputs.store, inputs.site, respond, len(latents), count)


def responder(one: Measured, units: list[int], latents: list[int], device: torch.device) -> Any:
    """A function from activations to the responses of units, then of latents."""

    def respond(x_ND: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n m"]:
        with torch.inference_mode():
            z_NS = one.dictionary.encode(torch.from_numpy(x_ND).float().to(device))[:, latents]
        return np.concatenate([x_ND[:, units], z_NS.float().cpu().numpy()], axis=1)

    return respond


def on_photographs(
    config: EvidenceConfig,
    inputs: VisionInputs,
    one: Measured,
    units: CurveFamily,
    latents: list[int],
    best: Sequence[Sequence[Row]],
    device: torch.device,
) -> list[float | None]:
    """How far the orientation of each latent on photographs is from that on drawn curves.

    Photographs of curve units and latents are turned, and each latent's orientation follows from
    those of all others (joint tuning). None for a latent that its own turned photographs do not
    excite.
    """
    store, images, subject = inputs.store, inputs.images, inputs.subject
    assert store is not None and images is not None
    members = list(units.members)
    respond = responder(one, members, latents, device)
    of_units = strongest_rows(
        store, inputs.site, lambda x: x[:, members], len(members), config.turned
    )
    rows = [*of_units, *(some[: config.turned] for some in best)]
    patch = find_receptive_patch(subject, [inputs.site])
    patch.module.to(device)
    angles_A = np.arange(round(360 / config.step)) * (360 / round(360 / config.step))
    turned = record_turned(
        patch, store, inputs.site, images, subject.input_size, rows, respond, angles_A, device
    )
    detectors = [
        Detector(family.kind, m, family.orientation(m), float(family.scores.width[m]))
        for family, chosen in ((units, members), (one.family, latents))
        for m in chosen
    ]
    curves = [align(responses, m) for m, responses in enumerate(turned)]
    try:
        joint = combine(detectors, curves, [len(responses) for responses in turned])
    except ConfigError:  # fewer than two detectors respond to their turned patches
        return [None] * len(latents)
    errors = {
        d.index: float(error)
        for d, error in zip(joint.detectors, joint.errors(), strict=True)
        if d.kind == "latent"
    }
    return [errors.get(latent) for latent in latents]


def most_alike(
    row_D: Float[Tensor, " d"], orientation: float, other: Measured, apart: float
) -> float:
    """The largest cosine of a decoder row with curve latents of another run within `apart`
    degrees; 0 where there is none."""
    near = [
        m
        for m in other.family.members
        if angle_between(other.family.orientation(m), orientation) <= apart
    ]
    if not near:
        return 0.0
    rows_MD = other.dictionary.W_dec[near].detach().float().cpu()
    return float(functional.cosine_similarity(rows_MD, row_D[None], dim=1).max())


def near_units(watched: Downstream | None, orientation: float) -> list[int]:
    """Curve units downstream of about the same orientation."""
    if watched is None:
        return []
    family = watched.units
    return [
        m for m in family.members if angle_between(family.orientation(m), orientation) <= AROUND
    ]


def effects_of(
    config: EvidenceConfig,
    inputs: VisionInputs,
    one: Measured,
    latent: int,
    best: Sequence[Row],
    watched: Downstream | None,
    device: torch.device,
) -> tuple[Effect | None, Effect | None, Effect | None]:
    """Effects of removing a latent: on curve units downstream, and on answers (KL, top five)."""
    subject, site, dictionary = inputs.subject, inputs.site, one.dictionary
    others = [other for other in one.alive if other != latent]
    directions_RD = other_directions(dictionary, others, config.directions)
    removal = OneLatent(dictionary, latent, directions_RD)
    tuning = None
    angle = one.family.orientation(latent)
    if watched is not None and (units := near_units(watched, angle)):
        drawn = np.stack(
            [
                draw_curve(angle, float(radius), style, subject.input_size, watched.field.centre)
                for radius in one.family.radii
                for style in one.family.styles
            ]
        )
        rgb_BCHW = torch.from_numpy(drawn)[:, None].repeat(1, 3, 1, 1).to(device)
        counted_BU = torch.zeros(len(drawn), len(watched.units.scores.max), dtype=torch.bool)
        counted_BU[:, units] = True
        tuning = tuning_effect(
            subject,
            site,
            watched.site,
            watched.field,
            removal,
            subject.preprocess(rgb_BCHW),
            counted_BU,
        )
    shown = photographs_of(config, inputs, best[: config.photographs], device)
    if shown is None:
        return tuning, None, None
    kl, top5 = answer_effect(subject, site, removal, *shown)
    return tuning, kl, top5


def photographs_of(
    config: EvidenceConfig, inputs: VisionInputs, rows: Sequence[Row], device: torch.device
) -> tuple[Float[Tensor, "b c h w"], Int[Tensor, " b"] | None] | None:
    """The photographs of some rows, preprocessed, and their classes where --labels names them.

    None where no photograph can be read.
    """
    assert inputs.store is not None
    numbers = inputs.store.column("input")
    return read_photographs(config, inputs, [int(numbers[row.number]) for row in rows], device)


def read_photographs(
    config: EvidenceConfig, inputs: VisionInputs, numbers: Sequence[int], device: torch.device
) -> tuple[Float[Tensor, "b c h w"], Int[Tensor, " b"] | None] | None:
    """`photographs_of` by the numbers of the images."""
    assert inputs.images is not None
    size = inputs.subject.input_size
    read = {i: one for i in numbers if (one := readable(inputs.images, i, size)) is not None}
    if not read:
        return None
    rgb_BHWC = torch.from_numpy(np.stack(list(read.values()))).to(device)
    images_BCHW = inputs.subject.preprocess(rgb_BHWC.permute(0, 3, 1, 2).float() / 255)
    if not config.labels:
        return images_BCHW, None
    labels = image_labels(Path(config.labels), inputs.images)
    return images_BCHW, torch.tensor([labels[i] for i in read])
