"""Made-up findings, for the tests of the page and of its tables."""

from pathlib import Path

import numpy as np

from tendril.study.curves import page as curves_page
from tendril.study.curves.findings import Findings
from tendril.study.curves.truth import Truth
from tendril.study.measures.curve_family import CurveFamily
from tendril.study.measures.curve_scores import CurveThresholds
from tendril.study.measures.image_examples import Patch
from tendril.study.page.render import render

ANGLES = np.arange(72) * 5.0
RADII = np.array([8.0, 14.0, 24.0, 42.0, 73.0, 128.0])
STYLES = ("line", "edge", "reverse")


def curve_response(orientation: float, rng: np.random.Generator) -> np.ndarray:
    """Responses [A, Q, E] of a detector with one direction and one best radius."""
    sharp = rng.uniform(6, 16)
    radial_A = np.exp(sharp * (np.cos(np.deg2rad(ANGLES - orientation)) - 1))
    radius_Q = np.exp(-((np.log(RADII) - rng.uniform(2.6, 4.0)) ** 2))
    style_E = rng.uniform(0.5, 1, 3)
    return 40 * rng.uniform(0.4, 1) * np.einsum("a,q,e->aqe", radial_A, radius_Q, style_E)


def family(kind: str, orientations, others: int, seed: int = 0, pictures: int = 6) -> CurveFamily:
    """Curve detectors at those orientations, and others that echo or hardly turn."""
    rng = np.random.default_rng(seed)
    columns = [curve_response(angle, rng) for angle in orientations]
    for _ in range(others):
        one, two = (curve_response(angle, rng) for angle in rng.uniform(0, 360, 2))
        columns.append(one + rng.uniform(0.02, 1) * two)
    responses = np.stack(columns, axis=3).astype(np.float32)
    made = CurveFamily(kind, responses, ANGLES, RADII, STYLES, CurveThresholds())
    patches = {
        member: [
            Patch(rng.integers(0, 255, (24, 24, 3)).astype(np.uint8), float(9 - i), f"photo {i}")
            for i in range(pictures)
        ]
        for member in made.members
    }
    return CurveFamily(kind, responses, ANGLES, RADII, STYLES, CurveThresholds(), patches=patches)


def findings(latents: bool = True, truths: bool = True) -> Findings:
    """A site of 80 units with a hole in its circle, and a dictionary that fills it."""
    units = family("unit", [3, 30, 44, 70, 95, 118, 150, 171, 240, 262, 290, 330], 68)
    found = family("latent", np.arange(0, 360, 11.25), 200, seed=1) if latents else None
    steps = np.arange(0, 4000, 20.0)
    families = [units, found] if found else [units]
    return Findings(
        subject="inceptionv1",
        site="mixed3b",
        units=units,
        latents=found,
        branches={"mixed3b_1x1": range(8), "mixed3b_5x5": range(8, 80)},
        receptive_field=91,
        run="topk-0123456789ab" if latents else "",
        metrics={
            "step": steps.tolist(),
            "loss": (3 * np.exp(-steps / 800) + 0.2).tolist(),
            "fvu": (0.9 * np.exp(-steps / 900) + 0.08).tolist(),
            "l0": [16.0] * len(steps),
            "dead": (0.3 * np.exp(-steps / 600)).tolist(),
        }
        if latents
        else {},
        trained={"fvu": 0.1234, "l0": 16.0} if latents else {},
        examples_note="",
        truths=[
            Truth(
                i,
                i * 22.5,
                {family.kind: family.nearest(i * 22.5) for family in families},
                (2 * i, 0.9) if latents else None,
            )
            for i in range(16)
        ]
        if truths
        else [],
    )


def rendered(made: Findings) -> str:
    """The page of curve detectors with these findings."""
    common = {
        "title": f"Curve detectors at {made.site} of {made.subject}",
        "command": "tendril study curves --run topk-0123456789ab",
        "identity": "{}",
        "tables": ["units.csv"],
    }
    return render(Path(curves_page.__file__).parent, {**common, **curves_page.context(made)})
