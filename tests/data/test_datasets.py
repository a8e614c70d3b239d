"""Data sets: saved, in a parquet file, in a folder of such files; their splits and identity."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tendril.data.errors import ConfigError, InputsNotFoundError
from tendril.data.inputs.hugging_face import name_and_split
from tendril.data.inputs.images import open_images
from tendril.data.inputs.packing import Cut
from tendril.data.inputs.texts import open_ids, open_text
from tendril.data.inputs.tokens import contexts_of, given_ids, tokenised

datasets = pytest.importorskip("datasets")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test asks the hub; what is prepared is kept in the test's folder."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    monkeypatch.setattr("datasets.load.is_offline_mode", lambda: True, raising=False)


def pictures(folder: Path) -> Any:
    folder.mkdir(parents=True)
    for i in range(4):
        pixels = np.random.default_rng(i).integers(0, 255, (20, 20, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    table = datasets.Dataset.from_dict({"image": [str(folder / f"{i}.png") for i in range(4)]})
    return table.cast_column("image", datasets.Image())


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """One set of images: as data set, as set with a split, as file, in a folder, in two splits."""
    table = pictures(tmp_path / "pictures")
    table.save_to_disk(tmp_path / "set")
    datasets.DatasetDict({"train": table}).save_to_disk(tmp_path / "splits")
    datasets.DatasetDict({"train": table, "test": table}).save_to_disk(tmp_path / "two")
    table.to_parquet(tmp_path / "train.parquet")
    (tmp_path / "folder").mkdir()
    table.to_parquet(tmp_path / "folder" / "train.parquet")
    (tmp_path / "at@home").mkdir()
    table.save_to_disk(tmp_path / "at@home" / "set")
    return tmp_path


PLACES = ("set", "splits", "splits@train", "two@train", "two@test", "train.parquet")
MORE = ("train.parquet@train", "folder", "folder@train", "at@home/set", "splits/train")


@pytest.mark.parametrize("prefix", ["", "hf:"])
def test_one_content_has_one_identity(saved: Path, prefix: str) -> None:
    first = open_images(str(saved / "set"))
    for place in (*PLACES, *MORE):
        source = open_images(f"{prefix}{saved / place}")
        assert (source.identity, source.names) == (first.identity, first.names), place
        assert np.array_equal(source.load(2, 16), first.load(2, 16))
        again = open_images(source.origin)  # as a store records it
        assert again.identity == first.identity
    of_files = open_images(str(saved / "pictures")).identity
    assert of_files["fingerprint"] != first.identity["fingerprint"]  # files have names, rows none


@pytest.mark.parametrize(
    ("place", "splits"),
    [
        ("set@nope", "has no named splits; got 'nope'. Leave out @nope"),
        ("splits@nope", "must be one of train; got 'nope'"),
        ("splits/train@nope", "must be one of train; got 'nope'|has no named splits"),
        ("two@nope", "must be one of train, test; got 'nope'"),
        ("two", "must be one of train, test; got ''"),
        ("train.parquet@nope", "must be one of train; got 'nope'"),
        ("folder@nope", "must be one of train; got 'nope'"),
    ],
)
@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("prefix", ["", "hf:"])
def test_a_split_that_does_not_exist(
    saved: Path, place: str, splits: str, streaming: bool, prefix: str
) -> None:
    with pytest.raises(ConfigError, match=splits):
        open_images(f"{prefix}{saved / place}")
    with pytest.raises(ConfigError, match=splits):
        open_text(f"{prefix}{saved / place}", "image", streaming)


def test_a_text_has_one_identity_too(tmp_path: Path) -> None:
    table = datasets.Dataset.from_dict({"text": ["one", None, "two two", "three"]})
    table.save_to_disk(tmp_path / "set")
    datasets.DatasetDict({"train": table}).save_to_disk(tmp_path / "splits")
    table.to_parquet(tmp_path / "rows.parquet")
    (tmp_path / "folder").mkdir()
    table.to_parquet(tmp_path / "folder" / "rows.parquet")
    (tmp_path / "rows.jsonl").write_text(
        "\n".join(json.dumps({"text": text}) for text in table["text"])
    )
    found = set()
    for place in ("set", "splits@train", "rows.parquet", "folder", "rows.jsonl"):
        text = open_text(str(tmp_path / place))
        source = tokenised(text, lambda batch: [[len(one)] * 3 for one in batch], "t")
        contexts = contexts_of(source, Cut(2), None, tmp_path / "tokens")
        assert contexts.left_out == 1
        found.add(contexts.digest)
    assert len(found) == 1


def test_names_and_splits(tmp_path: Path) -> None:
    (tmp_path / "a@b").mkdir()
    assert name_and_split(str(tmp_path / "a@b")) == (str(tmp_path / "a@b"), "")
    assert name_and_split(f"{tmp_path / 'a@b'}@c") == (str(tmp_path / "a@b"), "c")
    assert name_and_split("org/name@train") == ("org/name", "train")
    assert name_and_split("org/name") == ("org/name", "")


@pytest.mark.parametrize(
    "place", ["hfpq/train.parquet", "train.parquet", "./set", "a/b/c", "/nowhere/set", "no set"]
)
def test_a_place_that_is_not_here_never_asks_the_hub(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: pytest.fail("the hub"))
    for look in (open_images, open_text):
        with pytest.raises(InputsNotFoundError, match="this machine has no such file or folder"):
            look(f"hf:{place}")


def test_a_name_that_may_be_a_folder_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def absent(*_: object, **__: object) -> None:
        raise FileNotFoundError("no such dataset")

    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    monkeypatch.setattr(datasets, "load_dataset", absent)
    with pytest.raises(InputsNotFoundError, match="cannot be opened"):
        open_images("hf:photos/summer")
    assert "photos has no summer; the Hugging Face hub is asked" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["set", "folder", "fifo.parquet"])
def test_a_data_set_with_a_pipe_is_refused(saved: Path, place: str) -> None:
    if place == "fifo.parquet":
        os.mkfifo(saved / place)
        with pytest.raises(InputsNotFoundError):
            open_images(str(saved / place))
    else:
        os.mkfifo(saved / place / "data-00000.parquet")
    for look in (open_images, open_text):
        with pytest.raises(InputsNotFoundError, match=r"must be regular; .* is a pipe"):
            look(f"hf:{saved / place}")


@pytest.mark.parametrize("kind", ["set", "rows.parquet", "rows.jsonl"])
def test_ids_are_taken_as_tokens(tmp_path: Path, kind: str) -> None:
    rows = [[1, 2, 3], None, [], [4], np.array([5, 6])]
    table = {"ids": [None if row is None else list(map(int, row)) for row in rows]}
    if kind == "set":
        datasets.Dataset.from_dict(table).save_to_disk(tmp_path / kind)
    elif kind == "rows.parquet":
        datasets.Dataset.from_dict(table).to_parquet(tmp_path / kind)
    else:
        (tmp_path / kind).write_text("\n".join(json.dumps({"ids": r}) for r in table["ids"]))
    source = given_ids(open_ids(str(tmp_path / kind), 7, "ids"), "t")
    contexts = contexts_of(source, Cut(3, between=(0,)), None, tmp_path / "tokens")
    assert contexts.tokens_BT.tolist() == [[1, 2, 3], [0, 0, 4], [0, 5, 6]]
    assert contexts.left_out == 1


@pytest.mark.parametrize(
    ("value", "match"),
    [
        ([1, 7], r"from 0 to 6, the vocabulary of the model; got 7\."),
        ([-1], r"got -1\."),
        ([1.0], "whole numbers as token ids; got float"),
        ([True], "whole numbers as token ids; got bool"),
        (["a"], "whole numbers as token ids; got str"),
        ([[1]], "whole numbers as token ids; got list"),
        ("1 2", "a list of token ids; got str"),
        (3, "a list of token ids; got int"),
        ({"a": 1}, "a list of token ids; got dict"),
    ],
)
def test_what_is_no_id_is_refused(tmp_path: Path, value: object, match: str) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps({"ids": value}))
    with pytest.raises(ConfigError, match=match):
        list(open_ids(str(tmp_path / "rows.jsonl"), 7, "ids").documents())


def test_ids_are_of_no_plain_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("1 2 3")
    with pytest.raises(ConfigError, match="must have a list of token ids; got str"):
        list(open_ids(str(tmp_path / "a.txt"), 7).documents())
    with pytest.raises(ConfigError, match="--token-ids needs a dataset"):
        open_ids("docstrings", 7)


def test_folders_say_what_they_skip(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a.txt", "b.md", "c.html", "d.log", "e.jpg", "f.jfif", "g.npy"):
        (tmp_path / name).write_text("x")
    os.mkfifo(tmp_path / "h.txt")
    (tmp_path / "i.txt").symlink_to("/dev/zero")
    (tmp_path / "j.txt").mkdir()
    (tmp_path / "j.txt" / "k.txt").write_text("y")
    assert list(open_text(str(tmp_path)).documents()) == ["x", "x", "y"]
    said = capsys.readouterr().err
    assert "5 files are not text (.txt, .md" in said and "c.html, d.log, e.jpg, ..." in said
    assert "2 files are not regular and were skipped: h.txt, i.txt." in said
    assert open_images(str(tmp_path)).names == ("e.jpg", "f.jfif")
    said = capsys.readouterr().err
    assert "6 files are not images Pillow reads and were skipped: a.txt, b.md, c.html" in said
    for place in ("h.txt", "i.txt"):
        with pytest.raises(InputsNotFoundError, match="which is a pipe or a device"):
            open_text(str(tmp_path / place))
