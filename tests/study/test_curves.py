"""The whole study on a network of templates: harvested, encoded, found, and told in a page."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tendril.data.errors import (
    ConfigError,
    RunNotFoundError,
    SubjectError,
    UnknownSiteError,
    WeightsError,
)
from tendril.data.store.reader import Store, open_store
from tendril.harvest.config import HarvestConfig
from tendril.harvest.run import harvest
from tendril.models.dictionaries.checkpoint import save_dictionary
from tendril.models.dictionaries.sae import SAE
from tendril.models.dictionaries.sparsity import Sparsity
from tendril.study.core.study import StudyResult, run_study
from tendril.study.curves.config import CurvesConfig
from tendril.study.curves.study import CurvesStudy
from tendril.study.measures.curve_scores import angle_between
from tendril.study.measures.curve_stimuli import draw_curve
from tendril.study.run import with_fields

from ..helpers.study_subject import ORIENTATIONS

ROOT = Path(__file__).parents[2]
SUBJECT = f"{ROOT / 'tests' / 'helpers' / 'study_subject.py'}:make"
WIDTH = 10
QUICK = {"orientation_step": 15.0, "radii": (6.0, 10.0, 16.0), "device": "cpu"}


def study_curves(config: CurvesConfig) -> StudyResult:
    return run_study(CurvesStudy(), config)


def curves(**fields: object) -> CurvesConfig:
    """A quick search, with fields of the config or of its search for curves."""
    config: CurvesConfig = with_fields(CurvesConfig(), {**QUICK, **fields})
    return config


def identity_dictionary(store: Store, home: Path) -> Path:
    """A run whose latent i is unit 9 - i, so that latents must score as units do."""
    sae = SAE(WIDTH, WIDTH, Sparsity("relu", 0), pre_bias=False)
    with torch.no_grad():
        sae.W_enc.copy_(torch.eye(WIDTH).flip(1))
        sae.W_dec.copy_(sae.W_enc.T)
    run = home / "runs" / "reversed-0123456789ab"
    config = {
        "site": "units",
        "held_out": 0.5,  # of a handful of images, none would be at the usual share
        "store": store.name,
        "store_path": os.path.relpath(store.path, run),
        "subject": store.spec["subject"],
    }
    save_dictionary(run, sae, config)
    (run / "metrics.csv").write_text("step,loss,fvu,l0,dead\n0,2.0,0.9,3,0.1\n20,1.0,0.5,3,\n")
    return run


def draw_inputs(folder: Path, at: tuple[float, float] = (20.0, 40.0)) -> None:
    """One image for each direction, with the curve's middle on the middle of a cell."""
    folder.mkdir(parents=True)
    for orientation in ORIENTATIONS:
        grey = draw_curve(orientation, 10.0, "line", 64, at)
        image = Image.fromarray(np.round(255 * grey).astype(np.uint8))
        image.save(folder / f"bulge-{orientation:03.0f}.png")


