"""Missing curve detectors: gaps, decompositions, circles; then the whole study on templates."""

import json
import shlex
import shutil

import numpy as np
import pytest
import torch

from tendril.data.errors import ConfigError
from tendril.models.dictionaries.sae import SAE
from tendril.models.dictionaries.sparsity import Sparsity
from tendril.study.__main__ import main
from tendril.study.core.study import StudyResult, run_study
from tendril.study.measures.circle import centred, measure_circle, principal, umap_then_pca
from tendril.study.measures.curve_family import CurveFamily
from tendril.study.measures.curve_scores import CurveThresholds, Gap
from tendril.study.missing_curves.config import MissingConfig
from tendril.study.missing_curves.decompose import decompose, explained, peaks, two_curves
from tendril.study.missing_curves.findings import (
    Site,
    Trained,
    chance_gap,
    corrected,
    evident,
    gap_records,
    latent_records,
    preferred,
    remaining,
    study_figures,
    within,
)
from tendril.study.missing_curves.page import context
from tendril.study.missing_curves.study import MissingCurvesStudy
from tendril.study.missing_curves.words import sentence
from tendril.study.run import with_fields

from ..helpers.study_example import family
from .test_curves import QUICK, draw_inputs, make_home
from .test_page import check


def study_missing(**fields: object) -> StudyResult:
    """The study with a quick search for curves and without UMAP."""
    config: MissingConfig = with_fields(MissingConfig(), {**QUICK, "umap": False, **fields})
    return run_study(MissingCurvesStudy(), config)


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


def test_peaks_come_highest_first_and_only_where_the_curve_falls_between():
    assert peaks(bump(30), ANGLES.tolist()) == [30]
    assert peaks(bump(30, 150, heights=(0.6, 1.0)), ANGLES.tolist()) == [150, 30]
    assert peaks(bump(30, 150, heights=(0.2, 1.0)), ANGLES.tolist()) == [150]
    assert len(peaks(bump(30, 55), ANGLES.tolist())) == 1  # no dip between
    assert peaks(np.zeros(72), ANGLES.tolist()) == []
    assert peaks(bump(350, 90), ANGLES.tolist()) in ([350, 90], [90, 350])


def test_a_line_is_no_double_curve():
    assert two_curves([30.0, 150.0])
    assert not two_curves([30.0, 205.0])
    assert not two_curves([30.0])


def test_what_remains_of_a_gap():
    gap = Gap(340.0, 60.0)
    assert remaining(gap, []) == 60
    assert remaining(gap, [0.0]) == 40
    assert remaining(gap, [350.0, 10.0, 25.0]) == 20
    assert remaining(gap, [100.0, 339.0]) == 60
    assert [within(gap, at) for at in (340.0, 350.0, 0.0, 39.9, 40.0, 200.0)] == [
        *(False, True, True, True, False, False)
    ]


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


def test_a_unit_is_decomposed_into_the_latents_that_write_it():
    unit_N, z_NS = mixture(0)
    held_unit_M, held_z_MS = mixture(1)
    weights_S = np.full(10, 0.01)
    # latent 5 is active with the unit and has a negative weight
    weights_S[[3, 7, 5]] = 2.0, 1.2, -1.0
    components = decompose(unit_N, z_NS, weights_S, 3, held_unit_M, held_z_MS)
    assert [component.latent for component in components[:2]] == [
        3,
        7,
    ]
    assert 0.5 < components[0].explained < 0.85
    assert components[1].explained == pytest.approx(0.995, abs=0.01)
    assert components[2].explained == pytest.approx(components[1].explained, abs=0.01)


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
    fields = {
        **{"run": ("reversed",), "home": str(home), "units": (2,), "components": 2},
        **{"examples": 1, "rows": 1000},
    }
    assert not study_missing(**fields, dry_run=True).reused
    assert not (home / "reports").exists(), "a dry run writes nothing"
    result = study_missing(**fields)
    (site,) = result.figures["sites"]
    assert site["curve_units"] == 8 and site["runs"][0]["curve_latents"] == 8
    assert site["gap_latents"] == [pytest.approx(site["gap_units"], abs=0.1)]
    (decomposition,) = site["decompositions"]
    assert decomposition["latents"][0] == 7  # latent 9 - i is unit i
    assert decomposition["explained"][0] > 0.99
    text = result.report.read_text()
    check(text)
    assert "latent 7" in text and "data:image/jpeg" in text
    assert str(home) not in text.replace(f"--home {home}", "")
    again = study_missing(**fields)
    assert again.reused and again.figures == json.loads(json.dumps(result.figures))
    tables = {path.name for path in result.report.parent.glob("*.csv")}
    assert tables == {"latents.csv", "gaps.csv"}
    about = json.loads((result.report.parent / "about.json").read_text())
    rerun = main(shlex.split(about["command"])[2:])
    assert rerun.result["reused"] and rerun.result["report"] == str(result.report)
    assert rerun.result["curve_latents"] == 8 and "sites" not in rerun.result


