"""Adversarial examples: FGSM and PGD, in the L-infinity and the L2 norm.

    x_0 = x + random point of the ball          (or x)
    x_t+1 = P(x_t + a sign(g))                  L-infinity, g = d loss / d x_t
    x_t+1 = P(x_t + a g / ||g||)                L2

P projects onto the ball of radius epsilon around x, and then onto pixels in 0..1. FGSM is one
step. Sources: Goodfellow et al. (1412.6572); Madry et al. (1706.06083); the random start of FGSM:
Wong et al. (2001.03994).

The loss of the true class y is the m in

    cross-entropy = log(1 + exp(m)),    m = log sum_{j != y} exp(z_j) - z_y

(minus m of a target class). Cross-entropy rises with m, so the directions of all steps are the
same; but its gradient rounds to 0 where a network is sure, and such images would look robust.

This file lies below harvest, train and study, because adversarial training and studies both use it
and may not import each other. No library is used: torchattacks (3.5.1, MIT, October 2023) brings
its own wrapper of models and torchvision, foolbox (3.3.4, MIT, March 2024) eagerpy and GitPython,
and adversarial-robustness-toolbox (1.20.1, MIT) scikit-learn, each for what is 60 lines here; and
none of them takes a random generator, without which a stopped training could not continue with the
same bits. The results agree with those of torchattacks (docs/robustness.md).
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, TypeAlias, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from tendril.data.errors import ConfigError, SubjectError

from .epsilon import check_epsilon
from .sites.splice import first_tensor
from .subjects.subject import Subject

Norm = Literal["linf", "l2"]
Logits: TypeAlias = Callable[[Tensor], Tensor]
"""Pixels in 0..1 [B, C, H, W] -> logits [B, V]."""

TINY = 1e-12  # a gradient of a smaller L2 norm has no direction


@final
@dataclass(frozen=True)
class Attack:
    """An attack. `epsilon` and `step_size` are in units of pixels in 0..1, whatever scale the
    network computes in; a `step_size` of 0 is 2.5 epsilon / steps. `targeted` lowers the loss of
    the given classes, which are then targets, instead of raising it. With `keep` "best" the result
    is, of all steps, the one with the highest loss (lowest if targeted), so that more steps of one
    size never make the attack weaker; "last" is the plain algorithm."""

    norm: Norm = "linf"
    epsilon: float = 0.0
    steps: int = 20
    step_size: float = 0.0
    random_start: bool = True
    targeted: bool = False
    keep: Literal["last", "best"] = "best"

    @property
    def step(self) -> float:
        """The size of a step."""
        return self.step_size or 2.5 * self.epsilon / max(self.steps, 1)


def fgsm(epsilon: float, norm: Norm = "linf", *, random_start: bool = False) -> Attack:
    """One step: of size epsilon from the image, or of 1.25 epsilon from a random start."""
    size = 1.25 * epsilon if random_start else epsilon
    return Attack(norm, epsilon, 1, size, random_start, keep="last")


def attacked(
    logits_of: Logits,
    x_BCHW: Float[Tensor, "b c h w"],
    class_B: Int[Tensor, " b"],
    attack: Attack,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "b c h w"]:
    """The adversarial images of images in 0..1.

    `class_B` are the true classes, or the targets. Random starts are drawn from `generator`, a
    generator of the CPU. Raises ConfigError for what `check_attack` refuses.
    """
    check_attack(attack, x_BCHW)
    if attack.epsilon == 0:
        return x_BCHW
    found = random_points(x_BCHW, attack, generator) if attack.random_start else x_BCHW
    best = found
    most_B = torch.full((len(x_BCHW),), -math.inf, device=x_BCHW.device)
    for _ in range(attack.steps):
        loss_B, gradient = loss_and_gradient(logits_of, found, class_B, attack)
        if attack.keep == "best":
            best, most_B = _better(best, most_B, found, loss_B)
        found = _projected(found + attack.step * _direction(gradient, attack), x_BCHW, attack)
    if attack.keep == "best":
        with torch.no_grad():
            loss_B = _loss(logits_of(found), class_B, attack)
        found, _ = _better(best, most_B, found, loss_B)
    return found


def loss_and_gradient(
    logits_of: Logits, x_BCHW: Tensor, class_B: Tensor, attack: Attack
) -> tuple[Float[Tensor, " b"], Float[Tensor, "b c h w"]]:
    """What an attack raises for each image, m or for targets -m, and its gradient by the pixels."""
    with torch.enable_grad():
        x_BCHW = x_BCHW.detach().requires_grad_(True)
        loss_B = _loss(logits_of(x_BCHW), class_B, attack)
        (gradient,) = torch.autograd.grad(loss_B.sum(), x_BCHW)
    return loss_B.detach(), gradient


def _loss(logits_BV: Tensor, class_B: Tensor, attack: Attack) -> Float[Tensor, " b"]:
    check_classes(class_B, logits_BV)
    own_BV = functional.one_hot(class_B, logits_BV.shape[1]).bool()
    others_BV = logits_BV.masked_fill(own_BV, -math.inf)
    loss_B = others_BV.logsumexp(1) - logits_BV.gather(1, class_B[:, None])[:, 0]
    return -loss_B if attack.targeted else loss_B


def _better(best: Tensor, most_B: Tensor, found: Tensor, loss_B: Tensor) -> tuple[Tensor, Tensor]:
    """Of each image the version with the higher loss, and that loss."""
    higher_B = loss_B > most_B
    chosen = torch.where(higher_B.view(-1, *[1] * (found.ndim - 1)), found, best)
    return chosen, torch.where(higher_B, loss_B, most_B)


def _direction(gradient: Tensor, attack: Attack) -> Tensor:
    """The direction of a step: of length 1 in the norm of the attack."""
    if attack.norm == "linf":
        return torch.sign(gradient)
    return gradient / _lengths(gradient).clamp_min(TINY)


def _projected(x: Tensor, centre: Tensor, attack: Attack) -> Tensor:
    """The nearest point of the ball around `centre`, clipped to pixels."""
    if attack.norm == "linf":
        x = x.clamp(centre - attack.epsilon, centre + attack.epsilon)
    else:
        change = x - centre
        x = centre + change * (attack.epsilon / _lengths(change).clamp_min(TINY)).clamp_max(1)
    return x.clamp(0, 1)


def random_points(x: Tensor, attack: Attack, generator: torch.Generator | None = None) -> Tensor:
    """A random point of the ball for each image, clipped to pixels.

    L-infinity: uniform in the ball. L2: in a random direction, at a distance uniform in 0..epsilon
    (as in torchattacks): nearly all of the ball's volume lies at its surface, and on MNIST a start
    there leaves 1.4 points more accuracy after 20 steps.
    """
    if attack.norm == "linf":
        uniform = torch.rand(x.shape, generator=generator).to(x)
        return _projected(x + (2 * uniform - 1) * attack.epsilon, x, attack)
    normal = torch.randn(x.shape, generator=generator).to(x)
    shape = (len(x), *[1] * (x.ndim - 1))
    radius = torch.rand(shape, generator=generator).to(x)
    change = attack.epsilon * radius * normal / _lengths(normal).clamp_min(TINY)
    return _projected(x + change, x, attack)


def _lengths(x: Tensor) -> Tensor:
    """The L2 norm of each image, shaped to divide by."""
    lengths_B: Tensor = torch.linalg.vector_norm(x.flatten(1), dim=1)
    return lengths_B.view(-1, *[1] * (x.ndim - 1))


def check_attack(attack: Attack, x_BCHW: Tensor) -> None:
    """Raise ConfigError for settings that no attack can have, an epsilon of another scale than
    pixels in 0..1, and images that are not in 0..1."""
    if attack.norm not in ("linf", "l2"):
        raise ConfigError(f"the norm of an attack must be linf or l2; got {attack.norm!r}.")
    if attack.steps < 1:
        raise ConfigError(f"an attack must have at least 1 step; got {attack.steps}.")
    for name in ("epsilon", "step_size"):
        value = getattr(attack, name)
        if not (value >= 0 and math.isfinite(value)):
            raise ConfigError(f"{name} must be a finite number of at least 0; got {value}.")
    check_epsilon(attack.epsilon, attack.norm, x_BCHW[0].numel())
    low, high = float(x_BCHW.min()), float(x_BCHW.max())
    if low < 0 or high > 1:
        scale = "They seem to be bytes: divide them by 255" if high > 2 else "Give pixels in 0..1"
        raise ConfigError(
            f"the images of an attack must have pixels in 0..1; got values from {low:.3g} to "
            f"{high:.3g}. {scale}."
        )


def check_classes(class_B: Tensor, logits_BV: Tensor) -> None:
    """Raise SubjectError unless there are logits [B, V], and ConfigError unless the classes are
    numbers of these logits."""
    if logits_BV.ndim != 2 or len(logits_BV) != len(class_B):
        raise SubjectError(
            f"an attack needs logits of shape [{len(class_B)}, classes]; the network gives "
            f"{list(logits_BV.shape)}. Choose a subject that classifies images."
        )
    if len(class_B) and not (class_B.min() >= 0 and class_B.max() < logits_BV.shape[1]):
        raise ConfigError(
            f"the labels must be from 0 to {logits_BV.shape[1] - 1}, the classes of the network; "
            f"got {int(class_B.min())} to {int(class_B.max())}. Give the labels of the data that "
            "it was trained on."
        )


@contextmanager
def predicting(subject: Subject) -> Iterator[Logits]:
    """Context manager that yields the function from RGB images in 0..1 to a subject's logits,
    through which gradients flow.

    Raises SubjectError, at a call, where the subject gives no logits [B, V].
    """
    seen: list[object] = []
    module = subject.module
    parts = dict(module.named_modules(remove_duplicate=False))
    handle = None
    if subject.logits:
        handle = parts[subject.logits].register_forward_hook(
            lambda _module, _inputs, output: seen.append(output)
        )

    def logits_of(rgb_BCHW: Tensor) -> Tensor:
        seen.clear()
        output: object = module(subject.preprocess(rgb_BCHW))
        logits = first_tensor(seen[-1] if subject.logits and seen else output)
        if logits.ndim != 2 or len(logits) != len(rgb_BCHW):
            raise SubjectError(
                f"an attack needs logits of shape [{len(rgb_BCHW)}, classes]; the output of "
                f"{subject.name} has shape {list(logits.shape)}. Choose a subject that classifies "
                "images."
            )
        return logits

    try:
        yield logits_of
    finally:
        if handle is not None:
            handle.remove()


@torch.no_grad()
def correct(logits_of: Logits, x_BCHW: Tensor, class_B: Int[Tensor, " b"]) -> Bool[Tensor, " b"]:
    """True for the images whose most likely class is theirs."""
    logits_BV = logits_of(x_BCHW)
    check_classes(class_B, logits_BV)
    answers: Tensor = logits_BV.argmax(dim=1) == class_B
    return answers


def evaluating(module: nn.Module) -> Logits:
    """A module's logits in eval mode, whatever its mode: an attack during training must not change
    the running moments of batch normalisation."""

    def logits_of(x_BCHW: Tensor) -> Tensor:
        before = module.training
        module.eval()
        try:
            logits: Tensor = module(x_BCHW)
            return logits
        finally:
            module.train(before)

    return logits_of
