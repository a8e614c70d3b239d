"""Joint tuning: photographs turned under a family of curve detectors.

The patches that excite a unit most are turned about the middle of its receptive field, fading
to one colour towards a circle, and every curve detector is recorded. A turn of delta past the
angle at which the unit itself answers most brings the curve to the orientation theta_u + delta,
so unit v peaks at delta_uv = theta_v - theta_u: photographs alone order the family. Source of
the protocol: Cammarata et al., "Curve Detectors", Distill 2020 ("joint tuning curves").
"""

import shlex
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from tqdm import tqdm

from tendril.data.device import resolve_device
from tendril.data.errors import ConfigError
from tendril.data.group.dihedral import Dihedral
from tendril.data.group.warp import Warp
from tendril.models.dictionaries.checkpoint import DICTIONARY, load_sae
from tendril.models.dictionaries.sae import SAE
from tendril.models.sites.receptive import receptive_field
from tendril.models.sites.window import Window, find_window

from ..core.report import file_digest, report_of, sources_config
from ..core.vision_inputs import Sources, find_sources
from ..curves.findings import Family
from ..curves.study import curve_grid
from ..measures.curve_scores import half_width, mean_direction
from ..measures.image_examples import Row, strongest_rows
from ..measures.tuning import exact_arithmetic, latent_tuning, unit_tuning
from ..missing_curves.config import JointConfig
from ..page.render import render

FORMAT = 1  # raised when the same sources would give another page
PATCHES = 32  # at a time
HEARD = 0.2
"""A detector is heard on another's patches from this share of its own maximum there on."""


@dataclass(frozen=True)
class Detector:
    """A unit or a latent, with what synthetic curves say of it."""

    kind: str
    index: int
    orientation: float
    width: float

    @property
    def name(self) -> str:
        """E.g. `unit 387`."""
        return f"{self.kind} {self.index}"


@dataclass(frozen=True)
class Joint:
    """Aligned responses of all detectors to each one's patches.

    curves [M, A, M]: whose patches, turn past the peak of that one, who is recorded; the mean
    over patches of responses, relative to each recorded one's own maximum on its own patches.
    """

    detectors: Sequence[Detector]
    curves: Float[np.ndarray, "m a m"]
    patches: Sequence[int]
    """How many patches each had."""

    @property
    def step(self) -> float:
        """Degrees between turns."""
        return 360 / int(self.curves.shape[1])

    @property
    def widths(self) -> Float[np.ndarray, " m"]:
        """Full width at half maximum of each one's aligned curve, in degrees."""
        own_AM = np.stack([self.curves[m, :, m] for m in range(len(self.curves))], axis=1)
        return half_width(own_AM)

    def orientations(self) -> Float[np.ndarray, " m"]:
        """Orientations from the photographs alone, but for one turn of all of them, which is
        taken from the synthetic ones.

        delta_uv is the circular mean direction of v's curve over u's patches, weighted by its
        resultant length; the leading eigenvector of H_uv = w_uv exp(i delta_uv) holds the phases
        (angular synchronisation, Singer 2011).
        """
        count, turns = len(self.curves), np.arange(self.curves.shape[1]) * self.step
        H = np.zeros((count, count), dtype=np.complex128)
        for u in range(count):
            direction, resultant = mean_direction(np.maximum(self.curves[u], 0), turns)
            heard = self.curves[u].max(axis=0) >= HEARD
            # conjugated, because u's phase times exp(i delta) is v's
            H[u] = np.where(heard, resultant, 0) * np.exp(-1j * np.deg2rad(direction))
        np.fill_diagonal(H, 1.0)
        _, vectors = np.linalg.eigh((H + H.conj().T) / 2)
        phase = np.angle(vectors[:, -1])
        synthetic = np.deg2rad([d.orientation for d in self.detectors])
        turn = np.angle(np.exp(1j * (synthetic - phase)).mean())
        return np.asarray(np.rad2deg(phase + turn) % 360)

    def errors(self) -> Float[np.ndarray, " m"]:
        """Photographs against synthetic curves, in signed degrees."""
        synthetic = np.array([d.orientation for d in self.detectors])
        return np.asarray((self.orientations() - synthetic + 180) % 360 - 180)


