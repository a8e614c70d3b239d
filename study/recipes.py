"""Complete configs, one a recipe: `python -m study RECIPE --field value`."""

from collections.abc import Callable

from .config import CurvesConfig


def curves() -> CurvesConfig:
    """Curve detectors among the units of a site and the latents of a run trained on it.

    Draws lines and edges of 72 orientations and six radii, and makes a page: tuning curves,
    coverage of the circle, dataset examples. Alone it takes the latest run; `--run ""
    --subject inceptionv1 --weights FILE --site mixed3b` studies units without a dictionary.
    For InceptionV1's mixed3b about a minute on one CPU core, and a page of a few megabytes.
    """
    return CurvesConfig()


RECIPES: dict[str, Callable[[], CurvesConfig]] = {"curves": curves}
