"""What the page of a crosscoder's parts shows."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from markupsafe import Markup

from tendril.data.store.tables import columns

from ..measures.latent_scaling import (
    LEAST_ACTIVE,
    NU_ERROR,
    NU_RECONSTRUCTION,
    LatentScaling,
)
from ..page.charts import Axis, Series, chart
from .findings import PartFindings

SHOWN = 40  # latents of each kind in the page's table; all are in the CSV
CHART = (900.0, 180.0)
SHOWN_NU = (-0.5, 1.5)  # nu beyond is drawn at the edge


def headline(figures: Mapping[str, Any]) -> str:
    """How many latents are shared and of one part alone; of networks, how many truly are."""
    own = ", ".join(f"{count} of {name} alone" for name, count in figures["own"].items())
    said = f"{figures['shared']} of {figures['latents']} latents shared; {own}."
    if "specific" not in figures:
        return said
    alone, true = sum(figures["own_active"].values()), sum(figures["specific"].values())
    return f"{said} Latent scaling confirms {true} of the {alone} that are active."


def terminal_table(figures: Mapping[str, Any]) -> str:
    """The table of latent scaling; empty where there is none."""
    rows = scaling_rows(every_run(figures))
    return str(columns(rows)) if rows else ""


def every_run(figures: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The figures of the first run and of the others."""
    return [figures, *figures.get("others", {}).values()]


