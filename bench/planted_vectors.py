"""Vectors made from planted directions, with which a dictionary's latents can be compared."""

from typing import final

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from .config import Frequencies

GROUP = 4  # features in a group of correlated ones


@final
class PlantedVectors:
    """F unit directions in D dimensions, and an endless stream of their sparse sums.

        x = sum_i a_i f_i,   a_i between 1 and 2 if feature i fires, else 0

    On average `active` features fire. "uniform": independently, with equal probability.
    "power-law": independently, with probability proportional to 1 / (i + 1), at most 1/2.
    "correlated": as often as in uniform, in groups of 4; if a group fires, each of its features
    fires with probability 1/2. A batch is a pure function of the seed and its number.
    """

    def __init__(
        self,
        frequencies: Frequencies,
        seed: int,
        *,
        width: int = 64,
        features: int = 256,
        active: float = 4.0,
        batch_size: int = 1024,
    ) -> None:
        random = np.random.default_rng((seed, 0))
        rows_FD = random.standard_normal((features, width))
        rows_FD /= np.linalg.norm(rows_FD, axis=1, keepdims=True)
        self.directions_FD: Float32[np.ndarray, "f d"] = rows_FD.astype(np.float32)
        weight_F = np.ones(features)
        if frequencies == "power-law":
            weight_F = 1 / np.arange(1, features + 1)
        self._probability_F = np.minimum(active * weight_F / weight_F.sum(), 0.5)
        self._correlated = frequencies == "correlated"
        self.batch_size, self._seed, self._batch = batch_size, seed, 0
        x = torch.cat([next(self) for _ in range(8)])
        self._batch = 0
        self.scale = float((width / x.square().sum(dim=1).mean()).sqrt())

    def state(self) -> dict[str, int]:
        """The number of the next batch."""
        return {"batch": self._batch}

    def restore(self, state: dict[str, int]) -> None:
        """Continue from a state."""
        self._batch = state["batch"]

    def __next__(self) -> Float[Tensor, "n d"]:
        random = np.random.default_rng((self._seed, 1, self._batch))
        self._batch += 1
        shape = (self.batch_size, len(self.directions_FD))
        if self._correlated:
            groups = random.random((shape[0], shape[1] // GROUP))
            firing = groups < 2 * self._probability_F[::GROUP]
            mask = firing.repeat(GROUP, axis=1) & (random.random(shape, np.float32) < 0.5)
        else:
            mask = random.random(shape, np.float32) < self._probability_F
        amounts = mask * (1 + random.random(shape, np.float32))
        # torch respects the number of threads set by `cpu_threads`; numpy does not
        return torch.from_numpy(amounts) @ torch.from_numpy(self.directions_FD)

    def recovery(self, W_dec: Float[Tensor, "s d"]) -> float:
        """The mean over features of the largest cosine with the decoder row of any latent."""
        rows_SD = torch.nn.functional.normalize(W_dec.detach().cpu(), dim=1)
        cosine_FS = torch.from_numpy(self.directions_FD) @ rows_SD.T
        return float(cosine_FS.max(dim=1).values.mean())
