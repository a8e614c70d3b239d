"""The command `tendril harvest`: its outcome, and its errors (one sentence, exit status 2)."""

import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from tendril.data.cli import run_command
from tendril.harvest.__main__ import main, next_command
from tendril.harvest.config import HarvestConfig, LanguageConfig, StoreConfig
from tendril.harvest.run import Harvest

from ..helpers.helped import check_help
from .test_run import MINE


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(3):
        Image.new("RGB", (40, 40), (i * 80, 90, 20)).save(folder / f"{i}.png")
    return folder


def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *flags: str
) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of a command."""
    monkeypatch.setattr(sys, "argv", ["harvest", *flags])
    with pytest.raises(SystemExit) as left:
        run_command(main)
    out, err = capsys.readouterr()
    return int(left.value.code or 0), out, err


def test_help_is_there_under_a_second_and_without_torch() -> None:
    check_help("harvest", "images", shows="--site ", never=("torch", "numba"))


def test_the_last_line_says_what_was_made(
    photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["inceptionv1", "--subject", f"{MINE}:network", "--inputs", str(photos)]
    flags += ["--sites", "late", "--home", str(photos.parent), "--per-input", "4"]
    status, out, _ = run(monkeypatch, capsys, *flags)
    sentence, following, line = out.splitlines()
    made = json.loads(line)
    assert status == 0
    assert made.keys() == {"store", "rows", "seconds", "rows_per_s", "reused", "unreadable"}
    assert (made["rows"], made["reused"]) == (12, False)
    assert sentence.startswith(f"Made {made['store']}: 12 rows of late, in ")
    name = Path(made["store"]).name
    train = f"next: tendril train topk --store {name} --site late --home {photos.parent}"
    assert following == train
    status, out, _ = run(monkeypatch, capsys, *flags)
    sentence, following, line = out.splitlines()
    assert sentence == f"{made['store']} exists already, with 12 rows of late."
    assert (following, json.loads(line)["reused"]) == (train, True)


@pytest.mark.parametrize(
    ("done", "config", "command"),
    [
        (Harvest("store/a-1", ("x", "y")), HarvestConfig(), "topk --store a-1 --site x"),
        (
            Harvest("lab/store/a-1", ("x",), elements=16),
            HarvestConfig(home="lab"),
            "equivariant_crosscoder --store a-1 --site x --home lab",
        ),
        (Harvest("store/a-1", ("x",)), LanguageConfig(), "topk --store a-1"),
        (
            Harvest("s3://lab/store/a-1", ("x", "y")),
            LanguageConfig(home="s3://lab"),
            "topk --store s3://lab/store/a-1 --site x",
        ),
    ],
)
def test_the_next_command_trains_on_the_store(
    done: Harvest, config: StoreConfig, command: str
) -> None:
    assert next_command(done, config, ["images"]) == f"tendril train {command}"


def test_a_dry_run_writes_nothing(
    photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["images", "--subject", f"{MINE}:network", "--inputs", str(photos), "--site", "late"]
    flags += ["--home", str(photos.parent / "home"), "--per-input", "all"]
    status, out, err = run(monkeypatch, capsys, *flags, "--dry-run")
    sentence, following, line = out.splitlines()
    about = json.loads(line)
    assert (status, about["rows"], about["dry_run"]) == (0, 192, True)
    assert about["bytes"] > 0
    assert "3 inputs x 64 positions = 192 rows" in err
    assert sentence.startswith("Nothing was written. ")
    assert following == f"next: {shlex.join(['tendril', 'harvest', *flags])}"
    assert not (photos.parent / "home").exists()


def test_the_images_recipe_lists_sites_of_any_network(
    photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And InceptionV1, with its own default site, is a preset of it."""
    flags = ["images", "--inputs", str(photos), "--home", str(photos.parent), "--subject"]
    status, out, err = run(monkeypatch, capsys, *flags, f"{MINE}:network")
    assert (status, out) == (2, "")
    assert "must name at least one of the 4 sites of small" in err
    assert "last feature maps are relu, late: add e.g. --sites late." in err
    status, out, _ = run(monkeypatch, capsys, *flags, "handmade", "--dry-run")
    assert (status, "rows of mixed3b:" in out) == (0, True)
    status, _, err = run(monkeypatch, capsys, "imagse")
    assert (status, "must be one of images, inceptionv1, orbits" in err) == (2, True)


