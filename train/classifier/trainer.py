"""The steps of training a classifier, and its figures on test images."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import cos, pi
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from tendril.models.attacks import Attack, attacked, correct, evaluating, fgsm

from .config import ClassifierConfig
from .pixels import Pictures, augmented, epoch_order, step_generator

RISE = 0.25  # the part of a one-cycle schedule in which the learning rate rises
TEST_BATCH = 250
TEST_SEED = 0x7E57  # of the random starts of the test


@final
@dataclass(frozen=True)
class Tested:
    """Accuracy on test images: clean, and of the first `attacked` ones under PGD (None if no
    attack was asked for), with the accuracy on these without attack."""

    accuracy: float
    loss: float
    images: int
    accuracy_attacked: float | None
    accuracy_before: float | None
    attacked: int


@final
class Trainer:
    """A network in training. A step is a pure function of the state before it and its number."""

    def __init__(
        self, config: ClassifierConfig, network: nn.Module, data: Pictures, device: torch.device
    ) -> None:
        self.config, self.data, self.device, self.step = config, data, device, 0
        self.steps_per_epoch = -(-len(data) // config.batch_size)
        self.steps = self.steps_per_epoch * config.epochs
        self.network = channels_last(network.to(device)).train()
        decayed = [p for p in network.parameters() if p.ndim > 1]
        others = [p for p in network.parameters() if p.ndim <= 1]
        self._optimiser = torch.optim.SGD(
            [
                {"params": decayed, "weight_decay": config.weight_decay},
                {"params": others, "weight_decay": 0.0},
            ],
            lr=config.lr,
            momentum=config.momentum,
            nesterov=config.momentum > 0,
        )
        self._order = torch.empty(0, dtype=torch.int64)
        self._order_epoch = -1

    @property
    def done(self) -> bool:
        """True if all steps are taken."""
        return self.step >= self.steps

    @property
    def epoch(self) -> int:
        """The number of the epoch that the next step belongs to."""
        return self.step // self.steps_per_epoch

    def rate(self) -> float:
        """The learning rate of the next step."""
        done = (self.step + 1) / self.steps
        if self.config.schedule == "cosine":
            return self.config.lr * 0.5 * (1 + cos(pi * self.step / self.steps))
        rising, falling = done / RISE, (1 - self.step / self.steps) / (1 - RISE)
        return self.config.lr * min(rising, falling, 1.0)

    def take(self) -> dict[str, int | float]:
        """Take a step; the figures of its batch, as it was trained on."""
        config, generator = self.config, step_generator(self.config.seed, self.step)
        chosen = self._batch()
        x_BCHW = self.data.pixels_NCHW[chosen].float() / 255
        x_BCHW = augmented(x_BCHW, config.shift, config.flip, generator)
        x_BCHW = x_BCHW.to(self.device, memory_format=torch.channels_last)
        class_B = self.data.class_N[chosen].to(self.device)
        if config.attack != "none":
            logits_of = evaluating(self.network)
            attack = attack_of(config, self.step / self.steps)
            x_BCHW = attacked(logits_of, x_BCHW, class_B, attack, generator)
        lr = self.rate()
        for group in self._optimiser.param_groups:
            group["lr"] = lr
        logits_BV = self.network(x_BCHW)
        loss = functional.cross_entropy(logits_BV, class_B)
        self._optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimiser.step()
        self.step += 1
        right = float((logits_BV.argmax(1) == class_B).float().mean())
        return {
            "step": self.step,
            "epoch": self.epoch,
            "images": min(self.step * config.batch_size, len(self.data) * config.epochs),
            "loss": float(loss.detach()),
            "accuracy": right,
            "lr": lr,
        }

    def _batch(self) -> Tensor:
        """The numbers of the images of the next step."""
        epoch = self.epoch
        if epoch != self._order_epoch:
            self._order = epoch_order(len(self.data), self.config.seed, epoch)
            self._order_epoch = epoch
        first = (self.step % self.steps_per_epoch) * self.config.batch_size
        return self._order[first : first + self.config.batch_size]

    def state(self) -> dict[str, Tensor]:
        """What the next steps depend on: the network, and its momentum."""
        momentum = {
            f"momentum.{name}": buffer
            for name, p in self.network.named_parameters()
            if (buffer := self._optimiser.state[p].get("momentum_buffer")) is not None
        }
        return {f"network.{n}": t for n, t in self.network.state_dict().items()} | momentum

    def restore(self, tensors: Mapping[str, Tensor], step: int) -> None:
        """Continue after `step` steps."""
        prefix = "network."
        self.network.load_state_dict(
            {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
        )
        for name, p in self.network.named_parameters():
            if (saved := tensors.get(f"momentum.{name}")) is not None:
                self._optimiser.state[p]["momentum_buffer"] = torch.empty_like(p).copy_(saved)
        self.step = step


def channels_last(network: nn.Module) -> nn.Module:
    """The network with its convolutions' weights in the layout that is fastest."""
    moved: nn.Module = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return moved


def attack_of(config: ClassifierConfig, done: float = 1.0) -> Attack:
    """The attack of adversarial training after a part of the steps."""
    epsilon = config.epsilon * (min(1.0, done / config.ramp) if config.ramp else 1.0)
    if config.attack == "fgsm":
        return fgsm(epsilon, config.norm, random_start=True)
    return Attack(config.norm, epsilon, config.attack_steps, keep="last")


def test(config: ClassifierConfig, network: nn.Module, data: Pictures) -> Tested:
    """Accuracy clean and under PGD with a random start."""
    logits_of = evaluating(network)
    device = next(network.parameters()).device
    right, total = 0, 0.0
    with torch.no_grad():
        for x_BCHW, class_B in data.batches(TEST_BATCH):
            logits_BV, class_B = logits_of(x_BCHW.to(device)), class_B.to(device)
            right += int((logits_BV.argmax(1) == class_B).sum())
            total += float(functional.cross_entropy(logits_BV, class_B, reduction="sum"))
    result: dict[str, Any] = {"accuracy_attacked": None, "accuracy_before": None, "attacked": 0}
    if config.tested and config.attacked:
        result = _attacked(config, network, data)
    return Tested(right / len(data), total / len(data), len(data), **result)


def _attacked(config: ClassifierConfig, network: nn.Module, data: Pictures) -> dict[str, Any]:
    logits_of, device = evaluating(network), next(network.parameters()).device
    attack = Attack(config.norm, config.tested, config.test_steps)
    generator = torch.Generator().manual_seed(TEST_SEED)
    before = after = count = 0
    for x_BCHW, class_B in data.sample(config.attacked).batches(TEST_BATCH):
        x_BCHW, class_B = x_BCHW.to(device), class_B.to(device)
        before += int(correct(logits_of, x_BCHW, class_B).sum())
        found = attacked(logits_of, x_BCHW, class_B, attack, generator)
        after += int(correct(logits_of, found, class_B).sum())
        count += len(class_B)
    return {
        "accuracy_attacked": after / count,
        "accuracy_before": before / count,
        "attacked": count,
    }
