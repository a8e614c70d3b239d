"""Complete configs, one a recipe: `python -m study RECIPE --field value`."""

from collections.abc import Callable

from .config import CurvesConfig, SpliceConfig
from .symmetry_config import SymmetryConfig


def curves() -> CurvesConfig:
    """Curve detectors among the units of a site and the latents of a run trained on it.

    Draws lines and edges of 72 orientations and six radii, and makes a page: tuning curves,
    coverage of the circle, dataset examples. Alone it takes the latest run; `--run ""
    --subject inceptionv1 --weights FILE --site mixed3b` studies units without a dictionary.
    For InceptionV1's mixed3b about a minute on one CPU core, and a page of a few megabytes.
    """
    return CurvesConfig()


def splice() -> SpliceConfig:
    """What the subject still knows when a site is replaced by its reconstruction.

    Accuracy (first, first five) and cross-entropy with the true site, with each run's
    reconstruction, with zeros and with the mean, and the share recovered:
    (ablated - spliced) / (ablated - clean). 800 photographs through InceptionV1 take one to
    three minutes on two CPU cores.
    """
    return SpliceConfig()


def symmetry() -> SymmetryConfig:
    """What fixes the latents of a group crosscoder, and which of them are copies.

    Reads each latent's transform blocks: stabiliser, orientation, families over the group, held
    against raw anchors, blocks in a random order, and runs trained as `--controls`; shows the
    subject curves, lines, edges, corners and line ends; makes a page. A thousand latents of
    D16 take about a minute on one CPU core, the dataset examples another.
    """
    return SymmetryConfig()


Recipe = Callable[[], CurvesConfig] | Callable[[], SpliceConfig] | Callable[[], SymmetryConfig]
RECIPES: dict[str, Recipe] = {
    "curves": curves,
    "splice": splice,
    "symmetry": symmetry,
}
