"""Runs trained on orbits, found with their stores, and their symmetry analyses."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import torch

from tendril.data.errors import ConfigError, RunDamagedError, StoreNotFoundError
from tendril.data.group.dihedral import Dihedral
from tendril.data.home import find_run
from tendril.data.store.reader import Store
from tendril.models.dictionaries.checkpoint import (
    DICTIONARY,
    RESULT,
    load_frequency,
    read_config,
    read_figures,
)
from tendril.models.dictionaries.equivariant import EquivariantCrosscoder, blocks_of
from tendril.models.dictionaries.sae import Stored

from ..core.report import file_digest
from ..core.stores import stored_run
from ..measures.response_blocks import response_blocks
from ..measures.symmetry_analysis import SymmetryAnalysis, analyse_blocks, raw_anchors
from ..measures.symmetry_thresholds import SymmetryThresholds

JOINED = "joined"  # orbits as a whole, the usual training


@final
@dataclass(frozen=True)
class OrbitRun:
    """A run trained on orbits, and the store of these."""

    folder: Path
    store: Store
    site: str
    group: Dihedral
    trained: Mapping[str, Any]
    """The run's config.json."""

    @property
    def name(self) -> str:
        """The run's name."""
        return self.folder.resolve().name

    @property
    def single(self) -> bool:
        """True for an SAE of single elements of orbits."""
        return str(self.trained.get("orbits", JOINED)) != JOINED

    def identity(self) -> dict[str, str]:
        """Names and digests that determine the analysis."""
        digest = file_digest(self.folder / DICTIONARY)
        return {"run": self.name, "dictionary": digest, "store": self.store.name}


def orbit_run(run: Path, store: Store, site: str) -> OrbitRun:
    """A run on a store of orbits. Raises ConfigError for another store."""
    if store.group is None:
        raise ConfigError(
            f"the store {store.name} of the run {run.name} must hold orbits; it holds single "
            "vectors. Harvest with `tendril harvest orbits` and train on that store."
        )
    return OrbitRun(run, store, site, store.group, read_config(run))


def find_control(name: str, home: str) -> OrbitRun:
    """A control run, with the store that it was trained on itself."""
    run = find_run(name, home)
    trained = read_config(run)
    store = stored_run(run, trained, "", home)
    if store is None:
        raise StoreNotFoundError(
            f"the store {trained.get('store', '')} of the control {run.name} is gone. Leave the "
            "control out of --controls, or harvest its store again."
        )
    return orbit_run(run, store, trained["site"])


def analyse_run(
    run: OrbitRun, dictionary: Stored, anchors: int, thresholds: SymmetryThresholds
) -> SymmetryAnalysis:
    """The symmetry analysis of a run, against raw anchors of its store.

    The blocks of an SAE of single elements are those of its responses to these anchors.
    """
    anchors_MGD, inputs_M = raw_anchors(run.store, run.site, anchors)
    if run.single:
        blocks = response_blocks(dictionary, torch.from_numpy(anchors_MGD), run.group)
    else:
        blocks = blocks_of(dictionary, run.group)
    blocks_FGD = blocks.float().cpu().numpy()
    frequency_F = load_frequency(run.folder).float().cpu().numpy()
    if len(frequency_F) != len(blocks_FGD):
        raise RunDamagedError(
            f"{run.folder} must hold one frequency per latent; got {len(frequency_F)} for "
            f"{len(blocks_FGD)} latents. Train the run again."
        )
    analysis = analyse_blocks(
        run.name,
        blocks_FGD,
        frequency_F,
        run.group,
        anchors_MGD,
        inputs_M,
        thresholds,
        tied=isinstance(dictionary, EquivariantCrosscoder),
    )
    trained = read_figures(run.folder) if (run.folder / RESULT).is_file() else {}
    return replace(analysis, about=describe(run, dictionary), trained=trained)


def describe(run: OrbitRun, dictionary: Stored) -> str:
    """What kind of run it is: its control, if it is one, its kind of dictionary and its seed."""
    trained = run.trained
    control = trained.get("control") or "none"
    drawn = (trained.get("subject") or {}).get("drawn")
    tied = isinstance(dictionary, EquivariantCrosscoder)
    kind = {"each": "SAE of augmented inputs", "identity": "SAE of plain inputs"}.get(
        trained.get("orbits", ""), "tied" if tied else "not tied"
    )
    rounds = dictionary.rounds if isinstance(dictionary, EquivariantCrosscoder) else 1
    parts = [
        "" if control == "none" else f"control {control.replace('-', ' ')}",
        f"control {drawn.replace(':', ' weights ')}" if drawn else "",
        kind,
        f"{rounds} rounds" if rounds > 1 else "",
        f"seed {trained.get('seed', 0)}",
    ]
    return ", ".join(filter(None, parts))
