"""Where a run or store is pushed to and pulled from."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import final
from urllib.parse import unquote, urlsplit

from ..errors import ConfigError

HF, FILE, SCHEME = "hf://", "file://", "://"
KINDS = {"models": "model", "datasets": "dataset"}  # first words of an address, and repo types
PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,199}")
FORM = "hf://user/repository, with @revision and /folder if needed"


@final
@dataclass(frozen=True)
class HubAddress:
    """hf://[datasets/]user/repository[@revision][/folder].

    `kind` is the hub's type of repository, model or dataset. `revision` is a branch, a tag or a
    commit; empty for the main branch.
    """

    kind: str
    repository: str
    revision: str = ""
    folder: str = ""

    def __str__(self) -> str:
        kind = "datasets/" if self.kind == "dataset" else ""
        revision = f"@{self.revision.replace('/', '%2F')}" if self.revision else ""
        folder = f"/{self.folder}" if self.folder else ""
        return f"{HF}{kind}{self.repository}{revision}{folder}"

    def inside(self, name: str) -> str:
        """A file of the folder as a path in the repository."""
        return f"{self.folder}/{name}" if self.folder else name


def is_hub(text: str) -> bool:
    """True if a text is an address on the hub."""
    return text.startswith(HF)


def parse_address(text: str) -> HubAddress | Path:
    """An address on the hub, or the path of a folder. Raises ConfigError for anything else."""
    if text.startswith(HF):
        return _hub_address(text)
    if text.startswith(FILE):
        parts = urlsplit(text)
        if parts.netloc not in ("", "localhost") or not parts.path.strip("/"):
            raise ConfigError(f"a file:// address must be file:///folder; got {text}.")
        return Path(unquote(parts.path))
    if SCHEME in text:
        raise ConfigError(
            f"the address must be {FORM}, or a folder; got {text}. A store is written to other "
            "servers with `tendril harvest --home URL`."
        )
    if not text.strip():
        raise ConfigError(f"the address must be {FORM}, or a folder; got nothing.")
    return Path(text)


def _hub_address(text: str) -> HubAddress:
    words = text.removeprefix(HF).strip("/").split("/")
    kind = KINDS[words.pop(0)] if words[0] in KINDS else "model"
    if len(words) < 2:
        raise ConfigError(f"the address must be {FORM}; got {text}.")
    user, (repository, _, revision), folder = words[0], words[1].partition("@"), words[2:]
    revision = unquote(revision)
    for part in (user, repository, *folder):
        if not PART.fullmatch(part):
            raise ConfigError(
                f"each part of the address must begin with a letter or digit, followed by letters, "
                f"digits, dots, dashes and underscores; got {part!r} in {text}."
            )
    if "@" in words[1] and (not REVISION.fullmatch(revision) or ".." in revision):
        raise ConfigError(
            f"the revision must be a branch, a tag or a commit; got {revision!r} in {text}."
        )
    return HubAddress(kind, f"{user}/{repository}", revision, "/".join(folder))
