"""Feature patching: how few features make a model answer one prompt as it answers another?

x' = x + sum_{j in F} (c'_j - c_j) f_j at a site, where c are the features of the base prompt, c' of
the counterfactual one and f_j their directions (Cunningham et al. 2309.08600, section 5). What is
left of KL(counterfactual || patched), of the next-token distributions, is told against the
number of features in F and the size of the edit.
"""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Literal, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tendril.data.store.reader import Store
from tendril.models.dictionaries.sae import SAE
from tendril.models.sites.language_splice import kl_divergence
from tendril.models.sites.splice import splicing, to_parts, to_vectors
from tendril.models.subjects.language import LanguageSubject
from tendril.models.subjects.subject import site_modules

from ..patching.prompts import Pairs

PCA = "pca"
STEPS = 8  # of the way from the base prompt to the counterfactual one, where gradients are taken


@final
@dataclass(frozen=True)
class Features:
    """Directions [F, D] and what gives their amounts c [n, F] in vectors [n, D]."""

    encode: Callable[[Tensor], Tensor]
    directions_FD: Float[Tensor, "f d"]


def features_of(dictionary: SAE) -> Features:
    """The latents of a dictionary."""
    return Features(dictionary.encode, dictionary.W_dec.detach())


def principal_components(store: Store, site: str, rows: int, device: torch.device) -> Features:
    """The D components of a site's rows, fitted on rows that training saw: with all of them any
    vector becomes any other."""
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


@final
class Patching:
    """Pairs of prompts at a site of a language model, ready to be patched.

    `change_PTF` is c' - c where features may be changed, else 0; `size_PF` the L2 norm of each
    feature's part of the edit; `gain_PF` what gradients say that it takes off the KL.
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
        """F, of features."""
        return len(self.directions_FD)

    @torch.no_grad()
    def kl(self, edit_QTD: Float[Tensor, "q t d"]) -> Float[Tensor, " q"]:
        """KL(counterfactual || patched) of edited prompts; several rounds of all pairs, one after
        the other, may be given at once."""
        rounds = len(edit_QTD) // len(self._pairs)
        which = torch.arange(len(self._pairs), device=edit_QTD.device).repeat(rounds)
        told = []
        with splicing(self._module, self._names) as splice:
            for some, edit in zip(
                torch.split(which, self._batch), torch.split(edit_QTD, self._batch), strict=True
            ):
                told.append(self._kl(splice.run, some, edit))
        return torch.cat(told)

    def edit(self, chosen: Bool[Tensor, "*p f"]) -> Float[Tensor, "p t d"]:
        """sum_{j in F} (c'_j - c_j) f_j for the features of each pair, or the same of all."""
        mask = chosen if chosen.ndim == 1 else chosen[:, None, :]
        return (self.change_PTF * mask) @ self.directions_FD

    def _gain(self) -> Float[Tensor, "p f"]:
        """- sum_t (c'_j - c_j) f_j . g_t, where g is the mean of dKL/dx over the straight way from
        the base prompt's vectors to the counterfactual one's (integrated gradients, Sundararajan
        et al. 1703.01365): features that make up the whole change have gains that add up to all
        that it takes off. At the base prompt alone the gradient points elsewhere."""
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
    """Features by the mean of their gain over pairs, the largest first."""
    return fitted.gain_PF.mean(dim=0).argsort(descending=True, stable=True)


def greedily(fitted: Patching, candidates: int, count: int) -> Int[Tensor, " n"]:
    """Features one after the other, each the one that, beside those before it, leaves the least
    mean KL over the pairs: one order for all. Of the candidates whose parts of the edits are
    largest."""
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


def greedily_each(told: Patching, candidates: int, count: int) -> Int[Tensor, "p n"]:
    """The same for each pair by itself: the fewest features that can be found."""
    order_PC = told.size_PF.argsort(dim=1, descending=True)[:, :candidates]
    pairs, many = order_PC.shape
    rows, chosen = torch.arange(pairs, device=order_PC.device), []
    done_PTD = torch.zeros_like(told.whole_PTD)
    taken_PC = torch.zeros_like(order_PC, dtype=torch.bool)
    for _ in range(min(count, many)):
        edits = [
            done_PTD
            + told.change_PTF[rows, :, order_PC[:, c]][:, :, None]
            * told.directions_FD[order_PC[:, c]][:, None, :]
            for c in range(many)
        ]
        kl_CP = told.kl(torch.cat(edits)).reshape(many, pairs)
        best_P = kl_CP.masked_fill(taken_PC.T, torch.inf).argmin(dim=0)
        done_PTD = torch.stack(edits)[best_P, rows]
        taken_PC[rows, best_P] = True
        chosen.append(order_PC[rows, best_P])
    return torch.stack(chosen, dim=1)


@final
@dataclass(frozen=True)
class Curve:
    """Mean KL left, and mean L2 norm of the edit, with 0, 1, 2, ... features changed."""

    kl: Sequence[float]
    size: Sequence[float]

    def needed(self, share: float, whole: float = 0.0) -> int | None:
        """The least number of features that takes off the KL that share of what the whole change,
        which leaves `whole`, takes off; None where no number does."""
        wanted = self.kl[0] - share * (self.kl[0] - whole)
        return next((n for n, kl in enumerate(self.kl) if kl <= wanted), None)


def curve(patching: Patching, order_F: Int[Tensor, "*p f"], most: int) -> Curve:
    """Patch the first 0, 1, ..., `most` features of an order: one for all pairs [F], or one of
    each pair [P, F]."""
    kl, size = [], []
    places = torch.arange(order_F.shape[-1], device=order_F.device).expand(order_F.shape)
    never = torch.full_like(order_F[..., :1], patching.count)
    rank = never.expand(*order_F.shape[:-1], patching.count).scatter(-1, order_F, places)
    for n in range(min(most, order_F.shape[-1]) + 1):
        edit_PTD = patching.edit(rank < n)
        kl.append(float(patching.kl(edit_PTD).double().mean()))
        size.append(float(edit_PTD.flatten(1).norm(dim=1).double().mean()))
    return Curve(kl, size)
