from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from random import Random
from threading import Thread

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tendril.data.errors import ConfigError, WeightsError, WeightsNotFoundError
from tendril.models.sites.hooks import recording
from tendril.models.subjects.inception import InceptionV1
from tendril.models.subjects.load import load_subject
from tendril.models.subjects.subject import weights_digest
from tendril.models.weights import LUCENT, Checkpoint, fetch, git_blob, load_weights, read_weights


@pytest.fixture
def served(tmp_path: Path) -> tuple[Checkpoint, Path]:
    """A checkpoint behind a file URL, and an empty cache."""
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


def test_a_damaged_file_in_the_cache_is_fetched_again(served: tuple[Checkpoint, Path]) -> None:
    checkpoint, cache = served
    path = fetch(checkpoint, cache)
    path.write_bytes(path.read_bytes()[:-5])
    assert git_blob(fetch(checkpoint, cache).read_bytes()) == checkpoint.git_blob


def test_an_answer_cut_short_is_told(tmp_path: Path) -> None:
    class Short(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "100")
            self.end_headers()
            self.wfile.write(b"ten bytes!")

        def log_message(self, *_: object) -> None:
            """Keep stderr empty."""

    with HTTPServer(("127.0.0.1", 0), Short) as server:
        Thread(target=server.handle_request).start()
        url = f"http://127.0.0.1:{server.server_port}/w.pth"
        with pytest.raises(WeightsNotFoundError, match="IncompleteRead"):
            fetch(Checkpoint("w.pth", url, "0" * 40, "ours"), tmp_path / "cache")


def test_another_content_is_refused_and_not_kept(served: tuple[Checkpoint, Path]) -> None:
    checkpoint, cache = served
    other = Checkpoint(checkpoint.name, checkpoint.url, "0" * 40, "ours")
    with pytest.raises(WeightsError, match="must have git blob id 0000"):
        fetch(other, cache)
    assert not (cache / checkpoint.name).exists()


def test_without_a_network_it_is_said_what_to_do(tmp_path: Path) -> None:
    gone = Checkpoint("x.pth", (tmp_path / "gone").as_uri(), "0" * 40, "ours")
    with pytest.raises(WeightsNotFoundError, match="On a machine with a network, download file://"):
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
    with pytest.raises(WeightsNotFoundError, match="no weights file at"):
        read_weights(path)
    save_file(network.state_dict(), path)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(WeightsError, match="truncated"):
        read_weights(path)
    (tmp_path / "w.pth").write_bytes(b"nonsense")
    with pytest.raises(WeightsError, match="truncated"):
        read_weights(tmp_path / "w.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(WeightsError, match="got a list\\."):
        read_weights(tmp_path / "list.pth")
    torch.save({"state_dict": network.state_dict()}, tmp_path / "nested.pth")
    with pytest.raises(WeightsError, match="as 'state_dict'\\. Save"):
        read_weights(tmp_path / "nested.pth")
    torch.save(network, tmp_path / "module.pth")
    with pytest.raises(WeightsError, match="whole module"):
        read_weights(tmp_path / "module.pth")


@pytest.mark.parametrize("zipped", [True, False])
def test_no_damage_of_a_file_escapes_as_something_else(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "w.pth"
    state = nn.Linear(2, 3).state_dict()
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    whole, random = path.read_bytes(), Random(0)
    for _ in range(200):
        damaged = bytearray(whole[: random.randrange(len(whole))])
        for _ in range(random.choice((0, 5, 50)) if damaged else 0):
            damaged[random.randrange(len(damaged))] = random.randrange(256)
        path.write_bytes(damaged)
        with pytest.raises(WeightsError):
            load_weights(nn.Linear(2, 3), read_weights(path), str(path))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"weight": torch.zeros(3, 4)},
            r"tensor weight in w.pth must have shape \[3, 2\]; got \[3, 4\]",
        ),
        ({"weight": None}, "must hold the tensor weight"),
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
    with pytest.raises(ConfigError, match="Leave it out"):
        load_subject("handmade", weights="x.pth")
    with pytest.raises(ConfigError, match="Leave it out"):
        load_subject("handmade", normalisation="sibling")
    with pytest.raises(ConfigError, match="auto, lucent or sibling"):
        load_subject("inceptionv1", weights="x.pth", normalisation="batch")


def test_random_weights_are_those_of_their_seed_and_no_others() -> None:
    first, again, other = (
        load_subject("inceptionv1", weights=weights)
        for weights in ("random", "random:0", "random:1")
    )
    assert first.identity == again.identity
    assert first.identity["weights"] != other.identity["weights"]
    assert other.identity["drawn"] == "random:1" and other.identity["normalisation"] == "lucent"
    noise = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with recording(first.module, {"mixed3b": first.sites["mixed3b"]}) as forward, torch.no_grad():
        acts = forward(first.preprocess(noise))["mixed3b"]
    assert 1 < acts.std() < 1000 and 0.2 < (acts > 0).float().mean() < 0.8
    with pytest.raises(ConfigError, match="needs a whole number of at least 0; got 'x'"):
        load_subject("inceptionv1", weights="random:x")
