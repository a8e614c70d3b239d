"""Drawn shapes that tell curves from edges, corners and line ends.

One reflection fixes each of these shapes, so their stabilisers do not tell them apart. A latent is
shown arcs of several radii, a straight line, a straight edge, corners (radius 0) and line ends in
every direction. Each shape is symmetric about its own direction, so T_g of the shape in direction a
is the same shape in direction T_g a: the orbit of each shape is among the shapes drawn in steps of
180 / n degrees.
"""

import math
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
from tendril.models.sites.window import ReceptivePatch

from .curve_family import REFERENCE_FIELD
from .curve_scores import mean_direction
from .curve_stimuli import STYLES, CurveGrid, draw_curve
from .rival_stimuli import STRAIGHT, Rival
from .tuning import exact_arithmetic

KINDS = ("curve", "line", "edge", "corner", "line end")
BATCH = 32


@dataclass(frozen=True)
class Shape:
    """A kind of stimulus with its radius in pixels and its style: line, edge or reverse edge."""

    kind: str
    style: str
    radius: float

    def draw(self, degrees: float, size: int, line_width: float) -> Float32[np.ndarray, "h w"]:
        """Grey levels from 0 to 1 [P, P], the shape's middle on the middle of the patch.

        The direction is that of a curve's bulge, of a corner's tip, of a line's end. For a straight
        line or edge it is perpendicular, away from the dark side.
        """
        middle = ((size - 1) / 2, (size - 1) / 2)
        if self.kind == "line end":
            return Rival(self.kind, degrees).draw(size, middle, line_width)
        return draw_curve(degrees, self.radius, self.style, size, middle, line_width=line_width)


def shapes(radii: tuple[float, ...]) -> list[Shape]:
    """Curves of those radii, and the shapes that they are compared with."""
    curves = [Shape("curve", style, radius) for style in STYLES for radius in radii]
    corners = [Shape("corner", style, 0.0) for style in STYLES]
    straight = [Shape(style, style, STRAIGHT) for style in ("line", "edge")]
    return [*curves, *straight, *corners, Shape("line end", "line", STRAIGHT)]


def patch_radii(size: int) -> tuple[float, ...]:
    """Six radii of curves that suit a patch of `size` pixels."""
    octaves = round(math.log2(size / REFERENCE_FIELD))
    return tuple(round(radius * 2.0**octaves, 2) for radius in CurveGrid().radii)


def directions(group: Dihedral) -> Float[np.ndarray, " a"]:
    """The 2 n directions of the group's axes, 180 / n degrees apart."""
    return np.arange(2 * group.rotations) * 180 / group.rotations


def moved(group: Dihedral) -> Int64[np.ndarray, "a g"]:
    """[a, g] is the number of the direction to which T_g takes direction a."""
    m_G, k_G = np.divmod(np.arange(len(group)), group.rotations)
    a_A = np.arange(2 * group.rotations)[:, None]
    return np.asarray(((1 - 2 * m_G) * a_A + 2 * k_G) % (2 * group.rotations), np.int64)


def shape_vectors(
    patch: ReceptivePatch,
    site: str,
    group: Dihedral,
    chosen: list[Shape],
    line_width: float,
    device: torch.device,
) -> Float32[np.ndarray, "q a d"]:
    """The site's vector for every shape in every direction. Shapes fade towards the rim as the
    harvested patches do."""
    size = patch.size
    warp = Warp(group, size, patch.colour, device)
    middle_12 = np.full((1, 2), (size - 1) / 2)
    patch.module.to(device)
    vectors = []
    with exact_arithmetic(), torch.inference_mode(), patch.reading(BATCH) as read:
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


def responses(dictionary: Stored, x_NGD: Float[Tensor, "n g d"]) -> Float[Tensor, "n s"]:
    """The positive part of each latent's pre-activation, before latents compete. For tied latents
    it is that of the copy whose blocks `blocks_of` gives."""
    if isinstance(dictionary, EquivariantCrosscoder):
        return dictionary.pre(x_NGD)[..., 0].clamp(min=0)
    assert isinstance(dictionary, SAE)
    return dictionary.pre(x_NGD.flatten(1)).clamp(min=0)