MISTAKES = {
    "no such folder": (["--inputs", "nowhere"], "is not a folder"),
    "no inputs": ([], "--inputs must be a folder"),
    "an empty folder": (["--inputs", "{empty}"], "holds none in any of its"),
    "an unknown site": (["--inputs", "{photos}", "--sites", "lat"], "near names are late"),
    "no site": (["--inputs", "{photos}", "--sites", ","], "Its last feature maps are relu, late"),
    "no weights": (["--inputs", "{photos}", "--subject", "inceptionv1"], "--weights lucent"),
    "weights that are not there": (
        ["--inputs", "{photos}", "--subject", "inceptionv1", "--weights", "x.pth"],
        "no weights file",
    ),
    "another subject": (["--inputs", "{photos}", "--subject", "vgg"], "FILE.py:FUNCTION"),
    "too many positions": (
        ["--inputs", "{photos}", "--per-input", "99"],
        "1 to 64, the positions of the map of late",
    ),
    "no batch": (
        ["--inputs", "{photos}", "--batch-size=-1"],
        "--batch-size must be from 1 to 65,536, or 0 for one that suits the device; got -1",
    ),
    "no GPU": (["--inputs", "{photos}", "--device", "cuda"], "no CUDA device"),
    "no subject": (["--inputs", "{photos}", "--subject", ""], "--subject must be FILE.py:FUNCTION"),
    "a word for a number": (["--inputs", "{photos}", "--seed", "x"], "--seed"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_a_sentence_and_status_2(
    mistake: str,
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import torch

    if mistake == "no GPU" and torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    (photos.parent / "empty").mkdir()
    flags, sentence = MISTAKES[mistake]
    flags = [f.format(photos=photos, empty=photos.parent / "empty") for f in flags]
    base = ["images", "--subject", f"{MINE}:network", "--sites", "late"]
    status, out, err = run(monkeypatch, capsys, *base, "--home", str(photos.parent), *flags)
    assert status == 2
    assert sentence in err
    assert "Traceback" not in err
    assert out == ""
    assert not list(photos.parent.rglob("zarr.json"))


def test_two_harvesters_on_one_store(photos: Path) -> None:
    """The second one is told, and the first one ends well."""
    home = photos.parent
    for i in range(3, 60):
        Image.new("RGB", (900, 900), (i, 90, 20)).save(photos / f"{i}.png")
    flags = ["inceptionv1", "--subject", f"{MINE}:network", "--inputs", str(photos)]
    flags += ["--sites", "late", "--per-input", "4", "--home", str(home), "--workers", "1"]
    command = [sys.executable, "-m", "tendril", "harvest", *flags]
    first = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not list((home / "store").glob("[!.]*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    (store,) = (home / "store").glob("[!.]*")
    with_lock = subprocess.run(
        [sys.executable, "-m", "tests.helpers.lock", str(store)], capture_output=True, text=True
    )
    assert with_lock.returncode == 2, with_lock.stderr
    assert "another process is writing" in with_lock.stderr
    out, err = first.communicate()
    assert first.returncode == 0, err
    assert json.loads(out.splitlines()[-1])["rows"] == 60 * 4


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_small_disk_that_is_really_full(
    photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    disk = photos.parent / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(disk)], check=False
    )
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    flags = ["inceptionv1", "--subject", f"{MINE}:network", "--inputs", str(photos)]
    flags += ["--sites", "late", "--per-input", "4", "--home", str(disk)]
    try:
        ballast = disk / "ballast"
        ballast.write_bytes(b"0" * 150_000)
        status, _, err = run(monkeypatch, capsys, *flags)
        assert (status, "disk is full" in err) == (2, True), err
        ballast.unlink()
        status, out, err = run(monkeypatch, capsys, *flags)
        assert status == 0, err
        assert json.loads(out.splitlines()[-1])["rows"] == 12
    finally:
        subprocess.run(["umount", str(disk)], check=True)
