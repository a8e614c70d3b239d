"""Escape sequences in the names of files and folders never reach the terminal, whatever the
command; cells of tables that a spreadsheet would take for formulas are quoted."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tendril.data.__main__ as data
import tendril.harvest.__main__ as harvest
import tendril.study.__main__ as study
import tendril.train.__main__ as train
from tendril.data.cli import Outcome, note, print_outcome
from tendril.data.errors import TendrilError
from tendril.data.store.spec import slug
from tendril.study.core.report import FORMULA, write_csv, write_records

ROOT = Path(__file__).parents[1]
SUBJECT = f"{ROOT / 'tests' / 'helpers' / 'splice_subject.py'}:make"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home and images with escape sequences in their names; one of these cannot be read."""
    home = tmp_path_factory.mktemp("home") / "ho\x1b[31mme"
    images = home / "im\x1b[2Jages\x07"
    images.mkdir(parents=True)
    for number in range(60):
        pixels = np.random.default_rng(number).integers(0, 255, (8, 8, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(images / f"{number:02}\x1b]0;title\x07.png")
    (images / "bad\x1b[1A\x9b31m.png").write_bytes(b"no image")
    (images / "other\x1b[5m.txt").write_text("no image")
    return home


def images(home: Path) -> str:
    return str(next(path for path in home.iterdir() if path.name.startswith("im")))


Words = Callable[[Path], list[str]]
COMMANDS: dict[str, tuple[Callable[..., object], Words]] = {
    "harvest": (harvest.main, lambda home: [
        "images", "--inputs", images(home), "--subject", SUBJECT, "--sites", "relu",
        "--device", "cpu"]),
    "harvest --dry-run": (harvest.main, lambda home: [
        "images", "--inputs", images(home), "--subject", SUBJECT, "--sites", "relu",
        "--device", "cpu", "--dry-run"]),
    "data ls": (data.main, lambda _: ["ls"]),
    "data info": (data.main, lambda _: ["info", "latest"]),
    "data verify": (data.main, lambda _: ["verify", "latest"]),
    "data stats": (data.main, lambda _: ["stats", "latest"]),
    "train": (train.main, lambda _: [
        "topk", "--store", "latest", "--latents", "4", "--k", "1", "--steps", "4",
        "--device", "cpu"]),
    "train --dry-run": (train.main, lambda _: [
        "topk", "--store", "latest", "--latents", "4", "--k", "1", "--steps", "4",
        "--device", "cpu", "--dry-run"]),
    "study splice": (study.main, lambda home: [
        "splice", "--inputs", images(home), "--subject", SUBJECT, "--device", "cpu"]),
    "study index": (study.main, lambda _: ["index"]),
    "data rm": (data.main, lambda _: ["rm", "no\x1b[31mthing", "--yes"]),
    "data info of nothing": (data.main, lambda _: ["info", "no\x1b[31mthing"]),
    "harvest of nothing": (harvest.main, lambda _: [
        "images", "--inputs", "no\x1b[31mthing", "--subject", SUBJECT, "--sites", "relu",
        "--device", "cpu"]),
    "train on nothing": (train.main, lambda _: ["topk", "--store", "no\x1b[31mthing"]),
    "study of nothing": (study.main, lambda _: ["curves", "--run", "no\x1b[31mthing"]),
}  # fmt: skip


@pytest.mark.many_steps
@pytest.mark.parametrize("command", COMMANDS)
def test_no_escape_sequence_reaches_the_terminal(
    home: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    main, words = COMMANDS[command]
    try:
        made = main([*words(home), "--home", str(home)])
        assert made is None or isinstance(made, Outcome | dict)
        print_outcome(made)
    except TendrilError as error:
        note(f"error: {error}")
        assert "nothing" in command or command == "data rm"
    said = "".join(capsys.readouterr())
    assert said and not {"\x1b", "\x07", "\x9b"} & set(said)


def test_a_carriage_return_does_not_begin_a_row(tmp_path: Path) -> None:
    write_csv(tmp_path / "one.csv", ["a", "b"], [["x\r=1+1", "y\n=2"]])
    with (tmp_path / "one.csv").open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [["a", "b"], ["x\\r=1+1", "y\n=2"]]


@pytest.mark.parametrize("words", [["info", "latest"], ["verify", "latest"], ["ls"]], ids=str)
def test_a_line_break_in_a_name_forges_no_line(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "images").mkdir()
    Image.new("RGB", (8, 8), "red").save(tmp_path / "images" / "1\nFORGED.png")
    (tmp_path / "images" / "bad\nFORGED.png").write_bytes(b"no image")
    flags = ["--subject", SUBJECT, "--sites", "relu", "--device", "cpu", "--home", str(tmp_path)]
    harvest.main(["images", "--inputs", str(tmp_path / "images"), *flags])
    data.main([*words, "--home", str(tmp_path)])
    lines = "".join(capsys.readouterr()).splitlines()
    assert not any(line.startswith("FORGED") for line in lines)
    assert words[0] == "ls" or any("\\nFORGED" in line for line in lines)


CELLS = ["=1+1", "+1+1", "-1+1", "@SUM(1)", "\tx", "\rx", '=HYPERLINK("x")', "-", "+", "=", "-x"]


@pytest.mark.parametrize("cell", CELLS)
def test_what_looks_like_a_formula_is_quoted_in_every_cell(cell: str, tmp_path: Path) -> None:
    write_csv(tmp_path / "one.csv", ["name", cell], [[cell, 1.5], ["x", cell]])
    write_records(tmp_path / "two.csv", [{"name": cell, "value": -2.5}])
    for name in ("one.csv", "two.csv"):
        with (tmp_path / name).open(newline="", encoding="utf-8") as file:
            cells = [cell for row in csv.reader(file) for cell in row]
        shown = cell.replace("\r", "\\r")
        assert f"'{shown}" in cells and cell not in cells


def test_numbers_stay_numbers_and_names_of_runs_begin_with_a_letter(tmp_path: Path) -> None:
    numbers = ["-1.5", "+2", "-inf", -3, -1e-9]
    write_csv(tmp_path / "one.csv", ["a"], [[value] for value in numbers])
    assert (tmp_path / "one.csv").read_text().splitlines()[1:] == list(map(str, numbers))
    for cell in CELLS:  # runs.csv of a sweep holds names of runs and numbers only
        assert not slug(cell).startswith(FORMULA)
