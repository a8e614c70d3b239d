"""The studies by name. Imports no torch: `--help` must answer at once.

A new study is a folder in study/ and a line here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, final

from .core.config import StudyConfig


@final
@dataclass(frozen=True)
class Entry:
    """Where a study's config and its class are, each as "module:Class" in this package.

    They are imported when they are used, so that a study loads nothing of the others.
    """

    config_target: str
    target: str

    @property
    def config(self) -> type[StudyConfig]:
        """The class of the study's config."""
        found: type[StudyConfig] = _load(self.config_target)
        return found

    def load(self) -> Any:
        """The study, ready for `run_study`."""
        return _load(self.target)()


def _load(target: str) -> Any:
    module, _, name = target.partition(":")
    return getattr(import_module(f"{__package__}.{module}"), name)


STUDIES: Mapping[str, Entry] = {
    "curves": Entry("curves.config:CurvesConfig", "curves.study:CurvesStudy"),
    "missing": Entry(
        "missing_curves.config:MissingConfig", "missing_curves.study:MissingCurvesStudy"
    ),
    "evidence": Entry("evidence.config:EvidenceConfig", "evidence.study:EvidenceStudy"),
    "joint": Entry("joint_tuning.config:JointConfig", "joint_tuning.study:JointStudy"),
    "visualise": Entry("visualise.config:VisualiseConfig", "visualise.study:VisualiseStudy"),
    "parts": Entry("crosscoder_parts.config:PartsConfig", "crosscoder_parts.study:PartsStudy"),
    "symmetry": Entry("symmetry.config:SymmetryConfig", "symmetry.study:SymmetryStudy"),
    "splice": Entry("splice.config:SpliceConfig", "splice.study:SpliceStudy"),
    "ablate": Entry("ablate.config:AblateConfig", "ablate.study:AblateStudy"),
    "steer": Entry("steer.config:SteerConfig", "steer.study:SteerStudy"),
    "patching": Entry("patching.config:PatchingConfig", "patching.study:PatchingStudy"),
    "features": Entry("features.config:FeaturesConfig", "features.study:FeaturesStudy"),
    "interpret": Entry("interpret.config:InterpretConfig", "interpret.study:InterpretStudy"),
    "compare": Entry("compare.config:CompareConfig", "compare.study:CompareStudy"),
}
