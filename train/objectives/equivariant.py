"""The objective of orbit crosscoders: families compete for k places."""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tendril.data.group.dihedral import Dihedral
from tendril.models.dictionaries.equivariant import OrbitCrosscoder, Poses, Side, initialised_orbit
from tendril.models.dictionaries.kernels.orbit import orbit_active
from tendril.models.dictionaries.kernels.reference import Active

from ..optim import middle
from .base import Loss, Objective
from .k_sparse import Aux
from .penalised import squared


@final
@dataclass(frozen=True)
class OrbitTopK(Objective[OrbitCrosscoder]):
    """TopK over families, each at its best pose, with AuxK.

        h_f = argmax_h pre[f, h],  z = ReLU(TopK_f(pre[f, h_f])),  k / rounds at a time
        L = (||x - x_hat||^2 + aux_weight ||e - e_hat||^2) / (G D),   mean over the batch

    where e = x - x_hat, taken as it is, and e_hat is what the aux count best of the *dead*
    families make of it. D_f start in random directions with norm 1 (of all blocks together), and
    stay at norm 1, E_f as D_f, b_dec in the middle of all blocks. Which poses and families are on
    is not differentiated.

    Source: as `models.dictionaries.orbit`; Gao et al. (2406.04093) for TopK and AuxK.
    """

    group: Dihedral
    k: int
    aux: Aux
    bias: str
    rounds: int = 1
    poses: Poses = "best"
    side: Side = "right"

    @property
    def unit_rows(self) -> bool:
        """Families compete, so their decoders are of one length."""
        return True

    def start(
        self, x_ND: Float[Tensor, "n d"], latents: int, generator: torch.Generator
    ) -> OrbitCrosscoder:
        """Random families; `x_ND` are orbits with their blocks side by side."""
        width = x_ND.shape[1] // len(self.group)
        crosscoder = OrbitCrosscoder(
            *(self.group, width, latents, self.k),
            rounds=self.rounds,
            poses=self.poses,
            side=self.side,
        )
        return initialised_orbit(crosscoder, generator, middle(x_ND.reshape(-1, width), self.bias))

    def loss(
        self,
        sae: OrbitCrosscoder,
        x_ND: Float[Tensor, "n d"],
        dead_S: Bool[Tensor, " s"],
        progress: float,
    ) -> Loss:
        """See the class."""
        active = orbit_active(sae, x_ND, self.k, rounds=self.rounds)
        x_hat_ND = active.x_hat_ND + sae.b_dec.repeat(len(self.group))
        error_ND = x_ND - x_hat_ND
        missed = squared(error_ND).mean() + self._aux(sae, x_ND, error_ND, dead_S)
        on_M = active.values_M > 0
        fired_S = torch.zeros_like(dead_S)
        fired_S[active.indices_M[on_M] // len(self.group)] = True
        total = missed / x_ND.shape[1]
        return Loss(total, x_hat_ND.detach(), fired_S, on_M.sum() / len(x_ND))

    def _aux(
        self,
        sae: OrbitCrosscoder,
        x_ND: Float[Tensor, "n d"],
        error_ND: Float[Tensor, "n d"],
        dead_S: Bool[Tensor, " s"],
    ) -> Float[Tensor, ""]:
        """weight ||e - e_hat||^2, mean over the batch; 0 where no family is dead."""
        dead = dead_S.nonzero().squeeze(1)
        if not self.aux.weight or not len(dead):
            return error_ND.new_zeros(())
        active: Active = orbit_active(sae, x_ND, min(self.aux.count, len(dead)), dead)
        return self.aux.weight * squared(error_ND.detach() - active.x_hat_ND).mean()
