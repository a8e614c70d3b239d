"""Vision networks of transformers, with the settings of their image processors, from a folder or
the Hugging Face hub."""

import hashlib
import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from tendril.data import _torchvision  # noqa: F401  before transformers asks for torchvision

# isort: split
import torch
from torch import nn
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForImageClassification

from tendril.data.cli import note
from tendril.data.errors import SubjectError

from .subject import check_stored_dtypes
from .transformers_networks import offline, one_line, silence

# Entries of a config that name things or say how it was saved, and change no activation.
NO_SETTING = {
    *("_name_or_path", "transformers_version", "architectures", "dtype", "torch_dtype"),
    *("id2label", "label2id", "num_labels", "problem_type", "_attn_implementation_autoset"),
    *("attn_implementation", "_attn_implementation", "experts_implementation"),
    *("output_hidden_states", "output_attentions", "return_dict", "use_return_dict"),
}
PARTS = ("vision_config", "vision")


def vision_files(name: str) -> tuple[nn.Module, dict[str, Any], str]:
    """A network, the settings of its pixels (see `libraries.Pixels`), and the digest of its config.

    Raises SubjectError as `hf_subject` does.
    """
    local = Path(name).is_dir()
    if not local and (name.startswith((".", "/", "~")) or Path(name).exists() or not name):
        raise SubjectError(
            f"--subject hf:NAME must be the folder of a vision network or its name on the Hugging "
            f"Face hub; there is no folder {name!r}. Check the path."
        )
    if not local:
        note(f"There is no folder {name} here, so it is taken as a name on the Hugging Face hub.")
    with offline() if local else nullcontext():
        config = _config(name)
        if local:
            check_stored_dtypes(Path(name))
        network = _network(name, config)
        pixels = _pixels(name, config)
    return network, pixels, _digest(network.config)


def _config(name: str) -> Any:
    try:
        return AutoConfig.from_pretrained(name, trust_remote_code=False)
    except Exception as error:  # what a damaged config raises has no common type
        raise SubjectError(
            f"--subject hf:NAME must be the folder of a vision network or its name on the Hugging "
            f"Face hub; {name!r} cannot be found, reached or read ({one_line(error)}). Check the "
            "name and its config.json."
        ) from error


def _network(name: str, config: Any) -> Any:
    """The network: the classifier if the files have one, or the part that reads images."""
    part = next((p for p in (getattr(config, n, None) for n in PARTS) if p is not None), None)
    classes = AutoModel._model_mapping
    architecture = (config.architectures or [""])[0]
    if part is not None and type(part) in classes:
        kind: Any = classes[type(part)]
    elif architecture.endswith("ForImageClassification"):
        kind = AutoModelForImageClassification
    else:
        kind = AutoModel
    try:
        with silence():  # missing weights are checked below
            network, info = kind.from_pretrained(
                name, dtype=torch.float32, output_loading_info=True, trust_remote_code=False
            )
    except Exception as error:  # what damaged weights raise has no common type
        raise SubjectError(
            f"the weights of hf:{name} cannot be loaded ({one_line(error)}). Check that its files "
            "are complete."
        ) from error
    if getattr(network, "main_input_name", "") != "pixel_values":
        raise SubjectError(
            f"--subject hf:NAME must be a vision network; {name} is a {type(network).__name__}. "
            "`tendril harvest language` takes language models."
        )
    missing = sorted(info["missing_keys"])
    if any("pooler" in key for key in missing) and hasattr(network, "pooler"):
        network.pooler = None  # it follows the last block; drawn anew, it would be no fixed weights
        missing = [key for key in missing if "pooler" not in key]
    if missing:
        raise SubjectError(
            f"hf:{name} must have all weights of {type(network).__name__}; it has none for "
            f"{missing[0]}{f' and {len(missing) - 1} more' if missing[1:] else ''}. Check that "
            "its files are complete and belong to one model."
        )
    return network


def _pixels(name: str, config: Any) -> dict[str, Any]:
    """The settings of a model's image processor."""
    kind: Any = AutoImageProcessor
    try:
        processor = kind.from_pretrained(name, trust_remote_code=False)
    except Exception as error:  # files of many kinds are missing or wrong
        raise SubjectError(
            f"hf:{name} needs an image processor, and it cannot be loaded ({one_line(error)}). Put "
            "its preprocessor_config.json next to the weights."
        ) from error
    resized = getattr(processor, "do_resize", True)
    cropped = getattr(processor, "do_center_crop", False)
    taken = [processor.crop_size if cropped else None, processor.size if resized else None]
    size = next((n for n in map(_side, taken) if n), 0)
    size = size or _side(getattr(getattr(config, "vision_config", config), "image_size", 0))
    if not size:
        raise SubjectError(
            f"the image processor of hf:{name} must give square images of one size; got size "
            f"{getattr(processor, 'size', None)}. Write a function that returns "
            "subject_from_module(network, input_size=..., preprocess=...)."
        )
    settings: dict[str, Any] = {"size": size}
    if getattr(processor, "do_normalize", False):
        settings["mean"] = _three(processor.image_mean)
        settings["std"] = _three(processor.image_std)
    rescaled = getattr(processor, "do_rescale", True)
    scale = float(processor.rescale_factor) * 255 if rescaled else 255.0
    settings["scale"] = 1.0 if abs(scale - 1) < 1e-9 else scale
    return settings


def _side(size: Any) -> int:
    """The side of the squares that a processor's size means; 0 if it means none."""
    if isinstance(size, int):
        return size
    if isinstance(size, list | tuple):
        return int(size[0]) if len(set(size)) == 1 else 0
    told = {k: v for k in ("height", "width", "shortest_edge") if (v := _entry(size, k))}
    sides = {told[k] for k in ("height", "width") if k in told} or set(told.values())
    return int(sides.pop()) if len(sides) == 1 else 0


def _entry(size: Any, key: str) -> Any:
    return size.get(key) if hasattr(size, "get") else getattr(size, key, None)


def _three(values: Any) -> tuple[float, ...]:
    """One number a channel."""
    return (float(values),) * 3 if isinstance(values, int | float) else tuple(map(float, values))


def _digest(config: Any) -> str:
    """SHA-256 of the settings of a config that can change activations."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {str(k): plain(v) for k, v in value.items() if k not in NO_SETTING}
        return [plain(v) for v in value] if isinstance(value, list | tuple) else value

    text = json.dumps(plain(config.to_dict()), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
