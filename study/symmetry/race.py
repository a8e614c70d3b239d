"""Methods side by side: the quality of the families that each of some runs gives.

A method is a kind of run, and its runs are seeds of one another. Orbits of images that all runs
held out of training are divided by image. On one part, the test part, families are compared. FVU on
the other, the validation part, is for choosing recipes, so that no choice sees the test part.

The families of a dictionary of single vectors are formed twice: by the blocks of its responses over
the orbits of training images, and by the cosines of its decoder's rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int, Int64

from tendril.data.order import held_out
from tendril.data.store.reader import Store
from tendril.models.dictionaries.baselines import neurons
from tendril.models.dictionaries.crosscoder import reading_first
from tendril.models.dictionaries.sae import SAE, Stored

from ..core.trained import BASELINES
from ..measures.family_quality import (
    FamilyQuality,
    assigned,
    family_quality,
    members_of,
    stability,
    tied_members_of,
)
from ..measures.latent_families import alignment, find_families
from ..measures.orbit_codes import orbit_codes, orbit_fvu
from ..measures.response_blocks import response_blocks
from ..measures.symmetry_analysis import (
    LEAST_ALIKE,
    PAIR_QUANTILE,
    PAIRED,
    SymmetryAnalysis,
    analyse_blocks,
    raw_anchors,
)
from ..measures.symmetry_thresholds import SymmetryThresholds
from .runs import OrbitRun

FEWEST = 3  # orbits, for silhouettes
BY_DECODER = "families by decoder"
SEED = ", seed "
PENALISED = ("relu_l1", "tied", "gated")  # objectives whose sparsity --l1 sets
TRAINING = ("latents", "families", "k", "l1", "steps", "lr")
"""Fields of a run's config that tell methods of one kind apart."""


@final
@dataclass(frozen=True)
class Entry:
    """One run in the race: its method, its measures and assignments of the test orbits, and its FVU
    on the validation orbits."""

    run: str
    method: str
    quality: FamilyQuality
    assigned: Int64[np.ndarray, " n"]
    tied: bool
    fvu: float
    views: int
    """Elements of an orbit that the encoder reads at a time."""
    parameters: int | None
    seconds: float | None

    def figures(self) -> dict[str, Any]:
        """As JSON values."""
        costs = {
            "fvu": round(self.fvu, 4),
            "views": self.views,
            "parameters": self.parameters,
            "seconds": self.seconds,
        }
        return {"method": self.method, **self.quality.figures(), **costs}


@final
@dataclass(frozen=True)
class Race:
    """The entries, on `orbits` test orbits and as many validation orbits, or fewer."""

    orbits: int
    entries: tuple[Entry, ...]
    notes: tuple[str, ...] = field(default=())

    @property
    def methods(self) -> dict[str, list[Entry]]:
        """Method -> its entries, one a seed."""
        found: dict[str, list[Entry]] = {}
        for entry in self.entries:
            found.setdefault(entry.method, []).append(entry)
        return found

    def stability(self, method: str) -> list[float]:
        """The agreement of each pair of seeds of a method."""
        return stability([entry.assigned for entry in self.methods[method]])

    def figures(self) -> dict[str, Any]:
        """As JSON values, by method: mean, least and largest value over its seeds."""
        methods = {}
        for method, entries in self.methods.items():
            ours = [entry.figures() for entry in entries]
            spread = {
                name: [round(f([one[name] for one in ours]), 4) for f in (_mean, min, max)]
                for name in ours[0]
                if name != "method" and all(one[name] is not None for one in ours)
            }
            pairs = self.stability(method)
            stable = [round(f(pairs), 4) for f in (_mean, min, max)] if pairs else None
            about = {"seeds": len(entries), "tied": entries[0].tied, "stability": stable}
            methods[method] = {**about, **spread}
        runs = [{"run": entry.run, **entry.figures()} for entry in self.entries]
        return {"orbits": self.orbits, "methods": methods, "runs": runs}


