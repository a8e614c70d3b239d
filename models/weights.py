"""Load network weights from a local file, or download a checkpoint of known hash.

The Lucid checkpoint (`lucent`) is Google's `inception5h` graph, the network of Distill's
Circuits thread (Apache-2.0), converted to PyTorch by ProGamerGov.
"""

import hashlib
import os
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tendril.data.errors import WeightsError, WeightsNotFoundError, is_out_of_memory
from tendril.data.store.atomic import locked, remove_asides, write_whole

from .dictionaries.checkpoint import check_values


@dataclass(frozen=True)
class Checkpoint:
    """A weights file to download: its URL, and the git blob id that its content must have."""

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


def read_weights(path: Path, nested: Sequence[str] = ()) -> dict[str, Tensor]:
    """Read the tensors of a .safetensors file, or of a .pth file with `weights_only=True`. `nested`
    are names under which a file may keep the state dict, beside other entries.

    Raises WeightsNotFoundError if there is no such file, and WeightsError if it is damaged or
    does not hold a state dict.
    """
    if not path.is_file():
        raise WeightsNotFoundError(
            f"there is no weights file at {path}. Check --weights, or pass `lucent` to download "
            "the Lucid checkpoint."
        )
    path.open("rb").close()  # a file that may not be read is not a damaged one
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's reader raises exceptions of many types on damaged bytes
        if is_out_of_memory(error):
            raise MemoryError from error
        raise WeightsError(
            f"{path} must be a .safetensors or .pth weights file, but it cannot be read "
            f"({type(error).__name__}: {str(error).partition('. ')[0][:100]}). If it is truncated "
            "or damaged, download it again; if it holds a whole module, save its state_dict()."
        ) from error
    content = content if isinstance(content, Mapping) else {"": content}
    inner = (content[name] for name in nested if isinstance(content.get(name), Mapping))
    content = next(inner, content)
    for name, entry in content.items():
        if not isinstance(entry, Tensor):
            raise WeightsError(
                f"{path} must hold a state dict of names and tensors; got a "
                f"{type(entry).__name__}{f' as {name!r}' if name else ''}. Save only the module's "
                "state_dict()."
            )
    return dict(content)


def load_weights(module: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Load weights into a module. Names and shapes must match the module's state dict exactly.

    `source` says in error messages where the weights come from. Raises WeightsError, which names
    the first tensor that is missing, unknown, of another shape, or not finite.
    """
    expected = module.state_dict()
    for name, tensor in expected.items():
        if name not in weights:
            raise WeightsError(
                f"{source} must hold the tensor {name} {list(tensor.shape)}; it holds "
                f"{len(weights)} tensors, without this one. Give the weights of this network."
            )
        if weights[name].shape != tensor.shape:
            raise WeightsError(
                f"the tensor {name} in {source} must have shape {list(tensor.shape)}; got "
                f"{list(weights[name].shape)}. Give the weights of this network."
            )
    unknown = [name for name in weights if name not in expected]
    if unknown:
        raise WeightsError(
            f"{source} holds the tensor {unknown[0]}, which this network does not have. Give the "
            "weights of this network."
        )
    numbers = {name: weights[name] for name in expected if expected[name].is_floating_point()}
    check_values(numbers, source, WeightsError, "Give the weights of a trained network.")
    module.load_state_dict(dict(weights))


def draw_weights(module: nn.Module, seed: int) -> None:
    """Initialise a module at random, as an untrained control.

    Weights of convolutions and linear maps are drawn from N(0, 2 / fan_in), biases are zero, so
    that ReLUs preserve the variance of activations. Source: He et al., "Delving deep into
    rectifiers" (1502.01852), eq. 10.
    """
    rng = np.random.Generator(np.random.Philox(seed))
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            fan_in = part.weight[0].numel()
            noise = rng.standard_normal(tuple(part.weight.shape), np.float32)
            part.weight.data.copy_(torch.from_numpy(noise * (2 / fan_in) ** 0.5))
            if part.bias is not None:
                part.bias.data.zero_()


def fetch(checkpoint: Checkpoint, cache: Path | None = None) -> Path:
    """Return the path of a checkpoint, downloading it on first use.

    The file is checked against its git blob id; a mismatched download is discarded. `cache`
    defaults to `$XDG_CACHE_HOME/tendril`. Raises WeightsNotFoundError if the download fails, and
    WeightsError if its content has another id.
    """
    folder = cache or _cache_folder()
    path = folder / checkpoint.name
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder, wait=True):  # one process downloads while the others wait
        remove_asides(folder, deep=False)
        if not path.is_file() or git_blob(path.read_bytes()) != checkpoint.git_blob:
            write_whole(path, _download(checkpoint))
    return path


def _download(checkpoint: Checkpoint) -> bytes:
    try:
        with urllib.request.urlopen(checkpoint.url, timeout=60) as response:
            content: bytes = response.read()
    except (OSError, HTTPException) as error:
        raise WeightsNotFoundError(
            f"{checkpoint.name} could not be downloaded ({error}). On a machine with a network, "
            f"download {checkpoint.url} and pass the file with --weights."
        ) from error
    if git_blob(content) != checkpoint.git_blob:
        raise WeightsError(
            f"{checkpoint.url} must have git blob id {checkpoint.git_blob}; got "
            f"{len(content):,} bytes with id {git_blob(content)}. Get the file from another source "
            "and pass it with --weights."
        )
    return content


def git_blob(content: bytes) -> str:
    """The git blob id of a content: SHA-1 of `blob <size>`, a null byte and the content."""
    header = f"blob {len(content)}\0".encode()
    return hashlib.sha1(header + content, usedforsecurity=False).hexdigest()


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "tendril"
