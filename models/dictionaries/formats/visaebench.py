"""The layout of ViSAEBench: weights and a config in a folder, or a subfolder of a repository.

    config.json         activation (topk, batchtopk or jumprelu), input_dim D, hidden_dim S, k,
                        threshold (batchtopk); config.yaml is read, too
    model.safetensors   encoder.weight [S, D], encoder.bias [S], decoder.weight [S, D],
                        decoder.bias [D] (optional), jump_thresholds [S] (jumprelu); sae.pt and
                        model.pt are read, too

    codes = ReLU(x encoder.weight^T + encoder.bias),  x_hat = z decoder.weight + decoder.bias
    z     = TopK(codes), codes 1[codes >= threshold] or codes 1[codes > jump_thresholds]

Files with the names of overcomplete (encoder.final_block.0.weight, dictionary._weights) are read as
ViSAEBench reads them: with the atoms as they are stored, times exp(multiplier).

Source: visaebench 0.1 (github.com/vraj130/visaebench), `visaebench/hub`.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from tendril.data.errors import ConfigError, RunDamagedError
from tendril.data.store.atomic import locked, remove_asides, write_whole

from ..sae import SAE
from .files import (
    AGAIN,
    Imported,
    check_k,
    checked,
    config_number,
    just_below,
    made,
    matrix_size,
    read_config,
    read_weights,
)
from .overcomplete import ATOMS, ENCODER, refuse_other_kinds

CONFIGS = ("config.json", "config.yaml", "config.yml")
WEIGHTS = ("sae.pt", "model.safetensors", "model.pt")
ACTIVATIONS = ("topk", "batchtopk", "jumprelu")
DEFAULT_THRESHOLD = 0.01  # of a jumprelu without thresholds


def is_visaebench(folder: Path) -> bool:
    """True if a folder has the files of this format."""
    return any((folder / n).is_file() for n in CONFIGS) and any(
        (folder / n).is_file() for n in WEIGHTS
    )


def read_visaebench(folder: Path, **_: Any) -> Imported:
    """Read a dictionary in the layout of ViSAEBench. Raises RunDamagedError and ConfigError."""
    path = next(folder / name for name in CONFIGS if (folder / name).is_file())
    source = next(folder / name for name in WEIGHTS if (folder / name).is_file())
    config, state = read_config(path), read_weights(source)
    named = config.get("activation") or config.get("sae_type") or config.get("architecture")
    activation = str(named or "topk").lower()
    if activation not in ACTIVATIONS:
        raise ConfigError(
            f"activation in {path} must be one of {', '.join(ACTIVATIONS)}; got "
            f"{activation[:40]!r}. Choose another dictionary."
        )
    W_enc, b_enc, W_dec, b_dec = _weights(state, source)
    width, latents = W_enc.shape
    for name, size in (("input_dim", width), ("hidden_dim", latents)):
        if name in config and config_number(config, name, path) != size:
            raise RunDamagedError(
                f"{name} in {path} must be that of {source.name}, {size}; got {config[name]}. "
                f"{AGAIN}"
            )
    weights = (W_enc, b_enc, W_dec, b_dec)
    if activation == "topk":
        k = check_k(config_number(config, "k", path), latents, path)
        sae = made(*weights, "topk", pre_bias=False, k=k)
    else:
        threshold_S = _thresholds(activation, config, state, latents, source)
        sae = made(*weights, "jumprelu", pre_bias=False, threshold_S=threshold_S)
    site, model = config.get("site"), config.get("model_name")
    return Imported(
        "visaebench",
        sae,
        config,
        (path, source),
        model=model if isinstance(model, str) else "",
        site=site if isinstance(site, str) else "",
    )


def _weights(state: Mapping[str, Any], source: Path) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """W_enc, b_enc, W_dec and b_dec of either convention."""
    overcomplete = "encoder.weight" not in state and f"{ENCODER}0.weight" in state
    encoder = f"{ENCODER}0" if overcomplete else "encoder"
    atoms = ATOMS if overcomplete else "decoder.weight"
    if overcomplete:
        refuse_other_kinds(state, source)
    latents, width = matrix_size(state, f"{encoder}.weight", source)
    shapes: dict[str, tuple[int, ...]] = {
        f"{encoder}.weight": (latents, width),
        f"{encoder}.bias": (latents,),
        atoms: (latents, width),
    }
    if not overcomplete and "decoder.bias" in state:
        shapes["decoder.bias"] = (width,)
    if overcomplete and "dictionary.multiplier" in state:
        shapes["dictionary.multiplier"] = ()
    used = checked(state, shapes, source)
    factor = used.get("dictionary.multiplier", torch.zeros(())).exp()
    b_dec = used.get("decoder.bias", torch.zeros(width))
    return used[f"{encoder}.weight"].T, used[f"{encoder}.bias"], used[atoms] * factor, b_dec


def _thresholds(
    activation: str, config: Mapping[str, Any], state: Mapping[str, Any], latents: int, source: Path
) -> Tensor:
    if activation == "jumprelu":
        for name in ("jump_thresholds", "thresholds"):
            if name in state:
                return checked(state, {name: (latents,)}, source)[name]
        return torch.full((latents,), DEFAULT_THRESHOLD)
    value = config.get("threshold")
    if value is None and "_running_threshold" in state:
        value = checked(state, {"_running_threshold": ()}, source)["_running_threshold"].item()
    value = 0.0 if value is None else value
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e30:
        raise RunDamagedError(
            f"threshold of {source.parent} must be a finite number; got {value!r:.40}. {AGAIN}"
        )
    return just_below(torch.tensor(float(value))).expand(latents)


def export_visaebench(sae: SAE, folder: Path, metadata: Mapping[str, Any] | None = None) -> Path:
    """Write a dictionary to a folder that `visaebench.hub.load_sae` reads.

    b_dec is folded into the encoder's bias where it is subtracted from the input. A dictionary with
    ReLU becomes jumprelu with thresholds of zero. Raises ConfigError if the folder already holds a
    dictionary.
    """
    with torch.no_grad():
        bias = sae.b_enc - sae.b_dec @ sae.W_enc if sae.pre_bias else sae.b_enc
        zero = torch.zeros(sae.latents)
        threshold = zero if sae.threshold is None else sae.threshold.clamp_min(0)
        named = {
            "encoder.weight": sae.W_enc.T,
            "encoder.bias": bias,
            "decoder.weight": sae.W_dec,
            "decoder.bias": sae.b_dec,
        }
        topk = sae.sparsity.name == "topk"
        if not topk:
            named["jump_thresholds"] = threshold
        tensors = {name: t.float().cpu().contiguous().clone() for name, t in named.items()}
    config: dict[str, Any] = {
        "activation": "topk" if topk else "jumprelu",
        "input_dim": sae.width,
        "hidden_dim": sae.latents,
        **({"k": sae.sparsity.k} if topk else {}),
        **(metadata or {}),
    }
    weights = save(tensors)
    present = folder / WEIGHTS[1]
    if (folder / CONFIGS[0]).exists() or (present.exists() and present.read_bytes() != weights):
        raise ConfigError(f"{folder} already holds a dictionary. Choose another folder.")
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        remove_asides(folder, deep=False)
        write_whole(present, weights)
        write_whole(folder / CONFIGS[0], (json.dumps(config, indent=2) + "\n").encode())
    return folder
