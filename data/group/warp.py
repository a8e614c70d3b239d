"""The action of a dihedral group on images: patches turned and reflected about a point.

(T_g p)(x) = p(T_g^-1 x), x from the patch's middle, so T_g T_h p is the patch of the product gh.
Turns by 90 degrees and reflections only move the pixels of a square patch and are exact; for
the turns in between the image is read at four times its size (a cubic spline's values, then
linear between them), so that edges stay edges. Towards its rim a patch fades to one colour,
along a circle: what stays is what every element keeps, and no corner tells how far it was
turned.
"""

import math
from collections.abc import Sequence
from functools import cache
from typing import final

import numpy as np
import torch
from jaxtyping import Float
from scipy.interpolate import make_interp_spline
from torch import Tensor
from torch.nn import functional

from .dihedral import Dihedral

FADE = 0.8  # of a patch's radius: what lies within is as it was
FINER = 4
VERSION = 1  # of the arithmetic here; raised where it would give other patches


@final
class Warp:
    """Patches of `size` pixels about points of an image, through every element of a group.

    `colour` (RGB, 0..1) is what patches fade to, from FADE of their radius to the whole.
    """

    def __init__(
        self,
        group: Dihedral,
        size: int,
        colour: Sequence[float],
        device: torch.device | str = "cpu",
    ) -> None:
        self.group, self.size, self.device = group, size, torch.device(device)
        self.colour_C11 = torch.tensor(colour, dtype=torch.float32, device=device).view(3, 1, 1)
        self._quarters = math.gcd(group.rotations, 4)  # how many of the turns move pixels only
        self._window_PP = _fade(size).to(device)

    def orbits(
        self,
        image_CHW: Float[Tensor, "3 h w"],
        centres_A2: Float[np.ndarray, "a 2"],
        turns_A: Float[np.ndarray, " a"],
        fine_CHW: Float[Tensor, "3 h4 w4"] | None = None,
    ) -> Float[Tensor, "a g 3 p p"]:
        """T_g p for every element g and every anchor a.

        p is the patch of an RGB image about the pixel (x, y) `centres_A2`, turned by `turns_A`
        degrees, clockwise, beforehand. Beyond its border an image goes on with its last pixels.
        `fine_CHW` is `finer(image_CHW)`, for those who ask for more patches of one image.
        """
        n, quarters = self.group.rotations, self._quarters
        between = n // quarters
        angles_AK = turns_A[:, None] + self.group.step * np.arange(between)
        centres_M2 = np.repeat(centres_A2, between, 0)
        base_AK = self.turned(image_CHW, centres_M2, angles_AK.ravel(), fine_CHW)
        base_AK = base_AK.view(len(centres_A2), between, *base_AK.shape[1:])
        # clockwise on screen, y down, is the other way round to torch's eyes
        turned = [torch.rot90(base_AK, -j * 4 // quarters, (-2, -1)) for j in range(quarters)]
        turned_AG = torch.cat(turned, dim=1)
        if not self.group.reflections:
            return turned_AG
        # R_k M p = M R_-k p: the patch turned the other way, its rows in reverse
        back = torch.arange(n, device=self.device).neg() % n
        return torch.cat([turned_AG, turned_AG[:, back].flip(-2)], dim=1)

    def turned(
        self,
        image_CHW: Float[Tensor, "3 h w"],
        centres_M2: Float[np.ndarray, "m 2"],
        angles_M: Float[np.ndarray, " m"],
        fine_CHW: Float[Tensor, "3 h4 w4"] | None = None,
    ) -> Float[Tensor, "m 3 p p"]:
        """The patches about some points, each turned clockwise by its own angle in degrees."""
        fine_CHW = finer(image_CHW) if fine_CHW is None else fine_CHW
        cosine_M, sine_M = np.cos(np.radians(angles_M)), np.sin(np.radians(angles_M))
        back_M22 = np.stack([cosine_M, sine_M, -sine_M, cosine_M], -1).reshape(-1, 2, 2)
        offset_P = np.arange(self.size) - (self.size - 1) / 2
        at_PP2 = np.stack(np.meshgrid(offset_P, offset_P, indexing="xy"), -1)
        places = np.einsum("mij,yxj->myxi", back_M22, at_PP2) + centres_M2[:, None, None]
        extent = np.array([image_CHW.shape[2] - 1, image_CHW.shape[1] - 1])
        grid = torch.from_numpy((2 * places / extent - 1).astype(np.float32)).to(self.device)
        patches_MCPP = functional.grid_sample(
            fine_CHW.expand(len(grid), -1, -1, -1),  # a view
            grid,
            mode="bilinear",
            padding_mode="border",
            align_corners=True,
        )
        return self.colour_C11 + (patches_MCPP - self.colour_C11) * self._window_PP


def finer(image_CHW: Float[Tensor, "c h w"]) -> Float[Tensor, "c h4 w4"]:
    """The interpolating cubic spline of an image at FINER places a pixel; its own pixels are
    among them, so that a patch that is not turned is as it was."""
    rows, columns = (_spline(count).to(image_CHW) for count in image_CHW.shape[1:])
    return rows @ image_CHW @ columns.T


@cache
def _spline(count: int) -> Float[Tensor, "m n"]:
    """The values of the spline through `count` points at 0, 1 / FINER ... as a matrix."""
    spline = make_interp_spline(np.arange(count), np.eye(count), k=3)
    return torch.from_numpy(spline(np.arange(FINER * (count - 1) + 1) / FINER)).float()


def _fade(size: int) -> Float[Tensor, "p p"]:
    """1 within FADE of the radius, 0 at the radius and beyond, half a cosine between."""
    offset_P = torch.arange(size) - (size - 1) / 2
    radius_PP = torch.hypot(offset_P[:, None], offset_P) / (size / 2)
    way_PP = ((radius_PP - FADE) / (1 - FADE)).clamp(0, 1)
    return (1 + torch.cos(math.pi * way_PP)) / 2
