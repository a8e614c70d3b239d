"""The figures of splicing as tables, for the terminal and the page, and what the page shows."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tendril.data.store.tables import columns, number
from tendril.models.sites.splice import MEAN, ZERO

from ..page.charts import Axis, Series, chart
from .attacked import CONTROLS, attack_rows, attack_sentence
from .findings import CONDITIONS, Findings, loss_recovered
from .held_out import FEW, HELD_OUT, OTHERS, UNKNOWN

Rows = list[list[str]]
Tile = dict[str, str]

LEAD = (
    "The vectors at one site are replaced by a dictionary's reconstruction, and the network goes "
    "on from there. How much worse does it {task}?"
)
RECOVERED = (
    "The fraction recovered is (ablated - spliced) / (ablated - clean), of accuracy or of "
    "cross-entropy: 1 where the reconstruction is as good as the site itself, 0 where it is as "
    "good as zeros, or as the mean of the site."
)


def terminal_table(figures: Mapping[str, Any]) -> str:
    """All tables of the figures as text."""
    if not _of_text(figures):
        tables = [image_rows(figures)]
        if "attack" in figures:
            tables.append(attack_rows(figures["attack"]))
        return "\n\n".join(map(columns, tables))
    head = (
        f"{figures['subject']} {figures['site']}, {figures['text']}: {figures['contexts']:,} "
        f"contexts, {figures['predictions']:,} predictions. Skipped positions keep their own "
        "activation."
    )
    parts = (text_rows(figures), *(_part_rows(figures, part) for part in PARTS))
    return "\n\n".join((head, *map(columns, parts)))


def image_rows(figures: Mapping[str, Any]) -> Rows:
    """A row a condition; each run with the fractions recovered."""
    rows = [
        ["site", "top-1", "top-5", "loss", "top-1 recovered", "loss recovered",
         "top-1 recovered (mean)", "loss recovered (mean)", "FVU", "images"]
    ]  # fmt: skip
    judged = f"{figures['images']:,} {in_short(figures)}"
    for name in CONDITIONS:
        rows.append([name, *_accuracies(figures[name]), *[""] * 5, judged])
    for name, run in figures["runs"].items():
        fractions = [
            run[f"recovered_against_{against}"][column]
            for against in (ZERO, MEAN)
            for column in ("top1", "cross_entropy")
        ]
        rows.append([name, *_accuracies(run), *map(_three, (*fractions, run["fvu"])), judged])
    return rows


def in_short(figures: Mapping[str, Any]) -> str:
    """What the images have to do with training, in a word or two."""
    short = {HELD_OUT: "held out", OTHERS: "others"}
    return short.get(figures.get("part", UNKNOWN), "perhaps trained on")


def text_rows(figures: Mapping[str, Any]) -> Rows:
    """A row a condition, over all predictions."""
    rows = [["site", "CE", "perplexity", "KL", "top-1", "agreement", "loss recovered",
             "loss recovered (mean)", "FVU", "L0"]]  # fmt: skip
    for name in CONDITIONS:
        rows.append([name, *_predictions(figures[name]), *[""] * 4])
    for name, run in figures["runs"].items():
        fractions = (run["recovered_against_zero"], run["recovered_against_mean"], run["fvu"])
        rows.append([name, *_predictions(run), *map(number, fractions), f"{run['l0']:.1f}"])
    return rows


PARTS = {"by_position": "position", "by_class": "class"}


def _part_rows(figures: Mapping[str, Any], part: str) -> Rows:
    """A row a bucket of positions, or a class: what is lost, and what each run recovers."""
    runs = list(figures["runs"])
    shown = ("CE", "KL", "loss recovered") if len(runs) <= 3 else ("loss recovered",)
    rows = [
        [PARTS[part], "predictions", "CE clean", "zero", "mean"]
        + [f"{column} {run}" for run in short_names(runs) for column in shown]
    ]
    for label, group in figures[part].items():
        row = [label, f"{group['predictions']:,}"]
        row += [f"{group[condition]['cross_entropy']:.3f}" for condition in CONDITIONS]
        for one in (group["runs"][run] for run in runs):
            texts = {
                "CE": f"{one['cross_entropy']:.3f}",
                "KL": f"{one['kl']:.4f}",
                "loss recovered": number(one["recovered_against_zero"]),
            }
            row += [texts[column] for column in shown]
        rows.append(row)
    return rows


def short_names(runs: Sequence[str]) -> list[str]:
    """The beginnings of the runs' names if these differ, else their ends, else all of them."""
    for short in ([run.split("-")[0] for run in runs], [run[-6:] for run in runs]):
        if len(set(short)) == len(runs):
            return short
    return list(runs)