def study_joint(config: JointConfig) -> dict[str, Any]:
    """Record the joint tuning of the curve units of a site and of some latents; make a page.

    Raises children of TendrilError for all that the config, its paths or its files can cause.
    """
    began = time.monotonic()
    config.check()
    device = resolve_device(config.device)
    sources = find_sources(sources_config(config, config.run))
    if sources.store is None or sources.images is None or sources.run is None:
        raise ConfigError(f"joint tuning wants photographs. {sources.no_images}".strip())
    fields = ("latents", "images", "step", "orientation_step", "radii", "thresholds")
    made = {
        "format": FORMAT,
        "subject": dict(sources.subject.identity),
        "site": sources.site,
        "store": sources.store.name,
        "run": file_digest(sources.run / DICTIONARY),
        **{name: asdict(config)[name] for name in fields},
    }
    report = report_of(config.home, config.name or f"joint-{sources.site}", made)
    figures = None if config.overwrite else report.figures()
    reused = figures is not None
    if figures is None:
        joint = find_joint(config, sources, device)
        figures = joint_figures(joint)
        from .page import joint_context

        context = joint_context(joint, sources.subject.name, sources.site, command(config, sources))
        report.write(render(Path(__file__).parent, context), figures)
    seconds = round(time.monotonic() - began, 2)
    return {"report": str(report.page), **figures, "seconds": seconds, "reused": reused}


