"""What the page of an automatic interpretation shows."""

import math
from collections.abc import Mapping
from typing import Any

from .cards import card, row, signed
from .config import InterpretConfig, Kind
from .findings import Interpretation, InterpretFindings
from .score_charts import (
    CHANCE,
    CONTROL,
    MEASURE,
    dictionary_charts,
    dictionary_table,
    latent_chart,
    moment_chart,
    moment_table,
)

CARDS = 200  # latents that have a card; all are in the table and in the files

TASK: Mapping[Kind, str] = {
    "detection": "which other examples activate the latent (detection)",
    "fuzzing": "in which the right tokens are marked (fuzzing)",
    "simulation": "how active the latent is on every token of others (simulation)",
}
OWN: Mapping[Kind, str] = {
    "detection": "detection_balanced_accuracy",
    "fuzzing": "fuzzing_balanced_accuracy",
    "simulation": "simulation_correlation",
    "intruder": "intruder_accuracy",
    "embedding": "embedding_auroc",
}
"""The columns of latents.csv that hold the scores."""


def context(config: InterpretConfig, findings: InterpretFindings) -> dict[str, Any]:
    """What page.html shows."""
    kinds = config.kinds
    latents = sorted(findings.main.latents, key=lambda one: _rank(one, kinds[0]))
    figures = findings.figures()
    several = bool(findings.controls)
    return {
        "lead": _lead(findings),
        "numbers": numbers(findings, figures),
        "kinds": kinds,
        "control_of": CONTROL,
        "chart": latent_chart(findings.main.latents, kinds),
        "dictionaries": dictionary_table(figures["dictionaries"], kinds) if several else None,
        "forests": dictionary_charts(figures["dictionaries"], kinds) if several else [],
        "moments": moment_table(figures["dictionaries"], kinds),
        "moment_chart": moment_chart(findings.dictionaries, _shown_kind(kinds)),
        "rows": [row(one, kinds) for one in latents],
        "cards": [card(one, config, findings.read) for one in latents[:CARDS]],
        "more": max(len(latents) - CARDS, 0),
        "method": method(config, findings),
        "caveats": caveats(config),
    }


def _shown_kind(kinds: tuple[Kind, ...]) -> Kind:
    return "simulation" if "simulation" in kinds else kinds[0]


def _lead(findings: InterpretFindings) -> str:
    asked = [TASK[kind] for kind in findings.kinds if kind in TASK]
    text = (
        f"The model {findings.model} saw activating examples of each latent and wrote one "
        "sentence about it."
    )
    if asked:
        listed = asked[0] if len(asked) == 1 else f"{', '.join(asked[:-1])}, and {asked[-1]}"
        text += f" Then, given the sentence alone, it was asked {listed}."
    if "intruder" in findings.kinds:
        text += " Without a sentence it was asked which of five examples is not the latent's."
    if "embedding" in findings.kinds:
        text += (
            f" The encoder {findings.encoder} says whether a sentence is nearer to examples that "
            "activate the latent than to silent ones."
        )
    return text


def caveats(config: InterpretConfig) -> list[str]:
    """What the numbers do not say."""
    found = [
        "A score is of the sentence and the judge together: a poor judge makes good sentences "
        "look poor.",
        "Silent examples are drawn at random, and most are about something else altogether. "
        "To tell a latent from a similar one is harder.",
        "A sentence that predicts where a latent is active does not say what the model uses "
        "it for.",
    ]
    if "simulation" in config.kinds:
        found.append(
            "A simulation that is the same on all tokens has no correlation. Such latents are "
            "counted as undefined and left out of means, which are then of the others."
        )
    if config.controls:
        found.append("Intervals are over latents; they do not hold what another judge would say.")
    return found


def headline(figures: Mapping[str, Any]) -> str:
    """Mean scores, and what their controls score."""
    parts = []
    for kind in figures["score"]:
        own, other = figures[f"{kind}_mean"], figures[f"{kind}_shuffled_mean"]
        if own is not None:
            name = "another latent's sentence" if kind != "intruder" else "four latents mixed"
            against = "" if other is None else f" ({other:.2f} with {name})"
            parts.append(f"{own:.2f} in {kind}{against}")
    listed = parts[0] if len(parts) == 1 else " and ".join((", ".join(parts[:-1]), *parts[-1:]))
    scores = f"; mean scores {listed}" if parts else ""
    failed = f"; {figures['failed']} failed" if figures["failed"] else ""
    undefined = (figures.get("simulation") or {}).get("undefined", 0)
    left = f"; {undefined} correlations undefined" if undefined else ""
    return f"{figures['interpreted']} latents explained{scores}{left}{failed}."


def table(figures: Mapping[str, Any]) -> str:
    """For the terminal: a line a latent, in order of falling first score; then a line for each
    dictionary."""
    kinds: list[Kind] = figures["score"]
    heads = [f"{kind} ({'mixed' if kind == 'intruder' else 'shuffled'})" for kind in kinds]

    def cell(one: Mapping[str, Any], kind: Kind) -> str:
        own, other = one[OWN[kind]], one[f"{kind}_shuffled"]
        return " ".join(("   -" if own is None else f"{own:4.2f}",
                         "(   -)" if other is None else f"({other:4.2f})"))  # fmt: skip

    lines = ["  ".join(["latent", *heads, "explanation"])]
    for one in sorted(figures["latents"], key=lambda r: -(r[OWN[kinds[0]]] or 0)):
        failed = f"[{one['failed']}] " if one["failed"] else ""
        text = f"{failed}{one['explanation']}"
        text = text if len(text) <= 100 else f"{text[:97]}..."
        cells = [f"{cell(one, kind):>{len(head)}}" for kind, head in zip(kinds, heads, strict=True)]
        lines.append("  ".join([f"{one['latent']:6d}", *cells, text]))
    return "\n".join(lines + _dictionary_lines(figures, kinds))


