"""The spec of a harvest and its identity: the SHA-256 of its canonical JSON.

A spec holds everything that can change the stored rows and nothing else. Two harvests with the
same spec make the same store.
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigError
from .dtypes import DTYPES

FORMAT = 3  # the version of the format that FORMAT.md describes


@dataclass(frozen=True)
class StoreSpec:
    """The identity of a harvest. Raises ConfigError for an unknown dtype or repeated sites.

    `subject` and `inputs` are the identities that a subject and a source of inputs report
    (digest of the weights, fingerprint of the inputs, transforms). Positions are drawn on the
    grid of the first site.
    """

    subject: Mapping[str, Any]
    inputs: Mapping[str, Any]
    sites: tuple[str, ...]
    positions: Mapping[str, Any]
    seed: int
    dtype: str

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ConfigError(f"--dtype must be one of {', '.join(DTYPES)}; got {self.dtype!r}.")
        if not self.sites or len(set(self.sites)) != len(self.sites):
            raise ConfigError(
                f"--sites must be one or more different names; got {list(self.sites)}."
            )

    def canonical(self) -> str:
        """The spec as canonical JSON: keys sorted, no spaces, ASCII."""
        return canonical_json({"format": FORMAT, **dataclasses.asdict(self)})

    def digest(self) -> str:
        """The SHA-256 of the canonical JSON, in hex."""
        return hashlib.sha256(self.canonical().encode()).hexdigest()

    def folder(self, name: str) -> str:
        """The name of the store's folder: `<name>-<first 12 hex of the digest>`."""
        return f"{slug(name)}-{self.digest()[:12]}"


def canonical_json(value: object) -> str:
    """Equal values give equal texts. Raises ValueError for NaN and infinity."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest_of(spec: Mapping[str, Any]) -> str:
    """The digest of a spec on record; an empty text if it holds NaN, which no digest covers."""
    try:
        return hashlib.sha256(canonical_json(spec).encode()).hexdigest()
    except ValueError:
        return ""


def spec_fault(spec: Mapping[str, Any]) -> str:
    """What a spec on record must have and does not; an empty text if it has all."""
    kinds = {"subject": dict, "inputs": dict, "sites": list, "positions": dict}
    for key, kind in kinds.items():
        if not isinstance(spec.get(key), kind):
            return f"`spec.{key}` of type {kind.__name__}"
    if not spec["sites"] or not all(isinstance(site, str) for site in spec["sites"]):
        return "one or more names in `spec.sites`"
    if not isinstance(spec.get("seed"), int):
        return "`spec.seed` of type int"
    if spec.get("dtype") not in DTYPES:
        return f"a `spec.dtype` of {', '.join(DTYPES)}"
    return ""


def slug(text: str) -> str:
    """A text made safe as part of a file name."""
    return re.sub(r"[^A-Za-z0-9_.]+", "-", text).strip("-.") or "unnamed"
