"""Runs trained on orbits, found with their stores, and their symmetry analyses."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import torch
from jaxtyping import Float

from tendril.data.errors import ConfigError, RunDamagedError, StoreNotFoundError
from tendril.data.group.dihedral import Dihedral
from tendril.data.home import find_run
from tendril.data.inputs.images import DEAD_LEAVES
from tendril.data.store.provenance import same_identity
from tendril.data.store.reader import Store
from tendril.models.dictionaries.checkpoint import (
    DICTIONARY,
    RESULT,
    load_frequency,
    read_config,
    read_figures,
)
from tendril.models.dictionaries.equivariant import EquivariantCrosscoder, blocks_of
from tendril.models.dictionaries.sae import SAE, Stored

from ..core.report import file_digest
from ..core.stores import stored_run
from ..measures.response_blocks import response_blocks
from ..measures.symmetry_analysis import SymmetryAnalysis, analyse_blocks, raw_anchors
from ..measures.symmetry_thresholds import SymmetryThresholds

JOINED = "joined"  # orbits as a whole, the usual training
BASELINES = {
    "neurons": "units",
    "random": "random directions",
    "pca": "PCA",
    "ica": "ICA",
    "nmf": "NMF",
}
SOURCES = {"one": "encoder reads the identity", "random": "encoder reads a random element"}
HELD_OUT = 0.05  # of runs whose config.json does not say


@final
@dataclass(frozen=True)
class OrbitRun:
    """A run, and a store of orbits: the one it was trained on, or, for a run on single vectors,
    another one of the same site and subject."""

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
    def elsewhere(self) -> bool:
        """True for a run that was trained on another store."""
        return str(self.trained.get("store", self.store.name)) != self.store.name

    @property
    def single(self) -> bool:
        """True for a dictionary of single vectors: elements of orbits, or a store without them."""
        plain = self.elsewhere and not self.trained.get("group")
        return plain or str(self.trained.get("orbits", JOINED)) != JOINED

    @property
    def held_out(self) -> float:
        """The fraction of the inputs that was held out of training."""
        return float(self.trained.get("held_out", HELD_OUT))

    def identity(self) -> dict[str, str]:
        """Names and digests that determine the analysis."""
        digest = file_digest(self.folder / DICTIONARY)
        return {"run": self.name, "dictionary": digest, "store": self.store.name}


def orbit_run(run: Path, store: Store, site: str) -> OrbitRun:
    """A run, with a store of orbits. Raises ConfigError for another store."""
    if store.group is None:
        raise ConfigError(
            f"the store {store.name} of the run {run.name} must hold orbits; it holds single "
            "vectors. Harvest the same site with `tendril harvest orbits`, and pass that store "
            "with --store."
        )
    if site not in store.sites:
        raise ConfigError(
            f"the store {store.name} must hold {site}, the site of the run {run.name}; it holds "
            f"{', '.join(store.sites)}. Pass another --store."
        )
    return OrbitRun(run, store, site, store.group, read_config(run))


def find_control(name: str, home: str, studied: OrbitRun) -> OrbitRun:
    """A run that is shown beside the studied one, with the store that it was trained on itself; for
    a run on single vectors, the store of the studied run."""
    run = find_run(name, home)
    trained = read_config(run)
    store = stored_run(run, trained, "", home)
    if store is None:
        raise StoreNotFoundError(
            f"the store {trained.get('store', '')} of the control {run.name} is gone. Leave the "
            "control out of --controls, or harvest its store again."
        )
    if store.group is not None:
        return orbit_run(run, store, trained["site"])
    if trained["site"] != studied.site or not same_identity(
        store.spec["subject"], studied.store.spec["subject"]
    ):
        raise ConfigError(
            f"{run.name} of --controls was trained on single vectors, so it must be of the site "
            f"and the subject of {studied.name}; got {trained['site']} of {store.name}. Leave it "
            "out."
        )
    return orbit_run(run, studied.store, studied.site)


@torch.no_grad()
def reading_identity(dictionary: SAE, blocks_SGD: Float[torch.Tensor, "s g d"]) -> SAE:
    """A dictionary of single vectors as one of orbits [G D]: it reads the identity element, and
    writes the given blocks."""
    latents, elements, width = blocks_SGD.shape
    wide = SAE(elements * width, latents, dictionary.sparsity, pre_bias=dictionary.pre_bias)
    wide.b_enc.copy_(dictionary.b_enc)
    if wide.threshold is not None and dictionary.threshold is not None:
        wide.threshold.copy_(dictionary.threshold)
    wide.W_enc[:width].copy_(dictionary.W_enc)
    wide.W_dec.copy_(blocks_SGD.flatten(1))
    wide.b_dec.copy_(dictionary.b_dec.repeat(elements))
    return wide


def analyse_run(
    run: OrbitRun, dictionary: Stored, anchors: int, thresholds: SymmetryThresholds
) -> SymmetryAnalysis:
    """The symmetry analysis of a run, against raw anchors of its store.

    The blocks of an SAE of single elements are those of its responses to these anchors. The anchors
    of generated images are no null by default: these are symmetric by design.
    """
    if thresholds.raw_null == "auto" and run.store.spec["inputs"].get("kind") == DEAD_LEAVES:
        thresholds = replace(thresholds, raw_null="no")
    anchors_MGD, inputs_M = raw_anchors(run.store, run.site, anchors, run.held_out)
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
    if run.single and run.elsewhere:
        kind = "SAE of plain inputs"
    if run.single and trained.get("objective") in BASELINES:
        kind = BASELINES[trained["objective"]]
    sources = trained.get("sources", "all")
    rounds = dictionary.rounds if isinstance(dictionary, EquivariantCrosscoder) else 1
    parts = [
        "" if control == "none" else f"control {control.replace('-', ' ')}",
        f"control {drawn.replace(':', ' weights ')}" if drawn else "",
        kind,
        "" if run.single or tied or sources == "all" else SOURCES.get(sources, sources),
        f"{rounds} rounds" if rounds > 1 else "",
        f"seed {trained.get('seed', 0)}",
    ]
    return ", ".join(filter(None, parts))
