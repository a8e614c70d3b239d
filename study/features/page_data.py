"""The data of the page of features, in files of their own, so that it opens at once.

data/index.js     what the list, search and order need of every latent
data/000.js ...   all else of 128 latents each, asked for when one of them is looked at

A file is one call of a function with JSON, because a page that is opened from a disk may load
scripts and nothing else. Numbers of all latents are little-endian arrays in base64.
"""

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64, Shaped
from torch import Tensor

from tendril.data.store.atomic import write_whole

from .findings import Example, FeatureFindings, short

PIECE = 128  # latents a file
THOUSAND = 1000  # activations are told in thousandths of the latent's largest
NOT_COUNTED = -1


def write_data(found: FeatureFindings, folder: Path) -> dict[str, int]:
    """Write index and pieces. Returns bytes: of the index, of all, of the largest piece."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.js"):
        old.unlink()
    place = places(found)
    index = write_index(found, place, folder)
    numbers = range(-(-found.latents // PIECE))
    sizes = [write_piece(found, number, place, folder) for number in numbers]
    return {
        "bytes_index": index,
        "bytes_largest_piece": max(sizes),
        "bytes_data": index + sum(sizes),
    }


def write_index(found: FeatureFindings, place: Int64[np.ndarray, " v"], folder: Path) -> int:
    """data/index.js; returns its bytes."""
    content = _script("features.index", index_of(found, place))
    write_whole(folder / "index.js", content)
    return len(content)


def write_piece(
    found: FeatureFindings, number: int, place: Int64[np.ndarray, " v"], folder: Path
) -> int:
    """One file of PIECE latents; returns its bytes."""
    latents = range(number * PIECE, min((number + 1) * PIECE, found.latents))
    piece = [latent_of(found, latent, place) for latent in latents]
    content = _script("features.piece", number, piece)
    write_whole(folder / f"{number:03d}.js", content)
    return len(content)


def places(found: FeatureFindings) -> Int64[np.ndarray, " v"]:
    """Token id -> its place among the tokens that the page shows, from 1 on; 0 is none."""
    shown = [np.unique(found.text.tokens_BT)]
    if found.promoted:
        shown += [np.unique(t.numpy()) for t in (found.promoted.up_SP, found.promoted.down_SP)]
    tokens = np.unique(np.concatenate(shown))
    place = np.zeros(len(found.text_of), np.int64)
    place[tokens] = np.arange(1, len(tokens) + 1)
    return place


def index_of(found: FeatureFindings, place: Int64[np.ndarray, " v"]) -> dict[str, Any]:
    """What is needed of every latent at once."""
    activity = found.activity
    _, cosines = found.neighbours
    peaks = np.zeros((found.latents, activity.top.count), np.int64)
    for latent in range(found.latents):
        tokens = found.peak_tokens(latent)
        peaks[latent, : len(tokens)] = place[tokens]
    nearest = cosines[:, 0].numpy() if cosines.numel() else np.zeros(found.latents)
    return {
        "latents": found.latents,
        "piece": PIECE,
        "rows": activity.rows,
        "length": activity.length,
        "tokens": ["", *(found.text_of[t] for t in np.flatnonzero(place))],
        "frequency": _floats(activity.frequency_S),
        "max": _floats(activity.max_S),
        "nearest": _floats(nearest),
        "fires": _tokens(peaks),
        "promotes": _tokens(place[found.promoted.up_SP.numpy()]) if found.promoted else None,
    }


def latent_of(
    found: FeatureFindings, latent: int, place: Int64[np.ndarray, " v"]
) -> dict[str, Any]:
    """All else that the page shows of a latent."""
    activity = found.activity
    histogram = activity.histogram_SH[latent]
    full = np.flatnonzero(histogram)
    first, last = (int(full[0]), int(full[-1])) if len(full) else (0, -1)
    highest = float(activity.max_S[latent])
    numbers, cosines = found.neighbours
    told: dict[str, Any] = {
        "fired": int(activity.fired_S[latent]),
        "mean": short(activity.mean_S[latent]),
        "norm": short(found.norm_S[latent]),
        "histogram": [first, *histogram[first : last + 1].tolist()],
        "neighbours": _pairs(numbers[latent].tolist(), cosines[latent]),
        "strongest": [_example(e, highest, place) for e in found.strongest(latent)],
        "weaker": [_example(e, highest, place) for e in found.weaker(latent)],
    }
    if found.promoted:
        made = found.promoted
        up, down = made.up_SP[latent].numpy(), made.down_SP[latent].numpy()
        told["up"] = _pairs(place[up].tolist(), made.up_weight_SP[latent])
        told["down"] = _pairs(place[down].tolist(), made.down_weight_SP[latent])
    return told


def _example(example: Example, highest: float, place: Int64[np.ndarray, " v"]) -> list[Any]:
    """[context, position, document, value, at, tokens, activations, borders, level]."""
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
    """Activations in thousandths of the largest, what is on at least 1; NaN is -1."""
    counted = ~np.isnan(acts)
    parts = np.rint(np.where(counted, acts, 0) / (highest or 1.0) * THOUSAND).astype(np.int64)
    parts[(acts > 0) & (parts == 0)] = 1
    return np.where(counted, parts, NOT_COUNTED)


def _pairs(numbers: list[int], weights: Float32[Tensor, " n"]) -> list[tuple[int, float]]:
    return [(n, short(w)) for n, w in zip(numbers, weights.tolist(), strict=True)]


def _floats(values: Shaped[np.ndarray, " s"]) -> str:
    return _base64(values.astype("<f4"))


def _tokens(places: Int64[np.ndarray, "s n"]) -> dict[str, Any]:
    size = 2 if int(places.max(initial=0)) < 2**16 else 4
    return {"each": places.shape[1], "bytes": size, "data": _base64(places.astype(f"<u{size}"))}


def _base64(values: Shaped[np.ndarray, "..."]) -> str:
    return base64.b64encode(values.tobytes()).decode()


def _script(function: str, *arguments: Any) -> bytes:
    """A call as JavaScript. JSON is such, but for lone halves of letters, which are escaped."""
    text = ",".join(_json(argument) for argument in arguments)
    return f"{function}({text});\n".encode("utf-8", "backslashreplace")


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
