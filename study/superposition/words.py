"""The findings of superposition in words and figures, for the terminal and the page."""

from collections.abc import Mapping
from typing import Any

from tendril.data.store.tables import columns

from .findings import CLEAN, KINDS, PAPER_TRANSITIONS, SHARED


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
        least, mean = (_number(figures[f"correlation_{name}_{key}"]) for key in ("least", "clean"))
        words = f"correlation with vulnerability, {ATTACK_WORDS[name]}"
        rows.append((words, f"{mean} (least {least})", "about 0.99" if name == "analytic" else ""))
    for key, words in CONTROLS.items():
        rows.append((words, _number(figures[f"correlation_analytic_{key}"]), ""))
    return rows


def _interference_rows(figures: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    rows = []
    for name in ("squared", "absolute"):
        value, most = figures[f"interference_{name}"], figures[f"interference_{name}_most"]
        beyond = figures[f"interference_{name}_beyond"]
        past = "" if beyond is None else f"beyond the plateau {beyond:.2f}; "
        said = "unknown" if value is None else f"{value:.2f} ({past}most {most:.2f})"
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


CONTROLS = {
    "control": "analytic attack, control: features in random directions",
    "sparsity": "analytic attack, control: log 1/(1 - S) for features per dimension",
    "difference": f"analytic attack, clean minus robust at each density above {SHARED:g}",
    "loss_ratio": "analytic attack, loss under attack / loss for vulnerability",
    "loss_per_power": "analytic attack, loss under attack / mean ||x||^2 for vulnerability",
    "loss": "analytic attack, loss under attack for vulnerability",
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
