from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from data.errors import ConfigError, WeightsError, WeightsNotFoundError
from models.subjects.inception import InceptionV1
from models.subjects.load import load_subject
from models.subjects.subject import weights_digest
from models.weights import LUCENT, Checkpoint, fetch, git_blob, load_weights, read_weights


@pytest.fixture
def served(tmp_path: Path) -> tuple[Checkpoint, Path]:
    """A checkpoint that lies behind a URL of this machine, and an empty cache."""
    file = tmp_path / "far.pth"
    torch.save(nn.Linear(2, 3).state_dict(), file)
    blob = git_blob(file.read_bytes())
    return Checkpoint("near.pth", file.as_uri(), blob, "ours"), tmp_path / "cache"


def test_git_names_content_as_git_does() -> None:
    assert git_blob(b"what is up, doc?") == "bd9dbf5aae1a3862dd1526723246b20206e5fc37"
    assert LUCENT.git_blob == "119f77db85c8352960933e025312b507d9a96ed7"


def test_a_checkpoint_is_fetched_once(served: tuple[Checkpoint, Path]) -> None:
    checkpoint, cache = served
    path = fetch(checkpoint, cache)
    Path(checkpoint.url.removeprefix("file://")).unlink()
    assert fetch(checkpoint, cache) == path
    assert set(read_weights(path)) == {"weight", "bias"}


def test_another_content_is_refused_and_not_kept(served: tuple[Checkpoint, Path]) -> None:
    checkpoint, cache = served
    other = Checkpoint(checkpoint.name, checkpoint.url, "0" * 40, "ours")
    with pytest.raises(WeightsError, match="should have git blob id 0000"):
        fetch(other, cache)
    assert not (cache / checkpoint.name).exists()


def test_without_a_network_it_is_said_what_to_do(tmp_path: Path) -> None:
    gone = Checkpoint("x.pth", (tmp_path / "gone").as_uri(), "0" * 40, "ours")
    with pytest.raises(WeightsNotFoundError, match="on a machine with a network get file://"):
        fetch(gone, tmp_path / "cache")


def test_both_kinds_of_file_load_into_inception(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = InceptionV1()
    torch.save(network.state_dict(), tmp_path / "a.pth")
    save_file(network.state_dict(), tmp_path / "a.safetensors")
    subjects = [
        load_subject("inceptionv1", weights=str(tmp_path / name))
        for name in ("a.pth", "a.safetensors")
    ]
    for subject in subjects:
        assert subject.identity["weights"] == weights_digest(network)
        assert subject.identity["normalisation"] == "lucent"
        assert not subject.module.training
    assert str(tmp_path) not in str(subjects[0].identity)


def test_the_siblings_normalisation_goes_by_its_checksum(shared: Path) -> None:
    path = str(shared / "weights" / "inceptionv1_sibling.safetensors")
    assert load_subject("inceptionv1", weights=path).identity["normalisation"] == "sibling"
    forced = load_subject("inceptionv1", weights=path, normalisation="lucent")
    assert forced.identity["normalisation"] == "lucent"


def test_damaged_and_foreign_files_are_told_in_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    network = nn.Linear(2, 3)
    with pytest.raises(WeightsNotFoundError, match="no file of weights"):
        read_weights(path)
    save_file(network.state_dict(), path)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(WeightsError, match="cut short"):
        read_weights(path)
    (tmp_path / "w.pth").write_bytes(b"nonsense")
    with pytest.raises(WeightsError, match="cut short"):
        read_weights(tmp_path / "w.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(WeightsError, match="holds a list"):
        read_weights(tmp_path / "list.pth")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"weight": torch.zeros(3, 4)}, r"tensor weight should be \[3, 2\] and is \[3, 4\]"),
        ({"weight": None}, "lacks the tensor weight"),
        ({"other": torch.zeros(1)}, "holds the tensor other"),
    ],
)
def test_weights_of_another_network(change: dict[str, torch.Tensor | None], sentence: str) -> None:
    network = nn.Linear(2, 3)
    weights = {k: v for k, v in (network.state_dict() | change).items() if v is not None}
    with pytest.raises(WeightsError, match=sentence):
        load_weights(network, weights, "w.pth")


def test_inception_without_weights_says_which_there_are() -> None:
    with pytest.raises(ConfigError, match="--weights lucent"):
        load_subject("inceptionv1")
    with pytest.raises(ConfigError, match="leave it out"):
        load_subject("handmade", weights="x.pth")
