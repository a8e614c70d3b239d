"""Tendril: harvest activations once, train sparse dictionaries on them, study their features.

    import tendril

    store = tendril.harvest(tendril.HarvestConfig(inputs="photos", weights="lucent"))
    run = tendril.train(tendril.TrainConfig(site="mixed3b", latents=1920, k=16))
    report = tendril.study("curves", run=run.run.name)
    codes = tendril.load_dictionary("latest").encode(activations)

or with what a program holds:

    store = tendril.harvest(module=network, inputs=images, sites=["layer2"])
    run = tendril.train(store, k=16)
    report = tendril.study.features(run)

`harvest`, `train` and `study` are packages that can be called. Names are imported when they are
first used, so that `import tendril` imports no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .data.errors import TendrilError as TendrilError
    from .data.store.reader import open_store as open_store
    from .harvest.call import harvest as harvest
    from .harvest.config import HarvestConfig as HarvestConfig
    from .harvest.config import LanguageConfig as LanguageConfig
    from .models.dictionaries.checkpoint import load_dictionary as load_dictionary
    from .models.dictionaries.run import load_run as load_run
    from .models.sites.edit import edit as edit
    from .models.subjects.module import subject_from_module as subject_from_module
    from .study.call import study as study
    from .train.call import train as train
    from .train.config import TrainConfig as TrainConfig
    from .train.sweep.config import SweepConfig as SweepConfig
    from .train.sweep.sweep import sweep as sweep

__version__ = "0.2.0"

PACKAGES = ("harvest", "train", "study")
MODULES = {
    "HarvestConfig": "harvest.config",
    "LanguageConfig": "harvest.config",
    "SweepConfig": "train.sweep.config",
    "TendrilError": "data.errors",
    "TrainConfig": "train.config",
    "edit": "models.sites.edit",
    "load_dictionary": "models.dictionaries.checkpoint",
    "load_run": "models.dictionaries.run",
    "open_store": "data.store.reader",
    "subject_from_module": "models.subjects.module",
    "sweep": "train.sweep.sweep",
}
__all__ = [
    "HarvestConfig",
    "LanguageConfig",
    "SweepConfig",
    "TendrilError",
    "TrainConfig",
    "edit",
    "harvest",
    "load_dictionary",
    "load_run",
    "open_store",
    "study",
    "subject_from_module",
    "sweep",
    "train",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name in PACKAGES:
        return import_module(f"{__name__}.{name}")
    if name in MODULES:
        value = getattr(import_module(f"{__name__}.{MODULES[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
