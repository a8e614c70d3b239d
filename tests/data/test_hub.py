"""Push, pull and load: through folders, and through a stand-in for the hub on loopback."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import constants

import tendril
from tendril.__main__ import run_stage
from tendril.data.cli import Outcome
from tendril.data.errors import (
    ConfigError,
    ExchangeError,
    HubError,
    RunDamagedError,
    StoreIncompleteError,
    TendrilError,
)
from tendril.data.home import RUN, STORE
from tendril.data.hub import layout, places
from tendril.data.hub.address import HubAddress, parse_address
from tendril.data.hub.layout import files_of, make_list
from tendril.data.store.reader import open_store
from tendril.models.dictionaries.checkpoint import load_dictionary
from tendril.train.loop import train

from ..helpers import sparse
from ..helpers.hub_server import TOKEN, Hub, Repository, hub_server
from ..models.test_formats import gemma_scope

REPO = "someone/dictionaries"
URL = f"hf://{REPO}"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A home with a run and the store it was trained on."""
    home = tmp_path_factory.mktemp("home")
    store = sparse.make_store(home, {"here": sparse.vectors(800, sparse.directions(12, 8))})
    config = sparse.tiny(home, latents=8, steps=6, batch_size=64, checkpoint_every=3)
    return home, Path(train(config).run), Path(store)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with hub_server() as served:
        monkeypatch.setenv("HF_ENDPOINT", served.url)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        yield served


def push(name: Path, address: str, *more: str) -> dict[str, Any]:
    outcome = run_stage(["push", str(name), address, *more])
    assert isinstance(outcome, Outcome)
    return dict(outcome.result)


def pull(address: str, home: Path) -> dict[str, Any]:
    outcome = run_stage(["pull", address, "--home", str(home)])
    assert isinstance(outcome, Outcome)
    return dict(outcome.result)


def contents(folder: Path) -> dict[str, bytes]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}


def test_a_run_goes_through_a_folder(made: tuple[Path, Path, Path], tmp_path: Path) -> None:
    _, run, _ = made
    shared, home = tmp_path / "shared" / "mine", tmp_path / "home"
    assert push(run, str(shared))["reused"] is False
    before = contents(shared)
    assert "state.safetensors" not in before
    assert push(run, shared.as_uri())["reused"] is True
    assert contents(shared) == before
    pulled = pull(str(shared), home)
    assert Path(pulled["run"]) == home / "runs" / run.name
    got = contents(Path(pulled["run"]))
    assert got == {n: c for n, c in contents(run).items() if n != "state.safetensors"}
    assert pull(shared.as_uri(), home)["reused"] is True
    assert [p.name for p in (home / "runs").iterdir()] == [run.name]
    assert [p.name for p in shared.parent.iterdir()] == ["mine"]
    x = torch.randn(20, 8)
    expected = load_dictionary(run).encode(x)
    assert torch.equal(load_dictionary(pulled["run"]).encode(x), expected)
    assert torch.equal(load_dictionary(shared).encode(x), expected)


def test_a_store_goes_through_a_folder(made: tuple[Path, Path, Path], tmp_path: Path) -> None:
    _, run, store = made
    push(store, str(tmp_path / "shared"))
    pulled = pull(str(tmp_path / "shared"), tmp_path / "home")
    assert contents(Path(pulled["store"])) == contents(store)
    again = open_store(pulled["store"])
    assert torch.equal(
        torch.tensor(again.read("here", slice(0, 9))),
        torch.tensor(open_store(store).read("here", slice(0, 9))),
    )
    push(run, str(tmp_path / "run"))  # a run whose store was pulled trains again
    pull(str(tmp_path / "run"), tmp_path / "home")
    info = run_stage(["data", "ls", "--json", "--home", str(tmp_path / "home")])
    assert info is not None
    assert {len(info["runs"]), len(info["stores"])} == {1}  # type: ignore[index]