def test_tables_hold_the_curve_latents_and_the_gaps_in_which_they_lie():
    units = family("unit", (10.0, 30.0, 100.0, 220.0), others=0)
    latents = family("latent", (20.0, 50.0, 150.0, 160.0, 300.0), others=0)
    width, count = units.responses.shape[-1], latents.responses.shape[-1]
    dictionary = SAE(width, count, Sparsity("relu", 0), pre_bias=False)
    run = Trained("run-0", "topk", "none", 7, 0.1, 0.5, dictionary, latents, None)
    site = Site("mixed3b", "planted", units, [run])
    assert [round(gap.degrees) for gap in site.gaps] == [70, 120, 150]
    rows = latent_records([site])
    assert [(row["latent"], row["seed"], row["gap"]) for row in rows] == [
        *((0, 7, ""), (1, 7, 1), (2, 7, 2), (3, 7, 2), (4, 7, 3))
    ]
    assert [round(float(row["orientation"])) for row in rows] == [20, 50, 150, 160, 300]
    gaps = gap_records([site])
    assert [(row["gap"], row["curve_latents"]) for row in gaps] == [(1, 1), (2, 2), (3, 1)]
    assert [round(float(row["remaining"])) for row in gaps] == [50, 60, 80]


def trained(
    name: str, latents: CurveFamily, objective: str = "topk", damage: str = "none"
) -> Trained:
    """A run with these curve latents."""
    count = latents.responses.shape[-1]
    dictionary = SAE(latents.responses.shape[-1], count, Sparsity("relu", 0), pre_bias=False)
    return Trained(name, objective, damage, 0, 0.1, 0.5, dictionary, latents, None)


def test_the_headline_follows_from_chance():
    at = (
        0.0,
        15.0,
        30.0,
        75.0,
        90.0,
        105.0,
        150.0,
        165.0,
        180.0,
        225.0,
        240.0,
        255.0,
        300.0,
        315.0,
    )
    units = family("unit", at, others=0)
    middles = (52.5, 127.5, 202.5, 277.5, 337.5)
    filling = trained("filling", family("latent", (*at, *middles), others=0))
    copying = trained("copying", family("latent", (*at, *(a + 4.0 for a in at[:5])), others=0))
    with torch.no_grad():  # the first 14 latents of each run copy the units
        for run in (filling, copying):
            run.dictionary.W_dec.copy_(torch.ones_like(run.dictionary.W_dec))
            run.dictionary.W_dec[:14] = torch.eye(run.dictionary.width)[:14]
    assert sum(filling.copies) == sum(copying.copies) == 14
    chance = trained(
        "random", family("latent", tuple(np.arange(0, 360, 11.0)), others=0), objective="random"
    )
    site = Site("mixed3b", "planted", units, [filling, copying, chance])
    found = site.chances
    assert set(found["filling"].control) == {"random"} and not found["random"].control
    assert found["filling"].surplus is not None and found["filling"].surplus.p < 0.02
    assert found["copying"].surplus is not None and found["copying"].surplus.p > 0.9
    assert evident([site]) == ["filling"]
    p = corrected([site])
    assert p["filling"] == pytest.approx(2 * found["filling"].surplus.p)
    assert "less than chance in 1 of 2 runs (P < 0.05, corrected for 2 runs)" in sentence(site, p)
    figures = study_figures([site])
    assert (figures["comparisons"], figures["below_chance"]) == (2, 1)
    only = Site("mixed3b", "planted", units, [copying])
    assert "Chance explains this (P ≥ 0.05)" in sentence(only, corrected([only]))


