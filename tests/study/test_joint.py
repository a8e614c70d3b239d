"""Joint tuning and feature visualisation, on a network of templates."""

import json
import shlex

import numpy as np
import pytest
import torch

from tendril.data.errors import ConfigError
from tendril.study.__main__ import main
from tendril.study.core.study import StudyResult
from tendril.study.measures.feature_visualisation import shifted, toward
from tendril.study.measures.joint_orientations import Detector, Joint, combine
from tendril.study.measures.turned_patches import align
from tendril.study.run import study

from .test_curves import QUICK, SUBJECT, home  # noqa: F401  the fixture
from .test_page import check

TURNS = np.arange(72) * 5.0


def made_again(result: StudyResult) -> dict[str, object]:
    """What the command of a report's about.json gives; it must find the report."""
    about = json.loads((result.report.parent / "about.json").read_text())
    again = dict(main(shlex.split(about["command"])[2:]).result)
    assert again["reused"] and again["report"] == str(result.report)
    return again


def test_orientations_come_from_the_differences_between_peaks_alone():
    true = np.array([10.0, 60.0, 115.0, 160.0, 220.0, 290.0, 340.0])
    curves = np.stack(
        [np.exp(2 * (np.cos(np.deg2rad(TURNS[:, None] - (true - u))) - 1)) for u in true]
    )
    told = [Detector("unit", i, float(t), 60.0) for i, t in enumerate(true)]
    exact = Joint(told, curves, [1] * 7)
    np.testing.assert_allclose(exact.errors(), 0, atol=0.1)
    wrong = [Detector("unit", 3, 180.0, 60.0) if i == 3 else d for i, d in enumerate(told)]
    errors = Joint(wrong, curves, [1] * 7).errors()
    assert abs(errors[3] + 20 * 6 / 7) < 1.0 and np.abs(np.delete(errors, 3)).max() < 4


def test_patches_are_aligned_by_their_own_detectors_peak():
    bump = np.exp(4 * (np.cos(np.deg2rad(TURNS)) - 1))
    follower = np.roll(bump, 9)
    both = np.stack([bump, follower], axis=1)
    responses = np.stack([np.roll(both, shift, axis=0) for shift in (0, 13, 50)])
    np.testing.assert_allclose(align(responses, 0), both, atol=1e-9)
    np.testing.assert_allclose(align(responses, 1), np.roll(both, -9, axis=0), atol=1e-9)


def test_a_detector_that_answers_to_no_patch_of_its_own_is_left_out():
    told = [Detector("unit", i, 30.0 * i, 60.0) for i in range(3)]
    bump = np.exp(4 * (np.cos(np.deg2rad(TURNS)) - 1))
    loud = np.stack([bump, np.zeros_like(bump), np.roll(bump, 6)], axis=1)
    curves = [loud, loud, np.roll(loud, -6, axis=0)]
    joint = combine(told, curves, [1, 1, 1])
    assert [d.index for d in joint.detectors] == [0, 2]
    np.testing.assert_allclose(np.diff(joint.orientations()), 30, atol=0.1)
    with pytest.raises(ConfigError, match="two detectors"):
        combine(told, curves, [1, 0, 0])


def test_detectors_are_sorted_by_orientation():
    bump = np.exp(4 * (np.cos(np.deg2rad(TURNS)) - 1))
    told = [Detector("unit", i, at, 60.0) for i, at in enumerate((60.0, 0.0))]
    curves = [np.stack([np.roll(bump, s) for s in (0, -12)], axis=1), np.ones((72, 2))]
    joint = combine(told, curves, [3, 4])
    assert [d.index for d in joint.detectors] == [1, 0] and joint.patches == [4, 3]
    np.testing.assert_array_equal(joint.curves[1, :, 1], bump / bump.max())


