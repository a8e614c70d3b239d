"""Every objective recovers planted directions: the small form of `tendril bench recovery`."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tendril.bench.config import Frequencies, RecoveryBench
from tendril.bench.recovery import SETTINGS, STORES, Planted, measure, planted, recover, recovery

SMALL: dict[str, Any] = {"width": 32, "features": 64, "active": 2.0, "rows": 65_536}
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


@pytest.fixture(scope="module")
def uniform(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    """A store of a few features, all equally frequent."""
    return planted("uniform", 0, str(tmp_path_factory.mktemp("recovery")), **SMALL)


def test_all_settings_are_tried_by_default() -> None:
    assert RecoveryBench().objectives == tuple(SETTINGS)
    assert set(RecoveryBench().frequencies) < set(STORES)


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.many_steps
def test_every_objective_recovers_planted_directions(name: str, uniform: Planted) -> None:
    steps, lr = (700, 1e-2) if name in SLOWER else (400, 2e-2)
    fields = SETTINGS[name][0] | {"lr": lr, "dead_after": 10_000} | QUICK[name]
    found = recover(uniform, 0, steps, fields, batch_size=256)
    assert found["recovery"] >= 0.9
    assert found["fvu"] < 0.25
    assert found["l0"] < 6


@pytest.mark.parametrize("frequencies", STORES)
def test_features_are_on_as_they_should_be(frequencies: Frequencies, tmp_path: Path) -> None:
    size: dict[str, Any] = {"width": 16, "rows": 16_384}
    if frequencies == "synth_sae_bench":
        size |= {"features": 128, "roots": 1, "rows": 4096}
    one = planted(frequencies, 0, str(tmp_path), **size)
    features = one.truth.features(slice(0, one.store.rows))
    on_NF = np.zeros((one.store.rows, len(one.truth.directions_FdD)))
    on_NF[np.nonzero(features >= 0)[0], features[features >= 0]] = 1
    amounts = one.truth.coordinates(slice(0, one.store.rows))[features >= 0]
    often_F = on_NF.mean(axis=0)
    if frequencies == "synth_sae_bench":
        assert amounts.min() >= 4.0 and often_F[0] == pytest.approx(0.1, abs=0.03)
        return
    assert one.active == pytest.approx(4, rel=0.05) and one.fields({"k": 6}) == {"k": 6}
    assert amounts.mean() == pytest.approx(1.5, abs=0.02) and amounts.min() >= 1.1
    if frequencies == "power-law":
        assert often_F[3] / often_F[31] == pytest.approx(8, rel=0.25)
    else:
        assert often_F.max() < 2 * often_F.min()
        correlation_FF = np.corrcoef(on_NF.T) - np.eye(len(often_F))
        most = correlation_FF.max(axis=1).mean()
        assert (most > 0.2) if frequencies == "correlated" else (most < 0.05)


def test_settings_go_with_the_features_that_are_on(uniform: Planted, tmp_path: Path) -> None:
    assert uniform.active == pytest.approx(2, abs=0.1)
    assert recovery(uniform.truth.directions_FdD[:, 0] * 3, uniform.truth) == pytest.approx(1)
    many = planted("uniform", 0, str(tmp_path), width=8, features=32, active=8.0, rows=4096)
    given = {"objective": "jumprelu", "l0": 1.0, "target_l0": 4.0}
    assert many.fields(given) == {"objective": "jumprelu", "l0": 1.0, "target_l0": 8.0}


def test_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    from tendril.bench import recovery as bench

    monkeypatch.setitem(bench.STORES, "uniform", bench.replace(bench.STORES["uniform"], **SMALL))
    asked = RecoveryBench(frequencies=("uniform",), objectives=("topk",), seeds=2, steps=20)
    table: Any = measure(asked)["tables"]
    row = table["uniform"]["topk"]
    assert set(table["uniform"]) == {"topk", "ica", "random"}
    assert len(row["seeds"]) == 2 and row["setting"]["objective"] == "topk"
    assert np.mean(row["seeds"]) == pytest.approx(row["recovery"], abs=1e-4)
    assert table["uniform"]["random"]["recovery"] < 0.6
