"""`tendril harvest verify`: rows are recomputed, and differences are reported."""

import dataclasses
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tendril.data.cli import run_command
from tendril.data.errors import ConfigError, InputsNotFoundError, SubjectError, WeightsError
from tendril.data.store.reader import open_store
from tendril.harvest.__main__ import main
from tendril.harvest.config import HarvestConfig, VerifyConfig
from tendril.harvest.run import harvest
from tendril.harvest.verify import differences, verify_deep

from ..data.test_main import as_json
from ..helpers import arithmetic
from .test_run import MINE


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with photographs, one of them broken, and the subject's file beside them."""
    home = tmp_path_factory.mktemp("home")
    (home / "photos").mkdir()
    for i in range(9):
        pixels = np.random.default_rng(i).integers(0, 255, (40, 50, 3), np.uint8)
        Image.fromarray(pixels).save(home / "photos" / f"{i}.png")
    (home / "photos/4.png").write_bytes(b"broken")
    shutil.copy(MINE, home / "subject.py")
    return home


def harvested(at: Path, **changes: object) -> Path:
    config = HarvestConfig(
        inputs=str(at / "photos"),
        subject=f"{at / 'subject.py'}:network",
        sites=("late", "early"),
        per_input=5,
        batch_size=2,
        device="cpu",
        dtype="float32",
        home=str(at),
    )
    return Path(harvest(dataclasses.replace(config, **changes)).store)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def store(home: Path) -> Path:
    return harvested(home)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "int8"])
@pytest.mark.parametrize("per_input", [5, "all"])
def test_a_store_is_what_its_inputs_give(home: Path, dtype: str, per_input: object) -> None:
    path = harvested(home, dtype=dtype, per_input=per_input)
    found = verify_deep(VerifyConfig(store=str(path), rows=10_000), str(path))
    rows = open_store(path).column("valid").sum()
    assert (found.faults, found.moved, found.same_environment) == ([], 0, True)
    assert (found.rows, found.inputs) == (rows, 8)
    assert found.exact_rows == 2 * rows
    assert found.largest == {"late": 0.0, "early": 0.0}


def test_a_sample_is_whole_slices_and_a_function_of_the_seed(home: Path) -> None:
    path = harvested(home, per_input="all")

    def made(seed: int, rows: int) -> int:
        config = VerifyConfig(store=str(path), rows=rows, seed=seed)
        return verify_deep(config, str(path)).rows

    assert made(0, 1) in (64, 128)  # a slice of two inputs, one of which may be broken or last
    assert made(1, 256) >= 192


