"""Which latents of an earlier site cause a latent of a later one?

The target latent is read at one place of each of some contexts. Removing latent j of the earlier
site is x' = x - z_j d_j at every position up to that place; what the dictionary does not explain
stays, so less than a direction is removed where the latent is weak (Cunningham et al. 2309.08600,
section 5). Its effect is the fraction of the target's activation that is lost, as a mean over the
contexts; where the latent is silent nothing changes.

The attribution estimates that from one gradient: sum_t z_tj d_j . dt/dx_t over the target's
activation, where t is its pre-activation.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int, Int64
from torch import Tensor

from tendril.models.dictionaries.sae import SAE
from tendril.models.sites.hooks import recording
from tendril.models.sites.language_splice import TokenBatch
from tendril.models.sites.splice import replacing, to_parts, to_vectors
from tendril.models.subjects.language import LanguageSubject
from tendril.models.subjects.subject import site_modules

Lost = Callable[[Tensor, Tensor], Tensor]  # numbers of contexts [Q], edits [Q, T, D] -> [Q]


@final
@dataclass(frozen=True)
class Place:
    """A site of a language model and its dictionary, under the name of its run."""

    run: str
    site: str
    sae: SAE


@final
@dataclass(frozen=True)
class Occurrences:
    """Contexts in which a latent is active at the position `at_C`, with its value there.

    Positions that a dictionary sees are `kept_CT`. `context_C` numbers the contexts of the text.
    """

    tokens_CT: Int64[Tensor, "c t"]
    kept_CT: Bool[Tensor, "c t"]
    at_C: Int64[Tensor, " c"]
    value_C: Float[Tensor, " c"]
    context_C: Int64[np.ndarray, " c"]

    def __len__(self) -> int:
        return len(self.at_C)


def in_order(subject: LanguageSubject, sites: Sequence[str]) -> list[str]:
    """Sites in the order in which the model computes them."""
    modules = site_modules(subject, sites)
    owner = {name: site for site, names in modules.items() for name in names}
    seen: list[str] = []

    def note(name: str, _acts: Tensor) -> None:
        seen.append(owner[name])

    device = next(subject.module.parameters()).device
    with torch.no_grad(), replacing(subject.module, owner, note):
        subject.module(torch.zeros((1, 2), dtype=torch.int64, device=device))
    return sorted(set(sites), key=lambda site: len(seen) - seen[::-1].index(site))


@torch.inference_mode()
def activations(
    subject: LanguageSubject,
    place: Place,
    latents: Sequence[int],
    batches: Iterable[TokenBatch],
) -> Float[np.ndarray, "b t l"]:
    """Activations of some latents at every position of some contexts; 0 where none is kept."""
    found = []
    with recording(subject.module, site_modules(subject, [place.site])) as record:
        for batch in batches:
            x_ND = to_vectors({place.site: record(batch.tokens_BT)[place.site]})
            z_NL = place.sae.encode(x_ND.float())[:, list(latents)]
            z_BTL = z_NL.view(*batch.tokens_BT.shape, -1) * batch.kept_BT[:, :, None]
            found.append(z_BTL.cpu().numpy())
    return np.concatenate(found)


def occurrences(
    z_BT: Float[np.ndarray, "b t"],
    tokens_BT: Int[np.ndarray, "b t"],
    kept_BT: Bool[np.ndarray, "b t"],
    count: int,
    seed: int,
    device: torch.device,
) -> Occurrences:
    """At most `count` contexts in which a latent reaches from half of its maximum to its maximum,
    M/2 <= z <= M, with one such position of each; both drawn at random."""
    rng = np.random.default_rng(seed)
    strong_BT = (z_BT >= z_BT.max(initial=0.0) / 2) & (z_BT > 0)
    rows = np.flatnonzero(strong_BT.any(axis=1))
    rows = np.sort(rng.permutation(rows)[:count])
    at = np.array([rng.choice(np.flatnonzero(strong_BT[row])) for row in rows], dtype=np.int64)
    length = int(at.max(initial=0)) + 1
    return Occurrences(
        torch.from_numpy(tokens_BT[rows, :length].astype(np.int64)).to(device),
        torch.from_numpy(kept_BT[rows, :length]).to(device),
        torch.from_numpy(at).to(device),
        torch.from_numpy(z_BT[rows, at].astype(np.float32)).to(device),
        rows,
    )


@final
class Causes:
    """The latents of an earlier site as causes of one latent of a later site.

    `active_F` are the latents that are active in at least one context, up to the target's place;
    `attribution_F` is the estimate of their effect, `edit_F` the mean L2 norm of what removing them
    takes away, and `contexts_F` in how many contexts they are active.
    """

    def __init__(
        self,
        subject: LanguageSubject,
        early: Place,
        late: Place,
        target: int,
        found: Occurrences,
        batch: int,
    ) -> None:
        self._module, self._early, self._late = subject.module, early, late
        self._target, self._found, self._batch = target, found, batch
        self._early_names = site_modules(subject, [early.site])[early.site]
        self._late_modules = site_modules(subject, [late.site])
        each = {name: (name,) for name in self._early_names}
        with recording(subject.module, each) as record, torch.no_grad():
            self._parts = record(found.tokens_CT)
        self._x_CTD = to_vectors(self._parts).view(*found.tokens_CT.shape, -1)
        place_T = torch.arange(found.tokens_CT.shape[1], device=found.at_C.device)
        counts_CT = found.kept_CT & (place_T <= found.at_C[:, None])
        with torch.no_grad():
            z_CTS = early.sae.encode(self._x_CTD.float()) * counts_CT[:, :, None]
        self.active_F = (z_CTS > 0).any(dim=1).any(dim=0).nonzero().flatten()
        self._z_CTF = z_CTS[:, :, self.active_F]
        self._rows_FD = early.sae.W_dec.detach()[self.active_F]
        slope_CTD = self._slope()
        gain_CF = torch.einsum("ctf,ctd,fd->cf", self._z_CTF, slope_CTD, self._rows_FD)
        self.attribution_F = (gain_CF / found.value_C[:, None]).double().mean(dim=0)
        size_CF = self._z_CTF.norm(dim=1) * self._rows_FD.norm(dim=1)
        self.edit_F = size_CF.double().mean(dim=0)
        self.contexts_F = (self._z_CTF > 0).any(dim=1).sum(dim=0)

    def effects(self, chosen: Sequence[int]) -> Float64[np.ndarray, "c n"]:
        """Fractions of the target that are lost in each context without each of the entries
        `chosen` of `active_F`, one at a time."""
        chosen_N = torch.tensor(list(chosen), dtype=torch.int64, device=self._found.at_C.device)
        on_CN = (self._z_CTF[:, :, chosen_N] > 0).any(dim=1)
        context_Q, which_Q = on_CN.nonzero(as_tuple=True)
        place_Q = chosen_N[which_Q]
        lost_CN = torch.zeros(on_CN.shape, dtype=torch.float64, device=context_Q.device)
        with self._removing() as lost:
            for start in range(0, len(context_Q), self._batch):
                some = slice(start, start + self._batch)
                c_Q, f_Q = context_Q[some], place_Q[some]
                z_QT = self._z_CTF[c_Q, :, f_Q]
                lost_CN[c_Q, which_Q[some]] = lost(c_Q, z_QT[:, :, None] * self._rows_FD[f_Q, None])
        return lost_CN.cpu().numpy()

    def together(self, chosen: Sequence[int]) -> Float64[np.ndarray, " c"]:
        """The same without all of `chosen` at once."""
        edit_CTD = self._z_CTF[:, :, list(chosen)] @ self._rows_FD[list(chosen)]
        with self._removing() as lost:
            return lost(torch.arange(len(self._found)), edit_CTD).cpu().numpy()

    def unexplained(self) -> Float64[np.ndarray, " c"]:
        """The same without what the dictionary does not explain, at every kept position."""
        error_CTD = self._x_CTD - self._early.sae(self._x_CTD.float())
        with self._removing() as lost:
            edit_CTD = error_CTD * self._found.kept_CT[:, :, None]
            return lost(torch.arange(len(self._found)), edit_CTD).cpu().numpy()

    @contextmanager
    def _removing(self) -> Iterator[Lost]:
        """A context in which `lost(contexts, edits)` gives the fraction of the target that is lost
        where edits [Q, T, D] are subtracted at the earlier site."""
        parts: dict[str, Tensor] = {}
        found, late = self._found, self._late
        with (
            torch.no_grad(),
            recording(self._module, self._late_modules) as record,
            replacing(self._module, self._early_names, lambda name, _acts: parts[name]),
        ):

            def lost(context_Q: Tensor, edit_QTD: Tensor) -> Tensor:
                lost = []
                for some, edit in zip(
                    torch.split(context_Q, self._batch),
                    torch.split(edit_QTD, self._batch),
                    strict=True,
                ):
                    parts.update(self._put((self._x_CTD[some] - edit).flatten(0, 1), some))
                    acts_QTD = record(found.tokens_CT[some])[late.site]
                    x_QD = _at(acts_QTD, found.at_C[some])
                    z_Q = late.sae.encode(x_QD.float())[:, self._target].double()
                    lost.append(1 - z_Q / found.value_C[some])
                return torch.cat(lost)

            yield lost

    def _slope(self) -> Float[Tensor, "c t d"]:
        """dt/dx at the earlier site, of the target's pre-activation t at its place."""
        found, late = self._found, self._late
        latent = torch.tensor([self._target], device=found.at_C.device)
        parts: dict[str, Tensor] = {}
        slopes = []
        with (
            torch.enable_grad(),
            recording(self._module, self._late_modules) as record,
            replacing(self._module, self._early_names, lambda name, _acts: parts[name]),
        ):
            for some in torch.split(torch.arange(len(found)), self._batch):
                x_QTD = self._x_CTD[some].clone().requires_grad_()
                parts.update(self._put(x_QTD.flatten(0, 1), some))
                acts_QTD = record(found.tokens_CT[some])[late.site]
                x_QD = _at(acts_QTD, found.at_C[some])
                torch.autograd.backward(late.sae.pre(x_QD.float(), latent).sum())
                assert x_QTD.grad is not None, "the later site comes after the earlier one"
                slopes.append(x_QTD.grad)
        return torch.cat(slopes)

    def _put(self, x_ND: Float[Tensor, "n d"], some: Int64[Tensor, " q"]) -> dict[str, Tensor]:
        return to_parts(x_ND, {name: part[some] for name, part in self._parts.items()})


def _at(acts_QTD: Float[Tensor, "q t d"], at_Q: Int64[Tensor, " q"]) -> Float[Tensor, "q d"]:
    """The vector at one position of each context."""
    return acts_QTD[torch.arange(len(at_Q), device=at_Q.device), at_Q]