def test_the_card_states_figures_and_commands(
    made: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    _, run, store = made
    push(run, str(tmp_path / "out"), "--license", "apache-2.0")
    text = (tmp_path / "out" / "README.md").read_text()
    _, front, body = text.split("---\n", 2)
    told = yaml.safe_load(front)
    assert told["license"] == "apache-2.0" and "sparse-autoencoder" in told["tags"]
    figures = json.loads((run / "result.json").read_text())
    facts = told["tendril"]
    assert facts["fvu"] == pytest.approx(figures["fvu"], rel=1e-3)
    assert facts["l0"] == pytest.approx(figures["l0"], rel=1e-3)
    assert facts["dead"] == pytest.approx(figures["dead"], abs=1e-3)
    assert (facts["site"], facts["latents"], facts["store"]) == ("here", 8, store.name)
    assert facts["store_rows"] == 800 and facts["subject"]
    assert re.search(r"^    tendril train topk .*--latents 8 .*--steps 6", body, re.MULTILINE)
    assert str(tmp_path) not in text
    push(run, str(tmp_path / "bare"))
    assert "license" not in yaml.safe_load(
        (tmp_path / "bare" / "README.md").read_text().split("---\n")[1]
    )
    push(store, str(tmp_path / "store"))
    told = yaml.safe_load((tmp_path / "store" / "README.md").read_text().split("---\n")[1])
    facts = told["tendril"]
    assert (facts["kind"], facts["rows"], facts["sites"]) == ("store", 800, {"here": 8})
    with pytest.raises(ConfigError, match="--license must be an identifier"):
        push(run, str(tmp_path / "more"), "--license", "my own\nwords")


def test_a_run_goes_through_the_hub(
    made: tuple[Path, Path, Path], hub: Hub, tmp_path: Path
) -> None:
    _, run, store = made
    pushed = push(run, URL, "--license", "mit")
    assert pushed["pushed"] == URL
    assert "tendril.json" in hub.files(REPO) and ".gitattributes" in hub.files(REPO)
    commits = len(hub.repositories[REPO].commits)
    assert push(run, URL)["reused"] is True
    assert len(hub.repositories[REPO].commits) == commits, "a repeat is no commit"
    pulled = pull(URL, tmp_path / "home")
    assert contents(Path(pulled["run"])) == {
        n: c for n, c in contents(run).items() if n != "state.safetensors"
    }
    assert pull(URL, tmp_path / "home")["reused"] is True
    card = hub.files(REPO)["README.md"].decode()
    assert f"tendril.load_dictionary('{URL}')" in card
    push(store, f"hf://datasets/{REPO}")
    assert "zarr.json" in hub.files(f"datasets/{REPO}")
    assert Path(pull(f"hf://datasets/{REPO}", tmp_path / "home")["store"]).is_dir()


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # of huggingface_hub
def test_large_files_go_through_lfs(
    made: tuple[Path, Path, Path], hub: Hub, tmp_path: Path
) -> None:
    hub.large = 600
    push(made[1], URL)
    assert any(request.startswith("PUT /lfs/") for request in hub.requests)
    pulled = pull(URL, tmp_path / "home")
    assert load_dictionary(pulled["run"]).latents == 8


def test_a_dictionary_is_loaded_from_the_hub(
    made: tuple[Path, Path, Path], hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(made[1], f"{URL}/layer3/topk")
    x = torch.randn(20, 8)
    expected = load_dictionary(made[1]).encode(x)
    assert torch.equal(tendril.load_dictionary(f"{URL}/layer3/topk").encode(x), expected)
    assert tendril.load_run(f"{URL}/layer3/topk").config["site"] == "here"
    read = len([r for r in hub.requests if r.startswith("GET") and "dictionary" in r])
    assert read == 1, "the cache is used"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert torch.equal(tendril.load_dictionary(f"{URL}/layer3/topk").encode(x), expected)


def test_a_dictionary_of_another_tool_is_imported_from_the_hub(
    hub: Hub, made: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    place = gemma_scope(tmp_path, "res").place
    content = (place / "params.npz").read_bytes()
    repository = "google/gemma-scope-2b-pt-res"
    hub.repositories[repository] = there = Repository()
    folder = "layer_20/width_16k/average_l0_71"
    there.commit({f"{folder}/params.npz": content, f"{folder}/notes.bin": b"", "README.md": b""})
    home = ["--home", str(tmp_path / "home")]
    outcome = run_stage(["train", "import", f"hf://{repository}/{folder}", *home])
    assert isinstance(outcome, Outcome)
    assert outcome.result["site"] == "blocks.20.hook_resid_post"
    assert not any("notes.bin" in request for request in hub.requests)
    with pytest.raises(ExchangeError, match="must hold a file called"):
        run_stage(["train", "import", f"hf://{repository}", *home])
    push(made[1], URL)
    exported = run_stage(["train", "export", URL, str(tmp_path / "out")])
    assert isinstance(exported, Outcome) and (tmp_path / "out" / "cfg.json").is_file()


def test_a_revision_is_pinned(made: tuple[Path, Path, Path], hub: Hub, tmp_path: Path) -> None:
    home, run, _ = made
    push(run, URL)
    first = hub.repositories[REPO].names["main"]
    hub.repositories[REPO].names["v1"] = first
    other = train(sparse.tiny(home, latents=8, steps=6, batch_size=64, seed=1)).run
    with pytest.raises(ExchangeError, match=f"it holds the run {run.name}.*--overwrite"):
        push(other, URL)
    push(other, URL, "--overwrite")
    x = torch.randn(20, 8)
    for address, wanted in ((URL, other), (f"{URL}@v1", run), (f"{URL}@{first}", run)):
        assert torch.equal(
            tendril.load_dictionary(address).encode(x), load_dictionary(wanted).encode(x)
        )
        name = address.rpartition("@")[2].replace("/", "-")
        assert pull(address, tmp_path / name)["run"].endswith(wanted.name)
    with pytest.raises(HubError, match="branch, tag or commit that exists"):
        tendril.load_dictionary(f"{URL}@v2")


def test_an_overwritten_folder_holds_only_the_new_files(
    made: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    _, run, store = made
    push(run, str(tmp_path / "out"))
    (tmp_path / "out" / "LICENSE").write_text("mine")
    with pytest.raises(ExchangeError, match="must be empty, or hold this run or store"):
        push(store, str(tmp_path / "out"))
    push(store, str(tmp_path / "out"), "--overwrite")
    wanted = {*contents(store), "tendril.json", "README.md", "LICENSE"}
    assert set(contents(tmp_path / "out")) == wanted
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("")
    with pytest.raises(ExchangeError, match=r"it holds 'chapter\.tex'"):
        push(run, str(tmp_path / "thesis"), "--overwrite")


Harm = Callable[[Path], None]


def relist(folder: Path, **changes: str) -> None:
    """Write a list that is right in itself, with other entries in it."""
    value = json.loads((folder / "tendril.json").read_text())
    value["xxh128"] |= changes
    del value["digest"]
    content = layout.sealed({k: v for k, v in value.items() if k != "xxh128"}, [], folder)
    plain = json.loads(content) | {"xxh128": value["xxh128"]}
    del plain["digest"]
    from tendril.data.store.atomic import _own_digest

    (folder / "tendril.json").write_text(json.dumps({**plain, "digest": _own_digest(plain)}))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


HARMS: dict[str, tuple[Harm, type[TendrilError], str]] = {
    "a changed byte": (
        lambda f: flip(f / "dictionary.safetensors"),
        RunDamagedError,
        "has changed: its digest differs",
    ),
    "a missing file": (lambda f: (f / "config.json").unlink(), ExchangeError, "is missing"),
    "a file more": (
        lambda f: (f / "model.pkl").write_bytes(b"cos\nsystem\n"),
        ExchangeError,
        "also holds 'model.pkl', which tendril.json does not list",
    ),
    "a folder more": (
        lambda f: shutil.copytree(f, f.parent / "c") and shutil.move(f.parent / "c", f / "sub"),
        ExchangeError,
        "nothing",
    ),
    "a link": (
        lambda f: (f / "LICENSE").symlink_to("/etc/passwd"),
        ExchangeError,
        "must hold no symbolic links",
    ),
    "a link in place of a file": (
        lambda f: (f / "metrics.csv").unlink() or (f / "metrics.csv").symlink_to("/etc/passwd"),
        ExchangeError,
        "must hold no symbolic links",
    ),
    "a program in the list": (
        lambda f: relist(f, **{"state.pkl": "0" * 32}),
        ExchangeError,
        "'state.pkl' is no file of a run",
    ),
    "an escape in the list": (
        lambda f: relist(f, **{"../../../home/.bashrc": "0" * 32}),
        ExchangeError,
        "is no file of a run",
    ),
    "a changed list": (
        lambda f: (f / "tendril.json").write_text(
            (f / "tendril.json").read_text().replace('"run"', '"store"')
        ),
        ExchangeError,
        "its digest differs",
    ),
    "no list": (lambda f: (f / "tendril.json").unlink(), ExchangeError, "must hold tendril.json"),
    "nonsense": (
        lambda f: (f / "tendril.json").write_text("[" * 100_000),
        ExchangeError,
        "must be the list",
    ),
}


@pytest.mark.parametrize("harm", HARMS)
def test_what_is_not_as_it_was_pushed_is_refused(
    harm: str, made: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    shared = tmp_path / "shared" / "run"
    push(made[1], str(shared))
    change, error, sentence = HARMS[harm]
    change(shared)
    if harm == "a folder more":  # one with a list of its own is something else
        assert pull(str(shared), tmp_path / "home")["files"]
        return
    with pytest.raises(error, match=re.escape(sentence)) as caught:
        pull(str(shared), tmp_path / "home")
    assert "\n" not in str(caught.value)
    runs = tmp_path / "home" / "runs"
    assert not runs.exists() or [p.name for p in runs.iterdir()] in ([], [".pulling"])
    assert not (tmp_path / "home" / ".bashrc").exists()


@pytest.mark.parametrize("name", ["../x", "a/b", ".hidden", "", "a\\b", "x\n"])
def test_a_name_that_is_no_name_is_refused(
    name: str, made: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    shared = tmp_path / "shared"
    push(made[1], str(shared))
    files = files_of(RUN, made[1])
    (shared / "tendril.json").write_bytes(make_list(RUN, name, files, made[1]))
    with pytest.raises(ExchangeError, match="is no name of a run"):
        pull(str(shared), tmp_path / "home")


def test_an_interrupted_pull_leaves_nothing_under_the_name_and_continues(
    made: tuple[Path, Path, Path], hub: Hub, tmp_path: Path
) -> None:
    push(made[1], URL)
    hub.fail_on = "dictionary.safetensors"
    with pytest.raises(HubError, match="must answer"):
        pull(URL, tmp_path / "home")
    assert not (tmp_path / "home" / "runs" / made[1].name).exists()
    listed = run_stage(["data", "ls", "--json", "--home", str(tmp_path / "home")])
    assert listed is not None and not listed["runs"]  # type: ignore[index]
    hub.fail_on = ""
    hub.requests.clear()
    assert pull(URL, tmp_path / "home")["reused"] is False
    assert not any("result.json" in r for r in hub.requests), "what was there is not read again"
    assert [p.name for p in (tmp_path / "home" / "runs").iterdir()] == [made[1].name]


def test_a_file_that_changes_on_the_way_is_refused_and_fetched_again(
    made: tuple[Path, Path, Path], hub: Hub, tmp_path: Path
) -> None:
    push(made[1], URL)
    hub.corrupt = "latents.safetensors"
    with pytest.raises(RunDamagedError, match=r"latents\.safetensors has changed"):
        pull(URL, tmp_path / "home")
    assert not (tmp_path / "home" / "runs" / made[1].name).exists()
    with pytest.raises(RunDamagedError, match=r"latents\.safetensors has changed"):
        load_dictionary(URL)
    hub.corrupt = ""  # the hub's cache holds the damaged file under its right name
    assert pull(URL, tmp_path / "home")["reused"] is False
    assert load_dictionary(URL).latents == 8


def test_an_interrupted_push_leaves_nothing(
    made: tuple[Path, Path, Path], hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.fail_on = "/commit/"
    with pytest.raises(HubError, match="status 500"):
        push(made[1], URL)
    assert "tendril.json" not in hub.files(REPO)
    hub.fail_on = ""
    assert push(made[1], URL)["reused"] is False

    def stopped(content: object, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(places, "_put", stopped)
    with pytest.raises(KeyboardInterrupt):
        push(made[1], str(tmp_path / "out"))
    assert list(tmp_path.glob("*out*")) == [] and list(tmp_path.glob(".*out*")) == []
    monkeypatch.undo()
    assert push(made[1], str(tmp_path / "out"))["reused"] is False


def test_what_the_hub_refuses_is_one_sentence_without_the_token(
    made: tuple[Path, Path, Path],
    hub: Hub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    push(made[1], URL, "--private")
    assert REPO in hub.private
    said = []

    def refused(sentence: str, address: str = URL, action: Callable[..., Any] = pull) -> None:
        with pytest.raises((HubError, ExchangeError), match=sentence) as caught:
            action(address, tmp_path / "home")
        said.append(str(caught.value))

    refused("no such place", "hf://someone/else")
    refused("read", "hf://someone/else", lambda a, _: load_dictionary(a))
    refused("no such place", f"{URL}/nowhere")
    hub.gated.add(REPO)
    refused("access")
    hub.gated.clear()
    hub.fail_on = "/api/models"
    refused("status 500")
    hub.fail_on = ""
    monkeypatch.setenv("HF_TOKEN", "hf_wrongwrongwrong")
    refused("HF_TOKEN")
    refused("valid token", URL, lambda a, _: push(made[1], "hf://someone/new"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    refused("must answer")
    captured = capsys.readouterr()
    for text in (*said, captured.out, captured.err):
        assert TOKEN not in text and "hf_wrong" not in text and "\n" not in text.strip()
    assert TOKEN.encode() not in b"".join(hub.files(REPO).values())


def test_without_the_hubs_package_the_sentence_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(HubError, match="pip install huggingface_hub"):
        load_dictionary(URL)


def test_only_finished_runs_and_whole_stores_are_pushed(
    made: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    _, run, store = made
    copies = [Path(shutil.copytree(one, tmp_path / one.name)) for one in (run, store)]
    (copies[0] / "result.json").rename(tmp_path / "result.json")
    with pytest.raises(RunDamagedError, match="must be finished"):
        push(copies[0], str(tmp_path / "out"))
    (tmp_path / "result.json").rename(copies[0] / "result.json")
    flip(copies[0] / "config.json")
    with pytest.raises(RunDamagedError, match=r"config\.json has changed"):
        push(copies[0], str(tmp_path / "out"))
    (row_file,) = copies[1].glob("norms/here/c/0")
    flip(row_file)
    with pytest.raises(TendrilError, match="norms/here"):
        push(copies[1], str(tmp_path / "out"))
    about = json.loads((copies[1] / "zarr.json").read_text())
    about["attributes"]["tendril"]["complete"] = False
    (copies[1] / "zarr.json").write_text(json.dumps(about))
    with pytest.raises((StoreIncompleteError, TendrilError)):
        push(copies[1], str(tmp_path / "out"))
    (run_link := tmp_path / "linked").mkdir()
    for path in run.iterdir():
        (run_link / path.name).symlink_to(path)
    with pytest.raises(ConfigError, match="symbolic link"):
        push(run_link, str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_another_run_of_the_name_is_not_replaced(
    made: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    push(made[1], str(tmp_path / "out"))
    pulled = Path(pull(str(tmp_path / "out"), tmp_path / "home")["run"])
    flip(pulled / "metrics.csv")
    with pytest.raises(ConfigError, match="must not exist, or be what is pulled"):
        pull(str(tmp_path / "out"), tmp_path / "home")


ADDRESSES: dict[str, HubAddress | Path | str] = {
    "hf://a/b": HubAddress("model", "a/b"),
    "hf://a/b@v1.0": HubAddress("model", "a/b", "v1.0"),
    "hf://models/a/b/c/d": HubAddress("model", "a/b", "", "c/d"),
    "hf://datasets/a/b@refs%2Fpr%2F1/c": HubAddress("dataset", "a/b", "refs/pr/1", "c"),
    "file:///shared/a%20b": Path("/shared/a b"),
    "shared/run": Path("shared/run"),
    "hf://a": "must be hf://user/repository",
    "hf://a/../b": "each part of the address",
    "hf://a/b/../../c": "each part of the address",
    "hf://a/b@": "must be a branch, a tag or a commit",
    "hf://a/b@../x": "must be a branch, a tag or a commit",
    "hf://": "must be hf://user/repository",
    "s3://bucket/run": "must be hf://user/repository, .* or a folder",
    "file://other/run": "must be file:///folder",
    "": "got nothing",
}


@pytest.mark.parametrize("text", ADDRESSES)
def test_addresses(text: str) -> None:
    expected = ADDRESSES[text]
    if isinstance(expected, str):
        with pytest.raises(ConfigError, match=expected):
            parse_address(text)
    else:
        assert parse_address(text) == expected
        if isinstance(expected, HubAddress) and "models/" not in text:
            assert str(expected) == text


@pytest.mark.parametrize("name", ["zarr.json", "activations/a.b/c/0/0", "records/00000/zarr.json"])
def test_files_of_a_store(name: str) -> None:
    assert layout.allowed(STORE, name)
    for bad in (f"/{name}", f"../{name}", f"{name}.pkl", f"{name}/x", f"else/{name}", f"a\\{name}"):
        assert not layout.allowed(STORE, bad), bad


def test_the_command_exits_with_2_and_one_sentence(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tendril", "pull", str(tmp_path / "nowhere")],
        capture_output=True,
        text=True,
        env={**os.environ},
        check=False,
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and "must hold tendril.json" in done.stderr
