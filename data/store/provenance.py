"""Find a store's subject and inputs again, and compare their identities."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .spec import canonical_json

DIGEST = 40  # texts of at least so many characters are taken for digests and abbreviated


def located(store: str | Path, hint: str) -> str:
    """A hint of a store's `origin`, as a path from here if it is one.

    Paths in hints are relative to the store's folder. Names (`lucent`, `hf:NAME`) are returned
    unchanged; `hf:FOLDER` is a path.
    """
    library, colon, folder = hint.partition(":")
    if colon and library in ("hf", "timm") and (Path(store) / folder).is_dir():
        return f"{library}:{Path(store) / folder}"
    file, python, function = hint.partition(".py:")
    place = Path(store) / (f"{file}.py" if python else file)
    path, at, split = file.rpartition("@")  # of a dataset
    if path and not place.exists() and (Path(store) / path).exists():
        return f"{Path(store) / path}{at}{split}"
    if not file or not place.exists():
        return hint
    return f"{place}:{function}" if python else str(place)


def same_identity(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """True if two identities have the same canonical JSON."""
    return canonical_json(dict(first)) == canonical_json(dict(second))


def identity_in_words(identity: Mapping[str, Any]) -> str:
    """An identity as `key value, ...`, with digests abbreviated."""
    return ", ".join(
        f"{key} {value[:12] if isinstance(value, str) and len(value) >= DIGEST else value}"
        for key, value in identity.items()
    )
