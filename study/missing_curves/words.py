"""The sentences of the page."""

from collections.abc import Mapping

from ..measures.circle import MODES, Circle
from ..measures.curve_scores import CurveThresholds
from ..measures.gap_chance import LEVEL, p_text
from .decompose import DIP, PEAK
from .findings import Site

CAVEATS = (
    "Two dictionaries of one site share most of what they find only where a feature is strong. A "
    "curve latent of one seed need not appear with another.",
    "More curve latents leave narrower gaps by themselves. Compare each gap with its chance level.",
    "Drawn curves are not photographs. Compare the patches.",
)


CONTROLS = {
    "random": "random: a dictionary of random rows",
    "frozen-decoder": "frozen-decoder: its decoder rows stayed as they were drawn",
    "soft-frozen-decoder": "soft-frozen-decoder: its decoder rows stayed near where they began",
    "frozen-encoder": "frozen-encoder: its encoder columns stayed as they were drawn",
    "shuffled-units": "shuffled-units: trained on rows in which each unit's values come from other "
    "inputs",
    "pca": "pca: principal components",
    "ica": "ica: independent components",
    "nmf": "nmf: components of non-negative matrix factorisation",
    "neurons": "neurons: the units themselves",
}
"""What a kind of control is, in words."""


def controls(site: Site) -> str:
    """What the controls of a site are; empty without any."""
    kinds = dict.fromkeys(run.control for run in site.runs if run.control)
    return "; ".join(CONTROLS.get(kind, kind) for kind in kinds)


def sentence(site: Site, p_values: Mapping[str, float]) -> str:
    """How many curve detectors there are, how wide their gaps are, and what chance leaves.

    `p_values` are those of the runs, corrected for their number.
    """
    many = len(site.units.members)
    verb = "is a curve detector" if many <= 1 else "are curve detectors"
    text = f"{many or 'None'} of {len(site.units.scores.max)} units {verb}"
    if site.units_chance is not None:
        text += f", with a widest gap of {site.units_chance.text()}"
    return f"{text}. {_latents(site)}{_verdict(site, p_values)}{_controls(site)}"


def _latents(site: Site) -> str:
    """The widest gaps of the runs that are not controls, with their chance levels."""
    if not site.trained:
        return "All runs are controls."
    runs = [run for run in site.trained if run.name in site.chances]
    if not runs:
        return "No run has a curve latent."
    widest = [site.chances[run.name].widest for run in runs]
    if len(site.trained) == 1:
        count = len(runs[0].family.members)
        latents = "1 curve latent" if count == 1 else f"{count} curve latents"
        return f"The run has {latents}, with a widest gap of {widest[0].text()}."
    *most, last = [str(len(run.family.members)) for run in site.trained]
    gaps = ", ".join(one.text() for one in widest)
    return f"The runs have {', '.join(most)} and {last} curve latents, with widest gaps of {gaps}."


def _verdict(site: Site, p_values: Mapping[str, float]) -> str:
    """Whether less remains of the units' gaps than chance leaves; empty where there are none."""
    runs = [run for run in site.trained if run.name in p_values]
    if not runs:
        return ""
    total = sum(gap.degrees for gap in site.gaps)
    surplus = [site.chances[run.name].surplus for run in runs]
    new = ", ".join(str(len(run.copies) - sum(run.copies)) for run in runs)
    left = ", ".join(one.text() for one in surplus if one is not None)
    below = sum(p_values[run.name] < LEVEL for run in runs)
    corrected = f", corrected for {len(p_values)} runs" if len(p_values) > 1 else ""
    text = (
        f" Curve latents that copy no unit: {new}. Added to the units, they leave {left} of the "
        f"units' gaps, which are {total:.0f}° together; chance is as many uniform orientations."
    )
    if below == len(runs):
        found = "This is less than chance" + ("" if below == 1 else " in all runs")
    elif below:
        found = f"This is less than chance in {below} of {len(runs)} runs"
    else:
        found = "Chance explains this" + ("" if len(runs) == 1 else " in all runs")
    level = f"P {'<' if below else '≥'} {LEVEL:g}"
    return f"{text} {found} ({level}{corrected})."


def _controls(site: Site) -> str:
    """The widest gaps of the controls; empty without any."""
    widths = [run.family.gap.degrees for run in site.runs if run.control]
    if not widths or site.empty:
        return ""
    low, high = f"{min(widths):.0f}°", f"{max(widths):.0f}°"
    return f" The widest gaps of controls are {low if low == high else f'{low} to {high}'}."


def circle(found: Circle) -> str:
    """The two measures of a circle with their chance levels."""
    modes = ", ".join(f"{100 * fraction:.0f} %" for fraction in found.modes)
    return (
        f"For the {found.count} curve latents of the first run, the angle in the first two "
        f"principal components correlates with the orientation at {found.order:.2f}; 95 % of "
        f"permutations of the orientations stay below {found.chance:.2f} ({p_text(found.p)}). "
        f"Fourier modes 1 to {MODES} of the orientation explain {modes} of the variance of the "
        f"rows; a mode explains {100 * found.modes_chance:.0f} % by chance."
    )


def method(limits: CurveThresholds) -> list[str]:
    """How the numbers were measured, a paragraph a step."""
    return [
        "Curves are drawn and scored as in the study of curve detectors (tendril study curves "
        f"--help). A curve detector has a resultant length of at least {limits.resultant:g}, an "
        f"echo of at most {limits.echo:g}, and at least {limits.strength:g} of the maximum of the "
        "strongest unit of the site or latent of the run.",
        "What remains of a gap between units is its widest stretch without a curve latent. Its "
        "chance levels are 10,000 draws from each of three null hypotheses: as many orientations "
        "as there are latents, uniform on the circle; for the latents that copy no unit, as many "
        "uniform orientations added to the units; and, for each kind of "
        "control, as many curve latents as the run has, drawn from those of the controls. A latent "
        "copies a unit if more than half of the squared norm of its decoder row lies in one "
        "channel. P is "
        "the fraction of draws that leave as little as the run or less. P values of several runs "
        "are corrected by Holm's method.",
        "Unless --units names others, a unit is decomposed if its tuning curve has a second peak "
        f"at least {PEAK:g} as high as the first, separated by dips below {DIP:g} of the second. "
        "Units with two opposite peaks detect lines and are left out.",
    ]
