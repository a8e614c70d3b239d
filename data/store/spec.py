"""The spec of a harvest and its identity: the SHA-256 of its canonical JSON.

A spec holds everything that can change the stored rows and nothing else. Two harvests with the
same spec make the same store.
"""

import dataclasses
import hashlib
import json
import re
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigError
from .dtypes import DTYPES

SHORT_SITE = re.compile(r"([a-z]\w*)\.(-?)(0|[1-9][0-9]{0,5})", re.ASCII)
LONGEST_SLUG = 242  # with a dash and 12 hex digits after it, a name of 255 bytes
SITE_BYTES = 200  # longest name of a site; file systems allow 255 bytes
FORMAT = 3  # the version of the format that FORMAT.md describes


@dataclass(frozen=True)
class StoreSpec:
    """The identity of a harvest. Raises ConfigError for an unknown dtype, and for sites that are
    repeated or cannot be names of arrays.

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
        for site in self.sites:
            check_site_name(site)
        _check_no_clash(self.sites)

    def canonical(self) -> str:
        """The spec as canonical JSON: keys sorted, no spaces, ASCII."""
        return canonical_json({"format": FORMAT, **dataclasses.asdict(self)})

    def digest(self) -> str:
        """The SHA-256 of the canonical JSON, in hex."""
        return hashlib.sha256(self.canonical().encode()).hexdigest()

    def folder(self, name: str) -> str:
        """The name of the store's folder: `<name>-<first 12 hex of the digest>`."""
        return f"{slug(name)}-{self.digest()[:12]}"


def full_site(name: str, sites: Collection[str], blocks: int = 0) -> str:
    """The full name of a site of a language model: `resid_post.3` -> `blocks.3.hook_resid_post`.

    Negative numbers count from the end of the network's `blocks`, if their number is known. A
    name that is in `sites`, or stands for none of them, is returned unchanged.
    """
    short = SHORT_SITE.fullmatch(name)
    if name in sites or not short:
        return name
    number = blocks - int(short[3]) if short[2] else int(short[3])
    counted = not short[2] or 1 <= int(short[3]) <= blocks
    full = f"blocks.{number}.hook_{short[1]}"
    return full if counted and full in sites else name


def short_site(site: str) -> str:
    """Inverse of `full_site`: `blocks.3.hook_resid_post` -> `resid_post.3`."""
    return re.sub(r"^blocks\.([0-9]+)\.hook_(\w+)$", r"\2.\1", site)


def blocks_of(origin: Mapping[str, str]) -> int:
    """The number of blocks of the language model that a store is of; 0 if it is not on record."""
    blocks = str(origin.get("blocks", ""))
    return int(blocks) if re.fullmatch("[0-9]{1,6}", blocks) else 0


def check_site_name(site: str) -> None:
    """Raise ConfigError unless a name can be that of an array: one part of a path, everywhere."""
    fault = ""
    if not site or site.startswith((".", "__")):
        fault = "begin with something else than a dot or two underscores"
    elif site == "zarr.json":
        fault = "be none that zarr uses"
    elif site != site.strip() or not site.isprintable():
        fault = "have printable characters only, and no space at either end"
    elif "/" in site or "\\" in site:
        fault = "have no slash and no backslash"
    elif len(site.encode()) > SITE_BYTES:
        fault = f"have at most {SITE_BYTES} bytes"
    if fault:
        shown = repr(site if len(site) <= SITE_BYTES else f"{site[:40]}...")
        raise ConfigError(
            f"the name of a site must {fault}, since it becomes a folder of the store; got "
            f"{shown}. Rename the module in the function that returns the network."
        )


def _check_no_clash(sites: Sequence[str]) -> None:
    """Raise ConfigError for two sites that would be one folder where capitals do not count, and for
    one that has the name of several others joined, as a crosscoder's run is named."""
    seen: dict[str, str] = {}
    for site in sites:
        folder = unicodedata.normalize("NFC", unicodedata.normalize("NFC", site).casefold())
        other = seen.setdefault(folder, site)
        parts = site.split("+")
        if other != site or (len(parts) > 1 and set(parts) <= set(sites)):
            clashes = other if other != site else " and ".join(parts)
            raise ConfigError(
                f"--sites must be names that differ in more than capitals, accents' encoding or "
                f"`+`; got {site!r} beside {clashes!r}. Harvest them into separate stores."
            )


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
    """A text made safe as part of a file name. One that is too long, such as the joined names of
    many sites, is cut."""
    safe = re.sub(r"[^A-Za-z0-9_.]+", "-", text).strip("-.") or "unnamed"
    return safe if len(safe) <= LONGEST_SLUG else safe[:SITE_BYTES].rstrip("-.")
