"""Memory for rows: in huge pages, and reused when no view of it is left."""

import ctypes
import math
import mmap
import weakref
from collections import deque
from typing import final

import numpy as np
from jaxtyping import Shaped

KEPT = 4  # free buffers that are kept for reuse
LARGE_PAGE = 2**21


def uninitialised(shape: tuple[int, ...], dtype: str) -> Shaped[np.ndarray, "..."]:
    """An uninitialised array, in huge pages (2 MiB) if the system has them.

    With pages of 4 KiB, random reads from half a gigabyte spend as much time on page table
    lookups as on the rows, and the first write to each page is a page fault.
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
    """Arrays of one shape whose memory is reused once their last view is gone.

    malloc returns blocks above 32 MiB to the system at once. Mapping and zeroing such a block
    again, page by page, takes longer than filling it with rows.
    """

    def __init__(self, shape: tuple[int, ...], dtype: str) -> None:
        self.shape, self.dtype = shape, dtype
        self._free: deque[np.ndarray] = deque(maxlen=KEPT)

    def array(self) -> Shaped[np.ndarray, "..."]:
        """An uninitialised array. Its memory is not reused while the array, a view of it or a
        tensor over it is alive."""
        memory = self._free.pop() if self._free else uninitialised(self.shape, self.dtype)
        # a view of an array holds the array's base: here this ctypes buffer, not the array
        lent = (ctypes.c_char * memory.nbytes).from_buffer(memory.data)
        back = weakref.finalize(lent, self._free.append, memory)
        back.atexit = False
        return np.ndarray(self.shape, self.dtype, memoryview(lent))
