"""The command `tendril study splice`, on a network that tells three colours apart."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tendril.data.errors import ConfigError, InputsNotFoundError, UnreadableInputsError
from tendril.data.inputs.images import open_images
from tendril.models.dictionaries.checkpoint import save_dictionary
from tendril.models.dictionaries.sae import SAE
from tendril.models.dictionaries.sparsity import Sparsity
from tendril.models.subjects.load import load_subject
from tendril.study.__main__ import main
from tendril.study.core.image_labels import image_labels
from tendril.study.core.study import StudyResult, run_study
from tendril.study.splice.config import SpliceConfig
from tendril.study.splice.study import SpliceStudy

ROOT = Path(__file__).parents[2]
SUBJECT = f"{ROOT / 'tests' / 'helpers' / 'splice_subject.py'}:make"
IDS = ("c1_red", "c2_green", "c3_blue")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve images, a class list, and runs: a dictionary that gives all back, and one nothing."""
    home = tmp_path_factory.mktemp("home")
    (home / "images").mkdir()
    rng = np.random.default_rng(0)
    for number in range(12):
        pixels = rng.integers(0, 100, (8, 8, 3))
        pixels[..., number % 3] += 60
        colour = Image.fromarray(pixels.astype(np.uint8))
        colour.save(home / "images" / f"{IDS[number % 3]}_{number}.png")
    (home / "classes.txt").write_text("c1 red\nc2 green\nc3 blue, as the sky\n")
    for name, weight, site in (
        ("all", 1.0, "relu"),
        ("nothing", 0.0, "relu"),
        ("elsewhere", 1.0, "blue_relu"),
    ):
        sae = SAE(2, 2, Sparsity("relu"), pre_bias=False)
        with torch.no_grad():
            sae.W_enc.copy_(weight * torch.eye(2))
            sae.W_dec.copy_(weight * torch.eye(2))
        subject = dict(load_subject(SUBJECT).identity)
        save_dictionary(home / "runs" / name, sae, {"site": site, "subject": subject})
    return home


def config(home: Path, **fields: object) -> SpliceConfig:
    given: dict[str, object] = {
        "run": ("all", "nothing"),
        "subject": SUBJECT,
        "inputs": str(home / "images"),
        "labels": str(home / "classes.txt"),
        "batch_size": 5,
        "device": "cpu",
        "home": str(home),
    }
    return SpliceConfig(**(given | fields))  # type: ignore[arg-type]


def splice(config: SpliceConfig) -> StudyResult:
    return run_study(SpliceStudy(), config)


def test_all_is_recovered_by_the_identity_and_nothing_by_zero(home: Path) -> None:
    made = splice(config(home)).figures
    assert made["images"] == made["answers"] == 12
    assert made["labels"] == "file"
    assert made["clean"]["top1"] == 1.0
    everything, nothing = made["runs"]["all"], made["runs"]["nothing"]
    assert everything["fvu"] == 0
    assert everything["recovered_against_zero"]["cross_entropy"] == 1.0
    assert everything["recovered_against_mean"]["cross_entropy"] == 1.0
    assert everything["recovered_against_zero"]["top1"] == 1.0
    assert nothing["recovered_against_zero"]["cross_entropy"] == 0.0
    assert nothing["cross_entropy"] == made["zero"]["cross_entropy"]
    assert made["zero"]["top1"] == pytest.approx(1 / 3), "without red and green all is blue"
    assert made["zero"]["top5"] == 1.0, "of three classes all are among the first five"
    assert everything["recovered_against_zero"]["top5"] is None
    assert (made["best_run"], made["best_loss_recovered"]) == ("all", 1.0)


