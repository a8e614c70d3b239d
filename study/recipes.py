"""Complete configs, one a recipe: `tendril study RECIPE --field value`."""

from collections.abc import Callable

from .compare.config import CompareConfig
from .crosscoder_parts.config import PartsConfig
from .curves.config import CurvesConfig, SpliceConfig
from .features.config import FeaturesConfig
from .interpret.config import InterpretConfig
from .missing_curves.config import JointConfig, MissingConfig, VisualiseConfig
from .patching.config import AblateConfig, PatchingConfig
from .symmetry.config import SymmetryConfig

Config = (
    CurvesConfig
    | SpliceConfig
    | SymmetryConfig
    | MissingConfig
    | JointConfig
    | VisualiseConfig
    | PartsConfig
    | InterpretConfig
    | FeaturesConfig
    | AblateConfig
    | PatchingConfig
    | CompareConfig
)


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
    three minutes on two CPU cores. Of a language model: cross-entropy, perplexity and KL of the
    next token on held-out contexts, by position and class of token, and a page.
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


def missing() -> MissingConfig:
    """Do dictionaries fill the gaps that the curve units leave? Several runs against the units.

    Curve latents of every run on one circle with the units, the widest gaps over seeds beside
    what chance leaves, units of two curves taken apart into latents, and whether the decoder
    rows lie on a circle. Controls are runs of --objective random, and runs on a subject of
    random weights. About a minute a site on two CPU cores, and a page of a megabyte.
    """
    return MissingConfig()


def joint() -> JointConfig:
    """Joint tuning: photographs that excite each curve unit, turned under all of them.

    Orientations and widths from photographs against those from drawn curves. 20 units, 10
    patches each and 360 turns are 72,000 patches: some minutes on two CPU cores; --step 5
    takes a fifth.
    """
    return JointConfig()


def visualise() -> VisualiseConfig:
    """Images that excite units (--units) or latents (--latents) most, made step by step.

    Of a crosscoder of orbits a latent has one image for each element of the group. A few
    seconds an image of mixed3b on two CPU cores.
    """
    return VisualiseConfig()


def parts() -> PartsConfig:
    """Which layers, or which of two networks, each latent of a crosscoder is of.

    The share that each part has of a latent's decoder norms: a histogram, a table and a page.
    Reads the dictionary alone; seconds.
    """
    return PartsConfig()


def interpret() -> InterpretConfig:
    """A sentence about each latent of a language model's dictionary, and what it predicts.

    A model (--endpoint URL --model NAME, or --local MODEL) explains 20 latents from fragments of
    text in which they are active, and is tested on others: which of them excite the latent, and are
    the right tokens marked? Balanced accuracy, 1/2 by chance, beside that of another latent's
    sentence; a page and tables. With the defaults 25 requests a latent of some 200 tokens each:
    --dry-run tells, with --price-in and --price-out in money too. Fragments of 250,000 rows take
    seconds; the rest is up to the model. Answers are kept: a stopped run asks nothing twice.
    """
    return InterpretConfig()


def features() -> FeaturesConfig:
    """Every latent of a dictionary of a language model: the text it is on at, the tokens it writes.

    One pass over the run's store; a page to search and order, of any number of latents, and a
    CSV. 250,000 tokens and 512 latents take seconds on two CPU cores; a million and 4,096 some
    minutes. Memory: 6 kB a latent for its windows of text, and under a gigabyte. The page
    takes about 4 kB a latent.
    """
    return FeaturesConfig()


def ablate() -> AblateConfig:
    """What a language model says otherwise where a latent (--latent) is taken away.

    x' = x - z d on held-out contexts: KL, cross-entropy, and the tokens whose log-probability
    falls and rises most where the latent is on. Seconds for a small model.
    """
    return AblateConfig()


def patching() -> PatchingConfig:
    """How few features must be changed for a language model to answer as to another prompt?

    Pairs of prompts that differ in a name ('Lily saw Tim in the park. Lily said, "Hello,'),
    features of dictionaries against principal components, in a greedy order and by attribution; a
    page with the curves. Half a minute a run for a small model.
    """
    return PatchingConfig()


def compare() -> CompareConfig:
    """Compare runs: which latents they share, how stable they are, which are dense.

    Pairs the latents of each two runs (Hungarian method), counts those that are shared, finds
    dense latents and their antipodal pairs, and makes a page in reports/. Four runs of 768
    latents take seconds; time grows with the cube of the latents.
    """
    return CompareConfig()


RECIPES: dict[str, Callable[[], Config]] = {
    "curves": curves,
    "splice": splice,
    "symmetry": symmetry,
    "missing": missing,
    "joint": joint,
    "visualise": visualise,
    "parts": parts,
    "interpret": interpret,
    "features": features,
    "ablate": ablate,
    "patching": patching,
    "compare": compare,
}

# which function of this package serves a config; imported when it is asked for
STUDIES: dict[type[Config], str] = {
    CurvesConfig: "curves.study:study_curves",
    SpliceConfig: "splice.images:study_splice",
    SymmetryConfig: "symmetry.study:study_symmetry",
    MissingConfig: "missing_curves.study:study_missing",
    JointConfig: "joint_tuning.study:study_joint",
    VisualiseConfig: "visualise.study:study_visualise",
    PartsConfig: "crosscoder_parts.study:study_parts",
    InterpretConfig: "interpret.study:study_interpret",
    FeaturesConfig: "features.study:study_features",
    AblateConfig: "ablate.study:study_ablate",
    PatchingConfig: "patching.study:study_patching",
    CompareConfig: "compare.study:compare_runs",
}
