"""Train: store -> run. The package is callable: `tendril.train(config)`, or
`tendril.train(store, k=16)`."""

from tendril.data.callable_package import make_callable

make_callable(__name__, ".call", "train")
