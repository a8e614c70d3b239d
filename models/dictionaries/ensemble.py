"""Ensembles: several SAEs of one site as one dictionary, decoders stacked and codes weighted.

    x_hat = sum_j a_j g_j(x)

*Bagging*: SAEs that differ in their initial weights, a_j = 1/J. *Boosting*: SAE j is trained on
what the ones before it leave, x - sum_{l<j} g_l(x), and a_j = 1.

Source: Gadgil et al., Ensembling sparse autoencoders (2505.16077).
"""

from collections.abc import Sequence
from dataclasses import replace

import torch

from tendril.data.errors import ConfigError

from .sae import SAE


@torch.no_grad()
def bagged(members: Sequence[SAE]) -> SAE:
    """The mean of the members' reconstructions. Code z_j of member j is divided by J. Raises
    ConfigError for members that differ in more than their weights."""
    found = _stacked(members, residual=False)
    scale = 1 / len(members)
    found.W_enc.mul_(scale)
    found.b_enc.mul_(scale)
    found.b_dec.mul_(scale)
    if found.threshold is not None:
        found.threshold.mul_(scale)
    return found


@torch.no_grad()
def boosted(members: Sequence[SAE]) -> SAE:
    """The sum of the members' reconstructions, where each reads what those before it leave. Raises
    ConfigError as `bagged` does."""
    return _stacked(members, residual=True)


def _stacked(members: Sequence[SAE], *, residual: bool) -> SAE:
    first = members[0]
    shapes = [(one.width, one.latents, one.sparsity) for one in members]
    if len(set(shapes)) > 1 or first.sparsity.parts > 1:
        listed = "; ".join(f"{s} latents of width {w}, {f.name} {f.k or ''}" for w, s, f in shapes)
        raise ConfigError(
            f"the members of an ensemble must have one width, size and sparsity; got {listed}. "
            "Train them with one config."
        )
    sparsity = replace(first.sparsity, parts=len(members))
    size = first.latents * len(members)
    found = SAE(first.width, size, sparsity, pre_bias=False, residual=residual)
    found.W_enc.copy_(torch.cat([one.W_enc for one in members], dim=1))
    found.W_dec.copy_(torch.cat([one.W_dec for one in members]))
    before_D = torch.zeros_like(first.b_dec)  # b_dec of the members before, which are not in z
    biases = []
    for one in members:
        bias_S = one.b_enc - one.b_dec @ one.W_enc if one.pre_bias else one.b_enc
        biases.append(bias_S - before_D @ one.W_enc if residual else bias_S)
        before_D = before_D + one.b_dec
    found.b_enc.copy_(torch.cat(biases))
    found.b_dec.copy_(before_D)
    if found.threshold is not None:
        given = [one.threshold for one in members if one.threshold is not None]
        found.threshold.copy_(torch.cat(tuple(given)))
    return found.eval().requires_grad_(False)
