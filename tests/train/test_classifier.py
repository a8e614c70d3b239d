"""Training of classifiers: it learns, it stops and continues, and its run is a subject."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tendril.data.errors import ConfigError, RunDamagedError, RunNotFoundError, WeightsError
from tendril.data.home import RUN, find_run, network_place
from tendril.data.hub.layout import files_of
from tendril.data.listing.describe import overview
from tendril.data.listing.entries import list_entries
from tendril.harvest.__main__ import main as harvest_command
from tendril.models.subjects.classifiers import ClassifierSpec, build_classifier
from tendril.models.subjects.load import load_subject
from tendril.train.__main__ import main
from tendril.train.classifier.config import ClassifierConfig
from tendril.train.classifier.loop import train_classifier
from tendril.train.classifier.pixels import augmented, epoch_order, load_pictures, step_generator
from tendril.train.classifier.trainer import Trainer

from ..helpers.labelled import save_pictures

SMALL: dict[str, Any] = {"width": 4, "batch_size": 16, "lr": 0.05, "device": "cpu", "threads": 1}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("pictures")
    inputs = save_pictures(folder / "left-right.parquet", 128)
    tested = save_pictures(folder / "test.parquet", 60, seed=1)
    return {"inputs": inputs, "test_inputs": tested}


@pytest.fixture(scope="module")
def home(data: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a network that was trained on attacked images, by the command."""
    home = tmp_path_factory.mktemp("home")
    words = ["--inputs", data["inputs"], "--test-inputs", data["test_inputs"], "--width", "4"]
    words += ["--batch-size", "16", "--epochs", "5", "--lr", "0.05", "--device", "cpu"]
    words += ["--attack", "fgsm", "--epsilon", "0.05", "--attacked", "40", "--home", str(home)]
    made = main(["classifier", *words])
    assert made is not None
    assert made.sentence.startswith("Trained cnn, width 4, left-right, fgsm linf 0.05: ")
    assert made.next_command.startswith("tendril harvest images --subject cnn-left-right-fgsm")
    return home


def test_it_learns_and_its_figures_are_logged(home: Path) -> None:
    (run,) = (home / "runs").iterdir()
    figures = json.loads((run / "result.json").read_text())
    assert figures["accuracy"] > 0.95
    assert figures["accuracy_attacked"] > 0.9
    assert figures["attacked"] == 40  # of both classes, though the file is sorted by class
    assert figures["test_epsilon"] == 0.05
    rows = list(csv.DictReader((run / "metrics.csv").read_text().splitlines()))
    assert [int(row["step"]) for row in rows] == [40]  # log_every, and the end
    assert rows[-1]["epoch"] == "5"
    assert float(rows[-1]["lr"]) < 0.01
    (entry,) = list_entries(str(home))
    shown = overview(entry)
    assert shown["state"] == "finished"
    assert shown["accuracy"] == figures["accuracy"]
    assert shown["label"] == "cnn, width 4, left-right, fgsm linf 0.05"


def test_its_run_is_a_subject_by_name_and_path_and_no_dictionary(home: Path) -> None:
    (run,) = (home / "runs").iterdir()
    assert network_place("cnn-left", str(home)) == str(run)
    assert network_place(str(run)) == str(run)
    assert network_place("inceptionv1", str(home)) == "inceptionv1"
    subject = load_subject(str(run))
    assert subject.input_size == 28
    assert {"conv1", "relu1", "conv2", "hidden", "logits"} <= subject.sites.keys()
    rgb = torch.rand(2, 1, 28, 28).expand(2, 3, 28, 28)
    assert subject.module(subject.preprocess(rgb)).shape == (2, 2)
    with pytest.raises(
        RunNotFoundError, match="must be a dictionary; cnn-left is a trained network"
    ):
        find_run("cnn-left", str(home))
    with pytest.raises(RunNotFoundError, match="there is no run 'latest'"):
        find_run("latest", str(home))
    with pytest.raises(ConfigError, match="a trained network, which cannot be pushed"):
        files_of(RUN, run)


