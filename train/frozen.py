"""Dictionaries that are trained in part: what does training the rest buy?

A part stays where it was drawn, or near it. What such a dictionary explains needs no learned
features, so a trained one must be better.

Source of the three kinds: Sanity checks for sparse autoencoders (2602.14111). Here biases and
thresholds are always trained.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tendril.models.dictionaries.sae import Dictionary

from .groups import Control

LEAST_COSINE = 0.8
MARGIN = 1e-5  # above LEAST_COSINE, so that rounding leaves no row below it


def freeze(dictionary: Dictionary, control: Control) -> Float[Tensor, "s d"] | None:
    """Stop training what a control freezes. Returns the start of the decoder rows if they are to
    stay near it (see `hold_near`); a row of several blocks counts as one vector."""
    if control == "soft-frozen-decoder":
        return dictionary.W_dec.detach().flatten(1).clone()
    name = "W_enc" if control == "frozen-encoder" else "W_dec"
    dictionary.get_parameter(name).requires_grad_(False)
    return None


@torch.no_grad()
def hold_near(W_dec: nn.Parameter, start_SD: Float[Tensor, "s d"]) -> None:
    """Rotate each row that is too far from its start u (a unit vector) back, in the plane of both:

        d <- ||d|| (c u + sqrt(1 - c^2) v),   v = (d - <d, u> u) / ||d - <d, u> u||

    with c = 0.8. This is the nearest row of the same norm. A row opposite to its start, which has
    no v, becomes ||d|| u. Rows that are near enough keep their bits.
    """
    rows_SD = W_dec.flatten(1)  # the same memory
    unit_SD = nn.functional.normalize(start_SD, dim=1)
    norm_S1 = rows_SD.norm(dim=1, keepdim=True)
    along_S1 = (rows_SD * unit_SD).sum(dim=1, keepdim=True)
    across_SD = rows_SD - along_S1 * unit_SD
    length_S1 = across_SD.norm(dim=1, keepdim=True)
    c = LEAST_COSINE + MARGIN
    there_S1 = length_S1 > 0
    v_SD = across_SD / torch.where(there_S1, length_S1, 1)
    turned_SD = torch.where(there_S1, c * unit_SD + (1 - c**2) ** 0.5 * v_SD, unit_SD)
    far_S1 = along_S1 < (LEAST_COSINE + MARGIN / 2) * norm_S1
    rows_SD.copy_(torch.where(far_S1, norm_S1 * turned_SD, rows_SD))
