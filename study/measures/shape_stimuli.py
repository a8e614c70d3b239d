"""Curve or only edge, corner, line end? All of them are fixed by one reflection.

A latent is shown arcs of several radii, a straight line and a straight edge (radius infinity),
corners (radius 0) and line ends, at every orientation. All are symmetrical about their own
direction, so T_g of the shape of direction a is the same shape in the direction T_g a: with
shapes drawn in steps of 180 / n degrees, the orbit of each is among them.
"""

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from tendril.data.group.dihedral import Dihedral
from tendril.data.group.warp import Warp
from tendril.models.dictionaries.equivariant import EquivariantCrosscoder
from tendril.models.dictionaries.sae import SAE, Stored
from tendril.models.sites.window import Window

from .curve_scores import mean_direction
from .curve_stimuli import STYLES, direction, draw_curve
from .tuning import exact_arithmetic

STRAIGHT = 1e6  # a radius in pixels: off a straight line by a thousandth of a pixel in a patch
KINDS = ("curve", "line", "edge", "corner", "line end")
BATCH = 32


@dataclass(frozen=True)
class Shape:
    """A kind of stimulus; `radius` in pixels, `style` how it is drawn."""

    kind: str
    style: str
    radius: float

    def draw(self, degrees: float, size: int, line_width: float) -> Float32[np.ndarray, "h w"]:
        """Grey levels in 0..1, its middle on the middle of the patch.

        The direction is that of the bulge, of a corner's tip, of a line's end; of a straight
        line or edge it is across it, away from the dark side.
        """
        middle = ((size - 1) / 2, (size - 1) / 2)
        if self.kind == "line end":
            return _line_end(degrees, size, line_width)
        return draw_curve(degrees, self.radius, self.style, size, middle, line_width=line_width)


def shapes(radii: tuple[float, ...]) -> list[Shape]:
    """Curves of those radii and what they are held against."""
    curves = [Shape("curve", style, radius) for style in STYLES for radius in radii]
    corners = [Shape("corner", style, 0.0) for style in STYLES]
    straight = [Shape(style, style, STRAIGHT) for style in ("line", "edge")]
    return [*curves, *straight, *corners, Shape("line end", "line", STRAIGHT)]


def directions(group: Dihedral) -> Float[np.ndarray, " a"]:
    """2 n of them, 180 / n degrees apart: those of the axes of the group, both ways."""
    return np.arange(2 * group.rotations) * 180 / group.rotations


def moved(group: Dihedral) -> Int64[np.ndarray, "a g"]:
    """[a, g] is the number of the direction that T_g takes direction a to."""
    m_G, k_G = np.divmod(np.arange(len(group)), group.rotations)
    a_A = np.arange(2 * group.rotations)[:, None]
    return np.asarray(((1 - 2 * m_G) * a_A + 2 * k_G) % (2 * group.rotations), np.int64)


def shape_vectors(
    window: Window,
    site: str,
    group: Dihedral,
    chosen: list[Shape],
    line_width: float,
    device: torch.device,
) -> Float32[np.ndarray, "q a d"]:
    """The site's vector for every shape in every direction, faded as the patches are."""
    size = window.size
    warp = Warp(group, size, window.colour, device)
    middle_12 = np.full((1, 2), (size - 1) / 2)
    window.module.to(device)
    vectors = []
    with exact_arithmetic(), torch.inference_mode(), window.reading(BATCH) as read:
        for shape in chosen:
            drawn = [
                torch.from_numpy(shape.draw(float(a), size, line_width)) for a in directions(group)
            ]
            patches = [
                warp.turned(grey.to(device).expand(3, -1, -1), middle_12, np.zeros(1))
                for grey in drawn
            ]
            parts = [read(few)[site] for few in torch.split(torch.cat(patches), BATCH)]
            vectors.append(torch.cat(parts).float().cpu().numpy())
    return np.stack(vectors)


