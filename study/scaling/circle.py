"""The picture of a dictionary of a circle: what each latent answers to, and what they rebuild."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Bool, Float
from markupsafe import Markup

from tendril.data.store.truth import Truth
from tendril.models.dictionaries.sae import Dictionary as Trained

from ..page.svg import arc_path, line_path

ANGLES = 720
MOST_LATENTS = 32
"""More latents than this are too many to tell apart."""
PREFERRED = (4, 8, 24)
RADIUS, LANE, GAP = 100.0, 7.0, 3.0
JUMP = 0.35
"""The line of the reconstruction is broken where it jumps further."""
HEAD = 7.0


@final
@dataclass(frozen=True)
class Circle:
    """A dictionary on ANGLES points of a circle, in the circle's plane.

    points_A2: reconstructions; rows_S2: decoder rows; on_AS: where latents are active
    """

    points_A2: Float[np.ndarray, "a 2"]
    rows_S2: Float[np.ndarray, "s 2"]
    on_AS: Bool[np.ndarray, "a s"]


@torch.no_grad()
def circle_of(sae: Trained, truth: Truth) -> Circle | None:
    """The picture of an SAE on a store of one circle; None for other manifolds and more latents."""
    about, plane_2D = truth.store.spec["subject"], truth.directions_FdD[0]
    round_ = about.get("shape") in ("sphere", "circle", "torus") and about.get("dimension") == 2
    if not round_ or int(about["features"]) != 1 or sae.latents > MOST_LATENTS:
        return None
    angle_A = 2 * np.pi * np.arange(ANGLES) / ANGLES
    x_AD = np.stack([np.cos(angle_A), np.sin(angle_A)], axis=1).astype(np.float32) @ plane_2D
    z_AS = sae.encode(torch.from_numpy(x_AD))
    rebuilt_AD, rows_SD = sae.decode(z_AS).numpy(), sae.W_dec.detach().numpy()
    return Circle(
        (rebuilt_AD @ plane_2D.T).astype(float),
        (rows_SD @ plane_2D.T).astype(float),
        (z_AS > 0).numpy(),
    )


def drawing(one: Circle, label: str) -> Markup:
    """Data in grey, the reconstruction in ink, decoder directions as arrows, and outside an arc for
    each latent where it is active. The hue of a latent is the angle of its direction."""
    arcs, lanes = _arcs(one)
    reach = RADIUS + GAP + LANE * (lanes + 1) + 4
    arrows = "".join(_arrow(one, int(latent)) for latent in np.flatnonzero(one.on_AS.any(axis=0)))
    return Markup(
        f'<svg class="circle" viewBox="{-reach:.0f} {-reach:.0f} {2 * reach:.0f} {2 * reach:.0f}" '
        f'role="img" aria-label="{label}"><circle class="data" r="{RADIUS:g}"/>{arcs}{arrows}'
        f"{_rebuilt(one.points_A2)}</svg>"
    )


def _angle(row_2: Float[np.ndarray, " 2"]) -> float:
    return math.degrees(math.atan2(row_2[1], row_2[0])) % 360


def _arrow(one: Circle, latent: int) -> str:
    length = float(np.linalg.norm(one.rows_S2[latent]))
    if length == 0:
        return ""
    tip, wide = 0.86 * RADIUS, HEAD / 2.2
    angle = _angle(one.rows_S2[latent])
    return (
        f'<g class="hue" style="--h:{angle:.0f}" transform="rotate({angle:.1f})">'
        f'<path class="stroke" stroke-width="1.8" d="M0 0H{tip - HEAD + 1:.1f}"/>'
        f'<path class="fill" d="M{tip:.1f} 0L{tip - HEAD:.1f} {wide:.1f}V{-wide:.1f}Z"/>'
        "</g>"
    )


def _arcs(one: Circle) -> tuple[str, int]:
    """Arcs of all latents in as few lanes as a greedy choice gives, and the number of lanes."""
    taken: list[Bool[np.ndarray, " a"]] = []
    drawn = []
    latents = np.flatnonzero(one.on_AS.any(axis=0))
    for latent in sorted(latents, key=lambda s: _angle(one.rows_S2[s])):
        on_A = one.on_AS[:, latent]
        wide_A = on_A | np.roll(on_A, 4) | np.roll(on_A, -4)  # room between arcs of a lane
        lane = next((i for i, used in enumerate(taken) if not (used & wide_A).any()), len(taken))
        if lane == len(taken):
            taken.append(np.zeros(ANGLES, bool))
        taken[lane] |= wide_A
        radius = RADIUS + GAP + LANE * (lane + 1)
        hue = _angle(one.rows_S2[latent])
        paths = "".join(f'<path d="{_arc(a, b, radius)}"/>' for a, b in _runs(on_A))
        drawn.append(
            f'<g class="hue stroke" stroke-width="3.4" style="--h:{hue:.0f}">'
            f"<title>latent {latent}</title>{paths}</g>"
        )
    return "".join(drawn), len(taken)


def _arc(start: float, end: float, radius: float) -> str:
    if end - start >= 360:
        return f"{arc_path(0, 180, radius)}{arc_path(180, 360, radius)}"
    return arc_path(start, end, radius)


def _runs(on_A: Bool[np.ndarray, " a"]) -> list[tuple[float, float]]:
    """Stretches of the circle that are on, in degrees."""
    step = 360 / len(on_A)
    if on_A.all():
        return [(0.0, 360.0)]
    begins = np.flatnonzero(on_A & ~np.roll(on_A, 1))
    ends = np.flatnonzero(on_A & ~np.roll(on_A, -1))
    return [
        (float(begin * step), float(begin * step + ((ends - begin) % len(on_A)).min() * step))
        for begin in begins
    ]


def _rebuilt(points_A2: Float[np.ndarray, "a 2"]) -> str:
    """The reconstruction as lines, broken where it jumps."""
    jumps = np.linalg.norm(points_A2 - np.roll(points_A2, 1, axis=0), axis=1) > JUMP
    places = [(RADIUS * float(x), RADIUS * float(y)) for x, y in points_A2]
    if not jumps.any():
        return f'<path class="ink" d="{line_path(places, closed=True)}"/>'
    first = int(np.flatnonzero(jumps)[0])
    order = np.roll(np.arange(len(places)), -first)
    parts: list[list[tuple[float, float]]] = []
    for a in order:
        if jumps[a]:
            parts.append([])
        parts[-1].append(places[a])
    return "".join(f'<path class="ink" d="{line_path(part)}"/>' for part in parts)


def chosen(sizes: Sequence[int]) -> list[int]:
    """The sizes to draw: 4, 8 and 24 where there are such, else up to three."""
    known = sorted(set(sizes))
    wanted = [size for size in PREFERRED if size in known]
    if len(wanted) > 1 or len(known) <= 3:
        return wanted if len(wanted) > 1 else known
    several = [size for size in known if size > 2] or known
    return [several[0], several[len(several) // 2], several[-1]][: len(set(several))]


def pictures(toys: Sequence[Any]) -> list[tuple[str, list[tuple[str, Markup]]]]:
    """Rows of pictures, one an objective: its name, and caption and picture of each size."""
    named = {"relu_l1": "ReLU with an L1 penalty", "jumprelu": "JumpReLU", "topk": "TopK"}
    drawn = [one for one in toys if one.circle is not None]
    rows = []
    for objective in sorted({one.objective for one in drawn}, key=lambda o: o != "relu_l1"):
        own = [one for one in drawn if one.objective == objective]
        settings = [one.setting for one in own]
        own = [one for one in own if one.setting == settings[0]]
        shown = []
        for size in chosen([one.latents for one in own]):
            one = min((o for o in own if o.latents == size), key=lambda o: o.seed)
            label = f"{size} latents of {named.get(objective, objective)} on a circle"
            caption = f"{size} latents: FVU {one.fvu:.2g}"
            shown.append((caption, drawing(one.circle, label)))
        rows.append((f"{named.get(objective, objective)}, {settings[0]}", shown))
    return rows
