"""All that training is at one step, so that it can be taken, written down and gone on from."""

import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol, final, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from tendril.data.errors import ConfigError
from tendril.models.dictionaries.sae import Dictionary

from .config import TrainConfig
from .distributed import ALONE, Ranks
from .metrics import fvu
from .objectives.base import Loss, Objective
from .optim import (
    adam_tensors,
    learning_rate,
    make_adam,
    normalise_rows,
    remove_parallel_gradient,
    restore_adam,
)
from .resample import resample


@runtime_checkable
class Stream(Protocol):
    """Batches without end that can be gone on from."""

    def __next__(self) -> Float[Tensor, "n d"]: ...

    def state(self) -> dict[str, int]:
        """All that is needed to go on from here."""
        ...

    def restore(self, state: dict[str, int]) -> None:
        """Go on from a state."""
        ...


@final
class Trainer:
    """All that training is at one step: `advance()` takes one, `state()` writes it down.

    `scale` is what vectors are multiplied by: a number, or one a dimension where several
    sites are joined, or None where they come scaled. Where several processes train together
    (`ranks`), `batches` are the rows of this one, and all of them call each method.
    """

    def __init__(
        self,
        config: TrainConfig,
        objective: Objective[Any],
        batches: Stream,
        scale: float | Float[Tensor, " d"] | None,
        device: torch.device,
        ranks: Ranks = ALONE,
    ) -> None:
        self.config, self.objective, self._ranks = config, objective, ranks
        self._batches, self._device = batches, device
        self._scale = scale.to(device) if isinstance(scale, Tensor) else scale
        self.step = 0
        beginning = batches.state()
        x_ND = ranks.union(self.next())
        batches.restore(beginning)
        generator = torch.Generator().manual_seed(config.seed)
        latents = config.latents_for(x_ND.shape[1])
        self.sae: Dictionary = objective.start(x_ND.cpu(), latents, generator).to(device)
        ranks.spread(self.sae.state_dict().values())
        trained = [(name, p) for name, p in self.sae.named_parameters() if p.requires_grad]
        self._names = [name for name, _ in trained]
        self._trained = [parameter for _, parameter in trained]
        self._adam = make_adam(self._trained, config.lr)
        self._quiet_S = torch.zeros(latents, dtype=torch.int64, device=device)
        self._first_bad = torch.tensor(-1, device=device)
        self._loss = torch.compile(objective.loss) if config.compile else objective.loss

    @property
    def vectors(self) -> int:
        """Vectors seen so far."""
        return self.step * self.config.batch_size

    def rate(self) -> float:
        """The learning rate of the step to come."""
        config = self.config
        return learning_rate(self.step, config.steps, config.lr, config.lr_decay, config.lr_warmup)

    def advance(self) -> tuple[Float[Tensor, "n d"], Loss]:
        """One step: returns the (scaled) batch and its loss from before the step."""
        x_ND = self.next()
        with self.autocast():
            loss: Loss = self._loss(self.sae, x_ND, self.dead_S, self.progress)
        self.clear()
        torch.autograd.backward(loss.total)
        self._ranks.average([p.grad for p in self._trained if p.grad is not None])
        loss = self._ranks.whole(loss)
        self.update(x_ND, loss)
        return x_ND, loss

    @property
    def dead_S(self) -> Bool[Tensor, " s"]:
        """Latents that have not fired for long."""
        return self._quiet_S >= self.config.dead_after

    @property
    def progress(self) -> float:
        """The share of the steps that are taken."""
        return self.step / self.config.steps

    def update(self, x_ND: Float[Tensor, "n d"], loss: Loss) -> None:
        """The second half of a step, after the loss of the batch has gone backward."""
        if self.objective.unit_rows:
            remove_parallel_gradient(self.sae.W_dec)
        length = clip_grad_norm_(self._trained, self.config.clip)
        for group in self._adam.param_groups:
            group["lr"] = self.rate()
        self._adam.step()
        if self.objective.unit_rows:
            normalise_rows(self.sae.W_dec)
        self.objective.settle(self.sae, loss)
        self._quiet_S += len(x_ND) * self._ranks.ranks
        self._quiet_S[loss.fired_S] = 0
        self.step += 1
        bad = ~(loss.total.detach() + length).isfinite() & (self._first_bad < 0)
        self._first_bad = torch.where(bad, self.step, self._first_bad)
        self._resample(x_ND, loss)

    def next(self) -> Float[Tensor, "n d"]:
        """The next batch, scaled."""
        x_ND = next(self._batches)
        return x_ND if self._scale is None else x_ND * self._scale

    def clear(self) -> None:
        """Forget the gradients of the last step."""
        self._adam.zero_grad()

    def autocast(self) -> AbstractContextManager[object]:
        """Within it the products of the loss are of the precision asked for."""
        if self.config.precision != "bf16" or self._device.type != "cuda":
            return nullcontext()
        return torch.autocast("cuda", torch.bfloat16)

    def _resample(self, x_ND: Float[Tensor, "n d"], loss: Loss) -> None:
        """Start dead latents anew, where it is time; the draw is a function of seed and step."""
        every = self.config.resample_every
        if not every or self.step % every:
            return
        dead_S = self._quiet_S >= self.config.dead_after
        generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + self.step)
        x_ND, x_hat_ND = self._ranks.union(x_ND), self._ranks.union(loss.x_hat_ND)
        error_ND = x_ND - x_hat_ND
        share = self.objective.new_share
        given_S = resample(self.sae, self._adam, x_ND, error_ND, dead_S, generator, share)
        self.objective.settle(self.sae, loss)
        self._quiet_S[given_S] = 0

    def figures(self, x_ND: Float[Tensor, "n d"], loss: Loss) -> dict[str, int | float]:
        """A line of metrics.csv."""
        return {
            "step": self.step,
            "vectors": self.vectors,
            "loss": float(loss.total.detach()),
            "fvu": fvu(self._ranks.union(x_ND), self._ranks.union(loss.x_hat_ND)),
            "l0": float(loss.active),
            "dead": self.dead_share(),
        }

    def dead_share(self) -> float:
        """Share of the latents that have not fired on the last `dead_after` vectors (on any,
        while fewer have been seen)."""
        long = min(self.config.dead_after, max(self.vectors, 1))
        return float((self._quiet_S >= long).double().mean())

    def first_bad(self) -> int | None:
        """The first step, counted from 1, whose loss or gradient was no number, if any was.
        Kept on the device and asked for now and then: asking waits for the device."""
        step = int(self._first_bad)
        return step if step >= 0 else None

    def state(self, seconds: float) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and numbers from which `restore` goes on, bit for bit on one CPU."""
        tensors = {f"sae.{name}": tensor for name, tensor in self.sae.state_dict().items()}
        tensors |= adam_tensors(self._adam, self._names) | {"quiet": self._quiet_S}
        numbers = {"step": self.step, "reader": self._batches.state(), "seconds": seconds}
        if self._ranks.ranks > 1:
            numbers["readers"] = self._ranks.each(self._batches.state())
        return tensors, numbers

    def restore(self, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> float:
        """Go on from a state; returns the seconds spent so far. Raises ConfigError where as
        many processes as before do not train: each has a place of its own in the data."""
        readers = numbers.get("readers", [numbers["reader"]])
        if len(readers) != self._ranks.ranks:
            raise ConfigError(
                f"this run was begun by {len(readers)} processes, and {self._ranks.ranks} cannot "
                f"go on with it; use torchrun --nproc-per-node {len(readers)}, or remove the run."
            )
        weights = {n.removeprefix("sae."): t for n, t in tensors.items() if n.startswith("sae.")}
        self.sae.load_state_dict(weights)
        restore_adam(self._adam, self._names, dict(tensors))
        self._quiet_S.copy_(tensors["quiet"])
        self._batches.restore(readers[self._ranks.rank])
        self.step = int(numbers["step"])
        return float(numbers["seconds"])


@contextmanager
def products(precision: str, device: torch.device) -> Iterator[None]:
    """Within the body a GPU multiplies float32 as TF32, unless `precision` is float32."""
    before = torch.get_float32_matmul_precision()
    if device.type == "cuda":
        torch.set_float32_matmul_precision("highest" if precision == "float32" else "high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def check_room(config: TrainConfig, width: int, device: torch.device) -> None:
    """Raise ConfigError where a step cannot fit the memory of the device: two matrices with
    gradient and two moments each, and four tensors [batch, latents], all float32."""
    latents = config.latents_for(width)
    wanted = 4 * (8 * latents * width + 4 * config.batch_size * latents)
    if device.type == "cuda":
        there = torch.cuda.mem_get_info(device)[1]
    else:
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if wanted > there:
        raise ConfigError(
            f"{latents} latents of width {width} at {config.batch_size} vectors a step want "
            f"about {wanted / 1e9:.1f} GB, and this {device.type} has {there / 1e9:.1f} GB; "
            "lower --latents or --batch-size."
        )