def race(
    runs: Sequence[tuple[OrbitRun, Stored, SymmetryAnalysis]],
    orbits: int,
    test: float,
    anchors: int,
    thresholds: SymmetryThresholds,
) -> Race:
    """The measures of each run on orbits that all of them held out. Runs of another store or site
    than the first run's, whose orbits differ, are left out and noted."""
    first = runs[0][0]
    same = [
        (r, d, a) for r, d, a in runs if (r.store.name, r.site) == (first.store.name, first.site)
    ]
    notes = [
        f"{run.name} is of other orbits, so it is not in the comparison of methods."
        for run, _, _ in runs
        if (run.store.name, run.site) != (first.store.name, first.site)
    ]
    notes += [note for run, _, _ in same if (note := _other_images(run))]
    fraction = min(run.held_out for run, _, _ in same)
    x_NGD, validation_NGD = held_out_orbits(first.store, first.site, fraction, test, orbits)
    if min(len(x_NGD), len(validation_NGD)) < FEWEST:
        few = (
            f"{len(x_NGD)} test and {len(validation_NGD)} validation orbits are held out of "
            "training, too few to compare families on."
        )
        return Race(len(x_NGD), (), (*notes, few))
    likeness_NN, _ = alignment(x_NGD, x_NGD, first.group)
    units_N = units_assigned(first, x_NGD, anchors, thresholds)
    entries = []
    for run, trained, analysis in same:
        dictionary = as_trained(run, trained)
        z_NGS = orbit_codes(dictionary, x_NGD, run.group)
        fvu = orbit_fvu(dictionary, validation_NGD)
        variants = {"": analysis}
        if run.single:
            variants[f", {BY_DECODER}"] = by_decoder(analysis, dictionary, x_NGD)
        for suffix, variant in variants.items():
            latents, total = variant.latents, dictionary.latents
            members = (
                tied_members_of(variant.families, latents, total, run.group)
                if variant.tied
                else members_of(variant.families, latents, total)
            )
            quality, assigned_N = family_quality(
                z_NGS,
                members,
                variant.families,
                variant.classes,
                likeness_NN,
                units_N,
                run.group,
            )
            if variant.tied:  # a family is the copies of a latent, which share its class
                quality = replace(quality, agreement=1.0, members=1.0)
            entries.append(
                Entry(
                    run.name,
                    method_of(run, analysis.about, tied=analysis.tied) + suffix,
                    quality,
                    assigned_N,
                    variant.tied,
                    fvu,
                    views_of(run),
                    analysis.trained.get("parameters"),
                    analysis.trained.get("seconds"),
                )
            )
    return Race(len(x_NGD), tuple(entries), tuple(dict.fromkeys(notes)))


def method_of(run: OrbitRun, about: str, *, tied: bool) -> str:
    """What all seeds of a run, of which `about` says what it is, have in common."""
    trained = run.trained
    kind = about.rpartition(SEED)[0] or about
    used = {name: trained[name] for name in TRAINING if trained.get(name)}
    used.pop("latents" if tied else "families", None)
    if trained.get("objective") not in PENALISED:
        used.pop("l1", None)
    if trained.get("objective") in BASELINES:
        used = {"k": used["k"]} if "k" in used else {}
    return ", ".join([kind, *(f"{name} {value:g}" for name, value in used.items())])