def test_turned_drawings_agree_with_the_drawn_curves(home):  # noqa: F811
    fields = {"run": "reversed", "home": str(home), "images": 1, "step": 5.0, **QUICK}
    assert study("joint", **fields, latents=(9,), dry_run=True).dry_run
    assert not list((home / "reports").glob("joint-*")), "a dry run writes nothing"
    result = study("joint", **fields, latents=(9,))
    figures = result.figures
    assert len(figures["detectors"]) == 9
    assert figures["median_off"] < 2.0 and figures["worst_off"] < 6.0
    assert {"unit", "latent"} <= set().union(*figures["detectors"])
    page = result.report.read_text()
    check(page)
    assert "study joint" in page and str(home) not in page.replace(f"--home {home}", "")
    table = (result.report.parent / "detectors.csv").read_text().splitlines()
    assert len(table) == 10 and table[0].startswith("kind,index,orientation,")
    again = study("joint", **fields, latents=(9,))
    assert again.reused
    assert again.figures["detectors"] == json.loads(json.dumps(figures["detectors"]))
    assert made_again(result)["median_off"] == figures["median_off"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"latents": (10,)}, "--latents must be from 0 to 9; got"),
        ({"step": 7.0}, "--step must divide 360 degrees into at least 12 equal turns; got 7"),
        ({"images": 0}, "--images must be 1 or more; got 0"),
        ({"run": ""}, "--run must name a run"),
        ({"resultant": 1.0, "orientation_step": 5.0}, "needs two curve detectors; units has 0"),
    ],
)
def test_mistakes_of_joint_tuning_are_sentences(home, fields, message):  # noqa: F811
    with pytest.raises(ConfigError, match=message):
        study("joint", **{"run": "reversed", "home": str(home), **QUICK, **fields})


def test_images_excite_what_they_were_made_for(tmp_path):
    # no margin, so no shifts: these units respond at one place only
    fields = {"run": "", "subject": SUBJECT, "site": "match", "device": "cpu", "margin": 0}
    fields |= {"home": str(tmp_path)}
    assert study("visualise", **fields, units=(0, 3), dry_run=True).dry_run
    assert not (tmp_path / "reports").exists(), "a dry run writes nothing"
    result = study("visualise", **fields, units=(0, 3))
    both = result.figures["visualised"]
    assert [one["of"] for one in both] == ["unit 0", "unit 3"]
    assert all(one["dot"] > 0.5 for one in both)  # the drawn curve gives .5
    page = result.report.read_text()
    check(page)
    assert page.count("data:image/png") == 2
    assert study("visualise", **fields, units=(0, 3)).reused
    assert made_again(result)["images"] == 2
    few = [
        study("visualise", **fields, units=units, steps=5).figures["visualised"]
        for units in ((0, 3), (3,))
    ]
    assert few[0][1]["of"] == few[1][0]["of"]
    assert few[0][1]["dot"] == pytest.approx(few[1][0]["dot"], abs=2e-3)
    with pytest.raises(ConfigError, match="--units or --latents must say what to show"):
        study("visualise", **fields)
    with pytest.raises(ConfigError, match="--units must be from 0 to 9; got"):
        study("visualise", **fields, units=(10,))
    with pytest.raises(ConfigError, match="--latents must be those of a run"):
        study("visualise", **fields, latents=(1,))


def test_latents_are_shown_by_their_decoder_rows(home):  # noqa: F811
    fields = {"latents": (1,), "steps": 2, "margin": 2, "home": str(home), "device": "cpu"}
    result = study("visualise", run="latest", **fields)
    assert result.figures["visualised"][0]["of"] == "latent 1"
    assert study("visualise", run="reversed", **fields).reused
    made_again(result)


def test_the_objective_rewards_the_direction_more_than_length():
    aim = torch.tensor([[1.0, 0.0]])
    straight, long = torch.tensor([[2.0, 0.0]]), torch.tensor([[2.5, 9.0]])
    assert toward(straight, aim, 1.0) > toward(long, aim, 1.0)
    assert toward(straight, aim, 0.0) < toward(long, aim, 0.0)


def test_shifts_keep_the_size_and_a_lone_margin_of_none_the_image():
    image = torch.rand(2, 3, 31, 31)
    draw = torch.Generator().manual_seed(0)
    assert torch.equal(shifted(image, 31, 0, draw), image)
    assert shifted(torch.rand(2, 3, 47, 47), 31, 8, draw).shape == (2, 3, 31, 31)
