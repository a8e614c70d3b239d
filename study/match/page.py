"""What the study of matched layers shows: links, chains, and the cost of skipped layers."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup, escape

from tendril.data.store.spec import short_site
from tendril.data.store.tables import columns

from ..page.charts import Axis, Series, chart
from .findings import COPIED, HOLDS, MATCHED, OWN, RANDOM, Matched

HEADER = ("from", "to", "matched by", "pairs alive", "correlation", "best possible", "unfolded",
          "shuffled rows", "random pairs", f"above {HOLDS:g}", "same partner", "gap")  # fmt: skip
VALUES = ("correlation", "correlation_by_activations", "correlation_unfolded",
          "correlation_shuffled", "correlation_random", "above_half",
          "same_as_by_activations")  # fmt: skip
BINS = 24
ROW, LABEL, NUMBER, LINE, GAP = 24.0, 172.0, 46.0, 44.0, 16.0
MOST_LETTERS = 19


def rows(figures: Mapping[str, Any]) -> list[list[str]]:
    """A row of figures a link."""
    found = []
    for one in figures["links"]:
        values = [one[name] for name in VALUES]
        texts = [f"{value:.2f}" if value != "" else "" for value in values]
        about = [
            short_site(one["first"]),
            short_site(one["second"]),
            one["by"],
            f"{one['living_pairs']} of {one['pairs']}",
        ]
        found.append([*about, *texts, f"{one['gap']:.2g}"])
    return found


def table(figures: Mapping[str, Any]) -> str:
    """Links, and skipped layers, as text."""
    parts = [columns([HEADER, *rows(figures)])]
    if figures["skipped"]:
        parts.append(columns(skip_rows(figures["skipped"])))
    return "\n\n".join(parts)


def headline(figures: Mapping[str, Any]) -> str:
    """Chains, and the correlation of their links beside random pairs."""
    first = figures["links"][0]
    said = (
        f"{figures['chains_above_half']} of {figures['chains']} chains of living latents have a "
        f"correlation above {HOLDS:g} at every link; the first link's mean is "
        f"{_number(first['correlation'])}, that of random pairs "
        f"{_number(first['correlation_random'])}."
    )
    if figures["skipped"]:
        one = figures["skipped"][-1]
        said += (
            f" With {short_site(one['second'])} replaced by the matched code of "
            f"{short_site(one['first'])}, cross-entropy "
            f"rises by {one['matched']:.2f} (random partners {one['random partners']:.2f})."
        )
    return said


def _number(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.2f}"


def context(found: Matched, shown: int) -> dict[str, Any]:
    """What page.html shows."""
    figures = found.figures()
    return {
        "lead": headline(figures),
        "links": [list(HEADER), *rows(figures)],
        "histogram": _histogram(found),
        "chains": drawing(found, shown),
        "shown": min(shown, len(found.chains.weakest_C)),
        "all_chains": len(found.chains.weakest_C),
        "direct": figures["direct"],
        "holds": HOLDS,
        "skipped": skip_rows(found.skipped) if found.skipped else [],
        "unthresholded": any(link.by == "weights" for link in found.links),
    }


def _histogram(found: Matched) -> Markup:
    """How many pairs have which correlation, for each link."""
    edges = np.linspace(-0.2, 1.0, BINS + 1)
    middle = (edges[1:] + edges[:-1]) / 2
    series = []
    for link in found.links:
        known = link.correlation_S[np.isfinite(link.correlation_S)]
        counts, _ = np.histogram(np.clip(known, edges[0], edges[-1]), edges)
        series.append(
            Series(
                f"{short_site(link.first)} to {short_site(link.second)}",
                middle,
                counts.astype(float),
            )
        )
    return chart(series, Axis("correlation of a pair"), Axis("pairs", from_zero=True))


def drawing(found: Matched, shown: int) -> Markup:
    """Chains as rows of latents, one column a layer; the heavier a line, the stronger the link."""
    latents_CL, links_CK = found.chains.latents_CL[:shown], found.chains.links_CK[:shown]
    if not len(latents_CL):
        return Markup("")
    layers, texts = latents_CL.shape[1], any(found.words)
    column = LABEL + LINE + GAP if texts else NUMBER + LINE + GAP
    start = column - LINE - GAP / 2
    height, width = (
        ROW * (len(latents_CL) + 1),
        column * (layers - 1) + (LABEL if texts else NUMBER),
    )
    parts = [
        f'<text x="{column * i:g}" y="-6" font-weight="600">{escape(short_site(site))}</text>'
        for i, site in enumerate(found.sites)
    ]
    for c, (latents, strengths) in enumerate(zip(latents_CL, links_CK, strict=True)):
        y = ROW * (c + 0.7)
        for k, r in enumerate(strengths):
            strength = max(float(r), 0.0)
            parts.append(
                f'<path class="ink" style="stroke-width:{0.5 + 4 * strength:.2f};stroke-opacity:'
                f'{0.2 + 0.7 * strength:.2f}" d="M{column * k + start:.0f} {y - 4:.0f}h{LINE:g}">'
                f"<title>correlation {r:.3f}</title></path>"
            )
        for i, latent in enumerate(latents):
            words = found.words[i].get(int(latent), "") if texts else ""
            parts.append(
                f'<text x="{column * i:g}" y="{y:.0f}"><tspan class="number">{int(latent)}</tspan>'
                f'<tspan dx="6" class="soft">{escape(_cut(words))}</tspan></text>'
            )
    return Markup(
        f'<svg class="chains" style="min-width:{width:.0f}px" viewBox="-4 -22 {width:.0f} '
        f'{height + 22:.0f}" role="img" aria-label="Chains of matched latents">{"".join(parts)}'
        "</svg>"
    )


def _cut(words: str) -> str:
    """As many whole words as have room."""
    while len(words) > MOST_LETTERS and " " in words:
        words = words.rpartition(" ")[0]
    return words[:MOST_LETTERS]


def skip_rows(found: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """A table: what each replacement adds to the cross-entropy."""
    names = (OWN, MATCHED, RANDOM, COPIED, "mean")
    rows = [["layer replaced", "by the code of", "cross-entropy as it is", *names]]
    for one in found:
        cells = [f"+{one[name]:.3f}" if one[name] >= 0 else f"{one[name]:.3f}" for name in names]
        rows.append(
            [short_site(one["second"]), short_site(one["first"]), f"{one['clean']:.3f}", *cells]
        )
    return rows
