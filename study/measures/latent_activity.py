"""One pass over a store: how often each latent is active, how strongly, and where.

Contexts are read whole and in order, so memory does not grow with the store. Kept are counts and
a histogram of each latent, its strongest contexts, and a fair sample of the tokens on which it is
active. In a store of images a context is an image, and a token is a position of it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Float64, Int64

from tendril.data import order
from tendril.data.cli import progress_bar
from tendril.data.store.paired import PairedStores
from tendril.data.store.reader import Store
from tendril.models.dictionaries.sae import SAE

PER_OCTAVE, OCTAVES = 4, 24  # bins of the histogram: from 2^-24 to 2^24
BINS = 2 * OCTAVES * PER_OCTAVE
SAMPLE = 32  # tokens of a latent from which quantiles are estimated
SAMPLE_KEY = 0x5A3F  # of the order in which tokens are sampled, the same in every study
AT_ONCE = 2**24  # latents times rows that are encoded at a time: 64 MB


@final
@dataclass(frozen=True)
class Entries:
    """Activations above zero: entry m is of latent latent_M[m], value_M[m] at row row_M[m] of the
    store. Sorted by latent, then by row."""

    latent_M: Int64[np.ndarray, " m"]
    row_M: Int64[np.ndarray, " m"]
    value_M: Float32[np.ndarray, " m"]


@final
class TopEntries:
    """For each of S latents the `count` entries of highest score in a stream.

    An entry is a token on which the latent is active: its row of the store, the activation there
    and those of the tokens around it. Scores fall along the second axis. A latent with fewer
    entries has row -1 and score -inf in the other places. Of equal scores the first one stays.
    Memory: S x count x (20 + 4 x window) bytes.
    """

    def __init__(self, latents: int, count: int, window: int) -> None:
        self.score_SN = np.full((latents, count), -np.inf)
        self.row_SN = np.full((latents, count), -1, np.int64)
        self.value_SN = np.zeros((latents, count), np.float32)
        self.acts_SNW = np.zeros((latents, count, window), np.float32)

    @property
    def count(self) -> int:
        """Most entries of a latent."""
        return self.score_SN.shape[1]

    def candidates(
        self, latent_M: Int64[np.ndarray, " m"], score_M: Float64[np.ndarray, " m"]
    ) -> Int64[np.ndarray, " c"]:
        """Numbers of the entries that may enter: above the lowest kept score, and among the
        `count` highest of their latent.

        Ordered by latent, then by falling score; equal scores keep their order.
        """
        above = np.flatnonzero(score_M > self.score_SN[latent_M, -1])
        above = above[np.lexsort((-score_M[above], latent_M[above]))]
        return above[place_within(latent_M[above]) < self.count]

    def add(
        self,
        latent_C: Int64[np.ndarray, " c"],
        score_C: Float64[np.ndarray, " c"],
        row_C: Int64[np.ndarray, " c"],
        value_C: Float32[np.ndarray, " c"],
        acts_CW: Float32[np.ndarray, "c w"],
    ) -> None:
        """Merge entries that `candidates` chose, in its order."""
        if not len(latent_C):
            return
        seen, group_C = np.unique(latent_C, return_inverse=True)
        place_C, count = place_within(latent_C), self.count
        score = np.full((len(seen), 2 * count), -np.inf)
        score[:, :count] = self.score_SN[seen]
        score[group_C, count + place_C] = score_C
        chosen = np.argsort(-score, axis=1, kind="stable")[:, :count]
        self.score_SN[seen] = np.take_along_axis(score, chosen, axis=1)
        latent, into = np.nonzero(chosen >= count)  # the new entries, and their places
        origin = np.full((len(seen), count), -1)
        origin[group_C, place_C] = np.arange(len(latent_C))
        new = origin[latent, chosen[latent, into] - count]
        kept = np.minimum(chosen, count - 1)
        for held, fresh in (
            (self.row_SN, row_C),
            (self.value_SN, value_C),
            (self.acts_SNW, acts_CW),
        ):
            places = kept[..., None] if held.ndim == 3 else kept
            moved = np.take_along_axis(held[seen], places, axis=1)
            moved[latent, into] = fresh[new]
            held[seen] = moved


@final
class Activity:
    """What the latents of a dictionary did on the rows that were read.

    Latent i is active on fired_S[i] of `rows` rows; its activations sum to total_S[i] and are at
    most max_S[i]. histogram_SH[i, b] counts rows with an activation from 2^(b / 4 - 24) to the
    next edge; the outer bins also take what lies beyond them. `top` holds the strongest tokens,
    one a context. `sample` holds tokens drawn evenly from all on which the latent is active: its
    score is a random number that depends on the row alone.
    """

    def __init__(self, latents: int, length: int, top: int, sample: int, window: int) -> None:
        self.length, self.window = length, min(window, length)
        self.rows = 0
        self.fired_S = np.zeros(latents, np.int64)
        self.total_S = np.zeros(latents)
        self.max_S = np.zeros(latents, np.float32)
        self.histogram_SH = np.zeros((latents, BINS), np.int64)
        self.top = TopEntries(latents, top, self.window)
        self.sample = TopEntries(latents, sample, self.window) if sample else None

    @property
    def latents(self) -> int:
        """S."""
        return len(self.fired_S)

    @property
    def frequency_S(self) -> Float64[np.ndarray, " s"]:
        """The fraction of rows on which each latent is active."""
        fraction: Float64[np.ndarray, " s"] = self.fired_S / max(self.rows, 1)
        return fraction

    @property
    def mean_S(self) -> Float64[np.ndarray, " s"]:
        """The mean activation of each latent over the rows on which it is active."""
        mean: Float64[np.ndarray, " s"] = self.total_S / np.maximum(self.fired_S, 1)
        return mean

    def begin(self, row: Int64[np.ndarray, " *m"]) -> Int64[np.ndarray, " *m"]:
        """The first row of the window that shows a row: two thirds of the window come before the
        row, and none of it lies outside the context."""
        position = row % self.length
        first = np.clip(position - 2 * self.window // 3, 0, self.length - self.window)
        return np.asarray(row - position + first)

    def add(self, contexts: Int64[np.ndarray, " b"], z_NS: Float[torch.Tensor, "n s"]) -> Entries:
        """Count whole contexts, and return their activations; rows that are not valid are NaN."""
        found = entries_of(contexts, self.length, z_NS)
        latent, value = found.latent_M, found.value_M
        self.rows += int(torch.isfinite(z_NS[:, 0]).sum())
        self.fired_S += np.bincount(latent, minlength=self.latents)
        self.total_S += np.bincount(latent, value, minlength=self.latents)
        if len(latent):
            begins = np.flatnonzero(np.r_[True, latent[1:] != latent[:-1]])
            seen = latent[begins]
            self.max_S[seen] = np.maximum(self.max_S[seen], np.maximum.reduceat(value, begins))
        np.add.at(self.histogram_SH.reshape(-1), latent * BINS + bins_of(value), 1)
        self._offer(self.top, peaks(found, self.length), None, contexts, z_NS)
        if self.sample:
            drawn = np.stack([order.uniform(self.length, SAMPLE_KEY, int(c)) for c in contexts])
            self._offer(self.sample, found, drawn.ravel(), contexts, z_NS)
        return found

    def _offer(
        self,
        best: TopEntries,
        found: Entries,
        score_N: Float64[np.ndarray, " n"] | None,
        contexts: Int64[np.ndarray, " b"],
        z_NS: Float[torch.Tensor, "n s"],
    ) -> None:
        """Offer entries to `best`, scored by their row (by default by their activation), with the
        activations around them."""
        row = found.row_M
        at = np.searchsorted(contexts, row // self.length) * self.length + row % self.length
        score = found.value_M.astype(np.float64) if score_N is None else score_N[at]
        chosen = best.candidates(found.latent_M, score)
        row, latent = row[chosen], found.latent_M[chosen]
        around_CW = (at[chosen] - row + self.begin(row))[:, None] + np.arange(self.window)
        acts_CW = z_NS[torch.from_numpy(around_CW), torch.from_numpy(latent)[:, None]]
        best.add(latent, score[chosen], row, found.value_M[chosen], acts_CW.cpu().numpy())


def entries_of(
    contexts: Int64[np.ndarray, " b"], length: int, z_NS: Float[torch.Tensor, "n s"]
) -> Entries:
    """The activations above zero in some contexts of a store."""
    on_M2 = (z_NS > 0).nonzero()
    value = z_NS[on_M2[:, 0], on_M2[:, 1]].cpu().numpy()
    local, latent = on_M2.cpu().numpy().T
    sorted_M = np.argsort(latent, kind="stable")
    local, latent = local[sorted_M], latent[sorted_M]
    row = contexts[local // length] * length + local % length
    return Entries(latent, row, value[sorted_M])


def peaks(found: Entries, length: int) -> Entries:
    """The strongest row of each latent in each context; of equal ones the first."""
    context = found.row_M // length
    ranked = np.lexsort((-found.value_M, context, found.latent_M))
    latent, context = found.latent_M[ranked], context[ranked]
    new = (latent[1:] != latent[:-1]) | (context[1:] != context[:-1])
    first = ranked[np.r_[True, new]] if len(ranked) else ranked
    return Entries(found.latent_M[first], found.row_M[first], found.value_M[first])


def place_within(group_M: Int64[np.ndarray, " m"]) -> Int64[np.ndarray, " m"]:
    """0, 1, 2 ... along each run of equal numbers."""
    places = np.arange(len(group_M))
    begins = np.flatnonzero(np.r_[True, group_M[1:] != group_M[:-1]]) if len(group_M) else places
    lengths = np.diff(np.r_[begins, len(group_M)])
    return places - np.repeat(begins, lengths)


def bins_of(value_M: Float32[np.ndarray, " m"]) -> Int64[np.ndarray, " m"]:
    """The bin of the histogram that each activation falls into."""
    place = np.floor(np.log2(value_M.astype(np.float64)) * PER_OCTAVE) + OCTAVES * PER_OCTAVE
    inside: Int64[np.ndarray, " m"] = np.clip(place, 0, BINS - 1).astype(np.int64)
    return inside


def edges() -> Float64[np.ndarray, " e"]:
    """The edges of the histogram's bins, one more than there are bins."""
    return np.exp2(np.arange(BINS + 1) / PER_OCTAVE - OCTAVES)


