import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from tendril.data.errors import SubjectError, UnknownSiteError
from tendril.models.sites.hooks import describe_sites, recording
from tendril.models.subjects.load import load_subject
from tendril.models.subjects.subject import site_modules

FILE = """
import torch
from neighbour import WIDTH
from tendril.models.subjects.module import subject_from_module

def network():
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(3, WIDTH, 5, stride=2, padding=2)
    return torch.nn.Sequential(conv, torch.nn.ReLU(), torch.nn.MaxPool2d(3, 2, 1))

def small():
    return subject_from_module(network(), input_size=32, preprocess=lambda rgb: rgb - 0.5)

def number():
    return 7

def broken():
    raise RuntimeError("no such luck")

LIST = []
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "neighbour.py").write_text("WIDTH = 6")
    path = tmp_path / "mine.py"
    path.write_text(FILE)
    return path


def test_any_module_is_a_subject_and_any_dotted_name_a_site(file: Path) -> None:
    subject = load_subject(f"{file}:network")
    assert subject.input_size == 224
    assert set(subject.sites) == {"0", "1", "2"}
    assert describe_sites(subject, ["2"])["2"].width == 6
    with pytest.raises(
        UnknownSiteError, match=r"has no site 'conv'; the last are 0, 1, 2 \(3 in all\)"
    ):
        site_modules(subject, ["conv"])


def test_a_file_says_how_images_go_in(file: Path) -> None:
    subject = load_subject(f"{file}:small")
    assert (subject.name, subject.input_size) == ("small", 32)
    assert subject.preprocess(torch.ones(1))[0] == 0.5


def test_the_identity_is_of_file_function_and_weights_and_not_of_the_place(
    file: Path, tmp_path: Path
) -> None:
    before = load_subject(f"{file}:small").identity
    assert str(tmp_path) not in str(before)
    assert load_subject(f"{file}:network").identity != before
    file.write_text(FILE.replace("rgb - 0.5", "rgb - 0.6"))
    assert load_subject(f"{file}:small").identity != before


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        ("nothing", "has no function 'nothing'; it has .*network"),
        ("LIST", "has no function 'LIST'"),
        ("number", "must return a torch.nn.Module or a Subject; got int"),
        ("broken", r"mine.py \(line 18\) could not be run: RuntimeError: no such luck"),
    ],
)
def test_what_is_no_subject_is_told(file: Path, function: str, sentence: str) -> None:
    with pytest.raises(SubjectError, match=sentence):
        load_subject(f"{file}:{function}")


def repository(folder: Path, width: int) -> str:
    """A subject file that imports a package called `blocks`."""
    (folder / "blocks").mkdir(parents=True)
    (folder / "blocks/__init__.py").write_text("")
    (folder / "blocks/net.py").write_text(
        f"import torch\ndef net():\n    return torch.nn.Conv2d(3, {width}, 3)\n"
    )
    (folder / "mine.py").write_text(
        "from blocks.net import net\ndef network():\n    return net()\n"
    )
    return f"{folder / 'mine.py'}:network"


def test_two_repositories_may_have_packages_of_one_name(tmp_path: Path) -> None:
    """Each subject comes from its own folder, also when the first is loaded again."""
    first, second = (repository(tmp_path / str(n), n) for n in (5, 6))
    widths = [load_subject(s).module.out_channels for s in (first, second, first, first)]
    assert widths == [5, 6, 5, 5]


def test_a_folder_with_an_installed_packages_name_hides_it_from_the_subject_file_only(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    (file.parent / "colorsys.py").write_text("MINE = True")
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    load_subject(f"{file}:network")
    assert sys.path[-1] == str(file.parent)
    spec = importlib.util.find_spec("colorsys")
    assert spec is not None
    assert spec.origin != str(file.parent / "colorsys.py")
    assert importlib.util.find_spec("neighbour") is not None  # later imports still work


def test_a_file_that_exits_is_told(file: Path) -> None:
    file.write_text("import sys\nsys.exit(3)\n")
    with pytest.raises(SubjectError, match=r"mine.py \(line 2\) could not be run: SystemExit: 3"):
        load_subject(f"{file}:network")


def test_a_file_that_is_no_python_is_told(file: Path) -> None:
    file.write_text("def network(:")
    with pytest.raises(SubjectError, match="SyntaxError"):
        load_subject(f"{file}:network")


def test_a_file_of_ones_own_can_use_torchvision(file: Path) -> None:
    file.write_text(
        "from torchvision.models import squeezenet1_1\n"
        "from tendril.models.subjects.module import subject_from_module\n"
        "def network():\n"
        "    return subject_from_module(squeezenet1_1(), input_size=64)\n"
    )
    subject = load_subject(f"{file}:network")
    sites = ["features.4", "features.4.squeeze"]
    with torch.no_grad(), recording(subject.module, site_modules(subject, sites)) as forward:
        acts = forward(subject.preprocess(torch.rand(2, 3, 64, 64)))
    widths = {name: shape.width for name, shape in describe_sites(subject, sites).items()}
    assert widths == {name: acts[name].shape[1] for name in sites}


@pytest.mark.parametrize("text", ["nowhere.py:network", "mine.py", "resnet18"])
def test_what_names_no_file_is_told(text: str) -> None:
    with pytest.raises(SubjectError, match=r"FILE\.py:FUNCTION"):
        load_subject(text)
