"""What the study of robustness finds: figures of runs, and effects of adversarial training."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from ..core.trained import BASELINES
from .inputs import Trained

CONDITIONS = ("clean", "fgsm", "pgd")
CERTAIN = 0.95  # of the intervals
EXACT = 1e-4  # FVU below which a dictionary has enough latents for every vector
LEAST = 0.5  # of the best clean accuracy that a network must reach to be compared
LOWER, HIGHER, OPEN = "lower", "higher", "open"


@final
@dataclass(frozen=True)
class NetworkFigures:
    """Accuracies of a network under each condition, on so many images."""

    trained: Trained
    accuracy: Mapping[str, float]
    images: int


@final
@dataclass(frozen=True)
class Measured:
    """A run, the network it belongs to, and its figures under each condition."""

    run: str
    network: Trained
    site: str
    objective: str
    setting: str
    latents: int
    neurons: int
    seed: int
    fvu_of_training: float
    figures: Mapping[str, Mapping[str, float]]

    @property
    def control(self) -> bool:
        """True for PCA, random directions and other dictionaries that learned no sparse code."""
        return self.objective in BASELINES

    @property
    def cell(self) -> tuple[str, str, str, int]:
        """What compared runs have in common: site, objective, sparsity, width of the network."""
        return (self.site, self.objective, self.setting, self.network.width)

    def value(self, metric: str) -> float:
        """A figure on clean images. `features`: effective latents per neuron."""
        clean = self.figures["clean"]
        if metric == "features":
            return clean["effective_latents"] / self.neurons
        return clean["effective_units"] / self.neurons if metric == "units" else clean[metric]

    def record(self) -> dict[str, Any]:
        """One record for runs.csv and result.json."""
        return {
            "run": self.run,
            "network": self.network.name,
            "width": self.network.width,
            "trained_epsilon": round(self.network.epsilon, 5),
            "network_seed": self.network.seed,
            "site": self.site,
            "objective": self.objective,
            "setting": self.setting,
            "latents": self.latents,
            "neurons": self.neurons,
            "seed": self.seed,
            **{
                f"{name}_{condition}": round(value, 5)
                for condition in CONDITIONS
                for name, value in self.figures[condition].items()
            },
        }


@final
@dataclass(frozen=True)
class Effect:
    """How a figure differs between networks trained against the strongest attack and plain ones.

    `log_ratio` is log(robust / plain), means over seeds of networks; `half` is half the width of
    its 95 % interval (Welch), NaN where a group has one network. `seed_noise` is the standard
    deviation of log values over seeds of the dictionary on one network, NaN without repeats.
    """

    cell: tuple[str, str, str, int]
    metric: str
    epsilon: float
    log_ratio: float
    half: float
    seed_noise: float
    networks: tuple[int, int]

    @property
    def direction(self) -> str:
        """`lower` or `higher` where the interval leaves out zero, else `open`."""
        if not abs(self.log_ratio) > self.half:  # also where half is NaN
            return OPEN
        return LOWER if self.log_ratio < 0 else HIGHER

    def record(self) -> dict[str, Any]:
        """One record for effects.csv and result.json."""
        site, objective, setting, width = self.cell
        return {
            "metric": self.metric,
            "site": site,
            "objective": objective,
            "setting": setting,
            "width": width,
            "epsilon": round(self.epsilon, 5),
            "change": round(math.expm1(self.log_ratio), 4),
            "log_ratio": round(self.log_ratio, 4),
            "half_interval": round(self.half, 4) if math.isfinite(self.half) else "",
            "seed_noise": round(self.seed_noise, 4) if math.isfinite(self.seed_noise) else "",
            "plain_networks": self.networks[0],
            "robust_networks": self.networks[1],
            "direction": self.direction,
        }


@final
@dataclass(frozen=True)
class Robustness:
    """Figures of all networks and runs, and the attack's size."""

    networks: Sequence[NetworkFigures]
    runs: Sequence[Measured]
    norm: str
    epsilon: float

    @property
    def failed(self) -> list[str]:
        """Networks whose clean accuracy is below half of the best one's: their training failed,
        and they are compared with no other."""
        best = max(one.accuracy["clean"] for one in self.networks)
        return [one.trained.name for one in self.networks if one.accuracy["clean"] < LEAST * best]

    def effects(self, metric: str) -> list[Effect]:
        """The effect of adversarial training on a figure, by cell. Empty where networks are not
        known to differ in it."""
        failed = set(self.failed)
        return effects([one for one in self.runs if one.network.name not in failed], metric)

    def figures(self) -> dict[str, Any]:
        """As JSON values."""
        error = [*self.effects("fvu"), *self.effects("l0")]
        features = self.effects("features")
        return {
            "networks": len(self.networks),
            "runs": len(self.runs),
            "images": self.networks[0].images,
            "failed": self.failed,
            "norm": self.norm,
            "epsilon": round(self.epsilon, 5),
            "accuracies": [
                {
                    "network": one.trained.name,
                    "width": one.trained.width,
                    "trained_epsilon": round(one.trained.epsilon, 5),
                    "seed": one.trained.seed,
                    **{name: round(value, 4) for name, value in one.accuracy.items()},
                }
                for one in self.networks
            ],
            "dictionaries": [one.record() for one in self.runs],
            "effects": [one.record() for one in (*error, *features, *self.effects("units"))],
        }


