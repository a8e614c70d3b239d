"""The study of symmetry: stabilisers and families of the latents of a group crosscoder."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import numpy as np
import torch

from tendril.data.cli import need
from tendril.data.errors import RunNotFoundError, TendrilError
from tendril.models.dictionaries.checkpoint import load_dictionary
from tendril.models.dictionaries.sae import SAE, Stored
from tendril.models.sites.window import ReceptivePatch, find_receptive_patch

from ..core.report import write_records
from ..core.stores import store_of_run
from ..core.study import Study
from ..core.vision_inputs import VisionInputs, find_vision_inputs, training_remark
from ..measures.image_examples import Patch
from ..measures.latent_maps import latent_maps
from ..measures.orbit_examples import pose_normalised_patches, strongest_anchors
from ..measures.pose_images import pose_images
from ..measures.shape_stimuli import ShapeTuning, shape_tuning
from . import page, tables
from .config import SymmetryConfig
from .findings import SymmetryFindings
from .race import race
from .runs import OrbitRun, analyse_run, find_control, orbit_run, reading_identity


@final
@dataclass(frozen=True)
class SymmetryInputs:
    """The run studied, its subject and images, and the controls."""

    vision: VisionInputs
    studied: OrbitRun
    controls: tuple[OrbitRun, ...]


@final
class SymmetryStudy(Study[SymmetryConfig, SymmetryInputs, SymmetryFindings]):
    """Find what fixes each latent, which latents are copies, and how good the families are.

    The report holds latents.csv, families.csv and blocks.npz: correlation [F, G], fractions [F, H],
    and the blocks of the heads of the families shown.
    Source: Gorton, Group crosscoders (2410.24184).
    """

    name = "symmetry"
    version = 8
    config = SymmetryConfig

    def find(self, config: SymmetryConfig) -> SymmetryInputs:
        if config.visualise:
            need("--visualise above 0", "lucent")
        vision = find_vision_inputs(
            config, config.run, images=config.examples > 0, field_for=self.name
        )
        if vision.run is None:
            raise RunNotFoundError(
                f"--run must name a run of {vision.subject.name}; there is none. Train one with "
                "`tendril train group_crosscoder`, for example."
            )
        store = vision.store or store_of_run(vision.run, config.home, config.store)
        studied = orbit_run(vision.run, store, vision.site)
        controls = tuple(find_control(name, config.home, studied) for name in config.controls)
        return SymmetryInputs(vision, studied, controls)

    def identity(self, config: SymmetryConfig, inputs: SymmetryInputs) -> Mapping[str, Any]:
        return {
            **inputs.vision.identity(),
            "group": inputs.studied.group.name,
            "controls": [control.identity() for control in inputs.controls],
        }

    def remarks(self, config: SymmetryConfig, inputs: SymmetryInputs) -> list[str]:
        vision = inputs.vision
        found = vision.remarks()
        if vision.images is None:  # anchors are drawn from the store's rows all the same
            found += training_remark(inputs.studied.store, inputs.studied.trained)
        return found

    def title(self, config: SymmetryConfig, inputs: SymmetryInputs) -> str:
        return f"Symmetries at {inputs.vision.site} of {inputs.vision.subject.name}"

    def label(self, config: SymmetryConfig, inputs: SymmetryInputs) -> str:
        return f"{inputs.vision.subject.name}-{inputs.vision.site}"

    def resolved(self, config: SymmetryConfig, inputs: SymmetryInputs) -> SymmetryConfig:
        return super().resolved(replace(config, run=str(inputs.studied.folder)), inputs)

    def compute(
        self, config: SymmetryConfig, inputs: SymmetryInputs, device: torch.device
    ) -> SymmetryFindings:
        vision, studied = inputs.vision, inputs.studied
        dictionary = load_dictionary(studied.folder)
        analysis = analyse_run(studied, dictionary, config.anchors, config.thresholds)
        raced = [(studied, dictionary, analysis)]
        for run in inputs.controls:
            other = load_dictionary(run.folder)
            one = analyse_run(run, other, config.anchors, config.thresholds)
            raced.append((run, other, one))
        controls = [one for _, _, one in raced[1:]]
        methods = race(raced, config.orbits, config.test, config.anchors, config.thresholds)
        if studied.single and isinstance(dictionary, SAE):
            blocks_SGD = torch.zeros(dictionary.latents, len(studied.group), dictionary.width)
            blocks_SGD[torch.from_numpy(analysis.latents)] = torch.from_numpy(analysis.blocks)
            dictionary = reading_identity(dictionary, blocks_SGD)
        findings = SymmetryFindings(
            subject=vision.subject.name,
            site=vision.site,
            analysis=analysis,
            controls=controls,
            tuning=None,
            margin=config.margin,
            shown=config.families,
            maps=latent_maps(analysis.likeness, umap=config.umap),
            race=methods,
        )
        notes = [*methods.notes, *([] if vision.images else [vision.no_images])]
        try:
            patch = find_receptive_patch(vision.subject, studied.store.sites)
            tuning = tuning_of(config, inputs, dictionary, patch, findings, device)
        except TendrilError as error:
            shapes = f"No shapes were shown to the subject ({error})."
            return replace(findings, notes=[shapes, *notes])
        findings = replace(findings, tuning=tuning, notes=notes)
        if config.visualise:
            findings = with_images(findings, config.visualise, vision, device)
        return replace(findings, patches=examples(findings, config, inputs, dictionary, patch))

    def figures(self, findings: SymmetryFindings) -> dict[str, Any]:
        return findings.figures()

    def headline(self, figures: Mapping[str, Any]) -> str:
        what = "tied families" if figures["tied"] else "latents"
        mirrored = figures["classes"].get("one reflection", 0)
        text = f"{figures['latents_alive']} of {figures['latents_total']} {what} fire; one "
        text += f"reflection fixes {mirrored}"
        if figures["names"]:
            text += f", {figures['names'].get('curve', 0)} of them curves"
        several = "of duplicates" if figures["tied"] else "with several members"
        return f"{text}; {figures['families_of_several']} families {several}."

    def table(self, figures: Mapping[str, Any]) -> str:
        return tables.terminal(figures)

    def write_tables(self, findings: SymmetryFindings, folder: Path) -> None:
        analysis, heads = findings.analysis, np.array(findings.heads, np.int64)
        np.savez_compressed(
            folder / "blocks.npz",
            latents=analysis.latents,
            correlation=analysis.symmetry.correlation,
            fractions=analysis.symmetry.fractions,
            subgroups=np.array([f"{h.kind}:{h.axis}" for h in analysis.symmetry.subgroups]),
            heads=analysis.latents[heads],
            blocks=analysis.blocks[heads],
        )
        write_records(folder / "latents.csv", findings.listing)
        write_records(folder / "families.csv", findings.family_listing())

    def page(
        self, config: SymmetryConfig, inputs: SymmetryInputs, findings: SymmetryFindings
    ) -> Mapping[str, Any]:
        return page.context(findings)


def tuning_of(
    config: SymmetryConfig,
    inputs: SymmetryInputs,
    dictionary: Stored,
    patch: ReceptivePatch,
    findings: SymmetryFindings,
    device: torch.device,
) -> ShapeTuning:
    """Responses of the rows of the analysis to drawn shapes."""
    site, group = inputs.studied.site, inputs.studied.group
    tuning = shape_tuning(dictionary, patch, site, group, config.radii, config.line_width, device)
    return replace(tuning, z_QAS=tuning.z_QAS[..., findings.analysis.latents])


def with_images(
    findings: SymmetryFindings, count: int, vision: VisionInputs, device: torch.device
) -> SymmetryFindings:
    """The findings with feature visualisations of the heads of the `count` largest families."""
    analysis = findings.analysis
    heads = [family.head for family in findings.families[:count]]
    images = pose_images(
        vision.subject, vision.site, analysis.group, analysis.blocks[heads], device
    )
    shown = {head: made for head, made in zip(heads, images, strict=True) if made}
    silent = len(heads) - len(shown)
    note = (
        f"For {silent} of {len(heads)} families no image could be made, because the site does not "
        "respond to the noise from which images start."
    )
    notes = [*findings.notes, note] if silent else findings.notes
    return replace(findings, visualised=shown, notes=notes)


def examples(
    findings: SymmetryFindings,
    config: SymmetryConfig,
    inputs: SymmetryInputs,
    dictionary: Stored,
    patch: ReceptivePatch,
) -> dict[int, list[Patch]]:
    """By head of a family shown: the patches that excite it most, pose-normalised."""
    vision, store = inputs.vision, inputs.studied.store
    if vision.images is None:
        return {}
    latents = [int(findings.analysis.latents[head]) for head in findings.heads]
    best = strongest_anchors(store, vision.site, dictionary, latents, config.examples)
    patches = pose_normalised_patches(
        store,
        vision.site,
        dictionary,
        vision.images,
        patch,
        vision.subject.input_size,
        best,
        latents,
        [findings.orientations[head] or 0.0 for head in findings.heads],
    )
    return dict(zip(findings.heads, patches, strict=True))