def find_joint(config: JointConfig, sources: Sources, device: torch.device) -> Joint:
    """Choose detectors and patches, turn, record and align."""
    assert sources.run is not None
    dictionary = load_sae(sources.run).to(device)
    if any(not 0 <= latent < dictionary.latents for latent in config.latents):
        raise ConfigError(f"--latents are from 0 to {dictionary.latents - 1}.")
    detectors = find_detectors(config, sources, dictionary, device)
    units = [d.index for d in detectors if d.kind == "unit"]
    latents = list(config.latents)

    def respond(x_ND: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n m"]:
        with torch.inference_mode():
            z_NS = dictionary.encode(torch.from_numpy(x_ND).to(device))[:, latents]
        return np.concatenate([x_ND[:, units], z_NS.float().cpu().numpy()], axis=1)

    assert sources.store is not None
    best = strongest_rows(sources.store, sources.site, respond, len(detectors), config.images)
    order = np.argsort([d.orientation for d in detectors], kind="stable")
    window = find_window(sources.subject, [sources.site])
    window.module.to(device)
    turned = turn_and_record(config, sources, window, best, respond, device)
    curves = [align(responses_IAM, m) for m, responses_IAM in enumerate(turned)]
    return combine([detectors[i] for i in order], curves, [len(b) for b in best], order.tolist())


def find_detectors(
    config: JointConfig, sources: Sources, dictionary: SAE, device: torch.device
) -> list[Detector]:
    """The curve units of the site, and the latents asked for, as synthetic curves find them."""
    field = receptive_field(sources.subject, sources.site)
    asked = replace(
        sources_config(config, ""),
        orientation_step=config.orientation_step,
        radii=config.radii,
    )
    grid = curve_grid(asked, sources.subject, field)
    responses = unit_tuning(sources.subject, sources.site, field, grid, device)
    axes = (np.array(grid.orientations), np.array(grid.radii), grid.styles, config.thresholds)
    units = Family("unit", responses, *axes)
    latents = Family("latent", latent_tuning(responses, dictionary.encode, device), *axes)
    chosen = [(units, m) for m in units.members] + [(latents, m) for m in config.latents]
    if len(chosen) < 2:
        raise ConfigError(
            f"joint tuning wants two curve detectors, and {sources.site} has {len(chosen)}; "
            "lower --resultant or raise --echo, or name --latents."
        )
    return [
        Detector(family.kind, m, family.orientation(m), float(family.scores.width[m]))
        for family, m in chosen
    ]


def turn_and_record(
    config: JointConfig,
    sources: Sources,
    window: Window,
    best: Sequence[Sequence[Row]],
    respond: Any,
    device: torch.device,
) -> list[Float[np.ndarray, "i a m"]]:
    """For each detector the responses of all of them to its patches at every turn."""
    store, images, site = sources.store, sources.images, sources.site
    assert store is not None and images is not None
    angles_A = np.arange(round(360 / config.step)) * config.step
    warp = Warp(Dihedral(1, reflections=False), window.size, window.colour, device)
    inputs, ys, xs = (store.column(name) for name in ("input", "y", "x"))
    drawn_on, grid = store.grid(store.sites[0]), store.grid(site)
    found: list[np.ndarray] = []
    with ExitStack() as stack:
        stack.enter_context(exact_arithmetic())
        stack.enter_context(torch.inference_mode())
        read = stack.enter_context(window.reading(PATCHES))
        bar = tqdm(best, "turning patches", mininterval=0.5 if sys.stderr.isatty() else 20)
        for rows in bar:
            recorded = []
            for row in rows:
                pixels = images.load(int(inputs[row.number]), sources.subject.input_size)
                image = torch.from_numpy(pixels).to(device).permute(2, 0, 1).float() / 255
                y, x = (
                    (2 * int(at[row.number]) + 1) * grid[axis] // (2 * drawn_on[axis])
                    for axis, at in enumerate((ys, xs))
                )
                centres = np.repeat(np.array([window.centre(y, x)]), len(angles_A), 0)
                parts = []
                for start in range(0, len(angles_A), PATCHES):
                    some = slice(start, start + PATCHES)
                    patches = warp.turned(image, centres[some], angles_A[some])
                    parts.append(read(patches)[site].float().cpu().numpy())
                recorded.append(respond(np.concatenate(parts)))
            count = len(best)
            found.append(np.stack(recorded) if rows else np.zeros((0, len(angles_A), count)))
    return found


def align(responses_IAM: Float[np.ndarray, "i a m"], own: int) -> Float[np.ndarray, "a m"]:
    """Every patch's responses turned so that its own detector's peak comes first, then the mean
    over patches. The peak is the circular mean direction of the responses from half the
    maximum on, to the nearest turn: a flat or ragged top has its middle."""
    count = responses_IAM.shape[1]
    if not len(responses_IAM):
        return np.zeros(responses_IAM.shape[1:])
    turned = []
    for responses_AM in responses_IAM:
        own_A = np.maximum(responses_AM[:, own], 0)
        high_A = np.where(own_A >= 0.5 * own_A.max(), own_A, 0)
        peak = np.angle(high_A @ np.exp(2j * np.pi * np.arange(count) / count))
        turned.append(np.roll(responses_AM, -round(peak / (2 * np.pi) * count), axis=0))
    return np.asarray(np.mean(turned, axis=0))


def combine(
    detectors: Sequence[Detector],
    curves: Sequence[Float[np.ndarray, "a m"]],
    patches: Sequence[int],
    order: Sequence[int],
) -> Joint:
    """Detectors in the order of their orientation; responses over each one's own maximum.

    Detectors without a patch, which never fire in the store, and those that no turned patch
    excites, once it fades towards its rim, are left out. Raises ConfigError where fewer than
    two remain: there is nothing to align then.
    """
    kept = [int(i) for i in order if patches[int(i)] and curves[int(i)][:, int(i)].max() > 0]
    if len(kept) < 2:
        raise ConfigError(
            f"joint tuning wants two detectors that their own turned patches excite, and of "
            f"{len(curves)} there are {len(kept)}; name other --latents, or harvest more inputs."
        )
    stacked = np.stack([curves[i][:, kept] for i in kept])
    own_M = np.array([stacked[m, :, m].max() for m in range(len(kept))])
    by_place = dict(zip([int(i) for i in order], detectors, strict=True))
    return Joint(
        [by_place[i] for i in kept],
        np.maximum(stacked, 0) / np.maximum(own_M, 1e-30),
        [patches[i] for i in kept],
    )


def joint_figures(joint: Joint) -> dict[str, Any]:
    """The figures of the command's result."""
    errors, widths = joint.errors(), joint.widths
    synthetic = np.array([d.width for d in joint.detectors])
    return {
        "detectors": [
            {
                d.kind: d.index,
                "orientation": round(d.orientation, 1),
                "off": round(float(error), 1),
                "width": round(d.width, 1),
                "width_on_photographs": round(float(width), 1),
                "patches": n,
            }
            for d, error, width, n in zip(
                joint.detectors, errors, widths, joint.patches, strict=True
            )
        ],
        "median_off": round(float(np.median(np.abs(errors))), 2),
        "worst_off": round(float(np.abs(errors).max()), 2),
        "median_width": round(float(np.median(synthetic)), 1),
        "median_width_on_photographs": round(float(np.median(widths)), 1),
    }


def command(config: JointConfig, sources: Sources) -> str:
    """The command that makes this page again, in words that name no folder of a machine."""
    assert sources.run is not None
    words = ["tendril", "study", "joint", "--run", sources.run.resolve().name]
    words += ["--images", str(config.images), "--step", f"{config.step:g}"]
    words += ["--orientation-step", f"{config.orientation_step:g}"]
    words += ["--radii", *(f"{radius:g}" for radius in config.radii)] if config.radii else []
    words += ["--latents", *map(str, config.latents)] if config.latents else []
    return shlex.join(words)
