"""Dictionaries of many manifolds beside the allocation model fed with the loss of one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tendril.data.errors import ConfigError
from tendril.data.store.reader import open_store
from tendril.data.store.truth import open_truth
from tendril.harvest.config import SyntheticConfig
from tendril.harvest.run import harvest
from tendril.models.dictionaries.sae import SAE
from tendril.models.dictionaries.sparsity import Sparsity
from tendril.study.core.trained import TrainedSparsity, sparsity_of
from tendril.study.measures.allocation import Kind, Measured, allocate
from tendril.study.measures.manifold_counts import Counts
from tendril.study.measures.manifold_losses import Penalty, manifold_losses
from tendril.study.run import study
from tendril.study.scaling.config import ScalingConfig
from tendril.study.scaling.mixture import MEASURED, mixtures, same_sparsity, where_they_part
from tendril.study.scaling.runs import Dictionary, Shape, penalty_of
from tendril.train.config import TrainConfig
from tendril.train.loop import train

from .test_page import check

CIRCLES: dict[str, Any] = {
    **{"kind": "manifolds", "dimension": 2, "active": 1.0, "most": 1.0, "exponent": 1.5},
    **{"exclusive": True, "subspaces": "orthogonal", "device": "cpu"},
}
K_1 = TrainedSparsity("k", 1.0, 1.0)


def circle_loss(n: int) -> float:
    """The least squared error of n atoms on a circle of which the best one is used."""
    return 1.0 if n == 0 else 0.75 if n == 1 else 0.5 - np.sin(2 * np.pi / n) / (4 * np.pi / n)


def dictionary(
    latents: int,
    features: int,
    counts: Sequence[int],
    loss: float,
    sparsity: TrainedSparsity = K_1,
    **fields: Any,
) -> Dictionary:
    """A dictionary of circles, all of whose latents fire."""
    given: dict[str, Any] = {"seed": 0, "objective": "topk", "store": f"circles-{features}"}
    latents_F = np.array([*counts, *[0] * (features - len(counts))])
    return Dictionary(
        run=f"run-{latents}",
        site="rows",
        subject="synthetic manifolds",
        latents=latents,
        fvu=loss,
        frequency_S=np.full(latents, 0.1),
        slope=None,
        near=None,
        like=None,
        shape=Shape("sphere", 2, features, 1.5),
        counts=Counts(latents_F, 0),
        sparsity=sparsity,
        setting=sparsity.text,
        **{**given, **fields},
    )


def best(latents: int, features: int) -> list[int]:
    """The best counts by trying each latent where it gains most, on the convex hull of the loss."""
    hull = Measured(range(65), [circle_loss(n) for n in range(65)])
    p = np.arange(1, features + 1) ** -1.5
    counts = np.zeros(features, int)
    for _ in range(latents):
        counts[(p * hull.gain(counts + 1.0)).argmax()] += 1
    return [int(count) for count in counts]


def test_a_dictionary_with_the_best_allocation_agrees_with_the_model() -> None:
    toys = [dictionary(n, 1, [n], circle_loss(n)) for n in range(1, 65)]
    given = [dictionary(n, 30, best(n, 30), 0.1) for n in (8, 16, 32, 64)]
    (found,) = mixtures(ScalingConfig(model=True), [*toys, *given])
    assert [point.measured for point in found.points] == [
        point.model.features for point in found.points if point.model
    ]
    assert "agree within 10%" in where_they_part(found)
    measured, model = found.exponents() or pytest.fail("there are four sizes")
    assert measured.slope == pytest.approx(model.slope)
    assert (beta := found.beta()) and beta.slope == pytest.approx(2, abs=0.05)


def test_a_dictionary_that_spreads_its_latents_parts_from_the_model() -> None:
    toys = [dictionary(n, 1, [n], circle_loss(n)) for n in range(1, 65)]
    spread = [dictionary(n, 64, [1] * n, 0.5) for n in (8, 16, 32, 64)]
    (found,) = mixtures(ScalingConfig(model=True), [*toys, *spread])
    told = where_they_part(found)
    assert "part by more than 10% at every N" in told
    model = found.points[-1].model
    assert model and f"dictionaries find {64 / model.features:.2f} times as many" in told
    assert f"has 1 of 64 latents, the model gives it {best(64, 64)[0]}" in told


def test_only_runs_trained_alike_give_the_loss_of_one_manifold() -> None:
    many = dictionary(16, 30, [4, 4, 4, 4], 0.3)
    others = [
        dictionary(4, 1, [4], 0.2, TrainedSparsity("k", 2.0, 2.0)),
        dictionary(4, 1, [4], 0.2, TrainedSparsity("l1", 1.0, 1.0)),
        dictionary(4, 1, [4], 0.2, objective="batch_topk"),
    ]
    (found,) = mixtures(ScalingConfig(model=True, beta=(0.5,)), [many, *others])
    assert found.curve is None and [name for name, _ in found.guesses] == ["beta 0.5"]
    assert where_they_part(found) == ""
    (found,) = mixtures(ScalingConfig(model=True), [many, *others, dictionary(4, 1, [4], 0.2)])
    assert found.curve and found.sizes == [4]
    alone = allocate(16, 0.5, [Kind(Measured([0, 4], [1.0, 0.2]))], 30)
    assert found.points[0].model == alone


def test_sparsities_are_compared_for_raw_rows() -> None:
    """Rows of 128 dimensions and of 2, both of norm 1: lambda 4 and 0.5 are the same."""
    wide: Any = {"site": "rows", "scales": {"rows": 128**0.5}, "width": 128, "objective": "relu_l1"}
    narrow = wide | {"scales": {"rows": 2**0.5}, "width": 2}
    one, other = sparsity_of(wide | {"l1": 4.0}), sparsity_of(narrow | {"l1": 0.5})
    assert one and other and one.raw == pytest.approx(other.raw) and one.text == "l1 4"
    assert same_sparsity(one, other) and penalty_of(narrow | {"l1": 0.5}) == Penalty("l1", one.raw)
    jump: Any = {"objective": "jumprelu", "l0": 0.1, "target_l0": 0.0}
    both = [sparsity_of(fields | jump) for fields in (wide, narrow)]
    assert both[0] and both[1] and both[0].raw == pytest.approx(0.1) == both[1].raw
    assert penalty_of(wide | jump | {"target_l0": 2.0}) == Penalty("unknown")
    assert penalty_of(wide | {"objective": "gated", "l1": 1.0}) == Penalty("unknown")
    imported = wide | {"l1": 4.0, "imported": {}}
    assert penalty_of(imported) == Penalty("unknown")
    assert not same_sparsity(sparsity_of(imported), one)
    assert sparsity_of({"objective": "made elsewhere"}) is None and not same_sparsity(None, None)


def test_losses_of_each_manifold(tmp_path: Path) -> None:
    """A dictionary that has the exact latents of one direction, of two that take turns."""
    config = SyntheticConfig(
        **{"kind": "features", "features": 2, "active": 0.5, "exponent": 0.0, "spread": 0.0},
        **{"width": 3, "rows": 8192, "home": str(tmp_path), "strongest": 2.0, "weakest": 2.0},
    )
    truth = open_truth(open_store(harvest(config).store))
    sae = SAE(3, 1, Sparsity("relu"), pre_bias=False)
    direction = torch.from_numpy(truth.directions_FdD[0, 0])
    with torch.no_grad():
        sae.W_dec.copy_(direction[None] * 2)
        sae.W_enc.copy_(direction[:, None] / 2)
        sae.b_enc.zero_()
        sae.b_dec.zero_()
    found = manifold_losses(sae, truth, Penalty("l1", 0.3), held_out=0.3)
    assert found.loss_F[0] == pytest.approx(0.3 * 2 / 4, abs=1e-5)  # the penalty alone
    cosine = float(truth.directions_FdD[0, 0] @ truth.directions_FdD[1, 0])
    left = 1 - max(cosine, 0) ** 2 + 0.3 * max(cosine, 0) / 2
    assert found.loss_F[1] == pytest.approx(left, abs=1e-5)
    assert found.fvu < found.total and 1000 < found.rows < 4000


def test_runs_beside_the_model(tmp_path: Path) -> None:
    """Harvest, train and study; and what cannot be counted is refused."""
    stores = {}
    for name, features in (("one", 1), ("many", 6)):
        config = SyntheticConfig(
            **CIRCLES, rows=4096, width=2 * features, features=features, name=name,
            home=str(tmp_path),
        )  # fmt: skip
        stores[name] = harvest(config).store
        for latents in (4, 8, 12):
            fields: dict[str, Any] = {"latents": latents, "k": 1, "steps": 60, "batch_size": 256}
            train(
                TrainConfig(
                    store=stores[name], home=str(tmp_path), device="cpu", lr=1e-2, bias="none",
                    name=f"{name}-{latents}", **fields,
                )
            )  # fmt: skip
    runs = tuple(f"{name}-{n}-" for name in ("one", "many") for n in (4, 8, 12))
    result = study("scaling", run=runs, home=str(tmp_path))
    (mixture,) = result.figures["mixtures"]
    assert (
        mixture["alpha"] == 0.5
        and mixture["setting"] == "k 1, 0.015 M vectors"
        and mixture["runs"] == 3
    )
    assert "exponent_measured" in mixture and " 12" in mixture["part"]
    last = result.figures["runs"][-1]
    assert last["loss"] == pytest.approx(last["fvu"], abs=0.02)
    assert f"predicted {MEASURED}" in last
    check(text := result.report.read_text())
    assert "Latents of each manifold" in text and mixture["part"][:30] in text
    wrong = train(
        TrainConfig(
            **{"store": stores["many"], "site": "truth.coordinates", "latents": 4, "k": 1},
            **{"steps": 5, "batch_size": 64, "name": "wrong", "home": str(tmp_path)},
            device="cpu",
        )
    )
    with pytest.raises(ConfigError, match=r"must be of its site rows; wrong-.* is of truth.coord"):
        study("scaling", run=(wrong.run.name,), home=str(tmp_path))
    Path(stores["many"]).rename(tmp_path / "away")
    with pytest.raises(ConfigError, match=r"the truth of many-4-.* its store many-.* is gone"):
        study("scaling", run=("many-4-",), home=str(tmp_path))
