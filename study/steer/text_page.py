"""What the page shows of a steered language model."""

from collections.abc import Sequence, Set
from typing import Any

from .page import (
    RANDOM,
    Figures,
    edit_words,
    strength_chart,
    strength_word,
    summary,
)
from .words import COHERENT, best, own

MOST_WORDS = 16


def context(findings: Figures) -> dict[str, Any]:
    """What page.html shows."""
    findings = {**best(findings), **findings}
    chosen = (
        "The latents were chosen because the tokens that follow the peaks of their activating "
        "examples are among those that their decoder rows promote, so success is expected of them "
        "rather than of the average latent."
    )
    return {
        "kind": "text",
        "lead": "A latent is forced on while the model writes. Do its continuations turn into what "
        "its activating examples promise, and what does that cost?",
        "numbers": _tiles(findings),
        "heads": [
            "latent", "strength", "own tokens", "unedited", "random", "promoted", "random",
            "active", "random", "surprise", "random", "KL", "random", "ΔCE", "random",
        ],
        "rows": summary(findings, ("promoted", "active", "surprise", "kl", "loss")),
        "sections": [_section(findings, latent) for latent in findings["latents"]],
        "method": [
            f"Dictionary: run {findings['run']} at {findings['site']} of {findings['subject']}. "
            + edit_words(findings),
            "Every position but the begin-of-text token is edited, in the prompt and as the text "
            "is written, with a key-value cache. Sampled continuations of one prompt draw the same "
            "random numbers with and without an edit. " + RANDOM,
            "Own tokens are those at the peaks of the latent's 20 strongest contexts, and those "
            "that follow a peak; the figure is the fraction of all tokens of the continuations "
            "that are among them, greedy and sampled ones together. Its chance level is that of "
            "the unedited continuations, and of random directions. Promoted: the fraction that are "
            "among the ten tokens with the largest logit weights of the decoder row. Active: the "
            "fraction of tokens on which the latent is active when the unedited model reads the "
            "continuation. Surprise: mean -log p of a token for the unedited model, in nats.",
            f"KL(clean ‖ edited) and the change of the cross-entropy (ΔCE) are means over next "
            f"tokens of {findings['text']}, {findings['contexts']:,} contexts, in nats.",
        ],
        "caveats": [
            *([chosen] if findings["chosen"] else []),
            f"The figures at the top are of the strength with the largest gain over both controls "
            f"among those with a KL of at most {COHERENT:g} nats, beyond which little is left of "
            "the text.",
            "A latent whose own tokens are many words has a high chance level: compare with the "
            "unedited continuations and random directions.",
            "Text can hold the latent's tokens and be no text any more: read the surprise, the KL "
            "and the continuations.",
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
            "value": f"{100 * (own(step['latent']) or 0):.0f} %",
            "of": "",
            "text": f"of the tokens are the latent's own, {name}",
        },
        {
            "value": f"{100 * (own(one['unedited']) or 0):.0f} %",
            "of": "",
            "text": f"unedited; {100 * (own(step['random']) or 0):.0f} % along random directions",
        },
        {
            "value": f"{step['latent']['kl']:.2f}",
            "of": "nats",
            "text": f"KL on held-out text; {step['random']['kl']:.2f} along random directions",
        },
    ]


def _section(findings: Figures, latent: str) -> dict[str, Any]:
    one = findings["latents"][latent]
    words = set(one["either"])
    return {
        "latent": latent,
        "about": f"Active on {100 * one['frequency']:.2g} % of tokens, at most {one['max']:.3g}.",
        "words": [
            {"name": name, "tokens": [_shown(t) for t in one[key][:MOST_WORDS]]}
            for name, key in (
                ("Peaks on", "peak"), ("Followed by", "following"), ("Promotes", "promotes")
            )
            if one[key]
        ],
        "examples": one["examples"],
        "charts": [
            strength_chart(findings, one, "either", "fraction of own tokens"),
            strength_chart(findings, one, "kl", "KL (nats)"),
        ],
        "prompts": [
            {
                "prompt": prompt,
                "greedy": _lines(findings, one, number, 0, words),
                "samples": [
                    _lines(findings, one, number, sample, words)
                    for sample in range(1, len(findings["plain"][number]))
                ],
            }
            for number, prompt in enumerate(findings["prompts"])
        ],
    }  # fmt: skip


def _lines(
    findings: Figures, one: Figures, prompt: int, sample: int, words: Set[str]
) -> list[dict[str, Any]]:
    """The unedited continuation, and one a strength, beside that along a random direction."""
    plain = findings["plain"][prompt][sample]
    found = [{"strength": "unedited", "latent": _pieces(plain, words), "random": []}]
    for step in one["strengths"]:
        found.append(
            {
                "strength": strength_word(step["strength"], step["value"]),
                "latent": _pieces(step["texts"][prompt][sample], words),
                "random": _pieces(step["random_texts"][prompt][sample], words),
            }
        )
    return found


def _pieces(tokens: Sequence[str], words: Set[str]) -> list[tuple[str, bool]]:
    """A text in pieces, each with whether it is made of the latent's own tokens."""
    found: list[tuple[str, bool]] = []
    for place, token in enumerate(tokens):
        is_own = token in words
        token = token if place else token.lstrip(" ")
        if found and found[-1][1] == is_own:
            found[-1] = (found[-1][0] + token, is_own)
        else:
            found.append((token, is_own))
    return found


def _shown(token: str) -> str:
    return token.replace("\n", "↵").replace("\t", "⇥")
