"""Baseline dictionaries: directions found without a sparsity objective, or at random.

Each is an ordinary TopK SAE. A direction v with encoder column u and mean b has two latents,
ReLU((x - b) u) and ReLU(-(x - b) u), with decoder rows v and -v; the k largest latents are kept.
With a full basis and k = D the reconstruction is exact.

    pca      principal directions, from the covariance in float64
    ica      independent components (FastICA), with decoder rows of norm 1
    nmf      components of non-negative matrix factorisation, one latent each
    random   random unit directions, one latent each
    neurons  the standard basis; one latent per dimension if no vector has negative entries

Source: Cunningham et al. (2309.08600), section 3.2, compare with the same, NMF apart. Here all of
them keep the k largest latents, so that they have the same L0 as a TopK dictionary.
"""

import warnings

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from tendril.data.errors import ConfigError

from .sae import SAE, random_directions
from .sparsity import Sparsity

NMF_ROWS, NMF_BATCH, NMF_PASSES = 16_384, 4096, 200


def pca(x_RD: Float[Tensor, "r d"], k: int) -> SAE:
    """Principal directions of the vectors [r, D], largest variance first; b_dec is their mean."""
    x = x_RD.double().cpu().numpy()
    _, vectors = np.linalg.eigh(np.cov(x, rowvar=False))
    rows = np.ascontiguousarray(vectors.T[::-1])
    return _signed(rows, rows.T, x.mean(axis=0), k)


def ica(x_RD: Float[Tensor, "r d"], k: int, seed: int = 0) -> SAE:
    """Independent components: x - b = sum_i s_i a_i, with sources s_i from scikit-learn's FastICA.

    Directions a_i are scaled to norm 1 and the sources accordingly. The number of components is
    the rank of the covariance. Raises ConfigError if FastICA does not converge.
    """
    from sklearn.decomposition import FastICA
    from sklearn.exceptions import ConvergenceWarning

    x = x_RD.double().cpu().numpy()
    rank = int(np.linalg.matrix_rank(np.cov(x, rowvar=False), hermitian=True))
    model = FastICA(rank, whiten="unit-variance", random_state=seed, max_iter=1000, tol=1e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            model.fit(x)
        except ConvergenceWarning as error:
            raise ConfigError(
                f"ICA of {len(x)} vectors of width {x.shape[1]} must converge within 1000 "
                "iterations; it did not. Raise --fit-rows."
            ) from error
    norms = np.linalg.norm(model.mixing_, axis=0)
    return _signed(model.mixing_.T / norms[:, None], model.components_.T * norms, model.mean_, k)


def nmf(x_RD: Float[Tensor, "r d"], k: int, seed: int = 0) -> SAE:
    """Non-negative matrix factorisation: x = h W with h, W >= 0, by scikit-learn's MiniBatchNMF.

    There are D components, fitted on the first NMF_ROWS vectors; rows of W_dec are those of W with
    norm 1, and b_dec is zero. The codes h of the fit solve a problem for each vector. A dictionary
    reads its codes linearly: W_enc and b_enc are the least-squares fit of h to x.

    Source: Lee and Seung (Nature 401, 1999); Lefevre et al. (1106.4198) for the mini-batches.
    Raises ConfigError for vectors with negative entries.
    """
    from sklearn.decomposition import MiniBatchNMF
    from sklearn.exceptions import ConvergenceWarning

    least = float(x_RD.min())
    if least < 0:
        raise ConfigError(
            f"NMF needs vectors without negative values; got {least:.3g}. Choose pca or ica, or a "
            "site after a ReLU."
        )
    x = x_RD[:NMF_ROWS].double().cpu().numpy()
    width, scale = x.shape[1], max(float(x.mean()), 1e-300)
    model = MiniBatchNMF(width, batch_size=NMF_BATCH, max_iter=NMF_PASSES, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # each pass improves it a little
        h_RC = model.fit_transform(x / scale)
    norm_C = np.linalg.norm(model.components_, axis=1)
    rows_CD = model.components_ / np.where(norm_C > 0, norm_C, 1)[:, None]
    with_one = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    reader, *_ = np.linalg.lstsq(with_one, h_RC * norm_C * scale, rcond=None)
    sae = SAE(width, width, Sparsity("topk", min(k, width)), pre_bias=True)
    sae.b_enc.data.copy_(torch.from_numpy(reader[-1]))
    return _filled(sae, rows_CD, reader[:-1], np.zeros(width))


def random(x_RD: Float[Tensor, "r d"], k: int, latents: int, seed: int = 0) -> SAE:
    """Random unit directions with W_enc = W_dec^T; b_dec is the mean of the vectors [r, D]."""
    generator = torch.Generator().manual_seed(seed)
    rows = random_directions(latents, x_RD.shape[1], generator).double().numpy()
    sae = SAE(x_RD.shape[1], latents, Sparsity("topk", k), pre_bias=True)
    return _filled(sae, rows, rows.T, x_RD.double().mean(dim=0).cpu().numpy())


def neurons(x_RD: Float[Tensor, "r d"], k: int, centre_D: Float[Tensor, " d"] | None = None) -> SAE:
    """The standard basis: keeps the k entries of x - centre of largest magnitude of each vector.
    `centre` is zero by default."""
    width = x_RD.shape[1]
    identity, zero = np.eye(width), np.zeros(width)
    if centre_D is not None:
        return _signed(identity, identity, centre_D.double().cpu().numpy(), k)
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
    """An SAE with two latents per direction, of either sign."""
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
