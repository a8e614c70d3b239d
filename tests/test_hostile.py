"""A store from somebody else runs no code, and nothing outside a folder is touched."""

import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tendril.data.errors import ConfigError, SubjectError, WeightsError
from tendril.data.listing.entries import at_path, exact_entry
from tendril.data.listing.remove import remove_entry
from tendril.data.store.atomic import write_whole
from tendril.data.store.reader import open_store
from tendril.harvest.config import HarvestConfig, VerifyConfig
from tendril.harvest.run import harvest
from tendril.harvest.verify import verify_deep
from tendril.harvest.vision_plan import VisionPlan
from tendril.models.dictionaries.checkpoint import read_config
from tendril.study.core.config import VisionConfig
from tendril.study.core.report import Report, write_csv
from tendril.study.core.vision_inputs import find_vision_inputs
from tendril.study.features.page import write_data
from tendril.train.config import TrainConfig
from tendril.train.loop import train
from tendril.train.sweep.config import SweepConfig
from tendril.train.sweep.sweep import sweep

from .harvest.test_run import MINE
from .study.test_features_page import made_up

EVIL = """
import os
from pathlib import Path

Path(os.environ["MARKER"]).write_text("code ran")
"""


@pytest.fixture
def marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that hostile code writes as soon as it runs."""
    monkeypatch.setenv("MARKER", str(tmp_path / "marker"))
    return tmp_path / "marker"


@pytest.fixture
def send(tmp_path: Path, marker: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Harvest and train with hostile code, name it in the store as given, and send the home."""

    def make(hint: str) -> Path:
        theirs = tmp_path / "theirs"
        (theirs / "photos").mkdir(parents=True)
        for i in range(6):
            pixels = np.random.default_rng(i).integers(0, 255, (40, 50, 3), np.uint8)
            Image.fromarray(pixels).save(theirs / "photos" / f"{i}.png")
        (theirs / "evil.py").write_text(Path(MINE).read_text() + EVIL)
        real = VisionPlan.origin
        with monkeypatch.context() as patch:
            patch.setenv("XDG_STATE_HOME", str(tmp_path / "their_state"))
            patch.setattr(VisionPlan, "origin", lambda plan: {**real(plan), "subject": hint})
            config = HarvestConfig(
                inputs=str(theirs / "photos"),
                subject=f"{theirs / 'evil.py'}:network",
                sites=("late",),
                per_input=20,
                device="cpu",
                home=str(theirs),
            )
            store = Path(harvest(config).store)
        settings = TrainConfig(
            store=str(store), steps=2, batch_size=8, latents=16, device="cpu", home=str(theirs)
        )
        train(settings)
        marker.unlink()
        mine = tmp_path / "mine"
        shutil.move(theirs, mine)
        return mine / "store" / store.name

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "my_state"))
    return make


def both(store: Path, subject: str = "") -> list[Callable[[], object]]:
    """The two commands that load the subject of a store again: deep verification and a study."""
    home = str(store.parents[1])
    check = VerifyConfig(store=str(store), subject=subject, home=home)
    study = VisionConfig(subject=subject, device="cpu", home=home)
    return [
        lambda: verify_deep(check, str(store)),
        lambda: find_vision_inputs(study, "latest"),
        lambda: find_vision_inputs(dataclasses.replace(study, store=str(store)), "", "late"),
    ]


@pytest.mark.parametrize("place", ["{store}", "{store}/records", "{run}", "{home}/reports/x"])
def test_code_inside_a_store_a_run_or_a_report_never_runs(
    place: str, send: Callable[[str], Path], marker: Path
) -> None:
    hints = {
        "{store}": "a.py:network",
        "{store}/records": "records/a.py:network",
        "{run}": "../../runs/a.py:network",
        "{home}/reports/x": "../../reports/x/a.py:network",
    }
    store = send(hints[place])
    file = (store / hints[place].partition(":")[0]).resolve()
    file.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(store.parents[1] / "evil.py", file)
    for load in both(store):
        with pytest.raises(SubjectError, match=r"must lie outside .* Its code was not run"):
            load()
    assert not marker.exists()


def test_a_link_into_or_out_of_the_store_does_not_help(
    send: Callable[[str], Path], marker: Path, tmp_path: Path
) -> None:
    store = send("link.py:network")
    evil = store.parents[1] / "evil.py"
    both(store, f"{evil}:network")[1]()  # the user names the file outside
    marker.unlink()
    (store / "link.py").symlink_to(evil)
    for load in both(store):
        with pytest.raises(SubjectError, match="Its code was not run"):
            load()
    assert not marker.exists()


