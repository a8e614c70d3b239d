"""The study of symmetry on a network of templates, whose orbits are known exactly."""

import csv
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tendril.data.errors import ConfigError, StoreNotFoundError
from tendril.data.group.dihedral import Dihedral
from tendril.data.store.reader import Store, open_store
from tendril.harvest.config import HarvestConfig
from tendril.harvest.run import harvest
from tendril.models.dictionaries.checkpoint import LATENTS, save_dictionary, write_tensors
from tendril.models.dictionaries.sae import SAE
from tendril.models.dictionaries.sparsity import Sparsity
from tendril.study.__main__ import main
from tendril.study.core.study import run_study
from tendril.study.measures import pose_images
from tendril.study.measures.curve_stimuli import draw_curve
from tendril.study.measures.feature_visualisation import Aim, Visualised
from tendril.study.measures.latent_families import directed
from tendril.study.measures.pose_images import poses
from tendril.study.measures.symmetry_thresholds import SymmetryThresholds
from tendril.study.page.render import render
from tendril.study.symmetry import page as symmetry_page
from tendril.study.symmetry.config import SymmetryConfig
from tendril.study.symmetry.findings import SymmetryFindings
from tendril.study.symmetry.study import SymmetryStudy

from ..helpers.study_subject import ORIENTATIONS
from .test_page import check

ROOT = Path(__file__).parents[2]
SUBJECT = f"{ROOT / 'tests' / 'helpers' / 'study_subject.py'}:make"
GROUP = Dihedral(8)  # whose turns take templates to templates
WIDTH, LINE, LIGHT, DEAD = 10, 8, 9, 14
LINES = (0.0, 45.0, 90.0, 135.0)
QUICK = {
    "radii": (6.0, 10.0, 16.0),
    "device": "cpu",
    "thresholds": SymmetryThresholds(quantile=0.5),
    "examples": 2,
    "visualise": 1,
}


def template_blocks() -> np.ndarray:
    """D[g] of curves, lines, light and a chiral latent, by what T_g makes of each."""
    blocks = np.zeros((DEAD + 1, len(GROUP), WIDTH), np.float32)
    for g in range(len(GROUP)):
        for i, angle in enumerate(ORIENTATIONS):
            blocks[i, g, round(directed(GROUP, g, angle) / 45) % 8] = 1
        for i, angle in enumerate(LINES):
            blocks[8 + i, g, LINE] = float(round(directed(GROUP, g, angle) / 45) % 4 == 0)
        blocks[12, g, LIGHT] = 1
    blocks[13:] = np.random.default_rng(5).normal(size=(2, len(GROUP), WIDTH))
    return blocks / np.sqrt((blocks**2).sum((1, 2), keepdims=True))


def template_run(store: Store, home: Path, name: str, blocks_FGD: np.ndarray) -> Path:
    """A run with those blocks, read by their transpose."""
    flat = torch.from_numpy(blocks_FGD).flatten(1)
    sae = SAE(flat.shape[1], len(flat), Sparsity("relu", 0), pre_bias=False)
    with torch.no_grad():
        sae.W_dec.copy_(flat)
        sae.W_enc.copy_(flat.T)
    run = home / "runs" / name
    config = {
        "site": "units",
        "held_out": 0.5,  # of eight images, so that there are some to test and some to choose by
        "store": store.name,
        "store_path": os.path.relpath(store.path, run),
        "subject": store.spec["subject"],
    }
    frequency = torch.full((len(flat),), 0.1)
    frequency[DEAD] = 0
    save_dictionary(run, sae, config, frequency)
    return run


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn curves, a store of their orbits, a run of known blocks and one of shuffled ones."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "images").mkdir()
    for orientation in ORIENTATIONS:
        grey = draw_curve(orientation, 10.0, "line", 64, (20.0, 40.0))
        image = Image.fromarray(np.round(255 * grey).astype(np.uint8))
        image.save(folder / "images" / f"bulge-{orientation:03.0f}.png")
    made = harvest(
        HarvestConfig(
            subject=SUBJECT,
            inputs=str(folder / "images"),
            sites=("units",),
            rotations=GROUP.rotations,
            turn="none",
            per_input="all",
            device="cpu",
            home=str(folder),
        )
    )
    store = open_store(made.store)
    template_run(store, folder, "templates-0", template_blocks())
    noise = np.random.default_rng(0).normal(size=template_blocks().shape).astype(np.float32)
    template_run(store, folder, "noise-0", noise)
    return folder


