"""Dictionaries of overcomplete: a file with `model.state_dict()` of an SAE.

    codes = ReLU(norm(x final_block.0.weight^T + final_block.0.bias))
    z     = TopK(codes), or codes 1[codes >= exp(thresholds)] (JumpSAE), or codes 1[codes >= t]
    x_hat = z W,  W the rows of dictionary._weights, normalised to L2 norm 1, times exp(multiplier)

`norm` is a BatchNorm with its running statistics, or nothing. The file says neither k nor the t of
BatchTopKSAE. A file that holds a whole model (torch.save(model)) would run code when it is read,
and is refused.

Source: overcomplete 0.3 (github.com/KempnerInstitute/overcomplete), `overcomplete/sae`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tendril.data.errors import ConfigError

from .files import (
    Imported,
    Tensors,
    check_k,
    checked,
    just_below,
    made,
    matrix_size,
    read_weights,
    refuse_option,
)

ENCODER, ATOMS = "encoder.final_block.", "dictionary._weights"
NORM = ("weight", "bias", "running_mean", "running_var")
TINY = 1e-8  # added to the norms of atoms
EPSILON = 1e-5  # of BatchNorm


def has_overcomplete_keys(state: Mapping[str, Any]) -> bool:
    """True if a state dict has the entries of this format."""
    return f"{ENCODER}0.weight" in state and any(name.startswith("dictionary.") for name in state)


def read_overcomplete(
    path: Path, *, k: int | None = None, threshold: float | None = None, **_: Any
) -> Imported:
    """Read a dictionary of overcomplete; `k` is that of TopKSAE, 0 for a plain SAE, and `threshold`
    the `running_threshold` of BatchTopKSAE.

    Raises RunDamagedError, and ConfigError for encoders of several layers and for atoms that are
    made from other tensors.
    """
    state = read_weights(path)
    refuse_other_kinds(state, path)
    latents, width = matrix_size(state, f"{ENCODER}0.weight", path)
    shapes: dict[str, tuple[int, ...]] = {
        f"{ENCODER}0.weight": (latents, width),
        f"{ENCODER}0.bias": (latents,),
        ATOMS: (latents, width),
    }
    optional = {"dictionary.multiplier": (), "thresholds": (latents,)}
    norm = {f"{ENCODER}1.{name}": (latents,) for name in NORM}
    if any(name in state for name in norm):
        optional |= norm
    shapes |= {name: s for name, s in optional.items() if name in state or name in norm}
    used = checked(state, shapes, path)
    weight, bias = used[f"{ENCODER}0.weight"], used[f"{ENCODER}0.bias"]
    if f"{ENCODER}1.weight" in used:
        weight, bias = _without_norm(weight, bias, used)
    atoms = used[ATOMS] / (used[ATOMS].norm(dim=1, keepdim=True) + TINY)
    if "dictionary.multiplier" in used:
        atoms = atoms * used["dictionary.multiplier"].exp()
    weights = (weight.T, bias, atoms, torch.zeros(width))
    stored = _threshold(state, used, latents, path)
    if stored is None and threshold is not None:
        stored = torch.tensor(threshold).expand(latents)
    if stored is not None:
        below = just_below(stored)
        sae = made(*weights, "jumprelu", pre_bias=False, threshold_S=below)
    else:
        if k is None:
            raise ConfigError(
                f"--k must be given for {path}, which does not say how many latents are active. "
                "Give the top_k of TopKSAE, or 0 for a plain SAE with ReLU; of BatchTopKSAE give "
                "--threshold, its running_threshold."
            )
        k = check_k(k, latents, path)
        sae = made(*weights, "topk" if k else "relu", pre_bias=False, k=k)
    return Imported("overcomplete", sae, {"k": k, "threshold": threshold}, (path,))


def refuse_other_kinds(state: Mapping[str, Any], path: Path) -> None:
    """Raise ConfigError for an encoder of several layers, or atoms that are not stored."""
    if any(name.startswith("encoder.") and not name.startswith(ENCODER) for name in state):
        raise refuse_option("has an encoder of several layers", path)
    norm = f"{ENCODER}1."
    if f"{norm}weight" in state and f"{norm}running_mean" not in state:
        raise refuse_option("normalises the pre-activations of each vector (LayerNorm)", path)
    if ATOMS not in state:
        raise ConfigError(
            f"{path} must hold its atoms as {ATOMS}; it makes them from other tensors "
            "(archetypal or quantised). Save its get_dictionary() under that name."
        )


def _without_norm(weight: Tensor, bias: Tensor, used: Tensors) -> tuple[Tensor, Tensor]:
    """Fold a BatchNorm with running statistics into the layer before it."""
    scale, shift, mean, variance = (used[f"{ENCODER}1.{name}"] for name in NORM)
    factor = scale / (variance + EPSILON).sqrt()
    return weight * factor[:, None], (bias - mean) * factor + shift


def _threshold(state: Mapping[str, Any], used: Tensors, latents: int, path: Path) -> Tensor | None:
    """The thresholds of JumpSAE, or the one of BatchTopKSAE, if the file has any."""
    if "thresholds" in used:
        return used["thresholds"].exp()
    for name in ("running_threshold", "_running_threshold"):
        if isinstance(state.get(name), Tensor):
            return checked(state, {name: ()}, path)[name].expand(latents)
    return None
