"""The study of curve detectors: which units and latents answer to curves of one orientation."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float

from tendril.data.errors import RunDamagedError
from tendril.models.dictionaries.checkpoint import (
    RESULT,
    check_files,
    load_sae,
)
from tendril.models.dictionaries.checkpoint import read_figures as figures_of
from tendril.models.dictionaries.sae import SAE
from tendril.models.sites.receptive import ReceptiveField, receptive_field

from ..core.study import Study
from ..core.vision_inputs import VisionInputs, find_vision_inputs, whole_images
from ..measures.curve_family import CurveFamily, latent_family, unit_family
from ..measures.gap_chance import p_text
from ..measures.image_examples import cut_patches, strongest_rows
from ..measures.tuning import site_parts
from . import page
from .config import CurvesConfig
from .findings import Findings
from .planted import continuous, planted_truths, write_truths


@final
class CurvesStudy(Study[CurvesConfig, VisionInputs, Findings]):
    """Find the curve detectors of a site and of a dictionary trained there.

    The report holds units.csv, latents.csv, tuning.npz (responses [A, Q, E, D] and the grid) and,
    of a network whose curves were planted, planted.csv.
    Source: Cammarata et al., "Curve Detectors", Distill 2020.
    """

    name = "curves"
    version = 5
    config = CurvesConfig

    def find(self, config: CurvesConfig) -> VisionInputs:
        examples = config.examples > 0
        return whole_images(
            find_vision_inputs(
                config, config.run, config.site, images=examples, field_for=self.name
            )
        )

    def identity(self, config: CurvesConfig, inputs: VisionInputs) -> Mapping[str, Any]:
        return inputs.identity()

    def title(self, config: CurvesConfig, inputs: VisionInputs) -> str:
        return f"Curve detectors at {inputs.site} of {inputs.subject.name}"

    def label(self, config: CurvesConfig, inputs: VisionInputs) -> str:
        return f"{inputs.subject.name}-{inputs.site}"

    def resolved(self, config: CurvesConfig, inputs: VisionInputs) -> CurvesConfig:
        if inputs.run:
            return super().resolved(replace(config, run=str(inputs.run)), inputs)
        subject = config.subject or inputs.subject.name
        return replace(config, run="", site=inputs.site, subject=subject)

    def compute(self, config: CurvesConfig, inputs: VisionInputs, device: torch.device) -> Findings:
        subject, site, run = inputs.subject, inputs.site, inputs.run
        field = receptive_field(subject, site)
        families = [unit_family(subject, site, config.curves, device)]
        dictionary = load_sae(run).to(device) if run else None
        if dictionary is not None:
            families.append(latent_family(families[0], dictionary, device))
        families = with_examples(families, inputs, dictionary, field, config.examples, device)
        parts = site_parts(subject, site, device)
        return Findings(
            subject=subject.name,
            site=site,
            units=families[0],
            latents=families[1] if dictionary is not None else None,
            branches=parts,
            receptive_field=max(field.size),
            run=run.name if run else "",
            metrics=read_metrics(run / "metrics.csv") if run else {},
            trained=read_figures(run / RESULT) if run else {},
            examples_note=inputs.no_images,
            truths=planted_truths(subject.name, site, families, parts, dictionary),
            continuous=continuous(subject.name),
        )

    def figures(self, findings: Findings) -> dict[str, Any]:
        return findings.figures()

    def headline(self, figures: Mapping[str, Any]) -> str:
        units, latents = len(figures["curve_units"]), figures["gap_latents"]
        text = f"{units} curve units, widest gap {figures['gap_units']:.0f} degrees"
        text += _chance(figures["chance_units"])
        if latents is not None:
            text += f"; {len(figures['curve_latents'])} curve latents, gap {latents:.0f} degrees"
            text += _chance(figures["chance_latents"])
        if "represented" in figures:
            text += (
                f"; {figures['represented']} of {figures['planted']} planted curves have a latent "
                f"along them (chance {figures['represented_by_chance']:.0f})"
            )
        elif "planted" in figures:
            text += f"; {figures['recovered_latents']} of {figures['planted']} planted recovered"
        return f"{text}."

    def write_tables(self, findings: Findings, folder: Path) -> None:
        units = findings.units
        arrays: dict[str, Any] = {f"{f.kind}s": f.responses for f in findings.families}
        arrays |= {
            "orientations": units.orientations,
            "radii": units.radii,
            "styles": units.styles,
        }
        np.savez_compressed(folder / "tuning.npz", **arrays)
        for family in findings.families:
            family.write_csv(folder / f"{family.kind}s.csv")
        if findings.truths:
            write_truths(findings, folder / "planted.csv")

    def page(
        self, config: CurvesConfig, inputs: VisionInputs, findings: Findings
    ) -> Mapping[str, Any]:
        return page.context(findings)


def _chance(chances: Mapping[str, Any] | None) -> str:
    """The chance level of a widest gap, in brackets."""
    if not chances:
        return ""
    gap = chances["gap"]
    return f" (chance {gap['mean']:.0f}, {p_text(gap['p'])})"


def with_examples(
    families: Sequence[CurveFamily],
    inputs: VisionInputs,
    dictionary: SAE | None,
    field: ReceptiveField,
    count: int,
    device: torch.device,
) -> list[CurveFamily]:
    """The families with the patches that excite their curve detectors most.

    One pass over the store serves units and latents.
    """
    store, images = inputs.store, inputs.images
    if store is None or images is None:
        return list(families)
    members = [family.members for family in families]

    def respond(x_ND: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n m"]:
        columns = [x_ND[:, members[0]]]
        if dictionary is not None:
            with torch.inference_mode():
                z_NS = dictionary.encode(torch.from_numpy(x_ND).to(device))
            columns.append(z_NS[:, members[1]].float().cpu().numpy())
        return np.concatenate(columns, axis=1)

    best = strongest_rows(store, inputs.site, respond, sum(map(len, members)), count)
    size = inputs.subject.input_size
    patches = iter(cut_patches(store, inputs.site, field, images, size, best))
    return [
        replace(family, patches={member: next(patches) for member in family.members})
        for family in families
    ]


def read_metrics(path: Path) -> dict[str, list[float]]:
    """The columns of a run's metrics.csv; empty where there is none."""
    if not path.is_file():
        return {}
    check_files(path.parent, path.name)
    try:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        names = rows[0] if rows else ()
        return {name: [float(row[name] or "nan") for row in rows] for name in names}
    except (csv.Error, ValueError, TypeError) as error:
        raise RunDamagedError(
            f"{path} must be a table of numbers; got something else ({error}). Train the run again."
        ) from error


def read_figures(path: Path) -> dict[str, float]:
    """The numbers in a run's result.json; empty where it has not ended."""
    result = figures_of(path.parent) if path.is_file() else {}
    return {name: float(value) for name, value in result.items() if isinstance(value, int | float)}
