"""The device that a command runs on, and its CPU threads and memory."""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from .errors import ConfigError, DeviceError

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # glibc's malloc.h


def resolve_device(device: str = "auto") -> torch.device:
    """The torch device for `auto`, `cpu`, `cuda`, `cuda:N` or `mps`. Raises DeviceError if there is
    none.

    `auto` is a CUDA GPU if there is one, and otherwise the CPU. Under torchrun each process has its
    own GPU ($LOCAL_RANK), unless a number is given.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    kind, colon, number = device.partition(":")
    if device not in ("cpu", "mps") and not (
        kind == "cuda" and (number.isdecimal() and number.isascii() if colon else True)
    ):
        raise DeviceError(f"--device must be auto, cpu, cuda, cuda:N or mps; got {device!r}.")
    if kind == "mps":
        return _mps()
    if kind == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise DeviceError(
            f"--device {device} needs a GPU; torch sees no CUDA device on this machine. Use "
            "--device cpu, or install a CUDA build of torch."
        )
    gpus = torch.cuda.device_count()
    if number and int(number) >= gpus:
        raise DeviceError(
            f"--device cuda:N must have a number from 0 to {gpus - 1}, as this machine has {gpus} "
            f"GPUs; got {device!r}."
        )
    return torch.device("cuda", int(number) if number else _local_rank())


def _mps() -> torch.device:
    if not torch.backends.mps.is_available():
        raise DeviceError(
            "--device mps needs the GPU of an Apple computer; torch sees none on this machine. Use "
            "--device cpu."
        )
    return torch.device("mps")


def _local_rank() -> int:
    """The GPU of this process. Raises ConfigError if $LOCAL_RANK names none."""
    text, gpus = os.environ.get("LOCAL_RANK", "0"), torch.cuda.device_count()
    if not text.isdecimal() or int(text) >= gpus:
        raise ConfigError(
            f"LOCAL_RANK must be a number from 0 to {gpus - 1}, as this machine has {gpus} GPUs; "
            f"got {text!r} in the environment. Start as many processes as there are GPUs, or unset "
            "it."
        )
    return int(text)


def float64(x: torch.Tensor) -> torch.Tensor:
    """The numbers in float64, for exact sums: on their device, or on the CPU where the device has
    no float64 (mps)."""
    return (x.cpu() if x.device.type == "mps" else x).double()


def launched_as() -> tuple[int, int]:
    """Index and number of processes that a launcher such as torchrun gives, else (0, 1).

    Raises ConfigError if $RANK and $WORLD_SIZE are not whole numbers or do not fit each other.
    """
    texts = [os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")]
    if not all(text.isdecimal() for text in texts):
        raise ConfigError(
            f"RANK and WORLD_SIZE must be whole numbers; got {texts[0]!r} and {texts[1]!r} in the "
            "environment. Unset them for a single process."
        )
    rank, ranks = int(texts[0]), int(texts[1])
    if rank >= ranks:
        raise ConfigError(
            f"a rank must be from 0 to the number of processes - 1; got rank {rank} of {ranks} "
            "from RANK and WORLD_SIZE of the environment. Correct or unset them."
        )
    return rank, ranks


def keep_freed_memory() -> None:
    """Let glibc keep freed arrays of up to 32 MiB for reuse.

    By default every large array is mapped and zeroed anew, page by page, at every layer of every
    batch. That took a third of InceptionV1's forward pass on two cores, and most of it on a busy
    machine. Does nothing without glibc.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, 32 * 2**20)
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)


def compute_alone() -> None:
    """Make torch use one CPU thread for work started in this thread; other threads keep theirs.

    `torch.set_num_threads` would apply to the whole process, while OpenMP's setting applies to a
    thread. torch sets it on first use in a thread, so that use comes first here. Does nothing
    without OpenMP.
    """
    torch.get_num_threads()
    set_threads = getattr(ctypes.CDLL(None), "omp_set_num_threads", None)
    if set_threads is not None:
        set_threads(1)


@contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """A context in which torch uses `count` CPU threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
