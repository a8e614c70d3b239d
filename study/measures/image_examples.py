"""Dataset examples: the rows of a store that excite a unit most, and their pixels."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, UInt8

from tendril.data.inputs.images import ImageSource, readable
from tendril.data.store.reader import Store
from tendril.models.sites.receptive import ReceptiveField

BLOCK = 8192
MOST_ROWS = 1_000_000


@dataclass(frozen=True)
class Patch:
    """The receptive field's pixels of an input that excites a unit, and the response."""

    pixels: UInt8[np.ndarray, "h w 3"]
    value: float
    name: str


@dataclass(frozen=True)
class Row:
    """A row of a store and the response to it."""

    value: float
    number: int


def strongest_rows(
    store: Store,
    site: str,
    respond: Callable[[Float[np.ndarray, "n d"]], Float[np.ndarray, "n m"]],
    members: int,
    count: int,
    block: int = BLOCK,
) -> list[list[Row]]:
    """For each of `members` responses, the `count` rows that excite most, one an input.

    `respond` turns rows of the site into responses. Rows come in blocks of `block`, so memory
    does not grow with the store; of more than a million rows, blocks spread evenly are read.
    """
    valid, inputs = store.column("valid"), store.column("input")
    best = [(np.empty(0), np.empty(0, dtype=np.int64)) for _ in range(members)]
    for start in spread_blocks(store.rows, block):
        stop = min(start + block, store.rows)
        rows = start + np.flatnonzero(valid[start:stop])
        values_NM = respond(store.read(site, slice(start, stop))[rows - start])
        for m, (values, numbers) in enumerate(best):
            floor = values[-1] if len(values) == count else 0.0
            better = np.flatnonzero(values_NM[:, m] > floor)
            if len(better):
                joined = np.concatenate([values, values_NM[better, m]])
                best[m] = keep_best(joined, np.concatenate([numbers, rows[better]]), inputs, count)
    return [
        [Row(float(v), int(n)) for v, n in zip(values, numbers, strict=True)]
        for values, numbers in best
    ]


def spread_blocks(rows: int, block: int = BLOCK) -> list[int]:
    """The first rows of the blocks to read: all, or a million rows spread over the store."""
    starts = np.arange(0, rows, block)
    most = MOST_ROWS // block
    if len(starts) > most:
        starts = starts[np.linspace(0, len(starts) - 1, most).astype(int)]
    return [int(start) for start in starts]


def keep_best(
    values: Float[np.ndarray, " n"],
    rows: Int[np.ndarray, " n"],
    inputs: Int[np.ndarray, " r"],
    count: int,
) -> tuple[np.ndarray, np.ndarray]:
    """The `count` highest values with their rows, the best row of each input only."""
    order = np.lexsort((rows, -values))
    _, first = np.unique(inputs[rows[order]], return_index=True)
    chosen = order[np.sort(first)[:count]]
    return values[chosen], rows[chosen]


def cut_patches(
    store: Store,
    site: str,
    field: ReceptiveField,
    source: ImageSource,
    size: int,
    best: Sequence[Sequence[Row]],
) -> list[list[Patch]]:
    """The pixels of each row's receptive field; edges are repeated beyond the image. Each input
    is opened once; those that cannot be read are left out."""
    inputs = store.column("input")
    wanted = sorted({int(inputs[row.number]) for rows in best for row in rows})
    images = {index: readable(source, index, size) for index in wanted}
    patches = []
    for rows in best:
        found = []
        for row in rows:
            index = int(inputs[row.number])
            if (image := images[index]) is None:
                continue
            pixel = pixel_of(store, site, field, row.number)
            pixels = cut(image, pixel, min(max(field.size), size))
            found.append(Patch(pixels, row.value, store.input_name(index)))
        patches.append(found)
    return patches


def cell_of(store: Store, site: str, row: int) -> tuple[int, int]:
    """The cell (y, x) of a site at a row of the store.

    The columns `y` and `x` number the cells of the store's first site; on another site it is the
    cell that holds the middle of that cell.
    """
    drawn_on, grid = store.grid(store.sites[0]), store.grid(site)
    y, x = (
        (2 * int(store.column(name)[row]) + 1) * grid[axis] // (2 * drawn_on[axis])
        for axis, name in enumerate(("y", "x"))
    )
    return y, x


def pixel_of(store: Store, site: str, field: ReceptiveField, row: int) -> tuple[int, int]:
    """The pixel (y, x) that the cell of a row is centred on."""
    y, x = cell_of(store, site, row)
    return pixel_at(field, y, x)


def pixel_at(field: ReceptiveField, y: int, x: int) -> tuple[int, int]:
    """The pixel (y, x) that the cell in row y and column x is centred on."""
    across, down = field.pixel(float(y), float(x))
    if field.is_patch:  # the first pixel of the crop is the first of the patch
        return math.floor(down + 0.5), math.floor(across + 0.5)
    return round(down), round(across)


def cut(
    image: UInt8[np.ndarray, "h w 3"], pixel: tuple[int, int], size: int
) -> UInt8[np.ndarray, "s s 3"]:
    """A square of `size` pixels about `pixel` (y, x), the image's edges repeated outside it."""
    offsets = np.arange(size) - size // 2
    y, x = (np.clip(p + offsets, 0, n - 1) for p, n in zip(pixel, image.shape, strict=False))
    return image[np.ix_(y, x)]
