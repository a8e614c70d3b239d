"""Pass over the blocks whose output is replaced anyway."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


@torch.no_grad()
def blocks_up_to(module: nn.Module, names: Sequence[str], tokens: Tensor) -> list[nn.Module]:
    """The blocks up to the one whose output a site is.

    Empty for a site that is something else, or where a block returns more than its output.
    """
    if len(names) != 1:
        return []
    parent, _, number = names[0].rpartition(".")
    blocks = module.get_submodule(parent) if parent and number.isdigit() else None
    if not isinstance(blocks, nn.ModuleList):
        return []
    found = list(blocks[: int(number) + 1])
    plain: list[bool] = []

    def note(_module: nn.Module, _inputs: object, output: object) -> None:
        plain.append(isinstance(output, Tensor))

    handles = [block.register_forward_hook(note) for block in found]
    try:
        module(tokens)
    finally:
        for handle in handles:
            handle.remove()
    return found if len(plain) == len(found) and all(plain) else []


@contextmanager
def passed_over(blocks: Sequence[nn.Module]) -> Iterator[None]:
    """A context in which blocks give back their first input. Hooks on them still run."""

    def same(hidden: Any, *_others: Any, **_named: Any) -> Any:
        return hidden

    try:
        for block in blocks:
            block.__dict__["forward"] = same
        yield
    finally:
        for block in blocks:
            block.__dict__.pop("forward", None)
