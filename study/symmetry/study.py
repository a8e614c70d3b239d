"""The study of symmetry: a group crosscoder in, what fixes its latents, families and a page out."""

import math
import shlex
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tendril.data.device import resolve_device
from tendril.data.errors import ConfigError, RunDamagedError, StoreNotFoundError, TendrilError
from tendril.data.group.dihedral import Dihedral
from tendril.data.home import find_run
from tendril.data.store.reader import Store
from tendril.models.dictionaries.checkpoint import (
    DICTIONARY,
    RESULT,
    load_dictionary,
    load_frequency,
    read_config,
    read_json,
)
from tendril.models.dictionaries.equivariant import EquivariantCrosscoder, blocks_of
from tendril.models.dictionaries.sae import Stored
from tendril.models.sites.window import Window, find_window

from ..core.report import Report, StudyResult, file_digest, report_of
from ..core.vision_inputs import Sources, find_sources, find_store
from ..curves.config import REFERENCE_FIELD, CurvesConfig
from ..curves.findings import Patch
from ..measures.curve_stimuli import CurveGrid
from ..measures.orbit_examples import strongest_anchors, upright_patches
from ..measures.shape_stimuli import ShapeTuning, directions, shape_answers, shape_vectors, shapes
from .analysis import Reading, raw_anchors, read_blocks
from .config import SymmetryConfig
from .findings import SymmetryFindings, write_table
from .images import head_images
from .page import render_page
from .responses import response_blocks

FORMAT = 5  # raised when the same sources would give another page
SHOWN = ("families", "examples", "visualise")
LIMITS = ("quantile", "least", "most", "flat", "alike", "anchors", "margin", "line_width")


def study_symmetry(config: SymmetryConfig) -> StudyResult:
    """Say what fixes each latent of a group crosscoder, which are copies, and make a page.

    The report's folder is `<home>/reports/<name>-<12 hex of SHA-256 of what determines it>`;
    one that is there already is given back. It holds index.html, latents.csv, families.csv,
    blocks.npz (correlation [F, G], shares [F, H], blocks of the families shown) and, last,
    result.json with every latent's class, orientation, family and pose. Raises children of
    TendrilError for all that the config, its paths or its files can cause.
    """
    began = time.monotonic()
    config.check()
    device = resolve_device(config.device)
    sources = find_sources(config.sources())
    run, store = sources.run, sources.store
    if run is None or store is None:
        raise StoreNotFoundError(
            f"the study of symmetry wants a run and the store of orbits that it was trained on, "
            f"and {'found no store' if run else 'got no run'}; check --run and --store."
        )
    group = group_of_store(store)
    if _single(read_config(run)):
        raise ConfigError(
            f"the run {run.name} is of single elements, and the study of symmetry wants one of "
            "whole orbits; name this one among --controls, beside a group crosscoder."
        )
    made = determinants(config, sources, group)
    report = report_of(
        config.home, config.name or f"symmetry-{sources.subject.name}-{sources.site}", made
    )
    known = None if config.overwrite else report.figures()
    if known is not None:
        return StudyResult(report.page, known, _since(began), reused=True)
    findings = find_symmetry(config, sources, store, run, group, made, device)
    figures = findings.figures()
    write_report(report, findings, figures)
    return StudyResult(report.page, figures, _since(began))


def group_of_store(store: Store) -> Dihedral:
    """The group of a store of orbits; raises ConfigError for another store."""
    if store.group is None:
        raise ConfigError(
            f"the store {store.name} holds single vectors, and the study of symmetry wants "
            "orbits: harvest with `tendril harvest orbits`, and train on that store."
        )
    return store.group


def determinants(config: SymmetryConfig, sources: Sources, group: Dihedral) -> dict[str, Any]:
    """All that determines the report."""
    told = asdict(config)
    runs = [find_run(run, config.home) for run in config.controls]
    assert sources.run is not None
    assert sources.store is not None
    return {
        "format": FORMAT,
        "subject": dict(sources.subject.identity),
        "site": sources.site,
        "group": group.name,
        "runs": {run.name: file_digest(run / DICTIONARY) for run in (sources.run, *runs)},
        "store": sources.store.name,
        "limits": {name: told[name] for name in (*LIMITS, "radii")},
        "shown": {name: told[name] for name in (*SHOWN, "umap")}
        | {"images": sources.images is not None},
    }


