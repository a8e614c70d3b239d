"""What a training run is asked for. No torch here: `--help` must be quick."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from data.errors import ConfigError

ObjectiveName = Literal["topk", "relu_l1"]

SMALL_STEP = 2**27  # multiplications of an encoder's product that one thread does best alone
FORMAT = 1  # raised when the same config would give another dictionary
APART = {"name", "store", "site", "device", "threads", "home", "log_every", "checkpoint_every"}
ONLY_FOR: dict[ObjectiveName, set[str]] = {
    "topk": {"k", "aux_k", "aux_weight", "bias"},
    "relu_l1": {"l1", "l1_warmup"},
}


@dataclass(frozen=True)
class TrainConfig:
    """One dictionary, trained on one site of one store."""

    name: str = ""
    """First part of the run's name; empty: objective and site."""
    store: str = "latest"
    """The store: a path, a name in store/, the beginning of one, or latest."""
    site: str = ""
    """The site to train on; empty: the first of the store."""
    objective: ObjectiveName = "topk"
    """What is minimised."""
    latents: int = 0
    """S, the size of the dictionary; 0: eight times the width of the site."""
    k: int = 16
    """Latents on at a time (topk)."""
    aux_k: int = 0
    """Dead latents that model what is left over (topk); 0: half the width of the site."""
    aux_weight: float = 1 / 32
    """Weight of that term (topk)."""
    bias: Literal["median", "mean", "zero"] = "median"
    """Where b_dec starts: the geometric median of a batch, its mean, or zero (topk)."""
    l1: float = 1.0
    """Lambda, the weight of the L1 penalty (relu_l1)."""
    l1_warmup: float = 0.05
    """Share of the steps over which lambda rises from zero (relu_l1)."""
    steps: int = 2000
    """Steps of the optimiser."""
    batch_size: int = 4096
    """Vectors a step."""
    lr: float = 1e-3
    """Peak learning rate of Adam."""
    lr_decay: float = 0.2
    """Share of the steps, the last ones, over which the learning rate falls to zero."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    dead_after: int = 250_000
    """Vectors without firing after which a latent counts as dead."""
    held_out: float = 0.05
    """Share of the inputs kept away from training, for evaluation."""
    eval_rows: int = 65_536
    """Held-out vectors to evaluate on, at most."""
    seed: int = 0
    """Seed of the initial weights and of the order of the data."""
    device: str = "auto"
    """auto, cpu or cuda."""
    threads: int = 0
    """CPU threads; 0: one where a step is so small that threads would wait for each other."""
    home: str = ""
    """Folder that holds store/ and runs/; empty: $TENDRIL_HOME, or here."""
    log_every: int = 20
    """Steps between lines of metrics.csv."""
    checkpoint_every: int = 250
    """Steps between checkpoints."""

    def check(self, width: int) -> None:
        """Raise ConfigError where a value cannot be used for vectors of this width."""
        for name in ("steps", "batch_size", "dead_after", "eval_rows", "log_every", "lr", "clip"):
            _demand(getattr(self, name) > 0, f"--{_flag(name)} is above 0", getattr(self, name))
        _demand(self.checkpoint_every > 0, "--checkpoint-every is above 0", self.checkpoint_every)
        for name in ("latents", "aux_k", "aux_weight", "l1", "seed", "threads"):
            _demand(getattr(self, name) >= 0, f"--{_flag(name)} is 0 or more", getattr(self, name))
        for name in ("l1_warmup", "lr_decay"):
            value = getattr(self, name)
            _demand(0 <= value <= 1, f"--{_flag(name)} is a share from 0 to 1", value)
        _demand(0 < self.held_out < 1, "--held-out is a share between 0 and 1", self.held_out)
        latents = self.latents_for(width)
        if self.objective == "topk" and not 1 <= self.k <= latents:
            raise ConfigError(
                f"--k is from 1 to the number of latents, {latents}, and not {self.k}; "
                "lower --k or raise --latents."
            )

    def latents_for(self, width: int) -> int:
        """S for a site of this width."""
        return self.latents or 8 * width

    def is_small(self, width: int) -> bool:
        """Whether a step on vectors of this width is too small to share among threads."""
        return self.batch_size * width * self.latents_for(width) < SMALL_STEP

    def identity(self) -> dict[str, Any]:
        """The fields that determine the dictionary, beside the store and the site.

        What belongs to another objective is left out: it changes nothing.
        """
        others = set[str]().union(*(ONLY_FOR[o] for o in ONLY_FOR if o != self.objective))
        fields = dataclasses.asdict(self)
        return {"format": FORMAT} | {f: v for f, v in fields.items() if f not in APART | others}


def _demand(holds: bool, expected: str, got: object) -> None:
    if not holds:
        raise ConfigError(f"{expected}, and not {got}.")


def _flag(name: str) -> str:
    return name.replace("_", "-")
