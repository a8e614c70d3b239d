"""Fragments of text in which latents are active, or silent.

One pass over a store keeps where the chosen latents are on; fragments are then cut about the
strongest tokens of every context, so that no two of a latent overlap.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from jaxtyping import Float32, Int64

from tendril.data import order
from tendril.data.store.reader import Store
from tendril.models.dictionaries.crosscoder import joined
from tendril.models.dictionaries.sae import SAE

from ..core.language_inputs import StoredText
from .image_examples import BLOCK, spread_blocks

AHEAD = 0.75
"""Where in a fragment its peak stands: a causal model has read only what is before it."""


@final
@dataclass(frozen=True)
class Firing:
    """Where some latents are on in a text: for latent number m of `latents`, its values at
    `places[m]`, which count positions over the contexts that were read, `contexts_C`."""

    text: StoredText
    contexts_C: Int64[np.ndarray, " c"]
    latents: tuple[int, ...]
    places: Sequence[Int64[np.ndarray, " _"]]
    values: Sequence[Float32[np.ndarray, " _"]]

    def dense(self, member: int) -> Float32[np.ndarray, "c t"]:
        """The activations of one latent; 0 where the row is not valid."""
        shape = (len(self.contexts_C), self.text.tokens_BT.shape[1])
        dense_CT = np.zeros(shape, np.float32)
        dense_CT.reshape(-1)[self.places[member]] = self.values[member]
        return dense_CT


@final
@dataclass(frozen=True)
class Fragment:
    """Tokens of one context from position `start` on, what the latent does at each, and which
    of them are valid rows (a special token is none)."""

    context: int
    start: int
    tokens: tuple[int, ...]
    values: tuple[float, ...]
    valid: tuple[bool, ...]

    @property
    def peak(self) -> float:
        """The strongest activation."""
        return max(self.values)

    def marks(self, share: float) -> tuple[bool, ...]:
        """The tokens that are active by at least `share` of the fragment's peak."""
        least = share * self.peak
        return tuple(value > 0 and value >= least for value in self.values)


@torch.inference_mode()
def firing_of(
    store: Store,
    sites: Sequence[str],
    text: StoredText,
    dictionary: SAE,
    latents: Sequence[int],
    device: torch.device,
    block: int = BLOCK,
) -> Firing:
    """Where `latents` are on, from one pass over the rows of `sites`, side by side.

    Whole contexts are read, about `block` rows at a time; of more than a million rows, blocks
    spread evenly. Memory grows with how often the latents fire, not with the store.
    """
    length = text.tokens_BT.shape[1]
    step = max(block // length, 1) * length
    chosen = torch.tensor(list(latents), device=device)
    dictionary = dictionary.to(device)
    contexts: list[np.ndarray] = []
    found: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in latents]
    read = 0
    for start in spread_blocks(store.rows, step):
        stop = min(start + step, store.rows)
        kept = np.flatnonzero(text.valid_BT.reshape(-1)[start:stop])
        rows = {s: torch.from_numpy(store.read(s, start + kept)).to(device) for s in sites}
        z_NM = dictionary.encode(joined(rows)).index_select(1, chosen).cpu().numpy()
        for m, parts in enumerate(found):
            on = np.flatnonzero(z_NM[:, m] > 0)
            parts.append((read + kept[on], z_NM[on, m]))
        contexts.append(np.arange(start // length, stop // length))
        read += stop - start
    return Firing(
        text,
        np.concatenate(contexts),
        tuple(latents),
        [np.concatenate([place for place, _ in parts]) for parts in found],
        [np.concatenate([value for _, value in parts]) for parts in found],
    )


def active_places(
    dense_CT: Float32[np.ndarray, "c t"], length: int
) -> tuple[Int64[np.ndarray, "n 2"], Float32[np.ndarray, " n"]]:
    """(context, start) of fragments of `length` tokens and their peaks, strongest first.

    In each context the strongest token is taken, then the strongest whose fragment does not
    overlap one already taken, until there is none.
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
    """(context, start) of at most `count` fragments, one a context, in which the latent is
    nowhere on: drawn at random, a pure function of `key`."""
    sums = np.pad((dense_CT > 0).cumsum(axis=1), ((0, 0), (1, 0)))
    free = sums[:, length:] == sums[:, :-length]
    contexts = np.flatnonzero(free.any(axis=1))
    drawn = contexts[order.sample(len(contexts), count, *key)]
    shares = order.uniform(len(drawn), *key, 1)
    starts = [
        (open_ := np.flatnonzero(free[c]))[int(share * len(open_))]
        for c, share in zip(drawn, shares, strict=True)
    ]
    return np.stack([drawn, np.array(starts, np.int64)], axis=1)


def cut(
    firing: Firing,
    dense_CT: Float32[np.ndarray, "c t"],
    places: Int64[np.ndarray, "n 2"],
    length: int,
) -> list[Fragment]:
    """The fragments at those places."""
    fragments = []
    for row, start in places.tolist():
        context, span = int(firing.contexts_C[row]), slice(start, start + length)
        fragments.append(
            Fragment(
                context,
                start,
                tuple(firing.text.tokens_BT[context, span].tolist()),
                tuple(dense_CT[row, span].tolist()),
                tuple(firing.text.valid_BT[context, span].tolist()),
            )
        )
    return fragments


@final
@dataclass(frozen=True)
class Examples:
    """Fragments of one latent: those `shown` to an explainer, and others that its explanation
    is tested on, `active` by falling peak, as many `silent`. `found` active ones there were."""

    latent: int
    found: int
    maximum: float
    shown: Sequence[Fragment]
    active: Sequence[Fragment]
    silent: Sequence[Fragment]


def examples_of(
    firing: Firing,
    member: int,
    length: int,
    *,
    shown: int,
    top: int,
    tested: int,
    floor: float,
    seed: int,
) -> Examples:
    """Draw the examples of one latent, a pure function of `seed` and the latent.

    `shown` fragments come from the `top` strongest; the others, by falling peak, are cut into
    `tested` quantiles, and one is drawn of each. Peaks below `floor` times the latent's maximum
    make a fragment neither active nor silent. Source: Cunningham et al. (2309.08600), five of the
    top twenty; Paulo et al. (2410.13928), quantiles and random silent ones.
    """
    latent, dense_CT = firing.latents[member], firing.dense(member)
    length = min(length, dense_CT.shape[1])
    place_N2, peak_N = active_places(dense_CT, length)
    maximum = float(peak_N[0]) if len(peak_N) else 0.0
    place_N2 = place_N2[peak_N >= floor * maximum]
    pool = min(top, len(place_N2))
    seen = order.sample(pool, shown, seed, latent, 1)
    held = np.setdiff1d(np.arange(len(place_N2)), seen)
    count = min(tested, len(held))
    parts = np.array_split(held, count) if count else []
    shares = order.uniform(count, seed, latent, 2)
    active = [int(p[int(u * len(p))]) for p, u in zip(parts, shares, strict=True)]
    silent = silent_places(dense_CT, length, count, seed, latent, 3)
    return Examples(
        latent,
        len(place_N2),
        maximum,
        cut(firing, dense_CT, place_N2[seen], length),
        cut(firing, dense_CT, place_N2[active], length),
        cut(firing, dense_CT, silent, length),
    )
