"""The page of features: the data of its latents, and the words around their list.

data/index.js     what the list, its search and its order need of every latent
data/000.js ...   the rest, 128 latents a file, loaded when one of them is shown

The data has files of its own so that the page opens at once. Each file is one call of a function
with JSON, because a page that is opened from a disk may load only scripts. Numbers of all latents
are little-endian arrays in base64.
"""

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64, Shaped
from torch import Tensor

from tendril.data.store.atomic import check_not_link, write_whole

from ..measures.latent_activity import SAMPLE, Activity
from .findings import DENSE, Example, FeatureFindings, short

PIECE = 128  # latents a file
THOUSAND = 1000  # activations are written in thousandths of the latent's largest
NOT_COUNTED = -1


def context(findings: FeatureFindings) -> dict[str, Any]:
    """What page.html shows; its latents are in `data/` beside it."""
    return {
        "pictures": False,
        "classes": False,
        "moran": False,
        "unit": "token",
        "lead": lead(findings),
        "numbers": numbers(findings),
        "logits": findings.promoted is not None,
        "reading": reading(findings),
        "method": method(findings),
        "caveats": caveats(findings),
    }


def lead(findings: FeatureFindings) -> str:
    """The first sentences: what the page shows, and from which text."""
    promoted = "the tokens it promotes, " if findings.promoted else ""
    return (
        f"The {findings.latents:,} latents of the dictionary {findings.run}: for each one the text "
        f"on which it is active, {promoted}and the latents most like it. From "
        f"{findings.activity.rows:,} tokens in {findings.contexts:,} contexts of {findings.store}."
    )


def numbers(findings: FeatureFindings) -> list[dict[str, str]]:
    """The figures at the top of the page, each with what it means."""
    nearest = findings.figures["nearest_median"]
    text = "is the median cosine of a decoder row with its nearest neighbour"
    return [
        *activity_tiles(findings.activity, findings.figures, "token"),
        tile("none" if nearest is None else f"{nearest:.2f}", "", text),
    ]


def activity_tiles(
    activity: Activity, figures: Mapping[str, Any], unit: str
) -> list[dict[str, str]]:
    """How many latents are active, and how often, per `unit` (token or position)."""
    frequency = activity.frequency_S[activity.fired_S > 0]
    median = f"{100 * np.median(frequency):.2g} %" if len(frequency) else "none"
    total = figures["latents_total"]
    dense = f"latents are active on more than {100 * DENSE:g} % of {unit}s"
    return [
        tile(
            f"{total - figures['latents_never_on']:,}",
            f"of {total:,}",
            f"latents are active on some {unit}",
        ),
        tile(f"{figures['l0']:.3g}", "", f"latents are active on a {unit}, on average"),
        tile(median, "", f"of {unit}s activate the median latent"),
        tile(f"{figures['latents_dense']:,}", "", dense),
    ]


def tile(value: str, of: str, text: str) -> dict[str, str]:
    """A figure, what it is of, and what it means."""
    return {"value": value, "of": of, "text": text}


def reading(findings: FeatureFindings) -> list[str]:
    """How to read the parts of the page."""
    activity = findings.activity
    promoted = " and in those that it promotes" if findings.promoted else ""
    parts = [
        "The list: click a column's head to sort by it, and again to reverse the order. Search "
        "finds text in the tokens that a latent fires on (the peaks of its strongest contexts)"
        f"{promoted}; text in quotation marks must be the whole token, and a number finds the "
        "latent of that number. Keys: j and k move down and up the list, / goes to the search. "
        "The page's address (#latent=12) is a link to the latent shown.",
        "Text: the darker a token's background, the higher the latent's activation, relative to "
        "its maximum. The framed token is the one that the example is about; its activation is on "
        "the left. ↵ is a line break, ⇥ a tab, · a leading space, and \\x.. part of a character. A "
        "mark shows where another document begins; the network sees across it, unless the text was "
        "harvested with --document-mask. Faint tokens "
        "(special ones, or those that the harvest skipped) are not counted. Hover over a token to "
        "see its activation.",
        "Activations: how many tokens have which activation, on a logarithmic axis with four bars "
        "an octave. Zeros are left out; “active on” gives the fraction of tokens that are not "
        "zero.",
        f"Strongest examples: the {activity.top.count} contexts with the largest activations, one "
        "token a context."
        + (
            " Weaker examples: the percentages are quantiles of the activations above zero, "
            f"estimated from {SAMPLE} tokens of each latent, drawn evenly from all on which it is "
            "active."
            if activity.sample
            else ""
        ),
        "Nearest in the decoder: the latents whose decoder rows have the highest cosine with this "
        "one's, and the tokens they fire on.",
    ]
    if findings.promoted:
        parts.append(
            "Promotes, suppresses: logit weights, the change of each token's logit by the latent's "
            "direction alone, relative to the mean over the vocabulary. All directions are scaled "
            "to one length, so weights of different latents can be compared."
        )
    return parts


