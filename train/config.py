"""The configuration of a training run, and the objectives by name.

No torch here: `--help` must answer at once.
"""

import dataclasses
import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, NoReturn, final, get_args

import tyro

from tendril.data.cli import check_finite, need
from tendril.data.errors import ConfigError

from . import groups as g

ObjectiveName = Literal[
    "topk", "batch_topk", "matryoshka", "relu_l1", "tied", "gated", "jumprelu", "equivariant"
]
BaselineName = Literal["pca", "ica", "nmf", "random", "neurons"]
BASELINES: tuple[BaselineName, ...] = get_args(BaselineName)

FORMAT = 3  # raised when the same config would give another dictionary, or names would change
SMALL_STEP = 2**27  # multiplications of an encoder's product that one thread does best alone


@final
@dataclass(frozen=True)
class Entry:
    """An objective or a baseline: its name for people, the groups of fields that it uses, and the
    function in objectives/ that makes it, as "module:function" (empty for a baseline)."""

    title: str
    groups: tuple[type[g.Group], ...]
    factory: str = ""


def _trained(title: str, factory: str, *own: type[g.Group]) -> Entry:
    return Entry(title, (g.Inputs, *own, g.Training, g.Logging, g.Compiled), factory)


def _fitted(title: str, *own: type[g.Group]) -> Entry:
    return Entry(title, (g.Inputs, g.Orbits, *own, g.Baseline, g.Loggers, g.Place))


UNTIED = (g.Orbits, g.Untied)
OBJECTIVES: dict[str, Entry] = {
    "topk": _trained("TopK", "k_sparse:topk", *UNTIED, g.Annealed),
    "batch_topk": _trained("BatchTopK", "batch_topk:batch_topk", *UNTIED, g.Annealed, g.Crosscoder),
    "matryoshka": _trained(
        "Matryoshka", "batch_topk:batch_topk", *UNTIED, g.Annealed, g.Matryoshka, g.Crosscoder
    ),
    "relu_l1": _trained("ReLU L1", "penalised:relu_l1", *UNTIED, g.FreeNorms, g.Crosscoder),
    "tied": _trained("tied L1", "penalised:tied", *UNTIED, g.Penalty),
    "gated": _trained("gated", "penalised:gated", *UNTIED, g.Penalty, g.Bias),
    "jumprelu": _trained("JumpReLU", "penalised:jumprelu", *UNTIED, g.Thresholds),
    "equivariant": _trained(
        "equivariant TopK",
        "equivariant:equivariant",
        *(g.Controls, g.Equivariant, g.KSparse, g.Joint),
    ),
    "pca": _fitted("PCA"),
    "ica": _fitted("ICA"),
    "nmf": _fitted("NMF"),
    "random": _fitted("random", g.Size),
    "neurons": _fitted("neurons"),
}
JOINT = tuple(  # objectives of crosscoders
    name for name, e in OBJECTIVES.items() if any(issubclass(group, g.Joint) for group in e.groups)
)


@cache
def fields_of(objective: str) -> frozenset[str]:
    """The fields that an objective uses."""
    return frozenset(f.name for group in OBJECTIVES[objective].groups for f in group_fields(group))


def group_fields(group: type[g.Group]) -> tuple[dataclasses.Field[Any], ...]:
    """The fields of a group."""
    return dataclasses.fields(group)


def users_of(field: str) -> list[str]:
    """The objectives that use a field."""
    return [name for name in OBJECTIVES if field in fields_of(name)]


SPARSITIES = ("k", "l1", "l0", "target_l0")  # fields that set how many latents are active
FIXED_SIZE = ("pca", "ica", "nmf", "neurons")  # baselines whose size the width of the site gives
# fields that lead to the store and its sites, which are in a run's identity themselves
SOURCE = {"store", "site", "sites", "paired_store", "paired_sites", "remove_span"}
ABOVE_0 = (
    *("steps", "batch_size", "dead_after", "eval_rows", "fit_rows", "log_every"),
    *("checkpoint_every", "lr", "clip", "decoder_norm", "families", "rounds"),
    "outlier_times",
)
AT_LEAST_0 = (
    *("latents", "aux_k", "aux_weight", "l1", "l0", "target_l0", "seed", "threads"),
    *("resample_every", "eval_every", "bandwidth", "start_l0"),
)
# fields that came later, whose default changes nothing: absent from identities, so names stay
LATER = {"aux_norm": "none", "start_l0": 0.0}
WANDB = ("wandb_project", "wandb_entity", "wandb_group", "wandb_mode")
FRACTIONS = ("sparsity_warmup", "k_anneal", "lr_warmup", "lr_decay")