def shape_responses(
    dictionary: Stored,
    vectors_QAD: Float32[np.ndarray, "q a d"],
    group: Dihedral,
    device: torch.device,
) -> Float32[np.ndarray, "q a s"]:
    """The response of each latent to the orbit of every shape in every direction."""
    index_AG = moved(group)
    with exact_arithmetic(), torch.inference_mode():
        found = [
            responses(dictionary, torch.from_numpy(x_AD[index_AG]).to(device)).float().cpu().numpy()
            for x_AD in vectors_QAD
        ]
    return np.stack(found)


@final
@dataclass(frozen=True)
class ShapeTuning:
    """Responses `z_QAS` of S latents to shapes in directions."""

    shapes: tuple[Shape, ...]
    degrees: Float[np.ndarray, " a"]
    z_QAS: Float32[np.ndarray, "q a s"]

    def of(self, kind: str) -> Float32[np.ndarray, "q a s"]:
        """The responses to shapes of one kind."""
        return self.z_QAS[[i for i, shape in enumerate(self.shapes) if shape.kind == kind]]

    def best(self) -> Float[np.ndarray, "i s"]:
        """The largest response to each of KINDS, over radii, styles and directions."""
        return np.stack([self.of(kind).max(axis=(0, 1)) for kind in KINDS])

    def names(self, margin: float) -> list[str]:
        """The kind of shape to which each latent responds most.

        `curve` requires a response to some curve of at least 1 + margin times that to any other
        shape. `silent` means no response to any.
        """
        best_IS = self.best()
        curve_S, others_IS = best_IS[0], best_IS[1:]
        rival_S = others_IS.argmax(axis=0)
        curved_S = (curve_S > 0) & (curve_S >= (1 + margin) * others_IS.max(axis=0))
        silent_S = best_IS.max(axis=0) <= 0
        # where a curve wins by less than the margin, the best other shape gives the name
        return [
            "silent" if silent else "curve" if curved else KINDS[1 + rival]
            for silent, curved, rival in zip(silent_S, curved_S, rival_S, strict=True)
        ]

    def curve_ratio(self, latent: int) -> float:
        """The largest response to a curve over that to any other shape; 0 without a response to
        curves, infinite where only curves have one."""
        best_I = self.best()[:, latent]
        curve, rival = float(best_I[0]), float(best_I[1:].max())
        return curve / rival if rival > 0 else math.inf if curve > 0 else 0.0

    def tuning(self, latent: int, kind: str) -> Float[np.ndarray, " a"]:
        """The mean response to the shapes of a kind, by direction."""
        mean_A: Float[np.ndarray, " a"] = self.of(kind)[..., latent].mean(axis=0, dtype=np.float64)
        return mean_A

    def direction(self, latent: int, kind: str) -> float | None:
        """The circular mean direction of that tuning; None where there is no response."""
        tuning_A1 = self.tuning(latent, kind)[:, None]
        if tuning_A1.max(initial=0) <= 0:
            return None
        return float(mean_direction(tuning_A1, self.degrees)[0][0])


def shape_tuning(
    dictionary: Stored,
    patch: ReceptivePatch,
    site: str,
    group: Dihedral,
    radii: tuple[float, ...],
    line_width: float,
    device: torch.device,
) -> ShapeTuning:
    """Show the shapes to a network, and the orbits of their vectors at a site to a dictionary.

    `radii` are those of the curves, by default `patch_radii` of the patch. The dictionary is on
    the CPU afterwards.
    """
    chosen = shapes(tuple(sorted(radii or patch_radii(patch.size))))
    vectors_QAD = shape_vectors(patch, site, group, chosen, line_width, device)
    z_QAS = shape_responses(dictionary.to(device), vectors_QAD, group, device)
    dictionary.to("cpu")
    return ShapeTuning(tuple(chosen), directions(group), z_QAS)
