"""The study of a crosscoder's parts: what is in one layer or network only, and what in several."""

import csv
import io
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from tendril.data.errors import ConfigError
from tendril.data.home import find_run
from tendril.data.store.atomic import write_whole
from tendril.models.dictionaries.checkpoint import DICTIONARY, load_sae, read_config
from tendril.models.dictionaries.crosscoder import block_norms, split

from ..core.report import StudyResult, file_digest, report_of
from ..page.render import render
from .config import PartsConfig

TABLE = "latents.csv"
SHOWN = 40  # latents of each kind in the page's table; all are in the CSV
CHART = (900.0, 180.0)


def study_parts(config: PartsConfig) -> StudyResult:
    """The norms of every latent's directions, part by part; a page, a CSV and figures.

    Raises RunNotFoundError, and ConfigError for a run that is no crosscoder.
    """
    began = time.monotonic()
    config.check()
    run = find_run(config.run, config.home)
    trained = read_config(run)
    blocks: dict[str, int] = trained.get("sites") or {}
    if trained.get("group") or len(blocks) < 2:
        raise ConfigError(
            f"{run.name} is of {trained['site']} alone, and the study of parts wants a crosscoder; "
            "train one with `tendril train crosscoder --sites A B`, or with --beside STORE."
        )
    made = {
        "study": "parts",
        "run": file_digest(run / DICTIONARY),
        "bins": config.bins,
        "own": config.own,
    }
    report = report_of(config.home, config.name or f"parts-{run.resolve().name}", made)
    told = None if config.overwrite else report.figures()
    if told is not None:
        return StudyResult(report.page, told, round(time.monotonic() - began, 3), reused=True)
    names = _short(list(blocks))
    W_dec = load_sae(run).plain().W_dec.detach() * _units(trained, blocks)
    shares_SP = shares(W_dec, list(blocks.values()))
    own_S = owners(shares_SP, config.own)
    cosines_S = cosines(W_dec, blocks)
    figures: dict[str, Any] = {
        "run": run.resolve().name,
        "parts": names,
        "latents": len(own_S),
        "own": {name: int((own_S == i).sum()) for i, name in enumerate(names)},
        "shared": int((own_S < 0).sum()),
        "median_cosine_of_shared": _median(cosines_S, own_S < 0),
    }
    write_whole(report.begin() / TABLE, _csv(names, shares_SP, own_S, cosines_S).encode())
    command = f"tendril study parts --run {run.resolve().name} --own {config.own:g}"
    page = _context(config, figures, shares_SP, own_S, cosines_S) | {"command": command}
    report.write(render(Path(__file__).parent, page), figures)
    return StudyResult(report.page, figures, round(time.monotonic() - began, 3))


def shares(W_dec: Float[Tensor, "s d"], widths: list[int]) -> Float[np.ndarray, "s p"]:
    """||d_i,p|| / sum_q ||d_i,q||: how much of a latent's norm lies in each part. Of two parts
    the second share is the relative norm of Lindsey et al. (Sparse crosscoders, October 2024):
    0 the first one's own, .5 of both alike, 1 the second one's own. A latent of zero norm has
    equal shares."""
    norms_SP = block_norms(W_dec.double(), widths)
    total_S1 = norms_SP.sum(dim=1, keepdim=True)
    even = torch.full_like(norms_SP, 1 / len(widths))
    found: Float[np.ndarray, "s p"] = torch.where(total_S1 > 0, norms_SP / total_S1, even).numpy()
    return found


def owners(shares_SP: Float[np.ndarray, "s p"], own: float) -> Int[np.ndarray, " s"]:
    """The part that has all but a share `own` of a latent's norms, or -1 where none has."""
    largest: Int[np.ndarray, " s"] = shares_SP.argmax(axis=1)
    return np.where(shares_SP.max(axis=1) > 1 - own, largest, -1)


