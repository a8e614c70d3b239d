"""The equivariant group crosscoder: families of latents, tied by the group of an orbit.

A row is an orbit x[g] = a(T_g p) [G, D]. Family f has one decoder D_f [G, D] and one encoder E_f
[G, D], and a copy of both for every element h, the pose of its pattern in the orbit:

    pre[f, h] = sum_g <x[g] - b_dec, E_f[g h]> + b_f
    x_hat[g]  = b_dec + sum_f z[f, h_f] D_f[g h_f]

The orbit of T_a p is x[g a], and then pre[f, h] becomes pre[f, a^-1 h]: moving the input by a moves
every copy h of a family to a h and changes nothing else. (With D_f[h g], on the other side, this
holds only if the group commutes.) Of each family only the best pose h_f = argmax_h pre[f, h] may be
active, and of the families the k whose best pose is largest. b_f is shared by the copies, b_dec [D]
by the elements.

With several rounds, k / rounds families are chosen at a time, and each round encodes what the
rounds before left over of x. Then a family can be active at several poses; the copies of a
symmetric family, which are all alike, do not compete, because what one has explained is gone.

Source: Gorton, Group crosscoders (2410.24184), whose latents are not tied; the tying is that of
Cohen & Welling, Group equivariant convolutional networks (1602.07576). Rounds are those of matching
pursuit (Mallat & Zhang, 1993), trained end to end.
"""

from collections.abc import Mapping
from typing import Any, Literal, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tendril.data.errors import ConfigError
from tendril.data.group.dihedral import Dihedral

from .kernels.orbit_product import spread
from .sae import SAE, Stored, random_directions
from .sparsity import Sparsity

Poses = Literal["best", "all"]
Side = Literal["right", "wrong"]


