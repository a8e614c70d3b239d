"""What the page of superposition shows."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..measures.superposition_attacks import ATTACKS
from ..page.charts import Axis, Series, chart
from .config import SuperpositionConfig
from .findings import CLEAN, KINDS, PAPER_TRANSITIONS, ROBUST, SHARED, Superposition
from .graph import graph
from .words import ATTACK_WORDS, comparison, headline, numbers

DRAWN = (1.1, 1.6, 2.0, 3.0)
"""Features per dimension of the clean models that are drawn."""
TRACED = (1.2, 1.6, 2.0, 3.0)
PLACES = 0.02
LEVELS = (0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 50.0, 100.0)
SPARSITIES = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 10.0, 20.0, 50.0, 100.0, 1000.0)
NAMED = ("alone", "oblique pair", "antipodal pair", "triangle", "tetrahedron", "pentagon")
BLUE, ORANGE, GREEN = 0, 1, 2


def context(config: SuperpositionConfig, found: Superposition) -> dict[str, Any]:
    """What page.html shows."""
    figures = found.figures()
    return {
        "lead": headline(figures),
        "numbers": numbers(figures),
        "shared": f"{SHARED:g}",
        "about": {
            "features": config.features,
            "hidden": config.hidden,
            "models": figures["models"],
            "seeds": len(found.sweeps),
            "densities": len(found.densities),
            "steps": f"{config.steps:,}",
            "batch": config.batch,
            "lr": f"{config.lr:g}",
            "attack": f"{100 * config.attack:g} %",
        },
        "comparison": comparison(figures),
        "curve": curve_chart(found),
        "vulnerability": [
            (ATTACK_WORDS[name][0].upper() + ATTACK_WORDS[name][1:], vulnerability_chart(found, a))
            for a, name in enumerate(ATTACKS[:2])
        ],
        "scatter": scatter_chart(found),
        "interference": [
            ("Clean over robust", ratio_chart(found)),
            ("Beside random directions", interference_chart(found)),
        ],
        "dimensionality": [
            (f"{name.capitalize()} models", dimensionality_chart(found, kind))
            for kind, name in enumerate(KINDS)
        ],
        "graphs": graphs(found),
        "shapes": shapes_table(found),
        "training": training_chart(found),
        "moving": figures["still_moving"],
    }


def _sparsity_axis(found: Superposition) -> Axis:
    labels = [(v, f"{v:g}") for v in SPARSITIES]
    most = float(found.sparsity_N[-1])
    return Axis("1 / (1 - S)", log=True, labels=[one for one in labels if one[0] <= most * 1.05])


def _both(found: Superposition, values_SKN: np.ndarray) -> list[Series]:
    """Means over seeds as lines, and every seed as points where there are several."""
    x = found.sparsity_N
    series = []
    for kind, name in enumerate(KINDS):
        series.append(Series(name, x, values_SKN[:, kind].mean(0), colour=kind))
    if len(values_SKN) > 1:
        every = np.tile(x, len(values_SKN))
        for kind, name in enumerate(KINDS):
            series.append(
                Series(f"{name}, each seed", every, values_SKN[:, kind].ravel(), True, colour=kind)
            )
    return series


def curve_chart(found: Superposition) -> Any:
    """Features per dimension against sparsity."""
    values_SKN = np.stack([sweep.per_dimension_KN for sweep in found.sweeps])
    most = np.ceil(values_SKN.max())
    lines = [
        Series(
            f"paper's transition at {at:g}", np.array([at, at]), np.array([0.9, most]), dashed=True,
            colour=3 + i,
        )
        for i, at in enumerate(PAPER_TRANSITIONS)
        if at <= found.sparsity_N[-1]
    ]  # fmt: skip
    return chart(
        [*_both(found, values_SKN), *lines], _sparsity_axis(found), Axis("features per dimension")
    )


def vulnerability_chart(found: Superposition, attack: int) -> Any:
    """Vulnerability against sparsity."""
    values_SKN = np.stack([found.vulnerability(sweep, attack) for sweep in found.sweeps])
    labels = [(v, f"{v:g}") for v in LEVELS]
    axis = Axis("vulnerability", log=True, labels=labels)
    return chart(_both(found, values_SKN), _sparsity_axis(found), axis)


def scatter_chart(found: Superposition) -> Any:
    """Vulnerability under the analytic attack against features per dimension."""
    attack = ATTACKS.index("analytic")
    size_SKN = np.stack([sweep.per_dimension_KN for sweep in found.sweeps])
    harm_SKN = np.stack([found.vulnerability(sweep, attack) for sweep in found.sweeps])
    first_S = np.array([sweep.gain_AKN[attack, CLEAN, 0] for sweep in found.sweeps])
    control_SN = np.stack([sweep.control_AN[attack] for sweep in found.sweeps]) / first_S[:, None]
    series = [
        Series(name, size_SKN[:, kind].ravel(), harm_SKN[:, kind].ravel(), True, colour=kind)
        for kind, name in enumerate(KINDS)
    ]
    series.append(
        Series("clean, in random directions", size_SKN[:, CLEAN].ravel(), control_SN.ravel(), True,
               colour=GREEN)
    )  # fmt: skip
    return chart(
        series,
        Axis("features per dimension"),
        Axis("vulnerability", log=True, labels=[(v, f"{v:g}") for v in LEVELS]),
    )


def ratio_chart(found: Superposition) -> Any:
    """Interference of clean over robust models."""
    x = found.sparsity_N
    series = []
    for i, name in enumerate(("squared", "absolute")):
        with np.errstate(invalid="ignore"):
            ratio_SN = found.interference_ratio(f"{name}_KN")
        known = np.isfinite(ratio_SN).all(0)
        label = "sum of squares" if name == "squared" else "sum of absolute values"
        series.append(Series(label, x[known], ratio_SN[:, known].mean(0), colour=3 + i))
    return chart(series, _sparsity_axis(found), Axis("clean / robust"))


def interference_chart(found: Superposition) -> Any:
    """Interference of clean and robust models, and of random directions."""
    x = found.sparsity_N
    mean_KN, random_KN = found.mean("squared_KN"), found.mean("random_KN")
    series = [Series(name, x, mean_KN[kind], colour=kind) for kind, name in enumerate(KINDS)]
    series += [
        Series(f"{name}, random directions", x, random_KN[kind], dashed=True, colour=kind)
        for kind, name in enumerate(KINDS)
    ]
    return chart(series, _sparsity_axis(found), Axis("sum of (W_i . W_j)²", log=True))


def dimensionality_chart(found: Superposition, kind: int) -> Any:
    """Dimensionality of every represented feature against sparsity, first seed."""
    sweep = found.sweeps[0]
    places = set()
    for x, form in zip(found.sparsity_N, sweep.geometry_KN[kind], strict=True):
        for value in form.dimensionality_F[form.represented_F]:
            places.add((float(x), PLACES * round(float(value) / PLACES)))
    points = np.array(sorted(places)).reshape(-1, 2)
    x = found.sparsity_N[[0, -1]]
    levels = [
        Series(name, x, np.full(2, level), dashed=True, colour=4 + i)
        for i, (name, level) in enumerate((("1/2, antipodal pair", 0.5), ("2/5, pentagon", 0.4)))
    ]
    dots = Series("features", points[:, 0], points[:, 1], True, colour=kind)
    return chart([dots, *levels], _sparsity_axis(found), Axis("dimensions per feature"))


def _nearest(found: Superposition, levels: Sequence[float]) -> list[int]:
    """Densities at which the clean models of the first seed have about these features per
    dimension."""
    curve_N = found.sweeps[0].per_dimension_KN[CLEAN]
    chosen = {int(np.abs(curve_N - level).argmin()) for level in levels}
    return sorted(chosen)


def graphs(found: Superposition) -> list[dict[str, Any]]:
    """Clean and robust models of the first seed, side by side."""
    sweep, rows = found.sweeps[0], []
    for n in _nearest(found, DRAWN):
        pictures = []
        for kind, name in enumerate(KINDS):
            form = sweep.geometry_KN[kind][n]
            drawn = graph(sweep.weights_KNDF[kind, n], form)
            pictures.append(
                {
                    "name": name,
                    "hue": (250, 30)[kind],
                    "size": f"{sweep.per_dimension_KN[kind, n]:.2f}",
                    "represented": int(form.represented_F.sum()),
                    "graph": drawn,
                }
            )
        rows.append({"at": f"{found.sparsity_N[n]:.2f}", "pictures": pictures})
    return rows


def shapes_table(found: Superposition) -> list[list[str]]:
    """How many components have which shape, at the densities drawn, mean over seeds."""
    rows = [["1/(1 - S)", "training", "features per dimension", *NAMED, "other"]]
    for n in _nearest(found, (*DRAWN, 2.5, 4.0)):
        for kind, name in enumerate(KINDS):
            counts = Counter[str]()
            for sweep in found.sweeps:
                counts.update(sweep.geometry_KN[kind][n].shapes)
            seeds = len(found.sweeps)
            other = sum(count for shape, count in counts.items() if shape not in NAMED)
            size = float(found.mean("per_dimension_KN")[kind, n])
            numbers = [counts[shape] / seeds for shape in NAMED] + [other / seeds]
            rows.append([f"{found.sparsity_N[n]:.2f}", name, f"{size:.2f}",
                         *(f"{value:.3g}" for value in numbers)])  # fmt: skip
    return rows


def training_chart(found: Superposition) -> Any:
    """Features per dimension during training, first seed."""
    sweep = found.sweeps[0]
    steps = np.array([float(step) for step, _ in sweep.trace])
    series = []
    for i, n in enumerate(_nearest(found, TRACED)):
        for kind in (CLEAN, ROBUST):
            y = np.array([values[kind, n] for _, values in sweep.trace])
            name = f"{KINDS[kind]}, 1/(1 - S) = {found.sparsity_N[n]:.2f}"
            series.append(Series(name, steps, y, dashed=kind == ROBUST, colour=i))
    return chart(series, Axis("step", log=True), Axis("features per dimension"))
