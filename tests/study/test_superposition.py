"""Toy models of superposition: training, attacks and their geometry, and the study's page."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tendril.data.errors import ConfigError
from tendril.study.measures.curve_shape import crossing, deepest_dip, plateaus
from tendril.study.measures.superposition import (
    State,
    Toys,
    Training,
    batch_gradients,
    blocks,
    draw,
    features_per_dimension,
    gradient_step,
    input_gradient,
    outputs,
    place,
    radius,
    start,
    stream,
    train_toys,
)
from tendril.study.measures.superposition_attacks import (
    analytic_directions,
    analytic_errors,
    correlation,
    harm,
    randomly_turned,
)
from tendril.study.measures.superposition_geometry import geometry, random_interference
from tendril.study.run import study
from tendril.study.superposition.config import SuperpositionConfig
from tendril.study.superposition.graph import graph
from tendril.study.superposition.sweep import read_state, state_path, traced_steps, trained_sweep

from .test_page import check

SMALL: dict[str, Any] = {
    **{"features": 8, "hidden": 2, "density": (1.0, 0.6, 0.4, 0.25, 0.15, 0.1)},
    **{"steps": 60, "batch": 16, "lr": 1e-2, "seeds": 2},
}
FOUR = ((1.0, 0.2, 1.0, 0.2), (False, False, True, True))


def some_toys(
    densities: Sequence[float], robust: Sequence[bool], dtype: torch.dtype = torch.float64
) -> Toys:
    """Models of 6 features in 3 dimensions with weights and biases at random."""
    generator = torch.Generator().manual_seed(5)
    W_MDF = torch.randn(len(densities), 3, 6, generator=generator, dtype=dtype) * 0.5
    b_MF = torch.randn(len(densities), 6, generator=generator, dtype=dtype) * 0.1
    return Toys(W_MDF, b_MF, torch.tensor(densities, dtype=dtype), robust)


def trained(densities: Sequence[float], robust: Sequence[bool], seed: int, steps: int) -> State:
    state = start(12, 4, densities, robust, seed)
    return train_toys(state, Training(steps, batch=16, lr=1e-2), seed, traced=(2, steps))


def test_batched_training_equals_training_one_model() -> None:
    densities, robust = FOUR
    together = trained(densities, robust, 0, 40)
    for m in range(4):
        alone = trained(densities[m : m + 1], robust[m : m + 1], 0, 40)
        torch.testing.assert_close(together.toys.W_MDF[m], alone.toys.W_MDF[0], rtol=0, atol=2e-5)
        torch.testing.assert_close(together.toys.b_MF[m], alone.toys.b_MF[0], rtol=0, atol=2e-5)
    assert [step for step, _ in together.trace] == [2, 40]
    apart = together.toys.W_MDF[1] - together.toys.W_MDF[3]
    assert apart.abs().max() > 1e-3  # the adversarially trained ones are others


def test_seeds_differ_and_repeat() -> None:
    """The generator reads 32 bits of its seed: larger strides would give every seed the same."""
    densities, robust = FOUR
    first, again, other = (trained(densities, robust, s, 3).toys.W_MDF for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert (first - other).abs().max() > 0.05
    for seed in (1, 2, 99):  # inputs of a step, too, from the same start
        state = start(12, 4, densities, robust, 0)
        moved = train_toys(state, Training(3, batch=16, lr=1e-2), seed).toys.W_MDF
        assert not torch.equal(first, moved)
    drawn = {float(torch.rand(1, generator=stream(n, s))) for n in ("start", "inputs", "directions")
             for s in (0, 1, 99)}  # fmt: skip
    assert len(drawn) == 9


def test_adam_and_the_gradients_are_those_of_torch() -> None:
    """Values and gradients of the written-out step, against autograd and torch.optim.Adam."""
    for robust in (False, True):
        densities = (1.0, 0.3)
        state = start(6, 3, densities, (robust, robust), 1)
        W, b = (v.clone().requires_grad_() for v in (state.toys.W_MDF, state.toys.b_MF))
        adam = torch.optim.Adam([W, b], lr=1e-2)
        generator = torch.Generator()
        for step in range(5):
            generator.manual_seed(40_000_000 + step)
            u_BF = torch.rand(8, 6, generator=generator)
            noise_BF = torch.randn(4, 6, generator=generator) * 0.01
            loss = torch.zeros(())
            for m, density in enumerate(densities):
                x = torch.where(u_BF < density, 1 - u_BF / density, 0.0)
                given = x
                if robust:
                    moved = (x[4:] + noise_BF).requires_grad_()
                    out = torch.relu(moved @ W[m].detach().T @ W[m].detach() + b[m].detach())
                    (grad,) = torch.autograd.grad((out - x[4:]).square().sum(), moved)
                    unit = grad / grad.norm(dim=1, keepdim=True).clamp_min(1e-12)
                    given = torch.cat([x[:4], x[4:] + 0.1 * x[4:].norm(dim=1).mean() * unit])
                loss = loss + (torch.relu(given @ W[m].T @ W[m] + b[m]) - x).square().mean()
            adam.zero_grad()
            loss.backward()
            adam.step()
        train_toys(state, Training(5, batch=8, lr=1e-2), 1)
        torch.testing.assert_close(state.toys.W_MDF, W.detach(), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(state.toys.b_MF, b.detach(), rtol=1e-4, atol=1e-5)


def test_the_gradient_of_the_attack_against_finite_differences() -> None:
    toys = some_toys((1.0, 0.5), (True, True))
    x_MBF = draw(toys.density_M, 7, 6, torch.Generator().manual_seed(0)).double()
    target_MBF = x_MBF + 0.1
    grad_MBF = input_gradient(toys, x_MBF, target_MBF)

    def half_error(x: torch.Tensor) -> torch.Tensor:
        return (outputs(toys, x) - target_MBF).square().sum(-1) / 2

    small = 1e-6
    for f in range(6):
        up, down = x_MBF.clone(), x_MBF.clone()
        up[..., f] += small
        down[..., f] -= small
        slope_MB = (half_error(up) - half_error(down)) / (2 * small)
        torch.testing.assert_close(grad_MBF[..., f], slope_MB, rtol=1e-5, atol=1e-7)


def test_the_attacks_have_their_norm_and_harm() -> None:
    toys = some_toys((1.0, 0.5), (False, False))
    x_MBF = draw(toys.density_M, 200, 6, torch.Generator().manual_seed(0)).double()
    noise_BF = torch.zeros(200, 6, dtype=torch.float64)
    radius_M = radius(x_MBF, 0.1)
    assert radius_M[0] == pytest.approx(0.1 * x_MBF[0].norm(dim=1).mean().item())
    step_MBF = gradient_step(toys, x_MBF, noise_BF, radius_M)
    norm_MB = step_MBF.norm(dim=-1)
    torch.testing.assert_close(norm_MB, radius_M[:, None].expand_as(norm_MB))

    def error(m: int, x: torch.Tensor) -> float:
        out_MBF = outputs(toys, torch.stack([x, x]))
        return float((out_MBF[m] - x_MBF[m]).square().sum(1).mean())

    unit_FF = analytic_directions(toys.W_MDF[0])
    gram_FF = toys.W_MDF[0].T @ toys.W_MDF[0]
    random_FF = torch.nn.functional.normalize(torch.randn(6, 6, dtype=torch.float64), dim=1)
    for m in range(2):
        clean = error(m, x_MBF[m])
        assert error(m, x_MBF[m] + step_MBF[m]) > clean
        norm = float(radius_M[m])
        each, single = analytic_errors(toys.W_MDF[m], toys.b_MF[m], x_MBF[m], norm)
        by_hand = [error(m, x_MBF[m] + norm * d) for d in analytic_directions(toys.W_MDF[m])]
        assert single == pytest.approx(max(by_hand)) and each >= single > clean
    raised = (unit_FF * gram_FF).sum(1)  # of output i by direction i
    assert (raised >= (random_FF * gram_FF).sum(1)).all()


def test_a_model_without_superposition_has_a_gain_of_one() -> None:
    """It copies some features and ignores the others."""
    W_MDF = torch.eye(3, 6)[None].repeat(2, 1, 1)
    toys = Toys(W_MDF, torch.zeros(2, 6), torch.tensor([1.0, 0.3]), (False, False))
    found = harm(toys, 4000, 0.1, 0)
    assert found.gain_AM[1:, 0] == pytest.approx(1.0, abs=0.02)
    assert (found.gain_AM <= 1.05).all()
    turned = randomly_turned(toys, 0)
    torch.testing.assert_close(features_per_dimension(turned.W_MDF), features_per_dimension(W_MDF))
    assert harm(turned, 4000, 0.1, 0).gain_AM[1, 0] != pytest.approx(1.0, abs=0.02)


def test_inputs_are_uniform_where_active() -> None:
    density_M = torch.tensor([1.0, 0.25])
    x_MBF = draw(density_M, 20_000, 4, torch.Generator().manual_seed(0))
    for x_BF, density in zip(x_MBF, density_M.tolist(), strict=True):
        active = x_BF[x_BF > 0]
        assert len(active) / x_BF.numel() == pytest.approx(density, abs=0.01)
        assert float(active.mean()) == pytest.approx(0.5, abs=0.01)
        assert float(active.var()) == pytest.approx(1 / 12, abs=0.01)
    assert torch.equal(place(torch.ones(1, 1), density_M), torch.zeros(2, 1, 1))
    assert blocks((False,) * 8 + (True,) * 3, 6) == [slice(0, 6), slice(6, 8), slice(8, 11)]
    with pytest.raises(AssertionError):
        stream("start", 100)
    densities, robust = FOUR
    assert batch_gradients(some_toys(*FOUR).part(slice(0, 2)), x_MBF[:, :8, :1].double().expand(
        -1, -1, 6), torch.zeros(4, 6).double(), 0.1)[0].shape == (2, 3, 6)  # fmt: skip
    assert len(densities) == len(robust)


def test_rare_features_become_an_antipodal_pair() -> None:
    """The known result for two features in one dimension: one is dropped, or both are opposite."""
    state = start(2, 1, (1.0, 0.05), (False, False), 0)
    toys = train_toys(state, Training(1500, batch=64, lr=1e-2), 0).toys
    size_M = features_per_dimension(toys.W_MDF)
    assert size_M[0] == pytest.approx(1.0, abs=0.1) and size_M[1] == pytest.approx(2.0, abs=0.15)
    form = geometry(toys.W_MDF[1].numpy())
    assert form.shapes == ["antipodal pair"] and form.antipodal == 1
    assert form.dimensionality_F == pytest.approx([0.5, 0.5], abs=0.03)


def test_geometry_of_known_shapes() -> None:
    angle = 2 * np.pi * np.arange(5) / 5
    W_DF = np.zeros((4, 10))
    W_DF[:2, :5] = np.cos(angle), np.sin(angle)
    W_DF[2, 5], W_DF[2, 6], W_DF[3, 7] = 1, -1, 1
    W_DF[3, 8] = 0.2  # too short to count
    form = geometry(W_DF)
    assert form.shapes == ["pentagon", "antipodal pair", "alone"]
    assert form.components == [(0, 1, 2, 3, 4), (5, 6), (7,)]
    assert form.dimensionality_F[:8] == pytest.approx([0.4] * 5 + [0.5] * 2 + [1 / 1.04])
    assert form.represented_F.sum() == 8 and form.antipodal == 0.25
    inside = 2 * (5 * np.cos(angle[1]) ** 2 + 5 * np.cos(angle[2]) ** 2)
    assert form.squared == pytest.approx(inside + 2 + 2 * 0.04)
    assert form.absolute > form.squared**0.5
    assert random_interference(np.eye(4)) == pytest.approx(3.0)
    drawn = graph(W_DF, form)
    assert len(drawn.nodes) == 8 and len(drawn.edges) == 5 + 1  # neighbours: cos^2 = 0.095
    assert sum(opposed for *_, opposed in drawn.edges) == 6
    assert all(0 < x < drawn.width and 0 < y < drawn.height for x, y in drawn.nodes)
    many = np.random.default_rng(0).normal(size=(4, 40)) / 2
    assert len(set(graph(many, geometry(many)).nodes)) == geometry(many).represented_F.sum()
    nothing = graph(0 * W_DF, geometry(0 * W_DF))
    assert not nothing.nodes and nothing.width > 0


def test_plateaus_transitions_and_dips() -> None:
    stairs = [1.0] * 7 + [1.5] + [2.0] * 7 + [2.5, 3.0, 3.5, 4.0]
    first, second = plateaus(stairs)
    assert (first.first, first.last, first.level) == (0, 6, 1.0)
    assert (second.first, second.last, second.level) == (8, 14, 2.0)
    assert plateaus(np.linspace(1, 4, 30)) == [] and plateaus([3.0, 2.0, 1.0]) == []
    assert crossing(np.arange(19.0), stairs, 2.2) == pytest.approx(14.4)
    assert np.isnan(crossing([0.0, 1.0, 2.0], [1.0, 2.0, 1.0], 1.5))
    dip = deepest_dip([1.0, 3.0, 2.0, 2.4, 5.0])
    assert dip and (dip.peak, dip.place) == (1, 2) and dip.depth == pytest.approx(1 / 3)
    assert deepest_dip([1.0, 2.0, 3.0]) is None and deepest_dip([1.0]) is None
    assert correlation([1.0, 2.0, 3.0], [2.0, 4.0, 6.0]) == pytest.approx(1)
    assert np.isnan(correlation([1.0, 1.0], [1.0, 2.0]))


def test_training_that_was_stopped_goes_on(tmp_path: Path) -> None:
    """The same bytes as without the stop; a file that is cut off is trained anew."""
    config = SuperpositionConfig(**SMALL, home=str(tmp_path / "a"))
    whole = trained_sweep(config, 1)
    other = SuperpositionConfig(**SMALL, home=str(tmp_path / "b"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tendril.study.superposition.sweep.EVERY", 0.0)
        patch.setattr("tendril.study.superposition.sweep.train_toys", _stopped)
        with pytest.raises(KeyboardInterrupt):
            trained_sweep(other, 1)
    densities = config.densities() * 2
    robust = (False,) * 6 + (True,) * 6
    begun = read_state(state_path(other, 1), densities, robust)
    assert begun and begun.step == 20
    again = trained_sweep(other, 1)
    assert torch.equal(whole.toys.W_MDF, again.toys.W_MDF) and again.step == 60
    assert [s for s, _ in whole.trace] == [s for s, _ in again.trace] == traced_steps(60)
    path = state_path(other, 1)
    path.write_bytes(path.read_bytes()[:100])
    assert read_state(path, densities, robust) is None


def test_training_that_diverges_is_an_error(tmp_path: Path) -> None:
    config = SuperpositionConfig(**SMALL, home=str(tmp_path))

    def diverge(state: State, *rest: Any, **named: Any) -> State:
        state.toys.W_MDF.fill_(float("nan"))
        return state

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tendril.study.superposition.sweep.train_toys", diverge)
        with pytest.raises(ConfigError, match="--lr must be small enough for weights to stay"):
            trained_sweep(config, 0)
    assert not state_path(config, 0).exists()


def _stopped(state: State, training: Training, seed: int, *, traced: Any, tell: Any) -> State:
    def stop(now: State) -> None:
        tell(now)
        if now.step == 20:
            raise KeyboardInterrupt

    return train_toys(state, training, seed, traced=traced, tell=stop)


def test_the_page(tmp_path: Path) -> None:
    result = study("superposition", home=str(tmp_path), **SMALL)
    figures = result.figures
    assert figures["models"] == 24 and figures["seeds"] == 2
    assert figures["robust_lower"] <= figures["robust_lower_of"] <= 12
    assert len(figures["transition_1_clean_seeds"]) == 2
    check(text := result.report.read_text())
    assert "2 seeds, 60 steps" in text and "random directions" in text
    lines = (result.report.parent / "models.csv").read_text().splitlines()
    assert len(lines) == 1 + 24 and lines[0].startswith("seed,training,density")
    saved = np.load(result.report.parent / "weights.npz")
    assert saved["W"].shape == (2, 2, 6, 2, 8) and len(saved["density"]) == 6
    assert study("superposition", home=str(tmp_path), **SMALL).reused
    one = study("superposition", home=str(tmp_path), **(SMALL | {"density": (0.3,), "seeds": 1}))
    assert one.figures["correlation_analytic_clean"] is None
    check(one.report.read_text())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hidden": 9}, "--hidden must be at most --features, 8; got 9"),
        ({"hidden": 0}, "--hidden must be 1 or more; got 0"),
        ({"features": 1}, "--features must be 2 or more; got 1"),
        ({"features": 5000}, "--features must be at most 1024; got 5,000"),
        ({"density": (0.5, 0.0)}, "--density must be numbers above 0 and at most 1; got 0"),
        ({"density": (1.2,)}, "--density must be numbers above 0 and at most 1; got 1.2"),
        ({"density": (0.5, 0.5)}, "--density must be different numbers"),
        ({"density": (float("nan"),)}, "density must be a finite number"),
        ({"attack": 0.0}, "--attack must be above 0 and at most 1; got 0"),
        ({"attack": 10.0}, "--attack must be above 0 and at most 1; got 10"),
        ({"steps": 0}, "--steps must be 1 or more; got 0"),
        ({"steps": 20_000_000}, "--steps must be at most 10,000,000; got 20,000,000"),
        ({"batch": 7}, "--batch must be an even number from 2, half of it attacked; got 7"),
        ({"lr": 0.0}, "--lr must be above 0 and at most 1; got 0"),
        ({"seeds": 0}, "--seeds must be 1 or more; got 0"),
        ({"seeds": 101}, "--seeds must be at most 100; got 101"),
    ],
)
def test_values_that_cannot_be_used(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        study("superposition", home=str(tmp_path), **(SMALL | fields))
