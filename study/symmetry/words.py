"""What the page of the symmetry study says in sentences."""

import math

import numpy as np

from ..measures.shape_stimuli import KINDS
from ..measures.stabilisers import LOSS
from ..measures.symmetry_analysis import SymmetryAnalysis
from .findings import SymmetryFindings

CANDIDATES = 5


def lead(findings: SymmetryFindings) -> str:
    """How many latents fire, what fixes them, and the same of each control."""
    analysis = findings.analysis
    what = "tied families" if analysis.tied else "latents"
    text = (
        f"{len(analysis.latents)} of the {analysis.total} {what} of {analysis.run} fire on "
        f"held-out orbits of {analysis.group.name}."
    )
    counts = ", ".join(f"{name} {many}" for name, many in analysis.counts().items())
    if counts:
        text += f" Their transform blocks divide them by what fixes them: {counts}."
    controls: dict[str, list[SymmetryAnalysis]] = {}
    for other in findings.controls:
        if other.about.startswith("control"):
            controls.setdefault(other.about.partition(",")[0], []).append(other)
    for name, runs in controls.items():  # one sentence for all seeds of a control
        mirrored = sum(run.counts().get("one reflection", 0) for run in runs)
        total = sum(len(run.latents) for run in runs)
        text += f" In the {name}, exactly one reflection fixes {mirrored} of {total} latents."
    return text


def headline(findings: SymmetryFindings) -> list[dict[str, str]]:
    """The figures at the top of the page, each with what it counts."""
    analysis = findings.analysis
    alive = len(analysis.latents)
    several = sum(len(family.members) > 1 for family in findings.families)
    curves = len(findings.rows_named("curve"))
    mirrored = analysis.counts().get("one reflection", 0)
    tiles = [
        _tile(str(alive), f"of {analysis.total}", "fire on held-out orbits"),
        _tile(str(mirrored), f"of {alive}", "are fixed by exactly one reflection"),
    ]
    if findings.tuning is not None and mirrored:
        gap = f"; widest gap {findings.curve_gap.degrees:.0f}°"
        text = "respond to curves more than to lines, edges, corners and line ends"
        about = "" if analysis.tied or not curves else gap
        tiles.append(_tile(str(curves), f"of {mirrored}", f"{text}{about}"))
    kin = "groups are duplicates of one another" if analysis.tied else "families have two or more"
    tiles.append(
        _tile(
            str(several),
            f"of {len(findings.families)}",
            kin + ("" if analysis.tied else " members"),
        )
    )
    return tiles


def name_text(findings: SymmetryFindings) -> str:
    """What latents of one reflection respond to, and whether blocks and responses agree."""
    if findings.tuning is None:
        return "No shapes were shown, so curves are not told apart from edges, corners, line ends."
    names = ", ".join(f"{name} {many}" for name, many in findings.name_counts().items())
    if not names:
        return "No latent is fixed by exactly one reflection, as a curve, an edge or a corner is."
    text = (
        "One reflection fixes a curve, but also an edge, a corner and the end of a line. By the "
        f"drawn shape to which they respond most, these latents are: {names}. A latent is called "
        "a curve only if its response to an arc of some radius is at least "
        f"{1 + findings.margin:g} times that to any straight line, edge, corner or line end."
    )
    errors = findings.axis_errors()
    if errors:
        latents = "1 latent" if len(errors) == 1 else f"{len(errors)} latents"
        text += (
            " The axis of the blocks and the direction of the responses, two measures that have "
            f"no step in common, differ by {np.median(errors):.1f}° in the median over {latents} "
            "(modulo 180°; chance: 45°)."
        )
    return text


def no_curves_text(findings: SymmetryFindings) -> str:
    """That no latent is a curve, and which come nearest."""
    text = (
        "No latent is a curve: fixed by exactly one reflection, and with a response to some curve "
        f"of at least {1 + findings.margin:g} times that to any other shape."
    )
    nearest = findings.nearest_curves(CANDIDATES)
    if not nearest:
        return f"{text} None responds to a drawn curve at all."
    latents = ", ".join(
        f"latent {findings.analysis.latents[row]} ({findings.analysis.classes[row]}, "
        f"{'curves only' if math.isinf(ratio) else f'{ratio:.2f}'})"
        for row, ratio in nearest
    )
    return (
        f"{text} The nearest ones, with their class and the ratio of their largest response to a "
        f"curve to that to any other shape: {latents}."
    )


