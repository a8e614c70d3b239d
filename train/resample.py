"""Resampling: dead latents are initialised again, towards vectors with a large error."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from tendril.data.device import float64
from tendril.models.dictionaries.sae import Dictionary


@torch.no_grad()
def resample(
    dictionary: Dictionary,
    adam: torch.optim.Optimizer,
    x_ND: Float[Tensor, "n d"],
    error_ND: Float[Tensor, "n d"],
    dead_S: Bool[Tensor, " s"],
    generator: torch.Generator,
    norm: float = 0.2,
) -> Bool[Tensor, " s"]:
    """Give dead latents the directions of vectors, drawn with probability proportional to the
    square of their loss ||e||^2. Returns a mask of the latents that were given one.

    Row d_i becomes (x - b_dec) with the mean norm of the living rows. Column i of W_enc becomes the
    same direction with `norm` times the mean norm of the living columns. Biases become zero,
    thresholds the mean of the living ones, and the moments of Adam zero. A vector is drawn at most
    once, so if there are more dead latents than vectors, some are left as they are.

    Source: Bricken et al., Towards monosemanticity (2023), appendix on neuron resampling
    (there over 819,200 vectors; here over the batch).
    """
    dead = dead_S.nonzero().squeeze(1)
    weight_N = float64(error_ND).square().sum(dim=1).square().cpu()
    count = min(len(dead), int((weight_N > 0).sum()))
    given_S = torch.zeros_like(dead_S)
    if not count:
        return given_S
    drawn = torch.multinomial(weight_N, count, generator=generator).to(x_ND.device)
    given = dead[:count]
    given_S[given] = True
    living_S = ~dead_S if not dead_S.all() else dead_S
    direction_ND = functional.normalize(x_ND[drawn] - dictionary.b_dec, dim=1)
    for name, parameter in dictionary.named_parameters():
        if name == "W_dec":
            parameter[given] = direction_ND * parameter[living_S].norm(dim=1).mean()
        elif name == "W_enc":
            length = norm * parameter[:, living_S].norm(dim=0).mean()
            parameter[:, given] = direction_ND.T * length
        elif name == "threshold":
            parameter[given] = parameter[living_S].mean()
        elif name != "b_dec":
            parameter[given] = 0
        for moment in ("exp_avg", "exp_avg_sq"):
            state = adam.state.get(parameter, {})
            if moment in state and name != "b_dec":
                kept = state[moment].T if name == "W_enc" else state[moment]
                kept[given] = 0
    return given_S
