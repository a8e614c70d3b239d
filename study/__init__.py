"""Study: run -> report. The package is callable, and so is each study in it:
`tendril.study("curves", run="demo")`, `tendril.study.features(run)`."""

import sys
from importlib import import_module
from inspect import Parameter, Signature
from types import ModuleType
from typing import Any

SHARED = ("core", "measures", "page")  # subpackages that are no studies


class Studies(ModuleType):
    """This package, as a function that runs a study by its name or its config."""

    def __call__(self, *args: Any, **fields: Any) -> Any:
        return import_module(f"{self.__name__}.call").study(*args, **fields)

    def __setattr__(self, name: str, value: Any) -> None:
        """Python binds a subpackage here once it is imported, whoever imports it: from then on a
        study's package can be called."""
        if isinstance(value, ModuleType) and hasattr(value, "__path__") and name not in SHARED:
            value.__class__ = OneStudy
        super().__setattr__(name, value)


class OneStudy(ModuleType):
    """The package of a study, as a function: `tendril.study.features(run, ...)`."""

    @property
    def __signature__(self) -> Signature:
        """What a notebook completes and shows: the fields of the study's config."""
        from .registry import STUDIES

        usual = vars(STUDIES[_name_of(self.__name__)].config())
        first = Parameter("run", Parameter.POSITIONAL_OR_KEYWORD, default=usual.pop("run", None))
        rest = [Parameter(n, Parameter.KEYWORD_ONLY, default=v) for n, v in usual.items()]
        return Signature([first, *rest])

    def __call__(self, run: Any = None, **fields: Any) -> Any:
        name = _name_of(self.__name__)
        fields |= {} if run is None else {"run": run}
        return import_module(f"{__name__}.call").study(name, **fields)


def _name_of(package: str) -> str:
    """The study whose package this is."""
    from .registry import STUDIES

    folder = f"{package.rpartition('.')[2]}."
    return next(n for n, e in STUDIES.items() if e.config_target.startswith(folder))


def __getattr__(name: str) -> Any:
    """The package of a study, by the study's name."""
    from .registry import STUDIES

    if name not in STUDIES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module(f".{STUDIES[name].config_target.partition('.')[0]}", __name__)


def __dir__() -> list[str]:
    from .registry import STUDIES

    return sorted({*(name for name in globals() if name.startswith("__")), *STUDIES})


sys.modules[__name__].__class__ = Studies
