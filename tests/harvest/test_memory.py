"""Harvests of networks and images that a Python program holds."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

import tendril
from tendril.data.errors import (
    ConfigError,
    InputsNotFoundError,
    SubjectError,
    UnknownSiteError,
    WeightsError,
)
from tendril.data.inputs.images import open_images
from tendril.data.store.reader import Store, open_store
from tendril.data.store.writer import StoreWriter
from tendril.harvest.call import harvest
from tendril.harvest.config import HarvestConfig, VerifyConfig
from tendril.harvest.run import Harvest
from tendril.harvest.verify import verify_deep
from tendril.models.subjects.load import load_subject

from ..helpers import tiny_language, vision_transformers
from ..helpers.mine import network

MINE = f"{Path(__file__).parents[1] / 'helpers' / 'mine.py'}:network"
SIZE, COUNT = 32, 19


def pictures(seed: int = 0, count: int = COUNT) -> list[Image.Image]:
    """Photographs of other sizes and shapes than the network takes."""
    rng = np.random.default_rng(seed)
    sizes = [(40 + 3 * i, 70 - i) for i in range(count)]
    return [Image.fromarray(rng.integers(0, 256, (*s, 3)).astype(np.uint8)) for s in sizes]


def squares(count: int = COUNT, channels: int = 3) -> Tensor:
    """Bytes [B, C, 32, 32]."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, channels, SIZE, SIZE), generator=generator).byte()


def module() -> nn.Module:
    """The network of helpers/mine.py as a plain module that can be trained."""
    return network().module.requires_grad_(True)


def made(home: Path, inputs: Any, **settings: Any) -> Harvest:
    """A harvest of both maps of the network."""
    options = {"module": module(), "sites": ["late", "early"], "per_input": 4, "home": str(home)}
    return harvest(inputs=inputs, **{**options, **settings})


def content(store: Store) -> dict[str, bytes]:
    """All rows, and where they were taken."""
    rows = {site: store.read(site, slice(None)).tobytes() for site in store.sites}
    columns = {c: store.column(c).tobytes() for c in ("input", "y", "x", "valid")}
    return rows | columns


class Classified(Dataset[Any]):
    """PIL images with a class each, as torchvision's data sets give them."""

    classes = ("cat", "dog", "newt")

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return pictures()[index], index % 3


