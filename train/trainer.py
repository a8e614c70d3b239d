"""All that training is at one step, so that it can be taken, written down and gone on from."""

import math
import os
from collections.abc import Mapping
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from data.errors import ConfigError
from data.reader import Batches
from models.dictionaries.sae import SAE

from .config import TrainConfig
from .metrics import fvu
from .objectives import Loss, Objective
from .optim import (
    adam_tensors,
    learning_rate,
    make_adam,
    normalise_rows,
    remove_parallel_gradient,
    restore_adam,
)


@final
class Trainer:
    """All that training is at one step: `advance()` takes one, `state()` writes it down."""

    def __init__(
        self,
        config: TrainConfig,
        objective: Objective,
        batches: Batches,
        scale: float,
        device: torch.device,
    ) -> None:
        self.config, self._objective = config, objective
        self._batches, self._scale = batches, scale
        self.step = 0
        beginning = batches.state()
        x_ND = next(batches) * scale
        batches.restore(beginning)
        generator = torch.Generator().manual_seed(config.seed)
        latents = config.latents_for(x_ND.shape[1])
        self.sae: SAE = objective.start(x_ND, latents, generator).to(device)
        self._names = [name for name, _ in self.sae.named_parameters()]
        self._adam = make_adam(self.sae.parameters(), config.lr)
        self._quiet_S = torch.zeros(latents, dtype=torch.int64, device=device)

    @property
    def vectors(self) -> int:
        """Vectors seen so far."""
        return self.step * self.config.batch_size

    def rate(self) -> float:
        """The learning rate of the step to come."""
        config = self.config
        return learning_rate(self.step, config.steps, config.lr, config.lr_decay)

    def advance(self) -> tuple[Float[Tensor, "n d"], Loss]:
        """One step: returns the (scaled) batch and its loss from before the step."""
        x_ND = next(self._batches) * self._scale
        dead_S = self._quiet_S >= self.config.dead_after
        progress = self.step / self.config.steps
        loss = self._objective.loss(self.sae, x_ND, dead_S, progress)
        self._adam.zero_grad()
        torch.autograd.backward(loss.total)
        if self._objective.unit_rows:
            remove_parallel_gradient(self.sae.W_dec)
        clip_grad_norm_(self.sae.parameters(), self.config.clip)
        for group in self._adam.param_groups:
            group["lr"] = self.rate()
        self._adam.step()
        if self._objective.unit_rows:
            normalise_rows(self.sae.W_dec)
        self._quiet_S += len(x_ND)
        self._quiet_S[loss.fired_S] = 0
        self.step += 1
        return x_ND, loss

    def figures(self, x_ND: Float[Tensor, "n d"], loss: Loss) -> dict[str, int | float]:
        """A line of metrics.csv."""
        self.check_finite(loss)
        return {
            "step": self.step,
            "vectors": self.vectors,
            "loss": float(loss.total.detach()),
            "fvu": fvu(x_ND, loss.x_hat_ND),
            "l0": float(loss.active),
            "dead": self.dead_share(),
        }

    def dead_share(self) -> float:
        """Share of the latents that have not fired on the last `dead_after` vectors (on any,
        while fewer have been seen)."""
        long = min(self.config.dead_after, max(self.vectors, 1))
        return float((self._quiet_S >= long).double().mean())

    def check_finite(self, loss: Loss) -> None:
        """Raise ConfigError where training has come apart; such a state is never written."""
        value = float(loss.total.detach())
        if not math.isfinite(value):
            raise ConfigError(
                f"the loss is {value} at step {self.step}: training has diverged; "
                f"lower --lr (it is {self.config.lr:g})."
            )

    def state(self, seconds: float) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and numbers from which `restore` goes on, bit for bit on one CPU."""
        tensors = {f"sae.{name}": tensor for name, tensor in self.sae.state_dict().items()}
        tensors |= adam_tensors(self._adam, self._names) | {"quiet": self._quiet_S}
        numbers = {"step": self.step, "reader": self._batches.state(), "seconds": seconds}
        return tensors, numbers

    def restore(self, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> float:
        """Go on from a state; returns the seconds spent so far."""
        weights = {n.removeprefix("sae."): t for n, t in tensors.items() if n.startswith("sae.")}
        self.sae.load_state_dict(weights)
        restore_adam(self._adam, self._names, dict(tensors))
        self._quiet_S.copy_(tensors["quiet"])
        self._batches.restore(numbers["reader"])
        self.step = int(numbers["step"])
        return float(numbers["seconds"])


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
