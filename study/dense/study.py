"""The study `dense`: latents that are active on a large part of the vectors."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float, Int

from tendril.data.errors import ConfigError
from tendril.data.home import find_run
from tendril.data.store.reader import BATCH_DEFAULTS, Store
from tendril.data.store.spec import short_site
from tendril.models.dictionaries.checkpoint import (
    LATENTS,
    RESULT,
    load_frequency,
    load_sae,
    read_config,
    read_figures,
    write_tensors,
)
from tendril.models.dictionaries.sae import SAE

from ..core.report import write_records
from ..core.stores import (
    common_site,
    dictionary_digests,
    held_out_rows,
    store_of_run,
    trained_sites,
    training_warnings,
)
from ..core.study import Study
from ..core.trained import sparsity_of
from ..measures.dense_traits import antipodality
from ..measures.matching import Directions
from . import page
from .config import DenseConfig
from .findings import ALMOST, VERY, Counted, Dense, removed_span, traits_of
from .traits import rows_of

OTHERS = 200  # latents, at least, that are compared with the dense ones
BATCH = 4096


@final
@dataclass(frozen=True)
class DenseInputs:
    """Runs of one site, and the store of the first."""

    runs: tuple[Path, ...]
    site: str
    store: Store


@final
class DenseStudy(Study[DenseConfig, DenseInputs, Dense]):
    """Dense latents. The report holds latents.csv, runs.csv, dense.safetensors and
    others.safetensors: directions of dense latents, and of as many others."""

    name = "dense"
    config = DenseConfig

    def find(self, config: DenseConfig) -> DenseInputs:
        runs = tuple(dict.fromkeys(find_run(name, config.home) for name in config.run))
        site = common_site(runs)
        store = store_of_run(runs[0], config.home, config.store)
        for run in runs:
            trained_sites(run, store, load_sae(run).width)
            if not (run / LATENTS).is_file():
                raise ConfigError(
                    f"study dense needs how often each latent is active; {run.name} does not have "
                    "it, as imported runs do not. Choose a run that was trained here."
                )
        return DenseInputs(runs, site, store)

    def identity(self, config: DenseConfig, inputs: DenseInputs) -> Mapping[str, Any]:
        return {"dictionaries": dictionary_digests(inputs.runs), "store": inputs.store.name}

    def remarks(self, config: DenseConfig, inputs: DenseInputs) -> list[str]:
        return training_warnings(inputs.runs)

    def title(self, config: DenseConfig, inputs: DenseInputs) -> str:
        return f"Dense latents of {short_site(inputs.site)}"

    def label(self, config: DenseConfig, inputs: DenseInputs) -> str:
        return inputs.runs[0].resolve().name

    def compute(self, config: DenseConfig, inputs: DenseInputs, device: torch.device) -> Dense:
        run, store, site = inputs.runs[0], inputs.store, inputs.site
        sae = load_sae(run).to(device)
        sides = directions_of(run)
        score_A, partner_A = antipodality(sides)
        dense_A = sides.frequency_S > config.dense
        draws = np.random.default_rng(config.seed)
        sparse = np.flatnonzero((sides.frequency_S > 0) & ~dense_A)
        others = np.sort(draws.permutation(sparse)[: max(OTHERS, int(dense_A.sum()))])
        latents = np.concatenate([np.flatnonzero(dense_A), others])
        fraction = float(read_config(run).get("held_out", BATCH_DEFAULTS["held_out"]))
        rows = held_out_rows(store, fraction, config.rows)
        z_NS, component_D = _read(store, site, sae, rows, latents, device)
        known = rows_of(store, site, rows, config.subject)
        return Dense(
            [_counted(one, config.dense) for one in inputs.runs],
            latents,
            dense_A[latents],
            sides.frequency_S[latents],
            score_A[latents],
            partner_A[latents],
            traits_of(known, z_NS, sides.decoder_SD[latents], component_D),
            sides.frequency_S,
            score_A,
            sides.decoder_SD[latents],
            site,
            store.name,
            config.dense,
            len(rows),
        )

    def figures(self, findings: Dense) -> dict[str, Any]:
        return findings.figures()

    def headline(self, figures: Mapping[str, Any]) -> str:
        return page.headline(figures)

    def table(self, figures: Mapping[str, Any]) -> str:
        return page.table(figures)

    def write_tables(self, findings: Dense, folder: Path) -> None:
        write_records(folder / "runs.csv", [one.record() for one in findings.counted])
        if len(findings.latents):
            write_records(folder / "latents.csv", findings.records())
        for name, directions_ND in findings.spans().items():
            write_tensors(folder / name, {"directions": torch.from_numpy(directions_ND).float()})

    def page(self, config: DenseConfig, inputs: DenseInputs, findings: Dense) -> Mapping[str, Any]:
        return page.context(findings, again(read_config(inputs.runs[0])))


def again(trained: Mapping[str, Any]) -> str:
    """The command that trains a run like this one, with the settings that matter most."""
    sparsity = sparsity_of(trained)
    words = ["tendril", "train", str(trained.get("objective", "RECIPE"))]
    fields = {name: trained.get(name) for name in ("store", "latents", "steps", "batch_size", "lr")}
    fields |= {"site": short_site(str(trained["site"])), "seed": trained.get("seed")}
    if sparsity:
        fields[sparsity.field] = f"{sparsity.value:g}"
    for name, value in fields.items():
        if value not in (None, ""):
            words += [f"--{name.replace('_', '-')}", str(value)]
    return shlex.join(words)


def directions_of(run: Path) -> Directions:
    """Unit directions of both sides, and how often each latent fires on held-out vectors."""
    sae = load_sae(run)
    encoder_SD, decoder_SD = (
        torch.nn.functional.normalize(side.detach().double(), dim=1).numpy()
        for side in (sae.W_enc.T, sae.W_dec)
    )
    return Directions(encoder_SD, decoder_SD, load_frequency(run).double().numpy())


def _counted(run: Path, threshold: float) -> Counted:
    sides = directions_of(run)
    score_S, _ = antipodality(sides)
    dense_S = sides.frequency_S > threshold
    fvu = read_figures(run).get("fvu") if (run / RESULT).is_file() else None
    return Counted(
        run.resolve().name,
        len(sides),
        int((sides.frequency_S > 0).sum()),
        int(dense_S.sum()),
        int((sides.frequency_S > VERY).sum()),
        int((score_S[dense_S] > ALMOST).sum()),
        removed_span(run),
        float(fvu) if isinstance(fvu, int | float) else None,
    )


@torch.no_grad()
def _read(
    store: Store,
    site: str,
    sae: SAE,
    rows: Int[np.ndarray, " n"],
    latents: Int[np.ndarray, " s"],
    device: torch.device,
) -> tuple[Float[np.ndarray, "n s"], Float[np.ndarray, " d"]]:
    """Codes of some latents on rows, and the rows' first principal component."""
    chosen = torch.from_numpy(latents).to(device)
    codes, total_D, second_DD = [], np.zeros(sae.width), np.zeros((sae.width, sae.width))
    for start in range(0, len(rows), BATCH):
        x_ND = store.read(site, rows[start : start + BATCH])
        total_D += x_ND.sum(axis=0, dtype=float)
        second_DD += x_ND.T.astype(float) @ x_ND
        z_NS = sae.encode(torch.from_numpy(x_ND).to(device))
        codes.append(z_NS[:, chosen].float().cpu().numpy())
    mean_D = total_D / len(rows)
    _, basis_DD = np.linalg.eigh(second_DD / len(rows) - np.outer(mean_D, mean_D))
    return np.concatenate(codes).astype(float), basis_DD[:, -1]
