"""Memory for rows: in large pages, and lent again when nobody sees it any more."""

import ctypes
import math
import mmap
import weakref
from collections import deque
from typing import final

import numpy as np
from jaxtyping import Shaped

KEPT = 4  # pieces of memory that wait to be lent again
LARGE_PAGE = 2**21


def room(shape: tuple[int, ...], dtype: str) -> Shaped[np.ndarray, "..."]:
    """An array of any content, in large pages where the system has them.

    Rows gathered at random from half a gigabyte in pages of 4 KiB wait for the table of pages
    as long as for the rows, and each page is a fault when it is first written to.
    """
    count = math.prod(shape)
    size = count * np.dtype(dtype).itemsize
    if size < LARGE_PAGE or not hasattr(mmap, "MADV_HUGEPAGE"):
        return np.empty(shape, dtype)
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, dtype, count).reshape(shape)


@final
class LentMemory:
    """Arrays of one shape over memory that comes back with the last of their views.

    malloc gives what is above 32 MiB back to the system at once, and mapping it anew, page by
    page, each zeroed, takes longer than filling it with rows.
    """

    def __init__(self, shape: tuple[int, ...], dtype: str) -> None:
        self.shape, self.dtype = shape, dtype
        self._free: deque[np.ndarray] = deque(maxlen=KEPT)

    def array(self) -> Shaped[np.ndarray, "..."]:
        """An array of any content, and of nobody else while it, a view of it or a tensor over
        it lives."""
        memory = self._free.pop() if self._free else room(self.shape, self.dtype)
        # views of an array refer to what that is a view of: so to this, which is no array
        lent = (ctypes.c_char * memory.nbytes).from_buffer(memory.data)
        back = weakref.finalize(lent, self._free.append, memory)
        back.atexit = False
        return np.ndarray(self.shape, self.dtype, memoryview(lent))
