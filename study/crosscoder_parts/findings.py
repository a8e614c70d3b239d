"""How a crosscoder's latents are spread over its parts, which are layers or networks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from tendril.models.dictionaries.crosscoder import block_norms, split


@final
@dataclass(frozen=True)
class PartFindings:
    """For each latent the fraction of its norm in each part, the part that owns it (-1: several)
    and the least cosine between its directions."""

    run: str
    names: Sequence[str]
    fractions_SP: Float[np.ndarray, "s p"]
    owner_S: Int[np.ndarray, " s"]
    cosine_S: Float[np.ndarray, " s"]

    def figures(self) -> dict[str, Any]:
        """Counts of latents by owner, and how similar shared latents' directions are."""
        return {
            "run": self.run,
            "parts": list(self.names),
            "latents": len(self.owner_S),
            "own": {name: int((self.owner_S == i).sum()) for i, name in enumerate(self.names)},
            "shared": int((self.owner_S < 0).sum()),
            "median_cosine_of_shared": _median(self.cosine_S, self.owner_S < 0),
        }

    def owner(self, latent: int, several: str = "") -> str:
        """The name of the part that owns a latent."""
        part = int(self.owner_S[latent])
        return self.names[part] if part >= 0 else several


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
