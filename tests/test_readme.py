"""What the README prints runs as printed."""

import re
import sys
from pathlib import Path

import pytest

from tendril.models.sites.hooks import describe_sites
from tendril.models.subjects.load import load_subject

from .helpers import arithmetic

ROOT = Path(__file__).parents[1]


def block_after(heading: str) -> str:
    """The first block of Python below a heading of the README."""
    below = (ROOT / "README.md").read_text().split(f"## {heading}\n", 1)[1]
    found = re.search(r"```python\n(.*?)```", below, re.DOTALL)
    assert found, heading
    return found[1]


def test_a_store_is_read_in_ten_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = block_after("Read a store from another program")
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    assert "tendril" not in re.sub(r'attrs\["tendril"\]', "", code)  # none of our code
    arithmetic.harvest(tmp_path)
    store = tmp_path / arithmetic.spec().folder("arithmetic")
    code = code.replace("STORE", str(store)).replace("mixed3b_5x5", "sine")
    exec(compile(code, "README.md", "exec"), {})
    shape, name, y, x, error = re.fullmatch(
        r"\((.*?)\) (number 0) (\d+) (\d+) (\S+)\n", capsys.readouterr().out
    ).groups()  # type: ignore[union-attr]
    assert (shape, name, y, x) == ("294, 12", "number 0", "0", "0")
    assert float(error) < 1e-2


def test_a_network_of_ones_own_is_a_subject(tmp_path: Path) -> None:
    code = block_after("Your own network")
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    (tmp_path / "mine.py").write_text(code)
    subject = load_subject(f"{tmp_path / 'mine.py'}:resnet")
    assert describe_sites(subject, ["layer2"])["layer2"].grid == (28, 28)


def test_the_python_api_in_three_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Harvest, read, encode, as printed; the run is one that this test trains."""
    monkeypatch.setenv("TENDRIL_HOME", str(tmp_path))
    monkeypatch.syspath_prepend(str(ROOT))
    code = block_after("The stages")
    before, after = code.split("latents = load_dictionary(", 1)
    names: dict[str, object] = {}
    exec(compile(before, "README.md", "exec"), names)
    from tendril.train.config import TrainConfig
    from tendril.train.loop import train

    config = TrainConfig(site="mixed3b", latents=64, k=4, steps=5, batch_size=64)
    run = train(config).run
    encode = 'latents = load_dictionary("RUN")' + after.split(")", 1)[1]
    exec(compile(encode.replace("RUN", str(run)), "README.md", "exec"), names)
    assert tuple(names["latents"].shape) == (256, 64)  # type: ignore[attr-defined]
    assert "torch" in sys.modules
