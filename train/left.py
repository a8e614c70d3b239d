"""Vectors that something is taken from before training: a span, or other dictionaries' part."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from tendril.data.errors import ConfigError
from tendril.data.store.moments import Moments, moments_of, no_moments
from tendril.data.store.reader import Store
from tendril.models.dictionaries.checkpoint import read_tensors
from tendril.models.dictionaries.sae import SAE, Stored

from .config import BASELINES, TrainConfig

DIRECTIONS = "directions"
BATCH = 4096


def moments_left(store: Store, site: str, of: Callable[[Tensor], Tensor], rows: int) -> Moments:
    """Moments of what `of` leaves of vectors, over so many rows or a few more."""
    total = no_moments(store.width(site))
    batches = store.batches((site,), BATCH, part="all", epochs=1)
    try:
        for batch in batches:
            total = total.merge(moments_of(of(batch[site]).numpy()))
            if total.count >= rows:
                break
    finally:
        batches.close()
    return total


def without_span(
    config: TrainConfig, store: Store, sites: Sequence[str]
) -> tuple[Callable[[Tensor], Tensor], Callable[[Stored], Stored]]:
    """The function x - Q^T Q x, where the rows of Q [r, D] are an orthonormal basis of the span of
    the directions in `config.remove_span`, and the one that makes a dictionary of what is left one
    of whole vectors. Raises ConfigError for a file or vectors that do not fit."""
    path, width = Path(config.remove_span), store.width(sites[0])
    if config.objective in (*BASELINES, "equivariant") or len(sites) > 1 or store.group:
        raise ConfigError(
            "--remove-span must be used with a trained objective on single vectors of one site; "
            f"got {config.objective!r} on {', '.join(sites)} of {store.name}."
        )
    if not path.is_file():
        raise ConfigError(
            f"--remove-span must be a file of directions; there is no {path}. `tendril study "
            "dense` writes such files beside its page."
        )
    found = read_tensors(path)[0].get(DIRECTIONS)
    if found is None or found.ndim != 2 or found.shape[1] != width or not found.any():
        shape = "none" if found is None else list(found.shape)
        raise ConfigError(
            f"--remove-span must hold `{DIRECTIONS}` [n, {width}] that are not all zero; {path} "
            f"has {shape}. Give the file of a study of the same site."
        )
    basis_RD = orthonormal(found.double()).float()

    def of(x_ND: Tensor) -> Tensor:
        q_RD = basis_RD.to(x_ND)
        kept: Tensor = x_ND - (x_ND @ q_RD.T) @ q_RD
        return kept

    def fold(dictionary: Stored) -> Stored:
        assert isinstance(dictionary, SAE)
        return ignoring(dictionary, basis_RD)

    return of, fold


def orthonormal(rows_ND: Float[Tensor, "n d"]) -> Float[Tensor, "r d"]:
    """An orthonormal basis of the span of rows."""
    _, size_R, basis_RD = torch.linalg.svd(rows_ND, full_matrices=False)
    kept: Tensor = basis_RD[size_R > 1e-6 * size_R.max()]
    return kept


@torch.no_grad()
def ignoring(sae: SAE, basis_RD: Float[Tensor, "r d"]) -> SAE:
    """The SAE that encodes x as `sae` encodes x without the span of an orthonormal basis."""
    made = sae.plain()
    q_RD = basis_RD.to(made.W_enc)
    made.W_enc.sub_(q_RD.T @ (q_RD @ made.W_enc))
    if made.pre_bias:  # b_dec is subtracted before the encoder, and may lie in the span
        made.b_enc.add_(made.b_dec @ (made.W_enc - sae.W_enc))
    return made.eval().requires_grad_(False)


def digest_of_span(config: TrainConfig) -> str:
    """The SHA-256 of the file of directions: part of what determines a run."""
    return hashlib.sha256(Path(config.remove_span).read_bytes()).hexdigest()
