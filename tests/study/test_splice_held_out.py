"""Splicing on images judges those that no run was trained on, as on text."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tendril.data import order
from tendril.data.errors import ConfigError, InputsNotFoundError
from tendril.harvest.config import HarvestConfig
from tendril.harvest.run import harvest
from tendril.models.dictionaries.checkpoint import save_dictionary
from tendril.models.dictionaries.sae import SAE
from tendril.models.dictionaries.sparsity import Sparsity
from tendril.models.subjects.load import load_subject
from tendril.study.core.study import StudyResult, run_study
from tendril.study.splice.config import SpliceConfig
from tendril.study.splice.study import SpliceStudy

ROOT = Path(__file__).parents[2]
SUBJECT = f"{ROOT / 'tests' / 'helpers' / 'splice_subject.py'}:make"
COUNT = 40


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A store of forty images, and runs that hold out a half, a quarter and nothing but one."""
    (tmp_path / "images").mkdir()
    for number in range(COUNT):
        pixels = np.random.default_rng(number).integers(0, 255, (8, 8, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number:02}.png")
    made = harvest(
        HarvestConfig(
            inputs=str(tmp_path / "images"),
            subject=SUBJECT,
            sites=("relu",),
            device="cpu",
            home=str(tmp_path),
        )
    )
    for name, fraction in (("half", 0.5), ("quarter", 0.25), ("little", 0.001)):
        save_run(tmp_path, name, made.store, fraction)
    return tmp_path


def save_run(home: Path, name: str, store: str | Path, fraction: float) -> None:
    sae = SAE(2, 2, Sparsity("relu"), pre_bias=False)
    with torch.no_grad():
        sae.W_enc.copy_(torch.eye(2))
        sae.W_dec.copy_(torch.eye(2))
    config = {
        "site": "relu",
        "subject": dict(load_subject(SUBJECT).identity),
        "store": Path(store).name,
        "store_path": str(store),
        "held_out": fraction,
    }
    save_dictionary(home / "runs" / name, sae, config)


def splice(home: Path, *run: str, **fields: object) -> StudyResult:
    given = {"run": run, "subject": SUBJECT, "device": "cpu", "home": str(home)}
    return run_study(SpliceStudy(), SpliceConfig(**(given | fields)))  # type: ignore[arg-type]


def aside(fraction: float) -> int:
    return int(order.held_out(np.arange(COUNT), fraction).sum())


@pytest.mark.parametrize(
    ("runs", "fraction"), [(["half"], 0.5), (["quarter"], 0.25), (["half", "quarter"], 0.25)]
)
@pytest.mark.parametrize("given", ["", "images", "store/../images", "."])
def test_only_images_that_no_run_was_trained_on_are_judged(
    home: Path,
    runs: Sequence[str],
    fraction: float,
    given: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    made = splice(home, *runs, inputs=str(home / given) if given else "")
    assert made.figures["images"] == aside(fraction) < COUNT
    assert made.figures["part"] == "held out of the training of every run"
    assert f"{aside(fraction)} of 40 images" in made.figures["source"]
    assert f"{aside(fraction)} held out" in made.table
    assert f"{aside(fraction)} images (held out)" in made.headline
    page = made.report.read_text()
    assert "held out of the training of every run" in page and "were trained on" not in page
    assert ("images judged are only" in capsys.readouterr().err) == (aside(fraction) < 20)


def test_the_images_judged_are_the_held_out_ones(home: Path) -> None:
    """Only those are left: what is judged does not change when the others do."""
    names = [f"{n:02}.png" for n in np.flatnonzero(order.held_out(np.arange(COUNT), 0.5))]
    (home / "copy").mkdir()
    for name in names:
        shutil.copy(home / "images" / name, home / "copy" / name)
    own, copied = (
        splice(home, "half").figures,
        splice(home, "half", inputs=str(home / "copy")).figures,
    )
    assert own["clean"] == copied["clean"] and own["zero"] == copied["zero"]
    assert copied["part"] == "no run was trained on images from there, or of these names"


def test_too_few_are_warned_of_or_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = splice(home, "little")
    assert made.figures["images"] == 1
    assert "the images judged are only 1," in capsys.readouterr().err
    assert "The images judged are only 1," in made.report.read_text()
    trained = [f"{n:02}.png" for n in np.flatnonzero(~order.held_out(np.arange(COUNT), 0.5))]
    for path in (home / "images").iterdir():
        if path.name not in trained:
            path.unlink()
    with pytest.raises(
        ConfigError, match=f"none of the {len(trained)} images of images is held out"
    ):
        splice(home, "half", inputs=str(home / "images"))


def test_copies_of_training_images_are_told_of(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(home / "images", home / "copy")
    made = splice(home, "half", inputs=str(home / "copy"))
    told = f"{COUNT - aside(0.5)} of 40 have the name of an image that a run was trained on"
    assert told in made.figures["part"] and told in made.report.read_text()
    assert told in capsys.readouterr().err and "perhaps trained on" in made.table


def test_it_is_said_where_it_is_not_known(home: Path) -> None:
    save_run(home, "orphan", home / "store" / "gone", 0.5)
    made = splice(home, "orphan", inputs=str(home / "images"))
    assert made.figures["images"] == COUNT and "is not known" in made.figures["part"]
    assert "is not known" in made.report.read_text() and "perhaps trained on" in made.table


def test_other_images_in_the_same_place_are_refused(home: Path) -> None:
    Image.new("RGB", (8, 8)).save(home / "images" / "00.png")
    with pytest.raises(InputsNotFoundError, match="cannot be told which of them are held out"):
        splice(home, "half")


def test_a_limit_draws_from_held_out_images(home: Path) -> None:
    made = splice(home, "half", limit=5)
    assert made.figures["images"] == 5 and made.figures["part"].startswith("held out")
    assert json.loads((made.report.parent / "result.json").read_text())["images"] == 5
