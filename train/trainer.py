"""The state of training at one step, which can be saved and restored; and the optimiser."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Required, TypedDict, final, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from tendril.data.device import float64
from tendril.data.errors import ConfigError, RunDamagedError
from tendril.models.dictionaries.checkpoint import check_fields, check_values
from tendril.models.dictionaries.sae import Dictionary

from .config import TrainConfig
from .groups import FROZEN
from .metrics import fvu
from .objectives.base import Loss, Objective

BETAS, EPS = (0.9, 0.999), 6.25e-10  # Gao et al. (2406.04093), A.3: rare latents, small gradients
MOMENTS = ("step", "exp_avg", "exp_avg_sq")


class StateNumbers(TypedDict, total=False):
    """The numbers of a state."""

    step: Required[int]
    seconds: Required[float]
    reader: Required[dict[str, int]]
    readers: list[dict[str, int]]
    run: str
    files: dict[str, list[int | str]]


@runtime_checkable
class Stream(Protocol):
    """Endless batches that can be resumed."""

    def __next__(self) -> Float[Tensor, "n d"]: ...

    def state(self) -> dict[str, int]:
        """All that `restore` needs to continue from here."""
        ...

    def restore(self, state: dict[str, int]) -> None:
        """Continue from a state."""
        ...


@dataclass(frozen=True)
class Ranks:
    """This process among those that train one dictionary together. All of them call each method.

    These methods are those of a process that trains alone; `distributed.Together` has the others.
    """

    rank: int = 0
    ranks: int = 1

    @property
    def first(self) -> bool:
        """True for the process that writes, prints and evaluates."""
        return self.rank == 0

    def rows_of(self, batch_size: int) -> int:
        """Rows of a batch that belong to this process. Raises ConfigError if these are not equally
        many for all processes."""
        if batch_size % self.ranks:
            raise ConfigError(
                f"--batch-size must be a multiple of the {self.ranks} processes; got {batch_size}. "
                f"Choose {-(-batch_size // self.ranks) * self.ranks}."
            )
        return batch_size // self.ranks

    def agreed(self, answer: bool) -> bool:
        """The answer of rank 0."""
        return answer

    def each(self, value: Any) -> list[Any]:
        """The values of all ranks, in their order."""
        return [value]

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Copy tensors from rank 0, in place."""

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by their mean over all ranks, in place."""

    def union(self, x_ND: Float[Tensor, "n d"]) -> Float[Tensor, "m d"]:
        """The rows of all ranks, in their order; all ranks have equally many."""
        return x_ND

    def whole(self, loss: Loss) -> Loss:
        """The loss and the counts of the whole batch; x_hat stays that of this rank."""
        return loss

    def wait(self) -> None:
        """Return when all ranks have called this."""


ALONE = Ranks()


@final
class Trainer:
    """The state of training at one step: `advance()` takes a step, `state()` gives the state.

    Vectors are multiplied by `scale`: a number, or one per dimension if several sites are joined,
    or None if they come scaled. Before that `centre` is subtracted, if there is one. If several
    processes train together (`ranks`), `batches` are the rows of this one, and all of them call
    each method.
    """

    def __init__(
        self,
        config: TrainConfig,
        objective: Objective[Any],
        batches: Stream,
        scale: float | Float[Tensor, " d"] | None,
        device: torch.device,
        ranks: Ranks = ALONE,
        *,
        centre: Float[Tensor, " d"] | None = None,
    ) -> None:
        self.config, self.objective, self._ranks = config, objective, ranks
        self._batches, self._device = batches, device
        self._scale = scale.to(device) if isinstance(scale, Tensor) else scale
        self._centre = None if centre is None else centre.to(device)
        self.step = 0
        beginning = batches.state()
        x_ND = ranks.union(self.next())
        batches.restore(beginning)
        generator = torch.Generator().manual_seed(config.seed)
        latents = config.latents_for(x_ND.shape[1])
        self.sae: Dictionary = objective.start(x_ND.cpu(), latents, generator).to(device)
        ranks.broadcast(self.sae.state_dict().values())
        self._start: Tensor | None = None  # decoder rows that the trained ones must stay near
        if config.control in FROZEN:
            from .frozen import freeze

            self._start = freeze(self.sae, config.control)
        if config.bias == "none":
            self.sae.b_dec.requires_grad_(False)
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
        """The learning rate of the next step."""
        config = self.config
        return learning_rate(self.step, config.steps, config.lr, config.lr_decay, config.lr_warmup)

    def advance(self) -> tuple[Float[Tensor, "n d"], Loss]:
        """Take one step. Returns the (scaled) batch and its loss before the step."""
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
        """Latents that have not fired on the last `dead_after` vectors."""
        return self._quiet_S >= self.config.dead_after

    @property
    def progress(self) -> float:
        """The fraction of the steps that has been taken."""
        return self.step / self.config.steps

    def update(self, x_ND: Float[Tensor, "n d"], loss: Loss) -> None:
        """The second half of a step, after the backward pass of the loss."""
        unit_rows = self.objective.unit_rows and self.sae.W_dec.requires_grad
        if unit_rows:
            remove_parallel_gradient(self.sae.W_dec)
        length = clip_grad_norm_(self._trained, self.config.clip)
        for group in self._adam.param_groups:
            group["lr"] = self.rate()
        self._adam.step()
        if unit_rows:
            normalise_rows(self.sae.W_dec)
        self._hold()
        self.objective.settle(self.sae, loss)
        self._quiet_S += len(x_ND) * self._ranks.ranks
        self._quiet_S[loss.fired_S] = 0
        self.step += 1
        bad = ~(loss.total.detach() + length).isfinite() & (self._first_bad < 0)
        self._first_bad = torch.where(bad, self.step, self._first_bad)
        self._resample(x_ND, loss)

    def next(self) -> Float[Tensor, "n d"]:
        """The next batch, centred and scaled."""
        x_ND = next(self._batches)
        if self._centre is not None:
            x_ND = x_ND - self._centre
        return x_ND if self._scale is None else x_ND * self._scale

    def clear(self) -> None:
        """Clear the gradients of the last step."""
        self._adam.zero_grad()

    def autocast(self) -> AbstractContextManager[object]:
        """A context in which the loss is computed in the configured precision."""
        if self.config.precision != "bf16" or self._device.type != "cuda":
            return nullcontext()
        return torch.autocast("cuda", torch.bfloat16)

    def _hold(self) -> None:
        """Keep decoder rows near their start, if the control is soft-frozen-decoder."""
        if self._start is not None:
            from .frozen import hold_near

            hold_near(self.sae.W_dec, self._start)

    def _resample(self, x_ND: Float[Tensor, "n d"], loss: Loss) -> None:
        """Initialise dead latents again, if it is time; the draw is a function of seed and step."""
        every = self.config.resample_every
        if not every or self.step % every:
            return
        from .resample import resample

        dead_S = self._quiet_S >= self.config.dead_after
        generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + self.step)
        x_ND, x_hat_ND = self._ranks.union(x_ND), self._ranks.union(loss.x_hat_ND)
        error_ND = x_ND - x_hat_ND
        norm = self.objective.new_norm
        given_S = resample(self.sae, self._adam, x_ND, error_ND, dead_S, generator, norm)
        self._hold()
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
            "dead": self.dead_fraction(),
        }

    def dead_fraction(self) -> float:
        """Fraction of the latents that have not fired on the last `dead_after` vectors (on any, as
        long as fewer have been seen)."""
        long = min(self.config.dead_after, max(self.vectors, 1))
        return float(float64(self._quiet_S >= long).mean())

    def first_bad(self) -> int | None:
        """The first step, counted from 1, whose loss or gradient was not finite, if there is one.
        It is kept on the device; reading it waits for the device."""
        step = int(self._first_bad)
        return step if step >= 0 else None

    def state(self, seconds: float) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and numbers from which `restore` continues, bit for bit on one CPU."""
        tensors = {f"sae.{name}": tensor for name, tensor in self.sae.state_dict().items()}
        tensors |= adam_tensors(self._adam, self._names) | {"quiet": self._quiet_S}
        numbers = {"step": self.step, "reader": self._batches.state(), "seconds": seconds}
        if self._ranks.ranks > 1:
            numbers["readers"] = self._ranks.each(self._batches.state())
        return tensors, numbers

    def restore(
        self, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any], source: object = "state"
    ) -> float:
        """Continue from a state, read from `source`; returns the seconds spent so far. Raises
        RunDamagedError unless it is one of this training, and ConfigError if the number of
        processes has changed, since each has its own position in the data."""
        self._check_state(tensors, numbers, source)
        readers = numbers.get("readers", [numbers["reader"]])
        if len(readers) != self._ranks.ranks:
            raise ConfigError(
                f"the number of processes must be {len(readers)}, as when the run began; got "
                f"{self._ranks.ranks}. Use torchrun --nproc-per-node {len(readers)}, or start "
                "again with --overwrite."
            )
        weights = {n.removeprefix("sae."): t for n, t in tensors.items() if n.startswith("sae.")}
        self.sae.load_state_dict(weights)
        restore_adam(self._adam, self._names, dict(tensors))
        self._quiet_S.copy_(tensors["quiet"])
        self._batches.restore(readers[self._ranks.rank])
        self.step = int(numbers["step"])
        return float(numbers["seconds"])

    def _check_state(
        self, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any], source: object
    ) -> None:
        wanted = {f"sae.{name}": tensor for name, tensor in self.sae.state_dict().items()}
        wanted["quiet"] = self._quiet_S
        for name, parameter in zip(self._names, self._trained, strict=True):
            wanted |= {f"adam.{name}.{moment}": parameter for moment in MOMENTS[1:]}
            wanted[f"adam.{name}.step"] = torch.tensor(0.0)
        differing = next(
            (
                name
                for name in sorted(wanted.keys() | tensors.keys())
                if name not in wanted
                or name not in tensors
                or wanted[name].shape != tensors[name].shape
                or wanted[name].dtype != tensors[name].dtype
            ),
            None,
        )
        again = "Start again with --overwrite."
        if differing is not None:
            raise RunDamagedError(
                f"{source} must hold the tensors of this training; {differing} is missing, unknown "
                f"or of another shape or type. {again}"
            )
        floats = {name: t for name, t in tensors.items() if name != "quiet"}
        check_values(floats, source, RunDamagedError, again)
        check_fields(numbers, StateNumbers, Path(str(source)))
        if not 0 < numbers["step"] <= self.config.steps:
            raise RunDamagedError(
                f"the step in {source} must be from 1 to {self.config.steps}; got "
                f"{numbers['step']}. {again}"
            )