@pytest.mark.parametrize("hint", ["../../evil.py:network", "evil.py:network"])
def test_code_beside_a_store_runs_once_the_user_has_named_it(
    hint: str, send: Callable[[str], Path], marker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = send(hint)
    monkeypatch.chdir(store.parents[1])
    for load in both(store):
        with pytest.raises(SubjectError, match=r"Its code was not run. Pass --subject .*evil\.py"):
            load()
    assert not marker.exists()
    both(store, "evil.py:network")[1]()
    assert marker.exists()
    for load in both(store):
        load()


def test_code_that_is_not_the_recorded_code_does_not_run(
    send: Callable[[str], Path], marker: Path
) -> None:
    store = send("../../evil.py:network")
    file = store.parents[1] / "evil.py"
    both(store, f"{file}:network")[1]()
    marker.unlink()
    file.write_text(file.read_text() + "# changed\n")
    for load in both(store):
        with pytest.raises(WeightsError, match=r"with SHA-256 .* Its code was not run"):
            load()
    assert not marker.exists()
    assert "file" in open_store(store).spec["subject"]
    runs = list((store.parents[1] / "runs").iterdir())
    assert read_config(runs[0])["subject"] == open_store(store).spec["subject"]


def test_a_model_folder_with_its_own_code_is_refused(
    tmp_path: Path, marker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tendril.models.subjects.language import language_subject, tokenizer_of

    from .helpers import tiny_language

    monkeypatch.setattr("builtins.input", lambda *_: "y")  # transformers would ask, and be told yes
    folder = tiny_language.save(tmp_path / "model")
    (folder / "evil.py").write_text(EVIL)
    for name, entry in (
        ("config.json", {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"}),
        ("tokenizer_config.json", {"AutoTokenizer": ["evil.T", None]}),
    ):
        content = json.loads((folder / name).read_text())
        changes = {"auto_map": entry, "model_type": "evil", "tokenizer_class": "Evil"}
        (folder / name).write_text(json.dumps(content | changes))
    for load in (language_subject, tokenizer_of):
        with pytest.raises(SubjectError, match=r"cannot be|no tokenizer"):
            load(str(folder))
    assert not marker.exists()


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder elsewhere with files of every kind that Tendril writes or removes."""
    folder = tmp_path / "outside"
    (folder / "late" / "c").mkdir(parents=True)
    for name in ("index.js", "000.js", "result.json", "config.json", "metrics.csv", "late/c/0"):
        (folder / name).write_text("precious")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def linked(link: Path, to: Path) -> None:
    """Replace a file or a folder by a symbolic link."""
    if link.is_dir():
        shutil.rmtree(link)
    link.unlink(missing_ok=True)
    link.symlink_to(to)


def harvest_again(tmp_path: Path, *, overwrite: bool = False) -> Path:
    (tmp_path / "photos").mkdir(parents=True, exist_ok=True)
    for i in range(6):
        pixels = np.random.default_rng(i).integers(0, 255, (40, 50, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{i}.png")
    config = HarvestConfig(
        inputs=str(tmp_path / "photos"),
        subject=f"{MINE}:network",
        sites=("late",),
        per_input=20,
        device="cpu",
        home=str(tmp_path),
        overwrite=overwrite,
    )
    return Path(harvest(config).store)


def unfinished(store: Path) -> None:
    """Make a store incomplete, as a harvest that was stopped leaves it."""
    root = json.loads((store / "zarr.json").read_text())
    root["attributes"]["tendril"]["complete"] = False
    (store / "zarr.json").write_text(json.dumps(root))
    shutil.rmtree(store / "records" / "00000")


@pytest.mark.parametrize("part", ["activations", "activations/late/c", "records", "statistics", ""])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_harvest_writes_and_removes_nothing_through_a_link(
    part: str, overwrite: bool, tmp_path: Path, outside: Path
) -> None:
    store = harvest_again(tmp_path)
    unfinished(store)
    if part in ("", "records"):
        shutil.copytree(store / part, outside / "kept")
        linked(store / part if part else store, outside / "kept")
    else:
        linked(store / part, outside)
    before = contents(outside)
    if overwrite and part:
        harvest_again(tmp_path, overwrite=True)
        assert not (store / part).is_symlink()
    else:
        with pytest.raises(ConfigError, match="symbolic link"):
            harvest_again(tmp_path, overwrite=overwrite)
    assert contents(outside) == before


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_harvest_refuses_a_folder_that_is_no_store(overwrite: bool, tmp_path: Path) -> None:
    store = harvest_again(tmp_path)
    shutil.rmtree(store)
    store.mkdir()
    assert harvest_again(tmp_path, overwrite=overwrite) == store  # an empty folder is no loss
    shutil.rmtree(store)
    store.mkdir()
    (store / "thesis.txt").write_text("precious")
    with pytest.raises(ConfigError, match="must be a store or absent"):
        harvest_again(tmp_path, overwrite=overwrite)
    assert contents(store) == {"thesis.txt": b"precious"}


def test_a_temporary_file_is_not_written_through_a_link(tmp_path: Path, outside: Path) -> None:
    aside = tmp_path / f"file.{os.getpid()}.part"
    aside.symlink_to(outside / "index.js")
    write_whole(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"new"
    assert (outside / "index.js").read_text() == "precious"


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("sweeping", [False, True])
def test_training_writes_and_removes_nothing_through_a_link(
    overwrite: bool, sweeping: bool, tmp_path: Path, outside: Path
) -> None:
    store = harvest_again(tmp_path)
    settings = TrainConfig(
        store=str(store), steps=2, batch_size=8, latents=16, device="cpu", home=str(tmp_path)
    )

    def again() -> Path:
        config = dataclasses.replace(settings, overwrite=overwrite)
        if sweeping:
            sweep(SweepConfig(base=config, objectives=("topk",), sparsities=("k=4",)))
            return next(p for p in (tmp_path / "runs").iterdir() if (p / "config.json").is_file())
        return train(config).run

    run, before = again(), contents(outside)
    (run / "result.json").unlink()
    linked(run / "metrics.csv", outside / "metrics.csv")
    if overwrite:
        again()
        assert not (run / "metrics.csv").is_symlink()
    else:
        with pytest.raises(ConfigError, match="must hold no symbolic links"):
            again()
    assert contents(outside) == before
    linked(run, outside)
    (outside / "result.json").unlink()
    before = contents(outside)
    with pytest.raises(ConfigError, match="symbolic link"):
        again()
    assert contents(outside) == before
    run.unlink()
    run.mkdir()
    (run / "thesis.txt").write_text("precious")
    if overwrite:
        with pytest.raises(ConfigError, match="must be a run"):
            again()
    assert (run / "thesis.txt").read_text() == "precious"


def test_a_report_is_written_through_no_link(tmp_path: Path, outside: Path) -> None:
    before = contents(outside)
    folder = tmp_path / "reports" / "features-0123456789ab"
    folder.mkdir(parents=True)
    (folder / "data").symlink_to(outside)
    (folder / "latents.csv").symlink_to(outside / "metrics.csv")
    with pytest.raises(ConfigError, match="symbolic link"):
        write_data(made_up(8, top=2, window=8), folder / "data")
    Report(folder).begin()
    write_data(made_up(8, top=2, window=8), folder / "data")
    write_csv(folder / "latents.csv", ["a"], [[1]])
    assert (folder / "data" / "index.js").is_file()
    linked(folder, outside)
    with pytest.raises(ConfigError, match="symbolic link"):
        Report(folder).begin()
    assert contents(outside) == before


def test_rm_removes_nothing_through_a_link(tmp_path: Path, outside: Path) -> None:
    store = harvest_again(tmp_path / "real")
    (store / "statistics" / "out").symlink_to(outside)
    before = contents(tmp_path)
    home = tmp_path / "home"
    home.mkdir()
    (home / "store").symlink_to(store.parent)
    for wanted in (store.name, f"{home}/store/{store.name}"):
        with pytest.raises(ConfigError, match="symbolic link"):
            remove_entry(exact_entry(wanted, str(home)))
    decoy = home / store.name  # what `store/../store/NAME` means if links are not resolved
    shutil.copytree(store, decoy, symlinks=True)
    (home / "deep").symlink_to(store)
    (entry,) = [at_path(f"{home}/deep/../{store.name}")]
    assert entry
    remove_entry(entry)
    assert decoy.is_dir() and not store.exists()
    assert contents(outside) == {
        k.removeprefix("outside/"): v for k, v in before.items() if k.startswith("outside/")
    }
