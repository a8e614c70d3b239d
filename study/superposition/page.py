"""What the page of superposition shows."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tendril.data.store.tables import columns

from ..measures.superposition_attacks import ATTACKS
from ..page.charts import Axis, Series, chart
from .config import SuperpositionConfig
from .findings import CLEAN, KINDS, PAPER_TRANSITIONS, ROBUST, SHARED, Superposition
from .graph import graph

DRAWN = (1.1, 1.6, 2.0, 3.0)
"""Features per dimension of the clean models that are drawn."""
TRACED = (1.2, 1.6, 2.0, 3.0)
PLACES = 0.02
LEVELS = (0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 50.0, 100.0)
SPARSITIES = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 10.0, 20.0, 50.0, 100.0, 1000.0)
NAMED = ("alone", "oblique pair", "antipodal pair", "triangle", "tetrahedron", "pentagon")
BLUE, ORANGE, GREEN = 0, 1, 2


def headline(figures: Mapping[str, Any]) -> str:
    """The figures that matter, in a few sentences."""
    seeds = f"{figures['seeds']} seed{'s' if figures['seeds'] > 1 else ''}"
    parts = []
    if figures["robust_lower_of"]:
        parts.append(
            f"Adversarial training lowers features per dimension in {figures['robust_lower']} of "
            f"{figures['robust_lower_of']} models above {SHARED:g} ({seeds}, "
            f"{figures['steps']:,} steps)."
        )
    if (level := figures["plateau_clean"]) is not None:
        low, high = figures["plateau_clean_between"]
        parts.append(
            f"Clean models stay near {level:.2f} features per dimension for 1/(1 - S) from "
            f"{low:.1f} to {high:.1f}."
        )
    if (r := figures["correlation_analytic_clean"]) is not None:
        control = figures["correlation_analytic_control"]
        beside = "" if control is None else f"; in random directions {control:.2f}"
        parts.append(
            f"Vulnerability to the analytic attack follows features per dimension (correlation "
            f"{r:.3f}{beside})."
        )
    if (ratio := figures["interference_squared"]) is not None:
        parts.append(f"Clean models interfere {ratio:.2f} times as much as robust ones.")
    parts.append(_dip_words(figures))
    return " ".join(parts)


def _dip_words(figures: Mapping[str, Any]) -> str:
    found = [name for name in ("gradient", "analytic") if figures[f"dip_{name}_clean_found"]]
    depths = {n: f"{100 * figures[f'dip_{n}_clean']:.0f} %" for n in ("gradient", "analytic")}
    if not found:
        return (
            f"No dip of vulnerability at antipodal pairs (gradient attack {depths['gradient']}, "
            f"analytic {depths['analytic']})."
        )
    said = " and ".join(f"by {depths[name]} under the {name} attack" for name in found)
    rest = "" if len(found) == 2 else (
        f", by {depths['analytic']} under the analytic one" if found == ["gradient"]
        else f", by {depths['gradient']} under the gradient one"
    )  # fmt: skip
    return f"At antipodal pairs vulnerability dips {said}{rest}."


def table(figures: Mapping[str, Any]) -> str:
    """A table for the terminal."""
    return columns([("", "found", "paper"), *comparison(figures)])


def comparison(figures: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Each claim: what was found, and what the paper says."""
    lower = f"{figures['robust_lower']} of {figures['robust_lower_of']}"
    less = figures["robust_less"]
    flat = "not found"
    if (level := figures["plateau_clean"]) is not None:
        low, high = figures["plateau_clean_between"]
        flat = f"{level:.2f} from {low:.2f} to {high:.2f}"
    rows = [
        (
            f"robust below clean where clean is above {SHARED:g}",
            lower + (f", {_percent(less)} lower on average" if less is not None else ""),
            "lower",
        ),
        ("plateau of clean models", flat, ""),
    ]
    for i, paper in enumerate(PAPER_TRANSITIONS, 1):
        for name in KINDS:
            each = figures[f"transition_{i}_{name}_seeds"]
            said = ", ".join("none" if v is None else f"{v:.2f}" for v in each)
            if name == KINDS[CLEAN]:
                said += "; found" if figures[f"transition_{i}_{name}_found"] else "; not found"
            rows.append((f"transition {i}, {name}: 1/(1 - S)", said, f"about {paper:g}"))
    return rows + _correlation_rows(figures) + _interference_rows(figures)


