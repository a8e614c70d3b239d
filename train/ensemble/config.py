"""The configuration of an ensemble. No torch here: `--help` must answer at once."""

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Literal, final

import tyro

from tendril.data.errors import ConfigError

from ..config import BASELINES, OBJECTIVES, TrainConfig, check_choice


@final
@dataclass(frozen=True)
class EnsembleConfig:
    """Dictionaries of one site that are used as one."""

    how: Literal["bagging", "boosting"] = "bagging"
    """bagging: members differ in their initial weights and their mean is taken. boosting: each
    member is trained on what the ones before it leave, and their sum is taken."""
    members: int = 8
    """J, the number of members. --latents and --k are those of each."""
    objective: str = "topk"
    """Objective of the members."""
    base: Annotated[TrainConfig, tyro.conf.arg(name="")] = dataclasses.field(
        default_factory=TrainConfig
    )
    """How members are trained."""

    def member(self, number: int) -> TrainConfig:
        """The config of a member: its seed is --seed and its number."""
        return dataclasses.replace(
            self.base,
            objective=self.objective,  # type: ignore[arg-type]
            seed=self.base.seed + number,
            order=self.base.order_seed,
        )

    def check(self) -> None:
        """Raise ConfigError for what cannot be an ensemble."""
        check_choice("--objective", self.objective, OBJECTIVES)
        if self.members < 2:
            raise ConfigError(f"--members must be at least 2; got {self.members}.")
        if self.objective in (*BASELINES, "equivariant", "gated") or self.base.paired_store:
            raise ConfigError(
                "--objective of an ensemble must be that of trained SAEs of one site; got "
                f"{self.objective!r}{' and --paired-store' if self.base.paired_store else ''}. "
                "Choose topk, batch_topk, matryoshka, relu_l1, jumprelu or tied."
            )
        if self.how == "boosting" and self.base.norm_outliers != "keep":
            raise ConfigError(
                "--norm-outliers must be keep with --how boosting, whose members see what is left "
                f"of rows; got {self.base.norm_outliers!r}."
            )


def ensemble() -> EnsembleConfig:
    """Train several dictionaries and use them as one: bagging or boosting.

    The result is one dictionary whose decoder rows are those of all members, for every study.
    Members are ordinary runs: those of bagging are trained in one pass, those of boosting one after
    another. Time and memory are those of so many runs.
    """
    return EnsembleConfig()
