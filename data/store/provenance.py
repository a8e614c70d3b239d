"""Where a store says its subject and inputs were, and whether what is found is the same."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .spec import canonical_json

DIGEST = 40  # hex digits from which a text is a digest, and cut short


def located(store: str | Path, hint: str) -> str:
    """A hint of a store's origin as it stands here: paths are relative to the store's folder,
    names (`lucent`, `hf:NAME`) stay as they are."""
    file, python, function = hint.partition(".py:")
    place = Path(store) / (f"{file}.py" if python else file)
    if not file or not place.exists():
        return hint
    return f"{place}:{function}" if python else str(place)


def same_identity(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Whether two identities are one, as JSON."""
    return canonical_json(dict(first)) == canonical_json(dict(second))


def identity_in_words(identity: Mapping[str, Any]) -> str:
    """An identity in a few words, digests cut short."""
    return ", ".join(
        f"{key} {value[:12] if isinstance(value, str) and len(value) >= DIGEST else value}"
        for key, value in identity.items()
    )
