"""What the page shows of a steered vision network."""

from collections.abc import Sequence
from typing import Any

from ..page.svg import data_url
from .page import RANDOM, Figures, edit_words, strength_chart, strength_word, summary
from .words import best

LARGEST = 160  # pixels of a picture on the page


def context(findings: Figures) -> dict[str, Any]:
    """What page.html shows."""
    findings = {**best(findings), **findings}
    chosen = (
        "The latents were chosen because the images that excite them most get similar answers "
        "(the highest mean cosine of logits), so an effect is expected of them rather than of the "
        "average latent."
    )
    where = "all positions of the site"
    if findings["patch"]:
        top, left, height, width = findings["patch"]
        where = (
            f"a patch of {height} x {width} of the {' x '.join(map(str, findings['grid']))} "
            f"positions, from row {top} and column {left}"
        )
    return {
        "kind": "images",
        "lead": "A latent is forced on while the network looks at photographs. Which answers do "
        "they get instead?",
        "numbers": _tiles(findings),
        "heads": [
            "latent", "strength", "own classes", "unedited", "random", "first answer", "random",
            "answers changed", "random", "KL", "random",
        ],
        "rows": summary(findings, ("kept", "changed", "kl")),
        "sections": [_section(findings, latent) for latent in findings["latents"]],
        "method": [
            f"Dictionary: run {findings['run']} at {findings['site']} of {findings['subject']}. "
            + edit_words(findings),
            f"Edited are {where}. " + RANDOM,
            "The photographs are held out of training, drawn at random, and none of those that "
            "excite a latent most. Own classes are the network's first answers to the eight images "
            "that excite the latent most; the figure is the sum of their probabilities. First "
            "answer: the probability of the class that comes first unedited. KL(plain ‖ edited) is "
            "in nats. All are means over photographs.",
        ],
        "caveats": [
            *([chosen] if findings["chosen"] else []),
            "An edit at all positions is unlike any image: at high strengths the site leaves the "
            "range of the vectors that the network has seen.",
            "With few photographs the means are uncertain.",
        ],
    }  # fmt: skip


def _tiles(findings: Figures) -> list[dict[str, str]]:
    one = findings["latents"].get(str(findings["best_latent"]))
    if one is None:
        return []
    step = next(s for s in one["strengths"] if s["strength"] == findings["best_strength"])
    name = f"latent {findings['best_latent']} at {step['strength']:g} times its maximum"
    return [
        {
            "value": f"{step['latent']['own']:.2f}",
            "of": "",
            "text": f"probability of the latent's own classes, {name}",
        },
        {
            "value": f"{one['unedited']['own']:.2g}",
            "of": "",
            "text": f"unedited; {step['random']['own']:.2g} along random directions",
        },
        {
            "value": f"{100 * step['latent']['changed']:.0f} %",
            "of": "",
            "text": f"of first answers change; {100 * step['random']['changed']:.0f} % along "
            "random directions",
        },
    ]


def _section(findings: Figures, latent: str) -> dict[str, Any]:
    one, pixels = findings["latents"][latent], findings["pixels"]
    return {
        "latent": latent,
        "about": f"Active in {100 * one['images']:.2g} % of images, at most {one['max']:.3g}.",
        "classes": one["classes"],
        "examples": [data_url(pixels[i], "JPEG", LARGEST) for i in one["examples"]],
        "charts": [
            strength_chart(findings, one, "own", "probability of own classes"),
            strength_chart(findings, one, "kl", "KL (nats)"),
        ],
        "moved": [
            {
                "strength": strength_word(step["strength"], step["value"]),
                "sides": [
                    {"name": "latent", "classes": _moved(step["moved"])},
                    {"name": "random direction", "classes": _moved(step["random_moved"])},
                ],
            }
            for step in one["strengths"]
        ],
        "photographs": [
            {
                "picture": data_url(pixels[photograph["number"]], "JPEG", LARGEST),
                "name": photograph["name"],
                "lines": [
                    {"strength": "unedited", "latent": _answers(photograph["answers"]),
                     "random": []},
                    *(
                        {
                            "strength": strength_word(step["strength"], step["value"]),
                            "latent": _answers(step["answers"][number]),
                            "random": _answers(step["random_answers"][number]),
                        }
                        for step in one["strengths"]
                    ),
                ],
            }
            for number, photograph in enumerate(findings["photographs"])
        ],
    }  # fmt: skip


def _answers(answers: Sequence[Sequence[Any]]) -> list[dict[str, str]]:
    return [{"class": name, "p": f"{p:.2f}", "width": f"{100 * p:.0f}"} for name, p in answers]


def _moved(classes: Sequence[Sequence[Any]]) -> list[dict[str, str]]:
    return [
        {"class": name, "change": f"{change:+.3f}", "width": f"{100 * min(abs(change), 1):.1f}",
         "kind": "rises" if change > 0 else "falls"}
        for name, change in classes
    ]  # fmt: skip
