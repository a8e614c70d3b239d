"""A tree of causes: latents of earlier sites without which a latent of a later site is weaker."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float

from tendril.models.subjects.language import LanguageSubject

from ..core.language_text import JudgedText
from ..measures.latent_causes import Causes, Occurrences, Place, activations, occurrences
from ..measures.rank_agreement import overlap, rank_correlation
from .config import CausesConfig

TOP = 10  # causes by attribution and by removal that are compared
ALIKE = 8  # other latents among which a control is drawn
WINDOW, AFTER = 24, 4  # tokens shown before and behind the strongest one
FIRES = 5  # tokens named for each latent


@final
@dataclass(frozen=True)
class Cause:
    """A latent of the site before: what removing it takes from the target, as a fraction.

    `fall` is a mean over the target's contexts with its standard error; the latent is active in
    `contexts` of them. `control` is the mean fall of `draws` other latents, whose mean edit is
    `control_edit` where that of this latent is `edit`.
    """

    latent: int
    fall: float
    error: float
    attribution: float
    contexts: int
    edit: float
    control: float | None = None
    control_edit: float | None = None


@final
@dataclass(frozen=True)
class Agreement:
    """How far the attribution agrees with removing, over the latents that were removed.

    `rank_correlation` is Spearman's; `overlap` counts latents that are among the TOP of both. Of
    `audited` latents beyond those chosen by attribution `missed` fall by at least the wanted
    fraction; `audit_most` is the largest fall of them.
    """

    active: int
    removed: int
    rank_correlation: float | None
    overlap: int
    of: int
    audited: int
    missed: int
    audit_most: float | None


@final
@dataclass(frozen=True)
class Node:
    """A latent of a site, the contexts that it was read in, and its causes at the site before.

    `together` is the fall without all the causes at once, `unexplained` that without what the
    dictionary of the site before does not explain. Both are None where no causes were looked for.
    """

    place: Place
    latent: int
    most: float
    found: Occurrences
    shown: Sequence["Example"]
    fires: Sequence[tuple[int, float]]
    causes: Sequence[Cause] = ()
    agreement: Agreement | None = None
    together: float | None = None
    unexplained: float | None = None


@final
@dataclass(frozen=True)
class Example:
    """A context of a latent up to its place: tokens, and the latent's values there."""

    context: int
    tokens: Sequence[int]
    values: Sequence[float]


@final
@dataclass(frozen=True)
class Tree:
    """Nodes by (run, latent), the root first."""

    nodes: dict[tuple[str, int], Node] = field(default_factory=dict)


def tree_of(
    subject: LanguageSubject,
    places: Sequence[Place],
    text: JudgedText,
    config: CausesConfig,
    device: torch.device,
) -> Tree:
    """The tree of causes of `config.latent` of the last place; `places` are in the model's order.

    A latent that causes several others is one node. Site by site, so each site's activations are
    computed once.
    """
    tree, wanted = Tree(), [config.latent]
    for depth in range(len(places) - 1, -1, -1):
        place = places[depth]
        early = places[depth - 1] if depth else None
        values = _values(subject, place, wanted, text, config, device)
        children: list[int] = []
        for latent in wanted:
            node = _node(subject, place, early, latent, values[latent], text, config, device)
            tree.nodes[place.run, latent] = node
            children += [one.latent for one in node.causes[: config.branches]]
        wanted = list(dict.fromkeys(children))
        if not wanted:
            break
    return tree


def _values(
    subject: LanguageSubject,
    place: Place,
    latents: Sequence[int],
    text: JudgedText,
    config: CausesConfig,
    device: torch.device,
) -> dict[int, Float[np.ndarray, "b t"]]:
    batches = text.batches(config.batch_size, device, place.site)
    z_BTL = activations(subject, place, latents, batches)
    return {latent: z_BTL[:, :, i] for i, latent in enumerate(latents)}


def _node(
    subject: LanguageSubject,
    place: Place,
    early: Place | None,
    latent: int,
    z_BT: Float[np.ndarray, "b t"],
    text: JudgedText,
    config: CausesConfig,
    device: torch.device,
) -> Node:
    found = occurrences(z_BT, text.tokens_BT, text.kept_BT, config.contexts, config.seed, device)
    known: dict[str, Any] = {
        "place": place,
        "latent": latent,
        "most": float(z_BT.max(initial=0.0)),
        "found": found,
        "shown": _examples(z_BT, text, config.examples),
        "fires": _fires(z_BT, text),
    }
    if early is None or not len(found):
        return Node(**known)
    causes = Causes(subject, early, place, latent, found, config.batch_size)
    rng = np.random.default_rng([config.seed, latent])
    order_F = np.argsort(-causes.attribution_F.abs().cpu().numpy(), kind="stable")
    first, rest = order_F[: config.exact], order_F[config.exact :]
    audited = rng.permutation(rest)[: config.audit]
    fall_CN = causes.effects(first.tolist())
    audit_A = causes.effects(audited.tolist()).mean(axis=0)
    ranked = np.argsort(-fall_CN.mean(axis=0), kind="stable").tolist()
    kept = [i for i in ranked if fall_CN[:, i].mean() >= config.least]
    listed = [_cause(causes, int(first[i]), fall_CN[:, i]) for i in kept]
    return Node(
        **known,
        causes=_controlled(causes, listed, [int(first[i]) for i in kept], config.draws, rng),
        agreement=_agreement(causes, first, fall_CN.mean(axis=0), audit_A, config.least),
        together=_mean(causes.together([int(first[i]) for i in kept])) if kept else None,
        unexplained=_mean(causes.unexplained()),
    )