@final
@dataclass(frozen=True)
class TrainConfig(
    g.Compiled,
    g.Logging,
    g.Training,
    g.Baseline,
    g.Crosscoder,
    g.Equivariant,
    g.Thresholds,
    g.FreeNorms,
    g.Matryoshka,
    g.Annealed,
    g.Untied,
    g.Orbits,
    g.Inputs,
):
    """One dictionary, trained on one site of one store (a crosscoder: on several sites).

    Its fields are those of all groups. An objective uses those of its own groups (`OBJECTIVES`)
    and ignores the rest.
    """

    objective: Annotated[ObjectiveName | BaselineName, tyro.conf.Suppress] = "topk"
    """Objective that is minimised, or baseline that is fitted."""

    def check(self, width: int) -> None:
        """Raise ConfigError if a value cannot be used for vectors of this width."""
        check_finite(self)
        for name in ABOVE_0:
            _demand(getattr(self, name) > 0, f"--{flag(name)} must be above 0", getattr(self, name))
        for name in AT_LEAST_0:
            value = getattr(self, name)
            _demand(value >= 0, f"--{flag(name)} must be 0 or more", value)
        for name in FRACTIONS:
            value = getattr(self, name)
            _demand(0 <= value <= 1, f"--{flag(name)} must be a fraction from 0 to 1", value)
        between = "--held-out must be a fraction between 0 and 1"
        _demand(0 < self.held_out < 1, between, self.held_out)
        above = "--groups must be fractions above 0"
        _demand(bool(self.groups) and min(self.groups) > 0, above, self.groups)
        self._check_objective(width)
        for name in WANDB:
            if getattr(self, name) != getattr(TrainConfig, name) and not self.wandb:
                raise ConfigError(f"--{flag(name)} must be given with --wandb. Add it.")

    def _check_objective(self, width: int) -> None:
        check_choice("--objective", self.objective, OBJECTIVES)
        if self.objective in ("ica", "nmf"):
            need(f"the recipe {self.objective}", "sklearn")
        if (len(self.sites) > 1 or self.paired_store) and self.objective not in JOINT:
            what = "--paired-store" if self.paired_store else "several --sites"
            raise ConfigError(
                f"{what} must be used with one of the objectives {', '.join(JOINT)}; got "
                f"{self.objective!r}. Choose one of these, or give one --site."
            )
        if self.paired_sites and not self.paired_store:
            raise ConfigError("--paired-sites must be given with --paired-store. Add it.")
        if self.paired_store and self.norm_outliers == "drop":
            raise ConfigError(
                "--norm-outliers must be keep or cap with --paired-store; got 'drop', which would "
                "drop different rows of the two stores."
            )
        if self.bias != TrainConfig.bias and "bias" not in fields_of(self.objective):
            raise ConfigError(
                f"--bias must be one of the flags of the objective, and {self.objective} has no "
                f"such flag; got {self.bias!r}. Leave it out: a large mean is subtracted anyway."
            )
        latents = self.latents_for(width)
        what = "families" if self.objective == "equivariant" else "latents"
        if "k" in fields_of(self.objective) and not 1 <= self.k <= latents:
            raise ConfigError(
                f"--k must be from 1 to {latents}, the number of {what}; got {self.k}. Lower --k "
                f"or raise --{what}."
            )
        if "rounds" in fields_of(self.objective) and self.k % self.rounds:
            raise ConfigError(
                f"--rounds must divide --k; got {self.rounds} and {self.k}. Change one of them."
            )
        for field in ("target_l0", "start_l0"):
            most = f"--{flag(field)} must be at most {latents}, the number of {what}"
            _demand(getattr(self, field) <= latents, most, getattr(self, field))

    def latents_for(self, width: int) -> int:
        """S for vectors of this width. The families, for the equivariant objective; of a basis
        both signs of each direction, where it has them."""
        if self.objective == "equivariant":
            return self.families
        if self.objective == "nmf":
            return width
        if self.objective in FIXED_SIZE:
            return 2 * width
        return self.latents or 8 * width

    @property
    def order_seed(self) -> int:
        """Seed of the order of the data."""
        return self.seed if self.order < 0 else self.order

    def is_small(self, width: int) -> bool:
        """True if a step on vectors of this width is too small to share among threads."""
        if self.objective == "equivariant":
            return False  # each family is as many latents as there are elements
        return self.batch_size * width * self.latents_for(width) < SMALL_STEP

    def identity(self) -> dict[str, Any]:
        """The fields that determine the dictionary, without the store and the site.

        Fields that the objective does not use are left out: they change nothing.
        """
        idle = {f.name for group in (g.Compiled, g.Logging) for f in group_fields(group)}
        used = fields_of(self.objective) - idle - SOURCE | {"objective"}
        values = {f: v for f, v in dataclasses.asdict(self).items() if f in used}
        for name, default in LATER.items():
            if values.get(name) == default:
                del values[name]
        values["order"] = self.order_seed
        return {"format": FORMAT} | {
            f: list(v) if isinstance(v, tuple) else v for f, v in values.items()
        }


