"""Every command and every block of code of the README and the guides runs as printed."""

import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tendril.__main__ import STAGES, run_stage
from tendril.data.cli import Outcome
from tendril.models.sites.hooks import describe_sites
from tendril.models.subjects.load import load_subject

from .conftest import ROOT
from .helpers import arithmetic, tiny_language

README = (ROOT / "README.md").read_text()
GUIDES = sorted((ROOT / "docs").glob("*.md"))
QUICK: dict[str, list[str]] = {  # what is added so that a command takes seconds
    "harvest": ["--device", "cpu", "--limit", "60"],
    "train": ["--device", "cpu", "--steps", "4", "--batch-size", "64"],
    "study": ["--device", "cpu"],
}


def section(text: str, heading: str) -> str:
    """What stands below a heading, up to the next one of its level."""
    level = heading.split(" ")[0]
    below = text.split(f"{heading}\n", 1)[1]
    return re.split(rf"^{level} ", below, maxsplit=1, flags=re.MULTILINE)[0]


def python_block(text: str) -> str:
    """The first block of Python in a text."""
    found = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert found
    return found[1]


def commands(text: str) -> list[list[str]]:
    """The `tendril` commands of the indented blocks of a text, as words."""
    joined = re.sub(r"\\\n\s+", " ", text)
    lines = re.findall(r"^    (?:\w+=\S+ )*(tendril .*)$", joined, re.MULTILINE)
    return [shlex.split(line, comments=True) for line in lines]


def photos(folder: Path) -> None:
    """A folder of small pictures of noise."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(60):
        pixels = rng.integers(0, 255, (64, 64, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")


def run(words: list[str], change: Callable[[list[str]], list[str]] = lambda words: words) -> None:
    """Run a command as printed, with what makes it quick."""
    stage, *rest = change(words[1:])
    outcome = run_stage([stage, *rest, *QUICK[stage]])
    assert isinstance(outcome, Outcome)
    assert outcome.sentence and outcome.next_command


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TENDRIL_HOME", raising=False)
    return tmp_path


@pytest.mark.many_steps
def test_the_quick_start_for_images(folder: Path) -> None:
    text = section(README, "## Quick start: images")
    Path("mine.py").write_text(python_block(text))
    photos(Path("photos"))
    printed = commands(text)
    assert [words[1] for words in printed] == ["harvest", "train", "study"]
    for words in printed:
        run(words, lambda w: w)
    (page,) = Path("reports").glob("features-*/index.html")
    assert page.stat().st_size > 10_000


@pytest.mark.many_steps
def test_a_run_goes_to_saelens_and_back(folder: Path) -> None:
    run_stage(["harvest", "demo", *QUICK["harvest"]])
    run_stage(["train", "topk", "--k", "4", "--latents", "64", *QUICK["train"]])
    printed = commands(section(README, "## From and to other tools"))
    assert [words[2] for words in printed] == ["export", "import"]
    for words in printed:
        placed = {"RUN": "latest", "FOLDER": "exported"}
        run_stage([placed.get(word, word) for word in words[1:]])
    assert len(list(Path("runs").glob("*/dictionary.safetensors"))) == 2


@pytest.mark.many_steps
def test_the_quick_start_for_language(folder: Path) -> None:
    text = section(README, "## Quick start: language")
    tiny_language.save(Path("model"))
    Path("texts").mkdir()
    Path("texts/a.txt").write_text(tiny_language.text(4000))
    smaller = {"gpt2": "model", "resid_post.4": "resid_post.1", "6144": "64", "32": "8"}
    printed = commands(text)
    assert [words[1] for words in printed] == ["harvest", "train", "study"]
    for words in printed:
        short = ["--context", "32"] if words[1] == "harvest" else []
        run(words, lambda w, short=short: [*(smaller.get(word, word) for word in w), *short])


@pytest.mark.many_steps
def test_the_python_block(folder: Path) -> None:
    names: dict[str, object] = {}
    exec(compile(python_block(section(README, "## Python")), "README.md", "exec"), names)
    assert tuple(names["codes"].shape) == (256, 64)  # type: ignore[attr-defined]
    assert Path(str(names["report"])).is_file()


def test_commands_of_the_table_exist() -> None:
    rows = re.findall(r"^\| `tendril (\w+)( [^`]*)?`", README, re.MULTILINE)
    assert {stage for stage, _ in rows} == set(STAGES)
    named = {
        (stage, name)
        for stage, rest in rows
        for name in re.findall(r"[a-z]\w*", rest.partition(" --")[0])
    }
    for stage, name in sorted(named):
        with pytest.raises(SystemExit) as left:
            run_stage([stage, name, "--help"])
        assert left.value.code == 0, (stage, name)


def test_counts_of_recipes_and_studies_are_true() -> None:
    from tendril.study.registry import STUDIES
    from tendril.train.recipes import RECIPES

    assert f"lists {len(STUDIES)} studies" in README
    demos = [name for name in RECIPES if name.endswith("demo")]
    assert f"lists {len(RECIPES) - len(demos)} recipes" in README


@pytest.mark.parametrize("path", [ROOT / "README.md", *GUIDES], ids=lambda p: p.name)
def test_links_lead_somewhere_and_make_targets_exist(path: Path) -> None:
    text = path.read_text()
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        file = link.partition("#")[0]
        assert link.startswith("http") or (path.parent / file).exists() or not file, link
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^    make ([a-z-]+)", text, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


@pytest.mark.parametrize("path", GUIDES, ids=lambda p: p.name)
def test_commands_of_the_guides_parse(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each word after the command is a recipe and each flag is one of its flags."""
    for words in commands(path.read_text()):
        stage, name, *rest = words[1:]
        told = help_of(stage, name)
        for word in rest:
            if word.startswith("--"):
                assert re.search(rf"(?<![\w-]){word}(?![\w-])", told), f"{path.name}: {words}"


