"""What the study of scaling finds."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

from .curve_family import CurveTest
from .mixture import MEASURED, Mixture, where_they_part
from .model import Line
from .runs import Dictionary
from .series import Series, series_of
from .toys import curves as toy_curves


@final
@dataclass(frozen=True)
class Scaling:
    """Lines of the model, dictionaries, and those of many manifolds beside the model."""

    alpha: float
    shifted: bool
    lines: Sequence[Line]
    dictionaries: Sequence[Dictionary]
    mixtures: Sequence[Mixture]
    curves: CurveTest | None = None

    def toys(self) -> list[Dictionary]:
        """Runs on a store of one manifold."""
        return [one for one in self.dictionaries if one.shape and one.shape.features == 1]

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
            "toys": [curve.record() for curve in toy_curves(self.toys())],
            "runs": [one.record() | self._predicted(one) for one in self.dictionaries],
            "mixtures": [_mixture(one) for one in self.mixtures],
            "series": [one.record() for one in self.series],
            "curve_family": [one.record() for one in self.curves.families] if self.curves else [],
        }

    def _predicted(self, one: Dictionary) -> dict[str, Any]:
        points = [point for mixture in self.mixtures for point in mixture.points]
        models = [point.model for point in points if point.one is one and point.model]
        return {f"predicted {MEASURED}": model.features for model in models}


def _mixture(one: Mixture) -> dict[str, Any]:
    exponents, beta = one.exponents(), one.beta()
    figures: dict[str, Any] = {
        "store": one.store,
        "objective": one.objective,
        "setting": one.setting,
        "alpha": round(one.alpha, 3),
        "runs": len(one.points),
        "beta": round(beta.slope, 3) if beta else None,
        "part": where_they_part(one),
    }
    if exponents:
        for name, slope in zip(("measured", "model"), exponents, strict=True):
            figures[f"exponent_{name}"] = round(slope.slope, 3)
            figures[f"exponent_{name}_error"] = (
                None if slope.error is None else round(slope.error, 3)
            )
    return figures