def cosines(W_dec: Float[Tensor, "s d"], blocks: Mapping[str, int]) -> Float[np.ndarray, " s"]:
    """The least cosine between a latent's directions in any two parts; NaN where widths differ."""
    if len(set(blocks.values())) > 1:
        return np.full(len(W_dec), np.nan)
    parts_PSD = torch.stack(list(split(W_dec, blocks).values()))
    unit_PSD = torch.nn.functional.normalize(parts_PSD.double(), dim=2)
    every_PPS = torch.einsum("psd,qsd->pqs", unit_PSD, unit_PSD)
    least: Float[np.ndarray, " s"] = every_PPS.amin(dim=(0, 1)).numpy()
    return least


def _short(names: list[str]) -> list[str]:
    """Parts without the site, where all networks are read at the same one."""
    networks, sites = zip(*(name.rpartition(":")[::2] for name in names), strict=True)
    return list(networks) if all(networks) and len(set(sites)) == 1 else names


def _units(trained: Mapping[str, Any], blocks: Mapping[str, int]) -> Float[Tensor, " d"]:
    """What makes directions in parts of different loudness alike: the scale of each part's
    vectors to E||x||^2 = D, as they were trained."""
    scales = trained.get("scales") or dict.fromkeys(blocks, 1.0)
    return torch.cat([torch.full((width,), float(scales[p])) for p, width in blocks.items()])


def _median(values_S: Float[np.ndarray, " s"], of_S: np.ndarray) -> float | None:
    chosen = values_S[of_S & np.isfinite(values_S)]
    return round(float(np.median(chosen)), 4) if len(chosen) else None


def _csv(
    names: list[str],
    shares_SP: Float[np.ndarray, "s p"],
    own_S: Int[np.ndarray, " s"],
    cosines_S: Float[np.ndarray, " s"],
) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["latent", "own", "cosine", *names])
    for i, row_P in enumerate(shares_SP):
        own = names[own_S[i]] if own_S[i] >= 0 else ""
        writer.writerow([i, own, f"{cosines_S[i]:.6f}", *(f"{share:.6f}" for share in row_P)])
    return text.getvalue()


def _context(
    config: PartsConfig,
    figures: Mapping[str, Any],
    shares_SP: Float[np.ndarray, "s p"],
    own_S: Int[np.ndarray, " s"],
    cosines_S: Float[np.ndarray, " s"],
) -> dict[str, Any]:
    """What the template shows: a histogram of each part's shares (of two parts one says it
    all), and the latents that belong most to one."""
    names = figures["parts"]
    drawn = [1] if len(names) == 2 else list(range(len(names)))
    order = np.argsort(-shares_SP.max(axis=1), kind="stable")
    rows = [int(i) for p in range(len(names)) for i in order[own_S[order] == p][:SHOWN]]
    shared = [int(i) for i in order[::-1] if own_S[i] < 0][:SHOWN]
    return {
        "title": f"Parts of {figures['run']}",
        "two": len(names) == 2,
        "names": names,
        "figures": figures,
        "own": f"{config.own:.0%}",
        "charts": [{"name": names[p], "bars": _bars(shares_SP[:, p], config.bins)} for p in drawn],
        "rows": [
            {
                "latent": i,
                "own": names[own_S[i]] if own_S[i] >= 0 else "several",
                "shares": [f"{share:.3f}" for share in shares_SP[i]],
                "cosine": "" if np.isnan(cosines_S[i]) else f"{cosines_S[i]:.2f}",
            }
            for i in rows + shared
        ],
        "shown": SHOWN,
    }


def _bars(shares_S: Float[np.ndarray, " s"], bins: int) -> list[dict[str, str]]:
    """A histogram from 0 to 1 as rectangles of the chart."""
    counts, edges = np.histogram(shares_S, bins, (0.0, 1.0))
    width, height = CHART
    scale = height / max(int(counts.max()), 1)
    return [
        {
            "x": f"{edges[i] * width:.1f}",
            "y": f"{height - count * scale:.1f}",
            "width": f"{width / bins - 1:.1f}",
            "height": f"{count * scale:.1f}",
            "title": f"{edges[i]:.2f} to {edges[i + 1]:.2f}: {count} latents",
        }
        for i, count in enumerate(counts.tolist())
    ]
