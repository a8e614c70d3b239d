"""Vectors made of known directions, so that what a dictionary finds can be held against them."""

from typing import Literal, final

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

Frequencies = Literal["uniform", "power-law", "correlated"]
GROUP = 4  # correlated features come in groups of so many


@final
class Truth:
    """F unit directions in D dimensions, and an endless stream of their sparse sums.

        x = sum_i a_i f_i,   a_i from 1 to 2 where feature i is on

    On average `on` features are on at a time. `uniform`: each with the same probability, by
    itself. `power-law`: by itself, with probability in proportion to 1 / (i + 1), at most 1/2.
    `correlated`: as often as in uniform, but in groups of 4; where a group is on, each of its
    features is with probability 1/2. A batch is a function of (seed, number of the batch).
    """

    def __init__(
        self,
        frequencies: Frequencies,
        seed: int,
        *,
        width: int = 64,
        features: int = 256,
        on: float = 4.0,
        batch_size: int = 1024,
    ) -> None:
        random = np.random.default_rng((seed, 0))
        rows_FD = random.standard_normal((features, width))
        rows_FD /= np.linalg.norm(rows_FD, axis=1, keepdims=True)
        self.directions_FD: Float32[np.ndarray, "f d"] = rows_FD.astype(np.float32)
        share_F = np.ones(features)
        if frequencies == "power-law":
            share_F = 1 / np.arange(1, features + 1)
        self._probability_F = np.minimum(on * share_F / share_F.sum(), 0.5)
        self._correlated = frequencies == "correlated"
        self.batch_size, self._seed, self._batch = batch_size, seed, 0
        x = torch.cat([next(self) for _ in range(8)])
        self._batch = 0
        self.scale = float((width / x.square().sum(dim=1).mean()).sqrt())

    def state(self) -> dict[str, int]:
        """How many batches have been given."""
        return {"batch": self._batch}

    def restore(self, state: dict[str, int]) -> None:
        """Go on from there."""
        self._batch = state["batch"]

    def __next__(self) -> Float[Tensor, "n d"]:
        random = np.random.default_rng((self._seed, 1, self._batch))
        self._batch += 1
        shape = (self.batch_size, len(self.directions_FD))
        if self._correlated:
            groups = random.random((shape[0], shape[1] // GROUP))
            on = groups < 2 * self._probability_F[::GROUP]
            mask = on.repeat(GROUP, axis=1) & (random.random(shape, np.float32) < 0.5)
        else:
            mask = random.random(shape, np.float32) < self._probability_F
        amounts = mask * (1 + random.random(shape, np.float32))
        # a product of torch's, which keeps to one thread where it is told to; numpy's does not
        return torch.from_numpy(amounts) @ torch.from_numpy(self.directions_FD)

    def recovery(self, W_dec: Float[Tensor, "s d"]) -> float:
        """Mean over the features of the largest cosine of a latent's direction with it."""
        rows_SD = torch.nn.functional.normalize(W_dec.detach().cpu(), dim=1)
        cosine_FS = torch.from_numpy(self.directions_FD) @ rows_SD.T
        return float(cosine_FS.max(dim=1).values.mean())
