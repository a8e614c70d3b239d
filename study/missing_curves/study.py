"""The study `missing`: do latents fill the gaps that the curve units leave?

It also decomposes polysemantic units into latents, and measures whether the decoder rows of curve
latents lie on a circle.
Source: Gorton, The Missing Curve Detectors of InceptionV1 (arXiv 2406.03662).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float

from tendril.data.errors import ConfigError
from tendril.data.home import find_run
from tendril.data.store.reader import BATCH_DEFAULTS, BatchOptions, Store
from tendril.data.store.spec import canonical_json
from tendril.models.dictionaries.checkpoint import load_sae, read_config
from tendril.models.dictionaries.run import Run
from tendril.models.sites.receptive import receptive_field

from ..core.report import write_records
from ..core.study import Study
from ..core.vision_inputs import VisionInputs, find_vision_inputs, whole_images
from ..measures.circle import FEWEST, measure_circle, umap_then_pca
from ..measures.curve_family import CurveFamily, latent_family, unit_family
from ..measures.image_examples import cut_patches, strongest_rows
from . import page
from .config import MissingConfig
from .decompose import Decomposition, decompose_units, encode, polysemantic
from .findings import Site, Trained, gap_records, latent_records, study_figures

Inputs = Sequence[VisionInputs]
Findings = Sequence[Site]


@final
class MissingCurvesStudy(Study[MissingConfig, Inputs, Findings]):
    """Compare the curve latents of runs with the curve units of their sites.

    The report holds latents.csv, the curve latents with the gaps in which they lie, and gaps.csv.
    """

    name = "missing"
    version = 5
    config = MissingConfig

    def find(self, config: MissingConfig) -> Inputs:
        examples = config.examples > 0
        runs = [find_run(run, config.home) for run in config.run]
        return [
            whole_images(find_vision_inputs(config, str(run), images=examples, field_for=self.name))
            for run in runs
        ]

    def identity(self, config: MissingConfig, inputs: Inputs) -> Mapping[str, Any]:
        return {"runs": [one.identity() for one in inputs]}

    def remarks(self, config: MissingConfig, inputs: Inputs) -> list[str]:
        found = list(dict.fromkeys(text for one in inputs for text in one.remarks()))
        trained = [(one.site, read_config(one.run)) for one in inputs if one.run]
        seeds = Counter(
            (site, c.get("objective"), c.get("control"), c.get("seed")) for site, c in trained
        )
        if any(count > 1 for (*_, seed), count in seeds.items() if seed is not None):
            found.append(
                "Some of these runs have the same seed, so they began with the same random numbers "
                "and are no independent repetitions."
            )
        return found

    def title(self, config: MissingConfig, inputs: Inputs) -> str:
        places = dict.fromkeys(f"{one.site} of {one.subject.name}" for one in inputs)
        return f"Missing curve detectors at {', '.join(places)}"

    def label(self, config: MissingConfig, inputs: Inputs) -> str:
        return "-".join(dict.fromkeys(one.site for one in inputs))

    def compute(self, config: MissingConfig, inputs: Inputs, device: torch.device) -> Findings:
        groups: dict[str, list[VisionInputs]] = {}
        for one in inputs:
            place = {"subject": dict(one.subject.identity), "site": one.site}
            groups.setdefault(canonical_json(place), []).append(one)
        return [study_site(config, members, device) for members in groups.values()]

    def figures(self, findings: Findings) -> dict[str, Any]:
        return study_figures(findings)

    def headline(self, figures: Mapping[str, Any]) -> str:
        return " ".join([*(_site_headline(site) for site in figures["sites"]), *_verdict(figures)])

    def write_tables(self, findings: Findings, folder: Path) -> None:
        for name, records in (("latents", latent_records), ("gaps", gap_records)):
            if rows := records(findings):
                write_records(folder / f"{name}.csv", rows)

    def page(self, config: MissingConfig, inputs: Inputs, findings: Findings) -> Mapping[str, Any]:
        return page.context(findings)


def _site_headline(site: Mapping[str, Any]) -> str:
    text = (
        f"{site['site']}: {site['curve_units']} curve units, widest gap "
        f"{site['gap_units']:.0f} degrees"
    )
    count = len(site["gap_latents"])
    if count:
        runs = "one run" if count == 1 else f"{count} runs on average"
        text += f"; widest gap of curve latents {site['gap_latents_mean']:.0f} degrees in {runs}"
    return f"{text}."


def _verdict(figures: Mapping[str, Any]) -> list[str]:
    """How many runs narrow the units' gaps more than chance; empty where nothing is compared."""
    compared, below = figures["comparisons"], figures["below_chance"]
    if not compared:
        return []
    return [
        f"{below} of {compared} runs leave less of the units' gaps than a random surplus would "
        "(corrected P < 0.05)."
    ]


