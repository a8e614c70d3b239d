import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tendril.data.errors import (
    ConfigError,
    InputsNotFoundError,
    UnreadableInputError,
    UnreadableInputsError,
)
from tendril.data.inputs import decoding
from tendril.data.inputs.decoding import _plain_jpeg, fit
from tendril.data.inputs.images import first_readable, open_images


def gradient(width: int, height: int) -> Image.Image:
    """Red grows to the right, green downwards."""
    y, x = np.mgrid[:height, :width]
    rgb = np.stack([x * 255 // width, y * 255 // height, x * 0], -1)
    return Image.fromarray(rgb.astype(np.uint8))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(5):
        gradient(30 + i, 20).save(tmp_path / f"{i}.png")
    (tmp_path / "sub").mkdir()
    gradient(20, 40).save(tmp_path / "sub" / "six.JPG")
    (tmp_path / "notes.txt").write_text("no image")
    return tmp_path


def test_a_folder_is_read_in_order_and_subfolders_too(folder: Path) -> None:
    source = open_images(str(folder))
    assert source.names == ("0.png", "1.png", "2.png", "3.png", "4.png", "sub/six.JPG")
    image = source.load(5, 16)
    assert image.shape == (16, 16, 3)
    assert image.dtype == np.uint8


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1", "I", "I;16", "F"])
def test_any_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    grey = gradient(24, 24).convert("L")
    if mode == "I;16":
        image = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    else:
        image = grey.convert(mode)
    image.save(tmp_path / ("a.tiff" if mode != "P" else "a.gif"))
    loaded = open_images(str(tmp_path)).load(0, 24).astype(int)
    if mode != "1":  # dithered
        assert np.abs(loaded - np.asarray(grey.convert("RGB")).astype(int)).max() <= 6


def test_transparent_parts_are_white(tmp_path: Path) -> None:
    Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(tmp_path / "a.png")
    assert (open_images(str(tmp_path)).load(0, 8) == 255).all()


def test_photographs_are_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 270 degrees
    gradient(32, 32).save(tmp_path / "a.png", exif=exif)
    upright = open_images(str(tmp_path)).load(0, 32)
    expected = np.asarray(gradient(32, 32).transpose(Image.Transpose.ROTATE_270))
    assert np.array_equal(upright, expected)


def test_the_shorter_side_is_scaled_and_the_centre_cut_out(tmp_path: Path) -> None:
    gradient(400, 100).save(tmp_path / "a.png")
    image = open_images(str(tmp_path)).load(0, 50).astype(int)
    assert 90 <= image[:, 0, 0].mean() <= 100  # 3/8 of the way
    assert 150 <= image[:, -1, 0].mean() <= 165  # 5/8


def test_a_broken_file_is_named_and_a_later_whole_one_found(folder: Path) -> None:
    (folder / "0.png").write_bytes(b"not an image")
    (folder / "1.png").write_bytes((folder / "2.png").read_bytes()[:60])
    source = open_images(str(folder))
    for index in (0, 1):
        with pytest.raises(UnreadableInputError):
            source.load(index, 16)
    assert first_readable(source, 16) == 2
    for file in folder.rglob("*.*"):
        if file.suffix != ".txt":
            file.write_bytes(b"")
    with pytest.raises(UnreadableInputsError, match="none of the 6 images"):
        first_readable(open_images(str(folder)), 16)


def test_a_limit_takes_a_sample_that_stays(folder: Path) -> None:
    first, again = open_images(str(folder), 3), open_images(str(folder), 3)
    assert len(first) == 3
    assert first.names == again.names
    assert list(first.names) == sorted(first.names)
    assert open_images(str(folder), 99).names == open_images(str(folder)).names


def test_the_fingerprint_is_of_the_content_and_not_of_the_place(folder: Path) -> None:
    before = open_images(str(folder)).identity
    moved = folder.rename(folder.with_name("moved"))
    os.utime(moved / "0.png", (0, 0))
    assert open_images(str(moved)).identity == before
    gradient(31, 21).save(moved / "0.png")
    assert open_images(str(moved)).identity != before


def test_inputs_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputsNotFoundError, match="is not a folder"):
        open_images(str(tmp_path / "nowhere"))
    with pytest.raises(InputsNotFoundError, match="is not a folder"):
        open_images("")
    with pytest.raises(InputsNotFoundError, match="holds none in any of its"):
        open_images(str(tmp_path))
    with pytest.raises(ConfigError, match="--limit"):
        open_images("dead-leaves")
    with pytest.raises(ConfigError, match="--limit"):
        open_images(str(tmp_path), 0)
    with pytest.raises(ConfigError, match="integer seed"):
        open_images("dead-leaves:x", 3)


def test_dead_leaves_need_no_file() -> None:
    source = open_images("dead-leaves:3", 4)
    assert len(source) == 4
    assert source.load(0, 32).shape == (32, 32, 3)
    assert np.array_equal(source.load(1, 32), open_images("dead-leaves:3", 9).load(1, 32))
    assert source.identity != open_images("dead-leaves:4", 4).identity


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_hugging_face_set_by_its_path(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    datasets = pytest.importorskip("datasets")
    saved = tmp_path_factory.mktemp("saved")
    paths = [str(folder / f"{i}.png") for i in range(4)]
    table = datasets.Dataset.from_dict({"label": [0, 1, 2, 3], "picture": paths})
    table = table.cast_column("picture", datasets.Image())
    table.save_to_disk(saved / "set")
    source = open_images(str(saved / "set"))
    assert len(source) == 4
    assert np.array_equal(source.load(2, 16), open_images(str(folder)).load(2, 16))
    assert open_images(f"hf:{saved / 'set'}").identity == source.identity
    table.select_columns(["label"]).save_to_disk(saved / "labels")
    with pytest.raises(ConfigError, match="must have a column of images"):
        open_images(str(saved / "labels"))
    with pytest.raises(InputsNotFoundError, match="cannot be opened"):
        open_images(f"hf:{saved / 'nowhere'}")


@pytest.mark.parametrize("quality", [30, 95])
@pytest.mark.parametrize("subsampling", [0, 2])
@pytest.mark.parametrize("size", [(224, 224), (57, 80), (301, 299)])
def test_the_fast_way_to_a_jpeg_gives_pillows_pixels(
    tmp_path: Path, quality: int, subsampling: int, size: tuple[int, int]
) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.jpg", quality=quality, subsampling=subsampling)
    content = (tmp_path / "a.jpg").read_bytes()
    with Image.open(tmp_path / "a.jpg") as image:
        assert np.array_equal(_plain_jpeg(content, image), np.asarray(image.convert("RGB")))
    with Image.open(tmp_path / "a.jpg") as image, pytest.MonkeyPatch.context() as patch:
        fast = fit(content, 48)
        patch.setattr(decoding, "_plain_jpeg", lambda *_: None)
        assert np.array_equal(fast, fit(content, 48))


def test_a_turned_or_faulty_jpeg_goes_the_slow_way(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    gradient(32, 32).save(tmp_path / "turned.jpg", exif=exif)
    gradient(32, 32).save(tmp_path / "whole.jpg")
    whole = (tmp_path / "whole.jpg").read_bytes()
    for content in ((tmp_path / "turned.jpg").read_bytes(), whole[:-40]):
        with Image.open(io.BytesIO(content)) as image:
            assert _plain_jpeg(content, image) is None
    upright = np.asarray(gradient(32, 32).transpose(Image.Transpose.ROTATE_180)).astype(int)
    loaded = open_images(str(tmp_path)).load(0, 32)
    assert np.abs(loaded - upright).max() < 20


def test_an_image_between_the_sizes_is_only_cut(tmp_path: Path) -> None:
    picture = gradient(70, 66)
    picture.save(tmp_path / "a.png")
    loaded = open_images(str(tmp_path)).load(0, 64)
    assert np.array_equal(loaded, np.asarray(picture)[1:65, 3:67])
