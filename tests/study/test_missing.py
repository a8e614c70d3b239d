"""Missing curve detectors: gaps, units taken apart, circles; then the whole on templates."""

import json
import shutil

import numpy as np
import pytest

from tendril.data.errors import ConfigError
from tendril.study.curves.findings import Family
from tendril.study.measures.circle import centred, measure_circle, principal, umap_then_pca
from tendril.study.measures.curve_scores import CurveThresholds, Gap
from tendril.study.missing_curves.config import MissingConfig
from tendril.study.missing_curves.decompose import doubled, explained, peaks, take_apart
from tendril.study.missing_curves.findings import answered, chance_gap, left_of
from tendril.study.missing_curves.study import study_missing

from .test_curves import QUICK, draw_inputs, make_home


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A home as of the study of curves, with each curve drawn in two places, so that most are
    in both parts of the store."""
    folder = tmp_path_factory.mktemp("home")
    draw_inputs(folder / "images" / "one")
    draw_inputs(folder / "images" / "two", (40.0, 20.0))
    return make_home(folder)


ANGLES = np.arange(0, 360, 5.0)


def bump(*orientations: float, heights: tuple[float, ...] = ()) -> np.ndarray:
    """A tuning curve with a peak at each orientation."""
    tall = heights or (1.0,) * len(orientations)
    each = [
        height * np.exp(12 * (np.cos(np.deg2rad(ANGLES - at)) - 1))
        for at, height in zip(orientations, tall, strict=True)
    ]
    return np.sum(each, axis=0)


def test_peaks_are_told_highest_first_and_only_where_the_curve_falls_between():
    assert peaks(bump(30), ANGLES.tolist()) == [30]
    assert peaks(bump(30, 150, heights=(0.6, 1.0)), ANGLES.tolist()) == [150, 30]
    assert peaks(bump(30, 150, heights=(0.2, 1.0)), ANGLES.tolist()) == [150]
    assert len(peaks(bump(30, 55), ANGLES.tolist())) == 1  # no dip between
    assert peaks(np.zeros(72), ANGLES.tolist()) == []
    assert peaks(bump(350, 90), ANGLES.tolist()) in ([350, 90], [90, 350])


def test_a_line_is_no_double_curve():
    assert doubled([30.0, 150.0])
    assert not doubled([30.0, 205.0])
    assert not doubled([30.0])


def test_what_is_left_of_a_gap():
    gap = Gap(340.0, 60.0)
    assert left_of(gap, []) == 60
    assert left_of(gap, [0.0]) == 40
    assert left_of(gap, [350.0, 10.0, 25.0]) == 20
    assert left_of(gap, [100.0, 339.0]) == 60


def test_the_gap_by_chance_is_that_of_directions_drawn_at_random():
    rng = np.random.default_rng(0)
    drawn = np.sort(rng.uniform(0, 360, (4000, 12)), axis=1)
    widest = np.diff(drawn, axis=1, append=drawn[:, :1] + 360).max(axis=1).mean()
    assert chance_gap(12) == pytest.approx(widest, rel=0.02)
    assert chance_gap(0) == 360


def mixture(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A unit that latents 3 and 7 write, and one that never does though it fires with 3."""
    rng = np.random.default_rng(seed)
    z_NS = np.maximum(rng.normal(size=(2000, 10)), 0) * (rng.uniform(size=(2000, 10)) < 0.3)
    z_NS[:, 5] = z_NS[:, 3]
    unit_N = 2 * z_NS[:, 3] + 1.2 * z_NS[:, 7] + 0.05 * rng.normal(size=2000)
    return unit_N, z_NS


def test_a_unit_comes_apart_into_the_latents_that_write_it():
    unit_N, z_NS = mixture(0)
    held_unit_M, held_z_MS = mixture(1)
    weights_S = np.full(10, 0.01)
    weights_S[[3, 7, 5]] = 2.0, 1.2, -1.0
    pieces = take_apart(unit_N, z_NS, weights_S, 3, held_unit_M, held_z_MS)
    assert [piece.latent for piece in pieces[:2]] == [3, 7]  # and not 5, which writes it down
    assert 0.5 < pieces[0].explained < 0.85
    assert pieces[1].explained == pytest.approx(0.995, abs=0.01)
    assert pieces[2].explained == pytest.approx(pieces[1].explained, abs=0.01)


def test_explained_is_measured_on_rows_that_were_not_fitted():
    rng = np.random.default_rng(0)
    noise_N, z_NK = rng.normal(size=40), rng.normal(size=(40, 20))
    assert explained(noise_N, z_NK, noise_N, z_NK) > 0.3
    assert explained(noise_N, z_NK, rng.normal(size=400), rng.normal(size=(400, 20))) < 0


