"""The house rules: which room may import which, and that the package is this checkout's."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import tendril

ROOT = Path(__file__).parents[1]
MAY_IMPORT: dict[str, set[str]] = {
    "data": set(),
    "models": {"data"},
    "harvest": {"data", "models"},
    "train": {"data", "models"},
    "study": {"data", "models"},
    "bench": {"data", "models", "harvest", "train", "study"},
}
SHARED_ROOMS = {"core", "measures", "page"}  # of study; every other folder is a study
STUDIES = {p.name for p in (ROOT / "study").iterdir() if (p / "study.py").is_file()} - SHARED_ROOMS
NO_TORCH = ("config.py", "recipes.py", "__main__.py", "commands.py", "study/registry.py")


def module_name(path: Path) -> str:
    """The dotted name of a file of one of the packages."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(("tendril", *(parts[:-1] if parts[-1] == "__init__" else parts)))


FILES = {module_name(p): p for package in MAY_IMPORT for p in (ROOT / package).rglob("*.py")}


def imports(name: str, tree: ast.AST) -> Iterator[str]:
    """The modules that a module imports, by full name."""
    package = name if FILES[name].name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *filter(None, [node.module])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield inner if inner in FILES else base


def edges(*, inside_functions: bool) -> dict[str, set[str]]:
    """Every module with the modules of the project that it imports."""
    found = {}
    for name, path in FILES.items():
        tree = ast.parse(path.read_text())
        if not inside_functions:
            tree.body = [n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)]
        found[name] = {m for m in imports(name, tree) if m in FILES and m != name}
    return found


def test_imports_run_one_way() -> None:
    for name, targets in edges(inside_functions=True).items():
        package = name.split(".")[1]
        ours = {t.split(".")[1] for t in targets if "." in t} - {package}
        assert ours <= MAY_IMPORT[package], f"{name} imports {ours}"


def test_inside_a_package_imports_are_relative() -> None:
    for name, path in FILES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and not node.level and node.module:
                own = f"tendril.{name.split('.')[1]}"
                assert node.module.split(".")[:2] != own.split("."), f"{name}: {node.module}"
            if isinstance(node, ast.ImportFrom) and node.level:
                assert node.level <= len(name.split(".")) - 1, f"{name} leaves its package"


def test_no_module_is_part_of_an_import_cycle() -> None:
    """Also counting imports inside functions: none of them may close a cycle."""
    graph, state = edges(inside_functions=True), dict[str, int]()

    def visit(name: str, path: tuple[str, ...]) -> None:
        state[name] = 1
        for target in sorted(graph[name]):
            assert state.get(target) != 1, " -> ".join((*path, name, target))
            if target not in state:
                visit(target, (*path, name))
        state[name] = 2

    for name in graph:
        if name not in state:
            visit(name, ())


def room(name: str) -> str:
    """The folder of study/ that a module lies in, or its own name directly below study/."""
    return name.split(".")[2] if name.count(".") >= 2 else ""


def test_studies_stand_alone() -> None:
    """core <- measures <- studies; page knows neither; no study imports another."""
    allowed = {"page": set[str](), "core": {"page"}, "measures": {"core", "page"}}
    for name, targets in edges(inside_functions=True).items():
        if not name.startswith("tendril.study.") or room(name) not in SHARED_ROOMS | STUDIES:
            continue
        here = room(name)
        others = {room(t) for t in targets if t.startswith("tendril.study.")} - {here, "registry"}
        assert others <= allowed.get(here, SHARED_ROOMS), f"{name} imports {others}"


def test_a_study_is_a_folder_of_few_files() -> None:
    assert len(STUDIES) >= 12
    for study in STUDIES:
        files = {p.name for p in (ROOT / "study" / study).iterdir()}
        assert {"__init__.py", "config.py", "study.py", "page.py", "page.html"} <= files, study


def test_configs_recipes_and_registries_reach_no_torch() -> None:
    """What `--help` imports, through all top-level imports."""
    graph = edges(inside_functions=False)
    for name, path in FILES.items():
        if not path.as_posix().endswith(NO_TORCH):
            continue
        reached, todo = {name}, [name]
        while todo:
            for target in graph[todo.pop()] - reached:
                reached.add(target)
                todo.append(target)
        for module in reached:
            tree = ast.parse(FILES[module].read_text())
            tree.body = [n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)]
            heavy = {m.split(".")[0] for m in imports(module, tree)} & {"torch", "zarr", "numba"}
            assert not heavy, f"{name} by {module}: {heavy}"


def reached_by(name: str) -> set[str]:
    """The modules that importing a module imports, imports inside functions included."""
    graph, found, todo = edges(inside_functions=True), {name}, [name]
    while todo:
        for target in graph[todo.pop()] - found:
            found.add(target)
            todo.append(target)
    return found


def test_the_package_is_this_checkouts() -> None:
    assert Path(str(tendril.__file__)).resolve().parent == (ROOT / "src" / "tendril").resolve()
    for package in MAY_IMPORT:
        assert (ROOT / "src" / "tendril" / package).resolve() == ROOT / package


def test_no_file_is_longer_than_400_lines() -> None:
    for path in FILES.values():
        assert len(path.read_text().splitlines()) <= 400, path


def test_only_the_store_imports_zarr() -> None:
    graph = {n: set(imports(n, ast.parse(p.read_text()))) for n, p in FILES.items()}
    users = {n for n, targets in graph.items() if any(t.split(".")[0] == "zarr" for t in targets)}
    assert users == {"tendril.data.store.create"}


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
