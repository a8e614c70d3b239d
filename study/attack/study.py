"""The study `attack`: accuracy against the strength of an attack, with checks of the attack."""

import hashlib
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, final

import torch

from tendril.data.cli import note
from tendril.data.home import NETWORK, network_place
from tendril.models.attacks import Attack, predicting
from tendril.models.epsilon import check_epsilon

from ..core.report import write_records
from ..core.study import Study, run_name
from ..measures.attacks import AttackFindings, check_network
from . import page
from .config import AttackConfig
from .inputs import AttackInputs, find_inputs


@final
class AttackStudy(Study[AttackConfig, AttackInputs, AttackFindings]):
    """PGD on a network at several strengths, and whether its result can be believed.

    The report holds curve.csv and checks.csv.
    """

    name = "attack"
    config = AttackConfig

    def find(self, config: AttackConfig) -> AttackInputs:
        inputs = find_inputs(config)
        pixels = 3 * inputs.subject.input_size**2
        for value in (config.epsilon, *config.epsilons):
            check_epsilon(value, config.norm, pixels, "--epsilon")
        return inputs

    def identity(self, config: AttackConfig, inputs: AttackInputs) -> Mapping[str, Any]:
        return {
            "subject": dict(inputs.subject.identity),
            "others": [dict(other.identity) for other in inputs.others.values()],
            "images": inputs.source.identity,
            "classes": hashlib.sha256(inputs.class_N.astype("<i8").tobytes()).hexdigest(),
        }

    def title(self, config: AttackConfig, inputs: AttackInputs) -> str:
        return f"Attacks on {inputs.subject.name}"

    def label(self, config: AttackConfig, inputs: AttackInputs) -> str:
        return f"{inputs.subject.name}-{config.norm}"

    def resolved(self, config: AttackConfig, inputs: AttackInputs) -> AttackConfig:
        def full(name: str) -> str:
            place = Path(network_place(name, config.home))
            trained = (place / NETWORK.marker).is_file()
            return run_name(place, config.home) if trained else name

        return replace(config, subject=full(config.subject), others=tuple(map(full, config.others)))

    def compute(
        self, config: AttackConfig, inputs: AttackInputs, device: torch.device
    ) -> AttackFindings:
        x_BCHW, class_B = (t.to(device) for t in inputs.load(config.images))
        for subject in (inputs.subject, *inputs.others.values()):
            subject.module.to(device)
        with ExitStack() as stack:
            logits_of = stack.enter_context(predicting(inputs.subject))
            others = {
                name: stack.enter_context(predicting(one)) for name, one in inputs.others.items()
            }
            found = check_network(
                logits_of,
                x_BCHW,
                class_B,
                Attack(config.norm, config.strength, config.steps),
                config.curve,
                others=others,
                seed=config.seed,
            )
        if found.clean <= 1.5 * found.chance:
            note(
                f"warning: the network is right on {found.clean:.1%} of the images, where guessing "
                f"the commonest class gives {found.chance:.1%}: the labels may not be its own."
            )
        return found

    def figures(self, findings: AttackFindings) -> dict[str, Any]:
        attack = {"norm": findings.attack.norm, "epsilon": findings.attack.epsilon}
        return attack | asdict(findings)

    def headline(self, figures: Mapping[str, Any]) -> str:
        return page.headline(figures)

    def table(self, figures: Mapping[str, Any]) -> str:
        return page.table(figures)

    def write_tables(self, findings: AttackFindings, folder: Path) -> None:
        write_records(folder / "curve.csv", [asdict(one) for one in findings.curve])
        write_records(folder / "checks.csv", page.checks(findings))

    def page(
        self, config: AttackConfig, inputs: AttackInputs, findings: AttackFindings
    ) -> Mapping[str, Any]:
        return page.context(findings)
