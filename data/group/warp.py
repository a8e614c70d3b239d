"""The action of a dihedral group on image patches: rotations and reflections about a point.

(T_g p)(x) = p(T_g^-1 x) with x relative to the centre of the patch, so T_g T_h p is the patch of
the product gh. Rotations by multiples of 90 degrees and reflections permute the pixels of a square
patch and are exact. Other rotations read the image at four times its resolution (a cubic spline,
interpolated linearly), which keeps edges sharp. Towards its rim a patch fades to one colour along a
circle, so that no corner reveals the angle of rotation.
"""

import math
from collections.abc import Sequence
from functools import cache
from typing import final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from .dihedral import Dihedral

FADE = 0.8  # the fraction of the radius within which a patch is unchanged
FINER = 4
VERSION = 1  # of this arithmetic; to be raised if patches change


@final
class Warp:
    """Patches of `size` pixels about points of an image, under every element of a group.

    Patches fade to `colour` (RGB, 0 to 1) between FADE of their radius and the full radius.
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
        self._quarters = math.gcd(group.rotations, 4)  # rotations that only permute pixels
        self._window_PP = _fade(size).to(device)

    def orbits(
        self,
        image_CHW: Float[Tensor, "3 h w"],
        centres_A2: Float[np.ndarray, "a 2"],
        turns_A: Float[np.ndarray, " a"],
        fine_CHW: Float[Tensor, "3 h4 w4"] | None = None,
    ) -> Float[Tensor, "a g 3 p p"]:
        """T_g p for every element g and every anchor a.

        p is the patch of an RGB image about the pixel (x, y) in `centres_A2`, first rotated
        clockwise by the angle in `turns_A` (degrees). The image is extended by its border pixels.
        Pass `fine_CHW = finer(image_CHW)` to reuse it for several calls with one image.
        """
        n, quarters = self.group.rotations, self._quarters
        between = n // quarters
        angles_AK = turns_A[:, None] + self.group.step * np.arange(between)
        centres_M2 = np.repeat(centres_A2, between, 0)
        base_AK = self.turned(image_CHW, centres_M2, angles_AK.ravel(), fine_CHW)
        base_AK = base_AK.view(len(centres_A2), between, *base_AK.shape[1:])
        # clockwise on screen (y down) is the opposite of torch's direction
        turned = [torch.rot90(base_AK, -j * 4 // quarters, (-2, -1)) for j in range(quarters)]
        turned_AG = torch.cat(turned, dim=1)
        if not self.group.reflections:
            return turned_AG
        # R_k M p = M R_-k p: the patch rotated the other way, with its rows reversed
        back = torch.arange(n, device=self.device).neg() % n
        return torch.cat([turned_AG, turned_AG[:, back].flip(-2)], dim=1)

    def turned(
        self,
        image_CHW: Float[Tensor, "3 h w"],
        centres_M2: Float[np.ndarray, "m 2"],
        angles_M: Float[np.ndarray, " m"],
        fine_CHW: Float[Tensor, "3 h4 w4"] | None = None,
    ) -> Float[Tensor, "m 3 p p"]:
        """The patches about points (x, y), each rotated clockwise by its own angle in degrees."""
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
    """The interpolating cubic spline of an image, sampled FINER times per pixel.

    The samples include the pixels themselves, so that a patch that is not rotated is exact.
    """
    rows, columns = (_spline(count).to(image_CHW) for count in image_CHW.shape[1:])
    return rows @ image_CHW @ columns.T


@cache
def _spline(count: int) -> Float[Tensor, "m n"]:
    """The spline through `count` points, evaluated at 0, 1 / FINER, ..., as a matrix."""
    from scipy.interpolate import make_interp_spline

    spline = make_interp_spline(np.arange(count), np.eye(count), k=3)
    return torch.from_numpy(spline(np.arange(FINER * (count - 1) + 1) / FINER)).float()


def _fade(size: int) -> Float[Tensor, "p p"]:
    """A window: 1 within FADE of the radius, 0 from the radius on, half a cosine between."""
    offset_P = torch.arange(size) - (size - 1) / 2
    radius_PP = torch.hypot(offset_P[:, None], offset_P) / (size / 2)
    way_PP = ((radius_PP - FADE) / (1 - FADE)).clamp(0, 1)
    return (1 + torch.cos(math.pi * way_PP)) / 2
