"""How a crosscoder's latents are spread over its parts, which are layers or networks; and, of two
networks, what latent scaling says of those that seem to belong to one."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from tendril.models.dictionaries.crosscoder import block_norms, split

from ..measures.latent_scaling import NU_ERROR, NU_RECONSTRUCTION, LatentScaling


@final
@dataclass(frozen=True)
class PartFindings:
    """For each latent the fraction of its norm in each part, the part that owns it (-1: several)
    and the least cosine between its directions; of two networks also its latent scaling."""

    run: str
    names: Sequence[str]
    fractions_SP: Float[np.ndarray, "s p"]
    owner_S: Int[np.ndarray, " s"]
    cosine_S: Float[np.ndarray, " s"]
    scaling: LatentScaling | None = None
    fvu: float | None = None
    l0: float | None = None

    def figures(self) -> dict[str, Any]:
        """Counts of latents by owner, and how similar shared latents' directions are."""
        found = {
            "run": self.run,
            "parts": list(self.names),
            "latents": len(self.owner_S),
            "own": {name: int((self.owner_S == i).sum()) for i, name in enumerate(self.names)},
            "shared": int((self.owner_S < 0).sum()),
            "median_cosine_of_shared": _median(self.cosine_S, self.owner_S < 0),
        }
        return found if self.scaling is None else found | self._scaled(self.scaling)

    def _scaled(self, scaling: LatentScaling) -> dict[str, Any]:
        """What latent scaling says, of latents that are active often enough.

        `specific`: of the latents of one network alone, those that are. `shrunk`: those that fail
        by nu_eps, and `decoupled`: by nu_r. Shared latents are the control.
        """
        known_S, specific_S = scaling.known_S, scaling.specific()
        error_S, reconstruction_S = scaling.nu()
        own = [known_S & (self.owner_S == i) for i in range(len(self.names))]
        either, shared = own[0] | own[1], known_S & (self.owner_S < 0)

        def counts(of_S: np.ndarray) -> dict[str, int]:
            return {n: int((one & of_S).sum()) for n, one in zip(self.names, own, strict=True)}

        return {
            "rows": scaling.rows,
            "best_directions": scaling.free,
            "fvu": self.fvu,
            "l0": self.l0,
            "active": int(known_S.sum()),
            "own_active": counts(known_S),
            "specific": counts(specific_S),
            "shrunk": counts(~(error_S < NU_ERROR)),
            "decoupled": counts(~(reconstruction_S < NU_RECONSTRUCTION)),
            "shared_active": int(shared.sum()),
            "shared_specific": int((shared & specific_S).sum()),
            "median_nu_eps_of_shared": _median(error_S, shared),
            "median_nu_r_of_shared": _median(reconstruction_S, shared),
            "halves_agree": scaling.agreement(either),
        }

    def owner(self, latent: int, several: str = "") -> str:
        """The name of the part that owns a latent."""
        part = int(self.owner_S[latent])
        return self.names[part] if part >= 0 else several

    def rows(self) -> Iterator[list[object]]:
        """The lines of latents.csv, the first one with the names of the columns."""
        scaling = self.scaling
        head: list[object] = ["latent", "own", "cosine", *self.names]
        if scaling is not None:
            head += ["active_rows", "nu_eps", "nu_r", "specific"]
            head += [f"beta_{y}_{n}" for y in ("eps", "r") for n in self.names]
            specific_S, nu_YS = scaling.specific(), scaling.nu()
        yield head
        for i, row_P in enumerate(self.fractions_SP):
            cells: list[object] = [i, self.owner(i), f"{self.cosine_S[i]:.6f}"]
            cells += [f"{v:.6f}" for v in row_P]
            if scaling is not None:
                cells += [int(scaling.active_S[i]), *(f"{v:.6f}" for v in nu_YS[:, i])]
                cells += [int(specific_S[i])]
                cells += [f"{v:.6f}" for v in scaling.beta_HYMS[0, :, :, i].ravel()]
            yield cells


def norm_fractions(W_dec: Float[Tensor, "s d"], widths: list[int]) -> Float[np.ndarray, "s p"]:
    """||d_i,p|| / sum_q ||d_i,q||: the fraction of latent i's norm that lies in part p.

    Of two parts the second fraction is the relative norm of Lindsey et al. (Sparse crosscoders,
    October 2024): 0 for a latent of the first part alone, 0.5 for one of both, 1 for one of the
    second alone. A latent of zero norm has equal fractions.
    """
    norms_SP = block_norms(W_dec.double(), widths)
    total_S1 = norms_SP.sum(dim=1, keepdim=True)
    even = torch.full_like(norms_SP, 1 / len(widths))
    found: Float[np.ndarray, "s p"] = torch.where(total_S1 > 0, norms_SP / total_S1, even).numpy()
    return found


def owners(fractions_SP: Float[np.ndarray, "s p"], own: float) -> Int[np.ndarray, " s"]:
    """The part that holds all but a fraction `own` of a latent's norm, or -1 where none does."""
    largest: Int[np.ndarray, " s"] = fractions_SP.argmax(axis=1)
    return np.where(fractions_SP.max(axis=1) > 1 - own, largest, -1)


def cosines(W_dec: Float[Tensor, "s d"], blocks: Mapping[str, int]) -> Float[np.ndarray, " s"]:
    """The least cosine between a latent's directions in any two parts; NaN if widths differ."""
    if len(set(blocks.values())) > 1:
        return np.full(len(W_dec), np.nan)
    parts_PSD = torch.stack(list(split(W_dec, blocks).values()))
    unit_PSD = torch.nn.functional.normalize(parts_PSD.double(), dim=2)
    every_PPS = torch.einsum("psd,qsd->pqs", unit_PSD, unit_PSD)
    least: Float[np.ndarray, " s"] = every_PPS.amin(dim=(0, 1)).numpy()
    return least


def short_names(names: list[str]) -> list[str]:
    """Names of the parts; only the network, where all are read at the same site."""
    networks, sites = zip(*(name.rpartition(":")[::2] for name in names), strict=True)
    return list(networks) if all(networks) and len(set(sites)) == 1 else names


def part_scales(trained: Mapping[str, Any], blocks: Mapping[str, int]) -> Float[Tensor, " d"]:
    """The scale of each part's vectors to E||x||^2 = D, as in training, so that a part of larger
    activations does not seem to hold every latent."""
    scales = trained.get("scales") or dict.fromkeys(blocks, 1.0)
    return torch.cat([torch.full((width,), float(scales[p])) for p, width in blocks.items()])


def _median(values_S: Float[np.ndarray, " s"], of_S: np.ndarray) -> float | None:
    chosen = values_S[of_S & np.isfinite(values_S)]
    return round(float(np.median(chosen)), 4) if len(chosen) else None
