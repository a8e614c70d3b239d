"""What a training run is asked for. No torch here: `--help` must be quick."""

import dataclasses
import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from tendril.data.errors import ConfigError

ObjectiveName = Literal[
    "topk", "batch_topk", "matryoshka", "relu_l1", "tied", "gated", "jumprelu", "orbit"
]
Control = Literal[
    "none", "relabelled", "shuffled", "reflected-half-from-another-anchor", "wrong-side"
]
CONTROLS: tuple[Control, ...] = get_args(Control)
BaselineName = Literal["pca", "ica", "random", "neurons"]
BASELINES: tuple[BaselineName, ...] = get_args(BaselineName)
JOINT = ("relu_l1", "batch_topk", "matryoshka", "orbit")  # objectives that a crosscoder can have

SMALL_STEP = 2**27  # multiplications of an encoder's product that one thread does best alone
FORMAT = 2  # raised when the same config would give another dictionary
APART = {
    *("name", "store", "beside", "site", "sites", "device", "threads", "home", "compile"),
    *("log_every", "checkpoint_every", "eval_every", "tensorboard"),
}
K_SPARSE = {"k", "k_anneal", "aux_k", "aux_weight", "bias"}
CROSSCODER = {"sources", "ranking"}
STEPS = {
    *("steps", "batch_size", "lr", "lr_warmup", "lr_decay", "clip", "dead_after"),
    *("resample_every", "precision", "latents"),
}
ONLY_FOR: dict[ObjectiveName | BaselineName, set[str]] = {
    "topk": STEPS | K_SPARSE,
    "batch_topk": STEPS | K_SPARSE | CROSSCODER,
    "matryoshka": STEPS | K_SPARSE | CROSSCODER | {"groups"},
    "relu_l1": STEPS | CROSSCODER | {"l1", "sparsity_warmup", "decoder_norm"},
    "tied": STEPS | {"l1", "sparsity_warmup"},
    "gated": STEPS | {"l1", "sparsity_warmup", "bias"},
    "jumprelu": STEPS | {"l0", "target_l0", "bandwidth", "sparsity_warmup", "bias"},
    "orbit": (STEPS | K_SPARSE | {"families", "poses", "rounds"})
    - {"k_anneal", "resample_every", "latents"},
    **{name: {"k", "fit_rows", "latents"} for name in BASELINES},
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
    sites: tuple[str, ...] = ()
    """Several sites for one crosscoder; empty: --site alone."""
    beside: str = ""
    """A second store, of another network over the same inputs: one crosscoder of both (a base and
    a tuned model, say)."""
    sources: Literal["all", "one", "random"] = "all"
    """What the encoder of a crosscoder sees: all sites, the first, or one at random a vector. In
    a store of orbits: all elements, the identity, or one at random."""
    ranking: Literal["sum_of_norms", "norm_of_sums"] = "sum_of_norms"
    """What a crosscoder's latent weighs: the norms of its directions at all sites (elements)
    added up, or the norm of them all side by side."""
    decoder_norm: float = 0.1
    """Norm of a latent's directions, all side by side, before the first step (relu_l1)."""
    control: Control = "none"
    """Orbits that are spoilt, for comparison: elements in one other order, in an order of its own
    for each row, or the reflected half of another anchor; or (orbit) the wrong side of the
    group."""
    orbits: Literal["joined", "each", "identity"] = "joined"
    """What a vector is in a store of orbits: a whole orbit; or a single element of one, each of
    them or the identity alone, as an SAE of augmented inputs or of plain ones has it."""
    objective: ObjectiveName | BaselineName = "topk"
    """What is minimised, or the baseline that is fitted."""
    latents: int = 0
    """S, the size of the dictionary; 0: eight times the width of the site."""
    families: int = 32
    """Families of latents, each of as many copies as the group has elements (orbit)."""
    poses: Literal["best", "all"] = "best"
    """What competes for the k places: the best copy of each family, or every copy (orbit)."""
    rounds: int = 1
    """Rounds in which the k places are given, each to what those before have left over, so that a
    family may be on at several poses (orbit)."""
    k: int = 16
    """Latents on at a time (topk, baselines), or on average (batch_topk, matryoshka); families
    on at a time (orbit)."""
    k_anneal: float = 0.0
    """Share of the steps over which k falls from the width of the site (k-sparse objectives)."""
    groups: tuple[float, ...] = (1 / 16, 1 / 16, 1 / 8, 1 / 4, 1 / 2)
    """Shares of the dictionary that each nested prefix adds (matryoshka)."""
    aux_k: int = 0
    """Dead latents that model what is left over (k-sparse objectives); 0: half the width, or k
    families (orbit)."""
    aux_weight: float = 1 / 32
    """Weight of that term (k-sparse objectives)."""
    bias: Literal["median", "mean", "zero"] = "median"
    """Where b_dec starts: the geometric median of a batch, its mean, or zero."""
    l1: float = 1.0
    """Lambda, the weight of the L1 penalty (relu_l1, tied, gated)."""
    l0: float = 1e-2
    """Lambda, the weight of a latent that is on, or of missing the target (jumprelu)."""
    target_l0: float = 0.0
    """Latents on that are aimed at (jumprelu); 0: each is penalised instead."""
    bandwidth: float = 0.1
    """Width of the kernel that estimates the thresholds' gradients (jumprelu)."""
    sparsity_warmup: float = 0.05
    """Share of the steps over which lambda rises from zero."""
    fit_rows: int = 65_536
    """Vectors that a baseline is fitted on, at most (pca, ica)."""
    steps: int = 2000
    """Steps of the optimiser."""
    batch_size: int = 4096
    """Vectors a step."""
    lr: float = 1e-3
    """Peak learning rate of Adam."""
    lr_warmup: float = 0.0
    """Share of the steps, the first ones, over which the learning rate rises from zero."""
    lr_decay: float = 0.2
    """Share of the steps, the last ones, over which the learning rate falls to zero."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    dead_after: int = 250_000
    """Vectors without firing after which a latent counts as dead."""
    resample_every: int = 0
    """Steps after which dead latents start anew where the error is large; 0: never."""
    huge: Literal["keep", "drop", "cap"] = "keep"
    """What becomes of rows of huge norm: they stay, are left out, or are shortened."""
    huge_times: float = 10.0
    """How many times the median a huge norm is, at least."""
    held_out: float = 0.05
    """Share of the inputs kept away from training, for evaluation."""
    eval_rows: int = 65_536
    """Held-out vectors to evaluate on, at most."""
    seed: int = 0
    """Seed of the initial weights, and of the order of the data unless --order is given."""
    order: int = -1
    """Seed of the order of the data; -1: --seed. Runs of one order can share a pass."""
    device: str = "auto"
    """auto, cpu or cuda."""
    precision: Literal["float32", "tf32", "bf16"] = "tf32"
    """Of products on a GPU: bf16 is autocast. A CPU computes in float32 whatever it says."""
    compile: bool = False
    """Compile the loss with torch.compile: a minute at first, worth it on a GPU."""
    threads: int = 0
    """CPU threads; 0: one where a step is so small that threads would wait for each other."""
    home: str = ""
    """Folder that holds store/ and runs/; empty: $TENDRIL_HOME, or here."""
    log_every: int = 20
    """Steps between lines of metrics.csv."""
    checkpoint_every: int = 250
    """Steps between checkpoints."""
    eval_every: int = 0
    """Steps between evaluations on held-out vectors, to evaluations.csv; 0: only at the end."""
    tensorboard: bool = False
    """Write the metrics for TensorBoard too, into the run's folder (wants `tensorboard`)."""

    def check(self, width: int) -> None:
        """Raise ConfigError where a value cannot be used for vectors of this width."""
        for name in (
            *("steps", "batch_size", "dead_after", "eval_rows", "fit_rows", "log_every"),
            *("checkpoint_every", "lr", "clip", "bandwidth", "decoder_norm", "families", "rounds"),
        ):
            _demand(getattr(self, name) > 0, f"--{_flag(name)} is above 0", getattr(self, name))
        for name in (
            *("latents", "aux_k", "aux_weight", "l1", "l0", "target_l0", "seed", "threads"),
            *("resample_every", "eval_every"),
        ):
            _demand(getattr(self, name) >= 0, f"--{_flag(name)} is 0 or more", getattr(self, name))
        for name in ("sparsity_warmup", "k_anneal", "lr_warmup", "lr_decay"):
            value = getattr(self, name)
            _demand(0 <= value <= 1, f"--{_flag(name)} is a share from 0 to 1", value)
        _demand(0 < self.held_out < 1, "--held-out is a share between 0 and 1", self.held_out)
        shares = "--groups are shares above 0"
        _demand(bool(self.groups) and min(self.groups) > 0, shares, self.groups)
        self._check_objective(width)

    def _check_objective(self, width: int) -> None:
        if self.objective not in ONLY_FOR:
            raise ConfigError(
                f"--objective is one of {', '.join(ONLY_FOR)}, and not {self.objective!r}"
                f"{near(self.objective, ONLY_FOR)}."
            )
        if (len(self.sites) > 1 or self.beside) and self.objective not in JOINT:
            raise ConfigError(
                "several --sites, or a store --beside, want one of the objectives "
                f"{', '.join(JOINT)}, and not {self.objective!r}; choose one of these, or give one "
                "--site."
            )
        if self.beside and self.huge == "drop":
            raise ConfigError(
                "--huge drop would leave out other rows of each of two stores; choose keep or cap "
                "with --beside."
            )
        latents = self.latents_for(width)
        what = "families" if self.objective == "orbit" else "latents"
        if "k" in ONLY_FOR[self.objective] and not 1 <= self.k <= latents:
            raise ConfigError(
                f"--k is from 1 to the number of {what}, {latents}, and not {self.k}; "
                f"lower --k or raise --{what}."
            )
        if "rounds" in ONLY_FOR[self.objective] and self.k % self.rounds:
            raise ConfigError(
                f"--rounds divides --k, and {self.rounds} does not divide {self.k}; change either."
            )
        _demand(self.target_l0 <= latents, f"--target-l0 is at most {latents}, all", self.target_l0)

    def latents_for(self, width: int) -> int:
        """S for a site of this width; a basis has two signs of each direction. Of an orbit
        crosscoder the families."""
        if self.objective == "orbit":
            return self.families
        if self.objective in ("pca", "ica", "neurons"):
            return 2 * width
        return self.latents or 8 * width

    @property
    def order_seed(self) -> int:
        """What the order of the data is drawn from."""
        return self.seed if self.order < 0 else self.order

    def is_small(self, width: int) -> bool:
        """Whether a step on vectors of this width is too small to share among threads."""
        if self.objective == "orbit":
            return False  # each family is as many latents as there are elements
        return self.batch_size * width * self.latents_for(width) < SMALL_STEP

    def identity(self) -> dict[str, Any]:
        """The fields that determine the dictionary, beside the store and the site.

        What belongs to other objectives alone is left out: it changes nothing.
        """
        others = set[str]().union(*ONLY_FOR.values()) - ONLY_FOR[self.objective]
        fields = dataclasses.asdict(self)
        kept = {f: v for f, v in fields.items() if f not in APART | others}
        kept["order"] = self.order_seed
        for name in (
            "control",
            "rounds",
            "orbits",
        ):  # runs of before they were there keep their names
            if kept.get(name) == getattr(TrainConfig, name):
                del kept[name]
        return {"format": FORMAT} | {
            f: list(v) if isinstance(v, tuple) else v for f, v in kept.items()
        }


def near(name: str, names: Iterable[str]) -> str:
    """A hint at the names that one that is not known comes close to; empty where none does."""
    close = difflib.get_close_matches(name, list(names), n=3)
    return f"; near it: {', '.join(close)}" if close else ""


def _demand(holds: bool, expected: str, got: object) -> None:
    if not holds:
        raise ConfigError(f"{expected}, and not {got}.")


def _flag(name: str) -> str:
    return name.replace("_", "-")