def test_a_harvest_of_it_trains_a_dictionary(home: Path, data: dict[str, str]) -> None:
    """From images to a dictionary of a network that was trained here."""
    words = ["images", "--subject", "cnn-left-right", "--inputs", data["test_inputs"], "--sites"]
    words += ["relu2", "--per-input", "4", "--positions", "uniform", "--device", "cpu"]
    made = harvest_command([*words, "--home", str(home), "--name", "rows"])
    assert made is not None
    assert made.result["rows"] == 240
    store = Path(str(made.result["store"])).name
    words = ["topk", "--store", store, "--latents", "16", "--k", "2", "--steps", "5"]
    trained = main([*words, "--batch-size", "32", "--device", "cpu", "--home", str(home)])
    assert trained is not None
    config = json.loads((Path(str(trained.result["run"])) / "config.json").read_text())
    assert config["subject"]["name"] == "cnn"
    origin = json.loads((home / "store" / store / "zarr.json").read_text())
    place = str(origin["attributes"]).partition("'subject': '../../runs/")
    assert place[1], origin["attributes"]  # found again from the store, wherever the home lies


def test_classes_are_left_out_by_name_or_number(tmp_path: Path) -> None:
    names = ("left", "right", "also right")
    words = {
        "inputs": save_pictures(tmp_path / "three.parquet", 90, names=names),
        "test_inputs": save_pictures(tmp_path / "test.parquet", 60, seed=1, names=names),
    }
    config = ClassifierConfig(**words | SMALL, epochs=3, left_out=("2",), home=str(tmp_path))
    made = train_classifier(config)
    assert made.run.name.startswith("cnn-three-without-2-")
    assert made.figures["label"] == "cnn, width 4, three, without 2"
    assert made.figures["images"] == 40 and made.figures["accuracy"] > 0.9
    read = {"limit": None, "size": 28, "channels": "auto", "flag": "--inputs"}
    data = load_pictures(words["inputs"], **read, left_out=("right",))  # type: ignore[arg-type]
    assert data.class_N.tolist() == [0] * 30 + [2] * 30
    with pytest.raises(ConfigError, match=r"by name or number; got 'up'\. The classes are left, "):
        train_classifier(replace(config, left_out=("up",)))
    with pytest.raises(ConfigError, match="must leave images of two classes or more"):
        train_classifier(replace(config, left_out=("0", "2")))
    assert "left_out" not in replace(config, left_out=()).identity()


