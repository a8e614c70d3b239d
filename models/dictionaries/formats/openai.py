"""Dictionaries of OpenAI's sparse_autoencoder: one .pt file.

    z = activation((x - pre_bias) encoder.weight^T + latent_bias)
    x_hat = z decoder.weight^T + pre_bias

`activation` is ReLU, or ReLU(TopK). Those with TopK are for vectors that are normalised one by one:
minus their mean, over their standard deviation plus 1e-5.

Source: sparse_autoencoder (github.com/openai/sparse_autoencoder), `sparse_autoencoder/model.py`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tendril.data.errors import ConfigError

from .files import (
    Imported,
    check_k,
    checked,
    config_number,
    made,
    matrix_size,
    read_torch,
    refuse_option,
)

KEYS = ("pre_bias", "latent_bias", "encoder.weight")
HOOKS = {  # the locations of the release, as TransformerLens calls them
    "mlp_post_act": "mlp.hook_post",
    "resid_delta_mlp": "hook_mlp_out",
    "resid_delta_attn": "hook_attn_out",
    "resid_post_mlp": "hook_resid_post",
    "resid_post_attn": "hook_resid_mid",
}


def has_openai_keys(state: Mapping[str, Any]) -> bool:
    """True if a state dict has the entries of this format."""
    return all(name in state for name in KEYS)


def read_openai(path: Path, *, normalised: bool = False, **_: Any) -> Imported:
    """Read a dictionary of OpenAI's. Raises RunDamagedError, and ConfigError for one with TopK
    unless the vectors that it will be given are `normalised`."""
    state = read_torch(path)
    latents, width = matrix_size(state, "encoder.weight", path)
    if "decoder.weight" not in state and "decoder.linear.weight" in state:  # tied weights
        state["decoder.weight"] = state["encoder.weight"].T
    shapes: dict[str, tuple[int, ...]] = {
        "pre_bias": (width,),
        "encoder.weight": (latents, width),
        "latent_bias": (latents,),
        "decoder.weight": (width, latents),
    }
    used = checked(state, shapes, path)
    activation = state.get("activation", "ReLU")
    if activation not in ("ReLU", "TopK"):
        raise refuse_option(f"has the activation function {activation!r:.40}", path)
    k = 0
    if activation == "TopK":
        options = state.get("activation_state_dict")
        options = options if isinstance(options, dict) else {}
        if (after := options.get("postact_fn", "ReLU")) != "ReLU":
            raise refuse_option(f"applies {after!r:.40} after TopK", path)
        k = check_k(config_number(options, "k", path), latents, path)
        if not normalised:
            raise ConfigError(
                f"{path} is for vectors that are normalised one by one, minus their mean and over "
                "their standard deviation, which cannot be folded into weights. Add --normalised "
                "if the vectors of your store are, or choose a dictionary with ReLU."
            )
    weights = (
        used["encoder.weight"].T,
        used["latent_bias"],
        used["decoder.weight"].T,
        used["pre_bias"],
    )
    sae = made(*weights, "topk" if k else "relu", pre_bias=True, k=k)
    config = {"activation": activation, "k": k, "normalised": normalised}
    model, site = _named(path)
    return Imported("openai", sae, config, (path,), model=model, site=site)


def _named(path: Path) -> tuple[str, str]:
    """Model and site, where the path has the names of the release:
    gpt2-small/resid_post_mlp_v5_32k/autoencoders/8.pt."""
    parts = path.resolve().parts
    model = "gpt2-small" if "gpt2-small" in parts else ""
    for part in parts:
        for location, hook in HOOKS.items():
            if (part == location or part.startswith(f"{location}_v")) and path.stem.isdigit():
                return model, f"blocks.{path.stem}.{hook}"
    return model, ""