def find_symmetry(
    config: SymmetryConfig,
    sources: Sources,
    store: Store,
    run: Path,
    group: Dihedral,
    made: Mapping[str, Any],
    device: torch.device,
) -> SymmetryFindings:
    """Read the run and its controls, ask the subject, and gather what the page shows."""
    dictionary = load_dictionary(run)
    reading = read_run(run, dictionary, store, sources.site, group, config)
    controls = [read_control(name, config) for name in config.controls]
    notes = []
    window = None
    try:
        window = find_window(sources.subject, store.sites)
        tuning = asked(config, window, sources.site, dictionary, reading, device)
    except TendrilError as error:
        tuning = None
        notes.append(f"No shapes were shown to the subject ({error}).")
    findings = SymmetryFindings(
        title=f"Symmetries at {sources.site} of {sources.subject.name}",
        subject=sources.subject.name,
        site=sources.site,
        reading=reading,
        controls=controls,
        tuning=tuning,
        margin=config.margin,
        shown=config.families,
        patches={},
        notes=notes,
        command=command(config, run),
        umap=config.umap,
        made={"study": made, "run": read_config(run), "store": store.spec},
    )
    if window is not None and config.visualise:
        heads = [family.head for family in findings.families[: config.visualise]]
        images = head_images(reading, heads, sources, device)
        if len(images) < len(heads):
            silent = len(heads) - len(images)
            notes.append(
                f"For {silent} of {len(heads)} families no image could be made: the site is silent "
                "on the noise that images start from."
            )
        findings = replace(findings, made_images=images, notes=notes)
    if sources.images is None:
        return replace(findings, notes=[*notes, sources.no_images])
    if window is None:
        return findings
    return replace(findings, patches=examples_of(findings, config, sources, dictionary, window))


def read_run(
    run: Path, dictionary: Stored, store: Store, site: str, group: Dihedral, config: SymmetryConfig
) -> Reading:
    """The blocks of one run against raw anchors of its store. Of an SAE of single elements they
    are those of its responses to these anchors."""
    trained = read_config(run)
    anchors_MGD, inputs_M = raw_anchors(store, site, config.anchors)
    if _single(trained):
        blocks = response_blocks(dictionary, torch.from_numpy(anchors_MGD), group)
    else:
        blocks = blocks_of(dictionary, group)
    blocks_FGD = blocks.float().cpu().numpy()
    frequency_F = load_frequency(run).float().cpu().numpy()
    if len(frequency_F) != len(blocks_FGD):
        raise RunDamagedError(
            f"{run} has {len(blocks_FGD)} latents and frequencies of {len(frequency_F)}; train "
            "the run again."
        )
    tied = isinstance(dictionary, EquivariantCrosscoder)
    reading = read_blocks(
        run.name, blocks_FGD, frequency_F, group, anchors_MGD, inputs_M, config, tied=tied
    )
    told = read_json(run / RESULT) if (run / RESULT).is_file() else {}
    return replace(reading, about=_about(trained), trained=told)


def _single(trained: Mapping[str, Any]) -> bool:
    """Whether a run is of single elements of orbits."""
    return str(trained.get("orbits", "joined")) != "joined"


def _about(trained: Mapping[str, Any]) -> str:
    control = trained.get("control") or "none"
    drawn = trained.get("subject", {}).get("drawn")
    parts = [
        "" if control == "none" else f"control {control.replace('-', ' ')}",
        f"control {drawn.replace(':', ' weights ')}" if drawn else "",
        {"each": "SAE of augmented inputs", "identity": "SAE of plain inputs"}.get(
            trained.get("orbits", ""), ""
        ),
        {"equivariant": "tied", "orbit": "tied"}.get(trained.get("objective", ""), "not tied"),
        f"{trained['rounds']} rounds" if trained.get("rounds", 1) > 1 else "",
        f"seed {trained.get('seed', 0)}",
    ]
    if _single(trained):
        del parts[3]
    return ", ".join(filter(None, parts))


