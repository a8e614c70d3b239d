"""The studies by name. Imports no torch: `--help` must answer at once.

A new study is a folder in study/ and a line here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, final

from .compare.config import CompareConfig
from .core.config import StudyConfig
from .crosscoder_parts.config import PartsConfig
from .curves.config import CurvesConfig
from .symmetry.config import SymmetryConfig


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
    "parts": _entry(PartsConfig, "crosscoder_parts.study:PartsStudy"),
    "compare": _entry(CompareConfig, "compare.study:CompareStudy"),
}
