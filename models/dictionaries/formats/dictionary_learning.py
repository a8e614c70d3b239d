"""Dictionaries of dictionary_learning: ae.pt, and config.json with `trainer.dict_class`.

    class                    z, of pre = encoder(x) or encoder(x - bias)
    AutoEncoder              ReLU(pre), after the decoder's columns were scaled to norm 1; bias
    AutoEncoderNew           ReLU(pre); no bias at the input
    GatedAutoEncoder         1[pre + gate_bias > 0] ReLU(exp(r_mag) pre + mag_bias); bias
    AutoEncoderTopK          TopK(ReLU(pre)); bias
    BatchTopKSAE             ReLU(pre) 1[ReLU(pre) > threshold]; bias
    MatryoshkaBatchTopKSAE   the same, with W_enc [D, S] and W_dec [S, D]
    JumpReluAutoEncoder      ReLU(pre) 1[pre > threshold]; no bias at the input

Source: dictionary_learning (github.com/saprmarks/dictionary_learning), `dictionary.py`,
`trainers/top_k.py`, `trainers/batch_top_k.py`, and `load_dictionary` of `utils.py`.
"""

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tendril.data.errors import ConfigError, RunDamagedError

from ..sae import SAE
from .files import (
    AGAIN,
    Imported,
    Tensors,
    check_k,
    checked,
    config_number,
    gated,
    made,
    matrix_size,
    read_config,
    read_torch,
)
from .sparsify import site_of_module

CONFIG, WEIGHTS = "config.json", "ae.pt"
LINEAR = ("encoder.weight", "encoder.bias", "decoder.weight")
SQUARE = ("W_enc", "b_enc", "W_dec", "b_dec")
CLASSES = {
    "AutoEncoder": (*LINEAR, "bias"),
    "AutoEncoderNew": (*LINEAR, "decoder.bias"),
    "GatedAutoEncoder": (
        *("encoder.weight", "decoder.weight", "decoder_bias"),
        *("r_mag", "gate_bias", "mag_bias"),
    ),
    "AutoEncoderTopK": (*LINEAR, "b_dec"),
    "BatchTopKSAE": (*LINEAR, "b_dec", "threshold"),
    "MatryoshkaBatchTopKSAE": (*SQUARE, "threshold"),
    "JumpReluAutoEncoder": (*SQUARE, "threshold"),
}
OF_WIDTH = ("bias", "decoder.bias", "decoder_bias", "b_dec")  # vectors of D; the others are of S
SUBMODULE = re.compile(r"^(resid_post|mlp_out|attn_out)_layer_(\d+)$")


def is_dictionary_learning(folder: Path) -> bool:
    """True if a folder has the weights of this format."""
    return (folder / WEIGHTS).is_file()


def read_dictionary_learning(folder: Path, **_: Any) -> Imported:
    """Read a dictionary of dictionary_learning. Raises RunDamagedError and ConfigError."""
    config, state = read_config(folder / CONFIG), read_torch(folder / WEIGHTS)
    trainer = config.get("trainer")
    if not isinstance(trainer, dict):
        raise RunDamagedError(
            f"{folder / CONFIG} must have the entry trainer, an object; got {trainer!r:.40}. "
            f"{AGAIN}"
        )
    kind = str(trainer.get("dict_class"))
    if kind not in CLASSES:
        raise ConfigError(
            f"trainer.dict_class in {folder / CONFIG} must be one of {', '.join(CLASSES)}; got "
            f"{kind!r:.60}. Choose another dictionary."
        )
    sae = _sae(kind, state, trainer, folder)
    model = trainer.get("lm_name")
    files = (folder / CONFIG, folder / WEIGHTS)
    named = str(model) if isinstance(model, str) else ""
    site = _site(trainer)
    return Imported("dictionary_learning", sae, config, files, model=named, site=site)


def _sae(kind: str, state: dict[str, Any], trainer: dict[str, Any], folder: Path) -> SAE:
    source = folder / WEIGHTS
    square = "W_enc" in CLASSES[kind]
    first = matrix_size(state, "W_enc" if square else "encoder.weight", source)
    width, latents = first if square else first[::-1]
    shapes = {name: _shape(name, kind, width, latents) for name in CLASSES[kind]}
    used = checked(state, shapes, source)
    if kind == "GatedAutoEncoder":
        biases = (used["r_mag"], used["mag_bias"], used["gate_bias"])
        decoder = (used["decoder.weight"].T, used["decoder_bias"])
        return gated(used["encoder.weight"].T, *biases, *decoder)
    b_dec = next(used[name] for name in OF_WIDTH if name in used)
    if kind == "AutoEncoder":
        _scale_to_one(used)
    if square:
        weights = (used["W_enc"], used["b_enc"], used["W_dec"], b_dec)
    else:
        encoder = (used["encoder.weight"].T, used["encoder.bias"])
        weights = (*encoder, used["decoder.weight"].T, b_dec)
    pre_bias = kind not in ("AutoEncoderNew", "JumpReluAutoEncoder")
    if "threshold" in used:
        threshold_S = used["threshold"].expand(latents)
        return made(*weights, "jumprelu", pre_bias=pre_bias, threshold_S=threshold_S)
    if kind == "AutoEncoderTopK":
        return made(*weights, "topk", pre_bias=True, k=_k(state, trainer, latents, folder))
    return made(*weights, "relu", pre_bias=pre_bias)


def _shape(name: str, kind: str, width: int, latents: int) -> tuple[int, ...]:
    if name in ("encoder.weight", "W_dec"):
        return (latents, width)
    if name in ("decoder.weight", "W_enc"):
        return (width, latents)
    if name == "threshold" and kind != "JumpReluAutoEncoder":
        return ()
    return (width,) if name in OF_WIDTH else (latents,)


def _scale_to_one(used: Tensors) -> None:
    """Scale the decoder's columns to norm 1, and the encoder the other way, as
    `AutoEncoder.from_pretrained` does."""
    norm_S = used["decoder.weight"].norm(dim=0)
    if torch.allclose(norm_S, torch.ones_like(norm_S)):
        return
    kept_S: Tensor = norm_S.clamp_min(torch.finfo(norm_S.dtype).tiny)
    used["decoder.weight"] = used["decoder.weight"] / kept_S
    used["encoder.weight"] = used["encoder.weight"] * norm_S[:, None]
    used["encoder.bias"] = used["encoder.bias"] * norm_S


def _k(state: dict[str, Any], trainer: dict[str, Any], latents: int, folder: Path) -> int:
    k = check_k(config_number(trainer, "k", folder / CONFIG), latents, folder / CONFIG)
    stored = state.get("k", k)
    number = stored.item() if isinstance(stored, Tensor) and stored.numel() == 1 else stored
    if number != k:
        raise RunDamagedError(
            f"k must be the same in {folder / CONFIG} and in {WEIGHTS}; got {k} and "
            f"{number!r:.40}. {AGAIN}"
        )
    return k


def _site(trainer: dict[str, Any]) -> str:
    """The site by the name of TransformerLens; a layer without a module is the residual stream."""
    module, layer = trainer.get("submodule_name"), trainer.get("layer")
    if isinstance(module, str) and module:
        match = SUBMODULE.match(module)
        return f"blocks.{match[2]}.hook_{match[1]}" if match else site_of_module(module) or module
    return f"blocks.{layer}.hook_resid_post" if isinstance(layer, int) else ""
