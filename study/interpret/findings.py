"""What an automatic interpretation finds: scores of each latent's sentence, and their means."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, final

import numpy as np

from ..measures.score_statistics import interval, rank_correlation
from ..measures.simulation_fragments import SimulationFragments
from ..measures.text_examples import LatentExamples
from .asking import Tally
from .config import Kind
from .embedding import Embedded
from .intruder import Intruded
from .judging import Judged
from .simulation import Simulated

Result = Judged | Simulated | Intruded | Embedded
MOMENTS = ("skew", "kurtosis")


@final
@dataclass(frozen=True)
class Interpretation:
    """One latent: its sentence, how well it predicts (`own`), and how well the sentence of the
    latent `other` does (`shuffled`). `failed` says why something is missing. `skew` and excess
    `kurtosis` are of its activations over all tokens."""

    examples: LatentExamples
    frequency: float
    explanation: str = ""
    own: Mapping[Kind, Result] = field(default_factory=dict)
    other: int | None = None
    shuffled: Mapping[Kind, Result] = field(default_factory=dict)
    failed: str = ""
    fragments: SimulationFragments = field(default_factory=SimulationFragments)
    skew: float | None = None
    kurtosis: float | None = None

    @property
    def latent(self) -> int:
        """Its number in the dictionary."""
        return self.examples.latent

    def score(self, kind: Kind, shuffled: bool = False) -> float:
        """The score of one kind; NaN where there is none."""
        result = (self.shuffled if shuffled else self.own).get(kind)
        value = result.value if result else None
        return math.nan if value is None else value

    def row(self, kinds: Sequence[Kind], run: str) -> dict[str, Any]:
        """The latent as a row of latents.csv."""
        row: dict[str, Any] = {
            "latent": self.latent,
            "frequency": self.frequency,
            "examples": self.examples.found,
            "maximum": self.examples.maximum,
            "explanation": self.explanation,
        }
        for kind in kinds:
            blank = dict.fromkeys(COLUMNS[kind])
            row |= blank | (self.own[kind].figures(kind) if kind in self.own else {})
        for kind in kinds:
            row[f"{kind}_shuffled"] = rounded(self.score(kind, True))
        row |= {"shuffled_from": self.other, "failed": self.failed}
        return row | {"skew": rounded(self.skew), "kurtosis": rounded(self.kurtosis), "run": run}


JUDGED = ("balanced_accuracy", "precision", "recall", "auroc", "items")
COLUMNS: Mapping[Kind, Sequence[str]] = {
    **{
        kind: [
            f"{kind}_{n}" for n in ("balanced_accuracy", "precision", "recall", "auroc", "items")
        ]
        for kind in ("detection", "fuzzing")
    },
    "simulation": [
        f"simulation_{name}"
        for name in ("correlation", "random_only", "rank_correlation", "undefined", "weighed")
    ],
    "intruder": ["intruder_accuracy", "intruder_trials"],
    "embedding": ["embedding_auroc", "embedding_items"],
}


@final
@dataclass(frozen=True)
class Dictionary:
    """The latents of one run that were interpreted, and `too_rare`: those with too few examples to
    be tested."""

    run: str
    latents: Sequence[Interpretation]
    too_rare: Sequence[int]

    def means(self, kinds: Sequence[Kind], seed: int) -> dict[str, Any]:
        """The mean of each score over the latents that have one, and its control."""
        found: dict[str, Any] = {}
        for kind in kinds:
            for name, shuffled in ((kind, False), (f"{kind}_shuffled", True)):
                results = [(o.shuffled if shuffled else o.own).get(kind) for o in self.latents]
                values = [None if one is None else one.value for one in results if one is not None]
                found[name] = mean_of(values, seed)
        if "simulation" in kinds:
            own = [one.own.get("simulation") for one in self.latents]
            simulated = [one for one in own if isinstance(one, Simulated)]
            found["simulation_random_only"] = mean_of(
                [one.random_only.value for one in simulated], seed
            )
            found["simulation_weighed"] = sum(s.weighed for o in simulated for s in o.simulations)
            found["simulation_answers"] = sum(len(one.simulations) for one in simulated)
            found["simulation_too_few"] = sum(not one.fragments for one in self.latents)
        return found

    def rank_correlations(self, kinds: Sequence[Kind]) -> dict[str, Any]:
        """Spearman's correlation over latents of each score with skew and kurtosis; None where it
        is undefined or has fewer than four latents."""
        found: dict[str, Any] = {}
        for kind in kinds:
            for name in MOMENTS:
                pairs = [
                    (one.score(kind), moment)
                    for one in self.latents
                    if not math.isnan(one.score(kind))
                    and (moment := getattr(one, name)) is not None
                ]
                both = np.array(pairs, np.float64).reshape(-1, 2)
                value = rank_correlation(both[:, 0], both[:, 1]).value if len(both) > 3 else None
                found[f"{kind}_{name}"] = {"value": rounded(value), "latents": len(both)}
        return found


@final
@dataclass(frozen=True)
class InterpretFindings:
    """The latents of a run that were interpreted, and of `controls`, on the same footing.

    `read` gives the text of a token; `estimate` and `tally` say what was to be asked and what
    was.
    """

    kinds: Sequence[Kind]
    seed: int
    store: str
    model: str
    main: Dictionary
    controls: Sequence[Dictionary]
    estimate: Mapping[str, Any]
    tally: Tally
    read: Callable[[int], str]
    encoder: str = ""

    @property
    def dictionaries(self) -> list[Dictionary]:
        """The run's, then the controls."""
        return [self.main, *self.controls]

    def figures(self) -> dict[str, Any]:
        """Means over the latents that were scored, with standard errors, and each latent's own
        figures."""
        latents = self.main.latents
        everyone = [one for part in self.dictionaries for one in part.latents]
        figures: dict[str, Any] = {
            "run": self.main.run,
            "store": self.store,
            "model": self.model,
            "interpreted": sum(bool(one.explanation) for one in latents),
            "failed": sum(bool(one.failed) for one in everyone),
            "score": list(self.kinds),
        }
        means = self.main.means(self.kinds, self.seed)
        for name, mean in means.items():
            figures[name] = mean
            if isinstance(mean, dict) or mean is None:
                figures[f"{name}_mean"] = mean["mean"] if mean else None
        for kind in self.kinds:
            own = [one.own[kind] for one in latents if kind in one.own]
            aurocs = [one.score.auroc for one in own if isinstance(one, Judged)]
            if any(value is not None for value in aurocs):
                figures[f"{kind}_auroc"] = mean_of(aurocs, self.seed)
        return {
            **figures,
            "dictionaries": [
                {
                    "run": part.run,
                    "latents": len(part.latents),
                    "too_rare": len(part.too_rare),
                    "failed": sum(bool(one.failed) for one in part.latents),
                    **part.means(self.kinds, self.seed),
                    "rank_correlations": part.rank_correlations(self.kinds),
                }
                for part in self.dictionaries
            ],
            "latents": [one.row(self.kinds, self.main.run) for one in latents],
            "too_rare": list(self.main.too_rare),
            "estimate": dict(self.estimate),
            **({"encoder": self.encoder} if self.encoder else {}),
            **asdict(self.tally),
        }

    def rows(self) -> list[dict[str, Any]]:
        """Every latent of every dictionary as a row of latents.csv."""
        return [one.row(self.kinds, p.run) for p in self.dictionaries for one in p.latents]

    def _results(self) -> Iterable[tuple[dict[str, Any], Kind, Result]]:
        """Every result with what names it in a table."""
        for part in self.dictionaries:
            for one in part.latents:
                for shuffled, results in ((False, one.own), (True, one.shuffled)):
                    for kind, result in results.items():
                        whose = one.other if shuffled else one.latent
                        named = {"latent": one.latent, "kind": kind, "explanation_of": whose}
                        if kind == "intruder":
                            named["explanation_of"] = None
                        yield named | {"run": part.run}, kind, result

    def judgements(self) -> list[dict[str, Any]]:
        """Every answer of the judge as a row of judgements.csv: the example, what was right, and
        what was said."""
        return [
            {
                "latent": named["latent"],
                "kind": kind,
                "explanation_of": named["explanation_of"],
                "context": item.example.context,
                "position": item.example.start,
                "peak": round(item.example.peak, 5),
                "marked": " ".join(str(i) for i, on in enumerate(item.marks) if on),
                "truth": int(item.truth),
                "grade": grade,
                "right": int(right),
                "run": named["run"],
            }
            for named, kind, judged in self._results()
            if isinstance(judged, Judged)
            for item, grade, right in zip(judged.items, judged.grades, judged.right, strict=True)
        ]

    def simulations(self) -> list[dict[str, Any]]:
        """Every simulated activation as a row of simulations.csv, beside the true one."""
        return [
            {
                "latent": named["latent"],
                "explanation_of": named["explanation_of"],
                "part": "top" if place < len(result.fragments.top) else "random",
                "context": example.context,
                "position": position,
                "true": round(true, 5),
                "simulated": round(number, 5),
                "run": named["run"],
            }
            for named, _, result in self._results()
            if isinstance(result, Simulated)
            for place, (example, tokens) in enumerate(
                zip(result.examples, result.tokens(), strict=True)
            )
            for position, true, number in tokens
        ]

    def intruders(self) -> list[dict[str, Any]]:
        """Every question about an intruder as a row of intruders.csv. `control`: the other four are
        examples of four latents."""
        found = []
        for part in self.dictionaries:
            for one in part.latents:
                for control, results in ((0, one.own), (1, one.shuffled)):
                    result = results.get("intruder")
                    if not isinstance(result, Intruded):
                        continue
                    for trial, answer in zip(result.trials, result.answers, strict=True):
                        record = {"latent": one.latent, "control": control}
                        record |= {"intruder": trial.place + 1, "answer": answer + 1}
                        found.append(record | {"run": part.run})
        return found


def scores(
    latents: Iterable[Interpretation], kind: Kind, shuffled: bool = False
) -> list[tuple[int, float]]:
    """(latent, score) of those that have one."""
    each = ((one.latent, one.score(kind, shuffled)) for one in latents)
    return [(latent, value) for latent, value in each if not math.isnan(value)]


def mean_of(values: Sequence[float | None], seed: int) -> dict[str, Any] | None:
    """The mean of the values that are defined, its standard error, its bootstrap interval over
    latents, and the number of values that are undefined. None where all are."""
    known = [value for value in values if value is not None]
    undefined = len(values) - len(known)
    if not known:
        return {"mean": None, "latents": 0, "undefined": undefined} if undefined else None
    error = float(np.std(known, ddof=1) / math.sqrt(len(known))) if len(known) > 1 else None
    within = interval(known, seed)
    return {
        "mean": round(float(np.mean(known)), 4),
        "standard_error": rounded(error),
        "low": rounded(within[0]) if within else None,
        "high": rounded(within[1]) if within else None,
        "latents": len(known),
        "undefined": undefined,
    }


def rounded(value: float | None) -> float | None:
    """A figure of a table; None for NaN."""
    return None if value is None or math.isnan(value) else round(value, 4)