def as_trained(run: OrbitRun, dictionary: Stored) -> Stored:
    """The dictionary as it reads orbits in training: one element, if its sources are random."""
    if run.trained.get("sources") != "random" or run.single or not isinstance(dictionary, SAE):
        return dictionary
    return reading_first(dictionary, (dictionary.width // len(run.group),) * len(run.group))


def views_of(run: OrbitRun) -> int:
    """Elements of an orbit that the encoder reads at a time."""
    return 1 if run.single or run.trained.get("sources", "all") != "all" else len(run.group)


def held_out_orbits(
    store: Store, site: str, fraction: float, test: float, most: int
) -> tuple[Float32[np.ndarray, "n g d"], Float32[np.ndarray, "v g d"]]:
    """Up to `most` random test orbits, and as many validation orbits, of the inputs that a fraction
    holds out; `test` of these are of the test part."""
    valid, parts = store.column("valid").astype(bool), []
    for there_R in divided(store.column("input"), fraction, test):
        rows = np.random.default_rng(0).permutation(np.flatnonzero(valid & there_R))[:most]
        parts.append(np.asarray(store.read(site, np.sort(rows)), np.float32))
    return parts[0], parts[1]


def divided(
    inputs_R: Int[np.ndarray, " r"], fraction: float, test: float
) -> tuple[Bool[np.ndarray, " r"], Bool[np.ndarray, " r"]]:
    """True for the rows of the test part, and for those of the validation part."""
    tested_R = held_out(inputs_R, fraction * test)
    return tested_R, held_out(inputs_R, fraction) & ~tested_R


def units_assigned(
    run: OrbitRun,
    x_NGD: Float32[np.ndarray, "n g d"],
    anchors: int,
    thresholds: SymmetryThresholds,
) -> Int64[np.ndarray, " n"]:
    """The family of units to which each orbit is assigned. Families of units are formed as those of
    a dictionary of single vectors whose latents are all units of the site."""
    anchors_MGD, inputs_M = raw_anchors(run.store, run.site, anchors, run.held_out)
    x_MD = torch.from_numpy(anchors_MGD[:, 0])
    units = neurons(x_MD, x_MD.shape[1])
    blocks_FGD = response_blocks(units, torch.from_numpy(anchors_MGD), run.group).numpy()
    active_F = np.abs(blocks_FGD).max(axis=(1, 2))
    found = analyse_blocks(
        "units", blocks_FGD, active_F, run.group, anchors_MGD, inputs_M, thresholds, tied=False
    )
    members = members_of(found.families, found.latents, units.latents)
    return assigned(orbit_codes(units, x_NGD, run.group), members)


def by_decoder(
    analysis: SymmetryAnalysis, dictionary: Stored, x_NGD: Float32[np.ndarray, "n g d"]
) -> SymmetryAnalysis:
    """The analysis with families by the cosines of decoder rows: cut at the 0.99 quantile over
    pairs of centred vectors of different orbits, and at least 0.5, as families by blocks are. Poses
    are still those of the blocks, because rows have none."""
    rows_FD = dictionary.W_dec.detach().float().cpu().numpy()[analysis.latents]
    vectors_ND = x_NGD[:PAIRED, 0] - x_NGD[:, 0].mean(axis=0)
    cosine_NN = _cosines(vectors_ND)
    pairs = cosine_NN[np.triu_indices(len(cosine_NN), 1)]
    least = max(LEAST_ALIKE, float(np.quantile(pairs, PAIR_QUANTILE)) if len(pairs) else 0.0)
    _, pose_FF = alignment(analysis.blocks, analysis.blocks, analysis.group)
    families = find_families(
        _cosines(rows_FD), pose_FF, least, analysis.group, analysis.stabilisers, analysis.axes
    )
    return replace(analysis, families=tuple(families), alike=least)


def _cosines(rows_ND: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(rows_ND, axis=1, keepdims=True)
    unit = np.divide(rows_ND, norms, out=np.zeros_like(rows_ND), where=norms > 0)
    return np.asarray(unit @ unit.T)


def _other_images(run: OrbitRun) -> str:
    """A sentence where orbits held out of the store may have been trained on: a run on another
    store holds out the same numbers of inputs, which are other images if the images differ."""
    return (
        f"{run.name} was trained on {run.trained['store']}. If that store is not of the same "
        "images in the same order, some of its training images are among the held-out orbits."
        if run.elsewhere
        else ""
    )


def _mean(values: Sequence[float | int]) -> float:
    return float(np.mean(values))
