"""The direct test: how many latents does the curve family of a network take as sizes grow?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float, Float32

from tendril.data.errors import ConfigError
from tendril.data.store.provenance import same_identity
from tendril.data.store.reader import BATCH_DEFAULTS, Store
from tendril.models.dictionaries.checkpoint import load_sae, read_config
from tendril.models.dictionaries.sae import SAE
from tendril.models.dictionaries.sparsity import Sparsity
from tendril.models.subjects.synthetic.planted_features import FIRST, PlantedFeatures
from tendril.models.subjects.synthetic.planted_networks import NAMES, features_of

from ..core.stores import common_store, is_language_run, trained_sites
from ..core.vision_inputs import VisionInputs, find_vision_inputs
from ..measures.curve_family import CurveFamily, latent_family, unit_family
from ..measures.curve_growth import NONE, Tiling, owners, rows_of_curves, tiling
from ..measures.decoder_geometry import random_like
from ..measures.gap_chance import copies_a_unit
from .config import ScalingConfig

BLOCK = 2**24
"""Activations that are encoded at a time."""


@final
@dataclass(frozen=True)
class Planted:
    """Latents of the planted features of one kind.

    features: planted directions; of a continuous family, reference orientations
    found:    those with a latent
    latents:  living latents that belong to them
    """

    kind: str
    features: int
    found: int
    latents: int


@final
@dataclass(frozen=True)
class Family:
    """The curve family of one dictionary.

    alive:   latents that fire on the rows of the store that were read
    curves:  those of them that pass the criteria of the study `curves`
    tiling:  how finely their orientations tile the circle
    kinds:   different pairs of the radius and the style (line or edge) that they prefer
    copies:  those whose decoder row copies a unit
    weak:    those that pass the criteria when responses of any strength count
    inside:  living latents with more than half of the squared norm of the decoder row in the
             curve units
    random, random_weak, random_inside: the same counts among as many random directions with the
             second moments of the living decoder rows, read with as many active latents
    fvu_curves, fvu_rest: FVU of the held-out rows on which a curve unit is strong, and of the rest
    planted: latents of planted features, where they are known
    """

    run: str
    latents: int
    seed: int
    alive: int
    curves: int
    tiling: Tiling
    kinds: int
    copies: int
    weak: int
    inside: int
    random: int
    random_weak: int
    random_inside: int
    fvu_curves: float
    fvu_rest: float
    planted: Sequence[Planted]

    def record(self) -> dict[str, Any]:
        """One record for result.json and curve_family.csv."""
        of_kinds = {
            f"planted_{one.kind}": f"{one.latents} on {one.found}/{one.features}"
            if one.features
            else one.latents
            for one in self.planted
        }
        return {
            "run": self.run,
            "latents": self.latents,
            "seed": self.seed,
            "alive": self.alive,
            "curves": self.curves,
            "random_curves": self.random,
            "any_strength": self.weak,
            "random_any_strength": self.random_weak,
            "in_curve_units": self.inside,
            "random_in_curve_units": self.random_inside,
            "distinct_orientations": self.tiling.distinct,
            "distinct_directions": self.tiling.directions,
            "kinds": self.kinds,
            "copies_of_units": self.copies,
            "widest_gap": round(self.tiling.widest, 2),
            "widest_gap_chance": round(self.tiling.chance, 2),
            "median_gap": _known(self.tiling.median, 2),
            "fvu_curves": _known(self.fvu_curves, 5),
            "fvu_rest": _known(self.fvu_rest, 5),
        } | of_kinds


@final
@dataclass(frozen=True)
class CurveTest:
    """Families of all runs at one site; `units` curve units of `width`; rows_curves of `rows`
    held-out rows have a strong curve unit."""

    subject: str
    site: str
    store: str
    units: int
    width: int
    rows: int
    rows_curves: int
    families: Sequence[Family]


def _known(value: float, digits: int) -> float | str:
    return round(value, digits) if np.isfinite(value) else ""


def find_curve_inputs(config: ScalingConfig, runs: Sequence[Path]) -> tuple[VisionInputs, Store]:
    """Subject and store of the runs of a direct test.

    Raises ConfigError for runs of different sites or subjects, on a language model, of several
    sites or over a group, and what `find_vision_inputs` and `common_store` raise.
    """
    trained = {run.name: read_config(run) for run in runs}
    for run in runs:
        if is_language_run(run):
            raise ConfigError(
                f"--curves shows drawn curves to a vision network; {run.name} was trained on a "
                "language model. Leave --curves out."
            )
        config_of = trained[run.name]
        joined = config_of.get("group") and config_of.get("orbits", "joined") == "joined"
        if len(config_of.get("sites") or ()) > 1 or joined:
            raise ConfigError(
                f"--curves needs dictionaries of single vectors of one site; {run.name} is a "
                "crosscoder. Choose other runs, or leave --curves out."
            )
    sites = {name: str(one.get("site", "")) for name, one in trained.items()}
    if len(set(sites.values())) > 1:
        listed = ", ".join(f"{site} ({name})" for name, site in sites.items())
        raise ConfigError(
            f"--curves counts the curve latents of one site; got {listed}. Give the runs of each "
            "site by themselves."
        )
    first = runs[0]
    inputs = find_vision_inputs(config, str(first), images=False, field_for="scaling")
    made_with = dict(trained[first.name].get("subject") or {})
    for run in runs:
        other = dict(trained[run.name].get("subject") or {})
        if not same_identity(made_with, other):
            raise ConfigError(
                f"--curves counts the curve latents of one subject; {first.name} and {run.name} "
                "were trained on different ones. Give the runs of each subject by themselves."
            )
    return inputs, common_store(runs, config.home, config.store)


def curve_test(
    config: ScalingConfig,
    inputs: VisionInputs,
    store: Store,
    runs: Sequence[Path],
    device: torch.device,
) -> CurveTest:
    """The curve family of every run, on the same drawn curves and the same rows of the store."""
    for run in runs:
        trained_sites(run, store, load_sae(run).width)
    subject, site = inputs.subject, inputs.site
    units = unit_family(subject, site, config.search, device)
    held_out = float(read_config(runs[0]).get("held_out", BATCH_DEFAULTS["held_out"]))
    held_ND = rows_of(store, site, "held_out", held_out, config.rows)
    fired_ND = rows_of(store, site, "all", held_out, config.rows)
    strong_N = rows_of_curves(held_ND, units.members)
    planted = _planted(subject.name, site)
    families = [
        measure_family(run, units, held_ND, fired_ND, strong_N, planted, device) for run in runs
    ]
    return CurveTest(
        subject.name,
        site,
        store.name,
        len(units.members),
        units.responses.shape[-1],
        len(held_ND),
        int(strong_N.sum()),
        families,
    )


def rows_of(
    store: Store, site: str, part: str, held_out: float, most: int
) -> Float32[np.ndarray, "n d"]:
    """At most `most` random rows of a part of a store, the same each time; single vectors of
    orbits. Raises ConfigError where the part has none."""
    options: dict[str, Any] = {"part": part, "held_out": held_out, "epochs": 1, "seed": 0}
    each = len(store.group) if store.group else 1
    batch = next(iter(store.batches(site, -(-most // each), **options)))
    x_ND = batch.float().numpy()
    return np.ascontiguousarray(x_ND.reshape(-1, x_ND.shape[-1])[:most])


def measure_family(
    run: Path,
    units: CurveFamily,
    held_ND: Float32[np.ndarray, "n d"],
    fired_ND: Float32[np.ndarray, "m d"],
    strong_N: np.ndarray,
    planted: PlantedFeatures | None,
    device: torch.device,
) -> Family:
    """The curve family of one run."""
    sae, trained = load_sae(run).to(device), read_config(run)
    fires_S, active, _ = _pass(sae, fired_ND, device)
    _, _, error_ND = _pass(sae, held_ND, device)
    alive_S = fires_S > 0
    rows_SD = sae.W_dec.detach().float().cpu().numpy()
    family = latent_family(units, sae, device)
    members = [member for member in family.members if alive_S[member]]
    random, random_weak, random_inside = _random_curves(
        sae, rows_SD[alive_S], active, units, device
    )
    scores = family.scores
    site = str(trained.get("site", ""))
    return Family(
        run=run.name,
        latents=len(rows_SD),
        seed=int(trained.get("seed", 0)),
        alive=int(alive_S.sum()),
        curves=len(members),
        tiling=tiling([family.orientation(m) for m in members], rows_SD[members]),
        kinds=len({(float(scores.radius[m]), bool(scores.line_edge[m] > 0)) for m in members}),
        copies=sum(copies_a_unit(rows_SD[members])),
        weak=sum(bool(alive_S[member]) for member in at_any_strength(family)),
        inside=inside(rows_SD[alive_S], units.members),
        random=random,
        random_weak=random_weak,
        random_inside=random_inside,
        fvu_curves=_fvu(held_ND, error_ND, strong_N),
        fvu_rest=_fvu(held_ND, error_ND, ~strong_N),
        planted=planted_counts(rows_SD[alive_S], planted, site) if planted else (),
    )


def _pass(
    sae: SAE, x_ND: Float32[np.ndarray, "n d"], device: torch.device
) -> tuple[np.ndarray, float, Float32[np.ndarray, "n d"]]:
    """How often each latent fires, active latents a row, and what is not reconstructed."""
    fires_S, errors = np.zeros(sae.latents, np.int64), []
    with torch.inference_mode():
        for x in torch.split(torch.from_numpy(x_ND), max(1, BLOCK // sae.latents)):
            z_NS = sae.encode(x.to(device))
            fires_S += (z_NS > 0).sum(dim=0).cpu().numpy()
            errors.append((x.to(device) - sae.decode(z_NS)).float().cpu().numpy())
    return fires_S, float(fires_S.sum()) / max(len(x_ND), 1), np.concatenate(errors)


def _fvu(x_ND: np.ndarray, error_ND: np.ndarray, chosen_N: np.ndarray) -> float:
    """Squared error over squared distance from the mean of all rows; NaN without chosen rows."""
    if not chosen_N.any():
        return float("nan")
    apart_ND = (x_ND - x_ND.mean(axis=0, dtype=np.float64))[chosen_N]
    return float((error_ND[chosen_N].astype(np.float64) ** 2).sum() / (apart_ND**2).sum())


def _random_curves(
    sae: SAE,
    alive_SD: Float[np.ndarray, "s d"],
    active: float,
    units: CurveFamily,
    device: torch.device,
) -> tuple[int, int, int]:
    """Curve latents, those at any strength and those inside the curve units, among random
    directions in place of the living latents."""
    if len(alive_SD) < 2:
        return 0, 0, 0
    drawn_SD = random_like(alive_SD)
    unit_SD = drawn_SD / np.maximum(np.linalg.norm(drawn_SD, axis=1, keepdims=True), 1e-30)
    k = min(max(1, round(active)), len(unit_SD))
    control = SAE(unit_SD.shape[1], len(unit_SD), Sparsity("topk", k), pre_bias=True)
    with torch.no_grad():
        control.W_dec.copy_(torch.from_numpy(unit_SD))
        control.W_enc.copy_(control.W_dec.T)
        control.b_dec.copy_(sae.b_dec.cpu())
    family = latent_family(units, control.to(device), device)
    return len(family.members), len(at_any_strength(family)), inside(unit_SD, units.members)


def at_any_strength(family: CurveFamily) -> list[int]:
    """The members of a family when weak responses count as well: a latent that answers to curves
    of few radii or one style has a low tuning curve, which is a mean over all."""
    return replace(family.thresholds, strength=0.0).curves(family.scores)


def inside(rows_SD: Float[np.ndarray, "s d"], units: Sequence[int]) -> int:
    """Rows with more than half of their squared norm in some units."""
    power_SD = np.square(rows_SD, dtype=np.float64)
    return int((power_SD[:, list(units)].sum(axis=1) > 0.5 * power_SD.sum(axis=1)).sum())


def _planted(subject: str, site: str) -> PlantedFeatures | None:
    return features_of(subject) if subject in NAMES and site in FIRST else None


def planted_counts(
    alive_SD: Float[np.ndarray, "s d"], planted: PlantedFeatures, site: str
) -> list[Planted]:
    """Living latents of the planted features of each kind, and those that belong to none."""
    owner_S = owners(alive_SD, planted.directions(site))
    kinds = np.array([feature.kind for feature in planted.features])
    counts: Mapping[str, int] = {kind: int((kinds == kind).sum()) for kind in dict.fromkeys(kinds)}
    made = []
    for kind, features in counts.items():
        its = owner_S[(owner_S != NONE) & (kinds[owner_S] == kind)]
        made.append(Planted(str(kind), features, len(np.unique(its)), len(its)))
    return [*made, Planted("none", 0, 0, int((owner_S == NONE).sum()))]
