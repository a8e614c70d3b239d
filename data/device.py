"""Which device a command runs on."""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from .errors import DeviceError

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # glibc's malloc.h


def resolve_device(device: str = "auto") -> torch.device:
    """`auto` is the GPU where there is one, of several the one that belongs to this process of
    a launcher's ($LOCAL_RANK); raises DeviceError for one that is not there."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device not in ("cpu", "cuda"):
        raise DeviceError(f"--device is auto, cpu or cuda, and not {device!r}.")
    if device == "cuda" and not torch.cuda.is_available():
        raise DeviceError(
            "--device cuda was asked for, but torch sees no CUDA device on this machine; "
            "use --device cpu, or install a CUDA build of torch."
        )
    if device == "cuda":
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    return torch.device(device)


def keep_freed_memory() -> None:
    """Tell glibc to keep freed arrays of up to 32 MiB for the next ones.

    By default each large array is mapped anew and its pages are zeroed one by one, at every
    layer of every batch: on two cores that took a third of InceptionV1's forward pass, and
    most of it where another process was busy. Elsewhere than on glibc nothing is done.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, 32 * 2**20)
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)


def compute_alone() -> None:
    """Let torch compute in this thread with no other beside it, without a word to the rest.

    `torch.set_num_threads` is for the whole process; OpenMP's own number is the thread's. Torch
    sets that at its first use in a thread, so that comes first. Where OpenMP cannot be reached
    nothing is done.
    """
    torch.get_num_threads()
    set_threads = getattr(ctypes.CDLL(None), "omp_set_num_threads", None)
    if set_threads is not None:
        set_threads(1)


@contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """Within the body torch computes with `count` CPU threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
