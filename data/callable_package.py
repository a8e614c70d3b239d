"""Make a package callable: `tendril.harvest(config)` although `tendril.harvest` is a package.

The public functions `harvest`, `train` and `study` have the names of the packages that hold
them. Importing a submodule binds its package as an attribute of `tendril`, so a function of that
name would be replaced by the package, depending on what was imported before. A package that can
be called is both at once, whatever the order of imports.
"""

import inspect
import sys
from importlib import import_module
from types import ModuleType


def make_callable(package: str, module: str, function: str) -> None:
    """Make calls of `package` run `function` of `module`.

    To be called in the package's `__init__` with its `__name__`. `module` is a full name, or
    relative to the package (".run"). It is imported at the first call, so that importing the
    package stays quick.
    """

    class CallablePackage(ModuleType):
        @property
        def __signature__(self) -> inspect.Signature:
            """What a notebook completes and shows."""
            return inspect.signature(getattr(import_module(module, package), function))

        def __call__(self, *args: object, **options: object) -> object:
            return getattr(import_module(module, package), function)(*args, **options)

    # Python allows a module's class to be replaced by a subclass of ModuleType.
    sys.modules[package].__class__ = CallablePackage
