"""What a network must offer to be studied."""

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
    """A network that is studied.

    `module` is in eval mode, float32, without gradients. `preprocess` turns RGB images
    [B, 3, H, W] in 0..1 into what the module takes; images come as squares of `input_size`
    pixels. `sites` maps each site to the modules whose outputs, concatenated over channels,
    it is. `identity` holds all that can change the activations: it goes into the spec of
    every harvest. `logits` names the module whose output they are, where the network's own
    output is something else (probabilities, say). `unpadded` is the same network, of the same
    sites, without any padding, where there is one: it reads single cells out of small crops.
    """

    name: str
    module: nn.Module
    preprocess: Callable[[Tensor], Tensor]
    input_size: int
    sites: Mapping[str, tuple[str, ...]]
    identity: Mapping[str, Any] = field(default_factory=dict)
    logits: str = ""
    unpadded: nn.Module | None = None


@runtime_checkable  # the tests check types as they run
class Sited(Protocol):
    """Whatever has sites: an image network or a language model."""

    @property
    def name(self) -> str:
        """What it is called."""

    @property
    def sites(self) -> Mapping[str, tuple[str, ...]]:
        """Site -> the modules that it is the output of."""


def site_modules(subject: Sited, names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The modules of each site asked for; raises UnknownSiteError, with near names."""
    for name in names:
        if name not in subject.sites:
            near = difflib.get_close_matches(name, subject.sites, n=5, cutoff=0.4)
            known = near or list(subject.sites)[:5]
            raise UnknownSiteError(
                f"{subject.name} has no site {name!r}; "
                f"{'near names are' if near else 'it has'} {', '.join(known)}"
                f"{'' if near else ' ...'} ({len(subject.sites)} in all)."
            )
    return {name: subject.sites[name] for name in names}


def weights_digest(module: nn.Module) -> str:
    """SHA-256 over name, dtype, shape and bytes of every tensor of the state dict, by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        flat = tensor.detach().cpu().contiguous()
        digest.update(f"{name}:{flat.dtype}:{tuple(flat.shape)}:".encode())
        digest.update(flat.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
