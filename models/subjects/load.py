"""A subject by its name on the command line."""

from pathlib import Path

from tendril.data.errors import ConfigError

from ..weights import LUCENT, draw_weights, fetch, load_weights, read_weights
from . import inception
from .inception import InceptionV1
from .module import subject_from_file
from .subject import Subject, weights_digest

# The 2015 graph of another training run than Lucid's (github.com/soumith/inception.torch)
# needs a response normalisation of its own; it is known by the digest of its weights.
SIBLING = "29f8beeebb89a2f2b4e57ff9299223d0c970a92d0cf02572a454467fc8544c7d"
RANDOM = "random"


def load_subject(subject: str, *, weights: str = "", normalisation: str = "auto") -> Subject:
    """`inceptionv1`, `handmade`, `planted`, or `FILE.py:FUNCTION`.

    `weights` is a file, `lucent` for the Lucid checkpoint, or `random[:SEED]` for a network that
    has learned nothing; `normalisation` is `lucent`, `sibling`, or `auto`, which goes by the
    digest of the weights. Raises children of TendrilError that say what is wrong.
    """
    if subject == "inceptionv1":
        return inceptionv1(weights, normalisation)
    if weights:
        raise ConfigError(
            f"--weights goes with --subject inceptionv1, and {subject} brings its own weights; "
            "leave it out."
        )
    if normalisation != "auto":
        raise ConfigError(
            f"--normalisation goes with --subject inceptionv1, and {subject} has its own; leave "
            "it out."
        )
    if subject == "handmade":
        from .synthetic.handmade import handmade_subject

        return handmade_subject()
    if subject == "planted":
        from .synthetic.planted import planted_subject

        return planted_subject()
    return subject_from_file(subject)


def inceptionv1(weights: str, normalisation: str = "auto") -> Subject:
    """InceptionV1 with the weights of a file, `lucent`, or `random[:SEED]`."""
    if not weights:
        raise ConfigError(
            "--subject inceptionv1 needs weights: pass --weights lucent to fetch the Lucid "
            "checkpoint, --weights FILE (.pth or .safetensors), or --weights random for a control."
        )
    if normalisation not in ("auto", *inception.NORMALISATIONS):
        raise ConfigError(f"--normalisation is auto, lucent or sibling, and not {normalisation!r}.")
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
    """The SEED of `random:SEED`; 0 of `random` alone."""
    if text and not text.isdigit():
        raise ConfigError(
            f"--weights random takes a seed of at least 0, as random:1, and not {text!r}."
        )
    return int(text or 0)