@pytest.mark.parametrize("attack", ["none", "pgd"])
def test_a_stop_changes_nothing(
    attack: str, data: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = {"attack": attack, "epsilon": 0.05, "attack_steps": 2} if attack == "pgd" else {}
    network = "resnet8" if attack == "pgd" else "cnn"  # batch normalisation has a state, too
    config = ClassifierConfig(
        **data | SMALL | more,  # type: ignore[arg-type]
        limit=64,
        epochs=2,
        size=28,
        network=network,  # type: ignore[arg-type]
        flip=True,
        log_every=1,
        checkpoint_every=3,
        attacked=10,
        home=str(tmp_path / "whole"),
    )
    whole = train_classifier(config).run
    take = Trainer.take

    def stopping(trainer: Trainer) -> Any:
        if trainer.step == 5:
            raise KeyboardInterrupt
        return take(trainer)

    monkeypatch.setattr(Trainer, "take", stopping)
    other = replace(config, home=str(tmp_path / "other"))
    with pytest.raises(KeyboardInterrupt):
        train_classifier(other)
    monkeypatch.undo()
    stopped = train_classifier(other).run
    for name in ("network.safetensors", "metrics.csv"):
        assert (stopped / name).read_bytes() == (whole / name).read_bytes(), name
    first = load_file(whole / "network.safetensors")
    seeded = train_classifier(replace(config, seed=1)).run
    assert not torch.equal(
        first["conv1.weight"], load_file(seeded / "network.safetensors")["conv1.weight"]
    )
    assert train_classifier(config).reused


def test_shifted_and_mirrored_images_are_those_made_by_hand() -> None:
    x = torch.arange(1.0, 13).view(1, 1, 3, 4).repeat(400, 2, 1, 1)
    found = augmented(x, 1, True, step_generator(0, 0))
    options = set()
    for flipped in (x[:1], x[:1].flip(3)):
        padded = torch.nn.functional.pad(flipped, (1, 1, 1, 1))
        for r in range(3):
            for c in range(3):
                options.add(tuple(padded[0, 0, r : r + 3, c : c + 4].flatten().tolist()))
    seen = {tuple(image[0].flatten().tolist()) for image in found}
    assert seen == options  # all of them occur, and nothing else
    assert torch.equal(found[:, 0], found[:, 1])
    assert torch.equal(augmented(x, 0, False, step_generator(0, 0)), x)
    assert sorted(epoch_order(50, 0, 1).tolist()) == list(range(50))
    assert not torch.equal(epoch_order(50, 0, 1), epoch_order(50, 0, 2))


@pytest.mark.parametrize(("name", "layers"), [("resnet8", 8), ("resnet14", 14), ("resnet20", 20)])
def test_a_resnet_has_its_layers_and_width(name: str, layers: int) -> None:
    spec = ClassifierSpec(name, 8, 10, 32, 3, [0.5] * 3, [0.25] * 3)  # type: ignore[arg-type]
    network = build_classifier(spec, 3)
    convolutions = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d)]
    assert sum(m.kernel_size == (3, 3) for m in convolutions) + 1 == layers
    assert network(torch.rand(2, 3, 32, 32)).shape == (2, 10)
    assert [m.out_channels for m in convolutions][-1] == 32
    assert torch.equal(network.conv1.weight, build_classifier(spec, 3).conv1.weight)  # type: ignore[arg-type]


BAD = [
    ({"epsilon": 8.0, "attack": "pgd"}, "--epsilon must be in units of pixels in 0..1"),
    ({"epsilon": 100.0, "attack": "pgd", "norm": "l2"}, "from 0 to 28 for the norm l2; got 100"),
    ({"attack": "pgd"}, "--attack fgsm or pgd and an --epsilon above 0 belong together"),
    ({"epsilon": 0.1}, "belong together; got --attack none --epsilon 0.1"),
    ({"epochs": 0}, "--epochs must be at least 1; got 0"),
    ({"lr": 0.0}, "--lr must be above 0"),
    ({"size": 30}, "multiple of 4 pixels"),
    ({"inputs": ""}, "needs --inputs and --test-inputs"),
    ({"lr": 1e30, "epochs": 3}, "training diverged at step"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_bad_settings_are_a_sentence(
    change: dict[str, Any], message: str, data: dict[str, str], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message.replace(".", r"\.")):
        train_classifier(ClassifierConfig(**data | SMALL | change, limit=32, home=str(tmp_path)))


def test_images_without_classes_or_with_others_are_a_sentence(
    data: dict[str, str], tmp_path: Path
) -> None:
    from PIL import Image

    for label in "abc":
        (tmp_path / "three" / label).mkdir(parents=True)
        Image.new("L", (28, 28)).save(tmp_path / "three" / label / "0.png")
    config = ClassifierConfig(**data | SMALL, home=str(tmp_path))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"must have the classes of --inputs, left, right \(2"):
        train_classifier(replace(config, test_inputs=str(tmp_path / "three")))
    with pytest.raises(ConfigError, match="--inputs must have the class of each image"):
        train_classifier(replace(config, inputs=str(tmp_path / "three" / "a")))


def test_a_changed_network_is_refused(home: Path, tmp_path: Path) -> None:
    (run,) = (home / "runs").glob("cnn-*")
    copy = tmp_path / run.name
    copy.mkdir()
    for file in run.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    tensors = load_file(copy / "network.safetensors")
    save_file(tensors | {"extra": torch.zeros(2)}, copy / "network.safetensors")
    with pytest.raises(RunDamagedError, match="has changed"):
        load_subject(str(copy))
    (copy / "result.json").unlink()
    with pytest.raises(WeightsError, match="holds the tensor extra, which this network does not"):
        load_subject(str(copy))
