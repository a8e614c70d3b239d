"""Images made to excite the blocks of families' heads: one feature should look alike, turned."""

from collections.abc import Sequence

import torch

from tendril.data.group.dihedral import Dihedral
from tendril.models.sites.window import find_window

from ..core.vision_inputs import Sources
from ..measures.feature_visualisation import Aim, Visualised, sites_to_read, visualise
from ..measures.tuning import exact_arithmetic
from .analysis import Reading

LEAST_COSINE = 0.1  # with the block: below it, nothing was excited
STEPS = 64  # enough for the eye; `study visualise` takes four times as many


def poses(group: Dihedral) -> dict[int, str]:
    """The elements whose blocks are shown: the identity, a quarter turn and a half turn (or what
    is nearest), and a reflection where there is one; each with its name."""
    turns = [round(group.rotations * quarters / 4) % group.rotations for quarters in (0, 1, 2)]
    named = {group.element(0, k): f"turned {group.step * k:g}°" if k else "as it is" for k in turns}
    return named | ({group.element(1, 0): "reflected"} if group.reflections else {})


def head_images(
    reading: Reading, heads: Sequence[int], sources: Sources, device: torch.device
) -> dict[int, list[Visualised]]:
    """By row of the reading: for each pose the image that the head's block asks for. Block g is
    the direction at the site of the pattern that T_g has acted on, so its image is the image of
    the identity's block, acted on by T_g, if the latent is one feature in every pose. Heads of
    which no image excites anything, as where a site is silent on noise and has no gradient, are
    left out."""
    window = find_window(sources.subject, sites_to_read(sources.subject, sources.site))
    window.module.to(device)
    named = poses(reading.group)
    aims = [
        Aim(name, torch.from_numpy(reading.blocks[head, g]).float())
        for head in heads
        for g, name in named.items()
    ]
    with exact_arithmetic():
        made = visualise(window, sources.site, aims, steps=STEPS, device=device)
    of_heads = {head: made[i * len(named) : (i + 1) * len(named)] for i, head in enumerate(heads)}
    return {
        head: images
        for head, images in of_heads.items()
        if max(image.cosine for image in images) >= LEAST_COSINE
    }
