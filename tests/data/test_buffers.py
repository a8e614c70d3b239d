"""LentMemory: memory is not reused while a view of it is alive, and is reused afterwards."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from tendril.data.store.buffers import LARGE_PAGE, LentMemory, uninitialised

VIEWS: dict[str, Callable[[np.ndarray], Any]] = {
    "itself": lambda a: a,
    "a slice of a slice": lambda a: a[1:][:, 2:],
    "other dtype and shape": lambda a: a.reshape(-1).view(np.uint8),
    "asarray": lambda a: np.asarray(a[2]),
    "memoryview": lambda a: memoryview(a[:1].reshape(-1).view(np.uint8)),
    "tensor": lambda a: torch.from_numpy(a),
    "view of a tensor": lambda a: torch.from_numpy(a)[1:].view(-1),
    "array of a tensor": lambda a: torch.from_numpy(a)[1:].numpy(),
    "a graph": lambda a: (torch.from_numpy(a).requires_grad_() ** 2).sum(),
}


@pytest.mark.parametrize("rows", [4, LARGE_PAGE // 64])
@pytest.mark.parametrize("kind", VIEWS)
def test_memory_is_lent_to_one_at_a_time(kind: str, rows: int) -> None:
    lent = LentMemory((rows, 16), "float32")
    first = lent.array()
    place = first.ctypes.data
    seen = VIEWS[kind](first)
    del first
    other = lent.array()
    assert other.ctypes.data != place, "a view is still alive"
    del seen
    again = lent.array()
    assert again.ctypes.data == place, "no view is left"
    assert again.shape == (rows, 16)
    again[...] = 1
    other[...] = 2
    assert (again == 1).all()


def test_memory_outlives_who_lent_it() -> None:
    lent = LentMemory((LARGE_PAGE // 4,), "float32")
    array = lent.array()
    array[...] = 3
    del lent
    assert (array == 3).all()


@pytest.mark.parametrize("shape", [(0, 3), (5, 3), (LARGE_PAGE // 2, 3)])
def test_room_is_as_asked_for(shape: tuple[int, ...]) -> None:
    array = uninitialised(shape, "int16")
    assert array.shape == shape
    assert array.dtype == np.int16
    array[...] = 7
    assert (array == 7).all()