def study_site(
    config: MissingConfig, members: Sequence[VisionInputs], device: torch.device
) -> Site:
    """Everything that is found at one site of one subject; `members` are its runs."""
    inputs = members[0]
    units = unit_family(inputs.subject, inputs.site, config.curves, device)
    runs = [measure_run(one.run, units, device) for one in members if one.run]
    weights = str(inputs.subject.identity.get("weights", ""))[:8]
    site = Site(inputs.site, f"{inputs.subject.name} {weights}".strip(), units, runs)
    rows_SD, _ = site.pooled
    return replace(
        site,
        decompositions=decompositions(config, inputs, site, device),
        umap=umap_then_pca(rows_SD) if config.umap and len(rows_SD) >= FEWEST else None,
        examples_note=inputs.no_images if config.examples else "",
    )


def measure_run(folder: Path, units: CurveFamily, device: torch.device) -> Trained:
    """The curve latents of a run, measured on the same drawn curves as the units."""
    run = Run(folder)
    dictionary = load_sae(folder).to(device)
    family = latent_family(units, dictionary, device)
    rows = dictionary.W_dec.detach().float().cpu().numpy()[family.members]
    return Trained(
        run.name,
        str(run.config.get("objective", "")),
        str(run.config.get("control", "none")),
        int(run.config.get("seed", 0)),
        float(run.config.get("held_out", BATCH_DEFAULTS["held_out"])),
        float(run.figures.get("fvu", "nan")),
        dictionary,
        family,
        measure_circle(rows, [family.orientation(m) for m in family.members]),
    )


def decompositions(
    config: MissingConfig, inputs: VisionInputs, site: Site, device: torch.device
) -> list[Decomposition]:
    """The units named, or those with two peaks, decomposed by the first run that is no control.

    Raises ConfigError for units that the site lacks and where there are no held-out rows.
    """
    chosen = list(config.units) or polysemantic(site.units)[: config.most_units]
    if not chosen or not site.trained or inputs.store is None:
        return []
    width = site.units.responses.shape[-1]
    if max(chosen) >= width or min(chosen) < 0:
        raise ConfigError(f"--units must be from 0 to {width - 1} at {site.name}; got {chosen}.")
    run = site.trained[0]
    fit_ND, held_MD = (
        store_rows(inputs.store, site.name, part, run, config.rows)
        for part in ("train", "held_out")
    )
    control = next((one.dictionary for one in site.runs if one.objective == "random"), None)
    found = decompose_units(
        site.units, chosen, run.dictionary, control, (fit_ND, held_MD), config.components, device
    )
    return with_patches(found, inputs, run, config.examples, device)


def store_rows(
    store: Store, site: str, part: str, run: Trained, most: int
) -> Float[np.ndarray, "n d"]:
    """At most `most` random rows of a part of a store, the same each time; of orbits, the rows of
    the identity.

    Raises ConfigError where the part has none.
    """
    options: BatchOptions = {"part": part, "held_out": run.held_out, "epochs": 1, "seed": 0}
    try:
        batch = next(store.batches(site, most, **options))
    except ConfigError as error:
        raise ConfigError(
            f"units are decomposed on held-out rows, and {run.name} held out a fraction of "
            f"{run.held_out:g} of the inputs of {store.name}, which leaves none. Pass "
            "--most-units 0 without --units, or train on a store of more inputs."
        ) from error
    return np.asarray((batch if store.group is None else batch[:, 0]).double().numpy())


def with_patches(
    found: Sequence[Decomposition],
    inputs: VisionInputs,
    run: Trained,
    count: int,
    device: torch.device,
) -> list[Decomposition]:
    """Decompositions with the dataset examples of each unit and component, from one pass over
    the store."""
    store, images, site = inputs.store, inputs.images, inputs.site
    if not count or store is None or images is None:
        return list(found)
    units = [one.unit for one in found]
    latents = [component.latent for one in found for component in one.components]

    def respond(x_ND: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n m"]:
        z_NS = encode(run.dictionary, x_ND, device)
        return np.concatenate([x_ND[:, units], z_NS[:, latents]], axis=1)

    best = strongest_rows(store, site, respond, len(units) + len(latents), count)
    field = receptive_field(inputs.subject, site)
    patches = cut_patches(store, site, field, images, inputs.subject.input_size, best)
    of_components = iter(patches[len(units) :])
    return [
        replace(one, patches=[own, *(next(of_components) for _ in one.components)])
        for one, own in zip(found, patches, strict=False)
    ]
