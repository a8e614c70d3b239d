"""The interface of a subject: a network that is studied."""

import difflib
import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from tendril.data.errors import SubjectError, UnknownSiteError

MEMORY = "memory:"  # before the name of a network that a Python program holds
OWN = "structure"  # the entry of an identity that says that a network came from no file

# values whose repr is their content
PLAIN = (str, bytes, bytearray, bool, int, float, complex, NoneType, torch.dtype, torch.device)


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


REMEMBERED: dict[str, Callable[[], Subject]] = {}
"""Networks that this program holds, by the names that `load_subject` takes (memory.py)."""


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
    """SHA-256 over the entries of a state dict, sorted by name: of tensors name, dtype, shape and
    bytes; of other values (extra state, packed weights of quantised modules) their content.

    Raises SubjectError for an entry that cannot be told from another one by its content.
    """
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        _add(digest, name, value)
    return digest.hexdigest()


def check_stored_dtypes(folder: Path) -> None:
    """Raise SubjectError if a weight in a model's folder is stored as integers or booleans.

    Checked are the tensors of .safetensors files whose names end in `weight` or `bias`. A loader
    casts them silently to the dtype of the network, so a damaged file would be used. Files that
    cannot be read are left to the loader.
    """
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, "pt") as stored:
                names = [n for n in stored.keys() if n.endswith(("weight", "bias"))]  # noqa: SIM118
                dtypes = {name: str(stored.get_slice(name).get_dtype()) for name in names}
        except (SafetensorError, OSError):
            continue
        wrong = next((n for n, dtype in dtypes.items() if not dtype.startswith(("F", "BF"))), "")
        if wrong:
            raise SubjectError(
                f"the tensor {wrong} in {file} must hold floating-point numbers; it holds "
                f"{dtypes[wrong]}. Check that the files of the model are whole."
            )


def _add(digest: Any, name: str, value: object) -> None:
    """Add an entry of a state dict to a digest."""
    if isinstance(value, Tensor):
        _add_tensor(digest, name, value)
    elif isinstance(value, Mapping):
        for key in sorted(value, key=repr):
            _add(digest, f"{name}[{key!r}]", value[key])
    elif isinstance(value, list | tuple):
        digest.update(f"{name}:{type(value).__name__}:{len(value)}:".encode())
        for place, entry in enumerate(value):
            _add(digest, f"{name}[{place}]", entry)
    elif isinstance(value, np.ndarray):
        _add_tensor(digest, name, torch.from_numpy(value))
    elif isinstance(value, io.BytesIO):
        _add(digest, name, value.getvalue())
    elif isinstance(value, PLAIN):
        digest.update(f"{name}:{type(value).__name__}:{value!r}:".encode())
    else:
        raise SubjectError(
            f"the state of a network must be tensors, numbers, text, bytes or lists of them; "
            f"{name} is a {type(value).__name__}. Let get_extra_state() return one of those."
        )


def _add_tensor(digest: Any, name: str, tensor: Tensor) -> None:
    if tensor.is_meta:
        raise SubjectError(
            f"the weights of a network must be loaded; {name} has a shape and no values (it is on "
            "the meta device). Load the weights in the function that returns the network."
        )
    if tensor.is_quantized:
        told = tensor.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric)
        scale = (
            [tensor.q_scale(), tensor.q_zero_point()]
            if told
            else [tensor.q_per_channel_scales(), tensor.q_per_channel_zero_points()]
        )
        return _add(digest, name, [str(tensor.dtype), tensor.int_repr(), *scale])
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    flat = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    if type(flat) not in (Tensor, nn.Parameter) and hasattr(flat, "__tensor_flatten__"):
        inner, about = flat.__tensor_flatten__()  # a quantised tensor made of plain ones
        return _add(digest, name, [[getattr(flat, part) for part in inner], repr(about)])
    digest.update(f"{name}:{flat.dtype}:{tuple(flat.shape)}:".encode())
    digest.update(flat.reshape(-1).view(torch.uint8).numpy().tobytes())
    return None
