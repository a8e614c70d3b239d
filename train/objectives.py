"""The objectives by name: what a config asks for."""

from collections.abc import Callable
from typing import Any

from data.errors import ConfigError

from .config import ObjectiveName, TrainConfig, near
from .objective import Objective
from .objectives_dense import GatedL1, JumpReLU, ReluL1, TiedL1
from .objectives_sparse import Aux, BatchTopK, TopK

Blocks = tuple[int, ...]


def make_objective(config: TrainConfig, width: int, blocks: Blocks = ()) -> Objective[Any]:
    """The objective that a config asks for, for vectors of this width; `blocks` are the widths
    of the sites of a crosscoder. Raises ConfigError for a name that is not known."""
    if config.objective not in OBJECTIVES:
        raise ConfigError(
            f"--objective is one of {', '.join(OBJECTIVES)}, and not {config.objective!r}"
            f"{near(config.objective, OBJECTIVES)}."
        )
    return OBJECTIVES[config.objective](config, width, blocks)


def _relu_l1(config: TrainConfig, width: int, blocks: Blocks) -> Objective[Any]:
    return ReluL1(config.l1, config.sparsity_warmup, blocks, config.sources)


def _tied(config: TrainConfig, width: int, blocks: Blocks) -> Objective[Any]:
    return TiedL1(config.l1, config.sparsity_warmup)


def _gated(config: TrainConfig, width: int, blocks: Blocks) -> Objective[Any]:
    return GatedL1(config.l1, config.sparsity_warmup, config.bias)


def _jumprelu(config: TrainConfig, width: int, blocks: Blocks) -> Objective[Any]:
    numbers = (config.l0, config.target_l0, config.bandwidth, config.sparsity_warmup)
    return JumpReLU(*numbers, config.bias)


def _topk(config: TrainConfig, width: int, blocks: Blocks) -> Objective[Any]:
    return TopK(config.k, _aux(config, width), config.bias, config.k_anneal)


def _batch_topk(config: TrainConfig, width: int, blocks: Blocks) -> Objective[Any]:
    return BatchTopK(
        config.k,
        _aux(config, width),
        config.bias,
        window=min(1000, max(1, config.steps // 20)),
        anneal=config.k_anneal,
        shares=config.groups if config.objective == "matryoshka" else (1.0,),
        blocks=blocks,
        sources=config.sources,
    )


def _aux(config: TrainConfig, width: int) -> Aux:
    return Aux(config.aux_k or max(1, width // 2), config.aux_weight)


OBJECTIVES: dict[ObjectiveName, Callable[[TrainConfig, int, Blocks], Objective[Any]]] = {
    "topk": _topk,
    "batch_topk": _batch_topk,
    "matryoshka": _batch_topk,
    "relu_l1": _relu_l1,
    "tied": _tied,
    "gated": _gated,
    "jumprelu": _jumprelu,
}
