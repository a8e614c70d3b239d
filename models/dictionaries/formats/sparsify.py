"""Dictionaries of EleutherAI's sparsify: cfg.json and sae.safetensors.

    z = TopK(ReLU((x - b_dec) encoder.weight^T + encoder.bias)),  x_hat = z W_dec + b_dec

Source: sparsify 1.3 (github.com/EleutherAI/sparsify), `sparsify/sparse_coder.py`.
"""

import re
from pathlib import Path
from typing import Any

from .files import (
    Imported,
    check_k,
    checked,
    config_number,
    made,
    matrix_size,
    read_config,
    read_safetensors,
    refuse_option,
)

CFG, WEIGHTS = "cfg.json", "sae.safetensors"
BLOCK = re.compile(r"^(?:.*\.)?(?:layers|h|blocks)\.(\d+)(?:\.(.+))?$")
PARTS = {  # what a module of a block gives, as TransformerLens calls it
    "": "hook_resid_post",
    "mlp": "hook_mlp_out",
    "attn": "hook_attn_out",
    "attention": "hook_attn_out",
    "self_attn": "hook_attn_out",
}


def is_sparsify(folder: Path) -> bool:
    """True if a folder has the files of this format."""
    return (folder / CFG).is_file() and (folder / WEIGHTS).is_file()


def read_sparsify(folder: Path, **_: Any) -> Imported:
    """Read a dictionary of sparsify. Raises RunDamagedError and ConfigError."""
    source, cfg = folder / WEIGHTS, read_config(folder / CFG)
    tensors = read_safetensors(source)
    for option in ("transcode", "skip_connection", "embed_skip", "signed"):
        if cfg.get(option):
            raise refuse_option(f"has the option {option}", folder / CFG)
    if "W_skip" in tensors:
        raise refuse_option("has a skip connection (W_skip)", source)
    if (activation := cfg.get("activation", "topk")) != "topk":
        raise refuse_option(f"has the activation function {activation!r:.40}", folder / CFG)
    latents, width = matrix_size(tensors, "encoder.weight", source)
    shapes: dict[str, tuple[int, ...]] = {
        "encoder.weight": (latents, width),
        "encoder.bias": (latents,),
        "W_dec": (latents, width),
        "b_dec": (width,),
    }
    used = checked(tensors, shapes, source)
    k = check_k(config_number(cfg, "k", folder / CFG), latents, folder / CFG)
    weights = (used["encoder.weight"].T, used["encoder.bias"], used["W_dec"], used["b_dec"])
    sae = made(*weights, "topk", pre_bias=True, k=k)
    files = (folder / CFG, source)
    return Imported("sparsify", sae, cfg, files, site=site_of_module(folder.resolve().name))


def site_of_module(module: str) -> str:
    """The site of a module's output by the name of TransformerLens, e.g. `layers.3.mlp` ->
    `blocks.3.hook_mlp_out`; a name that has none stays as it is, and one of no module is empty."""
    match = BLOCK.match(module)
    if match is None:
        return ""
    part = PARTS.get(match[2] or "")
    return f"blocks.{match[1]}.{part}" if part else module
