"""Stores of orbits: what a config may ask of them, and controls that damage orbits on purpose."""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from tendril.data.errors import ConfigError
from tendril.data.group.dihedral import Dihedral
from tendril.data.store.reader import Store

from .config import BASELINES, TrainConfig, check_choice, fields_of, users_of
from .groups import CONTROLS, FROZEN, Control

SHUFFLES = 4093  # permutations of the elements, one a row and then from the first again


@final
@dataclass(frozen=True)
class Damage:
    """A control, applied to a batch of orbits [n, G, D].

    relabelled  one permutation of the elements for all rows, x'[g] = x[p(g)]: the product of the
                group is lost, and what all orbits have in common is kept
    shuffled    a permutation of its own for each row: row n of a batch gets the n-th of a list.
                Rows come shuffled, so the choice is random, and the same again after a stop
    half        the reflected half of each orbit is that of the next row of the batch: rotations
                are kept, reflections are lost

    Permutations are drawn from the seed.
    """

    control: Control
    group: Dihedral
    seed: int

    def __call__(self, x_NGD: Float[Tensor, "n g d"]) -> Float[Tensor, "n g d"]:
        """The damaged batch; without a control the batch itself."""
        if self.control == "relabelled":
            return x_NGD[:, self._permutations(1, x_NGD.device)[0]]
        if self.control == "shuffled":
            rows_N = torch.arange(len(x_NGD), device=x_NGD.device)
            orders_NG = self._permutations(min(SHUFFLES, len(x_NGD)), x_NGD.device)
            return x_NGD[rows_N[:, None], orders_NG[rows_N % SHUFFLES]]
        if self.control == "reflected-half-from-another-anchor":
            turns = self.group.rotations
            return torch.cat([x_NGD[:, :turns], x_NGD[:, turns:].roll(1, dims=0)], dim=1)
        return x_NGD

    def _permutations(self, count: int, device: torch.device) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        drawn = torch.rand(count, len(self.group), generator=generator)
        return drawn.argsort(dim=1).to(device)


def check_orbits(config: TrainConfig, store: Store) -> None:
    """Raise ConfigError if a config asks for orbits that a store cannot give."""
    group, control = store.group, config.control
    check_choice("--control", control, CONTROLS)
    if control == "shuffled-units":
        _check_single_vectors(store)
        return
    if control in FROZEN:
        _check_frozen(config)
        control = "none"  # of orbits
    _check_single_elements(config, store)
    if group is None and (config.objective == "equivariant" or control != "none"):
        what = f"--control {control}" if control != "none" else "an equivariant group crosscoder"
        raise ConfigError(
            f"{what} needs a store of orbits; {store.name} has no group. Make one with `tendril "
            "harvest orbits`, or name one with --store."
        )
    if control == "wrong-side" and config.objective != "equivariant":
        raise ConfigError(
            "--control wrong-side needs the objective equivariant, which ties copies by the group; "
            f"got {config.objective!r}. Choose another control."
        )
    if group and not group.reflections and control.startswith("reflected-half"):
        raise ConfigError(
            f"--control {control} needs a group with reflections; {store.name} has {group.name}. "
            "Choose another control."
        )
    if config.objective == "equivariant" and config.resample_every:
        raise ConfigError(
            "--resample-every must be 0 for the objective equivariant, whose dead families AuxK "
            f"trains; got {config.resample_every}."
        )
    if group and config.sources != "all" and "sources" not in fields_of(config.objective):
        raise ConfigError(
            f"--sources {config.sources} needs one of the objectives "
            f"{', '.join(users_of('sources'))}; got {config.objective!r}, which encodes all "
            "elements. Choose one of these, or --sources all."
        )


def _check_single_vectors(store: Store) -> None:
    """Raise ConfigError if units cannot be shuffled."""
    if store.group is not None:
        raise ConfigError(
            f"--control shuffled-units needs a store of single vectors; {store.name} holds orbits "
            f"of {store.group.name}. Choose --control shuffled."
        )


def _check_frozen(config: TrainConfig) -> None:
    """Raise ConfigError if an objective has nothing of its own to freeze."""
    control, objective = config.control, config.objective
    part = "encoder" if control == "frozen-encoder" else "decoder"
    if objective in BASELINES or (objective == "tied" and control != "soft-frozen-decoder"):
        why = ", whose encoder and decoder are one matrix" if objective == "tied" else ""
        raise ConfigError(
            f"--control {control} needs an objective with {'an' if part == 'encoder' else 'a'} "
            f"{part} of its own; got {objective!r}{why}. Choose topk, for example."
        )
    if control != "soft-frozen-decoder" and config.resample_every:
        raise ConfigError(
            f"--resample-every must be 0 with --control {control}, whose {part} directions do not "
            f"change; got {config.resample_every}."
        )


def _check_single_elements(config: TrainConfig, store: Store) -> None:
    """Raise ConfigError if a config asks for single elements that a store cannot give."""
    if config.orbits == "joined":
        return
    damaged = config.control not in ("none", *FROZEN)
    if store.group is None or config.objective == "equivariant" or damaged:
        what = (
            f"{store.name} has no group"
            if store.group is None
            else "an equivariant group crosscoder, or a control, needs whole orbits"
        )
        raise ConfigError(
            f"--orbits {config.orbits} takes single elements from a store of orbits; {what}. Leave "
            "it at joined."
        )
    if config.orbits == "each" and config.batch_size % len(store.group):
        raise ConfigError(
            f"--orbits each needs a --batch-size that is a multiple of {len(store.group)}, the "
            f"number of elements of {store.group.name}; got {config.batch_size}."
        )
