"""The interface of a subject: a network that is studied."""

import difflib
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from tendril.data.errors import UnknownSiteError


@dataclass(frozen=True)
class Subject:
    """A vision network that is studied.

    - `module` is in eval mode, in float32, without gradients.
    - `preprocess` turns RGB images [B, 3, H, W] in 0..1, squares of `input_size` pixels, into the
      input of the module.
    - `sites` maps each site, a place where activations are read, to the modules whose outputs are
      concatenated over channels there.
    - `identity` holds everything that can change the activations. It is part of the spec of every
      harvest.
    - `logits` names the module that gives the logits, if the output of the network is something
      else, such as probabilities.
    - `unpadded` is the same network with the same sites but without padding, or None. It computes
      single cells from small crops.
    """

    name: str
    module: nn.Module
    preprocess: Callable[[Tensor], Tensor]
    input_size: int
    sites: Mapping[str, tuple[str, ...]]
    identity: Mapping[str, Any] = field(default_factory=dict)
    logits: str = ""
    unpadded: nn.Module | None = None


@runtime_checkable  # for the type checks at run time in the tests
class Sited(Protocol):
    """A network with sites: a vision network or a language model."""

    @property
    def name(self) -> str:
        """Name of the network."""

    @property
    def sites(self) -> Mapping[str, tuple[str, ...]]:
        """Site -> the modules whose outputs it concatenates."""


def site_modules(subject: Sited, names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The modules of each named site. Raises UnknownSiteError, with near names."""
    for name in names:
        if name not in subject.sites:
            near = difflib.get_close_matches(name, subject.sites, n=5, cutoff=0.4)
            known = ", ".join(near or list(subject.sites)[-5:])
            raise UnknownSiteError(
                f"{subject.name} has no site {name!r}; "
                f"{'near names are' if near else 'the last are'} {known} "
                f"({len(subject.sites)} in all)."
            )
    return {name: subject.sites[name] for name in names}


def weights_digest(module: nn.Module) -> str:
    """SHA-256 over name, dtype, shape and bytes of the tensors of a state dict, sorted by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        flat = tensor.detach().cpu().contiguous()
        digest.update(f"{name}:{flat.dtype}:{tuple(flat.shape)}:".encode())
        digest.update(flat.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
