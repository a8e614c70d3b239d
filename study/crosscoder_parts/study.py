"""The study `parts`: which latents of a crosscoder belong to one layer or network."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tendril.data.errors import ConfigError
from tendril.data.home import find_run
from tendril.data.store.moments import OUTLIER_TIMES
from tendril.data.store.paired import PairedStores
from tendril.models.dictionaries.checkpoint import (
    DICTIONARY,
    RESULT,
    load_sae,
    read_config,
    read_figures,
)

from ..core.report import file_digest, write_csv
from ..core.stores import rows_of_run, stored_run, training_warnings
from ..core.study import Study
from ..measures.latent_scaling import LatentScaling, latent_scaling
from . import page
from .config import PartsConfig
from .findings import (
    PartFindings,
    cosines,
    norm_fractions,
    owners,
    part_scales,
    short_names,
)

BLOCK = 4096  # rows that are encoded at a time


@final
@dataclass(frozen=True)
class PartInputs:
    """A crosscoder, the width of each of its parts, and the stores of two networks if there are."""

    run: Path
    trained: Mapping[str, Any]
    blocks: dict[str, int]
    stores: PairedStores | None

    @property
    def name(self) -> str:
        """The run's name."""
        return self.run.resolve().name


@final
class PartsStudy(Study[PartsConfig, list[PartInputs], list[PartFindings]]):
    """Measure how latents of crosscoders are spread over their parts, and of two networks test by
    latent scaling those that seem to belong to one; the table is latents.csv, with several runs
    one for each."""

    name = "parts"
    version = 2
    config = PartsConfig

    def find(self, config: PartsConfig) -> list[PartInputs]:
        return [_found(find_run(run, config.home), config.home) for run in config.run]

    def identity(self, config: PartsConfig, inputs: list[PartInputs]) -> Mapping[str, Any]:
        return {
            "runs": {
                one.name: {
                    "dictionary": file_digest(one.run / DICTIONARY),
                    "stores": one.stores.name if one.stores else "",
                }
                for one in inputs
            }
        }

    def title(self, config: PartsConfig, inputs: list[PartInputs]) -> str:
        return f"Parts of {inputs[0].name if len(inputs) == 1 else f'{len(inputs)} crosscoders'}"

    def label(self, config: PartsConfig, inputs: list[PartInputs]) -> str:
        return inputs[0].name

    def remarks(self, config: PartsConfig, inputs: list[PartInputs]) -> list[str]:
        found = [
            f"Latents of {one.name} were not scaled: its stores are gone, or it has several sites "
            "of each network."
            for one in inputs
            if one.trained.get("paired_store") and not one.stores
        ]
        return found + training_warnings(one.run for one in inputs)

    def compute(
        self, config: PartsConfig, inputs: list[PartInputs], device: torch.device
    ) -> list[PartFindings]:
        return [_computed(one, config, device) for one in inputs]

    def figures(self, findings: list[PartFindings]) -> dict[str, Any]:
        first, *others = [one.figures() for one in findings]
        return first | ({"others": {one["run"]: one for one in others}} if others else {})

    def headline(self, figures: Mapping[str, Any]) -> str:
        return page.headline(figures)

    def table(self, figures: Mapping[str, Any]) -> str:
        return page.terminal_table(figures)

    def write_tables(self, findings: list[PartFindings], folder: Path) -> None:
        for one in findings:
            head, *rows = one.rows()
            name = "latents.csv" if len(findings) == 1 else f"latents-{one.run}.csv"
            write_csv(folder / name, [str(cell) for cell in head], rows)

    def page(
        self, config: PartsConfig, inputs: list[PartInputs], findings: list[PartFindings]
    ) -> Mapping[str, Any]:
        return page.context(findings, config.own, config.bins)


def _found(run: Path, home: str) -> PartInputs:
    """A crosscoder and its stores. Raises ConfigError for another dictionary."""
    trained = read_config(run)
    blocks: dict[str, int] = trained.get("sites") or {}
    if trained.get("group") or len(blocks) < 2:
        raise ConfigError(
            f"--run must be a crosscoder of several sites or networks; {run.name} is of "
            f"{trained['site']} alone. Train one with `tendril train crosscoder --sites A B`."
        )
    stores: object = None
    if trained.get("paired_store") and len(blocks) == 2:
        second = {"store": trained["paired_store"], "store_path": trained.get("paired_store_path")}
        first = stored_run(run, trained, "", home)
        if first and stored_run(run, second, "", home):
            stores = rows_of_run(run, first, home)
    return PartInputs(run, trained, blocks, stores if isinstance(stores, PairedStores) else None)


def _computed(one: PartInputs, config: PartsConfig, device: torch.device) -> PartFindings:
    blocks = one.blocks
    W_dec = load_sae(one.run).plain().W_dec.detach() * part_scales(one.trained, blocks)
    fractions_SP = norm_fractions(W_dec, list(blocks.values()))
    figures = read_figures(one.run) if (one.run / RESULT).is_file() else {}
    return PartFindings(
        one.name,
        short_names(list(blocks)),
        fractions_SP,
        owners(fractions_SP, config.own),
        cosines(W_dec, blocks),
        _scaled(one, one.stores, config, device) if one.stores else None,
        figures.get("fvu"),
        figures.get("l0"),
    )


def _scaled(
    one: PartInputs, stores: PairedStores, config: PartsConfig, device: torch.device
) -> LatentScaling:
    scales = one.trained.get("scales") or dict.fromkeys(one.blocks, 1.0)
    return latent_scaling(
        load_sae(one.run).to(device),
        list(one.blocks.values()),
        [float(scales[part]) for part in one.blocks],
        _rows(stores, one.trained, config.rows, device),
        free=config.best_directions,
    )


def _rows(
    stores: PairedStores, trained: Mapping[str, Any], most: int, device: torch.device
) -> Iterator[Float[Tensor, "n d"]]:
    """Valid rows of both stores side by side, in blocks spread evenly; without norm outliers, if
    the run dropped or capped them."""
    valid = stores.first.column("valid").copy()
    if trained.get("norm_outliers", "keep") != "keep":
        times = float(trained.get("outlier_times", OUTLIER_TIMES))
        for part in stores.parts:
            valid &= ~stores.norm_outliers(part, times)
    size = max(1, min(BLOCK, stores.rows // 8))  # so that each quarter has two blocks
    starts = np.arange(0, stores.rows, size)
    if len(starts) * size > most:
        starts = starts[np.linspace(0, len(starts) - 1, max(1, most // size)).astype(int)]
    for start in starts:
        rows = start + np.flatnonzero(valid[start : start + size])
        if len(rows):
            x_ND = np.concatenate([stores.read(part, rows) for part in stores.parts], axis=1)
            yield torch.from_numpy(x_ND).to(device)
