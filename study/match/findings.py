"""Links between the dictionaries of successive layers, and chains of links."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, final

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import sparse

from tendril.data.errors import ConfigError
from tendril.models.dictionaries.sae import SAE

from ..measures.layer_matching import (
    Assignment,
    assign,
    assign_rows,
    correlations,
    fold,
    pair_correlations,
)
from .config import MatchConfig
from .inputs import mean_when_on

SEED = 0  # of the random pairs
OWN, MATCHED, RANDOM, COPIED = "own code", "matched", "random partners", "the layer before"
"""What a skipped layer is replaced by."""
LARGEST_BY_ACTIVATIONS = 16_384
"""Latents above which the table of all correlations does not fit."""
HOLDS = 0.5
"""Correlation above which a link is taken to continue a latent."""


@final
@dataclass(frozen=True)
class Link:
    """The matching of two successive dictionaries.

    partner_S:     the partner of each latent of the first; -1 for none
    correlation_S: of the activations of each pair; NaN where one is silent or has no partner
    best_S:        that of the matching by activations, which no other matching exceeds on average;
                   None for dictionaries that are too large for it
    agree_S:       true where both matchings name the same partner
    random:        mean correlation of random pairs of living latents
    unfolded:      mean correlation of the matching by weights as they are; None by activations
    shuffled:      mean correlation of a matching by activations whose rows are in random order: the
                   chance level of the best of so many pairs; None by weights
    """

    first: str
    second: str
    by: Literal["weights", "activations"]
    assignment: Assignment
    partner_S: Int[np.ndarray, " s"]
    correlation_S: Float[np.ndarray, " s"]
    best_S: Float[np.ndarray, " s"] | None
    agree_S: Bool[np.ndarray, " s"] | None
    alive: tuple[int, int]
    random: float
    unfolded: float | None
    shuffled: float | None

    def record(self) -> dict[str, Any]:
        """One record for result.json and links.csv."""
        known_S = np.isfinite(self.correlation_S)
        known = self.correlation_S[known_S]
        agree = np.zeros(0) if self.agree_S is None else self.agree_S[known_S]
        means = {
            "correlation": _average(known),
            "correlation_by_activations": np.nan if self.best_S is None else _average(self.best_S),
            "correlation_unfolded": np.nan if self.unfolded is None else self.unfolded,
            "correlation_shuffled": np.nan if self.shuffled is None else self.shuffled,
            "correlation_random": self.random,
            "above_half": _average((known > HOLDS).astype(float)),
            "same_as_by_activations": _average(agree.astype(float)),
        }
        return {
            "first": self.first,
            "second": self.second,
            "by": self.by,
            "pairs": len(self.assignment.first_M),
            "living_pairs": len(known),
            "alive_first": self.alive[0],
            "alive_second": self.alive[1],
            **{name: round(v, 4) if np.isfinite(v) else "" for name, v in means.items()},
            "gap": round(self.assignment.gap, 5),
        }


@final
@dataclass(frozen=True)
class Chains:
    """A latent of each layer, the partner of the one before; those with the least weak link first.

    latents_CL: numbers of latents; links_CL: correlation of each link; weakest_C: the lowest one
    """

    latents_CL: Int[np.ndarray, "c l"]
    links_CK: Float[np.ndarray, "c k"]

    @property
    def weakest_C(self) -> Float[np.ndarray, " c"]:
        """The correlation of the weakest link."""
        found: np.ndarray = self.links_CK.min(axis=1)
        return found


@final
@dataclass(frozen=True)
class Matched:
    """Links, chains, what layers cost that are skipped, and examples of latents in words."""

    sites: Sequence[str]
    runs: Sequence[str]
    latents: Sequence[int]
    rows: int
    links: Sequence[Link]
    chains: Chains
    direct: float | None
    """Over three layers or more: fraction of living chains whose ends are matched to each other
    directly, too."""
    skipped: Sequence[Mapping[str, Any]]
    words: Sequence[Mapping[int, str]]
    subject: str
    store: str

    def figures(self) -> dict[str, Any]:
        """As JSON values."""
        weakest = self.chains.weakest_C
        return {
            "subject": self.subject,
            "store": self.store,
            "sites": list(self.sites),
            "runs": list(self.runs),
            "latents": list(self.latents),
            "rows": self.rows,
            "links": [link.record() for link in self.links],
            "chains": len(weakest),
            "chains_above_half": int((weakest > HOLDS).sum()),
            "direct": "" if self.direct is None else round(self.direct, 4),
            "skipped": [dict(one) for one in self.skipped],
        }


def link_of(
    config: MatchConfig,
    names: tuple[str, str],
    saes: tuple[SAE, SAE],
    codes: tuple[sparse.csr_array, sparse.csr_array],
) -> Link:
    """Match two dictionaries and check the matching on data. Raises ConfigError for dictionaries
    that are too large to be matched by activations."""
    by: Literal["weights", "activations"] = "weights" if config.by == "weights" else "activations"
    if config.by == "auto" and saes[0].width == saes[1].width:
        by = "weights"
    size, largest = saes[0].latents, max(sae.latents for sae in saes)
    if by == "activations" and largest > LARGEST_BY_ACTIVATIONS:
        raise ConfigError(
            f"matching by activations takes at most {LARGEST_BY_ACTIVATIONS:,} latents; got "
            f"{largest:,}. Match by weights (--by weights), or smaller dictionaries."
        )
    best_S = None
    if largest <= LARGEST_BY_ACTIVATIONS:
        best = assign(correlations(*codes))
        best_S = best.partner(size)
    unfolded = shuffled = None
    if by == "activations":
        shuffled = _shuffled(codes)
    if by == "weights":
        best = _by_weights(saes, codes, folded=True)
        plain = _by_weights(saes, codes, folded=False)
        unfolded = _average(pair_correlations(*codes, plain.partner(size)))
    partner_S = best.partner(size)
    alive = [np.asarray((z > 0).sum(axis=0)).ravel() > 0 for z in codes]
    return Link(
        *names,
        by,
        best,
        partner_S,
        pair_correlations(*codes, partner_S),
        None if best_S is None else pair_correlations(*codes, best_S),
        None if best_S is None else partner_S == best_S,
        (int(alive[0].sum()), int(alive[1].sum())),
        _random(codes, alive),
        unfolded,
        shuffled,
    )


def _by_weights(
    saes: tuple[SAE, SAE], codes: tuple[sparse.csr_array, sparse.csr_array], *, folded: bool
) -> Assignment:
    rows = []
    for sae, z_NS in zip(saes, codes, strict=True):
        scale_S = None if sae.threshold is not None else mean_when_on(z_NS)
        rows.append(fold(sae, scale_S if folded else np.ones(sae.latents)).rows)
    return assign_rows(rows[0], rows[1])


def _shuffled(codes: tuple[sparse.csr_array, sparse.csr_array]) -> float:
    first, second = codes
    turned = second[np.random.default_rng(SEED).permutation(second.shape[0])]
    partner_S = assign(correlations(first, turned)).partner(first.shape[1])
    return _average(pair_correlations(first, turned, partner_S))


def _average(values: Float[np.ndarray, " n"]) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


def _random(
    codes: tuple[sparse.csr_array, sparse.csr_array], alive: Sequence[Bool[np.ndarray, " _"]]
) -> float:
    """The mean correlation over random pairs of living latents."""
    draws = np.random.default_rng(SEED)
    first, second = (draws.permutation(np.flatnonzero(one)) for one in alive)
    count = min(len(first), len(second))
    partner_S = np.full(len(alive[0]), -1)
    partner_S[first[:count]] = second[:count]
    return _average(pair_correlations(*codes, partner_S))


def chains_of(links: Sequence[Link]) -> Chains:
    """The chains from the first layer to the last whose latents are all alive, strongest first."""
    latents = [np.arange(len(links[0].partner_S))]
    strengths = []
    for link in links:
        at = latents[-1]
        latents.append(np.where(at >= 0, np.append(link.partner_S, -1)[at], -1))
        strengths.append(np.where(at >= 0, np.append(link.correlation_S, np.nan)[at], np.nan))
    latents_CL, links_CK = np.stack(latents, axis=1), np.stack(strengths, axis=1)
    whole_C = (latents_CL >= 0).all(axis=1) & np.isfinite(links_CK).all(axis=1)
    latents_CL, links_CK = latents_CL[whole_C], links_CK[whole_C]
    best_C = np.argsort(-links_CK.min(axis=1), kind="stable")
    return Chains(latents_CL[best_C], links_CK[best_C])


def direct_agreement(
    config: MatchConfig,
    links: Sequence[Link],
    saes: Sequence[SAE],
    codes: Sequence[sparse.csr_array],
) -> float | None:
    """Fraction of living chains whose first and last latents are matched to each other directly,
    too; None for a single link."""
    if len(links) < 2:
        return None
    ends = (saes[0], saes[-1]), (codes[0], codes[-1])
    direct = link_of(config, (links[0].first, links[-1].second), *ends)
    chains_CL = chains_of(links).latents_CL
    same_C = chains_CL[:, -1] == direct.partner_S[chains_CL[:, 0]]
    return float(same_C.mean()) if len(same_C) else None
