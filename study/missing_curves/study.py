"""The study of missing curve detectors: do latents of several dictionaries fill the gaps that
the units leave, do they take polysemantic units apart, and do their rows lie on a circle?

Source: Gorton, The Missing Curve Detectors of InceptionV1 (arXiv 2406.03662).
"""

import shlex
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from tendril.data.device import resolve_device
from tendril.data.errors import ConfigError
from tendril.data.home import find_run
from tendril.data.store.reader import BATCH_DEFAULTS, BatchOptions, Store
from tendril.data.store.spec import canonical_json
from tendril.models.dictionaries.checkpoint import DICTIONARY, RESULT, load_sae
from tendril.models.dictionaries.checkpoint import read_config as read_run
from tendril.models.dictionaries.sae import SAE
from tendril.models.sites.receptive import ReceptiveField, receptive_field

from ..core.report import file_digest, report_of, sources_config
from ..core.vision_inputs import Sources, find_sources
from ..curves.findings import Family
from ..curves.study import curve_grid, read_figures
from ..measures.circle import measure_circle, umap_then_pca
from ..measures.image_examples import cut_patches, strongest_rows
from ..measures.tuning import latent_tuning, unit_tuning
from ..page.render import render
from .config import MissingConfig
from .decompose import Piece, doubled, peaks, take_apart
from .findings import Site, TakenApart, Trained, site_figures
from .page import site_context

FORMAT = 3  # raised when the same sources would give another page
STRONG = 0.25
"""Least maximum of a unit that is taken apart, as a share of the strongest one's."""


def study_missing(config: MissingConfig) -> dict[str, Any]:
    """Hold the curve latents of every run against the curve units of its site; make a page.

    Raises children of TendrilError for all that the config, its paths or its files can cause.
    """
    began = time.monotonic()
    config.check()
    device = resolve_device(config.device)
    folders = [find_run(run, config.home) for run in config.run]
    made = {
        "format": FORMAT,
        "runs": [[f.resolve().name, file_digest(f / DICTIONARY)] for f in folders],
        **{k: v for k, v in asdict(config).items() if k in DETERMINE},
    }
    report = report_of(config.home, config.name or "missing", made)
    figures = None if config.overwrite else report.figures()
    reused = figures is not None
    if figures is None:
        sites = find_missing(config, folders, device)
        figures = {"sites": [site_figures(site) for site in sites]}
        context = {"sites": [site_context(site) for site in sites], "command": command(folders)}
        report.write(render(Path(__file__).parent, context), figures)
    seconds = round(time.monotonic() - began, 2)
    return {"report": str(report.page), **figures, "seconds": seconds, "reused": reused}


DETERMINE = {
    *("units", "most_units", "pieces", "rows", "examples", "umap", "orientation_step"),
    *("radii", "thresholds"),
}


def find_missing(
    config: MissingConfig, folders: Sequence[Path], device: torch.device
) -> list[Site]:
    """Every site of every subject that the runs are of, in the order of the runs."""
    groups: dict[str, list[tuple[Path, Sources]]] = {}
    for folder in folders:
        sources = find_sources(sources_config(config, str(folder)))
        key = canonical_json({"subject": dict(sources.subject.identity), "site": sources.site})
        groups.setdefault(key, []).append((folder, sources))
    return [_site(config, members, device) for members in groups.values()]


def _site(
    config: MissingConfig, members: Sequence[tuple[Path, Sources]], device: torch.device
) -> Site:
    sources = members[0][1]
    field = receptive_field(sources.subject, sources.site)
    asked = replace(
        sources_config(config, ""),
        orientation_step=config.orientation_step,
        radii=config.radii,
        thresholds=config.thresholds,
    )
    grid = curve_grid(asked, sources.subject, field)
    units = Family(
        "unit",
        unit_tuning(sources.subject, sources.site, field, grid, device),
        np.array(grid.orientations),
        np.array(grid.radii),
        grid.styles,
        config.thresholds,
    )
    runs = [_trained(folder, units, device) for folder, _ in members]
    site = Site(sources.site, _subject_words(sources), units, runs, (), None)
    rows_SD = site.pooled[0]
    return replace(
        site,
        apart=_apart(config, sources, site, field, device),
        umap=umap_then_pca(rows_SD) if config.umap and len(rows_SD) >= 6 else None,
    )


def _subject_words(sources: Sources) -> str:
    weights = str(sources.subject.identity.get("weights", ""))[:8]
    return f"{sources.subject.name} {weights}".strip()


def _trained(folder: Path, units: Family, device: torch.device) -> Trained:
    config = read_run(folder)
    dictionary = load_sae(folder).to(device)
    responses = latent_tuning(units.responses, dictionary.encode, device)
    family = replace(units, kind="latent", responses=responses)
    rows = dictionary.W_dec.detach().float().cpu().numpy()[family.members]
    angles = [family.orientation(m) for m in family.members]
    return Trained(
        folder.resolve().name,
        str(config.get("objective", "")),
        int(config.get("seed", 0)),
        float(config.get("held_out", BATCH_DEFAULTS["held_out"])),
        read_figures(folder / RESULT).get("fvu", float("nan")),
        dictionary,
        family,
        measure_circle(rows, angles),
    )