def test_the_command_says_so(
    home: Path,
    store: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for flags in (["--deep", "--json"], ["--deep"], ["--json"], []):
        monkeypatch.setattr(sys, "argv", ["harvest", "verify", str(store), *flags])
        with pytest.raises(SystemExit) as left:
            run_command(main)
        out, _ = capsys.readouterr()
        assert left.value.code == 0
        about = json.loads(out.splitlines()[-1])
        assert about["faults"] == ([] if "--json" in flags else 0)
        assert (len(out.splitlines()) == 1) == ("--json" in flags)
        if "--deep" in flags:
            assert (about["exact_fraction"], about["rows"]) == (1.0, 40)
        elif "--json" in flags:
            assert about["sites"]["late"]["valid_rows"] == 40


@pytest.fixture
def wrong(home: Path, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store whose rows are of another network than it says, checksums and all."""
    from tendril.harvest.vision_plan import VisionPlan

    real = VisionPlan.producer

    def altered(plan, inputs_per_slice):  # type: ignore[no-untyped-def]
        def produce(slices):  # type: ignore[no-untyped-def]
            for part in real(plan, inputs_per_slice)(slices):
                if 6 in part.inputs:
                    part.activations["early"][5 * (6 - part.inputs.start) + 2, 1] += 1
                yield part

        return produce

    with monkeypatch.context() as patch:
        patch.setattr(VisionPlan, "producer", altered)
        return harvested(home, home=str(tmp_path))


def test_a_row_that_differs_is_named(
    wrong: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    columns = {c: int(open_store(wrong).column(c)[32]) for c in ("y", "x")}
    place = f"row 32 (input 6, 6.png, y {columns['y']}, x {columns['x']}) at early differs"
    for flags in (["--json"], []):
        monkeypatch.setattr(sys, "argv", ["harvest", "verify", str(wrong), "--deep", *flags])
        with pytest.raises(SystemExit) as left:
            run_command(main)
        out, err = capsys.readouterr()
        assert left.value.code == 2
        assert place in err
        about = json.loads(out.splitlines()[-1])
        assert about["differing"] == 1
        assert about["exact_rows"] == 79
        if "--json" in flags:
            assert about["largest"]["early"] > 1e-3
            assert about["largest"]["late"] == 0
    monkeypatch.setattr(sys, "argv", ["harvest", "verify", str(wrong)])
    with pytest.raises(SystemExit) as left:
        run_command(main)  # what is on the disk is what was written
    assert left.value.code == 0


def test_another_environment_is_told_and_gets_the_wider_tolerance(store: Path) -> None:
    config = VerifyConfig(store=str(store), threads=open_threads(store) + 1)
    found = verify_deep(config, str(store))
    assert (found.faults, found.same_environment, found.tolerance) == ([], False, 1e-3)
    assert found.recorded["threads"] + 1 == found.here["threads"]


def open_threads(store: Path) -> int:
    record = json.loads((store / "records/00000/zarr.json").read_bytes())
    return int(record["attributes"]["environment"]["threads"])


def test_another_subject_or_other_inputs_are_told(home: Path, store: Path, tmp_path: Path) -> None:
    def deep(**flags: object) -> None:
        verify_deep(VerifyConfig(store=str(store), **flags), str(store))  # type: ignore[arg-type]

    with pytest.raises(WeightsError, match=r"was harvested from .*network.*this subject is .*huge"):
        deep(subject=f"{MINE}:huge")
    others = tmp_path / "photos"
    shutil.copytree(home / "photos", others)
    Image.new("RGB", (40, 40)).save(others / "8.png")
    with pytest.raises(InputsNotFoundError, match=r"fingerprint .*photos holds .*fingerprint"):
        deep(inputs=str(others))
    with pytest.raises(InputsNotFoundError, match="is not a folder"):
        deep(inputs=str(tmp_path / "nowhere"))
    with pytest.raises(SubjectError, match=r"Pass --subject"):
        deep(subject="nowhere.py:network")
    with pytest.raises(ConfigError, match="--rows must be at least 1; got 0"):
        deep(rows=0)


def test_what_moved_away_is_given_by_flags(home: Path, store: Path, tmp_path: Path) -> None:
    alone = Path(shutil.copytree(store, tmp_path / "alone" / store.name))
    with pytest.raises((InputsNotFoundError, SubjectError), match="cannot be found again"):
        verify_deep(VerifyConfig(store=str(alone)), str(alone))
    config = VerifyConfig(
        store=str(alone), inputs=str(home / "photos"), subject=f"{home / 'subject.py'}:network"
    )
    assert verify_deep(config, str(alone)).faults == []


def test_an_input_that_can_be_read_by_now(home: Path, tmp_path: Path) -> None:
    """The fingerprint looks at both ends of a file, so only its middle may have changed."""
    photos = tmp_path / "photos"
    shutil.copytree(home / "photos", photos)
    big = np.random.default_rng(0).integers(0, 255, (100, 100, 3), np.uint8)
    Image.fromarray(big).save(photos / "5.png")
    content = (photos / "5.png").read_bytes()
    middle = len(content) // 2
    broken = content[:middle] + bytes(64) + content[middle + 64 :]
    (photos / "5.png").write_bytes(broken)
    path = harvested(home, inputs=str(photos), home=str(tmp_path))
    assert not open_store(path).column("valid")[25:30].any()
    (photos / "5.png").write_bytes(content)
    (fault,) = verify_deep(VerifyConfig(store=str(path)), str(path)).faults
    assert "input of row 25 (input 5, 5.png" in fault
    assert "was unreadable and now is readable" in fault


def test_rows_that_no_harvest_of_images_made(tmp_path: Path) -> None:
    arithmetic.harvest(tmp_path)
    path = tmp_path / arithmetic.spec().folder("arithmetic")
    with pytest.raises(ConfigError, match=r"the inputs of arithmetic-.* are numbers"):
        verify_deep(VerifyConfig(store=str(path)), str(path))


def test_differences_are_relative_to_a_rows_largest_value() -> None:
    stored = np.array([[1, -4], [0, 0], [0, 0], [2, 2]], np.float32)
    fresh = np.array([[1, -4.4], [0, 0], [0, 1], [2, np.nan]], np.float32)
    exact, relative = differences(fresh, stored)
    assert exact.tolist() == [False, True, False, False]
    np.testing.assert_allclose(relative, [0.1, 0, np.inf, np.nan], rtol=1e-6)


def test_the_json_of_a_row_of_nan_is_strict(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run_command(lambda: {"largest": {"late": float("nan")}, "faults": [float("inf"), 1]})
    assert as_json(capsys.readouterr().out) == {"largest": {"late": None}, "faults": [None, 1]}
