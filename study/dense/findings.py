"""Counts of dense latents in some runs, and what those of the first run go with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
from jaxtyping import Bool, Float, Int

from tendril.models.dictionaries.checkpoint import read_config

from ..measures.dense_traits import best_auc, ranks, spearman, tail_fraction
from .traits import Rows

ALMOST = 0.9  # antipodality of a pair
VERY = 0.3  # density above which nearly all latents of language models are in a pair
RANK, AUC, COMPONENT, UNREAD = 0.4, 0.75, 0.75, 0.5
"""Thresholds: rank correlation, AUC and cosine with the first principal component as in the source;
half of the norm in what the unembedding reads least."""
TAIL = 0.1
LEAST = 50  # rows in a group
COMPONENT_1, UNREAD_1 = "first principal component", "not read by the unembedding"


@final
@dataclass(frozen=True)
class Counted:
    """A run: how many latents are dense, and how many of these have an opposite."""

    run: str
    latents: int
    alive: int
    dense: int
    very: int
    paired: int
    removed: str
    fvu: float | None

    def record(self) -> dict[str, Any]:
        """One record for result.json and runs.csv."""
        return {
            "run": self.run,
            "latents": self.latents,
            "alive": self.alive,
            "dense": self.dense,
            "denser_than_0.3": self.very,
            "with_opposite": self.paired,
            "removed_span": self.removed,
            "fvu": "" if self.fvu is None else round(self.fvu, 4),
        }


@final
@dataclass(frozen=True)
class Trait:
    """How strongly each of some latents goes with a property, and above what it counts."""

    name: str
    value_S: Float[np.ndarray, " s"]
    above: float
    which_S: Sequence[str] = ()

    @property
    def met_S(self) -> Bool[np.ndarray, " s"]:
        """Latents that it counts for."""
        found: np.ndarray = np.abs(self.value_S) > self.above
        return found


@final
@dataclass(frozen=True)
class Dense:
    """The findings: counts of all runs, and latents of the first: the dense ones, and others that
    were drawn for comparison."""

    counted: Sequence[Counted]
    latents: Int[np.ndarray, " s"]
    dense_S: Bool[np.ndarray, " s"]
    frequency_S: Float[np.ndarray, " s"]
    score_S: Float[np.ndarray, " s"]
    partner_S: Int[np.ndarray, " s"]
    traits: Sequence[Trait]
    all_frequency: Float[np.ndarray, " a"]
    all_score: Float[np.ndarray, " a"]
    decoder_SD: Float[np.ndarray, "s d"]
    site: str
    store: str
    threshold: float
    rows: int

    def shares(self) -> list[dict[str, Any]]:
        """For each property, the fraction of dense latents and of others that it counts for."""
        found = []
        for trait in self.traits:
            met = [trait.met_S[self.dense_S == dense] for dense in (True, False)]
            parts = [float(m.mean()) if len(m) else float("nan") for m in met]
            found.append(
                {
                    "property": trait.name,
                    "above": trait.above,
                    "dense": round(parts[0], 4) if np.isfinite(parts[0]) else "",
                    "others": round(parts[1], 4) if np.isfinite(parts[1]) else "",
                }
            )
        return found

    def unexplained(self) -> int:
        """Dense latents that no property counts for, and that have no opposite."""
        known_S = self.score_S > ALMOST
        for trait in self.traits:
            known_S = known_S | trait.met_S
        return int((self.dense_S & ~known_S).sum())

    def spans(self) -> dict[str, Float[np.ndarray, "n d"]]:
        """Directions of the dense latents, and of as many others, by the name of their file."""
        dense = self.decoder_SD[self.dense_S]
        others = self.decoder_SD[~self.dense_S]
        draws = np.random.default_rng(0)
        chosen = draws.permutation(len(others))[: len(dense)]
        found = {"dense.safetensors": dense, "others.safetensors": others[chosen]}
        return {name: rows for name, rows in found.items() if len(rows)}

    def figures(self) -> dict[str, Any]:
        """As JSON values."""
        dense = self.score_S[self.dense_S]
        return {
            "site": self.site,
            "store": self.store,
            "above": self.threshold,
            "rows": self.rows,
            "dense": self.counted[0].dense,
            "latents": self.counted[0].latents,
            "with_opposite": self.counted[0].paired,
            "unexplained": self.unexplained(),
            "median_antipodality": round(float(np.median(dense)), 4) if len(dense) else "",
            "runs": [one.record() for one in self.counted],
            "properties": self.shares(),
        }

    def records(self) -> list[dict[str, Any]]:
        """A record a latent, for latents.csv; densest first."""
        found = []
        for i in np.lexsort((-self.frequency_S, ~self.dense_S)):
            record: dict[str, Any] = {
                "latent": int(self.latents[i]),
                "dense": int(self.dense_S[i]),
                "frequency": round(float(self.frequency_S[i]), 4),
                "antipodality": round(float(self.score_S[i]), 4),
                "most opposed": int(self.partner_S[i]) if self.partner_S[i] >= 0 else "",
            }
            for trait in self.traits:
                record[trait.name] = round(float(trait.value_S[i]), 4)
                if trait.which_S:
                    record[f"{trait.name}: which"] = trait.which_S[i]
            found.append(record)
        return found


def traits_of(
    rows: Rows,
    z_NS: Float[np.ndarray, "n s"],
    decoder_SD: Float[np.ndarray, "s d"],
    component_D: Float[np.ndarray, " d"],
) -> list[Trait]:
    """What latents go with: their codes on rows, and their unit decoder rows."""
    rank_NS = ranks(z_NS)
    found = [Trait(name, spearman(rank_NS, value_N), RANK) for name, value_N in rows.values.items()]
    for name, (group_N, names) in rows.groups.items():
        value_S, which_S = best_auc(rank_NS, group_N, LEAST)
        which = [names[g] if g >= 0 else "" for g in which_S]
        found.append(Trait(name, value_S, AUC, which))
    found.append(Trait(COMPONENT_1, decoder_SD @ component_D, COMPONENT))
    if rows.unread is not None:
        found.append(Trait(UNREAD_1, tail_fraction(decoder_SD, rows.unread, TAIL), UNREAD))
    return found


def removed_span(run: Path) -> str:
    """The file whose span a run was trained without; empty for none."""
    given: Mapping[str, Any] = read_config(run)
    return Path(str(given.get("remove_span") or "")).name
