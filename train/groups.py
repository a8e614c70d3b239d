"""The fields of a training run, in groups that each objective chooses from (see `config`).

No torch here: `--help` must answer at once.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

Control = Literal[
    "none",
    "frozen-decoder",
    "soft-frozen-decoder",
    "frozen-encoder",
    "shuffled-units",
    "relabelled",
    "shuffled",
    "reflected-half-from-another-anchor",
    "wrong-side",
]
CONTROLS: tuple[Control, ...] = get_args(Control)
FROZEN: tuple[Control, ...] = ("frozen-decoder", "soft-frozen-decoder", "frozen-encoder")
"""Controls that hold a part of the dictionary where it started."""


@dataclass(frozen=True)
class Group:
    """Fields that belong together. Abstract; `title` is the heading of their help."""

    title: ClassVar[str]


@dataclass(frozen=True)
class Inputs(Group):
    """What is read from the store."""

    title: ClassVar[str] = "data"
    store: str = "latest"
    """Store: a path, a name in store/, the beginning of just one name, or latest."""
    site: str = ""
    """Site to train on; by default the first of the store. Sites of language models have short
    names, such as resid_post.2."""
    batch_size: int = 4096
    """Vectors in a batch; a training step takes one batch."""
    norm_outliers: Literal["keep", "drop", "cap"] = "keep"
    """Rows whose norm is an outlier: keep them, drop them, or scale them down to the limit."""
    outlier_times: float = 10.0
    """A norm is an outlier above this multiple of the median norm."""
    remove_span: str = ""
    """File of directions whose span is removed from vectors, as `study dense` writes it; empty:
    none. The dictionary then ignores that span."""
    held_out: float = 0.05
    """Fraction of the inputs that is held out of training, for evaluation."""
    eval_rows: int = 65_536
    """Held-out vectors to evaluate on, at most."""
    seed: int = 0
    """Seed of the initial weights, and of the order of the data unless --order is given."""
    order: int = -1
    """Seed of the order of the data; -1: --seed. Runs with the same order can share a pass."""


@dataclass(frozen=True)
class Controls(Group):
    """A control: training that cannot find what it is compared with."""

    title: ClassVar[str] = "control"
    control: Control = "none"
    """What is damaged, as a control. frozen-decoder: directions stay random, the rest is trained.
    soft-frozen-decoder: each keeps a cosine of at least 0.8 to its random start. frozen-encoder:
    encoder directions stay random; biases, thresholds and the decoder are trained.
    shuffled-units: the values of each unit come from other rows than those of the next unit. Of
    orbits: relabelled (one permutation of the elements), shuffled (one for each row), the
    reflected half of another anchor, or (equivariant) copies through the wrong side of the
    group."""


@dataclass(frozen=True)
class Orbits(Controls):
    """How a store of orbits is read."""

    title: ClassVar[str] = "orbit"
    orbits: Literal["joined", "each", "identity"] = "joined"
    """Vectors taken from a store of orbits: whole orbits, each element by itself, or the identity
    element alone."""


@dataclass(frozen=True)
class Size(Group):
    """How large the dictionary is."""

    title: ClassVar[str] = "dictionary"
    latents: int = 0
    """S, the number of latents; 0: eight times the width of the site."""


@dataclass(frozen=True)
class Untied(Size):
    """Latents that stand alone."""

    resample_every: int = 0
    """Steps after which dead latents are initialised again where the error is large; 0: never."""


@dataclass(frozen=True)
class Bias(Group):
    """How b_dec is initialised, and whether there is one."""

    title: ClassVar[str] = "initialisation"
    bias: Literal["median", "mean", "zero", "none"] = "median"
    """Initial b_dec: the geometric median of a batch, its mean, or zero; none: b_dec is zero and is
    not trained. (A large mean of a site is subtracted before, so that zero is the mean.)"""


@dataclass(frozen=True)
class Active(Group):
    """How many latents are active."""

    title: ClassVar[str] = "sparsity"
    k: int = 16
    """Active latents of a vector; the average over a batch for batch_topk and matryoshka, active
    families for equivariant."""


@dataclass(frozen=True)
class KSparse(Bias, Active):
    """The k largest latents are active; dead ones are trained on the residual (AuxK)."""

    title: ClassVar[str] = "sparsity"
    aux_k: int = 0
    """Dead latents that reconstruct the residual (AuxK); 0: half the width, or k families for
    equivariant."""
    aux_weight: float = 1 / 32
    """Weight of the AuxK term."""
    aux_norm: Literal["none", "residual"] = "none"
    """What the AuxK term is divided by: the width of the site, as the loss is, or the variance of
    the residual, as in OpenAI's code."""


@dataclass(frozen=True)
class Annealed(KSparse):
    """k-sparse latents whose k can fall during training."""

    k_anneal: float = 0.0
    """Fraction of the steps over which k falls from the width of the site."""


@dataclass(frozen=True)
class Matryoshka(Group):
    """Nested prefixes of the dictionary."""

    title: ClassVar[str] = "matryoshka"
    groups: tuple[float, ...] = (1 / 16, 1 / 16, 1 / 8, 1 / 4, 1 / 2)
    """Fraction of the dictionary that each nested prefix adds."""


@dataclass(frozen=True)
class Warmup(Group):
    """A penalty that rises."""

    title: ClassVar[str] = "sparsity"
    sparsity_warmup: float = 0.05
    """Fraction of the steps over which lambda rises from zero."""


@dataclass(frozen=True)
class Penalty(Warmup):
    """An L1 penalty on latents."""

    l1: float = 1.0
    """Lambda, the weight of the L1 penalty."""