def make_home(folder: Path) -> Path:
    """A home with a store of templates over the drawn inputs in it, and a run on that."""
    made = harvest(
        HarvestConfig(
            subject=SUBJECT,
            inputs=str(folder / "images"),
            sites=("units",),
            per_input="all",
            device="cpu",
            home=str(folder),
        )
    )
    identity_dictionary(open_store(made.store), folder)
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with drawn inputs, a store of templates over them, and a run on it."""
    folder = tmp_path_factory.mktemp("home")
    draw_inputs(folder / "images")
    return make_home(folder)


def test_alone_it_studies_the_latest_run_from_what_its_store_says(home: Path):
    result = study_curves(curves(home=str(home)))
    told = result.figures
    assert [entry["unit"] for entry in told["curve_units"]] == list(range(8))
    assert [entry["latent"] for entry in told["curve_latents"]] == [9 - i for i in range(8)]
    for entry, orientation in zip(told["curve_units"], ORIENTATIONS, strict=True):
        assert angle_between(entry["orientation"], orientation) < 2.0
    for unit, latent in zip(told["curve_units"], told["curve_latents"], strict=True):
        assert unit["max"] == pytest.approx(latent["max"], rel=1e-4)
    assert told["gap_units"] == pytest.approx(45.0, abs=2.0)
    assert told["gap_latents"] == pytest.approx(told["gap_units"], abs=1e-6)
    report = result.report.parent
    assert {path.name for path in report.iterdir()} == {
        "about.json",
        "index.html",
        "latents.csv",
        "result.json",
        "tuning.npz",
        "units.csv",
    }
    with np.load(report / "tuning.npz") as arrays:
        assert arrays["units"].shape == (24, 3, 3, WIDTH)
        np.testing.assert_array_equal(arrays["units"], arrays["latents"][..., ::-1])
    page = result.report.read_text()
    assert "data:image/jpeg" in page and "FVU" in page
    about = json.loads((report / "about.json").read_text())
    assert f"--home {home}" in about["command"] and about["command"] in page


def test_examples_are_the_inputs_that_excite_and_the_pixels_the_cell_sees(home: Path):
    config, study = curves(home=str(home)), CurvesStudy()
    made = study.compute(config, study.find(config), torch.device("cpu"))
    for family in made.families:
        for member, orientation in zip(family.members, ORIENTATIONS, strict=True):
            best = family.patches[member][0]
            assert best.name == f"bulge-{orientation:03.0f}.png"
            drawn = draw_curve(orientation, 10.0, "line", 31, (15.0, 15.0))
            assert abs(best.pixels[..., 0] - np.round(255 * drawn)).max() <= 1


def test_a_second_time_it_returns_what_is_there_and_only_then(home: Path):
    config = curves(home=str(home))
    first = study_curves(config)
    before = first.report.stat().st_mtime_ns
    again = study_curves(config)
    assert again.reused and again.report.stat().st_mtime_ns == before
    assert again.figures == json.loads(json.dumps(first.figures))
    stricter = curves(home=str(home), strength=0.3)
    assert study_curves(stricter).report.parent != first.report.parent
    anew = study_curves(curves(home=str(home), overwrite=True))
    assert not anew.reused and anew.report == first.report


def test_units_alone_need_no_run(home: Path, tmp_path: Path):
    flags = {"subject": SUBJECT, "site": "units", "home": str(tmp_path)}
    told = study_curves(curves(run="", **flags))
    assert len(told.figures["curve_units"]) == 8
    assert told.figures["curve_latents"] == [] and told.figures["gap_latents"] is None
    assert "pass --store" in told.report.read_text()
    assert study_curves(curves(**flags)).reused
    store = next((home / "store").iterdir())
    with_examples = study_curves(curves(run="", store=str(store), **flags))
    assert "data:image/jpeg" in with_examples.report.read_text()


def test_inputs_that_are_gone_are_told_in_the_page(home: Path, monkeypatch: pytest.MonkeyPatch):
    attributes = next((home / "store").iterdir())
    store = open_store(attributes)
    monkeypatch.setitem(store.origin, "inputs", "../../photographs")
    monkeypatch.setattr("tendril.study.core.stores.open_store", lambda _path: store)
    result = study_curves(curves(home=str(home)))
    page = result.report.read_text()
    assert "pass --inputs" in page and "data:image/jpeg" not in page


@pytest.mark.parametrize(
    ("flags", "error", "told"),
    [
        ({"run": "nothing"}, RunNotFoundError, "reversed-0123456789ab"),
        ({"site": "match"}, RunNotFoundError, "match"),
        ({"run": "reversed", "site": "match"}, ConfigError, "Leave --site out"),
        ({"run": "", "site": "units"}, SubjectError, "Pass --subject"),
        ({"run": "", "subject": SUBJECT}, ConfigError, "--site"),
        ({"run": "", "subject": SUBJECT, "site": "unit"}, UnknownSiteError, "units"),
        ({"orientation_step": 7.0}, ConfigError, "--orientation-step"),
        ({"radii": (-1.0,)}, ConfigError, "--radii"),
        ({"echo": 2.0}, ConfigError, "--echo"),
    ],
)
def test_mistakes_are_told_in_a_sentence(home: Path, flags, error, told: str):
    with pytest.raises(error, match=told) as raised:
        study_curves(curves(home=str(home), **flags))
    assert "\n" not in str(raised.value)


def test_weights_that_are_not_the_stores_are_refused(home: Path, tmp_path: Path):
    changed = (
        (ROOT / "tests" / "helpers" / "study_subject.py")
        .read_text()
        .replace("THRESHOLD = 0.5", "THRESHOLD = 0.4")
    )
    other = tmp_path / "study_subject.py"
    other.write_text(changed)
    with pytest.raises(WeightsError, match="was made with"):
        study_curves(curves(run="reversed", subject=f"{other}:make", home=str(home)))


def test_the_command_ends_in_json_and_mistakes_in_status_2(home: Path):
    words = [
        sys.executable,
        "-m",
        "tendril",
        "study",
        "curves",
        "--home",
        str(home),
        "--device",
        "cpu",
    ]
    grid = ["--orientation-step", "15", "--radii", "6", "10", "16"]
    done = subprocess.run([*words, *grid], capture_output=True, text=True, cwd=ROOT, check=True)
    told = json.loads(done.stdout.splitlines()[-1])
    assert {"report", "study", "gap_units", "gap_latents"} <= set(told)
    assert len(done.stdout.splitlines()[-1]) < 500
    assert {"seconds", "reused"} <= set(told)
    failed = subprocess.run(
        [*words, "--run", "nothing"], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert failed.returncode == 2
    assert failed.stderr.startswith("error: ") and "Traceback" not in failed.stderr


def test_parsing_imports_no_torch():
    code = "import tendril.study.__main__, sys; print('torch' in sys.modules)"
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert told.stdout.strip() == "False"
