"""Feature patching: how few features make a model answer one prompt as it answers another?

At a site, x' = x + sum_{j in F} (c'_j - c_j) f_j, where c are the features of the base prompt, c'
those of the counterfactual prompt and f_j their directions (Cunningham et al. 2309.08600, section
5). The remaining KL(counterfactual || patched) of the next-token distributions is measured against
the number of features in F and the size of the edit.
"""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Literal, final

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Int64
from torch import Tensor

from tendril.data.store.reader import Store
from tendril.models.dictionaries.sae import SAE
from tendril.models.sites.language_splice import kl_divergence
from tendril.models.sites.splice import splicing, to_parts, to_vectors
from tendril.models.subjects.language import LanguageSubject
from tendril.models.subjects.subject import site_modules

from .skipped_blocks import blocks_up_to, passed_over

RESAMPLED = 500  # sets of pairs drawn for an interval
STEPS = 8  # between the base prompt and the counterfactual one, where gradients are taken


@final
@dataclass(frozen=True)
class Pairs:
    """Pairs of a base and a counterfactual prompt of equal length, as tokens [P, T].

    `last_P` is the place of a prompt's last token; behind it, where a causal model does not look,
    tokens are padding. `answers_P2` are the tokens that should come next, of the base and of the
    counterfactual prompt.
    """

    base_PT: Int64[Tensor, "p t"]
    counter_PT: Int64[Tensor, "p t"]
    last_P: Int64[Tensor, " p"]
    answers_P2: Int64[Tensor, "p 2"]
    texts: Sequence[tuple[str, str]]

    def __len__(self) -> int:
        return len(self.last_P)

    def part(self, start: int, stop: int) -> "Pairs":
        """The pairs from `start` up to `stop`."""
        at = slice(start, stop)
        base, counter, last, answers = (tensor[at] for tensor in self._tensors())
        return Pairs(base, counter, last, answers, self.texts[at])

    def to(self, device: torch.device) -> "Pairs":
        """The same pairs on a device."""
        base, counter, last, answers = (tensor.to(device) for tensor in self._tensors())
        return Pairs(base, counter, last, answers, self.texts)

    def _tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.base_PT, self.counter_PT, self.last_P, self.answers_P2

    def patched(self, positions: Literal["after", "last"]) -> Bool[Tensor, "p t"]:
        """Where features are changed: from the first token that differs on, or at the last one."""
        place_T = torch.arange(self.base_PT.shape[1], device=self.last_P.device)
        if positions == "last":
            return place_T == self.last_P[:, None]
        first_P = (self.base_PT != self.counter_PT).int().argmax(dim=1)
        return (place_T >= first_P[:, None]) & (place_T <= self.last_P[:, None])


@final
@dataclass(frozen=True)
class Features:
    """Directions [F, D], and a function from vectors [n, D] to their features c [n, F]."""

    encode: Callable[[Tensor], Tensor]
    directions_FD: Float[Tensor, "f d"]


def features_of(dictionary: SAE) -> Features:
    """The latents of a dictionary."""
    return Features(dictionary.encode, dictionary.W_dec.detach())


def principal_components(store: Store, site: str, rows: int, device: torch.device) -> Features:
    """The D principal components of a site, fitted on at most about `rows` rows of the training
    part.

    With all of them any vector becomes any other.
    """
    zero_D = torch.zeros(store.width(site), dtype=torch.float64)
    total_D, total_DD, count = zero_D, torch.outer(zero_D, zero_D), 0
    with closing(store.batches(site, 8192, epochs=1, seed=0, part="train")) as batches:
        for x_ND in (batch_ND.double() for batch_ND in batches):
            total_D, total_DD = total_D + x_ND.sum(0), total_DD + x_ND.T @ x_ND
            count += len(x_ND)
            if count >= rows:
                break
    mean_D = total_D / count
    covariance_DD = total_DD / count - torch.outer(mean_D, mean_D)
    _, vectors_DD = torch.linalg.eigh(covariance_DD)
    directions_FD = vectors_DD.flip(1).T.float().contiguous().to(device)
    mean_D = mean_D.float().to(device)
    return Features(lambda x_ND: (x_ND - mean_D) @ directions_FD.T, directions_FD)


def random_basis(width: int, seed: int, device: torch.device) -> Features:
    """D random directions at right angles: a control of principal components and dictionaries.

    With all of them any vector becomes any other.
    """
    drawn_DD = torch.randn(width, width, generator=torch.Generator().manual_seed(seed))
    directions_FD = torch.linalg.qr(drawn_DD)[0].T.contiguous().to(device)
    return Features(lambda x_ND: x_ND @ directions_FD.T, directions_FD)


