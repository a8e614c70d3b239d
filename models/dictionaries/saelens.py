"""Read and write dictionaries in the format of SAELens 6.

    cfg.json   architecture, d_in, d_sae, apply_b_dec_to_input, normalize_activations, ...,
               metadata: {sae_lens_version, model_name, hook_name, ...}
    weights    W_enc [D, S], W_dec [S, D], b_dec [D], and b_enc [S] (standard, topk, jumprelu),
               threshold [S] (jumprelu), or b_gate, r_mag, b_mag [S] (gated)
    sparsity.safetensors (optional)   `sparsity`: log10 of each latent's firing frequency + 1e-10

Options of this format that our SAE does not have are folded into the weights, so that `encode`
returns the latents of SAELens, and `decode(encode(x))` its reconstruction.

Source: SAELens 6 (github.com/decoderesearch/SAELens), `sae_lens/saes`. Older versions stored the
metadata at the top level of `cfg.json`, and TopK as an activation function of `standard`.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from tendril.data.errors import ConfigError, RunDamagedError, RunNotFoundError
from tendril.data.store.atomic import locked, remove_asides, write_whole

from .checkpoint import check_values
from .sae import SAE
from .sparsity import Sparsity

CFG, WEIGHTS, SPARSITY = "cfg.json", "sae_weights.safetensors", "sparsity.safetensors"
VERSION = "6.0.0"  # format version of exported files
FLOOR = 1e-10  # added to frequencies before taking the logarithm
SPARSITIES = {"relu": "standard", "topk": "topk", "jumprelu": "jumprelu"}
BATCH_TOPK = ("batchtopk", "matryoshka_batchtopk")  # names of training checkpoints
ARCHITECTURES = ("standard", "topk", "jumprelu", "gated", *BATCH_TOPK)


def export_saelens(
    sae: SAE,
    folder: Path,
    metadata: Mapping[str, Any] | None = None,
    frequency_S: Float[Tensor, " s"] | None = None,
) -> Path:
    """Write a dictionary to a folder that SAELens' `SAE.load_from_disk` reads.

    The architecture is `standard` (ReLU), `topk` or `jumprelu` (also for BatchTopK, which has
    thresholds at inference). `normalize_activations` is none, because normalisation is already
    folded into the weights. `frequency_S` is the fraction of vectors on which each latent is
    active. Raises ConfigError if the folder already holds a dictionary.
    """
    tensors = {name: p.detach().float().cpu().contiguous() for name, p in sae.named_parameters()}
    if "threshold" in tensors:
        tensors["threshold"] = tensors["threshold"].clamp_min(0)
    weights = save(tensors)
    present = folder / WEIGHTS  # of a killed export, if it is the same and there is no cfg.json
    if (folder / CFG).exists() or (present.exists() and present.read_bytes() != weights):
        raise ConfigError(f"{folder} already holds a dictionary. Choose another folder.")
    cfg: dict[str, Any] = {
        "architecture": SPARSITIES[sae.sparsity.name],
        "d_in": sae.width,
        "d_sae": sae.latents,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": sae.pre_bias,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {"sae_lens_version": VERSION, **(metadata or {})},
    }
    if sae.sparsity.name == "topk":
        cfg |= {"k": sae.sparsity.k, "rescale_acts_by_decoder_norm": False}
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        remove_asides(folder, deep=False)
        if frequency_S is not None:
            logarithm_S = (frequency_S.double() + FLOOR).log10().float()
            write_whole(folder / SPARSITY, save({"sparsity": logarithm_S}))
        write_whole(folder / WEIGHTS, weights)
        write_whole(folder / CFG, (json.dumps(cfg, indent=2) + "\n").encode())
    return folder


def import_saelens(folder: Path, scale: float | None = None) -> tuple[SAE, dict[str, Any]]:
    """Read a SAELens dictionary, converted to raw activations. Returns it with its cfg.json.

    `scale` is the factor applied to activations if `normalize_activations` is
    expected_average_only_in: sqrt(D) over their mean norm, which the file does not contain.
    Raises RunNotFoundError and RunDamagedError, and ConfigError for options that our SAE cannot
    represent.
    """
    cfg = read_cfg(folder)
    tensors = _tensors(folder / WEIGHTS)
    architecture, k = _architecture(cfg, folder)
    width, latents = (_number(cfg, name, folder) for name in ("d_in", "d_sae"))
    biases = ("b_gate", "r_mag", "b_mag") if architecture == "gated" else ("b_enc",)
    shapes: dict[str, tuple[int, ...]] = {"W_enc": (width, latents), "W_dec": (latents, width)}
    shapes |= {"b_dec": (width,), **dict.fromkeys(biases, (latents,))}
    if architecture == "jumprelu":
        if "log_threshold" in tensors:  # training checkpoints of older versions
            tensors["threshold"] = tensors.pop("log_threshold").float().exp()
        shapes["threshold"] = (latents,)
    present = {name: tuple(tensors[name].shape) for name in shapes if name in tensors}
    if present != shapes:
        raise RunDamagedError(
            f"{folder / WEIGHTS} must hold {shapes} according to its {CFG}; got {present}. "
            "Download the dictionary again."
        )
    used = {name: tensors[name] for name in shapes}
    check_values(used, folder / WEIGHTS, RunDamagedError, "Download the dictionary again.")
    tensors = {name: t.float() for name, t in tensors.items() if t.is_floating_point()}
    _fold_norms(tensors, cfg, architecture)
    _fold_finetuning(tensors)
    _fold_scale(tensors, cfg, scale, folder)
    thresholded = architecture not in ("standard", "topk")
    name = "jumprelu" if thresholded else {"standard": "relu", "topk": "topk"}[architecture]
    sparsity = Sparsity(name, k)  # type: ignore[arg-type]  # one of the three names
    sae = SAE(width, latents, sparsity, pre_bias=bool(cfg.get("apply_b_dec_to_input", True)))
    weights = {name: tensors[name] for name in ("W_enc", "W_dec", "b_dec")}
    weights["b_enc"] = tensors["b_mag" if architecture == "gated" else "b_enc"]
    if architecture == "gated":
        # the gate is open if the magnitude exceeds a threshold; see Gated.plain
        factor_S = tensors["r_mag"].exp()
        weights["W_enc"] = tensors["W_enc"] * factor_S
        tensors["threshold"] = tensors["b_mag"] - factor_S * tensors["b_gate"]
    elif architecture in BATCH_TOPK:
        tensors["threshold"] = _trained_threshold(tensors, folder).expand(latents)
    if thresholded:
        weights["threshold"] = tensors["threshold"].clamp_min(0)
    sae.load_state_dict(weights)
    return sae.eval().requires_grad_(False), cfg


def read_cfg(folder: Path) -> dict[str, Any]:
    """Read cfg.json of a folder. Raises RunNotFoundError and RunDamagedError."""
    for name in (CFG, WEIGHTS):
        if not (folder / name).is_file():
            raise RunNotFoundError(
                f"a SAELens dictionary must be a folder with {CFG} and {WEIGHTS}; {folder} has "
                f"no {name}. Check the path."
            )
    try:
        cfg = json.loads((folder / CFG).read_text())
    except (ValueError, RecursionError) as error:
        raise RunDamagedError(
            f"{folder / CFG} must be JSON; it cannot be parsed ({error}). Download it again."
        ) from error
    if not isinstance(cfg, dict):
        raise RunDamagedError(
            f"{folder / CFG} must hold a JSON object; got a {type(cfg).__name__}. Download it "
            "again."
        )
    if not isinstance(cfg.get("metadata") or {}, dict):
        raise RunDamagedError(
            f"the entry metadata of {folder / CFG} must be a JSON object; got "
            f"{cfg['metadata']!r:.80}. Download it again."
        )
    return cfg


def read_frequency(folder: Path) -> Float[Tensor, " s"] | None:
    """The fraction of vectors on which each latent is active, if the folder has a sparsity file.

    Raises RunDamagedError.
    """
    if not (folder / SPARSITY).is_file():
        return None
    tensors = _tensors(folder / SPARSITY)
    if "sparsity" not in tensors:
        raise RunDamagedError(f"{folder / SPARSITY} must hold a tensor `sparsity`. Remove it.")
    frequency_S: Tensor = (10 ** tensors["sparsity"].double() - FLOOR).clamp(0, 1).float()
    return frequency_S


def cfg_entry(cfg: Mapping[str, Any], name: str) -> Any:
    """An entry of the metadata in a cfg.json, which older files store at the top level."""
    return {**cfg, **(cfg.get("metadata") or {})}.get(name)


def _architecture(cfg: Mapping[str, Any], folder: Path) -> tuple[str, int]:
    """The architecture, and its k (0 if it has none). Raises ConfigError for unsupported ones."""
    architecture = str(cfg.get("architecture", "standard"))
    function = str(cfg.get("activation_fn_str") or cfg.get("activation_fn") or "relu")
    if architecture not in ARCHITECTURES:
        raise ConfigError(
            f"the architecture in {folder / CFG} must be one of {', '.join(ARCHITECTURES)}; got "
            f"{architecture!r}. Choose another dictionary."
        )
    if architecture == "standard" and function == "topk":
        architecture = "topk"
    elif function not in ("relu", "topk"):
        raise ConfigError(
            f"the activation function in {folder / CFG} must be relu or topk; got {function!r}. "
            "Choose another dictionary."
        )
    if architecture != "topk":
        return architecture, 0
    with_k = {"k": (cfg.get("activation_fn_kwargs") or {}).get("k"), **cfg}
    return architecture, _number(with_k, "k", folder)


def _fold_norms(tensors: dict[str, Tensor], cfg: Mapping[str, Any], architecture: str) -> None:
    """Fold `rescale_acts_by_decoder_norm` in: pre-activations are multiplied by ||d_i|| before
    TopK, and latents divided by it before decoding. With rows of norm 1 neither has an effect."""
    trained = architecture in BATCH_TOPK
    if not cfg.get("rescale_acts_by_decoder_norm", trained) or architecture in (
        "standard",
        "jumprelu",
        "gated",
    ):
        return
    norm_S = tensors["W_dec"].norm(dim=1)
    tensors["W_enc"] = tensors["W_enc"] * norm_S
    tensors["b_enc"] = tensors["b_enc"] * norm_S
    tensors["W_dec"] = tensors["W_dec"] / norm_S.clamp_min(torch.finfo(norm_S.dtype).tiny)[:, None]


def _fold_finetuning(tensors: dict[str, Tensor]) -> None:
    """Fold a factor per latent into W_dec, which older versions could learn in finetuning."""
    for name in ("scaling_factor", "finetuning_scaling_factor"):
        if name in tensors:
            tensors["W_dec"] = tensors["W_dec"] * tensors.pop(name)[:, None]


def _fold_scale(
    tensors: dict[str, Tensor], cfg: Mapping[str, Any], scale: float | None, folder: Path
) -> None:
    """Fold the scale s in: x_hat(x) = decode(encode(s x)) / s. As in SAELens, latents keep the
    units of s x."""
    norm = cfg.get("normalize_activations") or "none"
    norm = "expected_average_only_in" if norm is True else norm
    if norm not in ("none", "expected_average_only_in"):
        raise ConfigError(
            f"normalize_activations in {folder / CFG} must be none or expected_average_only_in; "
            f"got {norm!r}, which cannot be folded into weights. Choose another dictionary."
        )
    if norm == "none":
        if scale is not None:
            raise ConfigError(
                f"--scale must be omitted for {folder / CFG}, which does not normalise activations "
                f"(normalize_activations 'none'); got {scale:g}."
            )
        return
    if scale is None or not (math.isfinite(scale) and scale > 0):
        raise ConfigError(
            f"{folder / CFG} multiplies activations by a factor that it does not contain "
            f"(normalize_activations {norm!r}). Pass it as --scale, above 0: sqrt(D) over the "
            "mean norm of the activations."
        )
    tensors["W_enc"] = tensors["W_enc"] * scale
    tensors["W_dec"] = tensors["W_dec"] / scale
    tensors["b_dec"] = tensors["b_dec"] / scale


def _trained_threshold(tensors: Mapping[str, Tensor], folder: Path) -> Tensor:
    if "topk_threshold" not in tensors:
        raise RunDamagedError(
            f"{folder / WEIGHTS} must hold `topk_threshold`, the threshold of BatchTopK. Save the "
            "dictionary for inference with SAELens and import the result."
        )
    return tensors["topk_threshold"].float().reshape(1)


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise RunDamagedError(f"{path} cannot be read ({error}). Download it again.") from error


def _number(cfg: Mapping[str, Any], name: str, folder: Path) -> int:
    value = cfg.get(name)
    if not isinstance(value, int | float) or int(value) != value or value < 1:
        raise RunDamagedError(
            f"{name} in {folder / CFG} must be an integer above 0; got {value!r}. Download the "
            "dictionary again."
        )
    return int(value)
