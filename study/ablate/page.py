"""The figures of ablated latents as tables for the terminal, and what the page shows."""

from collections.abc import Mapping, Sequence
from typing import Any

from tendril.data.store.tables import columns, number

from .findings import Findings


def terminal_table(figures: Mapping[str, Any]) -> str:
    """A table a latent: the tokens that fall and rise most."""
    return "\n".join(_table(latent, one) for latent, one in figures["latents"].items())


def _table(latent: str, one: Mapping[str, Any]) -> str:
    if not one["positions"]:
        return f"latent {latent} is active at no position of this text.\n"
    head = (
        f"latent {latent}: active at {one['positions']:,} positions, mean value "
        f"{one['value']:.3g}; without it KL {one['kl']:.4f}, cross-entropy {one['loss']:+.4f}\n"
    )
    rows = [["falls", "log p", "rises", "log p"]]
    for pair in zip(one["falls"], one["rises"], strict=True):
        rows.append([cell for t in pair for cell in (t["token"], f"{t['change']:+.3f}")])
    return head + columns(rows) + "\n"


def context(findings: Findings) -> dict[str, Any]:
    """What page.html shows."""
    latents = findings["latents"]
    active = findings["latents_active"]
    tiles = [
        {"value": f"{active}", "of": f"of {len(latents)}", "text": "latents are active in the text"}
    ]
    if active:
        tiles.append(
            {
                "value": f"{findings['strongest_kl']:.3g}",
                "of": "nats",
                "text": f"is the largest KL(clean ‖ ablated), without latent "
                f"{findings['strongest']}",
            }
        )
    return {
        "lead": (
            "One latent is subtracted from the site, and the model goes on from there. Which "
            "predictions change where the latent is active?"
        ),
        "numbers": tiles,
        "rows": [_row(latent, one) for latent, one in latents.items()],
        "cards": [_card(latent, one) for latent, one in latents.items()],
        "method": [
            f"Text: {findings['text']}, {findings['contexts']:,} contexts. Dictionary: run "
            f"{findings['run']} at {findings['site']} of {findings['subject']}.",
            "x* = x - z d at every position of a context at once, where z is the latent's "
            "activation and d its decoder row. The rest of x stays, including what the dictionary "
            "does not explain. Figures are means over the positions where the latent is active and "
            "a token follows; KL and cross-entropy are in nats.",
        ],
        "caveats": [
            "The tokens listed are those of the largest mean change over all active positions. A "
            "token that changes much at few positions may be missing.",
            "A latent that is active at few positions has uncertain figures.",
            "Where other latents carry the same information, removing one changes little.",
        ],
    }


def _row(latent: str, one: Mapping[str, Any]) -> list[str]:
    if not one["positions"]:
        return [latent, "0", "-", "-", "-"]
    figures = (number(one["value"]), f"{one['kl']:.4f}", f"{one['loss']:+.4f}")
    return [latent, f"{one['positions']:,}", *figures]


def _card(latent: str, one: Mapping[str, Any]) -> dict[str, Any]:
    changes = [abs(token["change"]) for side in ("falls", "rises") for token in one[side]]
    largest = max(changes, default=0.0) or 1.0
    return {
        "latent": latent,
        "positions": one["positions"],
        "text": f"Active at {one['positions']:,} positions, mean value {one['value']:.3g}. Without "
        f"it KL {one['kl']:.4f}, cross-entropy {one['loss']:+.4f}.",
        "sides": [
            {"name": name, "kind": side, "tokens": _tokens(one[side], largest)}
            for side, name in (("falls", "Falls"), ("rises", "Rises"))
        ],
    }


def _tokens(tokens: Sequence[Mapping[str, Any]], largest: float) -> list[dict[str, str]]:
    return [
        {
            "text": token["text"].replace("\n", "↵").replace("\t", "⇥"),
            "change": f"{token['change']:+.3f}",
            "width": f"{100 * abs(token['change']) / largest:.1f}",
        }
        for token in tokens
    ]
