"""A store from somebody else runs no code, and nothing outside a folder is touched."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tendril.data.errors import SubjectError, WeightsError
from tendril.data.store.reader import open_store
from tendril.harvest.config import HarvestConfig, VerifyConfig
from tendril.harvest.run import harvest
from tendril.harvest.verify import verify_deep
from tendril.harvest.vision_plan import VisionPlan
from tendril.models.dictionaries.checkpoint import read_config
from tendril.study.core.config import VisionConfig
from tendril.study.core.vision_inputs import find_vision_inputs
from tendril.train.config import TrainConfig
from tendril.train.loop import train

from .harvest.test_run import MINE

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