@final
class Patching:
    """Pairs of prompts at a site of a language model, ready to be patched.

    `change_PTF` is c' - c where features may be changed, and 0 elsewhere. `size_PF` is the L2 norm
    of each feature's part of the edit, and `gain_PF` the reduction of the KL that gradients
    attribute to it.
    """

    def __init__(
        self,
        subject: LanguageSubject,
        site: str,
        pairs: Pairs,
        features: Features,
        positions: Literal["after", "last"],
        batch: int,
    ) -> None:
        self._module, self._names = subject.module, site_modules(subject, [site])[site]
        self._pairs, self._batch = pairs, batch
        self._skipped = blocks_up_to(self._module, self._names, pairs.base_PT[:1])
        self.directions_FD = features.directions_FD
        with splicing(self._module, self._names) as splice, torch.no_grad():
            self._base = splice.read(pairs.base_PT)
            self._counter = splice.read(pairs.counter_PT)
            counter_PTV = splice.run(pairs.counter_PT, {})
        self.counter_PV = torch.log_softmax(self._answers(counter_PTV, pairs.last_P).float(), -1)
        base_ND, counter_ND = to_vectors(self._base), to_vectors(self._counter)
        with torch.no_grad():
            change_NF = features.encode(counter_ND) - features.encode(base_ND)
        where_PT = pairs.patched(positions)
        shape = (*pairs.base_PT.shape, -1)
        self.change_PTF = change_NF.reshape(shape) * where_PT[:, :, None]
        self.whole_PTD = (counter_ND - base_ND).reshape(shape) * where_PT[:, :, None]
        self.size_PF = self.change_PTF.norm(dim=1) * self.directions_FD.norm(dim=1)
        self.gain_PF = self._gain()

    @property
    def count(self) -> int:
        """F, the number of features."""
        return len(self.directions_FD)

    @torch.no_grad()
    def kl(
        self, edit_QTD: Float[Tensor, "q t d"], which: Int[Tensor, " q"] | None = None
    ) -> Float[Tensor, " q"]:
        """KL(counterfactual || patched) in nats of each edited prompt.

        `which` numbers the pairs. By default edits are those of all pairs, or of several rounds of
        all pairs, one round after the other.
        """
        if which is None:
            rounds = len(edit_QTD) // len(self._pairs)
            which = torch.arange(len(self._pairs), device=edit_QTD.device).repeat(rounds)
        found = []
        with splicing(self._module, self._names) as splice, passed_over(self._skipped):
            for some, edit in zip(
                torch.split(which, self._batch), torch.split(edit_QTD, self._batch), strict=True
            ):
                found.append(self._kl(splice.run, some, edit))
        return torch.cat(found)

    def edit(self, chosen: Bool[Tensor, "*p f"]) -> Float[Tensor, "p t d"]:
        """sum_{j in F} (c'_j - c_j) f_j, with F chosen for each pair [P, F], or for all [F]."""
        mask = chosen if chosen.ndim == 1 else chosen[:, None, :]
        return (self.change_PTF * mask) @ self.directions_FD

    def _gain(self) -> Float[Tensor, "p f"]:
        """-sum_t (c'_j - c_j) f_j . g_t by integrated gradients (Sundararajan et al. 1703.01365).

        g is the mean of dKL/dx over the straight line from the base prompt's vectors to those of
        the counterfactual prompt. If the features make up the whole change, their gains add up to
        its reduction of the KL. The gradient at the base prompt alone has no such property.
        """
        slope_PTD = torch.zeros_like(self.whole_PTD)
        which = torch.arange(len(self._pairs), device=slope_PTD.device)
        with splicing(self._module, self._names) as splice, torch.enable_grad():
            for step in range(STEPS):
                edit_PTD = (self.whole_PTD * ((step + 0.5) / STEPS)).requires_grad_()
                for some in torch.split(which, self._batch):
                    kl_Q = self._kl(splice.run, some, edit_PTD[some])
                    torch.autograd.backward(kl_Q.sum())
                assert edit_PTD.grad is not None, "an edit that changes nothing"
                slope_PTD += edit_PTD.grad / STEPS
        return -((slope_PTD @ self.directions_FD.T) * self.change_PTF).sum(dim=1)

    def _kl(
        self,
        run: Callable[..., Tensor],
        some: Int[Tensor, " q"],
        edit_QTD: Float[Tensor, "q t d"],
    ) -> Float[Tensor, " q"]:
        base = {name: part[some] for name, part in self._base.items()}
        put = to_parts(to_vectors(base) + edit_QTD.flatten(0, 1), base)
        answer_QTV = run(self._pairs.base_PT[some], put)
        logp_QV = torch.log_softmax(self._answers(answer_QTV, self._pairs.last_P[some]).float(), -1)
        return kl_divergence(self.counter_PV[some], logp_QV)

    @staticmethod
    def _answers(logits_PTV: Tensor, last_P: Int[Tensor, " p"]) -> Float[Tensor, "p v"]:
        return logits_PTV[torch.arange(len(last_P), device=last_P.device), last_P]