@final
class EquivariantCrosscoder(Stored):
    """F families of |group| copies each, for orbits [n, G, D]; see the module.

    W_enc [F, G, D], b_enc [F], W_dec [F, G, D], b_dec [D]. `rounds` divides k. With `poses` "all"
    every copy competes for the k places by itself. `side` "wrong" takes D_f[h g], for comparison:
    such a dictionary is not equivariant unless the group commutes.
    """

    table_HG: Tensor  # [h, g] = g h, the block of D_f that copy h takes for block g

    def __init__(
        self,
        group: Dihedral,
        width: int,
        families: int,
        k: int,
        *,
        rounds: int = 1,
        poses: Poses = "best",
        side: Side = "right",
    ) -> None:
        super().__init__(width, families, len(group))
        assert k % rounds == 0, "`TrainConfig.check` has refused others"
        self.group, self.k, self.rounds = group, k, rounds
        self.poses: Poses = poses
        self.side: Side = side
        self.W_enc = nn.Parameter(torch.zeros(families, len(group), width))
        self.b_enc = nn.Parameter(torch.zeros(families))
        table_GH = torch.from_numpy(group.table_GG)
        table_HG = (table_GH.T if side == "right" else table_GH).contiguous()
        self.register_buffer("table_HG", table_HG, persistent=False)

    def pre(self, x_NGD: Float[Tensor, "*n g d"]) -> Float[Tensor, "*n f g"]:
        """Pre-activations of every copy of every family."""
        flat_NE = x_NGD.flatten(-2)
        pre_NS = flat_NE @ spread(self.W_enc, self.table_HG).T
        return pre_NS.view(*flat_NE.shape[:-1], self.latents, -1) + self.bias()[:, None]

    def bias(self) -> Float[Tensor, " f"]:
        """b_f - <b_dec, sum_g E_f[g]>: the encoder's bias with b_dec taken through E_f."""
        return self.b_enc - self.W_enc.sum(dim=1) @ self.b_dec

    def encode(self, x_NGD: Float[Tensor, "*n g d"]) -> Float[Tensor, "*n f g"]:
        """z [n, F, G], at most k of them active, each at a pose h of its family."""
        z_NFG = self._chosen(self.pre(x_NGD))
        for _ in range(self.rounds - 1):
            left_NGD = x_NGD - (self.decode(z_NFG) - self.b_dec)
            z_NFG = z_NFG + self._chosen(self.pre(left_NGD))
        return z_NFG

    def _chosen(self, pre_NFG: Float[Tensor, "*n f g"]) -> Float[Tensor, "*n f g"]:
        """The codes of one round."""
        if self.poses == "all":
            return self.sparsity(pre_NFG.flatten(-2)).view_as(pre_NFG)
        best_NF, poses_NF = pre_NFG.max(dim=-1)
        z_NF = self.sparsity(best_NF)
        return torch.zeros_like(pre_NFG).scatter(-1, poses_NF[..., None], z_NF[..., None])

    def decode(self, z_NFG: Float[Tensor, "*n f g"]) -> Float[Tensor, "*n g d"]:
        """x_hat[g] = b_dec + sum_f,h z[f, h] D_f[g h]."""
        flat_NS = z_NFG.flatten(-2)
        x_hat_NE = flat_NS @ spread(self.W_dec, self.table_HG)
        return x_hat_NE.view(*flat_NS.shape[:-1], *self.row_shape) + self.b_dec

    @property
    def sparsity(self) -> Sparsity:
        """The choice of one round."""
        return Sparsity("topk", self.k // self.rounds)

    def poses_of(
        self, x_NGD: Float[Tensor, "*n g d"]
    ) -> tuple[Float[Tensor, "*n f"], Int[Tensor, "*n f"]]:
        """The value of each family at its largest pose h, and that pose (which has no meaning if
        the family is inactive)."""
        values_NF, poses_NF = self.encode(x_NGD).max(dim=-1)
        return values_NF, poses_NF

    def plain(self) -> "EquivariantCrosscoder":
        """A copy."""
        copy = self.described(self.description()).to(self.W_dec.device, self.W_dec.dtype)
        copy.load_state_dict(self.state_dict())
        return copy

    @torch.no_grad()
    def untied(self) -> SAE:
        """All F G copies written out, as a dictionary of flattened orbits: latent f G + h. It has
        the same pre-activations; its choice is that of `poses` "all", in one round."""
        width = len(self.group) * self.width
        sparsity = Sparsity("topk", self.k)
        sae = SAE(width, self.latents * len(self.group), sparsity, pre_bias=True)
        sae = sae.to(self.W_dec.device, self.W_dec.dtype)
        sae.W_enc.copy_(spread(self.W_enc, self.table_HG).T)
        sae.W_dec.copy_(spread(self.W_dec, self.table_HG))
        sae.b_enc.copy_(self.b_enc.repeat_interleave(len(self.group)))
        sae.b_dec.copy_(self.b_dec.repeat(len(self.group)))
        return sae

    def description(self) -> dict[str, Any]:
        """All but the weights, as JSON; `described` is the inverse."""
        return {
            "kind": "equivariant",
            "rotations": self.group.rotations,
            "reflections": self.group.reflections,
            "width": self.width,
            "families": self.latents,
            "k": self.k,
            "rounds": self.rounds,
            "poses": self.poses,
            "side": self.side,
        }

    @staticmethod
    def described(description: Mapping[str, Any]) -> "EquivariantCrosscoder":
        """The equivariant group crosscoder of a description, with zero parameters."""
        return EquivariantCrosscoder(
            Dihedral(int(description["rotations"]), bool(description["reflections"])),
            int(description["width"]),
            int(description["families"]),
            int(description["k"]),
            rounds=int(description.get("rounds", 1)),  # older files have none
            poses=description["poses"],
            side=description["side"],
        )


@torch.no_grad()
def initialised_families(
    crosscoder: EquivariantCrosscoder, generator: torch.Generator, bias_D: Float[Tensor, " d"]
) -> EquivariantCrosscoder:
    """Set D_f to random directions of norm 1 (of all blocks together), E_f = D_f, and b_dec =
    `bias_D`."""
    width = len(crosscoder.group) * crosscoder.width
    rows_FE = random_directions(crosscoder.latents, width, generator)
    crosscoder.W_dec.copy_(rows_FE.view_as(crosscoder.W_dec))
    crosscoder.W_enc.copy_(crosscoder.W_dec)
    crosscoder.b_dec.copy_(bias_D)
    return crosscoder


def blocks_of(dictionary: Stored, group: Dihedral) -> Float[Tensor, "f g d"]:
    """The transform blocks of each latent: what it writes into each element of an orbit.

    The reconstruction of x[g] is sum_i z_i blocks[i, g] + b. An equivariant group crosscoder has
    one representative for each family, D_f; its copy h writes blocks[f, g h]. Raises ConfigError
    if the dictionary is not one of orbits under this group.
    """
    if isinstance(dictionary, EquivariantCrosscoder):
        if dictionary.group != group:
            raise ConfigError(
                f"the group must be {dictionary.group.name}, that of the equivariant group "
                f"crosscoder; got {group.name}. Name the store that it was trained on."
            )
        return dictionary.W_dec.detach()
    if dictionary.width % len(group):
        raise ConfigError(
            f"the width of a group crosscoder of {group.name} must be a multiple of its "
            f"{len(group)} elements; got {dictionary.width}. Train one on a store of orbits."
        )
    return dictionary.W_dec.detach().view(dictionary.latents, len(group), -1)