def _apart(
    config: MissingConfig,
    sources: Sources,
    site: Site,
    field: ReceptiveField,
    device: torch.device,
) -> list[TakenApart]:
    """The units with two peaks, or those asked for, taken apart by the first trained run."""
    chosen = list(config.units) or polysemantic(site.units)[: config.most_units]
    if not chosen or not site.trained or sources.store is None:
        return []
    width = site.units.responses.shape[-1]
    if max(chosen) >= width or min(chosen) < 0:
        raise ConfigError(f"--units are from 0 to {width - 1} at {site.name}, unlike {chosen}.")
    store, run = sources.store, site.trained[0]
    fit_ND = store_rows(store, site.name, "train", run, config.rows)
    held_MD = store_rows(store, site.name, "held_out", run, config.rows)
    control = next((one for one in site.runs if one.objective == "random"), None)
    fit, held = encode(run.dictionary, fit_ND, device), encode(run.dictionary, held_MD, device)
    theirs = [encode(control.dictionary, x, device) for x in (fit_ND, held_MD)] if control else []
    found = []
    for unit in chosen:
        pieces = _pieces(run, unit, config.pieces, fit_ND, fit, held_MD, held)
        others: Sequence[Piece] = ()
        if control:
            others = _pieces(control, unit, config.pieces, fit_ND, theirs[0], held_MD, theirs[1])
        whole = held @ run.dictionary.W_dec[:, unit].cpu().numpy()
        error = held_MD[:, unit] - whole - float(run.dictionary.b_dec[unit])
        shares = 1 - (error**2).mean() / max(float(held_MD[:, unit].var()), 1e-30)
        radial_A = site.units.radial[:, unit]
        found.append(
            TakenApart(
                unit,
                peaks(radial_A, site.units.orientations.tolist()),
                run.name,
                pieces,
                float(shares),
                [piece.explained for piece in others],
                (),
            )
        )
    return with_patches(config, sources, run, field, found, device)


def _pieces(
    run: Trained,
    unit: int,
    count: int,
    fit_ND: np.ndarray,
    fit_NS: np.ndarray,
    held_MD: np.ndarray,
    held_MS: np.ndarray,
) -> list[Piece]:
    weights = run.dictionary.W_dec[:, unit].detach().float().cpu().numpy()
    return take_apart(fit_ND[:, unit], fit_NS, weights, count, held_MD[:, unit], held_MS)


def polysemantic(units: Family) -> list[int]:
    """The units whose tuning curves have the peaks of two curves, strongest first."""
    strongest = float(units.scores.max.max(initial=0.0))
    strong = np.flatnonzero(units.scores.max >= STRONG * strongest)
    angles = units.orientations.tolist()
    found = [int(u) for u in strong if doubled(peaks(units.radial[:, u], angles))]
    return sorted(found, key=lambda u: -float(units.scores.max[u]))


def store_rows(
    store: Store, site: str, part: str, run: Trained, most: int
) -> Float[np.ndarray, "n d"]:
    """Rows of a part of a store at random, the same ones each time, at most so many.

    Raises ConfigError where the part has none."""
    how: BatchOptions = {"part": part, "held_out": run.held_out, "epochs": 1, "seed": 0}
    try:
        batch = next(store.batches(site, most, **how))
    except ConfigError as error:
        raise ConfigError(
            f"{run.name} kept {run.held_out:g} of the inputs of {store.name} out of training, and "
            "its units are taken apart on rows of those, of which there are none; pass "
            "--most-units 0 and no --units, or train on a store of more inputs."
        ) from error
    return np.asarray(batch.double().numpy())


def encode(
    dictionary: SAE, x_ND: Float[np.ndarray, "n d"], device: torch.device
) -> Float[np.ndarray, "n s"]:
    """The latents of many rows, some thousands at a time."""
    with torch.inference_mode():
        parts = torch.split(torch.from_numpy(x_ND).float(), 4096)
        return torch.cat([dictionary.encode(x.to(device)).cpu() for x in parts]).numpy()


def with_patches(
    config: MissingConfig,
    sources: Sources,
    run: Trained,
    field: ReceptiveField,
    found: Sequence[TakenApart],
    device: torch.device,
) -> list[TakenApart]:
    """The dataset examples of every unit and piece, from one pass over the store."""
    store, images = sources.store, sources.images
    if not config.examples or store is None or images is None:
        return list(found)
    units = [one.unit for one in found]
    latents = [piece.latent for one in found for piece in one.pieces]

    def respond(x_ND: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n m"]:
        z_NS = encode(run.dictionary, x_ND, device)
        return np.concatenate([x_ND[:, units], z_NS[:, latents]], axis=1)

    best = strongest_rows(store, sources.site, respond, len(units) + len(latents), config.examples)
    patches = cut_patches(store, sources.site, field, images, sources.subject.input_size, best)
    of_pieces = iter(patches[len(units) :])
    return [
        replace(one, patches=[own, *(next(of_pieces) for _ in one.pieces)])
        for one, own in zip(found, patches, strict=False)
    ]


def command(folders: Sequence[Path]) -> str:
    """The command that makes the page again, in words that name no folder of a machine."""
    return shlex.join(["tendril", "study", "missing", "--run", *(f.name for f in folders)])
