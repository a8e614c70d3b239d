"""Checkpoints of torchvision's networks as others save them: state dicts, also inside a training
checkpoint, of DataParallel, and of the robustness library.

robustness (github.com/MadryLab/robustness, MIT), and with it the ImageNet networks of Salman et al.
(2007.08489), writes {"model": state dict, "epoch": ..., ...}. Its names begin with `module.model.`,
`module.normalizer.` (the mean and deviation of the pixels) and `module.attacker.` (the same network
once more).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import final

from torch import Tensor

from tendril.data.errors import WeightsError

from ..weights import read_weights

NESTED = ("state_dict", "model")  # where a training checkpoint keeps its state dict
MODEL, PARALLEL = "module.model.", "module."
MEAN, STD = "module.normalizer.new_mean", "module.normalizer.new_std"
CONVERT = (
    "If it is a training checkpoint with objects of other kinds, open it once with the library "
    "that wrote it, where you trust it, and save its tensors: safetensors.torch.save_file("
    "{k: v.contiguous() for k, v in checkpoint['model'].items()}, 'FILE.safetensors')."
)


@final
@dataclass(frozen=True)
class Checkpoint:
    """A state dict with the names of the network itself, and the mean and deviation of the pixels
    where the file has them."""

    tensors: dict[str, Tensor]
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


def read_checkpoint(path: Path) -> Checkpoint:
    """The weights in a file, whatever the layout. No code of the file is run.

    Raises WeightsNotFoundError, and WeightsError for files that are damaged or hold other objects
    than tensors and plain values, with the way to convert them.
    """
    try:
        tensors = read_weights(path, NESTED)
    except WeightsError as error:
        raise WeightsError(f"{error} {CONVERT}") from error
    mean, std = (tuple(tensors[n].flatten().tolist()) if n in tensors else () for n in (MEAN, STD))
    return Checkpoint(_of_network(tensors), mean, std)


def _of_network(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the network alone, by its own names."""
    for prefix in (MODEL, PARALLEL):
        kept = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
        if kept and (prefix == MODEL or len(kept) == len(tensors)):
            return kept
    return dict(tensors)
