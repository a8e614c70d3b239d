"""What `tendril.train` does: train by a config, or on a store with some settings."""

import dataclasses
import difflib
import os
from typing import Any

from tendril.data.cards import home_of
from tendril.data.errors import ConfigError
from tendril.data.home import STORE
from tendril.data.store.reader import Store, open_store

from .config import TrainConfig
from .loop import TrainResult
from .loop import train as run
from .recipes import RECIPES


def train(
    what: Any = "latest", store: Store | None = None, /, *, recipe: str = "topk", **settings: Any
) -> TrainResult:
    """Train a dictionary, or continue a stopped run, or return a finished one.

        tendril.train(tendril.TrainConfig(site="mixed3b", latents=1920, k=16))
        tendril.train(store, site="mixed3b", latents=1920, k=16)

    what: a TrainConfig, or a store: what `tendril.harvest` or `tendril.open_store` returns, a path
        or a name.
    recipe: where settings begin, as in `tendril train RECIPE`: topk, batch_topk, crosscoder ...
    settings: fields of TrainConfig: site, latents, k, steps, device ... The run lies in the home of
        the store unless `home` says otherwise.

    Raises subclasses of TendrilError.
    """
    if isinstance(what, TrainConfig):
        return run(with_settings(what, settings), store)
    if recipe.replace("-", "_") not in RECIPES:
        raise ConfigError(f"recipe must be one of {', '.join(RECIPES)}; got {recipe!r}.")
    opened = store_named(what, str(settings.get("home", "")))
    found = {"store": opened.location, "home": home_of(opened.location, STORE.folder)}
    return run(with_settings(RECIPES[recipe.replace("-", "_")](), found | settings), opened)


def store_named(what: Any, home: str) -> Store:
    """A store from what stands for one: itself, its path or name, or a harvest."""
    if isinstance(what, Store):
        return what
    place = getattr(what, "store", what)
    if not isinstance(place, str | os.PathLike):
        raise ConfigError(
            "the first argument must be a TrainConfig or a store: what harvest or open_store "
            f"returns, a path or a name; got a {type(what).__name__}."
        )
    return open_store(place, home=home or None)  # type: ignore[arg-type]


def with_settings(config: TrainConfig, settings: dict[str, Any]) -> TrainConfig:
    """A config with some fields replaced. Raises ConfigError for names that it does not have."""
    names = [field.name for field in dataclasses.fields(config)]
    for name in settings:
        if name not in names:
            near = difflib.get_close_matches(name, (*names, "recipe"), n=1)
            hint = f"Did you mean {near[0]}?" if near else "`tendril train topk --help` lists them."
            raise ConfigError(f"{name} must be a setting of TrainConfig. {hint}")
    return dataclasses.replace(config, **settings)
