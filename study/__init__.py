"""Study: run -> report. The package is callable: `tendril.study("curves", run="demo")`."""

from tendril.data.callable_package import make_callable

make_callable(__name__, ".run", "study")