@pytest.mark.parametrize("batch_size", [1, 7])
@pytest.mark.parametrize("positions", ["norm", "uniform"])
def test_rows_equal_those_of_a_file_and_a_folder_byte_for_byte(
    tmp_path: Path, batch_size: int, positions: str
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for number, image in enumerate(pictures()):
        image.save(folder / f"{number:03}.png")
    settings = {"batch_size": batch_size, "positions": positions}
    passed = made(tmp_path, pictures(), input_size=SIZE, **settings)
    by_file = made(tmp_path, folder, module=None, subject=MINE, **settings)
    config = HarvestConfig(
        subject=MINE,
        inputs=str(folder),
        sites=("late", "early"),
        per_input=4,
        home=str(tmp_path / "command"),
        **settings,  # type: ignore[arg-type]
    )
    by_config = tendril.harvest(config)
    assert passed.rows == COUNT * 4
    stores = [open_store(found.store) for found in (passed, by_file, by_config)]
    assert content(stores[0]) == content(stores[1]) == content(stores[2])
    shards = [
        [
            p.read_bytes()
            for p in sorted(Path(s.location, "activations/late").rglob("*"))
            if p.is_file()
        ]
        for s in stores
    ]
    assert shards[0] == shards[1] == shards[2] != []


def test_images_that_wait_in_their_files_are_read_as_files(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for number, image in enumerate(pictures()):
        exif = Image.Exif()
        exif[0x0112] = 1 + number % 8  # the camera's orientation
        image.save(folder / f"{number:03}.jpg", quality=90, exif=exif)
    waiting = [Image.open(path) for path in sorted(folder.iterdir())]
    passed = made(tmp_path, waiting, input_size=SIZE)
    filed = made(tmp_path, folder, module=None, subject=MINE)
    assert content(open_store(passed.store)) == content(open_store(filed.store))
    assert all(image.fp is not None for image in waiting)
    for image in waiting:
        image.load()
    assert made(tmp_path, waiting, input_size=SIZE).reused


def test_the_same_content_is_the_same_store_and_other_content_another(tmp_path: Path) -> None:
    first = made(tmp_path, pictures(), input_size=SIZE)
    assert not first.reused
    again = made(tmp_path, [image.copy() for image in pictures()], input_size=SIZE)
    assert again.reused
    assert again.store == first.store
    other_images = pictures()
    other_images[7].putpixel((20, 25), (1, 2, 3))
    other_weights, other_code = module(), module()
    with torch.no_grad():
        other_weights.late.bias[0] += 1e-3  # type: ignore[operator, union-attr]
    other_code.relu = nn.GELU()
    others = [
        made(tmp_path, other_images, input_size=SIZE),
        made(tmp_path, pictures(), input_size=SIZE, module=other_weights),
        made(tmp_path, pictures(), input_size=SIZE, module=other_code),
        made(tmp_path, pictures(), input_size=SIZE, preprocess=lambda rgb: rgb - 0.5),
        made(tmp_path, pictures(), input_size=40),
        made(tmp_path, pictures(), input_size=SIZE, limit=12),
    ]
    assert len({first.store, *(other.store for other in others)}) == 7


def test_a_class_whose_forward_changes_is_another_network(tmp_path: Path) -> None:
    class Mine(nn.Module):
        def __init__(self, factor: float) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            self.factor = factor
            nn.init.ones_(self.conv.weight)
            nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.conv(x) * self.factor
            return out

    def stores() -> set[str]:
        return {
            made(tmp_path, squares(), module=Mine(factor), sites="conv").store
            for factor in (1.0, 1.0, 2.0)
        }

    first = stores()
    assert len(first) == 2
    Mine.forward = lambda self, x: self.conv(x) + self.factor  # type: ignore[method-assign]
    assert len(first | stores()) == 4


def test_the_module_is_left_as_it_is(tmp_path: Path) -> None:
    mine = module().train()
    made(tmp_path, squares(), module=mine)
    assert mine.training
    assert all(p.requires_grad for p in mine.parameters())
    before = {name: p.clone() for name, p in mine.named_parameters()}
    with torch.no_grad():
        mine.late.weight.zero_()  # type: ignore[operator, union-attr]
    store = open_store(made(tmp_path, squares()).store)
    held = load_subject(store.origin["subject"]).module
    assert torch.equal(held.get_parameter("late.weight"), before["late.weight"])


def test_bytes_floats_loaders_and_data_sets_are_the_same_images(tmp_path: Path) -> None:
    images = squares()
    floats = images.float() / 255
    given: list[Any] = [
        images,
        images.numpy(),
        floats,
        TensorDataset(floats),
        DataLoader(TensorDataset(floats), batch_size=5),
        Subset(TensorDataset(floats), range(COUNT)),
        [{"pixel_values": image} for image in floats],
        [image.permute(1, 2, 0).numpy() for image in images],
        DataLoader([{"image": i} for i in floats], collate_fn=lambda items: items),  # type: ignore
    ]
    assert len({made(tmp_path, inputs).store for inputs in given}) == 1


def test_other_floats_are_given_to_the_network_as_they_are(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn((COUNT, 3, SIZE, SIZE), generator=generator)
    store = open_store(made(tmp_path, images, per_input="all", dtype="float32").store)
    with torch.no_grad():
        expected = module()[:3](images).permute(0, 2, 3, 1).reshape(-1, 10)  # type: ignore[index]
    np.testing.assert_allclose(store.read("late", slice(None)), expected.numpy(), atol=1e-5)
    checked = verify_deep(VerifyConfig(store=store.location, rows=9999), store.location)
    assert checked.exact_rows == 2 * store.rows
    assert checked.faults == []


def test_a_grey_network_is_given_one_channel(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 3, stride=2))
    images = squares(channels=1)
    made_here = [
        made(tmp_path, inputs, module=net, sites="0", per_input="all", dtype="float32")
        for inputs in (images, [Image.fromarray(image[0].numpy()) for image in images])
    ]
    assert made_here[0].store == made_here[1].store
    with torch.no_grad():
        expected = net(images.float() / 255).permute(0, 2, 3, 1).reshape(-1, 4)
    stored = open_store(made_here[0].store).read("0", slice(None))
    np.testing.assert_allclose(stored, expected.numpy(), atol=1e-5)


def test_tokens_of_a_vision_transformer(tmp_path: Path) -> None:
    net = vision_transformers.vit()
    size, site = vision_transformers.SIZE, "encoder.layers.encoder_layer_0"
    generator = torch.Generator().manual_seed(0)
    images = torch.rand((5, 3, size, size), generator=generator)
    hidden = vision_transformers.hooked(site)(net, images).detach()
    stores = {}
    for tokens, expected in (("patches", hidden[:, 1:]), ("class", hidden[:, :1]), ("all", hidden)):
        settings = {"module": net, "sites": site, "tokens": tokens, "dtype": "float32"}
        done = made(tmp_path, images, per_input="all", **settings)
        stores[tokens] = open_store(done.store)
        rows = stores[tokens].read(site, slice(None))
        np.testing.assert_allclose(rows, expected.flatten(0, 1).numpy(), atol=1e-5)
    for store in stores.values():  # each still finds its network
        checked = verify_deep(VerifyConfig(store=store.location), store.location)
        assert checked.faults == []


def test_settings_of_a_network_are_told_apart(tmp_path: Path) -> None:
    dark = made(tmp_path, squares(), preprocess=lambda rgb: rgb / 2)
    plain = made(tmp_path, squares())
    for done in (dark, plain):
        assert verify_deep(VerifyConfig(store=done.store), done.store).faults == []


def test_classes_are_stored(tmp_path: Path) -> None:
    labels = open_store(made(tmp_path, Classified(), input_size=SIZE).store).labels()
    assert labels is not None
    assert labels.names == ("cat", "dog", "newt")
    assert labels.number_B.tolist() == [i % 3 for i in range(COUNT)]
    limited = open_store(made(tmp_path, Classified(), input_size=SIZE, limit=5).store)
    names = [limited.input_name(i) for i in range(5)]
    known = limited.labels()
    assert known is not None
    assert known.number_B.tolist() == [int(name.rpartition("/")[2]) % 3 for name in names]
    numbers = torch.arange(COUNT) % 4
    pairs = open_store(made(tmp_path, TensorDataset(squares(), numbers), name="pairs").store)
    assert pairs.labels() is not None
    words = ["b" if i % 2 else "a" for i in range(COUNT)]
    named = open_store(made(tmp_path, squares(), labels=words, name="words").store).labels()
    assert named is not None
    assert named.names == ("a", "b")


def test_a_name_is_part_of_the_identity_and_spares_reading_all(tmp_path: Path) -> None:
    read = []

    class Watched(Dataset[Any]):
        def __len__(self) -> int:
            return 200

        def __getitem__(self, index: int) -> Tensor:
            read.append(index)
            return torch.full((3, SIZE, SIZE), index, dtype=torch.uint8)

    first = made(tmp_path, Watched(), name="watched", dry_run=True)
    assert Path(first.store).name.startswith("watched-")
    assert len(set(read)) == 64
    assert made(tmp_path, Watched(), name="other", dry_run=True).store != first.store
    assert made(tmp_path, Watched(), dry_run=True).store != first.store
    assert len(set(read)) == 200


def test_rows_can_be_recomputed_from_a_file_and_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for number, image in enumerate(pictures()):
        image.save(folder / f"{number:03}.png")
    store = made(tmp_path, pictures(), input_size=SIZE, limit=12).store
    config = VerifyConfig(store=store, subject=MINE, inputs=str(folder))
    done = verify_deep(config, store)
    assert (done.faults, done.exact_rows) == ([], 2 * done.rows)
    loud = VerifyConfig(store=store, subject=MINE.replace("network", "loud"), inputs=str(folder))
    with pytest.raises(WeightsError, match="this subject is name Sequential"):
        verify_deep(loud, store)
    next(folder.glob("*.png")).unlink()
    with pytest.raises(InputsNotFoundError, match="Pass --inputs with the inputs of the harvest"):
        verify_deep(config, store)


class Random(Dataset[Any]):
    """A data set with a random transform."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, index: int) -> np.ndarray:
        return self.rng.integers(0, 256, (SIZE, SIZE, 3)).astype(np.uint8)


class Endless(IterableDataset[Any]):
    """A data set whose items have no numbers."""

    def __iter__(self) -> Iterator[Tensor]:
        return iter(squares())


class Damaged(Classified):
    """A data set of which two items cannot be read."""

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        if index in (0, 11):
            raise OSError(f"no item {index}")
        return super().__getitem__(index)


def test_items_that_cannot_be_read_are_recorded(tmp_path: Path) -> None:
    done = made(tmp_path, Damaged(), input_size=SIZE)
    assert done.unreadable == 2
    assert made(tmp_path, Damaged(), input_size=SIZE).reused


def test_inputs_that_change_between_two_readings_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputsNotFoundError, match="random transforms"):
        made(tmp_path, Random())
    monkeypatch.setattr("tendril.data.inputs.memory.CACHE_BYTES", 0)
    images = squares()
    done = made(tmp_path, images)
    images[5] = 0
    source = open_images(open_store(done.store).origin["inputs"])
    with pytest.raises(InputsNotFoundError, match="item 5 has changed"):
        source.load(5, SIZE)


RGB = torch.rand((4, 3, SIZE, SIZE), generator=torch.Generator().manual_seed(2))
REFUSED: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "class": ({"module": nn.Conv2d}, ConfigError, "got the class Conv2d"),
    "function": ({"module": len}, ConfigError, "must be a torch.nn.Module"),
    "site": ({"sites": ["lte"]}, UnknownSiteError, "near names are late"),
    "no site": ({"sites": []}, ConfigError, "--sites must name at least one"),
    "empty list": ({"inputs": []}, ConfigError, "an empty list"),
    "empty tensor": ({"inputs": RGB[:0]}, ConfigError, "at least one image"),
    "one image": ({"inputs": RGB[0]}, ConfigError, r"Add the first dimension with inputs\[None\]"),
    "one PIL image": ({"inputs": pictures()[0]}, ConfigError, "Put it into a list"),
    "type": ({"inputs": 3}, ConfigError, "got an int"),
    "items": ({"inputs": [3, 4]}, ConfigError, "item 0 of the inputs must be a PIL image"),
    "generator": ({"inputs": iter(pictures())}, ConfigError, r"Pass list\(inputs\)"),
    "no inputs": ({"inputs": None}, ConfigError, "inputs must be given"),
    "iterable": ({"inputs": Endless()}, ConfigError, "items have no numbers"),
    "shuffled": (
        {"inputs": DataLoader(TensorDataset(RGB), shuffle=True)},
        ConfigError,
        "shuffle=False",
    ),
    "channels": ({"inputs": torch.rand((4, 5, 8, 8))}, ConfigError, r"got \[5, 8, 8\]"),
    "integers": ({"inputs": RGB.long()}, ConfigError, "got int64"),
    "size": ({"inputs": RGB, "input_size": 64}, ConfigError, "must have 64 x 64 pixels"),
    "sizes": ({"inputs": [RGB[0], RGB[1, :, :8, :8]]}, ConfigError, "item 1 of the inputs has 8"),
    "no square": ({"inputs": RGB[:, :, :8]}, ConfigError, "must be squares"),
    "range": (
        {"inputs": RGB * 9 - 4, "preprocess": lambda rgb: rgb},
        ConfigError,
        "with a preprocess tensors must be RGB in 0..1",
    ),
    "mode": ({"inputs": [Image.new("F", (9, 9))]}, ConfigError, "got mode F"),
    "setting": ({"per_inputs": 4}, ConfigError, "Did you mean per_input"),
    "labels": ({"labels": [1, 2]}, ConfigError, "a class for each of the 4 inputs; got 2"),
    "limit": ({"limit": 0}, ConfigError, "limit must be at least 1"),
    "subject": ({"subject": "planted"}, ConfigError, "subject must be left out"),
    "settings of a subject": (
        {"module": network(), "preprocess": lambda rgb: rgb},
        ConfigError,
        "must be left out for a Subject",
    ),
    "texts": ({"inputs": ["a", "b"]}, ConfigError, "texts must come with subject"),
    "rotations": ({"rotations": 4}, ConfigError, "rotations need images of 8 bits"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused_in_a_sentence(tmp_path: Path, what: str) -> None:
    settings, error, message = REFUSED[what]
    with pytest.raises(error, match=message) as caught:
        made(tmp_path, **{"inputs": RGB, **settings})
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "store").exists()


def test_another_process_says_what_to_pass(tmp_path: Path) -> None:
    with pytest.raises(SubjectError, match=r"module=\.\.\. in Python, or --subject FILE.py"):
        load_subject("memory:Sequential-1-2")
    with pytest.raises(InputsNotFoundError, match=r"inputs=\.\.\. in Python, or --inputs FOLDER"):
        open_images("memory:images-1")


def test_a_harvest_that_was_stopped_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tendril.harvest.vision_plan.SHARD_INPUTS", 8)
    commit, done = StoreWriter.commit, []

    def stopped(self: StoreWriter, encoded: Any) -> int:
        if done:
            raise KeyboardInterrupt
        done.append(encoded)
        return commit(self, encoded)

    whole = made(tmp_path / "whole", squares())
    with monkeypatch.context() as patch:
        patch.setattr(StoreWriter, "commit", stopped)
        with pytest.raises(KeyboardInterrupt):
            made(tmp_path, squares())
    again = made(tmp_path, squares())
    assert not again.reused
    assert len(done) == 1
    assert content(open_store(again.store)) == content(open_store(whole.store))


def test_texts_for_a_language_model(tmp_path: Path) -> None:
    model = str(tiny_language.save(tmp_path / "tiny"))
    texts = [tiny_language.text(words, number) for number, words in enumerate((70, 3, 200, 90))]
    folder = tmp_path / "text"
    folder.mkdir()
    for number, text in enumerate(texts):
        (folder / f"{number}.txt").write_text(text)
    settings: dict[str, Any] = {"subject": model, "context": 16, "home": str(tmp_path)}
    held = harvest(inputs=texts, sites="resid_post.1", **settings)
    filed = harvest(inputs=folder, sites="resid_post.1", **settings)
    stores = [open_store(found.store) for found in (held, filed)]
    rows = [store.read(store.sites[0], slice(None)).tobytes() for store in stores]
    assert rows[0] == rows[1]
    assert harvest(inputs=list(texts), sites="resid_post.1", **settings).reused
    assert verify_deep(VerifyConfig(store=held.store), held.store).faults == []
    with pytest.raises(ConfigError, match="item 1 has the type int"):
        harvest(inputs=["a", 3], **settings)


def test_a_config_with_other_fields(tmp_path: Path) -> None:
    config = HarvestConfig(subject=MINE, inputs="dead-leaves", sites=("late",), limit=3)
    done = tendril.harvest(config, per_input=2, home=str(tmp_path))
    assert done.rows == 6
    with pytest.raises(ConfigError, match="module and labels must be left out"):
        harvest(config, module=module())
    with pytest.raises(ConfigError, match="the first argument must be a HarvestConfig"):
        harvest(module())
