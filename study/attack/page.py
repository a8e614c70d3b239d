"""What the page of attacks shows."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tendril.data.store.tables import columns

from ..measures.attacks import DRAWS, NEAR_ZERO, AttackFindings
from ..page.charts import Axis, Series, chart

NORMS = {"linf": "L-infinity", "l2": "L2"}


def headline(figures: Mapping[str, Any]) -> str:
    """The figures that matter, in a sentence or two."""
    believed = "no sign of masked gradients"
    if figures["masked"]:
        signs = len(figures["masked"])
        believed = f"{signs} sign{'s' if signs > 1 else ''} of masked gradients"
    return (
        f"{figures['clean']:.1%} of {figures['images']:,} images are right, "
        f"{figures['full']:.1%} under PGD-{figures['attack']['steps']} at "
        f"{NORMS[figures['norm']]} epsilon {figures['epsilon']:.3g}; {believed}."
    )


def table(figures: Mapping[str, Any]) -> str:
    """The curve, for the terminal."""
    rows = [["epsilon", "x 255", "accuracy", "error", "success"]]
    for one in figures["curve"]:
        rows.append(
            [
                f"{one['epsilon']:.4g}",
                f"{255 * one['epsilon']:.3g}",
                f"{one['accuracy']:.3f}",
                f"{one['error']:.3f}",
                f"{one['success']:.3f}",
            ]
        )
    signs = [f"masked gradients: {one}." for one in figures["masked"]]
    return "\n".join([columns(rows), *signs])


def checks(found: AttackFindings) -> list[dict[str, Any]]:
    """Each check with its figure and what would speak for masked gradients."""
    full = f"below {found.full:.3f}, the accuracy under the attack"
    rows: list[tuple[str, float, str]] = [
        ("no bound on the attack", found.unbounded, f"above {NEAR_ZERO:g}")
    ]
    before = None
    for one in found.steps:
        name = f"{one.steps} step{'s' if one.steps > 1 else ''} of the same size"
        sign = f"above {before.accuracy:.3f}, that of fewer steps" if before else ""
        rows.append((name, one.accuracy, sign))
        before = one
    rows += [
        ("one step of epsilon (FGSM)", found.single_step, full),
        (f"noise: the worst of {DRAWS} random points", found.noise, full),
    ]
    rows += [(f"attacked through {t.source}", t.accuracy, full) for t in found.transfers]
    named = ("check", "accuracy", "speaks for masking")
    return [dict(zip(named, row, strict=True)) for row in rows]


def context(found: AttackFindings) -> Mapping[str, Any]:
    """What page.html shows."""
    attack = found.attack
    norm, x = NORMS[attack.norm], np.array([one.epsilon for one in found.curve])
    y = np.array([one.accuracy for one in found.curve])
    error = np.array([one.error for one in found.curve])
    lines = [
        Series(f"PGD-{attack.steps}", x, y),
        Series("a standard error above", x, np.minimum(y + error, 1), dashed=True, colour=4),
        Series("and below", x, np.maximum(y - error, 0), dashed=True, colour=4),
        Series("chance", x, np.full_like(x, found.chance), dashed=True, colour=1),
    ]
    numbers = [
        {
            "value": f"{found.clean:.1%}",
            "of": "",
            "text": f"of {found.images:,} images right without attack",
        },
        {
            "value": f"{found.full:.1%}",
            "of": "",
            "text": f"under PGD with {attack.steps} steps at {norm} epsilon {attack.epsilon:.3g}",
        },
        {"value": f"{len(found.masked)}", "of": "", "text": "signs of masked gradients"},
    ]
    rows = [[f"{v:.3f}" if isinstance(v, float) else v for v in c.values()] for c in checks(found)]
    return {
        "lead": "How often does a small change of the pixels, chosen by the network's own "
        "gradients, make it wrong?",
        "numbers": numbers,
        "chart": chart(
            lines, Axis(f"epsilon ({norm}, pixels in 0..1)"), Axis("accuracy", from_zero=True)
        ),
        "curve": [
            [
                f"{s.epsilon:.4g}",
                f"{255 * s.epsilon:.3g}",
                f"{s.accuracy:.3f}",
                f"{s.error:.3f}",
                f"{s.success:.3f}",
            ]
            for s in found.curve
        ],
        "checks": rows,
        "masked": found.masked,
        "no_gradient": f"{found.no_gradient:.1%}",
        "transfers": [[t.source, f"{t.own:.3f}", f"{t.accuracy:.3f}"] for t in found.transfers],
        "method": [
            f"PGD takes {attack.steps} steps from a random point of the ball, each of "
            f"{attack.step:.3g} in the norm {norm}, and is clipped to the ball and to pixels in "
            "0..1. Of all steps the one with the highest loss counts. The curve scales the steps "
            "with epsilon; the checks keep their size.",
            "Errors are binomial standard errors over images. A check speaks for masked gradients "
            "if it passes its limit by two of them.",
        ],
        "caveats": [
            "An attack gives an upper bound of robustness: a stronger one may find more.",
            "The images are a sample, and the random starts have one seed.",
        ],
    }
