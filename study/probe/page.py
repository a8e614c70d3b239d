"""What the page of sparse probes shows."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tendril.data.store.spec import short_site
from tendril.data.store.tables import columns

from ..measures.feature_absorption import HALF
from ..page.charts import Axis, Series, chart
from .config import ProbeConfig
from .findings import COMPONENTS, PLANTED, UNITS, WHOLE, Probed, Probes

MOST_SHOWN = 40  # labels in the table of labels
HEAD = ("site", "columns", "runs")


def headline(figures: Mapping[str, Any]) -> str:
    """The figures that matter, in a sentence or two."""
    many = "latent" if figures["k"] == 1 else f"{figures['k']} latents"
    beside = [
        f"{name} {figures[key]:.3f}"
        for name, key in (
            ("units", "auc_units"),
            ("principal components", "auc_components"),
            ("the whole vector", "auc_whole"),
            ("the planted direction", "auc_planted"),
            ("shuffled labels", "auc_shuffled"),
        )
        if figures[key] is not None
    ]
    absorbed = figures["absorption"]
    more = "" if absorbed is None else f" Its absorption rate is {absorbed:.3f}."
    return (
        f"The best {many} of {figures['best_columns']} at {short_site(figures['best_site'] or '')} "
        f"{'tell' if figures['k'] != 1 else 'tells'} a label with an AUC of "
        f"{figures['auc_latents']:.3f} on average ({', '.join(beside)}).{more}"
    )


def terminal_table(figures: Mapping[str, Any]) -> str:
    """AUC of each kind of columns, and absorption."""
    parts = [columns(main_rows(figures["records"], "auc"))]
    if figures["absorptions"]:
        parts.append(columns(absorption_rows(figures["absorptions"])))
    return "\n\n".join(parts)


def main_rows(records: Sequence[Mapping[str, Any]], figure: str) -> list[list[str]]:
    """A row a kind of columns, with a column for each number of them."""
    ks = sorted({one["k"] for one in records if one["k"] != "all"})
    by: dict[tuple[str, str], dict[Any, Mapping[str, Any]]] = {}
    for one in records:
        by.setdefault((one["site"], one["columns"]), {})[one["k"]] = one
    rows = [[*HEAD, *(f"best {k}" for k in ks), "all", "shuffled"]]
    for (site, name), found in by.items():
        some = next(iter(found.values()))
        most = found[max((k for k in found if k != "all"), default="all")]
        cells = [_cell(found.get(k), figure) for k in (*ks, "all")]
        named = [short_site(site), name, str(some["runs"] or "-")]
        rows.append([*named, *cells, _two(most["auc_shuffled"])])
    return rows


def _two(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _cell(one: Mapping[str, Any] | None, figure: str) -> str:
    """A mean, with its interval where there are several labels."""
    if one is None:
        return "-"
    low, high = one[f"{figure}_low"], one[f"{figure}_high"]
    return f"{one[figure]:.3f}" + ("" if low is None else f" ({low:.2f}-{high:.2f})")


def absorption_rows(records: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """A row a dictionary."""
    rows = [[*HEAD, "parents", "absorbed", "off with a child", "off without"]]
    for one in records:
        low, high = one["rate_low"], one["rate_high"]
        between = "" if low is None else f" ({low:.3f}-{high:.3f})"
        cells = [f"{one['rate']:.3f}{between}"]
        for value in (one["missed_with_child"], one["missed_alone"]):
            cells.append("-" if value is None else f"{value:.3f}")
        named = (short_site(one["site"]), one["columns"], str(one["runs"]), str(one["parents"]))
        rows.append([*named, *cells])
    return rows


def label_rows(found: Probed) -> list[list[str]]:
    """A row a label: the AUC of the best single column of each kind, and which latent it is."""
    some = [one for one in found.probes if one.columns != WHOLE]
    told = [label for label in found.counts if label not in found.skipped][:MOST_SHOWN]
    rows = [["label", "examples", *(_short(one, some) for one in some)]]
    lines = {id(one): {(x["label"], x["k"]): x for x in one.by_label()} for one in some}
    for label in told:
        cells = []
        for one in some:
            least = lines[id(one)].get((label, one.ks[0]))
            best = one.best.get(label)
            name = f" (#{best})" if best is not None and one.runs else ""
            cells.append(f"{least['auc']:.3f}{name}" if least else "-")
        rows.append([label, f"{found.counts[label]:,}", *cells])
    return rows


def _short(one: Probes, some: Sequence[Probes]) -> str:
    return (
        one.columns
        if len({x.site for x in some}) == 1
        else f"{short_site(one.site)}: {one.columns}"
    )


def context(config: ProbeConfig, store: str, found: Probed) -> dict[str, Any]:
    """What page.html shows."""
    figures = found.figures()
    many = "latent" if figures["k"] == 1 else f"{figures['k']} latents"
    numbers = [
        ("auc_latents", f"mean AUC of the best {many}"),
        ("auc_units", f"of as many units of {short_site(figures['best_site'] or '')}"),
        ("auc_components", "of as many principal components"),
        ("auc_whole", "of the whole vector"),
        ("absorption", f"absorption rate of {figures['best_columns']}"),
    ]
    sites = list(dict.fromkeys(one.site for one in found.probes))
    return {
        "lead": f"How well do a few latents tell what {_article(found.unit)} of {store} is?",
        "numbers": [
            {"value": f"{figures[key]:.3f}", "of": "", "text": text}
            for key, text in numbers
            if figures[key] is not None
        ],
        "auc": main_rows(figures["records"], "auc"),
        "accuracy": main_rows(figures["records"], "accuracy"),
        "labels": label_rows(found),
        "absorption": absorption_rows(figures["absorptions"]) if figures["absorptions"] else [],
        "charts": [(short_site(site), _curves(found, site)) for site in sites],
        "method": _method(config, found),
        "caveats": (
            "A label that a latent tells need not be what the latent stands for: it may tell "
            "something that comes with the label.",
            "Dictionaries are trained without labels, on most of these inputs; probes are judged "
            "on inputs that they were not trained on.",
        ),
    }


def _article(unit: str) -> str:
    return f"{'an' if unit[0] in 'aeiou' else 'a'} {unit}"


def _curves(found: Probed, site: str) -> Any:
    """Mean AUC against the number of columns, by kind; the whole vector as a level."""
    here = [one for one in found.probes if one.site == site]
    ks = sorted({k for one in here for k in one.ks if k})
    series = []
    for number, one in enumerate(here):
        by = {record["k"]: record["auc"] for record in one.records()}
        level = one.columns in (WHOLE, PLANTED)
        only = next(iter(by.values()))
        at = ks if level else [k for k in ks if k in by]
        auc = [only if level else by[k] for k in at]
        plain = level or one.columns in (UNITS, COMPONENTS)
        x, y = np.array(at, float), np.array(auc, float)
        series.append(Series(one.columns, x, y, dashed=plain, colour=number))
    axis = Axis("columns in the probe", log=len(ks) > 1, labels=[(float(k), str(k)) for k in ks])
    return chart(series, axis, Axis("mean AUC"))


def _method(config: ProbeConfig, found: Probed) -> list[str]:
    told = len(found.counts) - len(found.skipped)
    part = f"{100 * config.judged:g} %"
    splits = f"means over {config.splits} random splits" if config.splits > 1 else "of one split"
    said = [
        f"{found.examples:,} examples, each {_article(found.unit)}, of {found.inputs:,} "
        f"{found.by}s; {told} labels, each told from all examples without it. {part} of the "
        f"{found.by}s are judged, and all their examples with them; figures are {splits}.",
        "Columns are ranked on the training part by the difference of their means with and without "
        "the label, divided by their standard deviation. A logistic regression on the best of "
        "them, standardised, weighs both values of the label the same. A probe of the whole vector "
        "chooses its penalty on a quarter of its training part.",
        "AUC: probability that an example with the label scores higher than one without. Accuracy: "
        "the mean of the accuracies on examples with and without the label. Both are 0.5 by "
        "chance; “shuffled” is the AUC with labels in random order. In brackets: 95 % bootstrap "
        "intervals of the mean over labels.",
    ]
    if found.absorptions():
        said.append(
            "Absorption: of the judged rows in which a parent feature is on, the fraction in which "
            "its main latent (the one that tells best where it is on) is off, while main latents "
            f"of its children that are on write at least {HALF:g} of its coordinate along its "
            "direction. In rows without a child nothing can be absorbed, so “off without” is what "
            "a latent misses anyway."
        )
    return said