def scaling_rows(runs: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """A line for each network of each run that was scaled, below the names of the columns."""
    scaled = [run for run in runs if "specific" in run]
    head = ["run", "network", "FVU", "L0", "latents", "its own", "confirmed", "shrunk"]
    head += ["decoupled", "halves agree", "shared", "shared called specific"]
    head += ["nu_eps of shared", "nu_r of shared"]
    rows = [head] if scaled else []
    for run in scaled:
        for name in run["parts"]:
            cells = [run["run"], name, _text(run["fvu"]), _text(run["l0"]), str(run["active"])]
            cells += [
                str(run[kind][name]) for kind in ("own_active", "specific", "shrunk", "decoupled")
            ]
            cells += [_text(run["halves_agree"]), str(run["shared_active"])]
            cells += [str(run["shared_specific"]), _text(run["median_nu_eps_of_shared"])]
            rows.append([*cells, _text(run["median_nu_r_of_shared"])])
    return rows


def context(findings: Sequence[PartFindings], own: float, bins: int) -> dict[str, Any]:
    """For each run a histogram of each part's fractions (of two parts one says it all), latent
    scaling, and the latents that belong most to one part."""
    figures = [one.figures() for one in findings]
    return {
        "numbers": _tiles(figures[0]),
        "own": f"{own:.0%}",
        "runs": [_run(one, bins, len(findings) > 1) for one in findings],
        "scaling": scaling_rows(figures),
        "free": any(one.scaling is not None and one.scaling.free for one in findings),
        "least": LEAST_ACTIVE,
        "limits": (NU_ERROR, NU_RECONSTRUCTION),
        "shown": SHOWN,
        "caveats": _caveats(findings),
    }


def _caveats(findings: Sequence[PartFindings]) -> list[str]:
    if any(one.scaling is not None for one in findings):
        return [
            "Latent scaling looks for the owner's own direction in the other network. A feature "
            "that the other network has along another direction passes as specific.",
            "A latent that is active on few rows has an uncertain ratio; the agreement of two "
            "halves of the rows says how uncertain.",
        ]
    return [
        "A latent of one part alone may also be a shared feature that the sparsity penalty "
        "split in two. Look for a twin in the other part that is active on the same inputs."
    ]


def _run(found: PartFindings, bins: int, several: bool) -> dict[str, Any]:
    names, fractions_SP = found.names, found.fractions_SP
    drawn = [1] if len(names) == 2 else list(range(len(names)))
    order = np.argsort(-fractions_SP.max(axis=1), kind="stable")
    rows = [int(i) for p in range(len(names)) for i in order[found.owner_S[order] == p][:SHOWN]]
    shared = [int(i) for i in order[::-1] if found.owner_S[i] < 0][:SHOWN]
    return {
        "name": found.run,
        "several": several,
        "two": len(names) == 2,
        "names": names,
        "cosines": bool(np.isfinite(found.cosine_S).any()),
        "charts": [_histogram(names[p], fractions_SP[:, p], bins) for p in drawn],
        "rows": [_latent(found, i) for i in rows + shared],
        "nu": _cloud(found, found.scaling) if found.scaling is not None else "",
        "file": f"latents-{found.run}.csv" if several else "latents.csv",
    }


def _latent(found: PartFindings, i: int) -> dict[str, Any]:
    row: dict[str, Any] = {
        "latent": i,
        "own": found.owner(i, "several"),
        "fractions": [f"{fraction:.3f}" for fraction in found.fractions_SP[i]],
        "cosine": "" if np.isnan(found.cosine_S[i]) else f"{found.cosine_S[i]:.2f}",
        "nu": [],
    }
    if found.scaling is None:
        return row
    known = bool(found.scaling.known_S[i])
    nu = [f"{v:.2f}" for v in found.scaling.nu()[:, i]] if known else ["", ""]
    said = ("yes" if found.scaling.specific()[i] else "no") if known else ""
    return row | {"nu": [*nu, said, f"{found.scaling.active_S[i]:,}"]}


def _cloud(found: PartFindings, scaling: LatentScaling) -> Markup:
    """nu_eps against nu_r, by what the norms say, with the limits of a specific latent."""
    error_S, reconstruction_S = np.clip(scaling.nu(), *SHOWN_NU)
    clouds = [("shared", found.owner_S < 0)]
    clouds += [(f"{n} alone", found.owner_S == i) for i, n in enumerate(found.names)]
    along = np.linspace(*SHOWN_NU, 50)
    series = [
        Series(
            f"{name} ({int((of & scaling.known_S).sum())})",
            reconstruction_S[of],
            error_S[of],
            points=True,
        )
        for name, of in clouds
    ]
    limits = [
        Series(f"nu_eps = {NU_ERROR}", along, np.full(50, NU_ERROR), dashed=True),
        Series(f"nu_r = {NU_RECONSTRUCTION}", np.full(50, NU_RECONSTRUCTION), along, dashed=True),
    ]
    return chart([*series, *limits], Axis("nu_r"), Axis("nu_eps"))


def _tiles(figures: dict[str, Any]) -> list[dict[str, str]]:
    tiles = [{"value": str(figures["shared"]), "text": "latents that several parts share"}]
    tiles += [
        {"value": str(count), "text": f"of {name} alone"} for name, count in figures["own"].items()
    ]
    if "specific" in figures:
        tiles += [
            {
                "value": str(figures["specific"][name]),
                "of": f"of {count}",
                "text": f"of {name} alone, by latent scaling",
            }
            for name, count in figures["own_active"].items()
        ]
    cosine = figures["median_cosine_of_shared"]
    if cosine is not None:
        text = "median cosine between the directions of a shared latent"
        tiles.append({"value": f"{cosine:.2f}", "text": text})
    return [{"of": "", **tile} for tile in tiles]


def _histogram(name: str, fractions_S: Float[np.ndarray, " s"], bins: int) -> dict[str, Any]:
    """A histogram from 0 to 1 as rectangles of the chart."""
    counts, edges = np.histogram(fractions_S, bins, (0.0, 1.0))
    width, height = CHART
    scale = height / max(int(counts.max()), 1)
    bars = [
        {
            "x": f"{edges[i] * width:.1f}",
            "y": f"{height - count * scale:.1f}",
            "width": f"{width / bins - 1:.1f}",
            "height": f"{count * scale:.1f}",
            "title": f"{edges[i]:.2f} to {edges[i + 1]:.2f}: {count} latents",
        }
        for i, count in enumerate(counts.tolist())
    ]
    return {"name": name, "bars": bars, "most": int(counts.max())}


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
