"""Orbits that are spoilt on purpose: what is found in them is no symmetry of the inputs."""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from tendril.data.group.dihedral import Dihedral

from .config import Control

SHUFFLES = 4093  # different orders of the elements, one a row and then from the first again


@final
@dataclass(frozen=True)
class Spoiler:
    """A control, applied to a batch of orbits [n, G, D].

    relabelled  every row's elements in one other order: x'[g] = x[p(g)]; the group's product is
                lost, but what is alike in all orbits is not
    shuffled    every row's in an order of its own: row n of a batch gets the n-th of a list of
                orders. Rows come shuffled, so that is a random choice, and the same one again
                when a run goes on after a stop
    half        the reflected half of each orbit is that of the next row of the batch: turns
                are kept, reflections are not

    Orders are drawn from the seed.
    """

    control: Control
    group: Dihedral
    seed: int

    def __call__(self, x_NGD: Float[Tensor, "n g d"]) -> Float[Tensor, "n g d"]:
        """The spoilt batch; without a control the batch itself."""
        if self.control == "relabelled":
            return x_NGD[:, self._orders(1, x_NGD.device)[0]]
        if self.control == "shuffled":
            rows_N = torch.arange(len(x_NGD), device=x_NGD.device)
            orders_NG = self._orders(min(SHUFFLES, len(x_NGD)), x_NGD.device)
            return x_NGD[rows_N[:, None], orders_NG[rows_N % SHUFFLES]]
        if self.control == "reflected-half-from-another-anchor":
            turns = self.group.rotations
            return torch.cat([x_NGD[:, :turns], x_NGD[:, turns:].roll(1, dims=0)], dim=1)
        return x_NGD

    def _orders(self, count: int, device: torch.device) -> Tensor:
        """The first `count` orders of the elements."""
        generator = torch.Generator().manual_seed(self.seed)
        drawn = torch.rand(count, len(self.group), generator=generator)
        return drawn.argsort(dim=1).to(device)
