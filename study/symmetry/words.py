"""What the page of symmetries says in sentences."""

import numpy as np

from ..curves.words import count
from ..measures.stabilisers import LOSS
from .analysis import Reading
from .findings import SymmetryFindings


def lead(findings: SymmetryFindings) -> str:
    """How many latents, what fixes them, and what a control has instead."""
    reading = findings.reading
    alive = len(reading.latents)
    counts = reading.counts()
    told = ", ".join(f"{many} {name}" for name, many in counts.items())
    what = "families of copies tied by the group" if reading.tied else "latents"
    text = (
        f"Of {reading.total} {what} of {reading.run}, read under {reading.group.name}, {alive} "
        f"fire. What their transform blocks say fixes them: {told or 'nothing'}."
    )
    seen: dict[str, list[Reading]] = {}
    for other in findings.controls:
        if other.about.startswith("control"):
            seen.setdefault(other.about.partition(",")[0], []).append(other)
    for name, runs in seen.items():  # one control of several seeds is told of once
        mirrored = sum(run.counts().get("one reflection", 0) for run in runs)
        text += f" The {name} has {mirrored} of {sum(len(run.latents) for run in runs)}"
        text += " that one reflection fixes."
    return text


def headline(findings: SymmetryFindings) -> list[dict[str, str]]:
    """The figures at the top of the page, each with what it counts."""
    reading = findings.reading
    alive = len(reading.latents)
    several = sum(len(family.members) > 1 for family in findings.families)
    curves = len(findings.rows_named("curve"))
    mirrored = reading.counts().get("one reflection", 0)
    tiles = [
        _tile(str(alive), f"of {reading.total}", "fire on held-out orbits"),
        _tile(str(mirrored), f"of {alive}", "are fixed by one reflection and nothing else"),
    ]
    if findings.tuning is not None:
        about = "" if reading.tied else f"; widest gap {findings.curve_gap.degrees:.0f}°"
        beat = "answer to curves more than to lines, edges, corners and ends"
        tiles.append(_tile(str(curves), f"of {mirrored}", f"{beat}{about}"))
    kin = "groups of families are duplicates" if reading.tied else "families have several members"
    tiles.append(_tile(str(several), f"of {len(findings.families)}", kin))
    return tiles


def name_text(findings: SymmetryFindings) -> str:
    """What latents of one reflection answer to, and whether blocks and answers agree."""
    if findings.tuning is None:
        return "No shapes were shown, so curves are not told from edges, corners and line ends."
    told = ", ".join(f"{many} {name}" for name, many in findings.name_counts().items())
    text = (
        f"One reflection fixes a curve, but also an edge, a corner and the end of a line. By "
        f"what they answer to most of what was drawn, those latents are: {told or 'none'}. A "
        f"curve is called one only where its answer to an arc of some radius is at least "
        f"{1 + findings.margin:g} times that to any straight line, edge, corner or line end."
    )
    errors = findings.axis_errors()
    if errors:
        text += (
            f" The axis that the blocks say and the direction of the answers, two measures that "
            f"share no step, differ by {np.median(errors):.1f}° in the median over "
            f"{count(len(errors), 'latent')} (modulo 180°; chance: 45°)."
        )
    return text


def chance_text(findings: SymmetryFindings) -> str:
    """How the thresholds came about."""
    limits = findings.reading.thresholds
    told = ", ".join(f"{kind} {limits[kind]:.2f}" for kind in ("C2", "D1", "D2") if kind in limits)
    return (
        f"Photographs are symmetrical, too: the orbit of a single patch, learned by nobody, has "
        f"much of its power in the fixed space of some reflection, the more so as the best of "
        f"{findings.reading.group.rotations} axes is taken. A symmetry counts only beyond the "
        f"nulls' quantile, or at most of the power where inputs reach that by themselves: {told}."
    )


def family_text(findings: SymmetryFindings) -> str:
    """What a family is here, and how many the page shows."""
    reading, families = findings.reading, findings.families
    shown = min(findings.shown, len(families))
    text = (
        f"Average linkage of one minus the cosine, each pair in its best pose, cut at a mean "
        f"cosine of {reading.alike:.2f}: {len(families)} families of {len(reading.latents)} "
        f"latents. "
    )
    if reading.tied:
        text += (
            "In a tied crosscoder every latent is a family with a copy at each element already; "
            "a family of several here is one that the dictionary holds more than once. "
        )
    return text + f"The {shown} largest are below; all are in families.csv."


def method(findings: SymmetryFindings) -> list[str]:
    """How the numbers came about, a paragraph a step."""
    return [
        "Block g of the orbit of a patch p is a(T_g p). The orbit of T_h p has a(T_g T_h p) in "
        "block g, which is block gh of that of p; so a pattern that T_s fixes has blocks D[gs] = "
        "D[g], and the stabiliser of a latent is what its blocks, less their mean over g, are "
        "unchanged by when multiplied on the right. For every subgroup H of the group the share "
        "of the power in the fixed space of H is the mean over s in H of r(s) / r(0), where "
        "r(s) is the sum over g of <D[g], D[gs]>.",
        "The stabiliser is the largest subgroup whose share reaches the threshold of its kind, "
        f"and that loses no more of the power than its own parts do: {LOSS:g}, or twice what "
        "noise as dense as theirs would explain. "
        "C_d are the turns by multiples of 360/d degrees, D_d those and d reflections. Circles "
        "are fixed by all: of their power hardly any varies with the transformation. Lines are "
        "fixed by the half turn and two reflections (D2), curves by one reflection (D1).",
        "Axes are angles in degrees clockwise from the right, where y points down. Neighbouring "
        "axes of the group are 180/n degrees apart; between them the top of the parabola through "
        "their shares is taken. Which end of the axis is the bulge is read off the answers to "
        "drawn shapes. Latent i is latent j in pose h where D_i[g] = D_j[gh].",
        "Shapes are drawn in the patch's middle at 2n directions, faded towards the rim as the "
        "harvested patches are, and read by the subject. All of them are symmetrical about their "
        "own direction, so the orbit of each is among them. Answers are positive parts of "
        "pre-activations, before latents compete for places.",
    ]


def caveats(findings: SymmetryFindings) -> list[str]:
    """What a reader should hold against the numbers."""
    texts = [
        "Shares are of power. A latent of .9 of reflection symmetry may still hold something "
        "chiral in the tenth that is left.",
        "The thresholds are conventions beyond the nulls; latents close to one change sides.",
        "Families cut a tree at one height. Two true families that are more alike than the cut "
        "are one here, and noisy copies may stand alone.",
        "Drawn shapes are not photographs. A latent that answers to none of them is called "
        "silent, and may stand for a texture.",
    ]
    if findings.reading.tied:
        texts.append(
            "Relative orientations of the copies in a tied family are by construction, and no "
            "finding; only the representative's stabiliser and axis are."
        )
    if not findings.controls:
        texts.append(
            "No control runs were given: pass runs that were trained with --control as --controls."
        )
    return texts


def _tile(value: str, of: str, text: str) -> dict[str, str]:
    return {"value": value, "of": of, "text": text}
