"""The studies by name. Imports no torch: `--help` must answer at once.

A new study is a folder in study/ and a line here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, final

from tendril.data.cli import need

from .core.config import StudyConfig


@final
@dataclass(frozen=True)
class Entry:
    """Where a study's config and its class are, each as "module:Class" in this package.

    They are imported when they are used, so that a study loads nothing of the others.
    """

    config_target: str
    target: str
    needs: tuple[str, ...] = ()
    """Modules of `data.cli.EXTRAS` that every run of the study imports."""

    @property
    def config(self) -> type[StudyConfig]:
        """The class of the study's config."""
        found: type[StudyConfig] = _load(self.config_target)
        return found

    def load(self) -> Any:
        """The study, ready for `run_study`. Raises MissingPackageError."""
        need(f"the study {self.config_target.partition('.')[0]}", *self.needs)
        return _load(self.target)()


def _load(target: str) -> Any:
    module, _, name = target.partition(":")
    return getattr(import_module(f"{__package__}.{module}"), name)


STUDIES: Mapping[str, Entry] = {
    "curves": Entry("curves.config:CurvesConfig", "curves.study:CurvesStudy"),
    "missing": Entry(
        "missing_curves.config:MissingConfig",
        "missing_curves.study:MissingCurvesStudy",
        ("scipy", "sklearn", "umap"),
    ),
    "evidence": Entry("evidence.config:EvidenceConfig", "evidence.study:EvidenceStudy", ("scipy",)),
    "joint": Entry("joint_tuning.config:JointConfig", "joint_tuning.study:JointStudy", ("scipy",)),
    "visualise": Entry(
        "visualise.config:VisualiseConfig", "visualise.study:VisualiseStudy", ("lucent",)
    ),
    "parts": Entry("crosscoder_parts.config:PartsConfig", "crosscoder_parts.study:PartsStudy"),
    "symmetry": Entry(
        "symmetry.config:SymmetryConfig",
        "symmetry.study:SymmetryStudy",
        ("scipy", "sklearn", "umap"),
    ),
    "splice": Entry("splice.config:SpliceConfig", "splice.study:SpliceStudy"),
    "ood": Entry("ood.config:OodConfig", "ood.study:OodStudy"),
    "robustness": Entry(
        "robustness.config:RobustnessConfig", "robustness.study:RobustnessStudy", ("scipy",)
    ),
    "ablate": Entry("ablate.config:AblateConfig", "ablate.study:AblateStudy", ("transformers",)),
    "steer": Entry("steer.config:SteerConfig", "steer.study:SteerStudy"),
    "patching": Entry(
        "patching.config:PatchingConfig", "patching.study:PatchingStudy", ("transformers",)
    ),
    "causes": Entry("causes.config:CausesConfig", "causes.study:CausesStudy", ("transformers",)),
    "features": Entry("features.config:FeaturesConfig", "features.study:FeaturesStudy"),
    "interpret": Entry(
        "interpret.config:InterpretConfig", "interpret.study:InterpretStudy", ("transformers",)
    ),
    "scaling": Entry("scaling.config:ScalingConfig", "scaling.study:ScalingStudy", ("scipy",)),
    "attack": Entry("attack.config:AttackConfig", "attack.study:AttackStudy"),
    "superposition": Entry(
        "superposition.config:SuperpositionConfig", "superposition.study:SuperpositionStudy"
    ),
    "probe": Entry("probe.config:ProbeConfig", "probe.study:ProbeStudy", ("scipy", "sklearn")),
    "compare": Entry("compare.config:CompareConfig", "compare.study:CompareStudy", ("scipy",)),
    "dense": Entry("dense.config:DenseConfig", "dense.study:DenseStudy", ("scipy",)),
    "match": Entry("match.config:MatchConfig", "match.study:MatchStudy", ("scipy",)),
}
