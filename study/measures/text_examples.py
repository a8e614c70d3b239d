"""Examples of text in which chosen latents are active, or silent.

One pass over a store keeps where the latents are active. Examples are then cut around the
strongest tokens of every context, so that no two examples of a latent overlap.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64

from tendril.data import order
from tendril.data.store.paired import PairedStores
from tendril.data.store.reader import Store
from tendril.models.dictionaries.sae import SAE

from ..core.stores import StoredText
from .image_examples import BLOCK, spread_blocks
from .latent_activity import encoded

AHEAD = 0.75
"""Fraction of an example that comes before its peak: a causal model has read only that."""


@final
@dataclass(frozen=True)
class Firing:
    """Where some latents are active in a text: latent number m of `latents` has `values[m]` at
    `places[m]`, which count positions over the contexts that were read, `contexts_C`."""

    text: StoredText
    contexts_C: Int64[np.ndarray, " c"]
    latents: tuple[int, ...]
    places: Sequence[Int64[np.ndarray, " _"]]
    values: Sequence[Float32[np.ndarray, " _"]]

    @property
    def padding_CT(self) -> Bool[np.ndarray, "c t"]:
        """True for the positions of the contexts that were read that are padding."""
        padding_CT: Bool[np.ndarray, "c t"] = self.text.documents_BT[self.contexts_C] < 0
        return padding_CT

    def dense(self, member: int) -> Float32[np.ndarray, "c t"]:
        """The activations of one latent; 0 where the row is not valid."""
        shape = (len(self.contexts_C), self.text.tokens_BT.shape[1])
        dense_CT = np.zeros(shape, np.float32)
        dense_CT.reshape(-1)[self.places[member]] = self.values[member]
        return dense_CT


@final
@dataclass(frozen=True)
class TextExample:
    """Tokens of one context from position `start` on, the latent's activation at each, and which
    of them are valid rows (special tokens are not)."""

    context: int
    start: int
    tokens: tuple[int, ...]
    values: tuple[float, ...]
    valid: tuple[bool, ...]

    @property
    def peak(self) -> float:
        """The strongest activation."""
        return max(self.values)

    def marks(self, fraction: float) -> tuple[bool, ...]:
        """True for tokens with an activation of at least `fraction` of the example's peak."""
        least = fraction * self.peak
        return tuple(value > 0 and value >= least for value in self.values)


