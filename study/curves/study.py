"""The study of curve detectors: sources in, findings, tables and a page out."""

import csv
import math
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from tendril.data.device import resolve_device
from tendril.models.dictionaries.checkpoint import DICTIONARY, load_sae, read_config, read_json
from tendril.models.dictionaries.sae import SAE
from tendril.models.sites.receptive import ReceptiveField, receptive_field
from tendril.models.subjects.subject import Subject

from ..core.report import Report, StudyResult, file_digest, report_of
from ..core.vision_inputs import Sources, find_sources
from ..measures.curve_stimuli import CurveGrid
from ..measures.image_examples import cut_patches, strongest_rows
from ..measures.tuning import latent_tuning, site_parts, unit_tuning
from .config import REFERENCE_FIELD, CurvesConfig
from .findings import Family, Findings, Truth
from .page import render_page

FORMAT = 2  # raised when the same sources would give another page
RESULT = "result.json"


def study_curves(config: CurvesConfig) -> StudyResult:
    """Find the curve detectors of a site and of a dictionary trained there, and make a page.

    The report's folder is `<home>/reports/<name>-<12 hex of SHA-256 of what determines it>`;
    one that is there already is given back. It holds index.html, units.csv, latents.csv,
    tuning.npz (responses [A, Q, E, D] and the grid) and, last, result.json. Raises children of
    TendrilError for all that the config, its paths or its files can cause.
    """
    began = time.monotonic()
    config.check()
    device = resolve_device(config.device)
    sources = find_sources(config)
    field = receptive_field(sources.subject, sources.site)
    grid = curve_grid(config, sources.subject, field)
    made = determinants(config, sources, grid, field)
    report = report_of(
        config.home, config.name or f"curves-{sources.subject.name}-{sources.site}", made
    )
    known = None if config.overwrite else report.figures()
    if known is not None:
        return StudyResult(report.page, known, _since(began), reused=True)
    findings = find_curves(config, sources, grid, field, made, device)
    figures = findings.figures()
    write_report(report, findings, figures)
    return StudyResult(report.page, figures, _since(began))


def curve_grid(config: CurvesConfig, subject: Subject, field: ReceptiveField) -> CurveGrid:
    """The curves to show: those asked for, or the usual ones, their radii doubled or halved to
    suit the receptive field. Sites of like fields see the same curves, and can be compared."""
    grid = CurveGrid(orientations=config.orientations, line_width=config.line_width)
    if config.radii:
        return replace(grid, radii=tuple(sorted(config.radii)))
    octaves = round(math.log2(min(max(field.size), subject.input_size) / REFERENCE_FIELD))
    return replace(grid, radii=tuple(round(radius * 2.0**octaves, 2) for radius in grid.radii))


def determinants(
    config: CurvesConfig, sources: Sources, grid: CurveGrid, field: ReceptiveField
) -> dict[str, Any]:
    """All that determines the report."""
    run, store, images = sources.run, sources.store, sources.images
    return {
        "format": FORMAT,
        "subject": dict(sources.subject.identity),
        "site": sources.site,
        "receptive_field": {"size": list(field.size), "centre": list(field.centre)},
        "run": run.name if run else None,
        "dictionary": file_digest(run / DICTIONARY) if run else None,
        "grid": {
            "orientation_step": config.orientation_step,
            "radii": list(grid.radii),
            "styles": list(grid.styles),
            "line_width": grid.line_width,
        },
        "thresholds": asdict(config.thresholds),
        "examples": {"count": config.examples, "store": store.name if store else None}
        if images
        else None,
    }


def find_curves(
    config: CurvesConfig,
    sources: Sources,
    grid: CurveGrid,
    field: ReceptiveField,
    made: Mapping[str, Any],
    device: torch.device,
) -> Findings:
    """Measure units and latents, and gather what the page shows of them."""
    subject, site, run = sources.subject, sources.site, sources.run
    orientations, radii = np.array(grid.orientations), np.array(grid.radii)

    def family(kind: Literal["unit", "latent"], responses: np.ndarray) -> Family:
        return Family(kind, responses, orientations, radii, grid.styles, config.thresholds)

    responses = unit_tuning(subject, site, field, grid, device)
    families = [family("unit", responses)]
    dictionary = load_sae(run).to(device) if run else None
    if dictionary is not None:
        families.append(family("latent", latent_tuning(responses, dictionary.encode, device)))
    families = with_examples(families, sources, dictionary, field, config.examples, device)
    parts = site_parts(subject, site, device)
    return Findings(
        title=f"Curve detectors at {site} of {subject.name}",
        subject=subject.name,
        site=site,
        units=families[0],
        latents=families[1] if dictionary is not None else None,
        branches=parts,
        receptive_field=max(field.size),
        run=run.name if run else "",
        metrics=read_metrics(run / "metrics.csv") if run else {},
        trained=read_figures(run / RESULT) if run else {},
        examples_note=sources.no_images,
        truths=planted_truths(subject, site, families, parts, dictionary),
        command=command(config, sources),
        made={
            "study": made,
            "run": read_config(run) if run else None,
            "store": sources.store.spec if sources.store else None,
        },
    )


