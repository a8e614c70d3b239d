"""Train: store -> run. The package is callable: `tendril.train(config)`."""

from tendril.data.callable_package import make_callable

make_callable(__name__, ".loop", "train")