def method(findings: FeatureFindings) -> list[str]:
    """How the figures were computed."""
    part = {"all": "All contexts", "train": "The contexts of the training set"}.get(
        findings.part, "The contexts held out of training"
    )
    parts = [
        f"{part} of the store were read once ({findings.contexts:,} contexts) and encoded by the "
        "trained dictionary. A latent is active on a token if its activation there is above zero. "
        "Frequencies, histograms, maxima and strongest examples are exact: they come from all of "
        "these tokens.",
    ]
    if findings.promoted:
        last = (
            f" {findings.note}"
            if findings.note
            else f" Of several sites the last one counts, {findings.sites[-1]}."
            if len(findings.sites) > 1
            else ""
        )
        parts.append(
            "Logit weights are W_U · N(v) minus its mean over the vocabulary. v is the latent's "
            "decoder row scaled to a root mean square of 1. N is the model's final norm without "
            f"its bias: its scale times v, where for a LayerNorm v is first centred.{last}"
        )
    else:
        parts.append(findings.note)
    parts.append(
        f"The data of the latents lies in data/, {PIECE} latents a file, and is loaded when one of "
        "them is shown; the list draws only the rows that are visible."
    )
    return parts


def caveats(findings: FeatureFindings) -> list[str]:
    """What the numbers do not say."""
    parts = [
        "The strongest examples show what activates a latent most, and little of what it does at "
        "its usual strength. Look at the weaker examples too.",
        "A latent that is never active here may be active on other text.",
        "A high cosine between two decoder rows means that the latents write alike. They need not "
        "be active together.",
    ]
    if findings.promoted:
        parts.append(
            "Logit weights follow the direct path from the site to the logits. They leave out what "
            "later blocks do with the latent, which at early sites may be most of its effect."
        )
    if findings.part == "all":
        parts.append(
            "Most of these contexts were trained on; --part held_out reads only the others."
        )
    return parts