def effects(runs: Sequence[Measured], metric: str) -> list[Effect]:
    """Robust against plain, for each cell that has both: the largest epsilon against 0.

    The error (`fvu`) is compared at a fixed number of active latents, and `l0` at a fixed penalty.
    """
    if metric in ("fvu", "l0"):
        fixed = "k " if metric == "fvu" else ("l1 ", "l0 ")
        runs = [one for one in runs if one.setting.startswith(fixed)]
    cells: dict[tuple[str, str, str, int], list[Measured]] = {}
    for one in runs:
        if one.network.known:
            cells.setdefault(one.cell, []).append(one)
    found = []
    for cell, some in cells.items():
        most = max(one.network.epsilon for one in some)
        plain = _by_network(some, metric, lambda one: one.network.epsilon == 0)
        robust = _by_network(some, metric, lambda one: one.network.epsilon == most)  # noqa: B023
        if most == 0 or not plain or not robust:
            continue
        means = [np.array([np.mean(v) for v in group]) for group in (plain, robust)]
        noise = [np.var(v, ddof=1) for group in (plain, robust) for v in group if len(v) > 1]
        found.append(
            Effect(
                cell,
                metric,
                most,
                float(means[1].mean() - means[0].mean()),
                half_interval(*means),
                float(np.sqrt(np.mean(noise))) if noise else math.nan,
                (len(plain), len(robust)),
            )
        )
    return sorted(found, key=lambda one: (one.cell[1] in BASELINES, one.cell))


def _by_network(
    runs: Sequence[Measured], metric: str, chosen: Callable[[Measured], bool]
) -> list[list[float]]:
    """Logarithms of a figure, those of a network together."""
    found: dict[str, list[float]] = {}
    for one in runs:
        value = one.value(metric)
        if chosen(one) and value > (EXACT if metric == "fvu" else 0):
            found.setdefault(one.network.name, []).append(math.log(value))
    return list(found.values())


def half_interval(plain: np.ndarray, robust: np.ndarray) -> float:
    """Half of the 95 % interval of a difference of means, by Welch's t; NaN for groups of one."""
    if min(len(plain), len(robust)) < 2:
        return math.nan
    from scipy.stats import t

    parts = [one.var(ddof=1) / len(one) for one in (plain, robust)]
    total = sum(parts)
    if total == 0:
        return 0.0
    sizes = (len(plain), len(robust))
    freedom = total**2 / sum(p**2 / (n - 1) for p, n in zip(parts, sizes, strict=True))
    return float(t.ppf((1 + CERTAIN) / 2, freedom) * math.sqrt(total))


def verdict_on_error(found: Sequence[Effect]) -> str:
    """Is the error at a fixed number of active latents, or their number at a fixed penalty, lower
    in robust networks?"""
    learned = [one for one in found if one.cell[1] not in BASELINES]
    controls = [one for one in found if one.cell[1] in BASELINES]
    if not learned:
        return _missing("error")
    counts = {name: sum(one.direction == name for one in learned) for name in (LOWER, HIGHER, OPEN)}
    total = len(learned)
    text = (
        f"Error at fixed k, or L0 at a fixed penalty: lower in robust networks in {counts[LOWER]} "
        f"of {total} comparisons, higher in {counts[HIGHER]}, open in {counts[OPEN]} (median "
        f"change {_change(learned)})."
    )
    if controls:
        text += f" Of controls, which learned no sparse code: median change {_change(controls)}."
    said = "not decided"
    if counts[LOWER] > total / 2 and not counts[HIGHER]:
        said = "supported"
    elif counts[HIGHER] > total / 2 and not counts[LOWER]:
        said = "contradicted"
    return f"{text} The claim that adversarial training lowers it is {said} here."


def verdict_on_features(found: Sequence[Effect]) -> str:
    """Does robust training raise effective features in wide networks and lower them in narrow
    ones?"""
    learned = [one for one in found if one.cell[1] not in BASELINES]
    widths = sorted({one.cell[3] for one in learned})
    if not learned or len(widths) < 2:
        return _missing("effective features, at two widths")
    parts = []
    for width in (widths[0], widths[-1]):
        some = [one for one in learned if one.cell[3] == width]
        counts = {name: sum(o.direction == name for o in some) for name in (LOWER, HIGHER)}
        parts.append((counts, f"width {width}: {_change(some)}, higher in {counts[HIGHER]} and "
                      f"lower in {counts[LOWER]} of {len(some)}"))  # fmt: skip
    (narrow, first), (wide, last) = parts
    as_said = narrow[LOWER] > narrow[HIGHER] and wide[HIGHER] > wide[LOWER]
    against = narrow[HIGHER] > narrow[LOWER] and wide[LOWER] > wide[HIGHER]
    said = "supported" if as_said else "contradicted" if against else "not decided"
    return (
        f"Effective features: {first}; {last}. The claim that robust training raises them where "
        f"capacity is abundant and lowers them where it is scarce is {said} here."
    )


def _change(found: Sequence[Effect]) -> str:
    return f"{100 * math.expm1(float(np.median([one.log_ratio for one in found]))):+.1f} %"


def _missing(what: str) -> str:
    return (
        f"Nothing can be said of {what}: runs with one setting are needed on plain and on robust "
        "networks of one width."
    )
