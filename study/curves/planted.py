"""The curves planted in a network, and what is found of each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from tendril.models.dictionaries.sae import SAE
from tendril.models.subjects.synthetic.planted_features import REPRESENTS
from tendril.models.subjects.synthetic.planted_networks import NAMES, features_of

from ..core.report import write_csv
from ..measures.curve_family import CurveFamily
from ..measures.curve_scores import angle_between
from .findings import Findings
from .truth import Truth

HOME = "mixed3b_5x5"  # where units are numbered as the truth numbers them
SHUFFLES = 20


@final
@dataclass(frozen=True, eq=False)
class PlantedCurve:
    """A planted curve: its name, orientation and radius (0 where all have one), and its direction
    in the channels of mixed3b_5x5."""

    name: str
    orientation: float
    direction: Float[Tensor, " d"]
    radius: float = 0.0

    @property
    def unit(self) -> int | None:
        """The unit that the direction lies along; None if it lies along several."""
        on = self.direction.nonzero().flatten().tolist()
        return int(on[0]) if len(on) == 1 else None


def continuous(subject: str) -> bool:
    """True if the curves of a subject are reference orientations of continuous families."""
    return subject in NAMES and features_of(subject).continuous


def planted_curves(subject: str) -> list[PlantedCurve]:
    """The curves planted in a subject; none in a trained network."""
    if subject == "handmade":
        from tendril.models.subjects.synthetic.handmade import PLANTED

        units = torch.eye(len(PLANTED))
        return [
            PlantedCurve(f"unit {p.unit}", p.orientation, units[p.unit])
            for p in PLANTED
            if p.kind == "curve" and p.orientation is not None
        ]
    if subject not in NAMES:
        return []
    planted = features_of(subject)
    there_FD = torch.from_numpy(planted.directions()).float()
    found = []
    for number, feature in enumerate(planted.features):
        if feature.kind == "curve" and feature.orientation is not None:
            one = PlantedCurve(
                f"feature {number}", feature.orientation, there_FD[number], feature.radius
            )
            found.append(one)
    return found


def planted_truths(
    subject: str,
    site: str,
    families: Sequence[CurveFamily],
    parts: Mapping[str, range],
    dictionary: SAE | None,
) -> list[Truth]:
    """The curves planted in a subject, each with the curve detectors nearest in orientation, the
    unit and the latent that point most along its direction, and the cosine that random directions
    reach."""
    planted = planted_curves(subject)
    first = 0 if site == HOME else parts[HOME].start if HOME in parts else None
    if not planted:
        return []
    there_PD = torch.stack([one.direction for one in planted])
    aligned: Sequence[tuple[int, float] | None] = [None] * len(planted)
    chance_PC = np.zeros((len(planted), 2))
    if dictionary is not None and first is not None:
        W_SD = functional.normalize(dictionary.W_dec.detach().float(), dim=1).cpu()
        chosen = slice(first, first + there_PD.shape[1])
        cosine_P, latent_P = (W_SD[:, chosen] @ there_PD.T).max(dim=0)
        aligned = list(zip(latent_P.tolist(), cosine_P.tolist(), strict=True))
        chance_PC = chance_cosines(W_SD, chosen, there_PD)
    axis_P, unit_P = there_PD.max(dim=1)
    truths = [
        Truth(
            one.unit,
            one.orientation,
            {str(family.kind): family.nearest(one.orientation) for family in families},
            aligned[i],
            one.name if one.unit is None else f"unit {one.unit}",
            one.radius,
            None if first is None else (first + int(unit_P[i]), float(axis_P[i])),
            float(chance_PC[i, 0]),
            float(chance_PC[i, 1]),
        )
        for i, one in enumerate(planted)
    ]
    return sorted(truths, key=lambda truth: (truth.orientation, truth.radius))


def chance_cosines(
    W_SD: Float[Tensor, "s d"], chosen: slice, there_PD: Float[Tensor, "p c"], seed: int = 0
) -> Float[np.ndarray, "p 2"]:
    """For each direction, the greatest cosine of as many random directions as there are rows: its
    mean, and how often it is at least 0.8, over 20 draws.

    Random directions are rows whose channels are shuffled, each in another way.
    """
    rng = np.random.default_rng(seed)
    greatest = []
    for _ in range(SHUFFLES):
        order_SD = torch.from_numpy(rng.random(tuple(W_SD.shape)).argsort(axis=1))
        greatest.append((W_SD.gather(1, order_SD)[:, chosen] @ there_PD.T).max(dim=0).values)
    best_NP = torch.stack(greatest).double().numpy()
    return np.stack([best_NP.mean(axis=0), (best_NP >= REPRESENTS).mean(axis=0)], axis=1)


def write_truths(findings: Findings, path: Path) -> None:
    """Write planted.csv, one line a planted curve."""
    kinds = [family.kind for family in findings.families]
    columns = ["name", "orientation", "radius", "unit_along", "unit_cosine"]
    columns += ["latent_along", "latent_cosine", "chance_cosine", "latent_error"]
    columns += [f"{kind}_{column}" for kind in kinds for column in ("nearest", "error")]
    rows = []
    for truth in findings.truths:
        unit, latent = truth.axis, truth.aligned
        row: list[object] = [truth.label, f"{truth.orientation:g}", f"{truth.radius:g}"]
        row += ["", ""] if unit is None else [unit[0], f"{unit[1]:.4f}"]
        if latent is None or findings.latents is None:
            row += ["", "", "", ""]
        else:
            error = angle_between(findings.latents.orientation(latent[0]), truth.orientation)
            row += [latent[0], f"{latent[1]:.4f}", f"{truth.chance:.4f}", f"{error:.2f}"]
        for kind in kinds:
            near = truth.found.get(kind)
            row += ["", ""] if near is None else [near[0], f"{near[1]:.2f}"]
        rows.append(row)
    write_csv(path, columns, rows)
