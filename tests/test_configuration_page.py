"""docs/configuration.md names every variable of the environment that the code reads."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("src", "data", "models", "harvest", "train", "study", "bench")
PAGE = (ROOT / "docs" / "configuration.md").read_text()
OWN = re.compile(r"TENDRIL_[A-Z][A-Z_]*")
FOREIGN = {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}  # read by names in variables


def rows(heading: str) -> set[str]:
    """The variables in the first column of the tables below a heading."""
    below = PAGE.split(f"## {heading}\n", 1)[1]
    cells = re.findall(r"^\| (`[^|]*)\|", below, re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`([A-Z_]+)`", cell)}


def sources() -> list[Path]:
    """All Python files, in the packages, the tests and elsewhere."""
    folders = (*PACKAGES, "tests")
    found = [p for name in folders for p in (ROOT / name).rglob("*.py") if p != Path(__file__)]
    assert len(found) > 300
    return [*found, ROOT / "Makefile", ROOT / "pyproject.toml"]


def test_every_variable_of_ours_is_in_the_table() -> None:
    used = {name for path in sources() for name in OWN.findall(path.read_text())}
    assert used == {name for name in rows("Environment") if name.startswith("TENDRIL_")}


def read_by(path: Path) -> set[str]:
    """The variables that a file reads or sets by their names, through os.environ or os.getenv."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        text = ast.unparse(node) if isinstance(node, ast.Call | ast.Subscript) else ""
        if match := re.match(r"os\.(?:environ(?:\.\w+\(|\[)|getenv\()'([A-Z_]+)'", text):
            found.add(match[1])
    return found


def test_every_variable_of_others_is_in_the_table() -> None:
    files = [p for name in PACKAGES if name != "bench" for p in (ROOT / name).rglob("*.py")]
    used = {name for path in files for name in read_by(path)} | FOREIGN
    assert {"TENDRIL_HOME", "XDG_CACHE_HOME", "WANDB_PROJECT"} <= used
    assert used <= rows("Environment")
