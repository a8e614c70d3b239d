"""Several processes train one dictionary: each reads its own rows, and all take the same step.

    torchrun --nproc-per-node N -m train RECIPE ...

Gradients of the N means over B / N rows are averaged, which is the gradient of the mean over
all B rows where a loss is a mean over rows; so N processes go the way that one goes on the same
rows, but for the rounding of sums. (BatchTopK keeps the k B / N largest latents of each process's
own rows, and a target L0 is held by each.) Dead latents are counted over all rows. The number of
processes is part of a run's identity, since it decides the order of the rows. Gradients are
reduced by hand, in one buffer: DistributedDataParallel wants one forward pass a step, and an
objective's auxiliary term may or may not be there.
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

from tendril.data.errors import ConfigError

from .objectives.base import Loss


@final
@dataclass(frozen=True)
class Ranks:
    """This process among those that train together. Each method is called by all of them."""

    rank: int = 0
    ranks: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes, prints and evaluates."""
        return self.rank == 0

    def share(self, batch_size: int) -> int:
        """Rows of a batch that are this process's own. Raises ConfigError where they do not
        come out even."""
        if batch_size % self.ranks:
            raise ConfigError(
                f"--batch-size is shared by {self.ranks} processes, and {batch_size} is no "
                f"multiple of that; choose {-(-batch_size // self.ranks) * self.ranks}."
            )
        return batch_size // self.ranks

    def agreed(self, answer: bool) -> bool:
        """What rank 0 answers."""
        if self.ranks == 1:
            return answer
        given: list[bool] = [answer]
        group.broadcast_object_list(given, src=0)
        return given[0]

    def each(self, value: Any) -> list[Any]:
        """The values of all ranks, in their order."""
        if self.ranks == 1:
            return [value]
        values: list[Any] = [None] * self.ranks
        group.all_gather_object(values, value)
        return values

    def spread(self, tensors: Iterable[Tensor]) -> None:
        """Make tensors what they are on rank 0."""
        if self.ranks > 1:
            for tensor in tensors:
                group.broadcast(tensor, src=0)

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Make tensors the mean of those of all ranks, all in one message."""
        if self.ranks == 1 or not tensors:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        group.all_reduce(flat)
        flat /= self.ranks
        parts = torch.split(flat, [tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))

    def union(self, x_ND: Float[Tensor, "n d"]) -> Float[Tensor, "m d"]:
        """The rows of all ranks, in their order; each has as many."""
        if self.ranks == 1:
            return x_ND
        parts = [torch.empty_like(x_ND) for _ in range(self.ranks)]
        group.all_gather(parts, x_ND.contiguous())
        return torch.cat(parts)

    def whole(self, loss: Loss) -> Loss:
        """The loss of the whole batch and what is counted of it; x_hat stays this rank's."""
        if self.ranks == 1:
            return loss
        means = torch.stack([loss.total.detach().float(), loss.active.detach().float()])
        self.average([means])
        fired_S = loss.fired_S.to(torch.uint8)
        group.all_reduce(fired_S, group.ReduceOp.MAX)
        least = None if loss.least is None else loss.least.clone()
        if least is not None:
            group.all_reduce(least, group.ReduceOp.MIN)
        return replace(loss, total=means[0], active=means[1], fired_S=fired_S.bool(), least=least)

    def wait(self) -> None:
        """Go on when all ranks are here. (A broadcast is no meeting: rank 0 would send and leave,
        and end its process while others still listen to it.)"""
        self.each(None)


ALONE = Ranks()


def launched(device: torch.device) -> Ranks:
    """This process among those that torchrun launched: NCCL on GPUs, gloo on CPUs; alone where
    there is no torchrun.

    They are joined once and stay so until the process ends: a second group would find the
    addresses of the first one.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return ALONE
    if not group.is_initialized():
        if device.type == "cuda":
            torch.cuda.set_device(device)
        group.init_process_group("nccl" if device.type == "cuda" else "gloo")
        atexit.register(group.destroy_process_group)
    return Ranks(group.get_rank(), group.get_world_size())


def refuse_launch(what: str) -> None:
    """Raise ConfigError where torchrun launched several processes for what one alone does."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(f"{what} in one process; run the command without torchrun.")


def is_first() -> bool:
    """Whether this process prints results: rank 0, or one alone. Known without torch's group."""
    return int(os.environ.get("RANK", "0")) == 0
