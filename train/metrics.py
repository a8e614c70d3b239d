"""Figures of a dictionary, and the CSV file that holds them during training."""

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

from tendril.data.device import float64
from tendril.data.errors import ConfigError, RunDamagedError
from tendril.data.store.atomic import write_whole
from tendril.data.store.moments import moments_of, no_moments
from tendril.models.dictionaries.sae import Dictionary

from .outliers import IsOutlier

COLUMNS = ("step", "vectors", "loss", "fvu", "l0", "dead", "lr")
EVALUATION_COLUMNS = ("step", "vectors", "fvu", "l0")


@dataclass(frozen=True)
class Evaluation:
    """Figures of a dictionary on vectors that it was not trained on."""

    fvu: float
    l0: float
    rows: int
    frequency_S: Float[Tensor, " s"]
    fvu_without_outliers: float | None = None
    """FVU of the vectors without norm outliers; None if there are no outliers, or no others that
    differ."""


def fvu(x_ND: Float[Tensor, "n d"], x_hat_ND: Float[Tensor, "n d"]) -> float:
    """Fraction of variance unexplained: sum ||x - x_hat||^2 / sum ||x - mean(x)||^2. 0 is perfect,
    1 is as good as the mean. (Relative to the mean of the vectors, not to zero.)"""
    missed = float64(x_ND - x_hat_ND).square().sum()
    spread = float64(x_ND - x_ND.mean(dim=0)).square().sum()
    return float(missed / spread)


@torch.no_grad()
def evaluate(
    sae: Dictionary,
    batches: Iterable[Tensor],
    most: int,
    is_outlier: IsOutlier | None = None,
) -> Evaluation:
    """FVU, L0 (mean number of active latents) and firing frequencies over the first `most` vectors
    of batches [n, d]. A family of latents fires if any of its copies does. `is_outlier` tells
    vectors with a norm outlier, which are left out of a second FVU.

    Sums run in float64 over all batches, so the figures do not depend on the batch size. Raises
    ConfigError if all vectors are the same.
    """
    seen, missed, on = 0, 0.0, 0
    fired_S = torch.zeros(sae.latents, dtype=torch.int64, device=sae.b_dec.device)
    moments = usual = no_moments(math.prod(sae.row_shape))
    missed_usual = 0.0
    for batch_ND in batches:
        x_ND = batch_ND[: most - seen]
        rows = x_ND.view(-1, *sae.row_shape)
        z = sae.encode(rows)
        on_NSC = (z > 0).view(len(z), sae.latents, -1)
        fired_S += on_NSC.any(dim=2).sum(dim=0)
        on += int(on_NSC.sum())
        error = float64(rows - sae.decode(z)).square()
        missed += float(error.sum())
        moments = moments.merge(moments_of(x_ND.cpu().numpy()))
        if is_outlier is not None:
            usual_N = ~is_outlier(x_ND)
            missed_usual += float(error.flatten(1)[usual_N.to(error.device)].sum())
            usual = usual.merge(moments_of(x_ND[usual_N].cpu().numpy()))
        seen += len(x_ND)
        if seen >= most:
            break
    if not moments.m2.sum() > 0:
        raise ConfigError(
            f"FVU needs held-out vectors that differ; all {seen} are the same. Raise --held-out, "
            "or harvest more inputs."
        )
    return Evaluation(
        fvu=missed / float(moments.m2.sum()),
        l0=on / seen,
        rows=seen,
        frequency_S=(float64(fired_S) / seen).float().cpu(),
        fvu_without_outliers=(
            missed_usual / float(usual.m2.sum())
            if usual.count < seen and usual.m2.sum() > 0
            else None
        ),
    )


def begin_metrics(path: Path, step: int, columns: Sequence[str] = COLUMNS) -> None:
    """Prepare the file for the steps after `step`: write the header, and drop the lines that a
    stopped run wrote after its last checkpoint. Raises RunDamagedError."""
    try:
        lines = path.read_text().splitlines() if step and path.exists() else []
        kept = [line for line in lines[1:] if _step(line, len(columns)) <= step]
    except ValueError as error:
        raise RunDamagedError(
            f"{path} must hold lines of numbers; got something else ({error}). Restore the file, "
            "or start again with --overwrite."
        ) from error
    write_whole(path, "\n".join([",".join(columns), *kept, ""]).encode())


def append_metrics(
    path: Path, figures: Mapping[str, int | float], columns: Sequence[str] = COLUMNS
) -> None:
    """Append a line. Numbers are written so that they are read back exactly."""
    line = io.StringIO()
    csv.DictWriter(line, columns, lineterminator="\n").writerow(figures)
    with path.open("a") as file:
        file.write(line.getvalue())
        file.flush()
        os.fsync(file.fileno())  # a checkpoint relies on the lines before it


def _step(line: str, columns: int) -> float:
    """The step of a line; infinite for one that a crash cut short."""
    cells = line.split(",")
    return float(cells[0]) if len(cells) == columns and cells[-1] else float("inf")