def firing_of(
    store: Store | PairedStores,
    sites: Sequence[str],
    text: StoredText,
    dictionary: SAE,
    latents: Sequence[int],
    device: torch.device,
    block: int = BLOCK,
) -> Firing:
    """Where `latents` are active, from one pass over the rows of `sites`, side by side.

    Whole contexts are read; of more than a million rows, blocks of about `block` rows spread
    evenly. Memory grows with how often the latents are active and not with the store.
    """
    length = text.tokens_BT.shape[1]
    step = max(block // length, 1) * length
    blocks = [
        np.arange(start // length, min(start + step, store.rows) // length)
        for start in spread_blocks(store.rows, step)
    ]
    contexts_C = np.concatenate(blocks)
    chosen = torch.tensor(list(latents), device=device)
    places: list[list[np.ndarray]] = [[] for _ in latents]
    values: list[list[np.ndarray]] = [[] for _ in latents]
    read = 0
    for _, z_NS in encoded(store, sites, dictionary, text.valid_BT, contexts_C, device):
        z_NM = z_NS.index_select(1, chosen).cpu().numpy()
        for m in range(len(latents)):
            on = np.flatnonzero(z_NM[:, m] > 0)
            places[m].append(read + on)
            values[m].append(z_NM[on, m])
        read += len(z_NM)
    return Firing(
        text,
        contexts_C,
        tuple(latents),
        [np.concatenate(parts) for parts in places],
        [np.concatenate(parts) for parts in values],
    )


def active_places(
    dense_CT: Float32[np.ndarray, "c t"], length: int
) -> tuple[Int64[np.ndarray, "n 2"], Float32[np.ndarray, " n"]]:
    """(context, start) of activating examples of `length` tokens, and their peaks, strongest
    first.

    In each context the strongest token is taken, then the strongest one whose example overlaps
    none taken before, until there is none.
    """
    whole = dense_CT.shape[1]
    assert 1 <= length <= whole, (length, whole)
    left = dense_CT.copy()
    starts_T = np.clip(np.arange(whole) - int(length * AHEAD), 0, whole - length)
    places, peaks = [], []
    while True:
        at_C = left.argmax(axis=1)
        here = np.flatnonzero(left[np.arange(len(left)), at_C] > 0)
        if not len(here):
            break
        start_N = starts_T[at_C[here]]
        inside_NL = start_N[:, None] + np.arange(length)
        places.append(np.stack([here, start_N], axis=1))
        peaks.append(dense_CT[here[:, None], inside_NL].max(axis=1))
        left[here] *= np.abs(starts_T - start_N[:, None]) >= length
    if not places:
        return np.zeros((0, 2), np.int64), np.zeros(0, np.float32)
    place_N2, peak_N = np.concatenate(places), np.concatenate(peaks)
    ranked = np.lexsort((place_N2[:, 1], place_N2[:, 0], -peak_N))
    return place_N2[ranked], peak_N[ranked]


def silent_places(
    dense_CT: Float32[np.ndarray, "c t"], length: int, count: int, *key: int
) -> Int64[np.ndarray, "n 2"]:
    """(context, start) of at most `count` examples, one a context, in which the latent is active
    nowhere. They are drawn at random, a pure function of `key`."""
    sums = np.pad((dense_CT > 0).cumsum(axis=1), ((0, 0), (1, 0)))
    free = sums[:, length:] == sums[:, :-length]
    contexts = np.flatnonzero(free.any(axis=1))
    drawn = contexts[order.sample(len(contexts), count, *key)]
    fractions = order.uniform(len(drawn), *key, 1)
    starts = [
        (open_ := np.flatnonzero(free[c]))[int(fraction * len(open_))]
        for c, fraction in zip(drawn, fractions, strict=True)
    ]
    return np.stack([drawn, np.array(starts, np.int64)], axis=1)


def cut(
    firing: Firing,
    dense_CT: Float32[np.ndarray, "c t"],
    places: Int64[np.ndarray, "n 2"],
    length: int,
) -> list[TextExample]:
    """The examples at those places."""
    examples = []
    for row, start in places.tolist():
        context = int(firing.contexts_C[row])
        text = length - int(firing.padding_CT[row, start : start + length].sum())  # padding is last
        span = slice(start, start + text)
        examples.append(
            TextExample(
                context,
                start,
                tuple(firing.text.tokens_BT[context, span].tolist()),
                tuple(dense_CT[row, span].tolist()),
                tuple(firing.text.valid_BT[context, span].tolist()),
            )
        )
    return examples


@final
@dataclass(frozen=True)
class LatentExamples:
    """Examples of one latent: those `shown` to an explainer, and others on which its explanation
    is tested, `active` by falling peak and as many `silent`. `found` is the number of activating
    examples in the text, `maximum` the highest peak."""

    latent: int
    found: int
    maximum: float
    shown: Sequence[TextExample]
    active: Sequence[TextExample]
    silent: Sequence[TextExample]


def examples_of(
    firing: Firing,
    member: int,
    length: int,
    *,
    shown: int,
    top: int,
    tested: int,
    min_peak: float,
    seed: int,
) -> LatentExamples:
    """Draw the examples of one latent, a pure function of `seed` and the latent.

    `shown` examples come from the `top` strongest. The others, by falling peak, are cut into
    `tested` quantiles, and one is drawn from each. An example whose peak is below `min_peak`
    times the latent's maximum counts neither as active nor as silent. Source: Cunningham et al.
    (2309.08600), five of the top twenty; Paulo et al. (2410.13928), quantiles and random silent
    ones.
    """
    latent, dense_CT = firing.latents[member], firing.dense(member)
    length = min(length, dense_CT.shape[1])
    place_N2, peak_N = active_places(dense_CT, length)
    maximum = float(peak_N[0]) if len(peak_N) else 0.0
    place_N2 = place_N2[peak_N >= min_peak * maximum]
    pool = min(top, len(place_N2))
    seen = order.sample(pool, shown, seed, latent, 1)
    held = np.setdiff1d(np.arange(len(place_N2)), seen)
    count = min(tested, len(held))
    parts = np.array_split(held, count) if count else []
    fractions = order.uniform(count, seed, latent, 2)
    active = [int(p[int(u * len(p))]) for p, u in zip(parts, fractions, strict=True)]
    taken_CT = np.where(firing.padding_CT, np.float32(1), dense_CT)  # no example is padding
    silent = silent_places(taken_CT, length, count, seed, latent, 3)
    return LatentExamples(
        latent,
        len(place_N2),
        maximum,
        cut(firing, dense_CT, place_N2[seen], length),
        cut(firing, dense_CT, place_N2[active], length),
        cut(firing, dense_CT, silent, length),
    )
