"""Joint tuning and feature visualisation, on a network of templates."""

import json

import numpy as np
import pytest
import torch

from tendril.data.errors import ConfigError
from tendril.study.joint_tuning.study import Detector, Joint, align, combine, study_joint
from tendril.study.missing_curves.config import JointConfig, VisualiseConfig
from tendril.study.visualise.study import shifted, study_visualise, toward

from .test_curves import QUICK, SUBJECT, home  # noqa: F401  the fixture

TURNS = np.arange(72) * 5.0


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
    joint = combine(told, curves, [1, 1, 1], [0, 1, 2])
    assert [d.index for d in joint.detectors] == [0, 2]
    np.testing.assert_allclose(np.diff(joint.orientations()), 30, atol=0.1)
    with pytest.raises(ConfigError, match="two detectors"):
        combine(told, curves, [1, 0, 0], [0, 1, 2])


def test_turned_drawings_agree_with_the_drawn_curves(home):  # noqa: F811
    config = JointConfig(run="reversed", home=str(home), images=1, step=5.0, latents=(9,), **QUICK)
    told = study_joint(config)
    assert len(told["detectors"]) == 9 and told["median_off"] < 2.0 and told["worst_off"] < 6.0
    assert {"unit", "latent"} <= set().union(*told["detectors"])
    page = next((home / "reports").glob("joint-*/index.html")).read_text()
    assert "study joint" in page and str(home) not in page
    again = study_joint(config)
    assert again["reused"] and again["detectors"] == json.loads(json.dumps(told["detectors"]))
    with pytest.raises(ConfigError, match="--latents"):
        study_joint(JointConfig(run="reversed", home=str(home), latents=(10,), **QUICK))


def test_images_excite_what_they_were_made_for(home, tmp_path):  # noqa: F811
    # no margin, so no shifts: these units answer in no place but one
    flags = {"run": "", "subject": SUBJECT, "site": "match", "device": "cpu", "margin": 0}
    both = study_visualise(VisualiseConfig(units=(0, 3), home=str(tmp_path), **flags))
    assert [one["of"] for one in both["made"]] == ["unit 0", "unit 3"]
    assert all(one["dot"] > 0.5 for one in both["made"])  # the drawn curve gives .5
    page = next((tmp_path / "reports").glob("visualise-*/index.html")).read_text()
    assert page.count("data:image/png") == 2
    few = [
        study_visualise(VisualiseConfig(units=units, steps=5, home=str(tmp_path), **flags))["made"]
        for units in ((0, 3), (3,))
    ]
    assert few[0][1]["of"] == few[1][0]["of"]
    assert few[0][1]["dot"] == pytest.approx(few[1][0]["dot"], abs=2e-3)
    with pytest.raises(ConfigError, match="--units"):
        study_visualise(VisualiseConfig(home=str(tmp_path), **flags))


def test_latents_are_shown_by_their_decoder_rows(home):  # noqa: F811
    told = study_visualise(
        VisualiseConfig(
            run="reversed", latents=(1,), steps=2, margin=2, home=str(home), device="cpu"
        )
    )
    assert told["made"][0]["of"] == "latent 1"


def test_the_objective_wants_the_direction_and_not_mere_length():
    aim = torch.tensor([[1.0, 0.0]])
    straight, long = torch.tensor([[2.0, 0.0]]), torch.tensor([[2.5, 9.0]])
    assert toward(straight, aim, 1.0) > toward(long, aim, 1.0)
    assert toward(straight, aim, 0.0) < toward(long, aim, 0.0)


def test_shifts_keep_the_size_and_a_lone_margin_of_none_the_image():
    image = torch.rand(2, 3, 31, 31)
    draw = torch.Generator().manual_seed(0)
    assert torch.equal(shifted(image, 31, 0, draw), image)
    assert shifted(torch.rand(2, 3, 47, 47), 31, 8, draw).shape == (2, 3, 31, 31)
