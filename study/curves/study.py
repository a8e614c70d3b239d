"""The study of curve detectors: which units and latents answer to curves of one orientation."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from tendril.data.errors import RunDamagedError
from tendril.models.dictionaries.checkpoint import (
    RESULT,
    check_files,
    load_sae,
)
from tendril.models.dictionaries.checkpoint import read_figures as figures_of
from tendril.models.dictionaries.sae import SAE
from tendril.models.sites.receptive import ReceptiveField, receptive_field
from tendril.models.subjects.subject import Subject

from ..core.study import Study
from ..core.vision_inputs import VisionInputs, find_vision_inputs
from ..measures.curve_family import CurveFamily, latent_family, unit_family
from ..measures.gap_chance import p_text
from ..measures.image_examples import cut_patches, strongest_rows
from ..measures.tuning import site_parts
from . import page
from .config import CurvesConfig
from .findings import Findings, Truth


@final
class CurvesStudy(Study[CurvesConfig, VisionInputs, Findings]):
    """Find the curve detectors of a site and of a dictionary trained there.

    The report holds units.csv, latents.csv and tuning.npz (responses [A, Q, E, D] and the grid).
    Source: Cammarata et al., "Curve Detectors", Distill 2020.
    """

    name = "curves"
    version = 4
    config = CurvesConfig

    def find(self, config: CurvesConfig) -> VisionInputs:
        return find_vision_inputs(
            config, config.run, config.site, images=config.examples > 0, field_for=self.name
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
            truths=planted_truths(subject, site, families, parts, dictionary),
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
        if "planted" in figures:
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


def planted_truths(
    subject: Subject,
    site: str,
    families: Sequence[CurveFamily],
    parts: Mapping[str, range],
    dictionary: SAE | None,
) -> list[Truth]:
    """The curve detectors planted in an embedded subject, each with the nearest found, and with
    the latent whose decoder row points most along what was planted."""
    home = "mixed3b_5x5"  # where units are numbered as the truth numbers them
    first = 0 if site == home else parts[home].start if home in parts else None
    truths = []
    for name, angle, planted_D in planted_curves(subject):
        aligned = None
        if dictionary is not None and first is not None:
            W_SD = functional.normalize(dictionary.W_dec.detach().float(), dim=1).cpu()
            cosine, latent = (W_SD[:, first : first + len(planted_D)] @ planted_D).max(dim=0)
            aligned = int(latent), float(cosine)
        found = {str(family.kind): family.nearest(angle) for family in families}
        truths.append(Truth(unit_of(planted_D), angle, found, aligned, name))
    return sorted(truths, key=lambda truth: truth.orientation)


def planted_curves(subject: Subject) -> list[tuple[str, float, Float[Tensor, " d"]]]:
    """Name, orientation and direction in mixed3b_5x5 of the curves of an embedded subject."""
    if subject.name == "handmade":
        from tendril.models.subjects.synthetic.handmade import PLANTED

        units = torch.eye(len(PLANTED))
        return [
            (f"unit {p.unit}", p.orientation, units[p.unit])
            for p in PLANTED
            if p.kind == "curve" and p.orientation is not None
        ]
    if subject.name == "planted":
        from tendril.models.subjects.synthetic.planted import FEATURES, directions

        there_FD = torch.from_numpy(directions()).float()
        return [
            (_called(i, there_FD[i]), f.orientation, there_FD[i])
            for i, f in enumerate(FEATURES)
            if f.kind == "curve" and f.orientation is not None
        ]
    return []


def unit_of(planted_D: Float[Tensor, " d"]) -> int | None:
    """The unit that a planted direction lies along; None if it lies along several."""
    on = planted_D.nonzero().flatten().tolist()
    return int(on[0]) if len(on) == 1 else None


def _called(number: int, planted_D: Float[Tensor, " d"]) -> str:
    unit = unit_of(planted_D)
    return f"feature {number}" if unit is None else f"unit {unit}"


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
