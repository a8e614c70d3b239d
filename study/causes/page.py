"""What the page of a causal tree shows: the tree as a drawing, and each latent in its contexts."""

from collections.abc import Mapping, Sequence
from typing import Any

from tendril.data.store.tables import columns
from tendril.models.subjects.language import LanguageSubject

from ..core.token_text import readable
from ..measures.latent_causes import Place
from .config import CausesConfig
from .findings import TOP, Cause, Example, Node, Tree, tree_figures

WIDE, HIGH, GAP, ACROSS = 190.0, 52.0, 14.0, 290.0  # of the boxes of the drawing, in its units
THICK = 9.0  # width of the edge of a cause that takes all away
LISTED = 10  # causes in a latent's table


def headline(figures: Mapping[str, Any]) -> str:
    """The strongest cause of the root, and how much controls take."""
    root = figures["nodes"][0]
    if not root["contexts"]:
        return f"Latent {root['latent']} is active nowhere in this text."
    if not root["causes"]:
        return f"No latent of the site before takes enough from latent {root['latent']}."
    first = root["causes"][0]
    text = (
        f"Without latent {first['latent']} of the site before, latent {root['latent']} loses "
        f"{first['fall']:.0%} of its activation. The {figures['causes']} causes in the tree take "
        f"{figures['mean_fall']:.0%} each on average"
        if figures["mean_fall"] is not None
        else f"Latent {root['latent']} has {len(root['causes'])} causes"
    )
    if figures["mean_control"] is not None:
        text += f", latents of equal activity {figures['mean_control']:.1%}"
    return f"{text}."


def terminal_table(figures: Mapping[str, Any]) -> str:
    """The causes of each latent of the tree."""
    rows = [["latent", "at", "cause", "fall", "attribution", "contexts", "control"]]
    for node in figures["nodes"]:
        for cause in node["causes"]:
            rows.append(
                [
                    str(node["latent"]),
                    node["site"],
                    str(cause["latent"]),
                    _fall(cause["fall"], cause["error"]),
                    f"{cause['attribution']:.3f}",
                    f"{cause['contexts']} of {node['contexts']}",
                    "-" if cause["control"] is None else f"{cause['control']:.3f}",
                ]
            )
    return columns(rows)


def context(
    config: CausesConfig, subject: LanguageSubject, tree: Tree, places: Sequence[Place]
) -> dict[str, Any]:
    """What page.html shows."""
    figures = tree_figures(tree)
    nodes = list(tree.nodes.values())
    root = nodes[0]
    return {
        "lead": (
            f"Which latents of the sites before does latent {root.latent} at {root.place.site} "
            "depend on? Each latent is removed by itself, and the causes of the strongest causes "
            "are looked for in turn."
        ),
        "numbers": _tiles(figures),
        "drawing": _drawing(tree, places, subject, config.branches),
        "cards": [_card(node, subject, config) for node in nodes],
        "method": _method(config, places, figures),
        "caveats": [
            "A fall is measured with all other latents of the site in place. Two latents that "
            "carry the same each look harmless alone; the fall without all causes at once is given "
            "beside.",
            "A latent of the residual stream can be a cause because it is the same feature one "
            "layer earlier.",
            "Attribution decides which latents are removed. What it misses among the latents that "
            "were drawn beyond them is stated; the others are unknown.",
            "Dictionaries do not explain everything. What is left of the site's vectors stays when "
            "latents are removed, and can carry the cause.",
        ],
    }


def _method(config: CausesConfig, places: Sequence[Place], figures: Mapping[str, Any]) -> list[str]:
    listed = ", ".join(f"{place.site} ({place.run})" for place in places)
    return [
        f"Dictionaries, in the model's order: {listed}. Contexts of a latent: at most "
        f"{config.contexts}, drawn among those in which it reaches from half of its maximum to its "
        "maximum, M/2 ≤ z ≤ M, with one such position of each.",
        "Removing latent j of the site before is x* = x - zⱼ dⱼ at every position up to that one, "
        "where z is the activation and d the decoder row. The fall is the fraction of the target's "
        "activation that is lost, as a mean over its contexts, with the standard error.",
        f"The {config.exact} latents of the largest attribution were removed: the gradient of the "
        "target's pre-activation times what would be taken away. Controls are up to "
        f"{config.draws} latents each, drawn among the 8 whose mean edit ‖Σ z d‖ is nearest.",
        f"Attribution and removal: mean rank correlation {_number(figures['rank_correlation'])} "
        f"over the latents that were removed; {figures['overlap']} of {figures['overlap_of']} "
        f"latents are among the first {TOP} of both. Of {figures['audited']} active latents beyond "
        f"those chosen, drawn at random and removed, {figures['missed']} take at least "
        f"{config.least:.0%}.",
    ]


def _tiles(figures: Mapping[str, Any]) -> list[dict[str, str]]:
    root = figures["nodes"][0]
    tiles = [{"value": f"{figures['latents']}", "of": "", "text": "latents in the tree"}]
    if root["causes"]:
        first = root["causes"][0]
        tiles.append(
            {
                "value": f"{first['fall']:.0%}",
                "of": "",
                "text": f"of the root's activation is lost without latent {first['latent']}",
            }
        )
    if figures["mean_control"] is not None:
        tiles.append(
            {
                "value": f"{figures['mean_fall']:.0%}",
                "of": f"against {figures['mean_control']:.1%}",
                "text": "is lost without a cause, on average, and without a latent of equal "
                "activity",
            }
        )
    if figures["rank_correlation"] is not None:
        tiles.append(
            {
                "value": f"{figures['rank_correlation']:.2f}",
                "of": "",
                "text": "is the rank correlation of attribution and removal, over the latents that "
                "were removed",
            }
        )
    return tiles