HELP: dict[tuple[str, str], str] = {}


def help_of(stage: str, name: str) -> str:
    """What `tendril STAGE NAME --help` prints."""
    if (stage, name) not in HELP:
        import contextlib
        import io

        out = io.StringIO()
        with contextlib.redirect_stdout(out), pytest.raises(SystemExit) as left:
            run_stage([stage, name, "--help"])
        assert left.value.code == 0, (stage, name)
        HELP[stage, name] = out.getvalue()
    return HELP[stage, name]


def test_a_store_is_read_in_ten_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    guide = (ROOT / "docs" / "stores.md").read_text()
    code = python_block(section(guide, "## Read a store from another program"))
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    assert "tendril" not in re.sub(r'attrs\["tendril"\]', "", code)  # none of our code
    arithmetic.harvest(tmp_path)
    store = tmp_path / arithmetic.spec().folder("arithmetic")
    code = code.replace("STORE", str(store)).replace("mixed3b_5x5", "sine")
    exec(compile(code, "stores.md", "exec"), {})
    shape, name, y, x, error = re.fullmatch(
        r"\((.*?)\) (number 0) (\d+) (\d+) (\S+)\n", capsys.readouterr().out
    ).groups()  # type: ignore[union-attr]
    assert (shape, name, y, x) == ("294, 12", "number 0", "0", "0")
    assert float(error) < 1e-2


def test_a_network_of_ones_own_is_a_subject(tmp_path: Path) -> None:
    code = python_block((ROOT / "docs" / "own-network.md").read_text())
    (tmp_path / "mine.py").write_text(code)
    subject = load_subject(f"{tmp_path / 'mine.py'}:resnet")
    assert describe_sites(subject, ["layer2"])["layer2"].grid == (28, 28)


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 170
    assert shutil.which("make") and (ROOT / "LICENSE").is_file()