def with_examples(
    families: Sequence[Family],
    sources: Sources,
    dictionary: SAE | None,
    field: ReceptiveField,
    count: int,
    device: torch.device,
) -> list[Family]:
    """The families with the patches that excite their curve detectors most.

    One pass over the store serves units and latents.
    """
    store, images = sources.store, sources.images
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

    best = strongest_rows(store, sources.site, respond, sum(map(len, members)), count)
    size = sources.subject.input_size
    patches = iter(cut_patches(store, sources.site, field, images, size, best))
    return [
        replace(family, patches={member: next(patches) for member in family.members})
        for family in families
    ]


def planted_truths(
    subject: Subject,
    site: str,
    families: Sequence[Family],
    parts: Mapping[str, range],
    dictionary: SAE | None,
) -> list[Truth]:
    """The curve detectors planted in an embedded subject, each with the nearest found, and with
    the latent whose decoder row points most along what was planted."""
    home = "mixed3b_5x5"  # where units are numbered as the truth numbers them
    first = 0 if site == home else parts[home].start if home in parts else None
    truths = []
    for angle, planted_D in planted_curves(subject):
        aligned = None
        if dictionary is not None and first is not None:
            W_SD = functional.normalize(dictionary.W_dec.detach().float(), dim=1).cpu()
            cosine, latent = (W_SD[:, first : first + len(planted_D)] @ planted_D).max(dim=0)
            aligned = int(latent), float(cosine)
        found = {str(family.kind): family.nearest(angle) for family in families}
        truths.append(Truth(int(planted_D.argmax()), angle, found, aligned))
    return sorted(truths, key=lambda truth: truth.orientation)


def planted_curves(subject: Subject) -> list[tuple[float, Float[Tensor, " d"]]]:
    """Orientation and direction in mixed3b_5x5 of the curves of an embedded subject."""
    if subject.name == "handmade":
        from tendril.models.subjects.synthetic.handmade import PLANTED

        units = torch.eye(len(PLANTED))
        return [
            (p.orientation, units[p.unit])
            for p in PLANTED
            if p.kind == "curve" and p.orientation is not None
        ]
    if subject.name == "planted":
        from tendril.models.subjects.synthetic.planted import FEATURES, directions

        there_FD = torch.from_numpy(directions()).float()
        return [
            (f.orientation, there_FD[i])
            for i, f in enumerate(FEATURES)
            if f.kind == "curve" and f.orientation is not None
        ]
    return []


def write_report(report: Report, findings: Findings, figures: Mapping[str, Any]) -> None:
    """Write everything a report holds, its result last."""
    folder = report.begin()
    units = findings.units
    arrays: dict[str, Any] = {f"{family.kind}s": family.responses for family in findings.families}
    arrays |= {"orientations": units.orientations, "radii": units.radii, "styles": units.styles}
    np.savez_compressed(folder / "tuning.npz", **arrays)
    for family in findings.families:
        family.write_csv(folder / f"{family.kind}s.csv")
    report.write(render_page(findings), figures)


def read_metrics(path: Path) -> dict[str, list[float]]:
    """The columns of a run's metrics.csv; empty where there is none."""
    if not path.is_file():
        return {}
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: [float(row[name] or "nan") for row in rows] for name in (rows[0] if rows else ())}


def read_figures(path: Path) -> dict[str, float]:
    """The numbers in a run's result.json; empty where it has not ended."""
    told = read_json(path) if path.is_file() else {}
    return {name: float(value) for name, value in told.items() if isinstance(value, int | float)}


def command(config: CurvesConfig, sources: Sources) -> str:
    """The command that makes this page again, in words that name no folder of this machine."""
    words = ["tendril", "study", "curves", "--run", sources.run.name if sources.run else ""]
    if sources.run is None:
        words += ["--subject", config.subject or sources.subject.name, "--site", sources.site]
        words += ["--weights", Path(config.weights).name] if config.weights else []
    default = CurvesConfig()
    if config.orientation_step != default.orientation_step:
        words += ["--orientation-step", f"{config.orientation_step:g}"]
    if config.radii:
        words += ["--radii", *(f"{radius:g}" for radius in config.radii)]
    for name, value in asdict(config.thresholds).items():
        if value != getattr(default.thresholds, name):
            words += [f"--{name}", f"{value:g}"]
    return shlex.join(words)


def _since(began: float) -> float:
    return round(time.monotonic() - began, 2)
