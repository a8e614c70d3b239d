"""What the study of features finds, latent by latent: figures, examples, and the table."""

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

import numpy as np
from jaxtyping import Float32, Int64
from torch import Tensor

from ..core.stores import StoredText
from ..measures.decoder_directions import Promoted
from ..measures.latent_activity import Activity, TopEntries

DENSE = 0.1  # a latent is dense if it is active on more than this fraction of tokens


@final
@dataclass(frozen=True)
class Example:
    """An activating example: the latent has activation `value` on tokens[at] of `tokens`.

    `acts` are its activations on all the tokens, NaN where the row is not valid. `borders` are
    the places where another document begins, with the document's number. `level` is the quantile
    that the example stands for; None for one of the strongest.
    """

    context: int
    position: int
    document: int
    value: float
    at: int
    tokens: Int64[np.ndarray, " w"]
    acts: Float32[np.ndarray, " w"]
    borders: list[tuple[int, int]]
    level: float | None = None


@final
@dataclass(frozen=True)
class FeatureFindings:
    """All that the page shows except the words around it.

    `text_of[i]` is the text of token i. `note` says why there are no logit weights, where there
    are none.
    """

    run: str
    store: str
    subject: str
    sites: tuple[str, ...]
    part: str
    contexts: int
    quantiles: int
    text: StoredText
    text_of: list[str]
    activity: Activity
    promoted: Promoted | None
    neighbours: tuple[Int64[Tensor, "s k"], Float32[Tensor, "s k"]]
    norm_S: Float32[np.ndarray, " s"]
    note: str

    @property
    def latents(self) -> int:
        """S."""
        return self.activity.latents

    def strongest(self, latent: int) -> list[Example]:
        """The activating examples of a latent, the strongest first, one a context."""
        best = self.activity.top
        return [
            self._example(best, latent, i) for i in range(best.count) if best.row_SN[latent, i] >= 0
        ]

    def weaker(self, latent: int) -> list[Example]:
        """Examples at the middles of `quantiles` equal parts of the sampled activations, the
        highest first; no example appears twice, here or among the strongest."""
        best = self.activity.sample
        if best is None:
            return []
        there = np.flatnonzero(best.row_SN[latent] >= 0)
        there = there[np.argsort(best.value_SN[latent, there], kind="stable")]
        shown, found = set(self.activity.top.row_SN[latent].tolist()), []
        for level in (np.arange(self.quantiles)[::-1] + 0.5) / self.quantiles:
            place = int(there[int(level * len(there))]) if len(there) else -1
            if place >= 0 and int(best.row_SN[latent, place]) not in shown:
                shown.add(int(best.row_SN[latent, place]))
                found.append(self._example(best, latent, place, float(level)))
        return found

    def peak_tokens(self, latent: int) -> list[int]:
        """The distinct tokens at the peaks of the strongest contexts, the strongest first."""
        rows = self.activity.top.row_SN[latent]
        tokens = self.text.tokens_BT.reshape(-1)[rows[rows >= 0]]
        return list(dict.fromkeys(tokens.tolist()))

    def _example(
        self, best: TopEntries, latent: int, place: int, level: float | None = None
    ) -> Example:
        row, length = int(best.row_SN[latent, place]), self.activity.length
        begin = int(self.activity.begin(np.array(row)))
        window = slice(begin, begin + self.activity.window)
        documents = self.text.documents_BT.reshape(-1)[window]
        documents = documents[documents >= 0]  # without padding, which is last
        borders = np.flatnonzero(np.diff(documents)) + 1
        return Example(
            context=row // length,
            position=row % length,
            document=int(documents[row - begin]),
            value=float(best.value_SN[latent, place]),
            at=row - begin,
            tokens=self.text.tokens_BT.reshape(-1)[window][: len(documents)].astype(np.int64),
            acts=best.acts_SNW[latent, place][: len(documents)],
            borders=[(int(b), int(documents[b])) for b in borders],
            level=level,
        )

    @cached_property
    def figures(self) -> dict[str, Any]:
        """The figures of result.json."""
        frequency = self.activity.frequency_S
        alive = frequency > 0
        nearest = self.neighbours[1][:, 0].numpy() if self.neighbours[1].numel() else np.zeros(0)
        return {
            "run": self.run,
            "store": self.store,
            "site": "+".join(self.sites),
            "part": self.part,
            "contexts": self.contexts,
            "rows": self.activity.rows,
            "latents_total": self.latents,
            "latents_never_on": int((~alive).sum()),
            "latents_dense": int((frequency > DENSE).sum()),
            "l0": round(float(self.activity.fired_S.sum() / max(self.activity.rows, 1)), 3),
            "frequency_median": short(np.median(frequency[alive])) if alive.any() else None,
            "nearest_median": short(np.median(nearest)) if len(nearest) else None,
            "logit_weights": self.promoted is not None,
        }

    def row(self, latent: int) -> dict[str, Any]:
        """A latent as a row of latents.csv; lists of tokens are JSON."""
        activity, (numbers, cosines) = self.activity, self.neighbours
        up = down = up_weight = down_weight = "[]"
        if self.promoted:
            up, down = (
                self._words(t[latent]) for t in (self.promoted.up_SP, self.promoted.down_SP)
            )
            up_weight, down_weight = (
                json.dumps([short(w) for w in t[latent].tolist()])
                for t in (self.promoted.up_weight_SP, self.promoted.down_weight_SP)
            )
        strongest = self.strongest(latent)
        return {
            "latent": latent,
            "fired": int(activity.fired_S[latent]),
            "frequency": short(activity.frequency_S[latent]),
            "max": short(activity.max_S[latent]),
            "mean_when_on": short(activity.mean_S[latent]),
            "decoder_norm": short(self.norm_S[latent]),
            "nearest": int(numbers[latent, 0]) if numbers.numel() else "",
            "nearest_cosine": short(cosines[latent, 0]) if numbers.numel() else "",
            "fires_on": self._words(self.peak_tokens(latent)),
            "promotes": up,
            "promotes_weights": up_weight,
            "suppresses": down,
            "suppresses_weights": down_weight,
            "strongest_rows": json.dumps(
                [e.context * activity.length + e.position for e in strongest]
            ),
            "strongest_context": "".join(self.text_of[t] for t in strongest[0].tokens)
            if strongest
            else "",
        }

    def _words(self, tokens: Any) -> str:
        return json.dumps([self.text_of[int(token)] for token in tokens], ensure_ascii=False)


def short(value: Any) -> float:
    """A number to four significant digits."""
    return float(f"{float(value):.4g}")
