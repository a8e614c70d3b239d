"""What the page of evidence shows."""

from typing import Any

from ..measures.gap_chance import p_text
from ..measures.latent_effects import Effect
from ..page import svg as drawing
from .findings import CRITERIA, NAMES, Candidate, Evidence, Together

PATCH_PIXELS = 100
MARKS = {True: "yes", False: "no", None: "not examined"}


def context(evidence: Evidence) -> dict[str, Any]:
    """What page.html shows of the findings."""
    new = evidence.new()
    figures = evidence.figures()
    tiles = [
        (
            str(figures["missing_detectors"]),
            f"of {len(new)}",
            "candidates meet all five criteria",
        ),
        *((str(figures["held"][name]), f"of {len(new)}", NAMES[name]) for name in CRITERIA),
    ]
    return {
        "numbers": [{"value": v, "of": of, "text": text} for v, of, text in tiles],
        "site": evidence.site,
        "downstream": evidence.downstream,
        "runs": len(evidence.runs),
        "new_latents": ", ".join(map(str, evidence.new_latents)),
        "names": [NAMES[name] for name in CRITERIA],
        "rows": [_row(one, evidence) for one in evidence.candidates],
        "together": [_together(one) for one in evidence.together],
        "method": method(evidence),
        "caveats": [
            "The photographs that excite a latent most include ones that the dictionary was "
            "trained on.",
            f"Of {len(new)} latents that do not matter, {evidence.limits.level * len(new):.1f} "
            "would pass the last criterion by chance.",
            "A detector that no unit covers can still be a mixture of units; the examples show "
            "what excites it.",
        ],
    }


def _row(one: Candidate, evidence: Evidence) -> dict[str, Any]:
    verdicts = one.verdicts(evidence.limits)
    values = _values(one)
    return {
        "name": f"latent {one.latent}",
        "run": one.run.rpartition("-")[0] or one.run,
        "seed": one.seed,
        "title": one.run,
        "h": f"{one.orientation:.1f}",
        "angle": one.orientation,
        "orientation": f"{one.orientation:.0f}°",
        "copies": one.copies,
        "missing": one.missing(evidence.limits),
        "cells": [
            {"mark": MARKS[verdicts[name]], "verdict": str(verdicts[name]), "value": values[name]}
            for name in CRITERIA
        ],
        "patches": [
            {
                "url": drawing.data_url(patch.pixels, "JPEG", PATCH_PIXELS),
                "name": f"{patch.name}: {patch.value:.3g}",
            }
            for patch in one.patches
        ],
    }


def _values(one: Candidate) -> dict[str, str]:
    distance = "no curve unit" if one.nearest is None else f"{one.nearest[1]:.0f}° away"
    there = sum(cosine >= one.alike for cosine in one.found_in)
    by_chance = sum(cosine >= one.alike for cosine in one.by_chance)
    rival, ratio = one.rival
    return {
        "uncovered": f"{distance}, envelope {one.envelope:.2f}",
        "curves": f"{rival} {ratio:.2f}" if rival else "no rival excites it",
        "photographs": "" if one.off is None else f"{signed(one.off)} off",
        "recurs": (
            f"{there} of {len(one.found_in)} ({max(one.found_in):.2f}; shuffled {by_chance})"
            if one.found_in
            else ""
        ),
        "matters": "; ".join(
            text
            for text in (
                _effect("tuning", one.tuning, 100, " %"),
                _effect("KL", one.kl, 1000, " mnat"),
                _effect("top-5", one.top5, 100, " %"),
            )
            if text
        ),
    }


def _together(one: Together) -> dict[str, Any]:
    return {
        "seed": one.seed,
        "title": one.run,
        "kind": one.kind,
        "latents": one.latents,
        "photographs": one.photographs,
        "energy": f"{one.energy:.3g} ({one.energy_of_others:.3g})",
        "cells": [
            {"value": f"{scale * effect.chance.observed:.2g}{unit}", "others": text}
            if effect is not None
            else {"value": "", "others": "no curve unit downstream"}
            for effect, scale, unit in (
                (one.tuning, 100, " %"),
                (one.kl, 1000, " mnat"),
                (one.top5, 100, " %"),
            )
            for text in (_others(effect, scale, unit),)
        ],
    }


def _others(effect: Effect | None, scale: int, unit: str) -> str:
    if effect is None:
        return ""
    low, mean, high, p = (getattr(effect.chance, name) for name in ("low", "mean", "high", "p"))
    return f"others {scale * mean:.2g}{unit} ({scale * low:.2g} to {scale * high:.2g}), {p_text(p)}"


def signed(degrees: float) -> str:
    """Rounded degrees with a sign; 0° without one."""
    rounded = round(degrees)
    return f"{rounded:+d}°".replace("-", "\N{MINUS SIGN}") if rounded else "0°"


def _effect(name: str, effect: Effect | None, scale: int, unit: str) -> str:
    if effect is None:
        return ""
    chance = effect.chance
    return (
        f"{name} {scale * chance.observed:.2g}{unit} "
        f"(random {scale * chance.mean:.2g}; {p_text(chance.p)})"
    )


def method(evidence: Evidence) -> list[str]:
    """How each criterion was examined, a paragraph each."""
    limits = evidence.limits
    right = (
        "classes are those of the class list"
        if evidence.labelled
        else "the network's own first answer counts as right"
    )
    watched = (
        f"the fraction of the response of curve units of {evidence.downstream}, at most 45° from "
        "the latent's orientation, to drawn curves of that orientation that is lost"
        if evidence.downstream
        else "the change of the network's answers, since no site downstream was named"
    )
    return [
        "A latent copies a unit if more than half of the squared norm of its decoder row lies in "
        "one channel. A candidate copies no unit. It is covered if a curve unit lies within "
        f"{limits.apart:g}° of its orientation. The envelope is the highest tuning curve of the "
        "curve units at this orientation, each scaled to 1.",
        "Rivals are corners, straight edges and lines, line ends, circles and gratings. The "
        f"greatest response to one of them must be at most {limits.rival:g} of that to a curve.",
        "The photographs that excite each curve unit and candidate most are turned about the "
        "receptive field. Orientations follow from where detectors peak on each other's "
        f"photographs, and must agree with those on drawn curves within {limits.off:g}°.",
        "A latent comes back in another run if a curve latent there, within "
        f"{limits.apart:g}°, has a decoder row of cosine {evidence.alike:g} or more. It must come "
        f"back in {100 * limits.recurs:.0f} % of the runs of other seeds. In brackets: the best "
        "cosine, and in how many runs the row with its channels shuffled is found.",
        "Removed is x' = x - z d. As much is removed along "
        f"{evidence.directions} decoder rows of other latents, at the same positions. Compared is "
        f"{watched}. P is the fraction of directions that cost as much or more. KL and lost top-5 "
        "answers are means over the photographs that excite the latent most; "
        f"{right}.",
        *(
            [
                "Removed together is x' = x - sum_i z_i d_i. Beside it, as many other active "
                "latents, which detect no curves, are removed: each is drawn among the eight "
                "nearest in frequency and in z² ||d||² where active. The energy is the sum over "
                "latents of the mean of z² ||d||². Drawn curves of eight orientations and evenly "
                "chosen photographs were shown."
            ]
            if evidence.together
            else []
        ),
    ]