@pytest.fixture(scope="module")
def studied(home: Path) -> tuple[Path, dict]:
    """The report's folder, and the result that it holds."""
    config = SymmetryConfig(run="templates-0", controls=("noise-0",), home=str(home), **QUICK)
    with pytest.MonkeyPatch.context() as patch:  # images of this subject excite nothing
        patch.setattr(pose_images, "visualise", lambda patch, site, aims, **_: grey(aims))
        result = run_study(SymmetryStudy(), config)
    assert not result.reused
    assert run_study(SymmetryStudy(), config).reused
    folder = result.report.parent
    return folder, json.loads((folder / "result.json").read_text())


def test_every_latent_has_its_class_and_orientation(studied: tuple[Path, dict]) -> None:
    _, result = studied
    latents = {row["latent"]: row for row in result["latents"]}

    assert set(latents) == set(range(DEAD))  # the dead one is left out
    for i, angle in enumerate(ORIENTATIONS):
        assert latents[i]["class"] == "one reflection" and latents[i]["name"] == "curve"
        assert latents[i]["orientation"] % 360 == pytest.approx(angle, abs=0.5)
        assert latents[i]["fraction"] == pytest.approx(1)
    for i, angle in enumerate(LINES):
        assert latents[8 + i]["class"] == "both" and latents[8 + i]["stabiliser"] == "D2"
        assert latents[8 + i]["orientation"] % 90 == pytest.approx(angle % 90, abs=0.5)
    assert latents[12]["class"] == "invariant" and latents[13]["class"] == "chiral"
    assert result["axis_error_median"] < 3


def test_families_are_found_with_their_gaps(studied: tuple[Path, dict]) -> None:
    folder, result = studied
    with (folder / "families.csv").open() as file:
        rows = list(csv.DictReader(file))

    assert rows[0]["members"] == "0 1 2 3 4 5 6 7" and float(rows[0]["widest_gap"]) == 45
    assert sorted(float(d) % 360 for d in rows[0]["directions"].split()) == list(ORIENTATIONS)
    assert rows[1]["members"] == "8 9 10 11" and float(rows[1]["period"]) == 180
    assert result["largest_family"] == 8 and result["curve_gap"] == 45
    assert result["families_of_several"] == 2


def test_a_control_of_noise_has_no_symmetry(studied: tuple[Path, dict]) -> None:
    _, result = studied
    assert result["controls"] == {"noise-0": {"chiral": DEAD}}


def test_the_page_is_whole_and_shows_all(studied: tuple[Path, dict]) -> None:
    folder, _ = studied
    page = (folder / "index.html").read_text()
    checker = check(page)
    beside = {"../index.html", "latents.csv", "families.csv", "blocks.npz"}
    for address in checker.addresses:
        assert address.startswith(("data:image/", "#")) or address in beside, address[:60]
    assert beside <= set(checker.addresses), "tables are linked"
    assert {a.removeprefix("#") for a in checker.addresses if a.startswith("#")} <= checker.ids
    assert "tendril study symmetry --device cpu" in page
    assert "--run templates-0 --controls noise-0" in page
    assert page.count("optimised for the block") == len(poses(GROUP)) == 4
    assert "family-0" in checker.ids and page.count("bulge-") >= 4
    told = re.sub(r"base64,[^\"]*", "", page).split("Everything that determines")[0]
    assert re.search(r"(?<![\w#.])(nan|inf|None)(?![\w])", told) is None
    arrays = np.load(folder / "blocks.npz")
    assert arrays["correlation"].shape == (DEAD, len(GROUP))


