"""FGSM and PGD: against steps made by hand, finite differences, and what no attack may do."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from tendril.data.errors import ConfigError, SubjectError
from tendril.models.attacks import (
    Attack,
    attacked,
    correct,
    evaluating,
    fgsm,
    loss_and_gradient,
    predicting,
)
from tendril.models.subjects.module import subject_from_module
from tendril.models.subjects.subject import Subject


def network(classes: int = 4, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(8 * 64, classes)]
    return nn.Sequential(*layers).eval().requires_grad_(False)


def images(count: int = 16, seed: int = 1) -> Tensor:
    return torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def own_classes(module: nn.Module, x_BCHW: Tensor) -> Tensor:
    classes: Tensor = module(x_BCHW).argmax(1)
    return classes


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_fgsm_is_the_step_made_by_hand() -> None:
    """Of a linear network logits = (w x, 0), the loss of class 0 rises against w."""
    module = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False)).requires_grad_(False)
    w = torch.tensor([1.0, -2.0, 0.0, 0.5])
    module[1].weight.copy_(torch.stack([w, torch.zeros(4)]))
    x = torch.tensor([0.5, 0.95, 0.5, 0.05]).view(1, 1, 2, 2)
    zero = torch.zeros(1, dtype=torch.int64)
    found = attacked(module, x, zero, fgsm(0.1))
    assert torch.allclose(found.flatten(), torch.tensor([0.4, 1.0, 0.5, 0.0]))  # clipped to 0..1
    found = attacked(module, x, zero, Attack("linf", 0.1, 1, 0.1, False, targeted=True))
    assert torch.allclose(found.flatten(), torch.tensor([0.6, 0.85, 0.5, 0.15]))
    found = attacked(module, x, zero, fgsm(0.04, "l2"))
    assert torch.allclose(found.flatten(), x.flatten() - 0.04 * w / w.norm())
    # two steps of .03 end at the edge of the ball of .04
    found = attacked(module, x, zero, Attack("l2", 0.04, 2, 0.03, False))
    assert torch.allclose(found.flatten(), x.flatten() - 0.04 * w / w.norm(), atol=1e-6)


@pytest.mark.parametrize("targeted", [False, True])
def test_the_gradient_is_that_of_finite_differences(targeted: bool) -> None:
    module, x = network().double(), images(2).double()
    classes = torch.tensor([0, 3])
    attack = Attack(targeted=targeted)
    _, gradient = loss_and_gradient(module, x, classes, attack)
    chosen = [(0, 0, 0, 0), (0, 2, 7, 3), (1, 1, 4, 4), (1, 0, 7, 7)]
    for place in chosen:
        change = torch.zeros_like(x)
        change[place] = 1e-5
        above, _ = loss_and_gradient(module, x + change, classes, attack)
        below, _ = loss_and_gradient(module, x - change, classes, attack)
        numeric = float((above - below).sum()) / 2e-5
        assert numeric == pytest.approx(float(gradient[place]), rel=1e-5, abs=1e-10)


def test_the_loss_has_the_direction_of_the_cross_entropy_also_where_that_rounds_to_0() -> None:
    module, x = network(), images()
    classes = own_classes(module, x)
    _, gradient = loss_and_gradient(module, x, classes, Attack())
    x.requires_grad_(True)
    (usual,) = torch.autograd.grad(nn.functional.cross_entropy(module(x), classes), x)
    cosine = nn.functional.cosine_similarity(gradient.flatten(1), usual.flatten(1))
    assert float(cosine.min()) > 0.9999

    def sure(x_BCHW: Tensor) -> Tensor:
        scaled: Tensor = 1e6 * module(x_BCHW)
        return scaled

    (rounded,) = torch.autograd.grad(nn.functional.cross_entropy(sure(x), classes), x)
    assert float(rounded.abs().amax()) == 0
    _, gradient = loss_and_gradient(sure, x.detach(), classes, Attack())
    assert float(gradient.flatten(1).norm(dim=1).min()) > 0


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("start", [False, True])
def test_attacked_images_stay_in_the_ball_and_are_images(norm: str, start: bool) -> None:
    module, x = network(), images()
    epsilon = {"linf": 0.05, "l2": 0.5}[norm]
    attack = Attack(norm, epsilon, 5, random_start=start)  # type: ignore[arg-type]
    found = attacked(module, x, own_classes(module, x), attack, seeded())
    change = (found - x).flatten(1)
    lengths = change.abs().amax(1) if norm == "linf" else change.norm(dim=1)
    assert float(lengths.max()) <= epsilon + 1e-6
    assert float(lengths.max()) > 0.5 * epsilon
    assert float(found.min()) >= 0
    assert float(found.max()) <= 1
    assert not found.requires_grad
    again = attacked(module, x, own_classes(module, x), attack, seeded())
    assert torch.equal(found, again)  # the generator decides
    if start:
        other = attacked(module, x, own_classes(module, x), attack, seeded(1))
        assert not torch.equal(found, other)


def test_more_steps_of_one_size_never_lower_the_loss() -> None:
    module, x = network(), images()
    classes = own_classes(module, x)
    before = -torch.inf * torch.ones(len(x))
    for steps in (1, 2, 4, 8, 16):
        attack = Attack("linf", 0.03, steps, 0.02)
        found = attacked(module, x, classes, attack, seeded())
        loss, _ = loss_and_gradient(module, found, classes, attack)
        assert bool((loss >= before).all()), steps
        before = loss


def test_strong_attacks_fool_the_network_and_reach_targets() -> None:
    module, x = network(), images(64)
    classes = own_classes(module, x)
    right = [
        float(correct(module, attacked(module, x, classes, a, seeded()), classes).float().mean())
        for a in (Attack("linf", 0.002), Attack("linf", 0.05), Attack("linf", 0.5))
    ]
    assert right[0] > right[1] > right[2]
    assert right[2] < 0.02
    targets = (classes + 1) % 4
    found = attacked(module, x, targets, Attack("l2", 5.0, targeted=True), seeded())
    assert float(correct(module, found, targets).float().mean()) > 0.98
    assert torch.equal(attacked(module, x, classes, Attack(epsilon=0.0)), x)


def test_an_attack_in_training_leaves_the_network_as_it_was() -> None:
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 3)
    ).train()
    before = {name: t.clone() for name, t in module.state_dict().items()}
    attacked(evaluating(module), images(), torch.zeros(16, dtype=torch.int64), Attack(epsilon=0.1))
    assert module.training
    assert all(part.training for part in module.modules())
    assert all(torch.equal(t, before[name]) for name, t in module.state_dict().items())
    assert all(p.grad is None for p in module.parameters())


@pytest.mark.parametrize(
    ("change", "scale", "message"),
    [
        ({"epsilon": 8.0}, 1, "units of pixels in 0..1, from 0 to 1 for the norm linf; got 8"),
        ({"epsilon": 127.5, "norm": "l2"}, 1, "from 0 to 13.9 for the norm l2; got 127.5"),
        ({"epsilon": 8.0}, 1, "pixels in 0..255, give 0.03137"),
        ({"epsilon": 0.1}, 255, "bytes: divide them by 255"),
        ({"epsilon": -0.1}, 1, "epsilon must be a finite number of at least 0; got -0.1"),
        ({"epsilon": float("nan")}, 1, "epsilon must be a finite number"),
        ({"step_size": -1.0}, 1, "step_size must be a finite number"),
        ({"steps": 0}, 1, "at least 1 step; got 0"),
        ({"norm": "l1"}, 1, "must be linf or l2; got 'l1'"),
    ],
)
def test_settings_of_another_scale_are_refused(
    change: dict[str, object], scale: int, message: str
) -> None:
    attack = replace(Attack(epsilon=0.1))
    for name, value in change.items():
        object.__setattr__(attack, name, value)
    with pytest.raises(ConfigError, match=message.replace(".", r"\.")):
        attacked(network(), images() * scale, torch.zeros(16, dtype=torch.int64), attack)


def test_classes_that_are_none_of_the_network_are_refused() -> None:
    x = images(2)
    with pytest.raises(ConfigError, match=r"labels must be from 0 to 3.*; got 0 to 7\. Give"):
        attacked(network(), x, torch.tensor([0, 7]), Attack(epsilon=0.1))


def test_subjects_give_logits_through_their_preprocessing_or_are_refused() -> None:
    module = network()
    subject = subject_from_module(module, input_size=8, preprocess=lambda rgb: 255 * rgb - 117)
    x = images(3)
    with predicting(subject) as logits_of:
        assert torch.equal(logits_of(x), module(255 * x - 117))
        found = attacked(logits_of, x, own_classes(module, 255 * x - 117), Attack(epsilon=0.1))
        assert float((found - x).abs().max()) <= 0.1 + 1e-6  # in units of 0..1
    inner = nn.Sequential(network(), nn.Softmax(1))
    named = Subject("s", inner, lambda rgb: rgb, 8, {}, logits="0")
    with predicting(named) as logits_of:
        assert torch.equal(logits_of(x), inner[0](x))
    assert not inner[0]._forward_hooks
    maps = subject_from_module(nn.Conv2d(3, 4, 3), input_size=8, name="maps")
    with predicting(maps) as logits_of, pytest.raises(SubjectError, match="logits of shape"):
        logits_of(x)
