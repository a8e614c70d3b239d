"""The studies by name. Imports no torch: `--help` must answer at once.

A new study is a folder in study/ and a line here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, final

from .ablate.config import AblateConfig
from .compare.config import CompareConfig
from .core.config import StudyConfig
from .crosscoder_parts.config import PartsConfig
from .curves.config import CurvesConfig
from .joint_tuning.config import JointConfig
from .missing_curves.config import MissingConfig
from .patching.config import PatchingConfig
from .splice.config import SpliceConfig
from .symmetry.config import SymmetryConfig
from .visualise.config import VisualiseConfig


@final
@dataclass(frozen=True)
class Entry:
    """A study's config, and where its class is: "module:Class", imported when it runs."""

    config: type[StudyConfig]
    target: str

    def load(self) -> Any:
        """The study, ready for `run_study`."""
        module, _, name = self.target.partition(":")
        return getattr(import_module(module), name)()


def _entry(config: type[StudyConfig], target: str) -> Entry:
    return Entry(config, f"{__package__}.{target}")


STUDIES: Mapping[str, Entry] = {
    "curves": _entry(CurvesConfig, "curves.study:CurvesStudy"),
    "symmetry": _entry(SymmetryConfig, "symmetry.study:SymmetryStudy"),
    "missing": _entry(MissingConfig, "missing_curves.study:MissingCurvesStudy"),
    "joint": _entry(JointConfig, "joint_tuning.study:JointStudy"),
    "visualise": _entry(VisualiseConfig, "visualise.study:VisualiseStudy"),
    "parts": _entry(PartsConfig, "crosscoder_parts.study:PartsStudy"),
    "splice": _entry(SpliceConfig, "splice.study:SpliceStudy"),
    "ablate": _entry(AblateConfig, "ablate.study:AblateStudy"),
    "patching": _entry(PatchingConfig, "patching.study:PatchingStudy"),
    "compare": _entry(CompareConfig, "compare.study:CompareStudy"),
}
