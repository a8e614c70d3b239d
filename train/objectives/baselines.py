"""Baselines: directions that are fitted on vectors instead of trained."""

import torch
from jaxtyping import Float
from torch import Tensor

from tendril.models.dictionaries import baselines
from tendril.models.dictionaries.sae import SAE

from ..checks import refuse_not_finite
from ..config import TrainConfig
from ..vectors import Source


def fit(config: TrainConfig, source: Source, device: torch.device) -> tuple[SAE, int]:
    """The baseline of a config, and the number of vectors that it was fitted on."""
    x_RD = _rows(config, source)
    if config.objective == "pca":
        sae = baselines.pca(x_RD, config.k)
    elif config.objective == "ica":
        sae = baselines.ica(x_RD, config.k, config.seed)
    elif config.objective == "nmf":
        sae = baselines.nmf(x_RD, config.k, config.seed)
    elif config.objective == "random":
        latents = config.latents_for(source.width)
        sae = baselines.random(x_RD, config.k, latents, config.seed)
    else:
        sae = baselines.neurons(x_RD, config.k, source.centre())
    return sae.to(device), len(x_RD)


def _rows(config: TrainConfig, source: Source) -> Float[Tensor, "r d"]:
    """The first `fit_rows` training vectors, in their shuffled order."""
    parts: list[Tensor] = []
    for x_ND in source.once(config, torch.device("cpu"), part="train"):
        parts.append(x_ND)
        if sum(map(len, parts)) >= config.fit_rows:
            break
    x_RD = torch.cat(parts)[: config.fit_rows]
    if not x_RD.isfinite().all():
        refuse_not_finite(source.store, source.sites)
    return x_RD
