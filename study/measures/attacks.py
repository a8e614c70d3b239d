"""Accuracy against the strength of an attack, and whether the attack can be believed.

The checks are those of Athalye et al. (1802.00420) and Carlini et al. (1902.06705): a network whose
gradients lead nowhere looks robust. Each check has a number beside it, so that a reader can judge.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import sqrt
from typing import final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tendril.models.attacks import (
    Attack,
    Logits,
    attacked,
    correct,
    loss_and_gradient,
    random_points,
)

BATCH = 250
NEAR_ZERO = 0.02  # accuracy above chance that an unbounded attack may leave
NOISE = 2.0  # standard errors of a difference that is taken as none
STEPS = (1, 5, 20, 50)
DRAWS = 10  # random points of the ball that are tried without a gradient

Images = Float[Tensor, "b c h w"]
Classes = Int[Tensor, " b"]


@final
@dataclass(frozen=True)
class Strength:
    """Accuracy under an attack of one epsilon; `error` is its binomial standard error, and
    `success` the fraction of the images that were right before and are wrong after."""

    epsilon: float
    steps: int
    accuracy: float
    error: float
    success: float


@final
@dataclass(frozen=True)
class Transfer:
    """Accuracy on images that were attacked through another network."""

    source: str
    accuracy: float
    own: float  # of the source itself on these images


@final
@dataclass(frozen=True)
class AttackFindings:
    """An attack on a network: its curve, and the checks.

    `masked` are the checks that failed, in sentences; empty if none did.
    """

    attack: Attack
    images: int
    clean: float
    full: float  # accuracy under the attack
    curve: list[Strength]
    unbounded: float  # accuracy at the largest epsilon there is
    chance: float
    steps: list[Strength]  # one entry for each of STEPS, all with the steps' size of the attack
    single_step: float  # accuracy under FGSM without a random start
    noise: float  # accuracy at the worst of DRAWS random points of the ball
    no_gradient: float  # fraction of images whose gradient is exactly 0
    transfers: list[Transfer]
    masked: list[str]


def accuracy(logits_of: Logits, x_BCHW: Images, class_B: Classes) -> Bool[Tensor, " b"]:
    """True for each image that is classified correctly."""
    return torch.cat([correct(logits_of, x, c) for x, c in _batches(x_BCHW, class_B)])


def adversarial(
    logits_of: Logits, x_BCHW: Images, class_B: Classes, attack: Attack, seed: int = 0
) -> Images:
    """The attacked images, in batches, with random starts drawn from `seed`."""
    generator = torch.Generator().manual_seed(seed)
    batches = _batches(x_BCHW, class_B)
    return torch.cat([attacked(logits_of, x, c, attack, generator) for x, c in batches])


def _batches(x_BCHW: Images, class_B: Classes) -> Iterator[tuple[Tensor, Tensor]]:
    return zip(torch.split(x_BCHW, BATCH), torch.split(class_B, BATCH), strict=True)


def strength_curve(
    logits_of: Logits,
    x_BCHW: Images,
    class_B: Classes,
    attack: Attack,
    epsilons: Sequence[float],
    seed: int = 0,
) -> list[Strength]:
    """Accuracy at each epsilon; the steps grow with it unless `attack.step_size` is given."""
    before_B = accuracy(logits_of, x_BCHW, class_B)
    return [
        _strength(logits_of, x_BCHW, class_B, replace(attack, epsilon=one), before_B, seed)
        for one in epsilons
    ]


def _strength(
    logits_of: Logits,
    x_BCHW: Images,
    class_B: Classes,
    attack: Attack,
    before_B: Tensor,
    seed: int,
) -> Strength:
    found = adversarial(logits_of, x_BCHW, class_B, attack, seed)
    after_B = accuracy(logits_of, found, class_B)
    right = float(after_B.double().mean())
    fooled = int((before_B & ~after_B).sum()) / max(int(before_B.sum()), 1)
    return Strength(attack.epsilon, attack.steps, right, _error(right, len(class_B)), fooled)


def _error(fraction: float, count: int) -> float:
    """The binomial standard error of a fraction."""
    return sqrt(fraction * (1 - fraction) / count)


def check_network(
    logits_of: Logits,
    x_BCHW: Images,
    class_B: Classes,
    attack: Attack,
    epsilons: Sequence[float],
    *,
    others: dict[str, Logits] | None = None,
    seed: int = 0,
) -> AttackFindings:
    """The curve of an attack, and the checks that tell a robust network from masked gradients.

    `attack` has the epsilon that the checks are made at; `others` are networks through which images
    are attacked, to be given to this one.
    """
    clean_B = accuracy(logits_of, x_BCHW, class_B)
    clean, count = float(clean_B.double().mean()), len(class_B)

    def under(one: Attack) -> Strength:
        return _strength(logits_of, x_BCHW, class_B, one, clean_B, seed)

    curve = strength_curve(logits_of, x_BCHW, class_B, attack, epsilons, seed)
    largest = 1.0 if attack.norm == "linf" else sqrt(x_BCHW[0].numel())
    unbounded = under(replace(attack, epsilon=largest, steps=max(attack.steps, 50), step_size=0.0))
    size = attack.step
    steps = [under(replace(attack, steps=n, step_size=size, keep="best")) for n in STEPS]
    fgsm = replace(attack, steps=1, step_size=attack.epsilon, random_start=False, keep="last")
    single = under(fgsm).accuracy
    noise = _noise(logits_of, x_BCHW, class_B, attack, seed)
    zero = _no_gradient(logits_of, x_BCHW, class_B, attack)
    transfers = []
    for name, other in (others or {}).items():
        found = adversarial(other, x_BCHW, class_B, attack, seed)
        right, own = (
            float(accuracy(one, found, class_B).double().mean()) for one in (logits_of, other)
        )
        transfers.append(Transfer(name, right, own))
    chance = int(torch.bincount(class_B).max()) / count
    findings = AttackFindings(
        attack=attack,
        images=count,
        clean=clean,
        full=under(attack).accuracy,
        curve=curve,
        unbounded=unbounded.accuracy,
        chance=chance,
        steps=steps,
        single_step=single,
        noise=noise,
        no_gradient=zero,
        transfers=transfers,
        masked=[],
    )
    return replace(findings, masked=signs_of_masking(findings))


def signs_of_masking(found: AttackFindings) -> list[str]:
    """What speaks for masked gradients, in sentences."""
    signs, full = [], found.full
    slack = NOISE * _error(max(full, 0.5 / found.images), found.images)
    if found.unbounded > NEAR_ZERO:
        signs.append(
            f"an attack without bound leaves an accuracy of {found.unbounded:.3f}, where about 0 "
            "is possible"
        )
    for before, after, n in zip(found.steps, found.steps[1:], STEPS[1:], strict=False):
        if after.accuracy > before.accuracy + slack:
            signs.append(
                f"{n} steps leave an accuracy of {after.accuracy:.3f}, fewer steps "
                f"{before.accuracy:.3f}"
            )
    for name, accuracy_ in (("one step (FGSM)", found.single_step), ("noise", found.noise)):
        if accuracy_ < full - slack:
            signs.append(
                f"{name} leaves an accuracy of {accuracy_:.3f}, the attack with many steps "
                f"{full:.3f}"
            )
    signs += [
        f"images attacked through {one.source} leave an accuracy of {one.accuracy:.3f}, those "
        f"attacked through the network itself {full:.3f}"
        for one in found.transfers
        if one.accuracy < full - slack
    ]
    if found.no_gradient > 0.01:
        signs.append(f"{100 * found.no_gradient:.1f} % of the images have a gradient of exactly 0")
    return signs


def _noise(logits_of: Logits, x_BCHW: Images, class_B: Classes, attack: Attack, seed: int) -> float:
    """Accuracy if the worst of DRAWS random points of the ball counts: an attack without
    gradients."""
    right_B = torch.ones(len(class_B), dtype=torch.bool, device=class_B.device)
    generator = torch.Generator().manual_seed(seed + 1)
    for _ in range(DRAWS):
        found = random_points(x_BCHW, attack, generator)
        right_B &= accuracy(logits_of, found, class_B)
    return float(right_B.double().mean())


def _no_gradient(logits_of: Logits, x_BCHW: Images, class_B: Classes, attack: Attack) -> float:
    zero = 0
    for x, c in _batches(x_BCHW, class_B):
        _, gradient = loss_and_gradient(logits_of, x, c, attack)
        zero += int((gradient.flatten(1) == 0).all(dim=1).sum())
    return zero / len(class_B)
