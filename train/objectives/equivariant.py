"""The objective of equivariant group crosscoders: families compete for k places."""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tendril.data.group.dihedral import Dihedral
from tendril.models.dictionaries.equivariant import (
    EquivariantCrosscoder,
    Poses,
    Side,
    initialised_families,
)
from tendril.models.dictionaries.kernels.orbit import orbit_active
from tendril.models.dictionaries.kernels.sparse_product import Active

from ..config import TrainConfig
from .base import Loss, Objective, Shape, middle, squared
from .k_sparse import Aux, aux_term


@final
@dataclass(frozen=True)
class EquivariantTopK(Objective[EquivariantCrosscoder]):
    """TopK over families, each at its best pose, with AuxK.

        h_f = argmax_h pre[f, h],  z = ReLU(TopK_f(pre[f, h_f])),  k / rounds at a time
        L = (||x - x_hat||^2 + aux_weight ||e - e_hat||^2) / (G D),   mean over the batch

    where e = x - x_hat without its gradient, and e_hat is its reconstruction by the best of the
    *dead* families (as many as the aux count). D_f start in random directions with norm 1 (of all
    blocks together) and keep norm 1, E_f start as D_f, b_dec in the middle of all blocks. The
    choice of poses and families is not differentiated. `aux_norm` residual divides the second term
    by the variance of e instead of G D (see `k_sparse.aux_term`).

    How this differs: the latents of Gorton are not tied, and the loss, sparsity and optimiser of
    that paper are not published. Gao et al. have no families. What `TopK` says of centring and of
    the normalised error holds here, too. AuxK has as many dead families as there are active ones;
    Gao's D/2 would be most families.

    Source: as `models.dictionaries.equivariant`; Gao et al. (2406.04093) for TopK and AuxK.
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
        """Families compete, so their decoders have the same norm."""
        return True

    def start(
        self, x_ND: Float[Tensor, "n d"], latents: int, generator: torch.Generator
    ) -> EquivariantCrosscoder:
        """Random families; `x_ND` are orbits, with their blocks joined."""
        width = x_ND.shape[1] // len(self.group)
        crosscoder = EquivariantCrosscoder(
            *(self.group, width, latents, self.k),
            rounds=self.rounds,
            poses=self.poses,
            side=self.side,
        )
        return initialised_families(
            crosscoder, generator, middle(x_ND.reshape(-1, width), self.bias)
        )

    def loss(
        self,
        sae: EquivariantCrosscoder,
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
        sae: EquivariantCrosscoder,
        x_ND: Float[Tensor, "n d"],
        error_ND: Float[Tensor, "n d"],
        dead_S: Bool[Tensor, " s"],
    ) -> Float[Tensor, ""]:
        """The `aux_term` of the best dead families, whose reconstruction of e is e_hat; 0 if no
        family is dead."""
        dead = dead_S.nonzero().squeeze(1)
        if not self.aux.weight or not len(dead):
            return error_ND.new_zeros(())
        active: Active = orbit_active(sae, x_ND, min(self.aux.count, len(dead)), dead)
        return aux_term(error_ND, active.x_hat_ND, self.aux)


def equivariant(config: TrainConfig, shape: Shape) -> EquivariantTopK:
    """The equivariant objective of a config."""
    assert shape.group is not None, "`orbits.check_orbits` has refused other stores"
    return EquivariantTopK(
        shape.group,
        config.k,
        Aux(config.aux_k or config.k, config.aux_weight, config.aux_norm),
        config.bias,
        config.rounds,
        config.poses,
        "wrong" if config.control == "wrong-side" else "right",
    )