def grey(aims: list[Aim]) -> list[Visualised]:
    """Images that do what they were made for, and tell by their cosine which channel that was."""
    pixels = np.full((8, 8, 3), 127, np.uint8)
    return [Visualised(a.name, pixels, 0.5 + int(a.direction.argmax()) / 100, 1.0) for a in aims]


def test_each_image_is_made_for_the_block_of_its_pose(studied: tuple[Path, dict]) -> None:
    folder, _ = studied
    shown = re.findall(
        r'alt="optimised for the block ([^"]*)" title="cosine with the block ([^"]*)"',
        (folder / "index.html").read_text(),
    )
    with (folder / "families.csv").open() as file:
        head = int(next(csv.DictReader(file))["head"])
    blocks_GD = template_blocks()[head]
    wanted = [
        (name, f"{0.5 + blocks_GD[g].argmax() / 100:.2f}") for g, name in poses(GROUP).items()
    ]
    assert shown == wanted
    assert len({cosine for _, cosine in shown}) > 2, "poses that differ"


def test_an_image_that_excites_nothing_is_not_shown(home: Path) -> None:
    config = SymmetryConfig(run="templates-0", home=str(home), **QUICK | {"examples": 0})
    page = run_study(SymmetryStudy(), config).report.read_text()
    assert "optimised for the block" not in page
    assert "For 1 of 1 families no image could be made" in page


def rendered(findings: SymmetryFindings) -> str:
    """The page with these findings."""
    common = {"title": "Symmetries", "command": "tendril", "identity": "{}", "tables": []}
    folder = Path(symmetry_page.__file__).parent
    return render(folder, {**common, **symmetry_page.context(findings)})


def test_examples_are_pose_normalised(home: Path) -> None:
    """Whatever direction a curve was photographed in, its bulge is up: the ends hang down."""
    study = SymmetryStudy()
    config = SymmetryConfig(run="templates-0", home=str(home), **QUICK | {"visualise": 0})
    findings = study.compute(config, study.find(config), torch.device("cpu"))
    (head,) = [f.head for f in findings.families if len(f.members) == 8]
    ink = 1 - findings.patches[head][0].pixels.mean(axis=2) / 255
    rows = np.arange(len(ink)) - (len(ink) - 1) / 2
    ink = np.where(np.hypot(rows[:, None], rows) < 0.35 * len(ink), ink, 0)  # within the fading

    assert (ink.sum(axis=1) @ rows) / ink.sum() > 0.5
    assert np.corrcoef(ink.ravel(), ink[:, ::-1].ravel())[0, 1] > 0.8
    alone = rendered(replace(findings, tuning=None, patches={}))
    assert "No shapes were shown" in alone and check(alone).ids


def test_examples_that_cannot_be_read_any_more_are_left_out(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: object) -> np.ndarray:
        raise AttributeError("decoder")

    study = SymmetryStudy()
    config = SymmetryConfig(run="templates-0", home=str(home), **QUICK | {"visualise": 0})
    found = study.find(config)
    assert found.vision.images is not None
    images = replace(found.vision.images, fetch=fails)
    found = replace(found, vision=replace(found.vision, images=images))
    findings = study.compute(config, found, torch.device("cpu"))
    assert findings.patches and not any(findings.patches.values())
    assert "cannot be read (AttributeError: decoder)" in capsys.readouterr().err
    assert check(rendered(replace(findings, tuning=None))).ids


def test_a_run_without_curves_shows_what_comes_nearest(home: Path) -> None:
    config = SymmetryConfig(run="noise-0", home=str(home), **QUICK | {"visualise": 0})
    result = run_study(SymmetryStudy(), config)
    page = result.report.read_text()
    assert result.figures["names"] == {}
    assert "No latent is a curve: fixed by exactly one reflection" in page
    assert "The nearest ones, with their class" in page and "Orientations of curves" not in page
    assert f"{DEAD} of {DEAD + 1} latents fire" in result.headline


