"""Figures of a dictionary, and the file that keeps them while it is trained."""

import csv
import io
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from tendril.data.errors import ConfigError
from tendril.data.store.atomic import write_whole
from tendril.data.store.moments import moments_of, no_moments
from tendril.models.dictionaries.sae import Dictionary

COLUMNS = ("step", "vectors", "loss", "fvu", "l0", "dead", "lr")
EVALUATION_COLUMNS = ("step", "vectors", "fvu", "l0")


@dataclass(frozen=True)
class Evaluation:
    """What a dictionary does on vectors that it was not trained on."""

    fvu: float
    l0: float
    rows: int
    frequency_S: Float[Tensor, " s"]


def fvu(x_ND: Float[Tensor, "n d"], x_hat_ND: Float[Tensor, "n d"]) -> float:
    """Fraction of variance unexplained, against the mean of the vectors and never against
    zero: sum ||x - x_hat||^2 / sum ||x - mean(x)||^2. 0 is perfect, 1 no better than the mean."""
    missed = (x_ND - x_hat_ND).double().square().sum()
    spread = (x_ND - x_ND.mean(dim=0)).double().square().sum()
    return float(missed / spread)


@torch.no_grad()
def evaluate(sae: Dictionary, batches: Iterable[Tensor], most: int) -> Evaluation:
    """FVU, L0 (mean number of latents on) and firing frequencies over the first `most` vectors
    of batches [n, d]. A family of latents fires where any of its copies does.

    Sums run in float64 over all batches, so the figures do not depend on the batch size.
    Raises ConfigError where the vectors are all the same.
    """
    seen, missed, on = 0, 0.0, 0
    fired_S = torch.zeros(sae.latents, dtype=torch.int64, device=sae.b_dec.device)
    moments = no_moments(math.prod(sae.row_shape))
    for batch_ND in batches:
        x_ND = batch_ND[: most - seen]
        rows = x_ND.view(-1, *sae.row_shape)
        z = sae.encode(rows)
        on_NSC = (z > 0).view(len(z), sae.latents, -1)
        fired_S += on_NSC.any(dim=2).sum(dim=0)
        on += int(on_NSC.sum())
        missed += float((rows - sae.decode(z)).double().square().sum())
        moments = moments.merge(moments_of(x_ND.cpu().numpy()))
        seen += len(x_ND)
        if seen >= most:
            break
    if not moments.m2.sum() > 0:
        raise ConfigError(
            f"FVU wants held-out vectors that differ, and the {seen} there are do not; raise "
            "--held-out, or harvest more inputs."
        )
    return Evaluation(
        fvu=missed / float(moments.m2.sum()),
        l0=on / seen,
        rows=seen,
        frequency_S=(fired_S.double() / seen).float().cpu(),
    )


def begin_metrics(path: Path, step: int, columns: Sequence[str] = COLUMNS) -> None:
    """Make the file ready for what comes after `step`: with its head, and without lines that a
    run wrote between its last checkpoint and its end."""
    lines = path.read_text().splitlines() if step and path.exists() else []
    kept = [line for line in lines[1:] if _step(line, len(columns)) <= step]
    write_whole(path, "\n".join([",".join(columns), *kept, ""]).encode())


def append_metrics(
    path: Path, figures: Mapping[str, int | float], columns: Sequence[str] = COLUMNS
) -> None:
    """Add a line; numbers are written so that reading them gives the same number."""
    line = io.StringIO()
    csv.DictWriter(line, columns, lineterminator="\n").writerow(figures)
    with path.open("a") as file:
        file.write(line.getvalue())
        file.flush()
        os.fsync(file.fileno())  # a checkpoint counts on the lines before it


def _step(line: str, columns: int) -> float:
    """The step of a line; one cut short by a crash belongs after every checkpoint."""
    cells = line.split(",")
    return float(cells[0]) if len(cells) == columns and cells[-1] else float("inf")