def circle_rows(modes: int = 1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    theta = np.sort(rng.uniform(0, 360, 40))
    phase = np.deg2rad(theta)
    flat = np.stack([np.cos(modes * phase), np.sin(modes * phase)], axis=1)
    spread = np.linalg.qr(rng.normal(size=(24, 2)))[0]
    return 3 + flat @ spread.T + 0.02 * rng.normal(size=(40, 24)), theta


def test_a_circle_is_told_from_what_has_no_order():
    rows, theta = circle_rows()
    found = measure_circle(rows, theta.tolist())
    assert found is not None and found.order > 0.97 and found.chance < 0.5
    assert found.modes[0] > 0.8 and found.modes_chance < 0.12
    rng = np.random.default_rng(1)
    nothing = measure_circle(rng.normal(size=(40, 24)), theta.tolist())
    assert nothing is not None and nothing.order < 0.5 and nothing.modes[0] < 0.15
    assert measure_circle(rows[:5], theta[:5].tolist()) is None


def test_a_circle_gone_round_twice_is_the_second_mode():
    rows, theta = circle_rows(modes=2)
    found = measure_circle(rows, theta.tolist())
    assert found is not None and found.order < 0.5 and int(np.argmax(found.modes)) == 1


def test_principal_components_keep_lengths_and_signs():
    rows, _ = circle_rows()
    x_SD = centred(rows)
    np.testing.assert_allclose(np.linalg.norm(principal(x_SD, 24)), np.linalg.norm(x_SD), rtol=1e-9)
    np.testing.assert_allclose(principal(x_SD, 2), principal(x_SD.copy(), 2))


@pytest.mark.slow
def test_umap_is_the_same_for_a_seed():
    rows, _ = circle_rows()
    first, again = umap_then_pca(rows), umap_then_pca(rows)
    assert first.shape == (40, 3)
    np.testing.assert_array_equal(first, again)


def test_the_whole_study_on_templates(home):
    config = MissingConfig(
        run=("reversed",),
        home=str(home),
        device="cpu",
        umap=False,
        orientation_step=QUICK["orientation_step"],
        radii=QUICK["radii"],
        units=(2,),
        pieces=2,
        examples=1,
        rows=1000,
    )
    told = study_missing(config)
    (site,) = told["sites"]
    assert site["curve_units"] == 8 and site["runs"][0]["curve_latents"] == 8
    assert site["gap_latents"] == [pytest.approx(site["gap_units"], abs=0.1)]
    (apart,) = site["apart"]
    assert apart["latents"][0] == 7  # latent 9 - i is unit i
    assert apart["explained"][0] > 0.99
    page = (home / "reports").rglob("index.html")
    text = next(p for p in page if p.parent.name.startswith("missing")).read_text()
    assert "latent 7" in text and "data:image/jpeg" in text and str(home) not in text
    again = study_missing(config)
    assert again["reused"] and again["sites"] == json.loads(json.dumps(told["sites"]))


def test_a_latent_that_no_curve_turns_on_has_no_orientation():
    responses = np.zeros((36, 1, 1, 2), np.float32)
    responses[9, :, :, 1] = 1.0
    angles = np.arange(0.0, 360.0, 10.0)
    family = Family("latent", responses, angles, np.array([30.0]), ("edge",), CurveThresholds())
    assert answered(family, 0) is None
    assert answered(family, 1) == pytest.approx(90.0)


def test_mistakes_are_told_in_a_sentence(home):
    quick = {"home": str(home), **QUICK}
    with pytest.raises(ConfigError, match="--run"):
        study_missing(MissingConfig(run=(), **quick))
    with pytest.raises(ConfigError, match="--units"):
        study_missing(MissingConfig(run=("reversed",), units=(10,), umap=False, **quick))


def test_a_run_that_kept_no_input_back_is_told_so(home):
    kept, none = (home / "runs" / f"{name}-0123456789ab" for name in ("reversed", "greedy"))
    shutil.copytree(kept, none)
    trained = json.loads((none / "config.json").read_text())
    (none / "config.json").write_text(json.dumps(trained | {"held_out": 1e-9}))
    with pytest.raises(ConfigError, match=r"kept 1e-09 of the inputs .* --most-units 0"):
        study_missing(
            MissingConfig(run=("greedy",), home=str(home), units=(2,), umap=False, **QUICK)
        )
