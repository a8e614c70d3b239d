"""What the readers of other tools' dictionaries share: files that are read safely, and checks.

No pickle is run, so that a file that was downloaded cannot run code: files of torch are read with
weights_only=True, and files of numpy with allow_pickle=False.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor

from tendril.data.errors import ConfigError, RunDamagedError, is_out_of_memory

from ..checkpoint import check_values
from ..sae import SAE
from ..sparsity import Sparsity, SparsityName

AGAIN = "Download the dictionary again."
Tensors = dict[str, Tensor]
Shapes = Mapping[str, tuple[int, ...]]


@final
@dataclass(frozen=True)
class Imported:
    """A dictionary that another tool wrote, for raw activations.

    `config` is the tool's own description, `model` and `site` what it says of the network, in the
    names of TransformerLens where they can be told, and `files` what was read.
    """

    format: str
    sae: SAE
    config: dict[str, Any]
    files: tuple[Path, ...]
    model: str = ""
    site: str = ""
    frequency_S: Float[Tensor, " s"] | None = None


def read_torch(path: Path) -> dict[str, Any]:
    """The state dict in a file that torch.save wrote. Raises RunDamagedError."""
    try:
        value = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        if is_out_of_memory(error):
            raise MemoryError from error
        raise RunDamagedError(
            f"{path} must hold a dict of tensors that torch.save wrote; it cannot be read without "
            "running code from it, which is refused, or it is damaged. Save "
            "`model.state_dict()` with torch.save, or download the file again."
        ) from error
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise RunDamagedError(
            f"{path} must hold a dict of tensors; got a {type(value).__name__}. {AGAIN}"
        )
    return dict(value)


def read_safetensors(path: Path) -> dict[str, Any]:
    """The tensors of a safetensors file. Raises RunDamagedError."""
    try:
        return dict(load_file(path))
    except Exception as error:
        if is_out_of_memory(error):
            raise MemoryError from error
        raise RunDamagedError(f"{path} must be a safetensors file ({error}). {AGAIN}") from error


def read_weights(path: Path) -> dict[str, Any]:
    """The tensors of a file of safetensors or of torch, by its suffix."""
    return read_safetensors(path) if path.suffix == ".safetensors" else read_torch(path)


def read_npz(path: Path) -> Tensors:
    """The arrays of an .npz file as tensors. Raises RunDamagedError."""
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            return {name: torch.from_numpy(np.array(file[name])) for name in file.files}
    except Exception as error:
        if is_out_of_memory(error):
            raise MemoryError from error
        raise RunDamagedError(
            f"{path} must be an .npz file of plain arrays; it cannot be read ({error}). {AGAIN}"
        ) from error


def read_config(path: Path) -> dict[str, Any]:
    """A JSON or YAML object. Raises RunDamagedError."""
    try:
        text = path.read_text("utf-8")
        if path.suffix == ".json":
            value = json.loads(text)
        else:
            value = import_module("yaml").safe_load(text)
    except OSError as error:
        raise RunDamagedError(f"{path} cannot be read ({error.strerror}). {AGAIN}") from error
    except Exception as error:
        first = str(error).partition("\n")[0]
        raise RunDamagedError(f"{path} cannot be parsed ({first}). {AGAIN}") from error
    if not isinstance(value, dict):
        raise RunDamagedError(f"{path} must hold an object; got a {type(value).__name__}. {AGAIN}")
    return value


def config_number(config: Mapping[str, Any], name: str, source: Path) -> int:
    """A whole number above 0 from a config. Raises RunDamagedError."""
    value = config.get(name)
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole and not (isinstance(value, float) and value.is_integer()):
        raise RunDamagedError(
            f"{name} in {source} must be a whole number above 0; got {value!r:.40}. {AGAIN}"
        )
    number = int(value)  # type: ignore[arg-type]  # one of the two
    if number < 1:
        raise RunDamagedError(f"{name} in {source} must be above 0; got {number}. {AGAIN}")
    return number


def matrix_size(tensors: Mapping[str, Any], name: str, source: Path) -> tuple[int, int]:
    """The shape of a matrix that must be there. Raises RunDamagedError."""
    if name not in tensors:
        listed = ", ".join(sorted(tensors)[:12]) or "nothing"
        raise RunDamagedError(f"{source} must hold the matrix {name}; it holds {listed}. {AGAIN}")
    value = tensors[name]
    if not isinstance(value, Tensor) or value.ndim != 2 or not value.numel():
        got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise RunDamagedError(f"{name} in {source} must be a matrix; got {got}. {AGAIN}")
    return value.shape[0], value.shape[1]


def checked(tensors: Mapping[str, Any], shapes: Shapes, source: Path) -> Tensors:
    """The tensors of these names in float32. Raises RunDamagedError unless all are there, with
    these shapes, and hold finite floating-point numbers."""
    got = {
        name: tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        for name in shapes
        if (value := tensors.get(name)) is not None
    }
    for name, shape in shapes.items():
        if name not in got:
            raise RunDamagedError(f"{source} must hold the tensor {name}; it is missing. {AGAIN}")
        if got[name] != shape:
            raise RunDamagedError(
                f"{name} in {source} must have the shape {shape}; got {got[name]}. {AGAIN}"
            )
    used = {name: tensors[name].detach() for name in shapes}
    for name, tensor in used.items():
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
            raise RunDamagedError(f"{name} in {source} must be a dense tensor. {AGAIN}")
    check_values(used, source, RunDamagedError, AGAIN)
    return {name: tensor.float() for name, tensor in used.items()}


def check_k(k: int, latents: int, source: Path) -> int:
    """k, if there are so many latents. Raises RunDamagedError."""
    if k > latents:
        raise RunDamagedError(
            f"k in {source} must be at most the number of latents, {latents}; got {k}. {AGAIN}"
        )
    return k


def made(
    W_enc_DS: Float[Tensor, "d s"],
    b_enc_S: Float[Tensor, " s"],
    W_dec_SD: Float[Tensor, "s d"],
    b_dec_D: Float[Tensor, " d"],
    name: SparsityName,
    *,
    pre_bias: bool,
    k: int = 0,
    threshold_S: Float[Tensor, " s"] | None = None,
) -> SAE:
    """The SAE of these weights. Thresholds below zero act as zero, and are stored as zero."""
    width, latents = W_enc_DS.shape
    sae = SAE(width, latents, Sparsity(name, k), pre_bias=pre_bias)
    weights = {"W_enc": W_enc_DS, "b_enc": b_enc_S, "W_dec": W_dec_SD, "b_dec": b_dec_D}
    if threshold_S is not None:
        weights["threshold"] = threshold_S.clamp_min(0)
    sae.load_state_dict({name: tensor.contiguous() for name, tensor in weights.items()})
    return sae.eval().requires_grad_(False)


def just_below(threshold: Tensor) -> Tensor:
    """The next smaller float: z >= t is z > just_below(t), which is how our thresholds work."""
    return torch.nextafter(threshold, torch.full_like(threshold, -torch.inf))


def gated(
    W_enc_DS: Float[Tensor, "d s"],
    r_mag_S: Float[Tensor, " s"],
    b_mag_S: Float[Tensor, " s"],
    b_gate_S: Float[Tensor, " s"],
    W_dec_SD: Float[Tensor, "s d"],
    b_dec_D: Float[Tensor, " d"],
) -> SAE:
    """A gated SAE as one with thresholds: the gate is open if the magnitude is above one.

    W_enc x + b_gate > 0 is exp(r_mag) W_enc x + b_mag > b_mag - exp(r_mag) b_gate.
    """
    factor_S = r_mag_S.exp()
    threshold_S = b_mag_S - factor_S * b_gate_S
    weights = (W_enc_DS * factor_S, b_mag_S, W_dec_SD, b_dec_D)
    return made(*weights, "jumprelu", pre_bias=True, threshold_S=threshold_S)


def refuse_option(what: str, source: Path) -> ConfigError:
    """The error for a dictionary that is not of a kind that our SAE can represent."""
    return ConfigError(
        f"the dictionary must be an encoder, a sparsity function and a decoder; {source} {what}, "
        "which cannot be folded into weights. Choose another dictionary."
    )
