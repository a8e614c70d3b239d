"""The fields of a config that a store records, to make its harvest again."""

from typing import Any

from tendril.data.store.provenance import located
from tendril.data.store.reader import Store

from .config import VerifyConfig


def text_fields(store: Store) -> dict[str, Any]:
    """The fields of a LanguageConfig that a store of text records."""
    inputs = store.spec["inputs"]
    return {
        "limit": inputs["contexts"],
        "column": store.origin.get("column", "text"),
        "token_ids": "token_ids" in store.origin,
        "chat": "chat" in store.origin,
        "pad": inputs.get("packing") == "alone",
        "document_mask": inputs.get("packing") == "apart",
        "compute": store.spec["subject"].get("compute", "float32"),
    } | {name: inputs[name] for name in ("context", "skip_special", "skip_first")}


def image_fields(config: VerifyConfig, store: Store, place: str) -> dict[str, Any]:
    """The fields of a HarvestConfig that a store of images records, unless `config` gives them."""
    inputs, origin = store.spec["inputs"], store.origin
    normalisation = "" if config.subject else origin.get("normalisation", "")
    weights = "" if config.subject else located(place, origin.get("weights", ""))
    orbit = inputs.get("orbit", {})
    return {k: orbit[k] for k in ("rotations", "reflections", "turn") if orbit} | {
        "weights": config.weights or weights,
        "normalisation": config.normalisation or normalisation or "auto",
        "limit": inputs["count"],
        "positions": store.spec["positions"]["rule"].replace("all", "uniform"),
        "tokens": store.spec["subject"].get("tokens", {}).get("keep", "all"),
    }
