"""The page of features: what stands around the list of latents, in words."""

import json
from pathlib import Path

import numpy as np

from ..measures.latent_activity import SAMPLE
from ..page.render import render
from .findings import DENSE, FeatureFindings
from .page_data import PIECE


def render_page(found: FeatureFindings) -> str:
    """The page as HTML; its latents are in `data/` beside it."""
    return render(
        Path(__file__).parent,
        {
            "title": f"Features at {' + '.join(found.sites)} of {found.subject}",
            "lead": lead(found),
            "headline": headline(found),
            "logits": found.promoted is not None,
            "reading": reading(found),
            "method": method(found),
            "caveats": caveats(found),
            "command": found.command,
            "made": json.dumps(found.made, indent=2),
        },
    )


def lead(found: FeatureFindings) -> str:
    """What the page is of."""
    return (
        f"{found.latents:,} latents of the dictionary {found.run}: the text that each one is on "
        f"at, {'the tokens it promotes, ' if found.promoted else ''}and the latents nearest to it. "
        f"Read off {found.activity.rows:,} tokens in {found.contexts:,} contexts of {found.store}."
    )


def headline(found: FeatureFindings) -> list[dict[str, str]]:
    """The numbers on top."""
    activity, figures = found.activity, found.figures
    frequency = activity.frequency_S[activity.fired_S > 0]
    median = f"{100 * np.median(frequency):.2g} %" if len(frequency) else "none"
    alive = found.latents - figures["latents_never_on"]
    nearest = figures["nearest_median"]
    return [
        {"value": f"{alive:,}", "of": f"of {found.latents:,}", "text": "latents are ever on"},
        {
            "value": f"{figures['l0']:.3g}",
            "of": "",
            "text": "latents are on at a token, on average",
        },
        {"value": median, "of": "", "text": "of tokens: how often the middle one of them is on"},
        {
            "value": f"{figures['latents_dense']:,}",
            "of": "",
            "text": f"are on at more than {100 * DENSE:g} % of tokens",
        },
        {
            "value": "none" if nearest is None else f"{nearest:.2f}",
            "of": "",
            "text": "is the middle cosine of a latent's decoder row with its nearest other",
        },
    ]


def reading(found: FeatureFindings) -> list[str]:
    """How to read the parts of the page."""
    activity = found.activity
    told = [
        "The list: a click on a column's head orders by it, a second one the other way. Search "
        "finds text in the tokens that a latent fires on (the peaks of its strongest contexts)"
        + (" and in those that it promotes" if found.promoted else "")
        + "; in quotation marks the whole token, and a number the latent of that number. Keys j "
        "and k go down and up the list, / to the search. The address of the page (#latent=12) "
        "leads back to a latent.",
        "Text: the darker a token's ground, the higher the latent's activation, in parts of its "
        "largest one. The framed token is the one that the line is shown for, its activation to "
        "the left. ↵ is a line break, ⇥ a tab, · a leading space, \\x.. part of a letter. A mark "
        "shows where another document begins; the network sees across it. Faint tokens (special "
        "ones, or those that the harvest skipped) do not count. Rest on one for its activation.",
        "Activations: how many tokens have which activation, on a logarithmic axis, four bars an "
        "octave. Zeros are left out: “on at” tells how many tokens are not among them.",
        f"Where it is strongest: the {activity.top.count} contexts with the largest activations, "
        "one token a context. "
        + (
            f"Where it is weaker: the percentages are quantiles of the activations above zero, "
            f"read from {SAMPLE} tokens a latent that were drawn evenly from all that it is on at."
            if activity.sample
            else ""
        ),
        "Nearest in the decoder: the latents whose decoder rows have the highest cosine with this "
        "one's, and what they fire on.",
    ]
    if found.promoted:
        told.append(
            "Promotes, suppresses: logit weights, the change of each token's logit by the "
            "latent's direction alone, above the mean of the vocabulary. Directions are of one "
            "length, so that weights of different latents can be compared."
        )
    return told


def method(found: FeatureFindings) -> list[str]:
    """How the figures came to be."""
    part = {"all": "All contexts", "train": "The contexts trained on"}.get(
        found.part, "The contexts kept back from training"
    )
    told = [
        f"{part} of the store were read once, {found.contexts:,} of them, and encoded by the "
        f"dictionary as it is used after training; a token counts as on where its activation is "
        f"above zero. Frequencies, histograms, largest values and strongest contexts are of all "
        f"those tokens, none of them estimated.",
    ]
    if found.promoted:
        told.append(
            "Logit weights: W_U · N(v) less its mean over the vocabulary. v is the latent's "
            "decoder row scaled to root-mean-square 1, N the model's final norm without its bias: "
            "its scale times v, and where it is a LayerNorm of v less its mean."
            + (
                f" Of several sites, {found.sites[-1]} counts: the last one."
                if len(found.sites) > 1
                else ""
            )
        )
    else:
        told.append(found.note)
    told.append(
        f"What the page shows of a latent lies in data/, {PIECE} latents a file, and is loaded "
        "when one of them is looked at; the list itself draws only the rows that can be seen."
    )
    return told


def caveats(found: FeatureFindings) -> list[str]:
    """What the numbers do not say."""
    told = [
        "The strongest contexts say what a latent answers to most, and little of what it does at "
        "its usual strength: look at the weaker examples, too.",
        "A latent that was never on here may be on in other text.",
        "A high cosine between two decoder rows says that they write alike, and not that they "
        "are on together.",
    ]
    if found.promoted:
        told.append(
            "Logit weights follow the direct path from the site to the logits. What later blocks "
            "make of the latent they do not see; at early sites that may be most of it."
        )
    if found.part == "all":
        told.append(
            "Most of these contexts were trained on; --part held_out reads the others only."
        )
    return told