def records(figures: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A record a condition with the scalars of its figures, for splice.csv."""
    flat = {name: _flat(figures[name]) for name in CONDITIONS}
    flat |= {name: _flat(run) for name, run in figures["runs"].items()}
    names = dict.fromkeys(key for one in flat.values() for key in one)
    return [
        {"condition": condition, **{name: one.get(name) for name in names}}
        for condition, one in flat.items()
    ]


def part_records(figures: Mapping[str, Any], part: str) -> list[dict[str, Any]]:
    """A record a group and condition, for by_position.csv and by_class.csv."""
    return [
        {PARTS[part]: label, "predictions": group["predictions"], **record}
        for label, group in figures[part].items()
        for record in records(group)
    ]


def _flat(figures: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in figures.items():
        if isinstance(value, Mapping):
            found |= {f"{name}_{inner}": one for inner, one in value.items()}
        else:
            found[name] = value
    return found


def context(figures: Findings) -> dict[str, Any]:
    """What page.html shows."""
    return _text_context(figures) if _of_text(figures) else _image_context(figures)


def _image_context(figures: Findings) -> dict[str, Any]:
    several = figures["answers"] != figures["images"]
    answers = f", {figures['answers']:,} answers" if several else ""
    clean = figures["clean"]
    own = figures["labels"] != "file"
    tiles = [
        _tile(f"{figures['images']:,}", f"images{answers}"),
        _tile(f"{clean['top1']:.3f}", "is the accuracy with the site as it is"),
    ]
    return {
        "lead": LEAD.format(task="classify images"),
        "numbers": tiles + _best_tiles(figures),
        "bars": bars(figures),
        "every": image_rows(figures),
        "key": (
            "Top-1 and top-5 are the fractions of answers whose right class is the first, or among "
            "the first five; loss is the mean cross-entropy in nats. FVU, the fraction of variance "
            "unexplained, is of all vectors replaced."
        ),
        "parts": [],
        "chart": "",
        "attack": _attack_context(figures),
        "method": [
            f"Images: {figures['source']}; {figures.get('part', UNKNOWN)}.",
            f"Each image passed through {figures['subject']} with {figures['site']} as it is, "
            "reconstructed by each run, set to zero, and set to the mean of the site over these "
            "images.",
            f"Right classes: {_classes(own)}. {RECOVERED}",
        ],
        "caveats": [
            *_of_training(figures),
            *([OWN_ANSWERS] if own else []),
            BEYOND,
        ],
    }


def _attack_context(figures: Findings) -> dict[str, Any] | None:
    """Table and bars of the attacks; None without one."""
    if "attack" not in figures:
        return None
    attack = figures["attack"]
    network = attack["network"]["worst"]
    bars = []
    for name, by in attack["runs"].items():
        values = [("as it is", network), ("reconstructed", by["run"]["worst"])]
        values += [(f"{c} of the same error", by[c]["worst"]) for c in CONTROLS]
        some = [
            {"text": text, "mean": n > 1, "width": f"{100 * value:.1f}", "value": f"{value:.3f}"}
            for n, (text, value) in enumerate(values)
        ]
        bars.append({"name": name, "bars": some})
    return {"sentence": attack_sentence(attack), "rows": attack_rows(attack), "bars": bars}


def _of_training(figures: Mapping[str, Any]) -> list[str]:
    """What the images have to do with training, and whether there are few of them."""
    part = figures.get("part", UNKNOWN)
    texts = []
    if part not in (HELD_OUT, OTHERS):
        texts.append(
            f"Of the images: {part}. On images that a dictionary was trained on the fractions "
            "recovered are higher than on new ones."
        )
    if figures["images"] < FEW:
        texts.append(
            f"The images judged are only {figures['images']}, so every figure here is uncertain."
        )
    return texts


def _classes(own: bool) -> str:
    if own:
        return "the network's own first answers with the site as it is"
    return "from the names of the files or of the folders above them"


OWN_ANSWERS = (
    "Without --labels the network's own first answers count as right, so accuracies measure "
    "agreement with the unchanged network. Where answers tie, another one may count as first."
)
BEYOND = (
    "The fraction recovered can exceed 1, where the reconstruction happens to remove a mistake of "
    "the network, and fall below 0, where it does more harm than ablation. It means little where "
    "ablation loses little."
)


def _text_context(figures: Findings) -> dict[str, Any]:
    tiles = [
        _tile(f"{figures['predictions']:,}", f"predictions in {figures['contexts']:,} contexts"),
        _tile(f"{figures['clean']['cross_entropy']:.3f}", "is the cross-entropy with the site as "
              "it is, in nats"),
    ]  # fmt: skip
    return {
        "lead": LEAD.format(task="predict the next token"),
        "numbers": tiles + _best_tiles(figures),
        "bars": bars(figures),
        "every": text_rows(figures),
        "key": (
            "Cross-entropy (CE) and KL(clean ‖ spliced) are means in nats. Top-1 is the fraction "
            "of predictions whose first choice is right, agreement the fraction whose first choice "
            "is that of the clean model. FVU, the fraction of variance unexplained, and L0, the "
            "mean number of active latents, are of the vectors replaced."
        ),
        "parts": [
            {"heading": heading, "link": link, "rows": _part_rows(figures, part), "key": key}
            for part, link, heading, key in (
                ("by_position", "By position", "By the position of the predicted token", ""),
                ("by_class", "By class", "By the class of the predicted token", CLASS_KEY),
            )
        ],
        "chart": _by_position(figures),
        "method": [
            f"Text: {figures['text']}. {figures['contexts']:,} contexts passed through "
            f"{figures['subject']} with {figures['site']} as it is, reconstructed by each run, set "
            "to zero, and set to the mean over the positions replaced.",
            "Positions that the harvest skipped (special tokens) keep their own activation in "
            f"every condition, and predictions made there do not count. {RECOVERED}",
        ],
        "caveats": [
            "The loss recovered can exceed 1 on text that the model does not know, where the "
            "reconstruction removes overconfident predictions. Compare KL in that case.",
            "A class or a bucket of positions with few predictions has uncertain figures.",
        ],
    }


CLASS_KEY = (
    "A class is read off the tokenizer's spelling: a word begins where a token begins with a space."
)


def bars(figures: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A group of bars a run: the fraction recovered, drawn from 0 to 1."""
    groups = []
    for name, run in figures["runs"].items():
        values = {}
        for against in (ZERO, MEAN):
            if not _of_text(figures):
                accuracy = run[f"recovered_against_{against}"]["top1"]
                values[f"accuracy recovered, against {against}"] = accuracy
            values[f"loss recovered, against {against}"] = loss_recovered(run, against)
        groups.append({"name": name, "bars": [_bar(*one) for one in values.items()]})
    return groups


def _bar(text: str, value: float | None) -> dict[str, Any]:
    width = 0.0 if value is None else 100 * min(max(value, 0.0), 1.0)
    shown = "nothing to recover" if value is None else f"{value:.3f}"
    return {"text": text, "width": f"{width:.1f}", "value": shown, "mean": text.endswith(MEAN)}


def _best_tiles(figures: Mapping[str, Any]) -> list[Tile]:
    name, value = figures["best_run"], figures["best_loss_recovered"]
    if name is None:
        return []
    of = "" if len(figures["runs"]) == 1 else ", the most of all runs"
    return [_tile(f"{value:.3f}", f"of the loss against zeros is recovered by {name}{of}")]


def _tile(value: str, text: str) -> Tile:
    return {"value": value, "of": "", "text": text}


def _by_position(figures: Mapping[str, Any]) -> str:
    """KL by bucket of positions. Ablations would dwarf the runs; the table has them."""
    buckets = figures["by_position"]
    places = np.arange(len(buckets), dtype=float)
    series = [
        Series(run, places, np.array([group["runs"][run]["kl"] for group in buckets.values()]))
        for run in figures["runs"]
    ]
    labels = list(zip(places.tolist(), buckets, strict=True))
    return chart(
        series,
        Axis("position of the predicted token", labels=labels),
        Axis("KL(clean ‖ spliced)", from_zero=True),
    )


def _of_text(figures: Mapping[str, Any]) -> bool:
    return "text" in figures


def _accuracies(figures: Mapping[str, float]) -> list[str]:
    return [_three(figures[name]) for name in ("top1", "top5", "cross_entropy")]


def _predictions(figures: Mapping[str, float]) -> list[str]:
    perplexity = figures["perplexity"]
    return [
        f"{figures['cross_entropy']:.3f}",
        f"{perplexity:,.2f}" if perplexity < 1e6 else f"{perplexity:.2g}",
        f"{figures['kl']:.4f}",
        f"{figures['top1']:.3f}",
        f"{figures['agreement']:.3f}",
    ]


def _three(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
