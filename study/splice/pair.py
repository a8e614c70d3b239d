"""Splicing a crosscoder of two networks into one of them, while the other reads the same text."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from tendril.data.errors import ConfigError
from tendril.data.store.paired import PairedStores
from tendril.models.dictionaries.checkpoint import read_config
from tendril.models.dictionaries.sae import SAE
from tendril.models.sites.hooks import recording
from tendril.models.sites.language_splice import TokenBatch
from tendril.models.sites.splice import Reconstruction, to_vectors
from tendril.models.subjects.language import LanguageSubject
from tendril.models.subjects.subject import site_modules

from ..core.language_inputs import LanguageInputs, check_causal, language_subject_of
from ..core.stores import rows_of_run, store_of_run


@final
class PairReconstruction:
    """Substitute x_hat of one network: both networks' vectors are encoded, and one's are decoded.

    `others` are set before each batch by `Beside.reading`. `vectors` and `on` count as those of
    `Reconstruction` do.
    """

    def __init__(self, dictionary: SAE, width: int, first: bool) -> None:
        self._whole, self._width, self._first = Reconstruction(dictionary), width, first
        self.others: Float[Tensor, "n _"] = torch.zeros(0, 0)

    def __call__(self, x_ND: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        pair = (x_ND.float(), self.others) if self._first else (self.others, x_ND.float())
        made = self._whole(torch.cat(pair, dim=1))
        return made[:, : self._width] if self._first else made[:, -self._width :]

    @property
    def vectors(self) -> int:
        """Vectors that were replaced."""
        return self._whole.vectors

    @property
    def on(self) -> int:
        """Latents that were active at them."""
        return self._whole.on


@final
@dataclass(frozen=True)
class Beside:
    """The network that is not spliced, and its site. `first` is True if the spliced one is the
    first of the pair, and `width` is that of its site."""

    subject: LanguageSubject
    site: str
    width: int
    first: bool

    def reading(
        self, batches: Iterable[TokenBatch], reconstructions: Sequence[PairReconstruction]
    ) -> Iterator[TokenBatch]:
        """The batches, each after this network has read it for the reconstructions."""
        names = site_modules(self.subject, [self.site])
        with recording(self.subject.module, names) as forward:
            for batch in batches:
                acts = to_vectors(forward(batch.tokens_BT))[batch.kept_BT.flatten()].float()
                for one in reconstructions:
                    one.others = acts
                yield batch


def find_pair(runs: Sequence[Path], home: str, network: str) -> tuple[LanguageInputs, Beside]:
    """What crosscoders of the same two networks are spliced into, and the other network.

    Raises ConfigError where runs are of other pairs, where a network has several sites, and for a
    network that is none of the two; and what `find_language_inputs` raises.
    """
    parts = [list(read_config(run).get("sites") or ()) for run in runs]
    pairs = [_pair(run, home) for run in runs]
    names = [part.rpartition(":")[0] for part in parts[0]]
    same = {tuple((store.name, site) for store, site in one.parts.values()) for one in pairs}
    if len(same) > 1 or len(names) != 2:
        raise ConfigError(
            "runs that are spliced together must be crosscoders of one site of each of the same "
            f"two networks; got {', '.join(run.resolve().name for run in runs)}. Splice them one "
            "by one."
        )
    if network and network not in names:
        raise ConfigError(f"--network must be {' or '.join(names)}; got {network!r}.")
    at = names.index(network) if network else 0
    (store, site), (theirs, other) = (list(pairs[0].parts.values())[i] for i in (at, 1 - at))
    subject, second = language_subject_of(store, site), language_subject_of(theirs, other)
    check_causal(subject, "splice")
    found = LanguageInputs(tuple(runs), site, store, subject)
    return found, Beside(second, other, store.width(site), at == 0)


def _pair(run: Path, home: str) -> PairedStores:
    rows = rows_of_run(run, store_of_run(run, home), home)
    if isinstance(rows, PairedStores):
        return rows
    raise ConfigError(
        f"crosscoders of two networks must be spliced without other runs; {run.resolve().name} is "
        "of one network. Splice it by itself."
    )
