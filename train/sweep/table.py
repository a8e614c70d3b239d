"""The results of a sweep: a table of its runs and of its points, and their plot."""

import csv
import io
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

from tendril.data.store.atomic import sealed, write_whole

from ..config import BASELINES, SPARSITIES, TrainConfig, fields_of
from ..groups import FROZEN
from ..loop import TrainResult
from .plot import Curve, plot_front

RUNS, TABLE, PLOT = "runs.csv", "table.json", "front.png"


@final
@dataclass(frozen=True)
class Row:
    """A run of a sweep, with its figures on held-out vectors."""

    run: str
    objective: str
    latents: int
    sparsity: str
    seed: int
    l0: float
    fvu: float
    dead: float
    vectors: int
    seconds: float
    control: str = "none"


@final
@dataclass(frozen=True)
class Point:
    """One setting: medians over its seeds, and their smallest and largest values."""

    objective: str
    latents: int
    sparsity: str
    seeds: int
    l0: float
    l0_range: tuple[float, float]
    fvu: float
    fvu_range: tuple[float, float]
    dead: float
    control: str = "none"


def write_table(
    folder: Path, done: Sequence[tuple[TrainConfig, TrainResult]], site: str, *files: str
) -> None:
    """Write runs.csv with a line for each run, front.png with the points, and last table.json with
    the runs, the points, and the digests of the other two and of `files`."""
    rows = [row_of(config, result) for config, result in done]
    points = points_of(rows)
    write_whole(folder / RUNS, _csv([asdict(row) for row in rows]))
    table = {"site": site, "runs": list(map(asdict, rows)), "points": list(map(asdict, points))}
    plot_front(folder / PLOT, curves_of(points), f"{site}: variance that {len(rows)} runs miss")
    beside = [folder / name for name in (*files, RUNS, PLOT)]
    write_whole(folder / TABLE, sealed(table, beside, folder))


def row_of(config: TrainConfig, result: TrainResult) -> Row:
    """The line of a run in the table."""
    own = [name for name in SPARSITIES if name in fields_of(config.objective)]
    return Row(
        run=result.run.name,
        objective=config.objective,
        latents=config.latents,
        sparsity=" ".join(f"{name}={getattr(config, name):g}" for name in own),
        seed=config.seed,
        l0=result.l0,
        fvu=result.fvu,
        dead=result.dead,
        vectors=result.vectors,
        seconds=result.seconds,
        control=config.control,
    )


def points_of(rows: Sequence[Row]) -> list[Point]:
    """The points of runs; runs that differ only in their seeds share one."""
    same: dict[tuple[tuple[str, int, str], str], list[Row]] = {}
    for row in rows:
        setting = (row.objective, row.latents, row.sparsity)
        same.setdefault((setting, row.control), []).append(row)
    return [
        Point(
            *setting,
            seeds=len(group),
            l0=statistics.median(row.l0 for row in group),
            l0_range=_range(row.l0 for row in group),
            fvu=statistics.median(row.fvu for row in group),
            fvu_range=_range(row.fvu for row in group),
            dead=statistics.median(row.dead for row in group),
            control=control,
        )
        for (setting, control), group in same.items()
    ]


def curves_of(points: Sequence[Point]) -> list[Curve]:
    """The points of each objective, size and control, by L0. Points that logarithmic axes
    cannot show (of a dictionary that is all dead) are only in the table."""
    points = [point for point in points if min(point.l0_range[0], point.fvu_range[0]) > 0]
    sizes = {point.latents for point in points if point.objective not in BASELINES}
    together: dict[str, list[Point]] = {}
    for point in points:
        size = f" {point.latents}" if len(sizes) > 1 and point.objective not in BASELINES else ""
        control = "" if point.control == "none" else f", {point.control}"
        together.setdefault(point.objective + size + control, []).append(point)
    return [
        Curve(
            name=name,
            objective=group[0].objective,
            baseline=group[0].objective in BASELINES or group[0].control in FROZEN,
            l0=[point.l0 for point in group],
            l0_ranges=[point.l0_range for point in group],
            fvu=[point.fvu for point in group],
            fvu_ranges=[point.fvu_range for point in group],
        )
        for name, group in (
            (name, sorted(group, key=lambda point: point.l0)) for name, group in together.items()
        )
    ]


def _range(values: Any) -> tuple[float, float]:
    listed = list(values)
    return min(listed), max(listed)


def _csv(rows: Sequence[Mapping[str, Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()
