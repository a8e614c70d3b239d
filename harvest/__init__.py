"""Harvest: subject + inputs -> store. The package is callable: `tendril.harvest(config)`."""

from tendril.data.callable_package import make_callable

make_callable(__name__, ".run", "harvest")
