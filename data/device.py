"""Which device a command runs on."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from .errors import DeviceError


def resolve_device(device: str = "auto") -> torch.device:
    """`auto` is the GPU where there is one; raises DeviceError for one that is not there."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device not in ("cpu", "cuda"):
        raise DeviceError(f"--device is auto, cpu or cuda, and not {device!r}.")
    if device == "cuda" and not torch.cuda.is_available():
        raise DeviceError(
            "--device cuda was asked for, but torch sees no CUDA device on this machine; "
            "use --device cpu, or install a CUDA build of torch."
        )
    return torch.device(device)


@contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """Within the body torch computes with `count` CPU threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
