"""Harvest: subject + inputs -> store. The package is callable: `tendril.harvest(config)`, or
`tendril.harvest(module=network, inputs=images, sites=["layer2"])`."""

from tendril.data.callable_package import make_callable

make_callable(__name__, ".call", "harvest")