def _dictionary_lines(figures: Mapping[str, Any], kinds: list[Kind]) -> list[str]:
    """Means of every dictionary with their intervals, where there are several."""
    dictionaries = figures["dictionaries"]
    if len(dictionaries) < 2:
        return []
    width = max(len(one["run"]) for one in dictionaries)
    lines = ["", f"{'dictionary':{width}}  " + "  ".join(f"{kind:>19}" for kind in kinds)]
    for one in dictionaries:
        cells = []
        for kind in kinds:
            mean = one[kind]
            known = mean and mean["mean"] is not None and mean["low"] is not None
            text = f"{mean['mean']:.2f} ({mean['low']:.2f}..{mean['high']:.2f})" if known else "-"
            cells.append(f"{text:>19}")
        lines.append(f"{one['run']:{width}}  " + "  ".join(cells))
    return lines


def numbers(findings: InterpretFindings, figures: Mapping[str, Any]) -> list[dict[str, str]]:
    """The figures at the top of the page, each with what it means."""
    text = "latents explained"
    failed = sum(bool(one.failed) for one in findings.main.latents)
    if failed:
        text += f"; {failed} failed"
    if findings.main.too_rare:
        text += f"; {len(findings.main.too_rare)} more are too rare to be tested"
    tiles = [{"value": str(figures["interpreted"]), "of": "", "text": text}]
    for kind in findings.kinds:
        own, shuffled = figures[kind], figures[f"{kind}_shuffled"]
        if not own or own["mean"] is None:
            continue
        error = own["standard_error"]
        against = ""
        if shuffled and shuffled["mean"] is not None:
            against = f"; {signed(shuffled['mean'])} with {CONTROL[kind]}"
        undefined = f"; {own['undefined']} undefined" if own["undefined"] else ""
        tiles.append(
            {
                "value": signed(own["mean"]),
                "of": "" if error is None else f"± {error:.2f}",
                "text": f"{MEASURE[kind]} in {kind}{against}; {CHANCE[kind]:g} by "
                f"chance{undefined}",
            }
        )
    return tiles


def method(config: InterpretConfig, findings: InterpretFindings) -> list[str]:
    """How the examples were drawn, and what was asked."""
    length = len(findings.main.latents[0].examples.shown[0].tokens)
    graded = " The judge gave probabilities; 0.5 or more counts as yes." if config.graded else ""
    left_out = (
        f" Examples with a peak below {config.min_peak:g} of the latent's maximum were left out."
        if config.min_peak
        else ""
    )
    tally = findings.tally
    counted = (
        f" The models counted {tally.tokens_in:,} tokens of prompts and {tally.tokens_out:,} of "
        "answers."
        if tally.tokens_in
        else ""
    )
    about: dict[Kind, str] = {
        "detection": "Detection asks about the kept examples and as many, drawn at random, in "
        "which the latent is active nowhere.",
        "fuzzing": "Fuzzing asks about the kept examples: every second one has the right marks, "
        "the others as many marks on tokens on which the latent is silent. (Delphi calls this "
        "variant active; its default marks silent examples, so the scores are not comparable.)",
        "simulation": _simulation_method(config, findings),
        "intruder": "An intruder is a silent example among four of neighbouring quantiles, with as "
        "many marks at random as these have; chance is 0.2. In the control the four are examples "
        "of the four latents that follow, so that only the marks can give the intruder away.",
        "embedding": "The embedding score is the probability that the sentence has a larger cosine "
        "with an active example than with a silent one, without marks; ties count half.",
    }
    if judged := [kind for kind in findings.kinds if kind in ("detection", "fuzzing")]:
        last = judged[-1]
        about[last] += f" A request has {config.per_request} examples, in a random order.{graded}"
    return [
        f"Examples are {length} tokens around the strongest tokens of each context of "
        f"{findings.store}, three quarters of them before the peak; no two overlap. The explainer "
        f"saw {config.shown}, drawn from the {config.top} strongest. The others, by falling peak, "
        f"were cut into {config.tested} quantiles, and one of each was kept for the tests. Tokens "
        f"are marked if their activation is at least {config.mark_threshold:g} of their example's "
        f"peak.{left_out}",
        *(about[kind] for kind in findings.kinds),
        "Intervals are the middle 95 % of 2,000 bootstrap means over latents.",
        f"{tally.requested:,} requests were sent for this page; {tally.kept:,} had been answered "
        f"before.{counted}",
    ]


def _simulation_method(config: InterpretConfig, findings: InterpretFindings) -> str:
    means = findings.main.means(("simulation",), config.seed)
    drawn = (
        "examples that activate the latent" if config.random_examples == "active" else "the text"
    )
    few = means["simulation_too_few"]
    return (
        "Simulation asks for a number from 0 to 10 on every token of "
        f"{config.simulated} other examples of the {config.top} strongest and of "
        f"{config.simulated} drawn at random from {drawn}. The score is Pearson's correlation of "
        "these numbers with the activations over all tokens, and again over the random examples "
        f"alone. {means['simulation_weighed']:,} of {means['simulation_answers']:,} answers gave "
        "log-probabilities, from which expected values were taken; the others gave the number "
        "alone." + (f" {few} latents had too few examples to be simulated." if few else "")
    )


def _rank(one: Interpretation, kind: Kind) -> tuple[bool, float]:
    """Best first score first, failed latents last."""
    score = one.score(kind)
    return bool(one.failed), -(0.0 if math.isnan(score) else score)
