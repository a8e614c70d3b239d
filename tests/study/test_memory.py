"""Runs and studies of networks and images that a Python program holds."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import tendril
from tendril.data.errors import ConfigError, InputsNotFoundError, SubjectError, WeightsError
from tendril.data.inputs import memory
from tendril.data.inputs.images import REMEMBERED as INPUTS
from tendril.data.inputs.images import open_images
from tendril.harvest.call import harvest
from tendril.harvest.run import Harvest
from tendril.models.dictionaries.run import load_run
from tendril.models.subjects.load import load_subject
from tendril.models.subjects.subject import REMEMBERED as NETWORKS
from tendril.study.call import study
from tendril.study.core.study import StudyResult
from tendril.study.measures.image_maps import NetworkVectors
from tendril.train.call import train
from tendril.train.loop import TrainResult

from ..helpers.mine import network

MINE = f"{Path(__file__).parents[1] / 'helpers' / 'mine.py'}:network"
SIZE, COUNT = 32, 30
WORDS = ["red" if i % 2 else "green" for i in range(COUNT)]
TRAINING: dict[str, Any] = {"latents": 24, "k": 3, "steps": 30, "batch_size": 64, "held_out": 0.2}


def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (40, 50, 3)).astype(np.uint8)) for _ in WORDS]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def made(home: Path) -> Harvest:
    return harvest(
        module=network().module,
        inputs=pictures(),
        input_size=SIZE,
        labels=WORDS,
        sites=["early", "late"],
        per_input=6,
        home=str(home),
        device="cpu",
    )


@pytest.fixture(scope="module")
def run(made: Harvest) -> TrainResult:
    return train(made, site="late", device="cpu", **TRAINING)


@pytest.fixture(scope="module")
def report(run: TrainResult) -> StudyResult:
    return study("features", run=run, device="cpu")


@pytest.fixture
def forgotten() -> Any:
    """Another process, which holds nothing."""
    kept = dict(INPUTS), dict(NETWORKS)
    INPUTS.clear()
    NETWORKS.clear()
    yield
    INPUTS.update(kept[0])
    NETWORKS.update(kept[1])


def test_a_run_lies_in_the_home_of_its_store(home: Path, made: Harvest, run: TrainResult) -> None:
    assert run.run.parent == home / "runs"
    opened = made.open()
    for what in (opened, made.store, Path(made.store)):
        again = train(what, site="late", device="cpu", **TRAINING)
        assert (again.run, again.reused) == (run.run, True)
    config = tendril.TrainConfig(store=made.store, site="late", device="cpu", home=str(home))
    assert tendril.train(config, opened, **TRAINING).reused
    other = train(opened, recipe="pca", k=2, device="cpu")
    assert other.label.startswith("PCA")


def test_the_page_shows_the_images_and_their_classes(home: Path, report: StudyResult) -> None:
    assert report.report.parent.parent == home / "reports"
    assert report.figures["images"] == COUNT
    data = report.report.parent / "data"
    assert any(data.iterdir())
    assert "green" in report.report.read_text() + "".join(
        p.read_text() for p in data.rglob("*.js*")
    )


def test_the_page_is_that_of_a_file_and_a_folder(home: Path, report: StudyResult) -> None:
    folder = home / "images"
    for number, (image, word) in enumerate(zip(pictures(), WORDS, strict=True)):
        (folder / word).mkdir(parents=True, exist_ok=True)
        image.save(folder / word / f"{number:03}.png")
    order = sorted(range(COUNT), key=lambda i: (WORDS[i], i))
    shuffled = harvest(
        module=network().module,
        inputs=[pictures()[i] for i in order],
        input_size=SIZE,
        labels=[WORDS[i] for i in order],
        sites="late",
        home=str(home),
        device="cpu",
    )
    filed = harvest(subject=MINE, inputs=folder, sites="late", home=str(home), device="cpu")
    found = [
        study("features", run=train(store, device="cpu", **TRAINING), device="cpu").figures
        for store in (shuffled, filed)
    ]
    same = [{k: v for k, v in f.items() if k not in ("run", "store", "remarks")} for f in found]
    assert same[0] == same[1]


@pytest.mark.usefixtures("forgotten")
def test_another_process_says_what_to_pass_and_takes_it(home: Path, run: TrainResult) -> None:
    with pytest.raises(SubjectError, match=r"module=\.\.\. in Python, or --subject FILE.py:FUN"):
        study("features", run=run, name="again")
    options: dict[str, Any] = {"run": run, "name": "again", "device": "cpu"}
    with pytest.raises(WeightsError, match="was made with"):
        study("features", module=nn.Conv2d(3, 6, 3), **options)
    folder = home / "by name"
    folder.mkdir()
    for number, image in enumerate(pictures()):
        image.save(folder / f"{number:03}.png")
    by_file = study("features", subject=MINE, inputs=folder, **options)
    assert "note" not in by_file.figures
    assert not any("no dataset examples" in r for r in by_file.figures.get("remarks", []))
    without = study("features", subject=MINE, dry_run=True, **options)
    assert without.dry_run
    passed = study("features", module=network().module, inputs=pictures(), **options)
    assert passed.report == by_file.report
    assert passed.reused
    with pytest.raises(InputsNotFoundError, match="pass --inputs with those"):
        study("features", module=network().module, inputs=pictures()[::-1], **options)


def test_studies_give_the_network_the_same_floats_as_the_harvest(tmp_path: Path) -> None:
    images = torch.randn((9, 3, SIZE, SIZE), generator=torch.Generator().manual_seed(3))
    settings: dict[str, Any] = {"sites": "late", "dtype": "float32", "home": str(tmp_path)}
    done = harvest(module=network().module, inputs=images, per_input="all", **settings)
    store, numbers = done.open(), np.array([7, 2, 4])
    subject, source = load_subject(store.origin["subject"]), open_images(store.origin["inputs"])
    shown = {int(i): source.load(int(i), SIZE) for i in numbers}
    vectors = NetworkVectors(subject, ["late"], torch.device("cpu"), source)(numbers, shown)
    rows = torch.from_numpy(store.read("late", slice(None))).view(9, 64, 10)
    assert torch.allclose(vectors, rows[numbers], atol=1e-5)
    assert all(image.min() == 0 and image.max() == 255 for image in shown.values())


@pytest.mark.usefixtures("forgotten")
def test_saved_images_are_found_by_another_process(home: Path) -> None:
    class Damaged(list[Image.Image]):
        folder = "an attribute of many data sets"

        def __getitem__(self, index: Any) -> Any:
            if index == 3:
                raise OSError("damaged")
            return super().__getitem__(index)

    options: dict[str, Any] = {"module": network().module, "input_size": SIZE, "sites": "late"}
    options |= {"home": str(home), "device": "cpu", "inputs": Damaged(pictures())}
    plain = harvest(**options)
    saved = harvest(**options, limit=20, save_images=True)
    assert saved.store != plain.store
    assert saved.unreadable == plain.unreadable == 1
    run = train(saved, device="cpu", **TRAINING)
    INPUTS.clear()
    (folder,) = (home / "images").glob("images-*")
    assert len(list(folder.iterdir())) == 20
    found = study("features", run=run, module=network().module, device="cpu")
    options["inputs"] = Damaged(pictures())
    again = study("features", run=run, module=network().module, inputs=options["inputs"])
    assert (again.report, again.reused) == (found.report, True)
    assert not any("no dataset examples" in text for text in found.figures["remarks"])
    with pytest.raises(ConfigError, match="save_images needs images of 8 bits"):
        harvest(**(options | {"inputs": torch.randn(3, 3, SIZE, SIZE)}), save_images=True)


def test_a_study_is_an_attribute_whether_its_package_is_imported_or_not(run: TrainResult) -> None:
    code = (
        "import sys, warnings; warnings.simplefilter('error'); import tendril\n"
        "before = set(sys.modules)\n"
        "assert {'features', 'missing', 'compare'} <= set(dir(tendril.study))\n"
        "assert 'torch' not in sys.modules\n"
        "assert callable(tendril.study.features) and callable(tendril.study.missing)\n"
        "import tendril.study.compare.config as config\n"
        "assert callable(tendril.study.compare) and config.CompareConfig\n"
        "from tendril.study import curves\n"
        "assert callable(curves) and callable(tendril.study) and tendril.study.core\n"
        "assert not callable(tendril.study.core)\n"
        "import inspect, tendril.study as package\n"
        "assert 'quantiles' in inspect.signature(tendril.study.features).parameters\n"
        "assert 'module' in inspect.signature(tendril.harvest).parameters\n"
        "assert package is tendril.study\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    again = tendril.study.features(run, device="cpu")  # type: ignore[attr-defined]
    assert again.reused
    with pytest.raises(AttributeError, match="has no attribute 'feature'"):
        tendril.study.feature  # type: ignore[attr-defined]  # noqa: B018


def test_what_is_refused_in_a_sentence(home: Path, made: Harvest, run: TrainResult) -> None:
    with pytest.raises(ConfigError, match="latent must be a setting of TrainConfig"):
        train(made, latent=3)
    with pytest.raises(ConfigError, match="recipe must be one of topk"):
        train(made, recipe="top")
    with pytest.raises(ConfigError, match="must be a TrainConfig or a store"):
        train(3)
    with pytest.raises(ConfigError, match="preprocess must come with a module"):
        study("features", run=run, preprocess=lambda rgb: rgb)
    with pytest.raises(ConfigError, match="Did you mean features"):
        study("feature", run=run)


def test_the_oldest_networks_and_inputs_are_forgotten() -> None:
    for fill in range(memory.KEPT + 2):
        memory.remember(torch.full((2, 3, 8, 8), fill, dtype=torch.uint8), 8)
    assert len(INPUTS) == memory.KEPT


def test_what_python_and_a_notebook_show(
    made: Harvest, run: TrainResult, report: StudyResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, loaded = made.open(), load_run(run.run)
    told = {
        repr(made): "180 rows of early, late",
        repr(store): "180 rows of early, late from 30 inputs",
        repr(run): "TopK 24, k 3, late; FVU 0.",
        repr(loaded): "TopK 24, k 3, late; FVU 0.",
        repr(report): "of 24 latents are active somewhere in 180 positions",
        repr(tendril.load_dictionary(run.run)): "24 latents of vectors [10], topk, k 3",
    }
    for text, part in told.items():
        assert part in text
        assert "\n" not in text
    monkeypatch.chdir(report.report.parents[2])
    html = report._repr_html_()
    assert f"href='reports/{report.report.parent.name}/index.html'" in html
    monkeypatch.chdir("/")
    for card in (made, store, run, loaded):
        assert json.dumps(card._repr_html_()).count("<div") == 4
    assert "map 8 x 8" in store._repr_html_()
    assert "30 (memory)" in store._repr_html_()
