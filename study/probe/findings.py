"""What probes find: AUC and accuracy of each kind of columns, over labels, and absorption."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np

from ..measures.feature_absorption import Absorption
from ..measures.sparse_probing import Judged, interval

UNITS, COMPONENTS, WHOLE = "units", "principal components", "whole vector"
PLANTED = "planted direction"
ALL = 0  # in place of a number of columns


@final
@dataclass(frozen=True)
class Probes:
    """Probes of one kind of columns at one site, for each label.

    Judgements of a label and a number of columns are over splits and over runs; `shuffled` are
    those of labels in random order. `best` is the first column chosen for a label in the first run
    and split.
    """

    site: str
    columns: str
    runs: Sequence[str] = ()
    judged: dict[tuple[str, int], list[Judged]] = field(default_factory=dict)
    shuffled: dict[tuple[str, int], list[Judged]] = field(default_factory=dict)
    best: dict[str, int] = field(default_factory=dict)
    absorbed: list[Absorption] = field(default_factory=list)

    def add(
        self, label: str, found: Mapping[int, Judged], chance: Mapping[int, Judged] | None = None
    ) -> None:
        """Add the probes of a label on one split, and those of the label in random order."""
        for kept, new in ((self.judged, found), (self.shuffled, chance)):
            for k, one in (new or {}).items():
                kept.setdefault((label, k), []).append(one)

    @property
    def ks(self) -> list[int]:
        """The numbers of columns."""
        return sorted({k for _, k in self.judged})

    def by_label(self) -> list[dict[str, Any]]:
        """A record of each label and number of columns."""
        return [
            {
                "site": self.site,
                "columns": self.columns,
                "k": k or "all",
                "label": label,
                "best": self.best.get(label),
                "auc": _mean([one.auc for one in some]),
                "accuracy": _mean([one.accuracy for one in some]),
                "auc_shuffled": _mean([one.auc for one in self.shuffled.get((label, k), [])]),
            }
            for (label, k), some in self.judged.items()
        ]

    def records(self) -> list[dict[str, Any]]:
        """A record of each number of columns: means over labels, with bootstrap intervals over
        labels."""
        lines = self.by_label()
        found = []
        for k in self.ks:
            some = [line for line in lines if line["k"] == (k or "all")]
            auc, accuracy = (np.array([line[name] for line in some]) for name in TOLD)
            bounds = (*interval(auc), *interval(accuracy))
            low, high, least, most = (None if math.isnan(v) else round(v, 4) for v in bounds)
            found.append(
                {
                    "site": self.site,
                    "columns": self.columns,
                    "runs": len(self.runs),
                    "k": k or "all",
                    "labels": len(some),
                    "auc": _mean(auc.tolist()),
                    "auc_low": low,
                    "auc_high": high,
                    "accuracy": _mean(accuracy.tolist()),
                    "accuracy_low": least,
                    "accuracy_high": most,
                    "auc_shuffled": _mean(
                        [line["auc_shuffled"] for line in some if line["auc_shuffled"] is not None]
                    ),
                }
            )
        return found

    def absorption(self) -> dict[str, Any] | None:
        """Absorption, as means over parents; None where none was counted."""
        if not self.absorbed:
            return None
        by_parent: dict[int, list[float]] = {}
        for one in self.absorbed:
            by_parent.setdefault(one.parent, []).append(one.rate)
        low, high = interval(np.array([np.mean(rates) for rates in by_parent.values()]))
        return {
            "site": self.site,
            "columns": self.columns,
            "runs": len(self.runs),
            "parents": len(by_parent),
            "rate": _mean([one.rate for one in self.absorbed]),
            "rate_low": None if math.isnan(low) else round(low, 4),
            "rate_high": None if math.isnan(high) else round(high, 4),
            "missed_with_child": _mean([one.missed_with_child for one in self.absorbed]),
            "missed_alone": _mean([one.missed_alone for one in self.absorbed]),
        }


TOLD = ("auc", "accuracy")


@final
@dataclass(frozen=True)
class Probed:
    """All probes of a study. `counts` are the examples with each label, of `examples`; `inputs` is
    the number of inputs, called `by`, and `skipped` are labels that no split could judge."""

    probes: Sequence[Probes]
    counts: Mapping[str, int]
    examples: int
    inputs: int
    unit: str
    by: str
    skipped: Sequence[str]

    def records(self) -> list[dict[str, Any]]:
        """A record of each kind of columns and their number."""
        return [record for one in self.probes for record in one.records()]

    def by_label(self) -> list[dict[str, Any]]:
        """A record of each label, too."""
        lines = [line for one in self.probes for line in one.by_label()]
        return [{**line, "examples_with": self.counts[line["label"]]} for line in lines]

    def absorptions(self) -> list[dict[str, Any]]:
        """Absorption of each dictionary."""
        return [found for one in self.probes if (found := one.absorption())]

    def figures(self) -> dict[str, Any]:
        """Figures as JSON values."""
        records = self.records()
        names = (UNITS, COMPONENTS, WHOLE, PLANTED)
        latents = [one for one in records if one["columns"] not in names]
        single = [one for one in latents if one["k"] == min(o["k"] for o in latents)]
        best = max(single, key=lambda one: one["auc"]) if single else None
        beside = {
            one["columns"]: one["auc"]
            for one in records
            if best and one["site"] == best["site"] and one["k"] in (best["k"], "all")
        }
        absorbed = self.absorptions()
        own = ("site", "columns")
        same = [one for one in absorbed if best and all(one[name] == best[name] for name in own)]
        return {
            "labels": len(self.counts) - len(self.skipped),
            "examples": self.examples,
            "inputs": self.inputs,
            "k": best["k"] if best else None,
            "auc_latents": best["auc"] if best else None,
            "best_site": best["site"] if best else None,
            "best_columns": best["columns"] if best else None,
            "auc_units": beside.get(UNITS),
            "auc_components": beside.get(COMPONENTS),
            "auc_whole": beside.get(WHOLE),
            "auc_planted": beside.get(PLANTED),
            "auc_shuffled": best["auc_shuffled"] if best else None,
            "absorption": same[0]["rate"] if same else None,
            "records": records,
            "absorptions": absorbed,
        }


def _mean(values: Sequence[float]) -> float | None:
    known = [value for value in values if math.isfinite(value)]
    return round(float(np.mean(known)), 4) if known else None