def _cause(causes: Causes, entry: int, fall_C: Float[np.ndarray, " c"]) -> Cause:
    spread = fall_C.std(ddof=1) / len(fall_C) ** 0.5 if len(fall_C) > 1 else float("nan")
    return Cause(
        int(causes.active_F[entry]),
        float(fall_C.mean()),
        float(spread),
        float(causes.attribution_F[entry]),
        int(causes.contexts_F[entry]),
        float(causes.edit_F[entry]),
    )


def _controlled(
    causes: Causes,
    listed: Sequence[Cause],
    entries: Sequence[int],
    draws: int,
    rng: np.random.Generator,
) -> list[Cause]:
    """Causes with their controls: other active latents, drawn from the ALIKE whose mean edit is
    nearest."""
    edit_F = causes.edit_F.cpu().numpy()
    others = np.setdiff1d(np.arange(len(edit_F)), np.array(entries, dtype=np.int64))
    if not draws or not len(others):
        return list(listed)
    drawn = []
    for entry in entries:
        apart = np.abs(np.log(edit_F[others]) - np.log(edit_F[entry]))
        near = others[np.argsort(apart, kind="stable")[:ALIKE]]
        drawn.append(rng.permutation(near)[:draws])
    all_drawn = np.unique(np.concatenate([*drawn, others[:0]]))
    fall_N = causes.effects(all_drawn.tolist()).mean(axis=0)
    place = {entry: i for i, entry in enumerate(all_drawn.tolist())}
    return [
        Cause(
            **(
                vars(one)
                | {
                    "control": float(np.mean([fall_N[place[e]] for e in some.tolist()])),
                    "control_edit": float(edit_F[some].mean()),
                }
            )
        )
        for one, some in zip(listed, drawn, strict=True)
    ]


def _agreement(
    causes: Causes,
    first: np.ndarray,
    fall_N: Float[np.ndarray, " n"],
    audit_A: Float[np.ndarray, " a"],
    least: float,
) -> Agreement:
    attribution_N = causes.attribution_F.cpu().numpy()[first]
    return Agreement(
        active=len(causes.active_F),
        removed=len(first),
        rank_correlation=rank_correlation(attribution_N, fall_N),
        overlap=overlap(attribution_N, fall_N, TOP),
        of=min(TOP, len(first)),
        audited=len(audit_A),
        missed=int((audit_A >= least).sum()),
        audit_most=float(audit_A.max()) if len(audit_A) else None,
    )


def _mean(values_C: Float[np.ndarray, " c"]) -> float:
    return float(values_C.mean())


def _examples(z_BT: Float[np.ndarray, "b t"], text: JudgedText, count: int) -> list[Example]:
    """The contexts of the largest activations, one a context, from WINDOW tokens before to AFTER
    behind."""
    most_B = z_BT.max(axis=1, initial=0.0)
    found = []
    for row in np.argsort(-most_B, kind="stable")[:count].tolist():
        if most_B[row] <= 0:
            break
        at = int(z_BT[row].argmax())
        part = slice(max(0, at - WINDOW), at + AFTER + 1)
        found.append(Example(row, text.tokens_BT[row, part].tolist(), z_BT[row, part].tolist()))
    return found


def _fires(z_BT: Float[np.ndarray, "b t"], text: JudgedText) -> list[tuple[int, float]]:
    """The FIRES tokens that have most of a latent's activation, and which fraction each has."""
    sums = np.bincount(text.tokens_BT.ravel(), weights=z_BT.ravel().astype(np.float64))
    total = sums.sum()
    if not total > 0:
        return []
    first = np.argsort(-sums, kind="stable")[:FIRES]
    return [(int(token), float(sums[token] / total)) for token in first if sums[token] > 0]


def tree_figures(tree: Tree) -> dict[str, Any]:
    """The tree as JSON values: nodes with their causes, and scalars over all of them."""
    nodes = list(tree.nodes.values())
    causes = [cause for node in nodes for cause in node.causes]
    asked = [node.agreement for node in nodes if node.agreement is not None]
    controlled = [cause for cause in causes if cause.control is not None]
    correlations = [one.rank_correlation for one in asked if one.rank_correlation is not None]
    return {
        "latents": len(nodes),
        "causes": len(causes),
        "mean_fall": _mean_of([cause.fall for cause in controlled]),
        "mean_control": _mean_of([cause.control for cause in controlled]),
        "rank_correlation": _mean_of(correlations),
        "overlap": sum(one.overlap for one in asked),
        "overlap_of": sum(one.of for one in asked),
        "audited": sum(one.audited for one in asked),
        "missed": sum(one.missed for one in asked),
        "nodes": [
            {
                "run": node.place.run,
                "site": node.place.site,
                "latent": node.latent,
                "most": node.most,
                "contexts": len(node.found),
                "together": node.together,
                "unexplained": node.unexplained,
                "agreement": node.agreement and vars(node.agreement),
                "causes": [vars(cause) for cause in node.causes],
            }
            for node in nodes
        ],
    }


def _mean_of(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
