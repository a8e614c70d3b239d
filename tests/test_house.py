"""The house: which package may import which, and that the packages are this checkout's."""

import ast
import importlib
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "data": set(),
    "models": {"data"},
    "harvest": {"data", "models"},
    "train": {"data", "models"},
    "study": {"data", "models"},
    "bench": {"data", "models", "harvest", "train", "study"},
}


def imported(path: Path) -> set[str]:
    """The top-level names that a file imports absolutely."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_run_one_way(package: str) -> None:
    files = list((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        ours = imported(path) & set(MAY_IMPORT)
        assert ours <= MAY_IMPORT[package], f"{path.relative_to(ROOT)} imports {ours}"


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_inside_a_package_imports_are_relative(package: str) -> None:
    for path in (ROOT / package).rglob("*.py"):
        assert package not in imported(path), f"{path.relative_to(ROOT)} imports itself by name"


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_each_package_is_this_checkouts(package: str) -> None:
    module = importlib.import_module(package)
    assert Path(str(module.__file__)).parent == ROOT / package


def test_init_files_hold_a_docstring_and_nothing_else() -> None:
    for package in MAY_IMPORT:
        for path in (ROOT / package).rglob("__init__.py"):
            body = ast.parse(path.read_text()).body
            assert len(body) == 1, path
            assert isinstance(body[0], ast.Expr), path


def test_only_the_store_imports_zarr() -> None:
    users = {
        path.relative_to(ROOT).as_posix()
        for package in MAY_IMPORT
        for path in (ROOT / package).rglob("*.py")
        if "zarr" in imported(path)
    }
    assert users == {"data/store.py"}


def test_configs_and_recipes_import_no_torch() -> None:
    for package in ("harvest", "train", "study"):
        for name in ("config.py", "recipes.py", "__main__.py"):
            tree = ast.parse((ROOT / package / name).read_text())
            at_top = [n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)]
            for node in at_top:
                module = getattr(node, "module", None) or node.names[0].name
                assert module.split(".")[0] != "torch", f"{package}/{name}"


def test_every_line_of_gitignore_is_anchored() -> None:
    for line in (ROOT / ".gitignore").read_text().split():
        assert line.startswith("/"), line


def test_nothing_unsafe_is_loaded() -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split()
    paths = [ROOT / p for p in tracked if (ROOT / p).is_file()] or list(ROOT.glob("*/**/*.py"))
    for path in paths:
        text = path.read_text()
        if path.name == "test_house.py":
            continue
        assert not re.search(r"^\s*except\s*:", text, re.MULTILINE), path
        assert not re.search(r"\bpickle\b", text) or "no pickle" in text.lower(), path
        for call in re.findall(r"torch\.load\((.*)", text):
            assert "weights_only=True" in call, path
