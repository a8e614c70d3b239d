"""One pass over a store of text: how often each latent is on, by how much, and where.

Contexts come whole and in order, so memory does not grow with the store: counts and a histogram
a latent, its strongest contexts, and a fair sample of the tokens that it is on at.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Float64, Int64
from tqdm import tqdm

from tendril.data import order
from tendril.data.store.reader import Store
from tendril.models.dictionaries.sae import SAE

from ..core.language_inputs import StoredText
from .top_examples import Best

PER_OCTAVE, OCTAVES = 4, 24  # bins of the histogram: from 2^-24 to 2^24
BINS = 2 * OCTAVES * PER_OCTAVE
SAMPLE = 32  # tokens a latent that quantiles are read from
SAMPLE_KEY = 0x5A3F  # of the order in which tokens are sampled, the same in every study
AT_ONCE = 2**24  # latents times rows that are encoded at a time: 64 MB


@final
@dataclass(frozen=True)
class Entries:
    """What is on in some rows: entry m is latent latent_M[m], on by value_M[m] at row_M[m] of the
    store; sorted by latent, then by row."""

    latent_M: Int64[np.ndarray, " m"]
    row_M: Int64[np.ndarray, " m"]
    value_M: Float32[np.ndarray, " m"]


@final
class Activity:
    """What the latents of a dictionary did on the rows that were read.

    `fired_S` rows of `rows`, to sum `total_S`, at most `max_S`; histogram_SH[i, b] rows whose
    activation is from 2^(b / 4 - 24) on, up to the next edge (the outer bins take the rest).
    `top` holds the strongest tokens, one a context, scored by activation; `sample` tokens drawn
    evenly from all that the latent is on at, scored by a number that only the row decides.
    """

    def __init__(self, latents: int, length: int, top: int, sample: int, window: int) -> None:
        self.length, self.window = length, min(window, length)
        self.rows = 0
        self.fired_S = np.zeros(latents, np.int64)
        self.total_S = np.zeros(latents)
        self.max_S = np.zeros(latents, np.float32)
        self.histogram_SH = np.zeros((latents, BINS), np.int64)
        self.top = Best(latents, top, self.window)
        self.sample = Best(latents, sample, self.window) if sample else None

    @property
    def latents(self) -> int:
        """S."""
        return len(self.fired_S)

    @property
    def frequency_S(self) -> Float64[np.ndarray, " s"]:
        """The share of rows that each latent is on at."""
        share: Float64[np.ndarray, " s"] = self.fired_S / max(self.rows, 1)
        return share

    @property
    def mean_S(self) -> Float64[np.ndarray, " s"]:
        """The mean activation where the latent is on."""
        mean: Float64[np.ndarray, " s"] = self.total_S / np.maximum(self.fired_S, 1)
        return mean

    def begin(self, row: Int64[np.ndarray, " *m"]) -> Int64[np.ndarray, " *m"]:
        """The first row of the window that shows a row: two thirds of it before, none of it
        outside the context."""
        position = row % self.length
        first = np.clip(position - 2 * self.window // 3, 0, self.length - self.window)
        return np.asarray(row - position + first)

    def add(self, contexts: Int64[np.ndarray, " b"], z_NS: Float[torch.Tensor, "n s"]) -> None:
        """Count whole contexts; rows that do not count are NaN."""
        found = entries_of(contexts, self.length, z_NS)
        latent, value = found.latent_M, found.value_M
        self.rows += int(torch.isfinite(z_NS[:, 0]).sum())
        self.fired_S += np.bincount(latent, minlength=self.latents)
        self.total_S += np.bincount(latent, value, minlength=self.latents)
        if len(latent):
            begins = np.flatnonzero(np.r_[True, latent[1:] != latent[:-1]])
            met = latent[begins]
            self.max_S[met] = np.maximum(self.max_S[met], np.maximum.reduceat(value, begins))
        np.add.at(self.histogram_SH.reshape(-1), latent * BINS + bins_of(value), 1)
        self._offer(self.top, peaks(found, self.length), None, contexts, z_NS)
        if self.sample:
            drawn = np.stack([order.uniform(self.length, SAMPLE_KEY, int(c)) for c in contexts])
            self._offer(self.sample, found, drawn.ravel(), contexts, z_NS)

    def _offer(
        self,
        best: Best,
        found: Entries,
        score_N: Float64[np.ndarray, " n"] | None,
        contexts: Int64[np.ndarray, " b"],
        z_NS: Float[torch.Tensor, "n s"],
    ) -> None:
        """Let entries into `best`, by the score of their row (by default their activation),
        with what is around them."""
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
    """The latents that are on in the rows of some contexts of a store."""
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


def bins_of(value_M: Float32[np.ndarray, " m"]) -> Int64[np.ndarray, " m"]:
    """The bin of the histogram that each activation falls into."""
    place = np.floor(np.log2(value_M.astype(np.float64)) * PER_OCTAVE) + OCTAVES * PER_OCTAVE
    inside: Int64[np.ndarray, " m"] = np.clip(place, 0, BINS - 1).astype(np.int64)
    return inside


def edges() -> Float64[np.ndarray, " e"]:
    """Where the bins of the histogram begin, and the last one ends."""
    return np.exp2(np.arange(BINS + 1) / PER_OCTAVE - OCTAVES)


def chosen_contexts(
    text: StoredText, part: str, held_out: float, limit: int | None
) -> Int64[np.ndarray, " b"]:
    """The contexts of a part (`order.held_out` decides, as it did in training), at most `limit`
    of them, spread evenly."""
    number = np.arange(len(text.tokens_BT))
    if part != "all":
        aside = order.held_out(number, held_out)
        number = number[aside if part == "held_out" else ~aside]
    if limit is not None and limit < len(number):
        number = number[np.linspace(0, len(number) - 1, limit).astype(np.int64)]
    return number


@torch.inference_mode()
def watch(
    store: Store,
    sites: Sequence[str],
    dictionary: SAE,
    valid_BT: Bool[np.ndarray, "b t"],
    contexts: Int64[np.ndarray, " c"],
    activity: Activity,
    device: torch.device,
) -> Activity:
    """Encode contexts of a store, each once and in order, and count them in `activity`."""
    dictionary = dictionary.to(device)
    length = activity.length
    together = max(1, AT_ONCE // (length * dictionary.latents))
    with tqdm(
        total=len(contexts),
        desc="contexts",
        mininterval=0.5 if sys.stderr.isatty() else 20,
    ) as bar:
        for read, x_BTD in _read(store, sites, contexts, length):
            for start in range(0, len(read), together):
                some = read[start : start + together]
                valid_N = torch.from_numpy(valid_BT[some].reshape(-1)).to(device)
                x_ND = torch.from_numpy(x_BTD[start : start + together]).to(device).flatten(0, 1)
                z_NS = dictionary.encode(torch.where(valid_N[:, None], x_ND, 0))
                activity.add(some, torch.where(valid_N[:, None], z_NS, torch.nan))
                bar.update(len(some))
    return activity


def _read(
    store: Store, sites: Sequence[str], contexts: Int64[np.ndarray, " b"], length: int
) -> Iterator[tuple[Int64[np.ndarray, " b"], Float32[np.ndarray, "b t d"]]]:
    """Contexts with their vectors, those of several sites side by side; no chunk read twice
    where chunks hold whole contexts, as the harvester writes them."""
    of_chunk = contexts * length // store.chunk_rows
    for chunk in np.unique(of_chunk):
        some = contexts[of_chunk == chunk]
        rows = (some[:, None] * length + np.arange(length)).ravel()
        x_ND = np.concatenate([store.read(site, rows) for site in sites], axis=1)
        yield some, x_ND.reshape(len(some), length, -1)
