"""The objectives by name: what a config asks for."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tendril.data.errors import ConfigError
from tendril.data.group.dihedral import Dihedral

from ..config import ObjectiveName, TrainConfig, near
from .base import Objective
from .equivariant import OrbitTopK
from .k_sparse import Aux, BatchTopK, TopK
from .penalised import GatedL1, JumpReLU, ReluL1, TiedL1

Blocks = tuple[int, ...]


@dataclass(frozen=True)
class Shape:
    """What vectors an objective is for: their width, the widths of the sites (or elements) of a
    crosscoder, and the group that they are orbits of."""

    width: int
    blocks: Blocks
    group: Dihedral | None


def make_objective(
    config: TrainConfig, width: int, blocks: Blocks = (), group: Dihedral | None = None
) -> Objective[Any]:
    """The objective that a config asks for, for vectors of this width; `blocks` are the widths
    of the sites (or elements) of a crosscoder. Raises ConfigError for a name that is not known."""
    if config.objective not in OBJECTIVES:
        raise ConfigError(
            f"--objective is one of {', '.join(OBJECTIVES)}, and not {config.objective!r}"
            f"{near(config.objective, OBJECTIVES)}."
        )
    return OBJECTIVES[config.objective](config, Shape(width, blocks, group))


def _relu_l1(config: TrainConfig, shape: Shape) -> Objective[Any]:
    return ReluL1(
        config.l1,
        config.sparsity_warmup,
        shape.blocks,
        config.sources,
        config.ranking,
        config.decoder_norm,
    )


def _tied(config: TrainConfig, shape: Shape) -> Objective[Any]:
    return TiedL1(config.l1, config.sparsity_warmup)


def _gated(config: TrainConfig, shape: Shape) -> Objective[Any]:
    return GatedL1(config.l1, config.sparsity_warmup, config.bias)


def _jumprelu(config: TrainConfig, shape: Shape) -> Objective[Any]:
    numbers = (config.l0, config.target_l0, config.bandwidth, config.sparsity_warmup)
    return JumpReLU(*numbers, config.bias)


def _topk(config: TrainConfig, shape: Shape) -> Objective[Any]:
    return TopK(config.k, _aux(config, shape.width), config.bias, config.k_anneal)


def _batch_topk(config: TrainConfig, shape: Shape) -> Objective[Any]:
    return BatchTopK(
        config.k,
        _aux(config, shape.width),
        config.bias,
        window=min(1000, max(1, config.steps // 20)),
        anneal=config.k_anneal,
        shares=config.groups if config.objective == "matryoshka" else (1.0,),
        blocks=shape.blocks,
        sources=config.sources,
        ranking=config.ranking,
    )


def _orbit(config: TrainConfig, shape: Shape) -> Objective[Any]:
    assert shape.group is not None, "`source.check_orbits` has refused others"
    return OrbitTopK(
        shape.group,
        config.k,
        Aux(config.aux_k or config.k, config.aux_weight),
        config.bias,
        config.rounds,
        config.poses,
        "wrong" if config.control == "wrong-side" else "right",
    )


def _aux(config: TrainConfig, width: int) -> Aux:
    return Aux(config.aux_k or max(1, width // 2), config.aux_weight)


OBJECTIVES: dict[ObjectiveName, Callable[[TrainConfig, Shape], Objective[Any]]] = {
    "topk": _topk,
    "batch_topk": _batch_topk,
    "matryoshka": _batch_topk,
    "relu_l1": _relu_l1,
    "tied": _tied,
    "gated": _gated,
    "jumprelu": _jumprelu,
    "orbit": _orbit,
}
