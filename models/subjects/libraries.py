"""Vision networks of transformers, timm and torchvision as subjects, by name.

Weights are loaded by each library's own means. Size, scale, mean and deviation of the pixels are
those of the network's image processor (transformers) or transforms (timm, torchvision).
"""

import difflib
import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, final

from tendril.data import _torchvision  # noqa: F401  before timm or torchvision are imported

# isort: split
import torch
from torch import Tensor, nn

from tendril.data.cli import need
from tendril.data.errors import ConfigError, SubjectError, WeightsNotFoundError

from ..dictionaries.checkpoint import check_values
from ..weights import load_weights
from .robust_files import read_checkpoint
from .subject import Subject, weights_digest

RANDOM = "random"
PIXELS = "tendril_pixels"  # the mean and deviation that a file of weights brought, until they move
FOUND = {"googlenet": {"transform_input": True}, "inception_v3": {"transform_input": True}}


@final
@dataclass(frozen=True)
class Pixels:
    """How RGB images in 0..1 go into a network: (scale x - mean) / std, on squares of `size`
    pixels."""

    size: int
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    scale: float = 1.0

    def __call__(self, rgb_BCHW: Tensor) -> Tensor:
        mean_C11, std_C11 = (rgb_BCHW.new_tensor(v).view(3, 1, 1) for v in (self.mean, self.std))
        scaled_BCHW = rgb_BCHW if self.scale == 1 else rgb_BCHW * self.scale
        return (scaled_BCHW - mean_C11) / std_C11


def torchvision_subject(name: str, weights: str = "") -> Subject:
    """A classifier of torchvision, with its default weights, those of a file, or `random[:SEED]`.

    A file is a state dict, or a checkpoint as `read_checkpoint` takes it. Raises SubjectError for
    an unknown name or weights that cannot be fetched, and what `read_checkpoint` and `load_weights`
    raise.
    """
    models: Any = library("torchvision", "torchvision").models
    known = models.list_models(module=models)
    if name not in known:
        raise _unknown("torchvision", name, known, "https://pytorch.org/vision/stable/models.html")
    best = models.get_model_weights(name).DEFAULT
    preset = best.transforms()
    (size,) = set(preset.crop_size)
    pixels = Pixels(int(size), tuple(preset.mean), tuple(preset.std))
    sized = {"image_size": int(size)} if name.startswith("vit_") else {}

    def build() -> nn.Module:
        more = {} if weights.partition(":")[0] == RANDOM else FOUND.get(name, {})
        made: nn.Module = models.get_model(name, weights=None, **sized, **more)
        return made

    def trained() -> nn.Module:
        made: nn.Module = models.get_model(name, weights=best, progress=False)
        return made

    network, drawn = _weighted(f"torchvision:{name}", build, trained, weights, f"fetch {best.url}")
    return _subject(f"torchvision:{name}", name, network, pixels, drawn)


def timm_subject(name: str, weights: str = "") -> Subject:
    """A network of timm by its name, or a folder that timm saved (config.json and weights), with
    its own weights, those of a file, or `random[:SEED]`.

    Raises SubjectError for an unknown name or weights that cannot be fetched, and what
    `read_weights` and `load_weights` raise.
    """
    timm: Any = library("timm", "timm")
    folder = Path(name).is_dir()
    if not folder and name.partition(".")[0] not in timm.list_models() and ":" not in name:
        raise _unknown("timm", name, timm.list_models(), "timm.list_models()")
    place = f"local-dir:{Path(name).resolve()}" if folder else name

    def build() -> nn.Module:
        made: nn.Module = timm.create_model(place, pretrained=False)
        return made

    def trained() -> nn.Module:
        with _offline(folder):
            made: nn.Module = timm.create_model(place, pretrained=True)
        return made

    hint = f"fetch the weights of {name} from the Hugging Face hub"
    network, drawn = _weighted(f"timm:{name}", build, trained, weights, hint)
    about = importlib.import_module("timm.data").resolve_model_data_config(network)
    sides = set(about["input_size"][-2:])
    if len(sides) != 1:
        raise SubjectError(f"timm:{name} must take square images; got {about['input_size']}.")
    pixels = Pixels(int(sides.pop()), tuple(about["mean"]), tuple(about["std"]))
    short = Path(name).name.rpartition("/")[2]
    return _subject(f"timm:{short}", short, network, pixels, drawn)


