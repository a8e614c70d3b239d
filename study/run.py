"""Run a study by its name or its config: what `tendril.study` does."""

import dataclasses
import sys
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any

from tendril.data.errors import ConfigError

from .core.config import StudyConfig
from .core.study import Study, StudyResult, run_study
from .registry import STUDIES


def study(what: str | StudyConfig, **fields: Any) -> StudyResult:
    """Run a study, or return the report that the same inputs gave before.

    `what` is a study's name, with fields of its config as keywords, or a config:
    `study("curves", run="demo", orientation_step=15.0)`. Raises ConfigError for names that are
    not known, and children of TendrilError for all that the config can cause.
    """
    if isinstance(what, StudyConfig):
        name = next((n for n, e in STUDIES.items() if e.config is type(what)), "")
        if not name:
            raise ConfigError(f"{type(what).__name__} must be the config of a study; it is not.")
        return run_study(STUDIES[name].load(), dataclasses.replace(what, **fields))
    if what not in STUDIES:
        raise unknown_study(what)
    entry = STUDIES[what]
    return run_study(entry.load(), with_fields(entry.config(), fields))


def unknown_study(name: str) -> ConfigError:
    """The error for a study that is not there."""
    near = get_close_matches(name, STUDIES, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    return ConfigError(f"the study must be one of {', '.join(STUDIES)}; got {name!r}.{hint}")


def with_fields(config: Any, fields: dict[str, Any]) -> Any:
    """A config with some fields replaced, those of nested configs included."""
    own = {f.name for f in dataclasses.fields(config)}
    nested = {n: getattr(config, n) for n in own if dataclasses.is_dataclass(getattr(config, n))}
    changed = {name: value for name, value in fields.items() if name in own}
    rest = {name: value for name, value in fields.items() if name not in own}
    for name, inner in nested.items():
        inside = {n: rest.pop(n) for n in list(rest) if n in all_fields(inner)}
        if inside:
            changed[name] = with_fields(inner, inside)
    if rest:
        known = sorted(all_fields(config))
        raise ConfigError(
            f"{type(config).__name__} must be given fields that it has; got {', '.join(rest)}. "
            f"It has {', '.join(known)}."
        )
    return dataclasses.replace(config, **changed)


def all_fields(config: Any) -> set[str]:
    """Names of the fields of a config and of the configs nested in it."""
    found: set[str] = set()
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        found |= all_fields(value) if dataclasses.is_dataclass(value) else {field.name}
    return found


def load_study(spec: str) -> Study[Any, Any, Any]:
    """A study from outside: FOLDER/FILE.py:CLASS, where FOLDER may be a package of its own.

    Raises ConfigError where there is no such file or class.
    """
    file, _, name = spec.rpartition(":")
    path = Path(file)
    if not path.is_file():
        raise ConfigError(f"a study must be a name or FILE.py:CLASS; there is no file {file}.")
    package = path.parent if (path.parent / "__init__.py").is_file() else None
    root = (package.parent if package else path.parent).resolve()
    sys.path.insert(0, str(root))
    try:
        module = import_module(f"{package.name}.{path.stem}" if package else path.stem)
    except ImportError as error:
        raise ConfigError(f"{file} cannot be imported: {error}.") from error
    finally:
        sys.path.remove(str(root))
    found = getattr(module, name, None)
    if not (isinstance(found, type) and issubclass(found, Study)):
        raise ConfigError(f"{file} must define a class {name} that derives from Study.")
    return found(called=spec)
