"""Known directions are found again, by every objective: the small form of
`tendril bench recovery`."""

from typing import Any

import numpy as np
import pytest
import torch

from tendril.bench.planted_vectors import Frequencies, Truth
from tendril.bench.recovery import SETTINGS, recover

SMALL: dict[str, Any] = {"width": 32, "features": 64, "on": 2.0, "batch_size": 256}
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


SLOWER = ("batch_topk", "matryoshka")  # of which fewer steps leave latents dead


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.many_steps
def test_every_objective_recovers_a_known_truth(name: str) -> None:
    steps, lr = (700, 1e-2) if name in SLOWER else (400, 2e-2)
    fields = SETTINGS[name][0] | {"lr": lr, "dead_after": 10_000} | QUICK[name]
    found = recover("uniform", 0, steps, fields, **SMALL)
    assert found["recovery"] >= 0.9
    assert found["fvu"] < 0.25
    assert found["l0"] < 6


@pytest.mark.parametrize("frequencies", ["uniform", "power-law", "correlated"])
def test_features_are_on_as_often_as_they_should_be(frequencies: Frequencies) -> None:
    """Found by regression on the directions, of which there are fewer than dimensions."""
    truth = Truth(frequencies, 0, width=80, features=64, on=4.0)
    x_ND = torch.cat([next(truth) for _ in range(20)]).double().numpy()
    amount_NF = x_ND @ np.linalg.pinv(truth.directions_FD.astype(np.float64))
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
    truth, again = Truth("uniform", 3), Truth("uniform", 3)
    first, second = next(truth), next(truth)
    assert not torch.equal(first, second)
    again.restore({"batch": 1})
    assert torch.equal(next(again), second)
    assert again.state() == truth.state() == {"batch": 2}
    assert float((first * truth.scale).square().sum(dim=1).mean()) == pytest.approx(64, rel=0.05)
    assert truth.recovery(torch.from_numpy(truth.directions_FD) * 3) == pytest.approx(1)