def _drawing(
    tree: Tree, places: Sequence[Place], subject: LanguageSubject, branches: int
) -> dict[str, Any]:
    """Boxes in a column a site, the latest on the right, and edges as wide as the fall."""
    by_run: dict[str, list[Node]] = {place.run: [] for place in places}
    for node in tree.nodes.values():
        by_run[node.place.run].append(node)
    shown = [place for place in places if by_run[place.run]]
    most = max(len(by_run[place.run]) for place in shown)
    height = most * (HIGH + GAP) - GAP
    at: dict[tuple[str, int], tuple[float, float]] = {}
    for column, place in enumerate(shown):
        nodes = by_run[place.run]
        top = (height - len(nodes) * (HIGH + GAP) + GAP) / 2
        for row, node in enumerate(nodes):
            at[place.run, node.latent] = (column * ACROSS, top + row * (HIGH + GAP))
    boxes = [
        {
            "x": f"{x:g}",
            "y": f"{y:.1f}",
            "latent": node.latent,
            "anchor": _anchor(node),
            "fires": _short(" ".join(_fires(node, subject)[:3])),
        }
        for node in tree.nodes.values()
        for x, y in [at[node.place.run, node.latent]]
    ]
    edges = []
    for node in tree.nodes.values():
        column = next(i for i, place in enumerate(shown) if place.run == node.place.run)
        for cause in node.causes[:branches] if column else ():
            x, y = at[node.place.run, node.latent]
            x2, y2 = at[shown[column - 1].run, cause.latent]
            edges.append(_edge(x2 + WIDE, y2 + HIGH / 2, x, y + HIGH / 2, cause))
    return {
        "width": f"{(len(shown) - 1) * ACROSS + WIDE:g}",
        "height": f"{height:g}",
        "heads": [
            {"x": f"{i * ACROSS:g}", "text": _site(place.site)} for i, place in enumerate(shown)
        ],
        "boxes": boxes,
        "edges": edges,
    }


def _edge(x: float, y: float, x2: float, y2: float, cause: Cause) -> dict[str, str]:
    middle = (x + x2) / 2
    return {
        "path": f"M{x:.1f} {y:.1f}C{middle:.1f} {y:.1f} {middle:.1f} {y2:.1f} {x2:.1f} {y2:.1f}",
        "width": f"{max(1.0, THICK * min(cause.fall, 1.0)):.1f}",
        "title": f"without latent {cause.latent}: {cause.fall:.0%} lost",
    }


def _card(node: Node, subject: LanguageSubject, config: CausesConfig) -> dict[str, Any]:
    agreement = node.agreement
    parts = []
    if node.together is not None:
        parts.append(f"Without all causes at once {node.together:.0%} is lost.")
    if node.unexplained is not None:
        parts.append(
            "Without what the dictionary of the site before does not explain, "
            f"{node.unexplained:.0%} is lost."
        )
    if agreement is not None:
        parts.append(
            f"{agreement.removed} of {agreement.active} active latents were removed; rank "
            f"correlation of attribution and removal {_number(agreement.rank_correlation)}, "
            f"{agreement.overlap} of {agreement.of} among the first of both."
        )
    return {
        "anchor": _anchor(node),
        "latent": node.latent,
        "site": _site(node.place.site),
        "fires": " ".join(_fires(node, subject)),
        "most": f"{node.most:.3g}",
        "contexts": len(node.found),
        "examples": [_example(one, node.most, subject) for one in node.shown],
        "rows": [_row(cause, node) for cause in node.causes[:LISTED]],
        "more": max(len(node.causes) - LISTED, 0),
        "asked": agreement is not None,
        "text": " ".join(parts),
        "least": f"{config.least:.0%}",
    }


def _row(cause: Cause, node: Node) -> list[str]:
    control = "-" if cause.control is None else f"{cause.control:.3f}"
    edits = f"{cause.edit:.2f}"
    if cause.control_edit is not None:
        edits += f" / {cause.control_edit:.2f}"
    return [
        str(cause.latent),
        _fall(cause.fall, cause.error),
        f"{cause.attribution:.3f}",
        f"{cause.contexts} of {len(node.found)}",
        control,
        edits,
    ]


def _example(one: Example, most: float, subject: LanguageSubject) -> list[dict[str, Any]]:
    texts = readable(subject.tokenizer, one.tokens)
    return [
        {
            "text": text.replace("\n", "⏎").replace("\t", "⇥"),
            "on": value > 0,
            "shade": f"{min(max(100 * value / most, 8), 90):.0f}%",
            "title": f"{value:.3g}",
        }
        for text, value in zip(texts, one.values, strict=True)
    ]


def _fires(node: Node, subject: LanguageSubject) -> list[str]:
    texts = readable(subject.tokenizer, [token for token, _ in node.fires])
    return [f"“{text.replace(chr(10), '⏎')}”" for text in texts]


def _short(text: str, most: int = 26) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _anchor(node: Node) -> str:
    return f"{node.place.site}-{node.latent}".replace(".", "-")


def _site(site: str) -> str:
    """blocks.2.hook_resid_post as resid_post.2."""
    parts = site.split(".hook_")
    return f"{parts[1]}.{parts[0].removeprefix('blocks.')}" if len(parts) == 2 else site


def _fall(fall: float, error: float) -> str:
    return f"{fall:.3f} ± {error:.3f}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
