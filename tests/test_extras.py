"""The base install harvests and trains; what needs an extra says so before any work."""

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from PIL import Image

from tendril.__main__ import run_stage
from tendril.data.cli import EXTRAS, need, run_command
from tendril.data.errors import MissingPackageError
from tendril.study.registry import STUDIES
from tendril.train.config import TrainConfig
from tendril.train.sweep.recipes import SWEEPS
from tendril.train.sweep.sweep import sweep

from .test_house import FILES, edges

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
OWN = ("all", "dev", "demo-language")  # extras that are no answer to a missing package
# modules of the base by the package that brings them
CALLED = {"yaml": "pyyaml", "PIL": "pillow", "markupsafe": "jinja2"}


def distribution(requirement: str) -> str:
    """The normalised name of a package in a requirement."""
    (name,) = re.findall(r"^[\w.-]+", requirement)
    return re.sub(r"[-_.]+", "-", name).lower()


BASE = {distribution(line) for line in PROJECT["dependencies"]}


def imported(tree: ast.AST) -> set[str]:
    """The packages from elsewhere that a module imports, inside functions too."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            found.add(node.module.partition(".")[0])
    return found - {*sys.stdlib_module_names, "tendril"}


def test_every_package_is_in_the_base_or_in_the_extra_that_messages_name() -> None:
    for name, path in FILES.items():
        for module in imported(ast.parse(path.read_text())):
            known = module in EXTRAS or distribution(CALLED.get(module, module)) in BASE
            assert known, f"{name} imports {module}"
    extras = PROJECT["optional-dependencies"]
    for package, extra in EXTRAS.values():
        held = {distribution(line) for line in extras[extra]}
        assert distribution(package) in held or package == "tokenizers", (package, extra)
    for extra in {*extras} - {*OWN}:
        for line in extras[extra]:
            assert distribution(line) in {distribution(p) for p, _ in EXTRAS.values()} | {"tendril"}
        assert extra in extras["all"][0], extra


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_declares_what_its_modules_import(name: str) -> None:
    graph = edges(inside_functions=False)
    start = f"tendril.study.{STUDIES[name].target.partition(':')[0]}"
    found, todo = {start}, [start]
    while todo:
        for target in graph[todo.pop()] - found:
            found.add(target)
            todo.append(target)
    reached = set()
    for module in found:
        tree = ast.parse(FILES[module].read_text())
        tree.body = [n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)]
        reached |= imported(tree) & {*EXTRAS}
    assert reached - {"huggingface_hub"} <= {*STUDIES[name].needs}


def hide(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    for module in modules:
        monkeypatch.setitem(sys.modules, module, None)


def photographs(folder: Path) -> str:
    folder.mkdir()
    Image.new("RGB", (40, 40), (9, 99, 200)).save(folder / "a.png")
    return str(folder)


VISION = ["harvest", "images", "--sites", "x", "--inputs"]
OWN_NETWORK = ["--subject", "inceptionv1", "--weights", "random"]
COMMANDS: dict[str, tuple[list[str], str, str]] = {
    # the module that is hidden -> a command (FOLDER: images), its subject, and the extra
    "torchvision": (
        [*VISION, "FOLDER", "--subject", "torchvision:resnet18"],
        "--subject",
        "vision",
    ),
    "timm": ([*VISION, "FOLDER", "--subject", "timm:resnet18"], "--subject timm:NAME", "timm"),
    "transformers": (["harvest", "language", "--subject", "gpt2"], "a harvest of text", "language"),
    "datasets": ([*VISION, "hf:cifar10", *OWN_NETWORK], "--inputs", "vision"),
    "scipy": (["harvest", "orbits_demo"], "--rotations", "study"),
    "sklearn": (["study", "missing"], "the study missing_curves", "study"),
    "umap": (["study", "symmetry"], "the study symmetry", "study"),
    "lucent": (["study", "visualise"], "the study visualise", "visualise"),
}


@pytest.mark.parametrize("module", COMMANDS)
def test_a_command_names_the_missing_package_and_how_to_install_it(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words, what, extra = COMMANDS[module]
    folder = photographs(tmp_path / "photographs")
    hide(monkeypatch, module)
    said = rf"{re.escape(what)}.* needs the package {EXTRAS[module][0]}, which is not installed\. "
    with pytest.raises(MissingPackageError, match=said) as raised:
        run_stage([folder if w == "FOLDER" else w for w in words] + ["--home", str(tmp_path)])
    assert f"Run `pip install 'tendril[{extra}]'`." in str(raised.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["photographs"]


def test_hf_networks_of_images_name_the_extra_of_vision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide(monkeypatch, "transformers")
    words = [*VISION, photographs(tmp_path / "a"), "--subject", "hf:x", "--home", str(tmp_path)]
    with pytest.raises(MissingPackageError, match=r"'tendril\[vision\]'"):
        run_stage(words)


def test_a_benchmark_names_the_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "tokenizers")
    with pytest.raises(MissingPackageError, match="bench language needs the package tokenizers"):
        run_stage(["bench", "language"])


def test_several_packages_are_named_together(monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "scipy", "umap", "lucent")
    with pytest.raises(
        MissingPackageError,
        match=r"this needs the packages scipy, umap-learn and torch-lucent, which are not "
        r"installed\. Run `pip install 'tendril\[study,visualise\]'`\.",
    ):
        need("this", "scipy", "umap", "lucent")
    need("this", "jinja2")


def test_ica_and_sweeps_say_so_before_they_read_a_vector(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide(monkeypatch, "sklearn", "matplotlib")
    with pytest.raises(MissingPackageError, match="the recipe ica needs the package scikit-learn"):
        TrainConfig(objective="ica").check(8)
    with pytest.raises(MissingPackageError, match="a sweep needs the package matplotlib"):
        sweep(SWEEPS["sweep"]())


def test_an_import_that_no_check_foresaw_is_told_in_a_sentence(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def imports() -> None:
        raise ModuleNotFoundError("No module named 'umap.x'", name="umap.x")

    with pytest.raises(SystemExit) as left:
        run_command(imports)
    assert left.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: this needs the package umap-learn") and said.count("\n") == 1

    def own() -> None:
        raise ModuleNotFoundError("No module named 'nothing'", name="nothing")

    with pytest.raises(ModuleNotFoundError):
        run_command(own)


def closure(names: set[str]) -> set[str]:
    """Packages with all that they require here."""
    found, todo = set[str](), [*names]
    while todo:
        name = todo.pop()
        if name in found:
            continue
        try:
            required = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        found.add(name)
        todo += [distribution(line) for line in required if "extra ==" not in line]
    return found


STAGES = """
import json
import tendril
assert "torch" not in sys.modules
from tendril.__main__ import run_stage
run_stage(["harvest", "demo", "--limit", "60", "--device", "cpu"])
made = run_stage(["train", "topk", "--latents", "32", "--k", "4", "--steps", "20",
                  "--site", "mixed3b_5x5", "--device", "cpu"])
store = tendril.open_store(next(__import__("pathlib").Path("store").iterdir()))
dictionary = tendril.load_dictionary("latest")
import torch
rows = torch.zeros(3, store.width("mixed3b_5x5"))
run_stage(["data", "ls"])
print(json.dumps(dictionary.encode(rows).shape[1]))
"""


def test_the_base_install_harvests_trains_and_loads(tmp_path: Path) -> None:
    """Every package that the base does not require is hidden."""
    kept = closure(BASE)
    owners = metadata.packages_distributions()
    hidden = {
        module
        for module, packages in owners.items()
        if not {distribution(p) for p in packages} & kept and module != "tendril"
    }
    assert {*EXTRAS} - {"timm"} - hidden <= {"wandb"}
    code = f"import sys\nfor name in {sorted(hidden)!r}:\n    sys.modules[name] = None\n{STAGES}"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1", "TENDRIL_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == 32