def chosen_contexts(
    count: int, part: str, held_out: float, limit: int | None
) -> Int64[np.ndarray, " b"]:
    """The contexts of a part out of `count`, at most `limit` of them, spread evenly.

    `order.held_out` decides which contexts are held out, as it did in training.
    """
    number = np.arange(count)
    if part != "all":
        aside = order.held_out(number, held_out)
        number = number[aside if part == "held_out" else ~aside]
    if limit is not None and limit < len(number):
        number = number[np.linspace(0, len(number) - 1, limit).astype(np.int64)]
    return number


def watch(
    store: Store | PairedStores,
    sites: Sequence[str],
    dictionary: SAE,
    valid_BT: Bool[np.ndarray, "b t"],
    contexts: Int64[np.ndarray, " c"],
    activity: Activity,
    device: torch.device,
) -> Activity:
    """Encode contexts of a store, each once and in order, and count them in `activity`."""
    for some, z_NS in encoded(store, sites, dictionary, valid_BT, contexts, device):
        activity.add(some, z_NS)
    return activity


@torch.inference_mode()
def encoded(
    store: Store | PairedStores,
    sites: Sequence[str],
    dictionary: SAE,
    valid_BT: Bool[np.ndarray, "b t"],
    contexts: Int64[np.ndarray, " c"],
    device: torch.device,
    unit: str = "contexts",
    at_once: int | None = None,
) -> Iterator[tuple[Int64[np.ndarray, " b"], Float[torch.Tensor, "n s"]]]:
    """Contexts of a store in order, some at a time, with the activations of all latents on their
    rows; NaN on rows that are not valid. At most `at_once` activations, by default AT_ONCE, are
    encoded at a time."""
    dictionary = dictionary.to(device)
    length = valid_BT.shape[1]
    together = max(1, (at_once or AT_ONCE) // (length * dictionary.latents))
    with progress_bar(
        total=len(contexts),
        desc=unit,
    ) as bar:
        for read, x_BTD in _read(store, sites, contexts, length):
            for start in range(0, len(read), together):
                some = read[start : start + together]
                valid_N = torch.from_numpy(valid_BT[some].reshape(-1)).to(device)
                x_ND = torch.from_numpy(x_BTD[start : start + together]).to(device).flatten(0, 1)
                z_NS = dictionary.encode(torch.where(valid_N[:, None], x_ND, 0))
                if not valid_N.all():
                    z_NS = torch.where(valid_N[:, None], z_NS, torch.nan)
                yield some, z_NS
                bar.update(len(some))


def _read(
    store: Store | PairedStores,
    sites: Sequence[str],
    contexts: Int64[np.ndarray, " b"],
    length: int,
) -> Iterator[tuple[Int64[np.ndarray, " b"], Float32[np.ndarray, "b t d"]]]:
    """Contexts with their vectors, those of several sites side by side.

    No chunk is read twice where chunks hold whole contexts, as the harvester writes them.
    """
    of_chunk = contexts * length // store.chunk_rows
    for chunk in np.unique(of_chunk):
        some = contexts[of_chunk == chunk]
        rows = (some[:, None] * length + np.arange(length)).ravel()
        x_ND = np.concatenate([store.read(site, rows) for site in sites], axis=1)
        yield some, x_ND.reshape(len(some), length, -1)
