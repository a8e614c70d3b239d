"""Configs in files: `--config FILE.yaml` and `--save-config FILE.yaml` of every command.

A file holds fields by their names in the config's dataclass, those of nested configs beside the
others, as flags are. It is read by YAML's safe loader and checked against the fields' types.
"""

import difflib
import re
from collections.abc import Collection, Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml  # type: ignore[import-untyped]

from .errors import ConfigError
from .store.atomic import write_whole

C = TypeVar("C")
ONCE = {"dry_run", "overwrite", "rank"}  # fields about one command, which are not saved
LARGEST_FILE = 2**20  # bytes
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")  # YAML 1.1 takes 1e-3 for a text
LIST = "tag:yaml.org,2002:seq"
WORDS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}


class _Dumper(yaml.SafeDumper):  # type: ignore[misc]
    """Writes a field a line, and lists in brackets."""


_Dumper.add_representer(
    tuple, lambda dumper, value: dumper.represent_sequence(LIST, value, flow_style=True)
)


def from_yaml(default: C, path: str | Path, only: Collection[str] | None = None) -> C:
    """`default`, a dataclass, with the fields that a file gives; with `only`, of these names.

    Raises ConfigError for a file that is missing or malformed, for a field that does not exist,
    with the names that are near, and for a value of another type.
    """
    types = field_types(default)
    known = [name for name in types if only is None or name in only]
    values: dict[str, Any] = {}
    for name, value in read_mapping(Path(path)).items():
        if name not in known:
            raise _unknown(name, path, known, elsewhere=name in types)
        try:
            values[name] = fitted(value, types[name])
        except ValueError:
            raise ConfigError(
                f"{name} in {path} must be {in_words(types[name])}; got {shown(value)}."
                f"{remedy(value, types[name])}"
            ) from None
    changed: C = _with(default, values)
    return changed


def _unknown(
    name: object, path: str | Path, known: Sequence[str], *, elsewhere: bool
) -> ConfigError:
    """The error for a field that a command does not have; `elsewhere`, another recipe has it."""
    close = difflib.get_close_matches(str(name), known, n=3)
    hint = f" (near it: {', '.join(close)})" if close else ""
    what = "this recipe does not use it" if elsewhere else "there is none of that name"
    return ConfigError(
        f"{name!r} in {path} must be a field of this command; {what}{hint}. Leave it out or "
        "correct it: `--help` lists the flags, and a file has underscores where flags have hyphens."
    )


def to_yaml(config: Any, only: Collection[str] | None = None, command: Sequence[str] = ()) -> str:
    """The fields of a config as a file that `from_yaml` reads. `command` is named in a comment."""
    values = {
        name: value
        for name, value in _flat(config).items()
        if name not in ONCE and (only is None or name in only)
    }
    try:
        text: str = yaml.dump(
            values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10_000
        )
    except yaml.YAMLError as error:
        raise ConfigError(
            f"--save-config must be used with fields that YAML can hold; {error}. Leave it out."
        ) from error
    comment = f"# {' '.join([*command, '--config'])} FILE.yaml\n" if command else ""
    return comment + text


def save(path: str, text: str) -> None:
    """Write a config; a file that is there is replaced."""
    write_whole(Path(path), text.encode())


def read_mapping(path: Path) -> dict[Any, Any]:
    """The fields in a YAML file. Raises ConfigError."""
    if not path.is_file():
        what = "it is no regular file" if path.exists() else "there is no such file"
        raise ConfigError(f"--config must be a YAML file; got {path}: {what}. Check the path.")
    if path.stat().st_size > LARGEST_FILE:
        raise ConfigError(
            f"--config must be a YAML file of at most {LARGEST_FILE:,} bytes; {path} has "
            f"{path.stat().st_size:,}. Check the path."
        )
    try:
        text = path.read_bytes().decode()
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        found = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark else ""
        cause = getattr(error, "problem", None) or str(error).partition("\n")[0]
        raise ConfigError(
            f"--config must be a YAML file; {path} is not ({where}{cause}). Correct it."
        ) from error
    if found is None:
        return {}
    if not isinstance(node, yaml.MappingNode) or not isinstance(found, dict):
        raise ConfigError(
            f"{path} must hold lines of the form `field: value`; got {shown(found)}. Correct it."
        )
    names = [key.value for key, _ in node.value]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{path} must give each field once; {name!r} stands there twice.")
    return found


def field_types(config: Any) -> dict[str, Any]:
    """Field -> type, of a config and of those nested in it."""
    hints, found = get_type_hints(type(config)), dict[str, Any]()
    for field in fields(config):
        value = getattr(config, field.name)
        found |= field_types(value) if is_dataclass(value) else {field.name: hints[field.name]}
    return found


def _flat(config: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for field in fields(config):
        value = getattr(config, field.name)
        found |= _flat(value) if is_dataclass(value) else {field.name: value}
    return found


def _with(config: Any, values: dict[str, Any]) -> Any:
    changed = {}
    for field in fields(config):
        value = getattr(config, field.name)
        if is_dataclass(value):
            changed[field.name] = _with(value, values)
        elif field.name in values:
            changed[field.name] = values[field.name]
    return replace(config, **changed)


def fitted(value: Any, kind: Any) -> Any:
    """A value of YAML as a field of this type holds it. Raises ValueError if it does not fit."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        for one in inner:
            try:
                return fitted(value, one)
            except ValueError:
                continue
        raise ValueError(value)
    if origin is Literal:
        fits = any(value == one and type(value) is type(one) for one in inner)
    elif origin is tuple:
        if not isinstance(value, list):
            raise ValueError(value)
        return tuple(fitted(one, inner[0]) for one in value)
    elif kind is float and isinstance(value, int | str) and not isinstance(value, bool):
        if isinstance(value, str) and not NUMBER.fullmatch(value):
            raise ValueError(value)
        return float(value)
    else:
        fits = kind in (*WORDS, NoneType) and type(value) is kind
    if not fits:
        raise ValueError(value)
    return value


def in_words(kind: Any) -> str:
    """A type as a message says it, e.g. `a whole number or null`."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return " or ".join(map(in_words, inner))
    if origin is Literal:
        return f"{'one of ' if len(inner) > 1 else ''}{', '.join(map(str, inner))}"
    if origin is tuple:
        return f"a list, each of it {in_words(inner[0])}"
    return {**WORDS, NoneType: "null"}.get(kind, "left out (this field takes flags only)")


def shown(value: object) -> str:
    """A value as a message quotes it."""
    text = "nothing" if value is None else repr(value)
    return f"{text[:60]}..." if len(text) > 60 else text


def remedy(value: object, kind: Any) -> str:
    """What to do about a value of another type, where that is clear."""
    if get_origin(kind) is tuple and not isinstance(value, list | dict | None):
        return f" Write [{value}]."
    if kind is str and value is not None and not isinstance(value, list | dict):
        return " Put it in quotes."
    return ""