def chance_text(findings: SymmetryFindings) -> str:
    """How the thresholds are set."""
    analysis = findings.analysis
    shown = ", ".join(
        f"{kind} {analysis.limits[kind]:.2f} (chance {analysis.chance[kind]:.2f})"
        for kind in ("C2", "D1", "D2")
        if kind in analysis.limits
    )
    text = (
        "Photographs have symmetries too. The orbit of a single patch has much of its power in the "
        "fixed space of some reflection, the more so because the best of "
        f"{analysis.group.rotations} axes is taken. A symmetry of a latent therefore counts only "
        "above a quantile of the null distributions, and above a least fraction of its power. "
        "Smooth blocks have such a fraction whatever they represent, so the angular frequencies of "
        "a latent must also agree on an axis better than those of blocks of the same spectrum with "
        "random phases do."
    )
    return f"{text} Thresholds: {shown}." if shown else text


def family_text(findings: SymmetryFindings) -> str:
    """How families are formed, and how many the page shows."""
    analysis, families = findings.analysis, findings.families
    text = (
        "Families come from average linkage of one minus the cosine, each pair of latents in its "
        f"best pose, cut at a mean cosine of {analysis.alike:.2f}: {len(families)} families of "
        f"{len(analysis.latents)} latents. "
    )
    if analysis.tied:
        text += (
            "Each tied latent already is a family with one copy per element of the group, so a "
            "family of several here is a pattern that the dictionary holds more than once. "
        )
    if len(families) > findings.shown:
        return text + f"The {findings.shown} largest are below; all are in families.csv."
    return text + "All are below and in families.csv."


def method(findings: SymmetryFindings) -> list[str]:
    """How the numbers are computed, one paragraph per step."""
    return [
        "Block g of the orbit of a patch p is a(T_g p). The orbit of T_h p has a(T_g T_h p) in "
        "block g, which is block gh of the orbit of p. Hence the blocks of a pattern that T_s "
        "fixes satisfy D[gs] = D[g], and the stabiliser of a latent consists of the elements whose "
        "multiplication on the right leaves its centred blocks (without their mean) unchanged. "
        "For each subgroup H the fraction of the power in the fixed space of H is the mean over s "
        "in H of r(s) / r(0), where r(s) is the sum over g of <D[g], D[gs]>.",
        "The stabiliser is the largest subgroup whose fraction reaches the threshold of its kind, "
        "an upper tolerance limit of the quantile of the nulls (confidence 0.95): raw anchors of "
        "half of the images, and blocks in a random order. For D_d the P value of the axes must "
        "also be at most one minus the quantile: the largest correlation of a latent with its "
        "reflections, over all axes, against those of blocks with the same power and the same "
        "reflected correlation in every angular frequency, and random phases. "
        f"It may lose at most {LOSS:g} of the power that a smaller subgroup inside it keeps, or "
        "twice what noise of the same density would explain. C_d are the turns by multiples of "
        "360/d degrees; D_d adds d reflections. Everything fixes a circle, so hardly any of its "
        "power varies with the transformation. The half turn and two reflections (D2) fix a line; "
        "one reflection (D1) fixes a curve.",
        "Axes are angles in degrees clockwise from the right, with y pointing down. Neighbouring "
        "axes of the group are 180/n degrees apart; between them the maximum of the parabola "
        "through their fractions is taken. Responses to drawn shapes decide at which end of the "
        "axis the bulge is. Latent i is latent j in pose h if D_i[g] = D_j[gh].",
        "Shapes are drawn in the middle of the patch in 2n directions, fade towards the rim as the "
        "harvested patches do, and are shown to the subject. Each is symmetric about its own "
        "direction, so its orbit is among the drawn shapes. Responses are positive parts of "
        f"pre-activations, before latents compete. The shapes are: {', '.join(KINDS)}.",
    ]


def caveats(findings: SymmetryFindings) -> list[str]:
    """What limits the conclusions."""
    texts = [
        "Fractions are of power. A latent with 0.9 of its power in a reflection's fixed space may "
        "hold something chiral in the remaining tenth.",
        "The thresholds are conventions on top of the null distributions; latents close to one "
        "change class with small changes of it.",
        "Families cut a tree at one height. Two true families that are more similar than the cut "
        "merge, and noisy copies may stand alone.",
        "Blocks of a dictionary of single vectors are averages over many inputs, which carry the "
        "symmetries of these inputs too. Numbers of latents of a class are therefore not "
        "comparable with those of group crosscoders, whose blocks are weights.",
        "An orbit is assigned to its most active family, so families that are active everywhere "
        "take most orbits. The chance level of a silhouette falls with the number of families: "
        "compare differences from chance.",
        "Drawn shapes are not photographs. A latent that responds to none of them is called "
        "silent, and may represent a texture.",
    ]
    if findings.analysis.tied:
        texts.append(
            "The relative orientations of the copies of a tied latent hold by construction and are "
            "no finding; the stabiliser and the axis of its representative are."
        )
    if not findings.controls:
        texts.append(
            "No controls were given: train runs with --control and name them here with --controls."
        )
    return texts


def _tile(value: str, of: str, text: str) -> dict[str, str]:
    return {"value": value, "of": of, "text": text}
