"""The sentences of the page."""

import numpy as np

from ..measures.circle import MODES, Circle
from ..measures.curve_scores import CurveThresholds
from .decompose import DIP, PEAK
from .findings import Site

NARROWER = 2.5
"""Degrees by which a gap must be narrower to count: half a step of the drawn orientations."""

CAVEATS = (
    "Two dictionaries of one site share most of what they find only where a feature is strong. A "
    "curve latent of one seed need not appear with another.",
    "More curve latents leave narrower gaps by themselves. Compare the widest gap with that of as "
    "many random directions.",
    "Drawn curves are not photographs. Compare the patches.",
)


def sentence(site: Site) -> str:
    """How many curve detectors there are, and how their widest gaps compare."""
    many = len(site.units.members)
    verb = "is a curve detector" if many <= 1 else "are curve detectors"
    text = f"{many or 'None'} of {len(site.units.scores.max)} units {verb}"
    if many:
        text += f", with a widest gap of {site.units.gap.degrees:.0f}°"
    return f"{text}. {_latents(site)}{_controls(site)}"


def _latents(site: Site) -> str:
    """The widest gaps of the runs that are not controls."""
    if not site.trained:
        return "All runs are controls."
    counts = [len(run.family.members) for run in site.trained]
    widths = [run.family.gap.degrees for run in site.trained]
    if not any(counts):
        return "No run has a curve latent."
    if len(counts) == 1:
        latents = "1 curve latent" if counts == [1] else f"{counts[0]} curve latents"
        return f"The run has {latents}, with a widest gap of {widths[0]:.0f}°."
    *most, last = map(str, counts)
    closer = sum(width < site.units.gap.degrees - NARROWER for width in widths)
    return (
        f"The runs have {', '.join(most)} and {last} curve latents, with widest gaps of "
        f"{np.mean(widths):.0f}° on average ({min(widths):.0f}° to {max(widths):.0f}°); in "
        f"{closer} of {len(widths)} runs the gap is more than {NARROWER:g}° narrower than that of "
        "the units."
    )


def _controls(site: Site) -> str:
    """The widest gaps of the controls; empty without any."""
    widths = [run.family.gap.degrees for run in site.runs if run.control]
    if not widths or site.empty:
        return ""
    low, high = f"{min(widths):.0f}°", f"{max(widths):.0f}°"
    text = f" Controls leave {low if low == high else f'{low} to {high}'}."
    if min(widths) < site.units.gap.degrees - NARROWER:
        text += " A narrow gap alone is therefore no evidence of learnt curve detectors."
    return text


def circle(found: Circle) -> str:
    """The two measures of a circle with their chance levels."""
    modes = ", ".join(f"{100 * fraction:.0f} %" for fraction in found.modes)
    return (
        f"For the {found.count} curve latents of the first run, the angle in the first two "
        f"principal components correlates with the orientation at {found.order:.2f}; 95 % of "
        f"permutations of the orientations stay below {found.chance:.2f}. Fourier modes 1 to "
        f"{MODES} of the orientation explain {modes} of the variance of the rows; a mode explains "
        f"{100 * found.modes_chance:.0f} % by chance."
    )


def method(limits: CurveThresholds) -> list[str]:
    """How the numbers were measured, a paragraph a step."""
    return [
        "Curves are drawn and scored as in the study of curve detectors (tendril study curves "
        f"--help). A curve detector has a resultant length of at least {limits.resultant:g}, an "
        f"echo of at most {limits.echo:g}, and at least {limits.strength:g} of the maximum of the "
        "strongest unit of the site or latent of the run.",
        "Unless --units names others, a unit is decomposed if its tuning curve has a second peak "
        f"at least {PEAK:g} as high as the first, separated by dips below {DIP:g} of the second. "
        "Units with two opposite peaks detect lines and are left out.",
    ]