def by_attribution(fitted: Patching) -> Int[Tensor, " f"]:
    """Features in order of their mean gain over pairs, the largest first."""
    return fitted.gain_PF.mean(dim=0).argsort(descending=True, stable=True)


def greedily(fitted: Patching, candidates: int, count: int) -> Int[Tensor, " n"]:
    """One greedy order for all pairs.

    Each feature is the one that leaves the least mean KL together with those before it, chosen
    from the `candidates` features whose parts of the edits are largest.
    """
    left = fitted.size_PF.mean(dim=0).argsort(descending=True)[:candidates].tolist()
    chosen: list[int] = []
    done_PTD = torch.zeros_like(fitted.whole_PTD)
    for _ in range(min(count, len(left))):
        edits = [done_PTD + fitted.change_PTF[:, :, [j]] @ fitted.directions_FD[[j]] for j in left]
        mean_C = fitted.kl(torch.cat(edits)).reshape(len(left), -1).mean(dim=1)
        best = int(mean_C.argmin())
        done_PTD = edits[best]
        chosen.append(left.pop(best))
    return torch.tensor(chosen, dtype=torch.int64, device=done_PTD.device)


def greedily_each(patching: Patching, candidates: int, count: int) -> Int[Tensor, "p n"]:
    """A greedy order for each pair by itself, as in `greedily`."""
    order_PC = patching.size_PF.argsort(dim=1, descending=True)[:, :candidates]
    pairs, many = order_PC.shape
    rows, chosen = torch.arange(pairs, device=order_PC.device), []
    done_PTD = torch.zeros_like(patching.whole_PTD)
    taken_PC = torch.zeros_like(order_PC, dtype=torch.bool)
    for _ in range(min(count, many)):
        edits = [
            done_PTD
            + patching.change_PTF[rows, :, order_PC[:, c]][:, :, None]
            * patching.directions_FD[order_PC[:, c]][:, None, :]
            for c in range(many)
        ]
        kl_CP = patching.kl(torch.cat(edits)).reshape(many, pairs)
        best_P = kl_CP.masked_fill(taken_PC.T, torch.inf).argmin(dim=0)
        done_PTD = torch.stack(edits)[best_P, rows]
        taken_PC[rows, best_P] = True
        chosen.append(order_PC[rows, best_P])
    return torch.stack(chosen, dim=1)


@final
@dataclass(frozen=True)
class Curve:
    """Remaining mean KL in nats and mean L2 norm of the edit, by number of features changed.

    `each_NP` is the KL of each pair.
    """

    kl: Sequence[float]
    size: Sequence[float]
    each_NP: Float[np.ndarray, "n p"] | None = None

    def needed(self, fraction: float, whole: float = 0.0) -> int | None:
        """The least number of features that removes this fraction of the KL that changing the
        whole site removes; None if no number does. `whole` is the KL that remains then."""
        wanted = self.kl[0] - fraction * (self.kl[0] - whole)
        return next((n for n, kl in enumerate(self.kl) if kl <= wanted), None)

    def interval(
        self, fraction: float, whole_P: Float[np.ndarray, " p"], seed: int = 0
    ) -> tuple[int | None, int | None]:
        """A 95 % interval of `needed` over pairs: percentiles of RESAMPLED sets of as many pairs,
        drawn with replacement. None where no number of features that was tried is enough.

        `whole_P` is each pair's KL with the whole site changed. The order of the features stays.
        """
        assert self.each_NP is not None, "a curve without the KL of each pair"
        pairs = len(whole_P)
        drawn_RP = np.random.default_rng(seed).integers(pairs, size=(RESAMPLED, pairs))
        kl_NR = self.each_NP[:, drawn_RP].mean(axis=2)
        reached_NR = kl_NR <= kl_NR[0] - fraction * (kl_NR[0] - whole_P[drawn_RP].mean(axis=1))
        never = len(kl_NR)
        needed_R = np.where(reached_NR.any(axis=0), reached_NR.argmax(axis=0), never)
        low, high = np.quantile(needed_R, (0.025, 0.975), method="inverted_cdf").tolist()
        return None if low == never else int(low), None if high == never else int(high)


def curve(patching: Patching, order_F: Int[Tensor, "*p f"], most: int) -> Curve:
    """Patch the first 0, 1, ..., `most` features of an order for all pairs [F], or of one order a
    pair [P, F]."""
    each, size = [], []
    places = torch.arange(order_F.shape[-1], device=order_F.device).expand(order_F.shape)
    never = torch.full_like(order_F[..., :1], patching.count)
    rank = never.expand(*order_F.shape[:-1], patching.count).scatter(-1, order_F, places)
    for n in range(min(most, order_F.shape[-1]) + 1):
        edit_PTD = patching.edit(rank < n)
        each.append(patching.kl(edit_PTD).double())
        size.append(float(edit_PTD.flatten(1).norm(dim=1).double().mean()))
    kl = [float(kl_P.mean()) for kl_P in each]
    return Curve(kl, size, torch.stack(each).cpu().numpy())
