"""What the page of scaling shows of many manifolds."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..measures.allocation import Allocation
from ..page.charts import Axis, Series, chart
from .mixture import PLUS_MINUS, Mixture, Point, regime_of, slope_text, where_they_part

HEAD = ("objective", "manifolds", "N", "runs", "found", "model", "latents of the first", "model",
        "loss", "model", "latents of none")  # fmt: skip
EXPONENTS = ("objective", "manifolds", "alpha", "beta of L(n)", "exponent of D", "model",
             "theory at large N")  # fmt: skip
STAIRS = 200


def mixtures_context(mixtures: Sequence[Mixture]) -> dict[str, Any] | None:
    """Tables, charts and sentences; None without such runs."""
    if not mixtures:
        return None
    return {
        "table": [HEAD, *(row for one in mixtures for row in _rows(one))],
        "exponents": [EXPONENTS, *(_exponents(one) for one in mixtures if one.exponents())],
        "sentences": [
            f"{one.name}: {regime_of(one)}{told}"
            for one in mixtures
            if (told := where_they_part(one))
        ],
        "alone": [one.name for one in mixtures if one.shape.exponent > 1 and one.curve is None],
        "charts": [
            ("Manifolds found", found_chart(mixtures)),
            ("Latents of each manifold, largest dictionaries", shares_chart(mixtures)),
            ("Loss", loss_chart(mixtures)),
            *(
                [("Loss of one manifold", curves_chart(mixtures))]
                if any(one.curve for one in mixtures)
                else []
            ),
        ],
    }


def found_chart(mixtures: Sequence[Mixture]) -> Any:
    """D against N: points are dictionaries, lines the model."""
    series = []
    for number, one in enumerate(mixtures):
        x, y = _places(one.points), np.array([float(p.measured) for p in one.points])
        series.append(Series(one.name, x, y, points=True, colour=number))
        for name, line in [("model", one.line), *one.guesses]:
            if line:
                said = np.array([float(found.features) for found in line])
                series.append(
                    Series(f"{name}, {one.name}", _latents(line), said, dashed=True, colour=number)
                )
    return chart(
        series, Axis("latents that fire, N", log=True), Axis("manifolds found, D", log=True)
    )


def shares_chart(mixtures: Sequence[Mixture]) -> Any:
    """Latents of each manifold: the mean over the largest dictionaries, and the model's stairs."""
    series = []
    for number, one in enumerate(mixtures):
        largest = one.largest()
        mean_F = np.mean([p.one.counts.latents_F for p in largest if p.one.counts], axis=0)
        rank_F = 1.0 + np.arange(len(mean_F))
        series.append(Series(one.name, rank_F, mean_F, points=True, colour=number))
        if one.line:
            series.append(
                Series(f"model, {one.name}", *_stairs(one.line[-1]), dashed=True, colour=number)
            )
    return chart(
        series,
        Axis("manifold, by falling frequency", log=True),
        Axis("its latents", log=True),
    )


def loss_chart(mixtures: Sequence[Mixture]) -> Any:
    """The loss against N, measured and of the model."""
    series = []
    for number, one in enumerate(mixtures):
        y = np.array([point.one.loss for point in one.points])
        series.append(Series(one.name, _places(one.points), y, points=True, colour=number))
        if one.line:
            said = np.array([found.loss for found in one.line])
            series.append(
                Series(f"model, {one.name}", _latents(one.line), said, dashed=True, colour=number)
            )
    return chart(series, Axis("latents that fire, N", log=True), Axis("loss", log=True))


def curves_chart(mixtures: Sequence[Mixture]) -> Any:
    """The measured L(n) that the model is given: its convex hull."""
    series = []
    shown: list[np.ndarray] = []
    for number, one in enumerate(mixtures):
        if one.curve:
            n = np.array([float(size) for size in one.sizes])
            loss = one.curve.loss(n)
            if any(np.array_equal(loss, other) for other in shown):
                continue  # mixtures that differ in training alone
            shown.append(loss)
            series.append(Series(one.name, n, loss, colour=number))
    return chart(series, Axis("latents n", log=True), Axis("L(n)", log=True))


def staircase(one: Allocation) -> tuple[np.ndarray, np.ndarray]:
    """Places and latents at both ends of each block."""
    x = [float(end) for block in one.blocks for end in (block.first, block.last)]
    y = [float(block.latents) for block in one.blocks for _ in range(2)]
    order = np.argsort(x, kind="stable")
    return np.array(x)[order], np.array(y)[order]


def _stairs(one: Allocation) -> tuple[np.ndarray, np.ndarray]:
    """The latents of each manifold at many places, so that a chart draws a line without marks."""
    x, y = staircase(one)
    places = np.geomspace(x[0], x[-1] + 0.5, STAIRS)
    at = np.searchsorted(x, np.round(places), side="left").clip(max=len(x) - 1)
    return places, y[at]


def _places(points: Sequence[Point]) -> np.ndarray:
    return np.array([float(point.one.alive) for point in points])


def _latents(line: Sequence[Allocation]) -> np.ndarray:
    return np.array([float(found.latents) for found in line])


def _rows(one: Mixture) -> list[tuple[str, ...]]:
    """A row for each number of latents."""
    sizes: dict[int, list[Point]] = {}
    for point in one.points:
        sizes.setdefault(point.one.latents, []).append(point)
    rows: list[tuple[str, ...]] = []
    for size, points in sizes.items():
        counts = [p.one.counts for p in points if p.one.counts]
        models = [p.model for p in points if p.model]
        first = [float(c.latents_F[0]) for c in counts]
        rows.append(
            (
                f"{one.objective}, {one.setting}" if one.setting else one.objective,
                one.manifolds,
                str(size),
                str(len(points)),
                spread([float(p.measured) for p in points]),
                _mean([float(model.features) for model in models]),
                spread(first),
                _mean([float(model.blocks[0].latents) for model in models if model.blocks]),
                spread([p.one.loss for p in points], 3),
                _mean([model.loss for model in models], 3),
                _mean([float(c.none) for c in counts]),
            )
        )
    return rows


def spread(values: Sequence[float], digits: int = 1) -> str:
    """The mean and the standard deviation over runs."""
    if len(values) < 2:
        return _mean(values, digits)
    return f"{np.mean(values):.{digits}f} {PLUS_MINUS} {np.std(values, ddof=1):.{digits}f}"


def _mean(values: Sequence[float], digits: int = 1) -> str:
    return f"{np.mean(values):.{digits}f}" if len(values) else ""


def _exponents(one: Mixture) -> tuple[str, ...]:
    beta, found = one.beta(), one.exponents()
    theory = min(1.0, (1 + beta.slope) / (1 + one.alpha)) if beta else None
    return (
        one.objective,
        one.manifolds,
        f"{one.alpha:.3g}",
        slope_text(beta),
        slope_text(found[0] if found else None),
        slope_text(found[1] if found else None),
        "" if theory is None else f"{theory:.2f}",
    )
