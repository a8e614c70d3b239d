"""The study `superposition`: toy models, clean and adversarially trained."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

import numpy as np
import torch

from ..core.report import write_records
from ..core.study import Study
from ..measures.superposition import State, Toys, features_per_dimension
from ..measures.superposition_attacks import harm, randomly_turned
from ..measures.superposition_geometry import geometry, random_interference
from . import page, words
from .config import SuperpositionConfig
from .findings import Superposition, Sweep
from .sweep import VERSION, trained_sweep

TESTED = 2000
"""Inputs on which errors are measured."""


@final
class SuperpositionStudy(Study[SuperpositionConfig, None, Superposition]):
    """Toy models of superposition at several densities, clean and adversarially trained.

    The report holds models.csv, a line for each model, and weights.npz with their W and b.
    """

    name = "superposition"
    config = SuperpositionConfig

    def find(self, config: SuperpositionConfig) -> None:
        return None

    def identity(self, config: SuperpositionConfig, inputs: None) -> Mapping[str, Any]:
        return {"models": VERSION, "densities": list(config.densities())}

    def title(self, config: SuperpositionConfig, inputs: None) -> str:
        return "Superposition in toy models, and adversarial training"

    def label(self, config: SuperpositionConfig, inputs: None) -> str:
        return f"{config.features}-{config.hidden}"

    def estimate(self, config: SuperpositionConfig, inputs: None) -> Mapping[str, Any]:
        return {"models": 2 * len(config.densities()) * config.seeds, "steps": config.steps}

    def compute(
        self, config: SuperpositionConfig, inputs: None, device: torch.device
    ) -> Superposition:
        sweeps = [
            measured(trained_sweep(config, seed), config.attack, seed)
            for seed in range(config.seeds)
        ]
        return Superposition(config.densities(), config.steps, config.attack, sweeps)

    def figures(self, findings: Superposition) -> dict[str, Any]:
        return findings.figures()

    def headline(self, figures: Mapping[str, Any]) -> str:
        return words.headline(figures)

    def table(self, figures: Mapping[str, Any]) -> str:
        return words.table(figures)

    def write_tables(self, findings: Superposition, folder: Path) -> None:
        write_records(folder / "models.csv", findings.records())
        np.savez_compressed(
            folder / "weights.npz",
            W=np.stack([sweep.weights_KNDF for sweep in findings.sweeps]),
            b=np.stack([sweep.biases_KNF for sweep in findings.sweeps]),
            density=np.array(findings.densities),
        )

    def page(
        self, config: SuperpositionConfig, inputs: None, findings: Superposition
    ) -> Mapping[str, Any]:
        return page.context(config, findings)


def measured(state: State, attack: float, seed: int) -> Sweep:
    """What the models of one seed do, and where their features point."""
    toys = state.toys
    half = len(toys.robust_M) // 2
    found = harm(toys, TESTED, attack, seed)
    clean: Toys = toys.part(slice(half))
    control = harm(randomly_turned(clean, seed), TESTED, attack, seed)
    W_MDF = toys.W_MDF.numpy()
    by_kind = (2, half)
    return Sweep(
        seed=seed,
        per_dimension_KN=features_per_dimension(toys.W_MDF).double().numpy().reshape(by_kind),
        clean_error_KN=found.clean_M.reshape(by_kind),
        power_KN=found.power_M.reshape(by_kind),
        attacked_AKN=found.attacked_AM.reshape(-1, *by_kind),
        gain_AKN=found.gain_AM.reshape(-1, *by_kind),
        control_AN=control.gain_AM,
        random_KN=np.array([random_interference(W_DF) for W_DF in W_MDF]).reshape(by_kind),
        geometry_KN=[[geometry(W_DF) for W_DF in part] for part in (W_MDF[:half], W_MDF[half:])],
        weights_KNDF=W_MDF.reshape(*by_kind, *W_MDF.shape[1:]),
        biases_KNF=toys.b_MF.numpy().reshape(*by_kind, -1),
        trace=[(step, f.double().numpy().reshape(by_kind)) for step, f in state.trace],
    )