def read_control(name: str, config: SymmetryConfig) -> Reading:
    """Another run, against raw anchors of the store that it was trained on itself."""
    run = find_run(name, config.home)
    trained = read_config(run)
    store = find_store(CurvesConfig(home=config.home), run, trained)
    if store is None:
        raise StoreNotFoundError(
            f"the store of the control {run.name} is gone ({trained.get('store', '')}); leave it "
            "out of --controls."
        )
    group = group_of_store(store)
    return read_run(run, load_dictionary(run), store, trained["site"], group, config)


def asked(
    config: SymmetryConfig,
    window: Window,
    site: str,
    dictionary: Stored,
    reading: Reading,
    device: torch.device,
) -> ShapeTuning:
    """Show the shapes to the subject, and their orbits to the dictionary."""
    octaves = round(math.log2(window.size / REFERENCE_FIELD))
    radii = config.radii or tuple(round(r * 2.0**octaves, 2) for r in CurveGrid().radii)
    chosen = shapes(tuple(sorted(radii)))
    vectors_QAD = shape_vectors(window, site, reading.group, chosen, config.line_width, device)
    z_QAS = shape_answers(dictionary.to(device), vectors_QAD, reading.group, device)
    dictionary.to("cpu")
    return ShapeTuning(tuple(chosen), directions(reading.group), z_QAS[..., reading.latents])


def examples_of(
    findings: SymmetryFindings,
    config: SymmetryConfig,
    sources: Sources,
    dictionary: Stored,
    window: Window,
) -> dict[int, list[Patch]]:
    """The patches that excite the heads of the families shown most, upright."""
    assert sources.store is not None
    assert sources.images is not None
    heads = [family.head for family in findings.families[: config.families]]
    latents = [int(findings.reading.latents[head]) for head in heads]
    best = strongest_anchors(sources.store, sources.site, dictionary, latents, config.examples)
    patches = upright_patches(
        sources.store,
        sources.site,
        dictionary,
        sources.images,
        window,
        sources.subject.input_size,
        best,
        latents,
        [findings.orientations[head] or 0.0 for head in heads],
    )
    return dict(zip(heads, patches, strict=True))


def write_report(report: Report, findings: SymmetryFindings, figures: Mapping[str, Any]) -> None:
    """Write everything a report holds, its result last."""
    folder = report.begin()
    reading = findings.reading
    heads = np.array([f.head for f in findings.families[: findings.shown]], np.int64)
    np.savez_compressed(
        folder / "blocks.npz",
        latents=reading.latents,
        correlation=reading.symmetry.correlation,
        shares=reading.symmetry.shares,
        subgroups=np.array([f"{h.kind}:{h.axis}" for h in reading.symmetry.subgroups]),
        heads=reading.latents[heads],
        blocks=reading.blocks[heads],
    )
    write_table(folder / "latents.csv", findings.listing)
    write_table(folder / "families.csv", findings.family_listing())
    report.write(render_page(findings), figures)


def command(config: SymmetryConfig, run: Path) -> str:
    """The command that makes this page again, in words that name no folder of this machine."""
    words = ["tendril", "study", "symmetry", "--run", run.name]
    if config.controls:
        words += ["--controls", *(find_run(name, config.home).name for name in config.controls)]
    default, told = asdict(SymmetryConfig()), asdict(config)
    for name in (*LIMITS, *SHOWN):
        if told[name] != default[name]:
            words += [f"--{name.replace('_', '-')}", f"{told[name]:g}"]
    if not config.umap:
        words += ["--no-umap"]
    if config.radii:
        words += ["--radii", *(f"{radius:g}" for radius in config.radii)]
    return shlex.join(words)


def _since(began: float) -> float:
    return round(time.monotonic() - began, 2)