def write_data(findings: FeatureFindings, folder: Path) -> None:
    """Write the index and the pieces, in place of those that are there.

    Raises ConfigError if the folder is a symbolic link.
    """
    clear(folder)
    place = places(findings)
    write_index(findings, place, folder)
    for number in range(-(-findings.latents // PIECE)):
        write_piece(findings, number, place, folder)


def write_index(findings: FeatureFindings, place: Int64[np.ndarray, " v"], folder: Path) -> int:
    """data/index.js; returns its bytes."""
    content = script("features.index", index_of(findings, place))
    write_whole(folder / "index.js", content)
    return len(content)


def clear(folder: Path) -> None:
    """Make the folder of the data, without data of an earlier page in it."""
    check_not_link(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.js"):
        if old.stem == "index" or old.stem.isdigit():
            old.unlink()


def write_piece(
    findings: FeatureFindings, number: int, place: Int64[np.ndarray, " v"], folder: Path
) -> int:
    """One file of PIECE latents; returns its bytes."""
    latents = range(number * PIECE, min((number + 1) * PIECE, findings.latents))
    piece = [latent_of(findings, latent, place) for latent in latents]
    content = script("features.piece", number, piece)
    write_whole(folder / f"{number:03d}.js", content)
    return len(content)


def places(findings: FeatureFindings) -> Int64[np.ndarray, " v"]:
    """Token id -> its number among the tokens that the page shows, from 1 on; 0 for others."""
    shown = [np.unique(findings.text.tokens_BT)]
    if findings.promoted:
        shown += [
            np.unique(t.numpy()) for t in (findings.promoted.up_SP, findings.promoted.down_SP)
        ]
    tokens = np.unique(np.concatenate(shown))
    place = np.zeros(len(findings.text_of), np.int64)
    place[tokens] = np.arange(1, len(tokens) + 1)
    return place


def index_of(findings: FeatureFindings, place: Int64[np.ndarray, " v"]) -> dict[str, Any]:
    """What the list needs of all latents."""
    activity = findings.activity
    _, cosines = findings.neighbours
    peaks = np.zeros((findings.latents, activity.top.count), np.int64)
    for latent in range(findings.latents):
        tokens = findings.peak_tokens(latent)
        peaks[latent, : len(tokens)] = place[tokens]
    nearest = cosines[:, 0].numpy() if cosines.numel() else np.zeros(findings.latents)
    return {
        "latents": findings.latents,
        "piece": PIECE,
        "rows": activity.rows,
        "length": activity.length,
        "tokens": ["", *(findings.text_of[t] for t in np.flatnonzero(place))],
        "frequency": floats(activity.frequency_S),
        "max": floats(activity.max_S),
        "nearest": floats(nearest),
        "fires": numbers_of(peaks),
        "promotes": numbers_of(place[findings.promoted.up_SP.numpy()])
        if findings.promoted
        else None,
    }


def latent_of(
    findings: FeatureFindings, latent: int, place: Int64[np.ndarray, " v"]
) -> dict[str, Any]:
    """The rest that the page shows of one latent."""
    activity = findings.activity
    histogram = activity.histogram_SH[latent]
    full = np.flatnonzero(histogram)
    first, last = (int(full[0]), int(full[-1])) if len(full) else (0, -1)
    highest = float(activity.max_S[latent])
    numbers, cosines = findings.neighbours
    entry: dict[str, Any] = {
        "fired": int(activity.fired_S[latent]),
        "mean": short(activity.mean_S[latent]),
        "norm": short(findings.norm_S[latent]),
        "histogram": [first, *histogram[first : last + 1].tolist()],
        "neighbours": pairs(numbers[latent].tolist(), cosines[latent]),
        "strongest": [_example(e, highest, place) for e in findings.strongest(latent)],
        "weaker": [_example(e, highest, place) for e in findings.weaker(latent)],
    }
    if findings.promoted:
        weights = findings.promoted
        up, down = weights.up_SP[latent].numpy(), weights.down_SP[latent].numpy()
        entry["up"] = pairs(place[up].tolist(), weights.up_weight_SP[latent])
        entry["down"] = pairs(place[down].tolist(), weights.down_weight_SP[latent])
    return entry


def _example(example: Example, highest: float, place: Int64[np.ndarray, " v"]) -> list[Any]:
    """[context, position, document, value, at, tokens, activations, borders, level], which
    features.js takes apart again."""
    return [
        example.context,
        example.position,
        example.document,
        short(example.value),
        example.at,
        place[example.tokens].tolist(),
        thousandths(example.acts, highest).tolist(),
        example.borders,
        example.level,
    ]


def thousandths(acts: Float32[np.ndarray, " w"], highest: float) -> Int64[np.ndarray, " w"]:
    """Activations in thousandths of the largest, at least 1 where they are above zero; -1 for
    NaN."""
    counted = ~np.isnan(acts)
    parts = np.rint(np.where(counted, acts, 0) / (highest or 1.0) * THOUSAND).astype(np.int64)
    parts[(acts > 0) & (parts == 0)] = 1
    return np.where(counted, parts, NOT_COUNTED)


def pairs(numbers: list[int], weights: Float32[Tensor, " n"]) -> list[tuple[int, float]]:
    return [(n, short(w)) for n, w in zip(numbers, weights.tolist(), strict=True)]


def floats(values: Shaped[np.ndarray, " s"]) -> str:
    return base64_of(values.astype("<f4"))


def numbers_of(places: Int64[np.ndarray, "s n"]) -> dict[str, Any]:
    size = 2 if int(places.max(initial=0)) < 2**16 else 4
    return {"each": places.shape[1], "bytes": size, "data": base64_of(places.astype(f"<u{size}"))}


def base64_of(values: Shaped[np.ndarray, "..."]) -> str:
    return base64.b64encode(values.tobytes()).decode()


def script(function: str, *arguments: Any) -> bytes:
    """A call as JavaScript. JSON is JavaScript, except for lone surrogates, which are escaped."""
    text = ",".join(_json(argument) for argument in arguments)
    return f"{function}({text});\n".encode("utf-8", "backslashreplace")


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
