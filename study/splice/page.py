"""The figures of splicing in a language model, as tables and as a page."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tendril.data.store.tables import columns, number

from ..page.charts import Line, line_chart
from ..page.render import render

CONDITIONS = ("clean", "zero", "mean")
Rows = list[list[str]]


def splice_tables(figures: Mapping[str, Any]) -> str:
    """For the terminal: all predictions, then by position, then by class."""
    head = (
        f"{figures['subject']} {figures['site']}, {figures['text']}: {figures['contexts']:,} "
        f"contexts, {figures['predictions']:,} predictions. Skipped positions keep their own "
        "activation."
    )
    tables = (
        columns(every_rows(figures)),
        columns(part_rows(figures, "by_position", "position")),
        columns(part_rows(figures, "by_class", "class")),
    )
    return "\n\n".join((head, *tables))


def splice_page(figures: Mapping[str, Any]) -> str:
    """The whole page as HTML."""
    return render(
        Path(__file__).parent,
        {
            "title": f"{figures['site']} of {figures['subject']}, spliced",
            "every": every_rows(figures),
            "positions": part_rows(figures, "by_position", "position"),
            "classes": part_rows(figures, "by_class", "class"),
            "chart": _by_position(figures),
            "text": figures["text"].capitalize(),
            "contexts": f"{figures['contexts']:,}",
            "predictions": f"{figures['predictions']:,}",
        },
    )


def every_rows(figures: Mapping[str, Any]) -> Rows:
    """A line a condition."""
    rows = [["", "CE", "perplexity", "KL", "top-1", "agreement", "recovered", "of mean", "FVU",
             "L0"]]  # fmt: skip
    for name in CONDITIONS:
        rows.append([name, *_told(figures[name]), *[""] * 4])
    for name, run in figures["runs"].items():
        shares = [run["recovered_against_zero"], run["recovered_against_mean"], run["fvu"]]
        rows.append([name, *_told(run), *map(number, shares), f"{run['l0']:.1f}"])
    return rows


def part_rows(figures: Mapping[str, Any], part: str, name: str) -> Rows:
    """A line a bucket of positions, or a class: how much is lost, and what each run recovers."""
    runs = list(figures["runs"])
    short = _short(runs)
    shown = ("CE", "KL", "recovered") if len(runs) <= 3 else ("recovered",)
    rows = [
        [name, "predictions", "CE clean", "zero", "mean"]
        + [f"{what} {run}" for run in short for what in shown]
    ]
    for label, told in figures[part].items():
        row = [label, f"{told['predictions']:,}"]
        row += [f"{told[condition]['cross_entropy']:.3f}" for condition in CONDITIONS]
        for one in (told["runs"][run] for run in runs):
            texts = {
                "CE": f"{one['cross_entropy']:.3f}",
                "KL": f"{one['kl']:.4f}",
                "recovered": number(one["recovered_against_zero"]),
            }
            row += [texts[what] for what in shown]
        rows.append(row)
    return rows


def _short(runs: list[str]) -> list[str]:
    """The beginnings of the runs' names where these tell them apart, else their ends."""
    for short in ([run.split("-")[0] for run in runs], [run[-6:] for run in runs]):
        if len(set(short)) == len(runs):
            return short
    return runs


def _told(figures: Mapping[str, float]) -> list[str]:
    perplexity = figures["perplexity"]
    return [
        f"{figures['cross_entropy']:.3f}",
        f"{perplexity:,.2f}" if perplexity < 1e6 else f"{perplexity:.2g}",
        f"{figures['kl']:.4f}",
        f"{figures['top1']:.3f}",
        f"{figures['agreement']:.3f}",
    ]


def _by_position(figures: Mapping[str, Any]) -> dict[str, Any]:
    """KL, a bucket apart; ablations would dwarf the runs and are in the table."""
    buckets = figures["by_position"]
    lines = [
        Line(
            run, [(float(i), told["runs"][run]["kl"]) for i, told in enumerate(buckets.values())], n
        )
        for n, run in enumerate(figures["runs"])
    ]
    ticks = [(float(i), label) for i, label in enumerate(buckets)]
    return line_chart(
        lines, "position of the token that is predicted", "KL(clean ‖ spliced)", ticks
    )
