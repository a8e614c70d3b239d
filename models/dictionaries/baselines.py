"""What a dictionary is held against: directions found without sparsity, or not found at all.

Each is an SAE like any other (encode, decode, a file, an evaluation), of signed directions v:
two latents a direction, ReLU((x - b) u) and ReLU(-(x - b) u), of which the k largest are kept.
With k = D and a full basis the vectors come back exactly.

    pca      principal directions, from the covariance in float64
    ica      independent directions (FastICA); decoder rows are brought to norm 1
    random   random unit directions, as many as latents are asked for
    neurons  the basis that the vectors come in; one sign where no vector is negative

Source: Cunningham et al. (2309.08600), section 3.2, compares with the same four.
"""

import warnings

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from tendril.data.errors import ConfigError

from .sae import SAE, random_directions
from .sparsity import Sparsity


def pca(x_RD: Float[Tensor, "r d"], k: int) -> SAE:
    """The principal directions v of the vectors, largest variance first; b their mean."""
    x = x_RD.double().cpu().numpy()
    _, vectors = np.linalg.eigh(np.cov(x, rowvar=False))
    rows = np.ascontiguousarray(vectors.T[::-1])
    return _signed(rows, rows.T, x.mean(axis=0), k)


def ica(x_RD: Float[Tensor, "r d"], k: int, seed: int = 0) -> SAE:
    """Independent directions: x - b = sum_i s_i a_i with sources s as independent as FastICA
    (scikit-learn) makes them. Rows a_i are brought to norm 1, the sources take up the rest.
    Dimensions without variance are left out. Raises ConfigError where it does not converge."""
    from sklearn.decomposition import FastICA
    from sklearn.exceptions import ConvergenceWarning

    x = x_RD.double().cpu().numpy()
    varied = int(np.linalg.matrix_rank(np.cov(x, rowvar=False), hermitian=True))
    finder = FastICA(varied, whiten="unit-variance", random_state=seed, max_iter=1000, tol=1e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            finder.fit(x)
        except ConvergenceWarning as error:
            raise ConfigError(
                f"ICA of {len(x)} vectors of width {x.shape[1]} should converge within 1000 "
                "iterations, and does not; raise --fit-rows."
            ) from error
    length = np.linalg.norm(finder.mixing_, axis=0)
    return _signed(
        finder.mixing_.T / length[:, None], finder.components_.T * length, finder.mean_, k
    )


def random(x_RD: Float[Tensor, "r d"], k: int, latents: int, seed: int = 0) -> SAE:
    """Random unit directions, read with themselves; b the mean of the vectors."""
    generator = torch.Generator().manual_seed(seed)
    rows = random_directions(latents, x_RD.shape[1], generator).double().numpy()
    sae = SAE(x_RD.shape[1], latents, Sparsity("topk", k), pre_bias=True)
    return _filled(sae, rows, rows.T, x_RD.double().mean(dim=0).cpu().numpy())


def neurons(x_RD: Float[Tensor, "r d"], k: int) -> SAE:
    """The k largest numbers of every vector, the rest taken as zero."""
    width = x_RD.shape[1]
    identity, zero = np.eye(width), np.zeros(width)
    if bool((x_RD < 0).any()):
        return _signed(identity, identity, zero, k)
    sae = SAE(width, width, Sparsity("topk", min(k, width)), pre_bias=True)
    return _filled(sae, identity, identity, zero)


def _signed(
    rows_CD: Float64[np.ndarray, "c d"],
    readers_DC: Float64[np.ndarray, "d c"],
    bias_D: Float64[np.ndarray, " d"],
    k: int,
) -> SAE:
    """Both signs of every direction."""
    count, width = rows_CD.shape
    sae = SAE(width, 2 * count, Sparsity("topk", min(k, 2 * count)), pre_bias=True)
    rows = np.concatenate([rows_CD, -rows_CD])
    return _filled(sae, rows, np.concatenate([readers_DC, -readers_DC], axis=1), bias_D)


def _filled(
    sae: SAE,
    W_dec: Float64[np.ndarray, "s d"],
    W_enc: Float64[np.ndarray, "d s"],
    b_dec: Float64[np.ndarray, " d"],
) -> SAE:
    values = {"W_dec": W_dec, "W_enc": W_enc, "b_dec": b_dec}
    for name, value in values.items():
        getattr(sae, name).data.copy_(torch.from_numpy(np.ascontiguousarray(value)))
    return sae.eval().requires_grad_(False)