def answers(dictionary: Stored, x_NGD: Float[Tensor, "n g d"]) -> Float[Tensor, "n s"]:
    """The positive part of each latent's pre-activation, before latents compete for places; of
    a family of copies that of the one whose blocks `blocks_of` gives."""
    if isinstance(dictionary, EquivariantCrosscoder):
        return dictionary.pre(x_NGD)[..., 0].clamp(min=0)
    assert isinstance(dictionary, SAE)
    return dictionary.pre(x_NGD.flatten(1)).clamp(min=0)


def shape_answers(
    dictionary: Stored,
    vectors_QAD: Float32[np.ndarray, "q a d"],
    group: Dihedral,
    device: torch.device,
) -> Float32[np.ndarray, "q a s"]:
    """What each latent answers to the orbit of every shape in every direction."""
    index_AG = moved(group)
    with exact_arithmetic(), torch.inference_mode():
        found = [
            answers(dictionary, torch.from_numpy(x_AD[index_AG]).to(device)).float().cpu().numpy()
            for x_AD in vectors_QAD
        ]
    return np.stack(found)


@final
@dataclass(frozen=True)
class ShapeTuning:
    """Answers of S latents to shapes: `z_QAS` over the shapes and the directions."""

    shapes: tuple[Shape, ...]
    degrees: Float[np.ndarray, " a"]
    z_QAS: Float32[np.ndarray, "q a s"]

    def of(self, kind: str) -> Float32[np.ndarray, "q a s"]:
        """The answers to shapes of one kind."""
        return self.z_QAS[[i for i, shape in enumerate(self.shapes) if shape.kind == kind]]

    def best(self) -> Float[np.ndarray, "i s"]:
        """The largest answer to each of KINDS, over radii, styles and directions."""
        return np.stack([self.of(kind).max(axis=(0, 1)) for kind in KINDS])

    def names(self, margin: float) -> list[str]:
        """What each latent answers to most: curve only where its answer to some curve is at least
        1 + margin times that to anything else; silent where it answers to nothing drawn."""
        best_IS = self.best()
        curve_S, others_IS = best_IS[0], best_IS[1:]
        rival_S = others_IS.argmax(axis=0)
        curved_S = (curve_S > 0) & (curve_S >= (1 + margin) * others_IS.max(axis=0))
        silent_S = best_IS.max(axis=0) <= 0
        # beaten by a curve, but not by the margin: the best of what is no curve
        return [
            "silent" if silent else "curve" if curved else KINDS[1 + rival]
            for silent, curved, rival in zip(silent_S, curved_S, rival_S, strict=True)
        ]

    def tuning(self, latent: int, kind: str) -> Float[np.ndarray, " a"]:
        """The mean answer to the shapes of a kind by direction."""
        mean_A: Float[np.ndarray, " a"] = self.of(kind)[..., latent].mean(axis=0, dtype=np.float64)
        return mean_A

    def direction(self, latent: int, kind: str) -> float | None:
        """The circular mean direction of that; None where there is no answer."""
        tuning_A1 = self.tuning(latent, kind)[:, None]
        if tuning_A1.max(initial=0) <= 0:
            return None
        return float(mean_direction(tuning_A1, self.degrees)[0][0])


def _line_end(degrees: float, size: int, line_width: float) -> Float32[np.ndarray, "h w"]:
    """A stroke that ends in the middle of the patch, its end in that direction."""
    cos, sin = direction(degrees)
    at = np.arange(size, dtype=np.float64) - (size - 1) / 2
    along_HW = at[None] * cos + at[:, None] * sin
    across_HW = np.abs(at[:, None] * cos - at[None] * sin)
    ink_HW = np.clip((line_width + 1) / 2 - across_HW, 0, min(1.0, line_width))
    grey_HW: Float32[np.ndarray, "h w"] = (1 - ink_HW * np.clip(0.5 - along_HW, 0, 1)).astype(
        np.float32
    )
    return grey_HW
