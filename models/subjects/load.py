"""Load a subject by its name on the command line."""

from pathlib import Path

from tendril.data.errors import ConfigError, SubjectError
from tendril.data.home import NETWORK

from ..weights import LUCENT, draw_weights, fetch, load_weights, read_weights
from . import inception
from .inception import InceptionV1
from .module import subject_from_file
from .subject import MEMORY, REMEMBERED, Subject, weights_digest

# Digest of the weights of another training run of 2015 (github.com/soumith/inception.torch), which
# needs another response normalisation than Lucid's.
SIBLING = "29f8beeebb89a2f2b4e57ff9299223d0c970a92d0cf02572a454467fc8544c7d"
RANDOM = "random"
PLANTED = ("planted", "planted-hard", "planted-test")
LIBRARIES = ("hf", "timm", "torchvision")  # before the colon of a subject's name


def load_subject(subject: str, *, weights: str = "", normalisation: str = "auto") -> Subject:
    """Load `inceptionv1`, `handmade`, one of PLANTED, `hf:NAME`, `timm:NAME`, `torchvision:NAME`,
    `FILE.py:FUNCTION`, or the folder of a run of `tendril train classifier` (`network_place` finds
    one by its name).

    For timm and torchvision, `weights` is a file or `random[:SEED]`; without it the library's own
    weights are fetched. For inceptionv1, `weights` is a file, `lucent` for the Lucid checkpoint, or
    `random[:SEED]` for an untrained network; `normalisation` is `lucent`, `sibling`, or `auto`,
    which decides by the digest of the weights. Raises ConfigError for flags that the subject does
    not take, WeightsNotFoundError and WeightsError for weights, SubjectError for a file, a name or
    a folder.
    """
    if subject in REMEMBERED:
        return REMEMBERED[subject]()
    if subject.startswith(MEMORY):
        raise SubjectError(
            f"{subject} names a network that this Python program does not hold. Pass it again: "
            "module=... in Python, or --subject FILE.py:FUNCTION and --inputs FOLDER."
        )
    if subject == "inceptionv1":
        return inceptionv1(weights, normalisation)
    library, colon, name = subject.partition(":")
    has_weights = bool(colon) and library in ("timm", "torchvision")
    if weights and not has_weights:
        raise ConfigError(
            "--weights is for --subject inceptionv1, timm:NAME and torchvision:NAME; "
            f"{subject} has its own weights. Leave it out."
        )
    if normalisation != "auto":
        raise ConfigError(
            f"--normalisation is for --subject inceptionv1; got {normalisation!r} with {subject}. "
            "Leave it out."
        )
    if colon and library in LIBRARIES:
        from .libraries import hf_subject, timm_subject, torchvision_subject

        if library == "hf":
            return hf_subject(name)
        return (timm_subject if library == "timm" else torchvision_subject)(name, weights)
    if subject == "handmade":
        from .synthetic.handmade import handmade_subject

        return handmade_subject()
    if subject in PLANTED:
        from .synthetic.planted_networks import subject_named

        return subject_named(subject)
    if (Path(subject) / NETWORK.marker).is_file():
        from .classifiers import classifier_subject

        return classifier_subject(Path(subject))
    return subject_from_file(subject)


def inceptionv1(weights: str, normalisation: str = "auto") -> Subject:
    """InceptionV1 with the weights of a file, `lucent`, or `random[:SEED]`.

    Raises ConfigError, WeightsNotFoundError and WeightsError.
    """
    if not weights:
        raise ConfigError(
            "--subject inceptionv1 needs weights. Pass --weights lucent to fetch the Lucid "
            "checkpoint, --weights FILE (.pth or .safetensors), or --weights random for an "
            "untrained control."
        )
    if normalisation not in ("auto", *inception.NORMALISATIONS):
        raise ConfigError(
            f"--normalisation must be auto, lucent or sibling; got {normalisation!r}."
        )
    network = InceptionV1()
    kind, _, seed = weights.partition(":")
    if kind == RANDOM:
        draw_weights(network, _seed(seed))
    else:
        path = fetch(LUCENT) if weights == "lucent" else Path(weights)
        load_weights(network, read_weights(path), str(path))
    digest = weights_digest(network)
    if normalisation == "auto":
        normalisation = "sibling" if digest == SIBLING else "lucent"
    network.normalisation = inception.NORMALISATIONS[normalisation]
    return Subject(
        name="inceptionv1",
        module=network.eval().requires_grad_(False),
        preprocess=inception.preprocess,
        input_size=inception.INPUT_SIZE,
        sites=inception.inception_sites(),
        identity={"name": "inceptionv1", "weights": digest, "normalisation": normalisation}
        | ({"drawn": f"{RANDOM}:{_seed(seed)}"} if kind == RANDOM else {}),
        logits=inception.LOGITS,
        unpadded=inception.unpadded(network),
    )


def _seed(text: str) -> int:
    """The SEED of `random:SEED`; 0 for `random` alone."""
    if text and not text.isdigit():
        raise ConfigError(
            f"--weights random:SEED needs a whole number of at least 0; got {text!r}."
        )
    return int(text or 0)