def test_a_run_in_which_nothing_fires_has_a_page_too(home: Path) -> None:
    silent = home / "runs" / "silent-0"
    shutil.copytree(home / "runs" / "noise-0", silent)
    write_tensors(silent / LATENTS, {"frequency": torch.zeros(DEAD + 1)})
    config = SymmetryConfig(run="silent-0", home=str(home), **QUICK)
    result = run_study(SymmetryStudy(), config)
    page = result.report.read_text()
    check(page)
    assert result.figures["latents_alive"] == 0 and result.figures["families"] == 0
    assert "No latent fires on held-out orbits" in page and "<h2>Families" not in page
    shutil.rmtree(silent)  # other tests take the latest run


def test_the_rerun_command_finds_the_same_report(studied: tuple[Path, dict]) -> None:
    folder, _ = studied
    about = json.loads((folder / "about.json").read_text())
    words = shlex.split(about["command"])
    assert words[:3] == ["tendril", "study", "symmetry"]
    assert words[words.index("--controls") + 1] == "noise-0"
    outcome = main(words[2:])
    assert outcome.result["reused"] and outcome.result["report"] == str(folder / "index.html")


def test_a_dry_run_writes_nothing(home: Path) -> None:
    config = SymmetryConfig(run="templates-0", home=str(home), anchors=17, dry_run=True)
    result = run_study(SymmetryStudy(), config)
    assert result.dry_run and not result.reused and not result.report.parent.exists()


def test_the_order_of_runs_is_part_of_a_report(home: Path) -> None:
    study, folders = SymmetryStudy(), set()
    for run, control in (("templates-0", "noise-0"), ("noise-0", "templates-0")):
        config = SymmetryConfig(run=run, controls=(control,), home=str(home), dry_run=True)
        folders.add(run_study(study, config).report)
    assert len(folders) == 2


def test_rates_of_false_positives_are_measured_and_shown(studied: tuple[Path, dict]) -> None:
    folder, result = studied
    rates = result["false_positives"]
    assert list(rates) == [
        "raw anchors",
        *(f"{s} with random phases" for s in ("raw anchors", "latents")),
    ]
    for one in rates.values():
        assert one["total"] == sum(one["counts"].values())
    assert "False positives" in (folder / "index.html").read_text()


def test_a_control_whose_store_is_gone_is_refused(home: Path) -> None:
    lost = home / "runs" / "lost-0"
    shutil.copytree(home / "runs" / "noise-0", lost)
    config = json.loads((lost / "config.json").read_text())
    gone = config | {"store": "gone-0", "store_path": "../../store/gone-0"}
    (lost / "config.json").write_text(json.dumps(gone))
    with pytest.raises(StoreNotFoundError, match=r"gone-0 of the control lost-0 is gone"):
        config = SymmetryConfig(run="templates-0", controls=("lost-0",), home=str(home))
        run_study(SymmetryStudy(), config)
    shutil.rmtree(lost)


@pytest.mark.parametrize(
    ("flags", "error", "words"),
    [
        ({"thresholds": SymmetryThresholds(least=2.0)}, ConfigError, "--least"),
        ({"anchors": 1}, ConfigError, "--anchors"),
        ({"margin": -1.0}, ConfigError, "--margin"),
        ({"line_width": 0.0}, ConfigError, "--line-width"),
        ({"run": "", "subject": SUBJECT}, ConfigError, "--run must name a run"),
    ],
)
def test_what_cannot_be_used_is_told(home: Path, flags, error, words: str) -> None:
    with pytest.raises(error, match=words):
        run_study(
            SymmetryStudy(), SymmetryConfig(**{"run": "templates-0", "home": str(home), **flags})
        )


def test_the_command_ends_in_json_without_the_latents(home: Path) -> None:
    flags = ["--examples", "0", "--visualise", "0"]
    told = subprocess.run(
        [sys.executable, "-m", "tendril", "study", "symmetry", "--run", "noise-0", *flags],
        cwd=ROOT,
        env={**os.environ, "TENDRIL_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stderr
    result = json.loads(told.stdout.splitlines()[-1])
    assert Path(result["report"]).is_file() and "latents" not in result