def test_images_that_cannot_be_read_are_left_out_and_named(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(home / "images", tmp_path / "whole")
    for number in range(6):  # whole batches, and each colour equally often
        (tmp_path / "whole" / f"{IDS[number % 3]}_{number}.png").unlink()
    shutil.copytree(tmp_path / "whole", tmp_path / "some")
    for number in range(6):
        (tmp_path / "some" / f"{IDS[number % 3]}_{number}.png").write_bytes(b"no image")
    whole = splice(config(home, inputs=str(tmp_path / "whole"), batch_size=2)).figures
    some = splice(config(home, inputs=str(tmp_path / "some"), batch_size=2)).figures
    assert some["images"] == some["answers"] == 6
    assert sorted(some["unreadable"]) == sorted(f"{IDS[n % 3]}_{n}.png" for n in range(6))
    assert "UnidentifiedImageError" in some["unreadable"]["c1_red_0.png"]
    assert capsys.readouterr().err.count("c1_red_0.png cannot be read") == 1
    for name in ("clean", "zero", "mean"):
        assert some[name] == pytest.approx(whole[name], rel=1e-5)
    assert "unreadable" not in whole
    for file in (tmp_path / "some").iterdir():
        file.write_bytes(b"no image")
    with pytest.raises(UnreadableInputsError, match="none of the 12 images"):
        splice(config(home, inputs=str(tmp_path / "some")))


def test_the_batch_size_changes_nothing(home: Path) -> None:
    one, other = (splice(config(home, batch_size=size, overwrite=True)).figures for size in (1, 12))
    for name in ("clean", "zero", "mean"):
        assert one[name] == pytest.approx(other[name], rel=1e-5)


def test_without_labels_the_subjects_answers_are_right_and_that_is_said(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = splice(config(home, labels="")).figures
    assert made["clean"]["top1"] == 1.0
    assert made["labels"] == "the subject's own first answers"
    assert "the subject's own first answer" in capsys.readouterr().err


def test_the_command_prints_a_table_and_json(home: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        fixed = ("--subject", SUBJECT, "--home", str(home), "--device", "cpu")
        return subprocess.run(
            [sys.executable, "-m", "tendril", "study", "splice", *fixed, *arguments],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )

    images = str(home / "images")
    done = run("--run", "all", "--inputs", images, "--labels", str(home / "classes.txt"))
    assert done.returncode == 0, done.stderr
    *table, _, following, last = done.stdout.splitlines()
    made = json.loads(last)
    assert (made["best_run"], made["best_loss_recovered"]) == ("all", 1.0)
    assert following == f"next: open {made['report']}"
    assert [line.split()[0] for line in table] == ["site", "clean", "zero", "mean", "all"]
    told = run("--run", "all")
    assert told.returncode == 2
    assert "pass --inputs" in told.stderr
    assert "Traceback" not in told.stderr


def test_the_page_says_which_images_and_the_report_is_reused(home: Path, tmp_path: Path) -> None:
    asked = config(home, limit=6, name="again")
    assert splice(config(home, limit=6, name="again", dry_run=True)).dry_run
    assert not list((home / "reports").glob("again-*")), "a dry run writes nothing"
    made = splice(asked)
    page = made.report.read_text()
    assert "a random sample of 6 images of images" in page
    assert 'class="bar"' in page
    assert (made.report.parent / "splice.csv").read_text().count("\n") == 6
    assert splice(asked).reused
    command = json.loads((made.report.parent / "about.json").read_text())["command"]
    told = main(shlex.split(command)[2:]).result
    assert told["reused"] and told["report"] == str(made.report)
    others = tmp_path / "classes.txt"
    others.write_text("c2\nc1\nc3\n")
    assert splice(config(home, limit=6, labels=str(others))).report != made.report
    whole = splice(config(home))
    assert "all 12 images of images" in whole.report.read_text()


def test_runs_of_two_sites_are_spliced_apart(home: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"of one site; got relu \(all\), blue_relu \(elsewhere\)"
    ):
        splice(config(home, run=("all", "elsewhere")))


def test_a_crosscoder_is_not_spliced(home: Path, tmp_path: Path) -> None:
    sae = SAE(3, 2, Sparsity("relu"), pre_bias=False)
    told = {"site": "relu+blue_relu", "sites": {"relu": 2, "blue_relu": 1}}
    save_dictionary(tmp_path / "joint", sae, told)
    with pytest.raises(ConfigError, match="joint is a crosscoder of the sites relu, blue_relu"):
        splice(config(home, run=(str(tmp_path / "joint"),)))
    save_dictionary(
        tmp_path / "turned", sae, {"site": "relu", "group": {"rotations": 4, "reflections": True}}
    )
    with pytest.raises(ConfigError, match="turned is a crosscoder over a group"):
        splice(config(home, run=(str(tmp_path / "turned"),)))


def test_labels_go_by_the_names_of_files_and_folders(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    for name in ("c2/one.png", "c1_two.png", "deep/c3/x_1.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(folder / name)
    classes = tmp_path / "classes.txt"
    classes.write_text("c1 red\nc2\nc3 blue\n")
    images = open_images(str(folder))
    named = {images.name(i): label for i, label in enumerate(image_labels(classes, images))}
    assert named == {"c2/one.png": 1, "c1_two.png": 0, "deep/c3/x_1.png": 2}
    classes.write_text("c1\nc2\n")
    with pytest.raises(ConfigError, match=r"image 'deep/c3/x_1\.png'"):
        image_labels(classes, images)
    with pytest.raises(InputsNotFoundError, match="is no file"):
        image_labels(tmp_path / "none.txt", images)


def test_a_real_network_is_spliced_at_a_site_of_four_modules(shared: Path, tmp_path: Path) -> None:
    """The identity at mixed3b's pre-activations, which are joined nowhere in the network."""
    weights = str(shared / "weights" / "inceptionv1_sibling.safetensors")
    subject = load_subject("inceptionv1", weights=weights)
    sae = SAE(480, 960, Sparsity("relu"), pre_bias=False)
    with torch.no_grad():
        both = torch.cat([torch.eye(480), -torch.eye(480)])
        sae.W_enc.copy_(both.T)
        sae.W_dec.copy_(both)
    told = {"site": "mixed3b_pre_relu", "subject": dict(subject.identity)}
    save_dictionary(tmp_path / "runs" / "identity", sae, told)
    made = splice(
        SpliceConfig(
            run=("identity",),
            subject="inceptionv1",
            weights=weights,
            inputs=str(shared / "images"),
            labels=str(shared / "weights" / "inceptionv1_classes.txt"),
            limit=16,
            device="cpu",
            home=str(tmp_path),
        )
    ).figures
    run = made["runs"]["identity"]
    assert made["clean"]["top1"] >= 0.6
    assert run["top1"] == made["clean"]["top1"]
    assert run["recovered_against_zero"]["cross_entropy"] == pytest.approx(1, abs=1e-4)
    assert made["zero"]["top1"] < 0.2
    assert 0 <= run["fvu"] < 1e-9
