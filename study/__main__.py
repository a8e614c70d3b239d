"""`python -m study RECIPE --field value`: a dictionary, and its subject -> findings and a page."""

import inspect
from typing import Any

import tyro

from data.command import run_command

from .config import SpliceConfig
from .interpret_config import InterpretConfig
from .missing_config import JointConfig, MissingConfig, VisualiseConfig
from .parts_config import PartsConfig
from .patching_config import AblateConfig, PatchingConfig
from .recipes import RECIPES, Config
from .symmetry_config import SymmetryConfig


def main() -> None:
    """Parse, then study; nothing heavy is imported before the arguments are understood."""
    recipes = {name: (inspect.getdoc(make) or "", make()) for name, make in RECIPES.items()}
    config = tyro.extras.overridable_config_cli(
        recipes,
        prog="python -m study",
        description="Study a trained dictionary and its subject, and make a page of findings.",
    )
    run_command(lambda: _study(config))


def _study(config: Config) -> dict[str, Any]:
    if isinstance(config, SpliceConfig):
        from .splice import study_splice

        return study_splice(config)
    if isinstance(config, SymmetryConfig):
        from .symmetry import study_symmetry

        return study_symmetry(config).summary()
    if isinstance(config, MissingConfig):
        from .missing import study_missing

        return study_missing(config)
    if isinstance(config, JointConfig):
        from .joint import study_joint

        return study_joint(config)
    if isinstance(config, VisualiseConfig):
        from .visualise import study_visualise

        return study_visualise(config)
    if isinstance(config, PartsConfig):
        from .parts import study_parts

        return study_parts(config).summary()
    if isinstance(config, InterpretConfig):
        from .interpret import study_interpret

        return study_interpret(config)
    if isinstance(config, AblateConfig):
        from .ablate import study_ablate

        return study_ablate(config)
    if isinstance(config, PatchingConfig):
        from .patching_study import study_patching

        return study_patching(config)
    from .curves import study_curves

    return study_curves(config).summary()


if __name__ == "__main__":
    main()
