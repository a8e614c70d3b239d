"""Classes of images: of folders and data sets, kept beside a store's identity."""

import json
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

from tendril.data.errors import StoreDamagedError
from tendril.data.inputs.images import ImageSource, open_images
from tendril.data.store.labels import FILE, NO_CLASS, Labels, folder_labels, labels_of
from tendril.data.store.reader import Store, open_store
from tendril.harvest.config import HarvestConfig
from tendril.harvest.run import harvest

from ..helpers import splice_subject

PLACES = ("cat/1.png", "cat/2.png", "dog/n01440764_tench.png", "loose.png", "val/dog/3.png")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i, name in enumerate(PLACES):
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 255, (40, 50, 3), np.uint8)
        Image.fromarray(pixels).save(path)
    return tmp_path / "pictures"


def harvested(inputs: Path, home: Path, **more: object) -> Store:
    config = HarvestConfig(
        inputs=str(inputs),
        subject=f"{splice_subject.__file__}:make",
        sites=("relu",),
        per_input=2,
        home=str(home),
        device="cpu",
        **more,  # type: ignore[arg-type]
    )
    return open_store(harvest(config).store)


def told(labels: Labels | None) -> list[str]:
    assert labels
    return ["" if i == NO_CLASS else labels.names[i] for i in labels.number_B]


def test_the_class_of_a_file_is_the_folder_it_lies_in(folder: Path) -> None:
    source = open_images(str(folder))
    assert told(source.labels) == ["cat", "cat", "dog", "", "dog"]
    few = open_images(str(folder), 2)
    assert few.labels and source.labels and few.labels.names == source.labels.names
    of = dict(zip(source.names, told(source.labels), strict=True))
    assert told(few.labels) == [of[name] for name in few.names]


def test_names_that_begin_with_an_id_are_no_classes() -> None:
    assert folder_labels(["n01440764_tench.jpg", "n01443537_goldfish.jpg"]) is None
    assert folder_labels(["train/1.png", "train/2.png"]) is None


def test_a_store_keeps_the_classes_and_its_name_does_not_depend_on_them(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = harvested(folder, tmp_path / "with")
    assert told(store.labels()) == ["cat", "cat", "dog", "", "dog"]
    assert "labels" not in json.dumps(store.spec)
    group = json.loads((Path(store.path) / FILE).read_text())
    assert group["attributes"]["names"] == ["cat", "dog"]
    real = open_images

    def without(inputs: str, limit: int | None = None) -> ImageSource:
        source = real(inputs, limit)
        return ImageSource(source.identity, source.origin, source.names, source.fetch)

    monkeypatch.setattr("tendril.harvest.vision_plan.open_images", without)
    bare = harvested(folder, tmp_path / "without")
    assert bare.name == store.name
    assert not (Path(bare.path) / FILE).exists()
    for name in (p.relative_to(bare.path) for p in bare.path.glob("activations/**/c/*/*")):
        assert (bare.path / name).read_bytes() == (store.path / name).read_bytes()
    assert told(bare.labels()) == told(store.labels())  # from the names of the inputs


def test_altered_classes_are_noticed(folder: Path, tmp_path: Path) -> None:
    store = harvested(folder, tmp_path)
    path = store.path / FILE
    path.write_text(path.read_text().replace("cat", "cow"))
    with pytest.raises(StoreDamagedError, match=r"labels/zarr\.json.* has changed"):
        open_store(store.path)


def test_labels_that_do_not_fit_are_refused() -> None:
    good = Labels(("a", "b"), np.array([0, 1, NO_CLASS], np.int32)).attributes()
    assert told(labels_of(good, 3)) == ["a", "b", ""]
    for bad, inputs in ((good, 4), ({**good, "names": ["a"]}, 3), ({**good, "numbers": "A"}, 3)):
        with pytest.raises(ValueError, match=r"numbers|padding|Error"):
            labels_of(bad, inputs)


@pytest.mark.parametrize("kind", ["classes", "other", "integers", "numbers", "none"])
def test_the_classes_of_a_data_set(kind: str, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (4, 40, 40, 3), np.uint8)
    rows = {"image": [Image.fromarray(p) for p in pixels]}
    features = datasets.Features({"image": datasets.Image()})
    names = datasets.ClassLabel(names=["ant", "bee", "fly"])
    columns = {
        "classes": ("label", names, [2, 0, 1, 0], ["fly", "ant", "bee", "ant"]),
        "other": ("coarse", names, [2, 0, 1, -1], ["fly", "ant", "bee", ""]),
        "integers": ("label", datasets.Value("int64"), [7, 3, 7, 10], ["7", "3", "7", "10"]),
        "numbers": ("label", datasets.Value("float32"), [0.5, 1, 2, 3], None),
    }
    wanted = None
    if kind != "none":
        column, features[column], rows[column], wanted = columns[kind]
    table = datasets.Dataset.from_dict(rows, features=features)
    table.to_parquet(tmp_path / "rows.parquet")
    source = open_images(f"hf:{tmp_path / 'rows.parquet'}")
    assert source.labels is None if wanted is None else told(source.labels) == wanted
    bare = tmp_path / "bare.parquet"
    table.select_columns(["image"]).to_parquet(bare)
    assert source.identity == open_images(f"hf:{bare}").identity