def hf_subject(name: str) -> Subject:
    """A vision network of transformers: a folder, or a name on the Hugging Face hub.

    Models of images and text (CLIP, SigLIP) give their image part. A folder never asks the hub, and
    no code that comes with a model is run. Raises SubjectError for a model that is not found, of no
    vision network, without an image processor, or not complete.
    """
    need(f"--subject hf:{name}", "transformers", extra="vision")
    from .vision_files import vision_files  # transformers takes seconds to import

    network, processor, config = vision_files(name)
    pixels = Pixels(**processor)
    short = Path(name).resolve().name if Path(name).is_dir() else name.rpartition("/")[2]
    subject = _subject(f"hf:{short}", short, network, pixels, {})
    return Subject(**{**vars(subject), "identity": {**subject.identity, "config": config}})


def library(module: str, package: str) -> Any:
    """An optional library. Raises MissingPackageError if it is not installed, and SubjectError
    if it cannot be imported."""
    need(f"--subject {package}:NAME", module.partition(".")[0])
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise SubjectError(
            f"--subject {package}:NAME needs the package {package}, which cannot be imported "
            f"({error}). Install it again with `pip install {package}`."
        ) from error


def _weighted(
    subject: str,
    build: Callable[[], nn.Module],
    trained: Callable[[], nn.Module],
    weights: str,
    fetching: str,
) -> tuple[nn.Module, dict[str, str]]:
    """A network with weights, and the entry of its identity for weights that are drawn."""
    kind, _, seed = weights.partition(":")
    if kind == RANDOM:
        if seed and not seed.isdecimal():
            raise ConfigError(
                f"--weights random:SEED needs a whole number of at least 0; got {seed!r}."
            )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(seed or 0))
            return build(), {"drawn": f"{RANDOM}:{int(seed or 0)}"}
    if weights:
        if not Path(weights).is_file():
            raise WeightsNotFoundError(
                f"--weights of {subject} must be a .safetensors or .pth file, or random[:SEED]; "
                f"there is no file {weights}. Check the path, or leave --weights out to {fetching}."
            )
        network = build()
        stored = read_checkpoint(Path(weights))
        load_weights(network, stored.tensors, weights)
        if stored.mean:
            network.__dict__[PIXELS] = (stored.mean, stored.std)
        return network, {}
    try:
        return trained(), {}
    except Exception as error:  # each library raises its own errors without a network
        raise SubjectError(
            f"the weights of {subject} cannot be loaded ({type(error).__name__}: "
            f"{' '.join(str(error).split())[:160]}). With a network connection Tendril would "
            f"{fetching}; without one, pass a file with --weights FILE."
        ) from error


def _subject(
    label: str, name: str, network: nn.Module, pixels: Pixels, drawn: Mapping[str, str]
) -> Subject:
    """The subject of a network; its identity has the name, the weights and the pixels' settings."""
    network = network.eval().float().requires_grad_(False)
    if PIXELS in network.__dict__:  # a file that holds them knows better than the library
        mean, std = network.__dict__.pop(PIXELS)
        pixels = replace(pixels, mean=mean, std=std)
    check_values(
        dict(network.named_parameters()),
        label,
        SubjectError,
        "Load the weights of a trained network.",
    )
    settings = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(pixels).items()}
    return Subject(
        name=name,
        module=network,
        preprocess=pixels,
        input_size=pixels.size,
        sites={n: (n,) for n, _ in network.named_modules(remove_duplicate=False) if n},
        identity={
            "name": label,
            "weights": weights_digest(network),
            "pixels": settings,
            **drawn,
        },
    )


def _offline(local: bool) -> Any:
    """Forbids to ask the hub for what lies in a local folder."""
    from contextlib import nullcontext

    if not local:
        return nullcontext()
    from .transformers_networks import offline

    return offline()


def _unknown(package: str, name: str, known: Sequence[str], listed: str) -> SubjectError:
    near = difflib.get_close_matches(name, known, n=4, cutoff=0.5)
    return SubjectError(
        f"--subject {package}:NAME must name a network of {package}; got {name!r}. "
        + (f"Near names are {', '.join(near)}." if near else f"{listed} has them all.")
    )
