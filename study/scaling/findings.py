"""What the study of scaling finds."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

from ..measures.allocation import Allocation
from .curve_family import CurveTest
from .model import Line
from .runs import Dictionary
from .series import Series, series_of


@final
@dataclass(frozen=True)
class Scaling:
    """Lines of the model, dictionaries, and for each dictionary what the model predicts of it."""

    alpha: float
    shifted: bool
    lines: Sequence[Line]
    dictionaries: Sequence[Dictionary]
    predictions: Sequence[Sequence[tuple[str, Allocation]]]
    curves: CurveTest | None = None

    def toys(self) -> list[Dictionary]:
        """Runs on a store of one manifold."""
        return [one for one in self.dictionaries if one.shape and one.shape.features == 1]

    def mixtures(self) -> list[tuple[Dictionary, Sequence[tuple[str, Allocation]]]]:
        """Runs on a store of many manifolds, with predictions."""
        pairs = zip(self.dictionaries, self.predictions, strict=True)
        return [(one, said) for one, said in pairs if one.shape and one.shape.features > 1]

    def wild(self) -> list[Dictionary]:
        """Runs on activations of a network."""
        return [one for one in self.dictionaries if one.shape is None]

    @cached_property
    def series(self) -> list[Series]:
        """Runs on activations of a network that differ in size and seed only."""
        return series_of(self.wild(), self.curves)

    def figures(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "alpha": self.alpha,
            "lines": len(self.lines),
            "dictionaries": len(self.dictionaries),
            "model": [line.record() for line in self.lines],
            "runs": [
                one.record() | {f"predicted {name}": found.features for name, found in said}
                for one, said in zip(self.dictionaries, self.predictions, strict=True)
            ],
            "series": [one.record() for one in self.series],
            "curve_family": [one.record() for one in self.curves.families] if self.curves else [],
        }
