"""Where weights come from: a file on this machine, or a checkpoint of known identity.

The Lucid checkpoint (`lucent`) is Google's `inception5h` graph, the network of Distill's
Circuits, Apache-2.0, converted to PyTorch by ProGamerGov.
"""

import hashlib
import os
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tendril.data.errors import WeightsError, WeightsNotFoundError
from tendril.data.store.atomic import locked, write_whole


@dataclass(frozen=True)
class Checkpoint:
    """A file of weights that can be fetched: its address, and what git calls its content."""

    name: str
    url: str
    git_blob: str
    licence: str


LUCENT = Checkpoint(
    name="inception5h.pth",
    url="https://github.com/ProGamerGov/pytorch-old-tensorflow-models/raw/master/inception5h.pth",
    git_blob="119f77db85c8352960933e025312b507d9a96ed7",
    licence="Apache-2.0",
)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file, or of a .pth file read with `weights_only`.

    Raises WeightsNotFoundError, and WeightsError where the file is damaged or something else.
    """
    if not path.is_file():
        raise WeightsNotFoundError(
            f"there is no file of weights at {path}; check --weights, or pass `lucent` to fetch "
            "the Lucid checkpoint."
        )
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # on damaged bytes torch's reader raises all kinds of things
        raise WeightsError(
            f"{path} should be a .safetensors or .pth file of weights and cannot be read "
            f"({type(error).__name__}: {str(error).partition('. ')[0][:100]}); if it is cut short "
            "or damaged fetch it again, and if a whole module was saved save its state_dict()."
        ) from error
    content = content if isinstance(content, Mapping) else {"": content}
    for name, entry in content.items():
        if not isinstance(entry, Tensor):
            raise WeightsError(
                f"{path} should hold a state dict, names and tensors, and holds a "
                f"{type(entry).__name__}{f' as {name!r}' if name else ''}; save the module's "
                "state_dict() alone."
            )
    return dict(content)


def load_weights(module: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Put weights into a module, all of them and no others.

    Raises WeightsError that names the first tensor that is missing, unknown or of another
    shape; `source` says in the sentence where they come from.
    """
    expected = module.state_dict()
    for name, tensor in expected.items():
        if name not in weights:
            raise WeightsError(
                f"{source} lacks the tensor {name} {list(tensor.shape)}: it holds "
                f"{len(weights)} tensors of another network; give the weights of this one."
            )
        if weights[name].shape != tensor.shape:
            raise WeightsError(
                f"the tensor {name} should be {list(tensor.shape)} and is "
                f"{list(weights[name].shape)} in {source}; give the weights of this network."
            )
    unknown = [name for name in weights if name not in expected]
    if unknown:
        raise WeightsError(
            f"{source} holds the tensor {unknown[0]}, which this network has not; give the "
            "weights of this network."
        )
    module.load_state_dict(dict(weights))


def draw_weights(module: nn.Module, seed: int) -> None:
    """Fill a module's convolutions and linear maps with noise of variance 2 over the number of
    inputs, and their biases with zeros: a control that has learned nothing.

    Source: He et al., "Delving deep into rectifiers" (1502.01852), eq. 10, under which activations
    keep their size through ReLUs.
    """
    rng = np.random.Generator(np.random.Philox(seed))
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            inputs = part.weight[0].numel()
            noise = rng.standard_normal(tuple(part.weight.shape), np.float32)
            part.weight.data.copy_(torch.from_numpy(noise * (2 / inputs) ** 0.5))
            if part.bias is not None:
                part.bias.data.zero_()


def fetch(checkpoint: Checkpoint, cache: Path | None = None) -> Path:
    """The file of a checkpoint, downloaded once and checked against its git blob id.

    Raises WeightsNotFoundError where it cannot be fetched, WeightsError where what arrives is
    something else; nothing of that is kept.
    """
    folder = cache or _cache_folder()
    path = folder / checkpoint.name
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder, wait=True):  # of several processes one fetches and the others wait
        if not path.is_file() or git_blob(path.read_bytes()) != checkpoint.git_blob:
            write_whole(path, _download(checkpoint))
    return path


def _download(checkpoint: Checkpoint) -> bytes:
    try:
        with urllib.request.urlopen(checkpoint.url, timeout=60) as answer:
            content: bytes = answer.read()
    except (OSError, HTTPException) as error:
        raise WeightsNotFoundError(
            f"{checkpoint.name} could not be fetched ({error}); on a machine with a network "
            f"get {checkpoint.url}, and pass the file with --weights."
        ) from error
    if git_blob(content) != checkpoint.git_blob:
        raise WeightsError(
            f"{checkpoint.url} should have git blob id {checkpoint.git_blob} and gave "
            f"{len(content):,} bytes with {git_blob(content)}; something on the way changes "
            "it, so get the file elsewhere and pass it with --weights."
        )
    return content


def git_blob(content: bytes) -> str:
    """What git calls a file of this content: SHA-1 over `blob <size>`, a zero, the bytes."""
    header = f"blob {len(content)}\0".encode()
    return hashlib.sha1(header + content, usedforsecurity=False).hexdigest()


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "tendril"
