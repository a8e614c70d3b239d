"""Every objective recovers planted directions: the small form of `tendril bench recovery`."""

from typing import Any

import numpy as np
import pytest
import torch

from tendril.bench.config import Frequencies, RecoveryBench
from tendril.bench.planted_vectors import PlantedVectors
from tendril.bench.recovery import SETTINGS, recover

SMALL: dict[str, Any] = {"width": 32, "features": 64, "active": 2.0, "batch_size": 256}
QUICK: dict[str, dict[str, Any]] = {
    "topk": {"k": 3},
    "batch_topk": {"k": 3},
    "matryoshka": {"k": 2},
    "relu_l1": {"l1": 2.0},
    "tied": {"l1": 1.5},
    "gated": {"l1": 2.0},
    "jumprelu": {"l0": 0.02},
    "jumprelu_target": {"target_l0": 2.0},
}


SLOWER = ("batch_topk", "matryoshka")  # with fewer steps, latents stay dead


def test_all_settings_are_tried_by_default() -> None:
    assert RecoveryBench().objectives == tuple(SETTINGS)


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.many_steps
def test_every_objective_recovers_planted_directions(name: str) -> None:
    steps, lr = (700, 1e-2) if name in SLOWER else (400, 2e-2)
    fields = SETTINGS[name][0] | {"lr": lr, "dead_after": 10_000} | QUICK[name]
    found = recover("uniform", 0, steps, fields, **SMALL)
    assert found["recovery"] >= 0.9
    assert found["fvu"] < 0.25
    assert found["l0"] < 6


@pytest.mark.parametrize("frequencies", ["uniform", "power-law", "correlated"])
def test_features_are_on_as_often_as_they_should_be(frequencies: Frequencies) -> None:
    """By regression on the directions, which are fewer than the dimensions."""
    planted = PlantedVectors(frequencies, 0, width=80, features=64, active=4.0)
    x_ND = torch.cat([next(planted) for _ in range(20)]).double().numpy()
    amount_NF = x_ND @ np.linalg.pinv(planted.directions_FD.astype(np.float64))
    on_NF = amount_NF > 0.5
    assert amount_NF[on_NF].min() == pytest.approx(1, abs=0.01)
    assert amount_NF.max() == pytest.approx(2, abs=0.01)
    assert on_NF.sum(axis=1).mean() == pytest.approx(
        4 if frequencies != "power-law" else 3.66, rel=0.03
    )
    often_F = on_NF.mean(axis=0)
    together = (on_NF[:, 0] & on_NF[:, 1]).mean() / often_F[1]
    if frequencies == "power-law":
        assert often_F[0] == pytest.approx(0.5, abs=0.02)
        assert often_F[1] / often_F[15] == pytest.approx(8, rel=0.25)
    else:
        assert often_F.max() < 1.5 * often_F.min()
        assert together == pytest.approx(0.5 if frequencies == "correlated" else 4 / 64, abs=0.05)


def test_a_stream_is_a_function_of_seed_and_batch() -> None:
    planted, again = PlantedVectors("uniform", 3), PlantedVectors("uniform", 3)
    first, second = next(planted), next(planted)
    assert not torch.equal(first, second)
    again.restore({"batch": 1})
    assert torch.equal(next(again), second)
    assert again.state() == planted.state() == {"batch": 2}
    assert float((first * planted.scale).square().sum(dim=1).mean()) == pytest.approx(64, rel=0.05)
    assert planted.recovery(torch.from_numpy(planted.directions_FD) * 3) == pytest.approx(1)
