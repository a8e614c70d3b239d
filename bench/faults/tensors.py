"""Safetensors files that are damaged or hold tensors that cannot be meant; mutations of JSON."""

import json
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

HUGE = 10**400
DEEP = 60_000  # brackets, more than a parser's stack has


def truncated(path: Path, drawn: random.Random) -> bool:
    """The file ends too early."""
    content = path.read_bytes()
    path.write_bytes(content[: drawn.randrange(len(content))])
    return True


def header(path: Path, drawn: random.Random) -> bool:
    """A byte of the header is replaced. It must be told if the tensors are then others."""
    content = bytearray(path.read_bytes())
    (length,) = struct.unpack("<Q", content[:8])
    before = _described(bytes(content))
    content[drawn.randrange(8 + length)] ^= 1 << drawn.randrange(8)
    path.write_bytes(content)
    return _described(bytes(content)) != before


def _described(content: bytes) -> object:
    """The tensors of a header; nothing if it is malformed."""
    (length,) = struct.unpack("<Q", content[:8])
    try:
        found = json.loads(content[8 : 8 + length])
        return {name: value for name, value in found.items() if name != "__metadata__"}
    except (ValueError, AttributeError, OverflowError):
        return None


def _changed(change: Callable[[dict[str, Tensor], str], object]) -> Callable[..., bool]:
    def damage(path: Path, drawn: random.Random) -> bool:
        tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
        change(tensors, drawn.choice(sorted(tensors)))
        save_file(tensors, path, metadata={"format": "pt"})
        return True

    damage.__name__ = getattr(change, "__name__", "changed").strip("_")
    return damage


def _not_finite(tensors: dict[str, Tensor], name: str) -> None:
    tensors[name].view(-1)[-1] = float("nan") if len(name) % 2 else float("inf")


def _missing(tensors: dict[str, Tensor], name: str) -> None:
    del tensors[name]


def _shape(tensors: dict[str, Tensor], name: str) -> None:
    tensors[name] = torch.cat([tensors[name], tensors[name]])


def _integers(tensors: dict[str, Tensor], name: str) -> None:
    tensors[name] = tensors[name].to(torch.int32)


def _booleans(tensors: dict[str, Tensor], name: str) -> None:
    tensors[name] = tensors[name] > 0


DAMAGES: tuple[Callable[[Path, random.Random], bool], ...] = (
    truncated,
    header,
    *map(_changed, (_not_finite, _missing, _shape, _integers, _booleans)),
)


def mutate(path: Path, drawn: random.Random) -> str:
    """Change a JSON file in one place, or break it; returns what was done."""
    raw = path.read_bytes()
    broken: dict[str, bytes] = {
        "empty": b"",
        "truncated": raw[: drawn.randrange(len(raw))],
        "brackets": b"[" * DEEP,
        "nested": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
        "a list": b"[1, 2]",
        "null": b"null",
        "latin-1": raw.replace(b'"', b'"\xe9', 1),
        "UTF-16": raw.decode().encode("utf-16"),
        "duplicate keys": raw.rstrip()[:-1] + b', "spec": 1, "steps": "x"}',
    }
    if drawn.random() < 0.3:
        name = drawn.choice(sorted(broken))
        path.write_bytes(broken[name])
        return name
    value = json.loads(raw)
    holders = list(_holders(value))
    holder, key = drawn.choice(holders)
    others: list[Any] = [
        None,
        [],
        {},
        "x",
        "",
        -1,
        0,
        1e308,
        True,
        [[[]]],
        {"a": {"b": []}},
        "../../x",
        HUGE,
    ]
    action = drawn.choice(["remove", "replace", "replace", "replace", "add"])
    if action == "remove":
        del holder[key]
    elif action == "replace":
        holder[key] = drawn.choice(others)
    elif isinstance(holder, dict):
        holder["added"] = drawn.choice(others)
    else:
        holder.append(drawn.choice(others))
    path.write_text(_dumped(value))
    return f"{action} {key!r}"


def _dumped(value: Any) -> str:
    return json.dumps(value, default=str, indent=2).replace(f'"{HUGE}"', str(HUGE))


def _holders(value: Any) -> list[tuple[Any, Any]]:
    """Every place in a JSON value, as a container and a key."""
    found: list[tuple[Any, Any]] = []
    keys = value.keys() if isinstance(value, dict) else range(len(value))
    for key in keys:
        found.append((value, key))
        if isinstance(value[key], dict | list):
            found += _holders(value[key])
    return found