def test_a_damaged_run_is_a_control():
    latents = family("latent", (0.0, 90.0), others=0)
    assert trained("a", latents, damage="shuffled").control == "shuffled"
    assert trained("a", latents, objective="random").control == "random"
    assert not trained("a", latents).control


def test_the_table_names_damaged_runs_as_controls():
    units = family("unit", (0.0, 60.0, 180.0), others=1)
    latents = family("latent", (10.0, 90.0, 200.0), others=1)
    damages = ("none", "shuffled-units", "frozen-decoder")
    runs = [trained(f"run-{d}", latents, damage=d) for d in damages]
    site = Site("mixed3b", "planted", units, [*runs, trained("drawn", latents, "random")])
    (shown,) = context([site])["sites"]
    assert [row["objective"] for row in shown["runs"]] == [
        *("topk", "topk, shuffled-units", "topk, frozen-decoder", "random")
    ]
    assert [bool(row["control"]) for row in shown["runs"]] == [False, True, True, True]
    assert shown["controls"] == ["shuffled-units", "frozen-decoder", "random"]
    assert all(name in shown["control_text"] for name in shown["controls"])
    # only the run that is no control is compared with the controls
    assert [any(row["of_controls"]) for row in shown["runs"]] == [True, False, False, False]


def test_a_site_without_curve_detectors_shows_its_strongest_units(home):
    result = study_missing(run=("reversed",), home=str(home), resultant=1.0, orientation_step=5.0)
    (site,) = result.figures["sites"]
    assert site["curve_units"] == 0 and site["runs"][0]["curve_latents"] == 0
    text = result.report.read_text()
    check(text)
    assert "Strongest units" in text and "Strongest latents of reversed" in text
    assert "Units inside, latents outside" not in text
    assert not list(result.report.parent.glob("latents.csv"))


def test_a_latent_that_no_curve_activates_has_no_orientation():
    responses = np.zeros((36, 1, 1, 2), np.float32)
    responses[9, :, :, 1] = 1.0
    angles = np.arange(0.0, 360.0, 10.0)
    family = CurveFamily(
        "latent", responses, angles, np.array([30.0]), ("edge",), CurveThresholds()
    )
    assert preferred(family, 0) is None
    assert preferred(family, 1) == pytest.approx(90.0)


def test_mistakes_are_sentences(home):
    with pytest.raises(ConfigError, match="--run must give the name of a run; got 0"):
        study_missing(run=(), home=str(home))
    with pytest.raises(ConfigError, match="--units must be from 0 to 9 at units; got"):
        study_missing(run=("reversed",), units=(10,), home=str(home))
    with pytest.raises(ConfigError, match="--components must be 1 or more; got 0"):
        study_missing(run=("reversed",), components=0, home=str(home))


def test_a_run_without_held_out_inputs_is_named(home):
    kept, none = (home / "runs" / f"{name}-0123456789ab" for name in ("reversed", "greedy"))
    shutil.copytree(kept, none)
    trained = json.loads((none / "config.json").read_text())
    (none / "config.json").write_text(json.dumps(trained | {"held_out": 0.0}))
    with pytest.raises(ConfigError, match=r"held out a fraction of 0 .* --most-units 0"):
        study_missing(run=("greedy",), home=str(home), units=(2,))
