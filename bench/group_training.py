"""Growth of a training step of group crosscoders with G and with the orbits in a batch.

The equivariant group crosscoder has F families of G copies, the untied one has S latents. The time
of both should be linear in G.
"""

import time
from typing import Any

import numpy as np
import torch

from tendril.data.group.dihedral import Dihedral
from tendril.train.config import ObjectiveName, TrainConfig
from tendril.train.objectives.registry import make_objective

WIDTH, STEPS = 96, 5
KINDS: tuple[ObjectiveName, ...] = ("orbit", "batch_topk")


def grow(kind: ObjectiveName, rotations: int, orbits: int) -> dict[str, float]:
    """The median time in seconds of a step (loss and gradients) on random orbits of D_n.

    As in the recipes: 32 families for `orbit`, 384 latents for `batch_topk`, 16 active.
    """
    group = Dihedral(rotations)
    config = TrainConfig(objective=kind, families=32, latents=384, k=16, bias="mean")
    width = len(group) * WIDTH
    objective: Any = make_objective(config, width, (WIDTH,) * len(group), group)
    generator = torch.Generator().manual_seed(0)
    x_ND = torch.rand(orbits, width, generator=generator)
    dictionary = objective.start(x_ND, config.latents_for(width), generator)
    none_S = torch.zeros(dictionary.latents, dtype=torch.bool)
    seconds = []
    for _ in range(STEPS + 1):
        began = time.perf_counter()
        torch.autograd.backward(objective.loss(dictionary, x_ND, none_S, 0.0).total)
        seconds.append(time.perf_counter() - began)
    return {"seconds": float(np.median(seconds[1:]))}  # the first step warms up
