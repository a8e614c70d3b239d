"""The subjects whose features were planted, by name."""

from ..subject import Subject
from .planted import planted_features, planted_subject
from .planted_features import PlantedFeatures
from .planted_rings import PLANS, ring_features, ring_subject

NAMES = ("planted", *PLANS)


def features_of(name: str) -> PlantedFeatures:
    """What was planted in a subject, one of NAMES."""
    return planted_features() if name == "planted" else ring_features(name)


def subject_named(name: str) -> Subject:
    """A subject, one of NAMES."""
    return planted_subject() if name == "planted" else ring_subject(name)
