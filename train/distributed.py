"""Several processes train one dictionary: each reads its own rows, and all take the same step.

    torchrun --nproc-per-node N -m tendril train RECIPE ...

Each of the N processes takes the mean over B / N rows. The average of their gradients is the
gradient of the mean over all B rows, so N processes follow the course of one process on the same
rows, up to rounding. (BatchTopK keeps the k B / N largest latents of the rows of each process, and
each process meets a target L0 by itself.) Dead latents are counted over all rows. The number of
processes is part of a run's identity, since it decides the order of the rows. Gradients are reduced
by hand, in one buffer: DistributedDataParallel expects one forward pass a step, and an objective's
auxiliary term is not always there.
"""

import atexit
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor
from torch import distributed as group

from tendril.data.cli import note
from tendril.data.device import launched_as
from tendril.data.errors import ConfigError

from .objectives.base import Loss
from .trainer import ALONE, Ranks

MEETING = ("MASTER_ADDR", "MASTER_PORT")  # where torch.distributed's processes meet


@final
@dataclass(frozen=True)
class Together(Ranks):
    """This process among several, which talk over torch.distributed."""

    def agreed(self, answer: bool) -> bool:
        """The answer of rank 0."""
        given: list[bool] = [answer]
        group.broadcast_object_list(given, src=0)
        return given[0]

    def each(self, value: Any) -> list[Any]:
        """The values of all ranks, in their order."""
        values: list[Any] = [None] * self.ranks
        group.all_gather_object(values, value)
        return values

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Copy tensors from rank 0, in place."""
        for tensor in tensors:
            group.broadcast(tensor, src=0)

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by their mean over all ranks, in one message."""
        if not tensors:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        group.all_reduce(flat)
        flat /= self.ranks
        parts = torch.split(flat, [tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))

    def union(self, x_ND: Float[Tensor, "n d"]) -> Float[Tensor, "m d"]:
        """The rows of all ranks, in their order; all ranks have equally many."""
        parts = [torch.empty_like(x_ND) for _ in range(self.ranks)]
        group.all_gather(parts, x_ND.contiguous())
        return torch.cat(parts)

    def whole(self, loss: Loss) -> Loss:
        """The loss and the counts of the whole batch; x_hat stays that of this rank."""
        means = torch.stack([loss.total.detach().float(), loss.active.detach().float()])
        self.average([means])
        fired_S = loss.fired_S.to(torch.uint8)
        group.all_reduce(fired_S, group.ReduceOp.MAX)
        least = None if loss.least is None else loss.least.clone()
        if least is not None:
            group.all_reduce(least, group.ReduceOp.MIN)
        return replace(loss, total=means[0], active=means[1], fired_S=fired_S.bool(), least=least)

    def wait(self) -> None:
        """Return when all ranks have called this. (A broadcast does not wait: rank 0 would send,
        return, and end its process while others still listen to it.)"""
        self.each(None)


def launched(device: torch.device) -> Ranks:
    """This process among those that torchrun launched: NCCL on GPUs, gloo on CPUs. A process that
    torchrun did not launch is alone.

    Processes are joined once and stay so until they end: a second group would find the addresses of
    the first one.
    """
    rank, ranks = launched_as()
    if ranks == 1:
        return ALONE
    if not group.is_initialized():
        if device.type == "cuda":
            torch.cuda.set_device(device)
        _say_rank(rank, ranks)
        group.init_process_group("nccl" if device.type == "cuda" else "gloo")
        atexit.register(group.destroy_process_group)
    return Together(group.get_rank(), group.get_world_size())


def _say_rank(rank: int, ranks: int) -> None:
    """Note whom this process waits for. Raises ConfigError if nothing says where they meet."""
    missing = [name for name in MEETING if not os.environ.get(name)]
    if missing:
        raise ConfigError(
            f"{' and '.join(missing)} must say where the {ranks} processes meet; got nothing, with "
            f"RANK {rank} and WORLD_SIZE {ranks} in the environment. Start them with torchrun, or "
            "unset RANK and WORLD_SIZE for a single process."
        )
    address, port = (os.environ[name] for name in MEETING)
    note(
        f"rank {rank} of {ranks} (from RANK and WORLD_SIZE of the environment) waits for the other "
        f"ranks at {address}:{port}. If it is the only process, stop it and unset these variables."
    )


def refuse_launch(what: str) -> None:
    """Raise ConfigError if torchrun launched several processes for what one process does."""
    _, ranks = launched_as()
    if ranks > 1:
        raise ConfigError(f"{what} must run in one process; got {ranks}. Run it without torchrun.")