def _correlation_rows(figures: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    rows = []
    for name in ("analytic", "single", "gradient"):
        least, mean = (figures[f"correlation_{name}_{key}"] for key in ("least", "clean"))
        control = figures[f"correlation_{name}_control"]
        said = f"{_number(mean)} (least {_number(least)}; random directions {_number(control)})"
        words = f"correlation with vulnerability, {ATTACK_WORDS[name]}"
        rows.append((words, said, "about 0.99" if name == "analytic" else ""))
    for key, words in OTHER_MEASURES.items():
        rows.append((words, _number(figures[f"correlation_analytic_{key}"]), ""))
    within = _number(figures["correlation_analytic_difference"])
    rows.append(
        (f"correlation of clean minus robust above {SHARED:g}, analytic attack", within, "")
    )
    return rows


def _interference_rows(figures: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    rows = []
    for name in ("squared", "absolute"):
        value, most = figures[f"interference_{name}"], figures[f"interference_{name}_most"]
        said = "unknown" if value is None else f"{value:.2f} (most {most:.2f})"
        rows.append((f"interference of clean over robust, {name}", said, "about 2"))
    for name in ("gradient", "analytic"):
        for kind in KINDS:
            depth, at = figures[f"dip_{name}_{kind}"], figures[f"dip_{name}_{kind}_at"]
            found = "found" if figures[f"dip_{name}_{kind}_found"] else "not found"
            where = f" at {at:.1f}" if at is not None else ""
            rows.append(
                (
                    f"dip of vulnerability, {ATTACK_WORDS[name]}, {kind}",
                    f"{_percent(depth)}{where}; {found}",
                    "a dip",
                )
            )
    return rows


OTHER_MEASURES = {
    "loss_ratio": "correlation with loss under attack / loss, analytic attack",
    "loss_per_power": "correlation with loss under attack / mean ||x||^2, analytic attack",
    "loss": "correlation with loss under attack as it is, analytic attack",
}
ATTACK_WORDS = {
    "gradient": "gradient attack",
    "analytic": "analytic attack",
    "single": "analytic, one direction for all inputs",
}


def _percent(value: float) -> str:
    return f"{100 * value:.0f} %"


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f}"


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


def numbers(figures: Mapping[str, Any]) -> list[dict[str, str]]:
    """The tiles at the top of the page."""
    tiles = [
        {
            "value": str(figures["robust_lower"]),
            "of": f"of {figures['robust_lower_of']}",
            "text": f"models above {SHARED:g} features per dimension have fewer when adversarially "
            "trained",
        }
    ]
    control = figures["correlation_analytic_control"]
    if figures["correlation_analytic_clean"] is not None:
        tiles.append(
            {
                "value": f"{figures['correlation_analytic_clean']:.3f}",
                "of": "" if control is None else f"control {control:.2f}",
                "text": "correlation of features per dimension with vulnerability, analytic attack",
            }
        )
    if figures["interference_squared"] is not None:
        tiles.append(
            {
                "value": f"{figures['interference_squared']:.2f}",
                "of": f"most {figures['interference_squared_most']:.2f}",
                "text": "interference of clean over robust models, mean over densities in "
                "superposition",
            }
        )
    tiles.append(
        {
            "value": f"{100 * figures['dip_gradient_clean']:.0f} %",
            "of": f"analytic {100 * figures['dip_analytic_clean']:.0f} %",
            "text": "dip of vulnerability under the gradient attack",
        }
    )
    return tiles


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
