"""What `tendril.study` does: as `run.study`, also with what a Python program holds.

tendril.study("features", run=run)
tendril.study.features(run, module=network, inputs=images)
"""

import os
from collections.abc import Mapping
from typing import Any

from tendril.data.cards import home_of
from tendril.data.errors import ConfigError
from tendril.data.home import RUN, find_run
from tendril.data.inputs import memory
from tendril.data.inputs.items import items_of
from tendril.data.store.reader import Store
from tendril.models.subjects.memory import remember

from .core.config import StudyConfig
from .core.stores import store_of_run
from .core.study import StudyResult
from .registry import STUDIES
from .run import study as run_by_name
from .run import unknown_study

PASSED = ("module", "preprocess", "layout", "prefix_tokens", "patch_size")


def study(what: str | StudyConfig, /, **fields: Any) -> StudyResult:
    """Run a study, or return the report that the same inputs gave before.

    what: a study's name, or a config.
    run, store, inputs: names and paths, or objects: what `tendril.train`, `tendril.load_run`,
        `tendril.harvest` and `tendril.open_store` return; images as `tendril.harvest` takes them.
    module: a network in place of `subject`, with `preprocess` and the like as in `tendril.harvest`.
        A store of a network or of images that a program held needs them in another process.
    fields: fields of the study's config. The report lies in the home of a run that is an object,
        unless `home` says otherwise.

    Raises subclasses of TendrilError.
    """
    named = {name: _as_named(value) for name, value in fields.items() if name not in PASSED}
    if not isinstance(fields.get("inputs", ""), os.PathLike):  # a data set may have a `folder`
        named |= {"inputs": fields["inputs"]} if "inputs" in fields else {}
    passed = {name: fields[name] for name in PASSED if name in fields}
    if "home" not in named and not isinstance(fields.get("run", ""), str):
        named["home"] = home_of(_first(named["run"]), RUN.folder)
    named |= _remembered(what, passed, named)
    if isinstance(what, str):
        named = _in_number(what, named)
    return run_by_name(what, **named)


def _as_named(value: Any) -> Any:
    """A run, a store or a harvest by its path; several as a tuple. Anything else as it is."""
    if isinstance(value, Store):
        return value.location
    for name in ("run", "folder", "store"):  # a trained run, a loaded run, a harvest
        place = getattr(value, name, None)
        if isinstance(place, str | os.PathLike) and not isinstance(value, str | os.PathLike):
            return os.fspath(place)
    if isinstance(value, list | tuple) and all(isinstance(_as_named(v), str) for v in value):
        return tuple(_as_named(v) for v in value)
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _first(run: Any) -> str:
    """The path of the first run."""
    one = run[0] if isinstance(run, tuple) and run else run
    return one if isinstance(one, str) else ""


def _in_number(what: str, named: dict[str, Any]) -> dict[str, Any]:
    """The fields, of which those that take several runs or stores have a tuple."""
    if what not in STUDIES:
        raise unknown_study(what)
    default = STUDIES[what].config()
    many = {n for n in named if isinstance(getattr(default, n, None), tuple)}
    return {n: (v,) if n in many and isinstance(v, str) else v for n, v in named.items()}


def _remembered(
    what: str | StudyConfig, passed: Mapping[str, Any], named: Mapping[str, Any]
) -> dict[str, Any]:
    """Names for a network and for inputs that are objects."""
    inputs = named.get("inputs", "")
    objects = not isinstance(inputs, str)
    if passed and "module" not in passed:
        raise ConfigError(f"{', '.join(passed)} must come with a module; got none.")
    if not passed and not objects:
        return {}
    settings = vars(what) if isinstance(what, StudyConfig) else {}
    stored = _stored({**settings, **named})
    size = int(stored.get("size", 224))
    found, first = {}, None
    if objects:
        items = items_of(inputs)
        first = memory.first_item(items)
        count = int(stored.get("count", items.count))
        limit = count if count < items.count else None
        name = str(stored.get("name", ""))
        found["inputs"] = memory.remember(items, size, limit=limit, name=name)
    if passed:
        channels = 1 if first and first.single else 3
        options: dict[str, Any] = dict(passed)
        module = options.pop("module")
        own: dict[str, Any] = {} if hasattr(module, "input_size") else {"input_size": size}
        found["subject"] = remember(module, channels=channels, **own, **options)[0]
    return found


def _stored(named: Mapping[str, Any]) -> Mapping[str, Any]:
    """The inputs of the store of the run."""
    run, home = named.get("run") or "latest", str(named.get("home", ""))
    folder = find_run(run[0] if isinstance(run, tuple) else run, home)
    inputs: Mapping[str, Any] = store_of_run(folder, home, str(named.get("store", ""))).spec[
        "inputs"
    ]
    return inputs