def run_label(config: Mapping[str, Any]) -> str:
    """What a run is, from its config.json, e.g. `TopK 256, k 8, mixed3b`."""
    return f"{what_of(config)}, {where_of(config)}"


def what_of(config: Mapping[str, Any]) -> str:
    """The dictionary of a run: objective, size and sparsity."""
    name = str(config.get("objective", ""))
    entry = OBJECTIVES.get(name)
    title = entry.title if entry else name  # of an imported run, its architecture
    size = "" if name in FIXED_SIZE else f" {config.get('latents', '')}"
    if name == "equivariant":
        size = f", {config['latents']} families"
    used = fields_of(name) if entry and "imported" not in config else frozenset[str]()
    shown = [f"{flag(f)} {config[f]:g}" for f in SPARSITIES if f in used and config[f]]
    return ", ".join([title + size, *shown])


def where_of(config: Mapping[str, Any]) -> str:
    """The vectors of a run: its site, and what was taken of a store of orbits."""
    site, group = config.get("site") or "unknown site", config.get("group")
    control = config.get("control", "none")
    if not group:
        return str(site) if control == "none" else f"{site} ({control})"
    name = f"{'D' if group['reflections'] else 'C'}{group['rotations']}"
    taken = {"each": "elements", "identity": "identity"}.get(config.get("orbits", ""), "orbits")
    return f"{site} ({taken} of {name}{'' if control == 'none' else f', {control}'})"


def check_choice(what: str, value: str, choices: Iterable[str]) -> None:
    """Raise ConfigError if `value` is none of the choices."""
    if value not in choices:
        raise ConfigError(
            f"{what} must be one of {', '.join(choices)}; got {value!r}{near(value, choices)}."
        )


def near(name: str, names: Iterable[str]) -> str:
    """A hint at the known names that are close to an unknown one, or nothing."""
    close = difflib.get_close_matches(name, list(names), n=3)
    return f" (near it: {', '.join(close)})" if close else ""


def flag(name: str) -> str:
    """A field's name as it is typed on the command line."""
    return name.replace("_", "-")


def flags_of(words: Sequence[str]) -> list[str]:
    """The fields that the flags among words name; `--no-switch` names the switch."""
    switches = {f.name for f in dataclasses.fields(TrainConfig) if isinstance(f.default, bool)}
    named = [word[2:].partition("=")[0].replace("-", "_") for word in words if word[:2] == "--"]
    plain = [n.removeprefix("no_") if n.removeprefix("no_") in switches else n for n in named]
    return [name for name in plain if name != "help"]


def refuse_unknown(recipe: str, field: str, own: Sequence[str]) -> NoReturn:
    """Raise ConfigError for a flag that does not exist."""
    hint = near(f"--{flag(field)}", [f"--{flag(name)}" for name in own])
    raise ConfigError(
        f"--{flag(field)} is not a flag of {recipe}{hint}. `tendril train {recipe} --help` lists "
        "its flags."
    )


def _demand(holds: bool, expected: str, got: object) -> None:
    if not holds:
        raise ConfigError(f"{expected}; got {got}.")