def make_adam(parameters: Iterable[nn.Parameter], lr: float) -> torch.optim.Adam:
    """Adam, which updates all parameters in one kernel."""
    return torch.optim.Adam(parameters, lr=lr, betas=BETAS, eps=EPS, fused=True)


def learning_rate(step: int, steps: int, peak: float, decay: float, warmup: float = 0.0) -> float:
    """The learning rate at a step, counted from 0: it rises linearly to the peak over the first
    fraction `warmup` of the steps and falls linearly to zero over the last fraction `decay`.

    Source: Anthropic, circuits update of April 2024 (decay = 0.2, no warm-up).
    """
    head, tail = warmup * steps, decay * steps
    rising = (step + 1) / head if head else 1.0
    falling = (steps - step) / tail if tail else 1.0
    return peak * min(1.0, rising, falling)


@torch.no_grad()
def remove_parallel_gradient(W_dec: nn.Parameter) -> None:
    """grad_i -= <grad_i, d_i> d_i for unit rows d_i, so that Adam does not change norms that
    `normalise_rows` restores. Source: Bricken et al. 2023; Gao et al. (2406.04093), A.1."""
    assert W_dec.grad is not None, "comes after backward"
    rows_SD, grad_SD = W_dec.flatten(1), W_dec.grad.flatten(1)  # the same memory
    along_S1 = torch.einsum("sd,sd->s", grad_SD, rows_SD)[
        :, None
    ]  # avoids a third matrix of this size
    grad_SD.addcmul_(along_S1, rows_SD, value=-1)


@torch.no_grad()
def normalise_rows(W_dec: nn.Parameter) -> None:
    """d_i /= ||d_i||, where d_i may have several blocks."""
    rows_SD = W_dec.flatten(1)
    rows_SD.div_(rows_SD.norm(dim=1, keepdim=True))


def adam_tensors(optimizer: torch.optim.Adam, names: list[str]) -> dict[str, Tensor]:
    """The state of Adam as `adam.<parameter>.<moment>`; empty before the first step."""
    state = optimizer.state_dict()["state"]
    return {
        f"adam.{names[number]}.{moment}": values[moment]
        for number, values in state.items()
        for moment in MOMENTS
    }


def restore_adam(optimizer: torch.optim.Adam, names: list[str], tensors: dict[str, Tensor]) -> None:
    """Restore the state of Adam from `adam_tensors`."""
    state = {
        number: {moment: tensors[f"adam.{name}.{moment}"].clone() for moment in MOMENTS}
        for number, name in enumerate(names)
    }
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
