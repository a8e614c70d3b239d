"""The study `probe`: how well a few latents tell a label."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import torch

from tendril.data.cli import note
from tendril.data.errors import ConfigError
from tendril.data.home import find_run
from tendril.data.store.reader import Store
from tendril.data.store.spec import short_site
from tendril.data.store.truth import open_truth
from tendril.models.dictionaries.checkpoint import load_sae, read_config
from tendril.models.dictionaries.sae import SAE

from ..core.config import outlier_remark
from ..core.report import write_records
from ..core.stores import common_store, dictionary_digests, trained_sites, training_warnings
from ..core.study import Study
from ..measures.feature_absorption import PlantedRows, absorption, families_of
from ..measures.sparse_probing import (
    FEWEST,
    Columns,
    Split,
    probed,
    probed_whole,
    ranked,
    shuffled,
    split_by_input,
)
from . import page
from .config import ProbeConfig
from .examples import Examples, find_examples
from .findings import ALL, COMPONENTS, PLANTED, UNITS, WHOLE, Probed, Probes
from .reading import Readings, read_examples

MOST_PARENTS = 50  # whose absorption is counted
# fields of a run's config in which runs of one row of the table may differ
OWN = ("seed", "order", "scales", "store_path", "name", "label")


@final
@dataclass(frozen=True)
class Group:
    """Runs of one site that differ in their seeds alone."""

    title: str
    sites: tuple[str, ...]
    runs: tuple[Path, ...]

    @property
    def site(self) -> str:
        """The sites, as one name."""
        return "+".join(self.sites)


@final
@dataclass(frozen=True)
class ProbeInputs:
    """Runs, their store, and the examples."""

    groups: tuple[Group, ...]
    store: Store
    examples: Examples

    @property
    def runs(self) -> list[Path]:
        """All runs."""
        return [run for group in self.groups for run in group.runs]

    def remarks(self) -> list[str]:
        """What became of norm outliers, and what training has warned of."""
        return outlier_remark(map(read_config, self.runs)) + training_warnings(self.runs)


@final
class ProbeStudy(Study[ProbeConfig, ProbeInputs, Probed]):
    """Sparse probes. The report holds probe.csv, a line a kind of columns and their number;
    labels.csv, a line a label, too; and absorption.csv, of a store with planted trees."""

    name = "probe"
    config = ProbeConfig

    def find(self, config: ProbeConfig) -> ProbeInputs:
        runs = list(dict.fromkeys(find_run(name, config.home) for name in config.run))
        store = common_store(runs, config.home, config.store)
        for run in runs:
            if read_config(run).get("group"):
                raise ConfigError(
                    f"{run.name} is a crosscoder over a group, which takes the vectors of all "
                    "turned copies of an input; probe reads single rows. Choose another --run."
                )
        return ProbeInputs(grouped(runs, store), store, find_examples(config, store))

    def identity(self, config: ProbeConfig, inputs: ProbeInputs) -> Mapping[str, Any]:
        return {
            "dictionaries": dictionary_digests(inputs.runs),
            "store": inputs.store.name,
            "examples": inputs.examples.digest(),
        }

    def title(self, config: ProbeConfig, inputs: ProbeInputs) -> str:
        sites = dict.fromkeys(short_site(group.site) for group in inputs.groups)
        return f"Sparse probes of {', '.join(sites)}"

    def label(self, config: ProbeConfig, inputs: ProbeInputs) -> str:
        return inputs.store.name

    def estimate(self, config: ProbeConfig, inputs: ProbeInputs) -> Mapping[str, Any]:
        return {"labels": len(inputs.examples.labels), "examples": len(inputs.examples.input_N)}

    def compute(self, config: ProbeConfig, inputs: ProbeInputs, device: torch.device) -> Probed:
        examples = inputs.examples
        splits = [
            split_by_input(examples.input_N, config.judged, config.seed + i)
            for i in range(config.splits)
        ]
        probes: list[Probes] = []
        for site in dict.fromkeys(group.sites for group in inputs.groups):
            groups = [group for group in inputs.groups if group.sites == site]
            probes += probed_site(config, inputs, groups, splits, device)
        told = {label for one in probes for label, _ in one.judged}
        skipped = [label for label in examples.labels if label not in told]
        if not told:
            raise ConfigError(
                f"each part of a split needs {FEWEST} examples with a label and without; no label "
                f"of {len(skipped)} has them. Raise --examples, or take classes together with "
                "--classes."
            )
        if skipped:
            note(f"note: labels on too few {examples.by}s are left out: {', '.join(skipped)}.")
        counts = {name: int(one.sum()) for name, one in examples.labels.items()}
        many = len(np.unique(examples.input_N))
        return Probed(
            probes, counts, len(examples.input_N), many, examples.unit, examples.by, skipped
        )

    def figures(self, findings: Probed) -> dict[str, Any]:
        return findings.figures()

    def headline(self, figures: Mapping[str, Any]) -> str:
        return page.headline(figures)

    def table(self, figures: Mapping[str, Any]) -> str:
        return page.terminal_table(figures)

    def write_tables(self, findings: Probed, folder: Path) -> None:
        write_records(folder / "probe.csv", findings.records())
        write_records(folder / "labels.csv", findings.by_label())
        if absorbed := findings.absorptions():
            write_records(folder / "absorption.csv", absorbed)

    def page(self, config: ProbeConfig, inputs: ProbeInputs, findings: Probed) -> Mapping[str, Any]:
        return page.context(config, inputs.store.name, findings)


def grouped(runs: Sequence[Path], store: Store) -> tuple[Group, ...]:
    """Runs in groups that differ in their seeds alone, in the order of their titles."""
    alike: dict[str, list[Path]] = {}
    titles: dict[str, tuple[str, tuple[str, ...]]] = {}
    for run in runs:
        config = read_config(run)
        rest = {name: value for name, value in config.items() if name not in OWN}
        key = json.dumps(rest, sort_keys=True)
        site = str(config.get("site", ""))
        title = str(config.get("label") or run.name).replace(f", {site}", "")
        alike.setdefault(key, []).append(run)
        titles[key] = (title, trained_sites(run, store, load_sae(run).width))
    found = []
    for key, some in alike.items():
        title, sites = titles[key]
        if list(titles.values()).count(titles[key]) > 1:
            title = f"{title}, {some[0].name}"
        found.append(Group(title, sites, tuple(some)))
    return tuple(sorted(found, key=lambda group: group.title))


def probed_site(
    config: ProbeConfig,
    inputs: ProbeInputs,
    groups: Sequence[Group],
    splits: Sequence[Split],
    device: torch.device,
) -> list[Probes]:
    """Probes of the units, the principal components, the whole vector and the latents of all
    groups of one site."""
    examples = inputs.examples
    saes = {run: load_sae(run) for group in groups for run in group.runs}
    site = groups[0].sites
    read = read_examples(inputs.store, site, examples, list(saes.values()), device)
    codes = dict(zip(saes, read.codes, strict=True))
    name = groups[0].site
    found = [Probes(name, UNITS), Probes(name, COMPONENTS)]
    columns = [(found[0], read.units), (found[1], read.components)]
    for group in groups:
        found.append(Probes(name, group.title, [run.name for run in group.runs]))
        columns += [(found[-1], codes[run]) for run in group.runs]
    whole = Probes(name, WHOLE)
    planted = Probes(name, PLANTED)
    for label, with_N in examples.labels.items():
        for number, split in enumerate(splits):
            if not split.usable(with_N):
                continue
            other_N = shuffled(with_N, config.seed + number)
            both = [with_N, *([other_N] if split.usable(other_N) else [])]
            for probes, some in columns:
                probes.best.setdefault(label, int(ranked(some, with_N, split, 1)[0]))
                probes.add(label, *(probed(some, one, split, config.k) for one in both))
            whole.add(label, *({ALL: probed_whole(read.units, one, split)} for one in both))
            if label in examples.planted:
                along = _along(inputs.store, read, examples.planted[label])
                planted.add(label, *(probed(along, one, split, (1,)) for one in both))
    if examples.planted:
        count_absorption(inputs, groups, saes, codes, found[2:], splits[0])
    return [one for one in (*found, whole, planted) if one.judged]


def _along(store: Store, read: Readings, feature: int) -> Columns:
    """The product of the vectors with a planted direction."""
    direction_D = open_truth(store).directions_FdD[feature, 0].astype(np.float64)
    return Columns((np.asarray(read.units.values) @ direction_D)[:, None])


def count_absorption(
    inputs: ProbeInputs,
    groups: Sequence[Group],
    saes: Mapping[Path, SAE],
    codes: Mapping[Path, Columns],
    found: Sequence[Probes],
    split: Split,
) -> None:
    """Count absorption of each dictionary, if features are planted in trees."""
    truth = open_truth(inputs.store)
    rows_N = inputs.examples.rows_M
    features_NK, directions_FdD = truth.features(rows_N), truth.directions_FdD
    if directions_FdD.shape[1] > 1:
        return
    families = dict(list(families_of(truth.parents_F).items())[:MOST_PARENTS])
    rows = PlantedRows(features_NK, truth.coordinates(rows_N)[:, :, 0], directions_FdD[:, 0])
    members = {f for parent, children in families.items() for f in (parent, *children)}
    on = {f: with_N for f in sorted(members) if split.usable(with_N := rows.on(f))}
    for group, probes in zip(groups, found, strict=True):
        for run in group.runs:
            main = {f: int(ranked(codes[run], with_N, split, 1)[0]) for f, with_N in on.items()}
            decoder_SD = saes[run].W_dec.detach().double().cpu().numpy()
            judged_N = ~split.train_N
            probes.absorbed.extend(
                absorption(codes[run], decoder_SD, rows, main, families, judged_N)
            )
