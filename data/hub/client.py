"""The client of the Hugging Face hub, its errors in a sentence, and its cache on this machine.

This module and `address` import nothing of the homes, so that `home.find_run` can use them.
"""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from ..errors import (
    CAUSES,
    ConfigError,
    ExchangeError,
    HubError,
    RunDamagedError,
    TendrilError,
    is_out_of_memory,
)
from ..store.atomic import changed_file, unsealed
from .address import HubAddress, parse_address

LIST = "tendril.json"
LOADED = ("config.json", "dictionary.safetensors", "latents.safetensors", "result.json")


def fetched_run(text: str) -> Path:
    """The folder of a run on the hub, in the hub's cache; its files are checked.

    It holds what is needed to use the dictionary. Raises HubError, ExchangeError and
    RunDamagedError.
    """
    address = parse_address(text)
    if isinstance(address, Path):
        raise ConfigError(f"the address must begin with hf://; got {text}.")
    listed = cached(address, [LIST])[LIST]
    pinned = replace(address, revision=_commit(listed) or address.revision)
    try:
        entries, digests = unsealed(dict(json.loads(listed.read_bytes())))
        if entries["kind"] != "run":
            raise ValueError(f"it is a {entries['kind']}")
        wanted = {name: str(digests[name]) for name in LOADED if name in digests}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ExchangeError(
            f"{address} must be a run that `tendril push` wrote; {error}. Check the address."
        ) from error
    cached(pinned, list(wanted))
    if bad := [name for name, d in wanted.items() if changed_file(listed.parent, {name: d})]:
        cached(pinned, bad, again=True)  # the cache may have been damaged
    if fault := changed_file(listed.parent, {name: wanted[name] for name in bad}):
        raise RunDamagedError(f"{fault} from the one in {LIST} of {address}. Push it anew.")
    return listed.parent


def _commit(path: Path) -> str:
    """The commit that a file of the hub's cache belongs to: .../models--x--y/snapshots/COMMIT/."""
    for parent in path.parents:
        if parent.parent.name == "snapshots" and "--" in parent.parent.parent.name:
            return parent.name
    return ""


def cached(address: HubAddress, names: Sequence[str], *, again: bool = False) -> dict[str, Path]:
    """Files of a commit in the hub's cache on this machine, downloaded if they are not there, or
    `again` if they are."""
    hub = hub_api()
    found = {}
    for name in names:
        with told(address):
            found[name] = Path(
                hub.hf_hub_download(
                    address.repository,
                    address.inside(name),
                    revision=address.revision or None,
                    repo_type=address.kind,
                    force_download=again,
                )
            )
    return found


def hub_api() -> Any:
    """The client of huggingface_hub. It reads HF_TOKEN and HF_ENDPOINT itself."""
    try:
        hub, utils = import_module("huggingface_hub"), import_module("huggingface_hub.utils")
    except ImportError as error:
        raise HubError(
            "the hub needs the package huggingface_hub, which is not installed. Run "
            "`pip install huggingface_hub`."
        ) from error
    if not sys.stderr.isatty():
        utils.disable_progress_bars()
    endpoint = os.environ.get("HF_ENDPOINT") or None
    return hub.HfApi(endpoint=endpoint, library_name="tendril")


def hub_errors_of(*names: str) -> tuple[type[Exception], ...]:
    """Classes of errors of huggingface_hub, by name."""
    from huggingface_hub import errors

    return tuple(getattr(errors, name) for name in names)


@contextmanager
def told(address: HubAddress) -> Iterator[None]:
    """Tell what goes wrong on the hub as a HubError, in a sentence that never holds the token."""
    try:
        yield
    except TendrilError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise MemoryError from error
        if isinstance(error, OSError) and error.errno in CAUSES and not _status(error):
            raise
        raise HubError(_sentence(error, address)) from None  # the cause holds the headers


def _status(error: Exception) -> int:
    return int(getattr(getattr(error, "response", None), "status_code", 0) or 0)


def _sentence(error: Exception, address: HubAddress) -> str:
    name, status = type(error).__name__, _status(error)
    server = os.environ.get("HF_ENDPOINT") or "the hub"
    if name == "GatedRepoError" or status == 403:
        return (
            f"{server} must grant access to {address}; it is denied. Ask for access on its page, "
            "and give a token that has it in HF_TOKEN."
        )
    if status == 401 or name == "LocalTokenNotFoundError":
        return (
            f"{server} must be given a valid token for {address}; it refuses the one in HF_TOKEN, "
            "or there is none. Set HF_TOKEN, or run `hf auth login`."
        )
    if name == "RepositoryNotFoundError":
        return (
            f"{address} must be a repository that you may read; {server} has none of that name, or "
            "it is private. Check the name, or set HF_TOKEN."
        )
    if name == "RevisionNotFoundError":
        return f"{address} must name a branch, tag or commit that exists; {server} has none such."
    if name in ("EntryNotFoundError", "RemoteEntryNotFoundError"):
        return f"{address} must hold {LIST} and the files that it lists; one is missing."
    if name in ("OfflineModeIsEnabled",):
        return f"{address} is not in the cache, and HF_HUB_OFFLINE is set. Unset it."
    if name == "LocalEntryNotFoundError":
        return (
            f"{server} must answer for {address}; it does not, and the file is not in the cache. "
            "Check the network, HF_ENDPOINT and HF_HUB_OFFLINE."
        )
    answer = f"it answered with status {status}" if status else scrubbed(error)
    return f"{server} must answer for {address}; {answer}. Try again later."


def scrubbed(error: Exception) -> str:
    """An error on one line, without the token."""
    from huggingface_hub import get_token

    text = (" ".join(str(error).split())[:300] or type(error).__name__).rstrip(".")
    token = get_token()
    return text.replace(token, "***") if token else text