@dataclass(frozen=True)
class FreeNorms(Penalty):
    """An L1 penalty on latents whose directions have free norms."""

    decoder_norm: float = 0.1
    """Initial norm of a latent's direction; of a crosscoder, over all sites together."""


@dataclass(frozen=True)
class Thresholds(Warmup, Bias):
    """A threshold for each latent, and a penalty on the number of active ones."""

    title: ClassVar[str] = "sparsity"
    l0: float = 1e-2
    """Lambda, the weight of an active latent, or of missing --target-l0."""
    target_l0: float = 0.0
    """Number of active latents to aim for; 0: penalise each active latent instead."""
    bandwidth: float = 0.1
    """Width of the kernel that estimates the gradients of the thresholds, for vectors with a mean
    squared norm of D; 0: that of the paper, 0.001 sqrt(D), e.g. 0.0098 for 96 units."""
    start_l0: float = 0.0
    """Number of active latents of a vector before the first step, on average: thresholds start
    where so many pass. 0: thresholds start at half a bandwidth, which about half of the latents
    pass, so that most of a dictionary much wider than its vectors dies."""


@dataclass(frozen=True)
class Equivariant(Group):
    """Families of latents, tied by the group of the orbits."""

    title: ClassVar[str] = "equivariant"
    families: int = 32
    """Families of latents; each has one copy for each element of the group."""
    poses: Literal["best", "all"] = "best"
    """Candidates for the k places: the best copy of each family, or every copy."""
    rounds: int = 1
    """Rounds in which the k places are filled, each from what the rounds before left over, so that
    a family can be active at several poses."""


@dataclass(frozen=True)
class Joint(Group):
    """One dictionary of several sites, or of two networks."""

    title: ClassVar[str] = "crosscoder"
    sites: tuple[str, ...] = ()
    """Several sites, for one crosscoder; by default --site alone."""
    paired_store: str = ""
    """Second store, of another network on the same inputs (a base and a tuned model, say): one
    crosscoder of both."""
    paired_sites: tuple[str, ...] = ()
    """Sites of the second store; by default those of the same names."""


@dataclass(frozen=True)
class Crosscoder(Joint):
    """How a crosscoder weighs what it joins."""

    sources: Literal["all", "one", "random"] = "all"
    """What the encoder of a crosscoder reads: all sites, the first, or one at random for each
    vector. In a store of orbits: all elements, the identity, or one at random."""
    ranking: Literal["sum_of_norms", "norm_of_sums"] = "sum_of_norms"
    """Weight of a crosscoder's latent: the sum of its directions' norms at all sites (elements), or
    the norm of all its directions together."""


@dataclass(frozen=True)
class Baseline(Active):
    """A dictionary that is fitted instead of trained."""

    title: ClassVar[str] = "baseline"
    fit_rows: int = 65_536
    """Vectors that the baseline is fitted on, at most."""


@dataclass(frozen=True)
class Training(Group):
    """The optimiser and its schedule."""

    title: ClassVar[str] = "training"
    steps: int = 2000
    """Steps of the optimiser."""
    lr: float = 1e-3
    """Peak learning rate of Adam."""
    lr_warmup: float = 0.0
    """Fraction of the steps, at the start, over which the learning rate rises from zero."""
    lr_decay: float = 0.2
    """Fraction of the steps, at the end, over which the learning rate falls to zero."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    dead_after: int = 250_000
    """Vectors without firing after which a latent counts as dead."""
    precision: Literal["float32", "tf32", "bf16"] = "tf32"
    """Precision of products on a GPU; bf16 uses autocast. A CPU always computes in float32."""


@dataclass(frozen=True)
class Loggers(Group):
    """Where figures are shown besides metrics.csv. None of it changes the dictionary."""

    title: ClassVar[str] = "logging"
    tensorboard: bool = False
    """Also write metrics for TensorBoard into the run's folder; needs the package tensorboard."""
    wandb: bool = False
    """Also log to Weights & Biases, one W&B run a dictionary; needs the package wandb."""
    wandb_project: str = ""
    """Project at W&B; by default $WANDB_PROJECT, or tendril."""
    wandb_entity: str = ""
    """User or team at W&B; by default W&B's own."""
    wandb_group: str = ""
    """Group at W&B; by default the sweep that the run belongs to, if it does."""
    wandb_mode: Literal["auto", "online", "offline", "disabled"] = "auto"
    """auto: $WANDB_MODE, or online. What is written offline is sent later with `wandb sync`."""


@dataclass(frozen=True)
class Logging(Loggers):
    """What is written during training. None of it changes the dictionary."""

    log_every: int = 20
    """Steps between lines of metrics.csv."""
    checkpoint_every: int = 250
    """Steps between checkpoints."""
    eval_every: int = 0
    """Steps between evaluations on held-out vectors, in evaluations.csv; 0: only at the end."""


@dataclass(frozen=True)
class Place(Group):
    """Where and how the command runs. None of it changes the dictionary."""

    title: ClassVar[str] = "run"
    name: str = ""
    """First part of the run's name; by default objective and site."""
    home: str = ""
    """Folder that holds store/ and runs/; by default $TENDRIL_HOME, or the current folder."""
    device: str = "auto"
    """Device: auto, cpu, cuda, cuda:N or mps."""
    threads: int = 0
    """CPU threads; 0: all, or one if steps are so small that threads would wait for each other."""
    dry_run: bool = False
    """Report what would be trained, and whether it exists, without training."""
    overwrite: bool = False
    """Train again from the start even if the run exists."""


@dataclass(frozen=True)
class Compiled(Place):
    """Where and how training runs."""

    compile: bool = False
    """Compile the loss with torch.compile: takes a minute, pays off on a GPU."""
