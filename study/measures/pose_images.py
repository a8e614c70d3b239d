"""Images optimised for a latent's blocks in several poses.

Block g of a latent is the direction at the site of its pattern under T_g. If the latent is one
feature in every pose, the image for block g is the image for block 0, turned or reflected by T_g.
"""

import torch
from jaxtyping import Float32
from numpy import ndarray

from tendril.data.group.dihedral import Dihedral
from tendril.models.sites.window import find_receptive_patch
from tendril.models.subjects.subject import Subject

from .feature_visualisation import Aim, Visualised, sites_to_read, visualise
from .tuning import exact_arithmetic

LEAST_COSINE = 0.1  # with the block: below it, the image has excited nothing
STEPS = 64  # enough to see the feature; `tendril study visualise` takes four times as many


def poses(group: Dihedral) -> dict[int, str]:
    """The elements whose blocks are shown, with their names: the identity, a quarter turn, a half
    turn (or the nearest turns), and a reflection if there is one."""
    turns = [round(group.rotations * quarters / 4) % group.rotations for quarters in (0, 1, 2)]
    named = {group.element(0, k): f"turned {group.step * k:g}°" if k else "as it is" for k in turns}
    return named | ({group.element(1, 0): "reflected"} if group.reflections else {})


def pose_images(
    subject: Subject,
    site: str,
    group: Dihedral,
    blocks_FGD: Float32[ndarray, "f g d"],
    device: torch.device,
) -> list[list[Visualised]]:
    """For each latent an image for each of `poses`.

    The list of a latent is empty where no image excites the site along the block, for example
    because the site is silent on noise and has no gradient there.
    """
    patch = find_receptive_patch(subject, sites_to_read(subject, site))
    patch.module.to(device)
    named = poses(group)
    aims = [
        Aim(name, torch.from_numpy(blocks_GD[g]).float())
        for blocks_GD in blocks_FGD
        for g, name in named.items()
    ]
    with exact_arithmetic():
        made = visualise(patch, site, aims, steps=STEPS, device=device)
    by_latent = [made[i : i + len(named)] for i in range(0, len(made), len(named))]
    return [
        images if max(image.cosine for image in images) >= LEAST_COSINE else []
        for images in by_latent
    ]
