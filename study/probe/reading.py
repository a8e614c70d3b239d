"""The columns that are probed: latents, units and principal components of some examples."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64
from scipy.sparse import csr_matrix, vstack

from tendril.data.cli import progress_bar
from tendril.data.store.reader import Store
from tendril.models.dictionaries.sae import SAE

from ..measures.sparse_probing import Columns
from .examples import Examples

AT_ONCE = 2**24  # latents times rows that are encoded at a time: 64 MB


@final
@dataclass(frozen=True)
class Readings:
    """What is read of the examples at a site: the vectors, their principal components and the codes
    of each dictionary. An example of several rows is the mean over them."""

    units: Columns
    components: Columns
    codes: Sequence[Columns]


@torch.inference_mode()
def read_examples(
    store: Store,
    sites: Sequence[str],
    examples: Examples,
    dictionaries: Sequence[SAE],
    device: torch.device,
) -> Readings:
    """Read the rows of the examples once and encode them with each dictionary. Principal components
    are those of the rows, whatever they are the examples of."""
    count = len(examples.input_N)
    width = sum(store.width(site) for site in sites)
    x_ND = np.zeros((count, width))
    sum_D, square_DD = np.zeros(width), np.zeros((width, width))
    codes: list[list[csr_matrix]] = [[] for _ in dictionaries]
    most = max((sae.latents for sae in dictionaries), default=1)
    dictionaries = [sae.to(device) for sae in dictionaries]
    for part, x_MD in _blocks(store, sites, examples.rows_M, max(256, AT_ONCE // most)):
        mean_NM = _means(examples.example_M, part, count)
        x_ND += mean_NM @ x_MD
        sum_D += x_MD.sum(axis=0, dtype=np.float64)
        square_DD += x_MD.T.astype(np.float64) @ x_MD
        for kept, sae in zip(codes, dictionaries, strict=True):
            z_MS = csr_matrix(sae.encode(torch.from_numpy(x_MD).to(device)).cpu().numpy())
            kept.append(mean_NM @ z_MS if examples.pooled else z_MS)
    basis_DD = _basis(sum_D, square_DD, len(examples.rows_M))
    together = [sum(kept[1:], kept[0]) if examples.pooled else vstack(kept) for kept in codes]
    return Readings(
        Columns(x_ND), Columns(x_ND @ basis_DD), [Columns(one.tocsc()) for one in together]
    )


def _blocks(
    store: Store, sites: Sequence[str], rows_M: Int64[np.ndarray, " m"], size: int
) -> Iterator[tuple[slice, Float32[np.ndarray, "m d"]]]:
    with progress_bar(total=len(rows_M), desc="+".join(sites), unit=" rows") as bar:
        for start in range(0, len(rows_M), size):
            part = slice(start, min(start + size, len(rows_M)))
            read = [store.read(site, rows_M[part]) for site in sites]
            yield part, np.concatenate(read, axis=1)
            bar.update(part.stop - start)


def _means(example_M: Int64[np.ndarray, " m"], part: slice, count: int) -> csr_matrix:
    """The matrix [examples, rows of a part] whose product with rows sums to their means."""
    size_N = np.bincount(example_M, minlength=count)
    of_M = example_M[part]
    return csr_matrix((1 / size_N[of_M], (of_M, np.arange(len(of_M)))), (count, len(of_M)))


def _basis(
    sum_D: Float64[np.ndarray, " d"], square_DD: Float64[np.ndarray, "d d"], count: int
) -> Float64[np.ndarray, "d d"]:
    """The principal directions as columns, largest variance first."""
    mean_D = sum_D / count
    _, vectors = np.linalg.eigh(square_DD / count - np.outer(mean_D, mean_D))
    return np.ascontiguousarray(vectors[:, ::-1])
