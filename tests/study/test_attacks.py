"""Curves of attacks, and the checks that tell masked gradients from robust networks."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tendril.models.attacks import Attack
from tendril.study.measures.attacks import AttackFindings, check_network, strength_curve

DIRECTION = torch.tensor([0.5, -0.5, 0.5, 0.5]) * torch.ones(3, 4)


def linear(scale: float = 20.0) -> nn.Module:
    """Two classes by one direction; the margin of an image is known."""
    module = nn.Sequential(nn.Flatten(), nn.Linear(12, 2)).requires_grad_(False)
    w = DIRECTION.flatten() * scale
    module[1].weight.copy_(torch.stack([w, -w]))
    module[1].bias.copy_(torch.stack([-(w * 0.5).sum(), (w * 0.5).sum()]))
    return module


def pictures(count: int = 200) -> Tensor:
    return torch.rand(count, 3, 2, 2, generator=torch.Generator().manual_seed(0)) * 0.6 + 0.2


def classes(module: nn.Module, x: Tensor) -> Tensor:
    found: Tensor = module(x).argmax(1)
    return found


def checked(logits_of: Callable[[Tensor], Tensor], **more: object) -> AttackFindings:
    x = pictures()
    attack = Attack("linf", 0.05, 20)
    return check_network(logits_of, x, classes(linear(), x), attack, (0.0, 0.05), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_curve_of_a_linear_network_is_the_one_of_its_margins(norm: str) -> None:
    """A point is wrong as soon as epsilon exceeds |w (x - 1/2)| / ||w||, in the dual norm."""
    module, x = linear(), pictures()
    margin = ((x.flatten(1) - 0.5) @ DIRECTION.flatten()).abs()
    dual = DIRECTION.abs().sum() if norm == "linf" else DIRECTION.norm()
    epsilons = (0.0, 0.02, 0.05, 0.2)
    attack = Attack(norm, 0.0, 30)  # type: ignore[arg-type]
    curve = strength_curve(module, x, classes(module, x), attack, epsilons)
    for one in curve:
        wanted = float((margin / dual > one.epsilon).double().mean())
        assert one.accuracy == pytest.approx(wanted, abs=0.006)
        assert one.success == pytest.approx(1 - one.accuracy, abs=1e-6)  # all were right before
    assert curve[0].accuracy == 1.0
    assert curve[-1].accuracy < 0.5
    assert curve[1].error == pytest.approx(
        (curve[1].accuracy * (1 - curve[1].accuracy) / 200) ** 0.5
    )


def test_an_honest_network_passes_all_checks() -> None:
    found = checked(linear(), others={"the same": linear(10.0)})
    assert found.masked == []
    assert found.clean == 1.0
    assert found.unbounded == 0.0
    assert found.steps[0].accuracy >= found.steps[-1].accuracy
    assert found.noise > found.curve[1].accuracy
    (transfer,) = found.transfers
    assert transfer.accuracy == pytest.approx(found.curve[1].accuracy, abs=0.02)


def test_masked_gradients_are_flagged() -> None:
    """Rounded pixels have no gradients: the attack fails, though images attacked through the
    network without rounding fool it as well."""
    module = linear()

    def rounded(x: Tensor) -> Tensor:
        logits: Tensor = module(x.mul(50).round() / 50 + 0 * x)
        return logits

    found = checked(rounded, others={"the network without rounding": module})
    assert found.no_gradient == 1.0
    text = "; ".join(found.masked)
    assert "gradient of exactly 0" in text
    assert "an attack without bound leaves an accuracy of" in text
    assert "images attacked through the network without rounding leave an accuracy of" in text


def test_a_gradient_that_points_the_wrong_way_is_flagged() -> None:
    module = linear()

    def reversed_gradient(x: Tensor) -> Tensor:
        logits: Tensor = module(2 * x.detach() - x)
        return logits

    found = checked(reversed_gradient)
    assert any("noise leaves an accuracy of" in one for one in found.masked)
