"""Grey levels of a set of images have one scale, and what saturates is counted."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tendril.data.errors import UnreadableInputError
from tendril.data.inputs.decoding import fit
from tendril.data.inputs.images import open_images
from tendril.data.store.inspect import describe_store
from tendril.data.store.tables import store as described
from tendril.harvest.__main__ import main


def save(path: Path, value: float, dtype: str, **options: Any) -> None:
    Image.fromarray(np.full((20, 20), value, dtype)).save(path, **options)


def levels(folder: Path) -> list[int]:
    source = open_images(str(folder))
    return [int(source.load(i, 16)[0, 0, 0]) for i in range(len(source))]


@pytest.mark.parametrize(
    ("dtype", "suffix", "values", "expected"),
    [
        ("uint16", "png", (200, 2570, 65535), (1, 10, 255)),
        ("uint16", "tif", (200, 2570, 65535), (1, 10, 255)),
        ("uint16", "png", (200, 100, 50), (1, 0, 0)),  # 16 bits are 16 bits
        ("int32", "tif", (200, 2570, 65535), (1, 10, 255)),
        ("int32", "tif", (200, 20, 2), (200, 20, 2)),
        ("float32", "tif", (0.2, 1.0, 0.0), (51, 255, 0)),
        ("float32", "tif", (0.2, 20.0, 200.0), (0, 20, 200)),
        ("float32", "tif", (0.2, 2570.0, 25700.0), (0, 10, 100)),
        ("float32", "pfm", (0.2, 20.0, 200.0), (0, 20, 200)),
        ("uint8", "png", (1, 20, 200), (1, 20, 200)),
    ],
)
def test_images_of_a_set_have_one_scale(
    tmp_path: Path, dtype: str, suffix: str, values: tuple[float, ...], expected: tuple[int, ...]
) -> None:
    for i, value in enumerate(values):
        save(tmp_path / f"{i}.{suffix}", value, dtype)
    assert levels(tmp_path) == list(expected)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "CMYK", "RGB", "RGBA", "YCbCr"])
def test_modes_of_bytes_have_the_scale_of_bytes(tmp_path: Path, mode: str) -> None:
    """A dark image stays dark, whatever else is in the set."""
    for name, level in (("dark", 10), ("light", 240)):
        grey = Image.new("L", (20, 20), level)
        one = grey.point(lambda v: 255 * (v > 127)) if mode == "1" else grey
        file = io.BytesIO()
        kind = "PNG" if mode in ("1", "L", "LA", "P", "RGB", "RGBA") else "TIFF"
        one.convert(mode).save(file, kind)
        got = int(fit(file.getvalue(), 16).mean())
        wanted = (0 if level < 127 else 255) if mode == "1" else level
        assert abs(got - wanted) <= 2, name


def test_the_scale_is_the_same_whichever_image_is_read_first(tmp_path: Path) -> None:
    for i, value in enumerate((0.5, 100.0, 0.7, float("nan"))):
        save(tmp_path / f"{i}.tif", value, "float32")
    save(tmp_path / "4.png", 60_000, "uint16")
    (tmp_path / "5.tif").write_bytes(b"II*\0 damaged")
    for order in ((0, 1, 2), (2, 1, 0)):
        source = open_images(str(tmp_path))
        assert [int(source.load(i, 16)[0, 0, 0]) for i in order] == [
            {0: 0, 1: 100, 2: 1}[i] for i in order
        ]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_pixels_that_are_no_numbers_are_unreadable(tmp_path: Path, value: float) -> None:
    pixels = np.zeros((20, 20), np.float32)
    pixels[3, 4] = value
    Image.fromarray(pixels).save(tmp_path / "a.tif")
    with pytest.raises(UnreadableInputError, match="a pixel is NaN or infinite"):
        open_images(str(tmp_path)).load(0, 16)


def test_a_large_image_is_scaled_without_waiting_for_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tendril.data.inputs.decoding.LARGE_PIXELS", 10)
    for i, value in enumerate((0.5, 1.0)):
        save(tmp_path / f"{i}.tif", value, "float32")
    assert levels(tmp_path) == [128, 255]


def test_what_saturates_is_on_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "images").mkdir()
    for i, value in enumerate((0.5, 1.0, 1.0)):
        pixels = np.full((64, 64), value, np.float32)
        pixels[0, : 5 * i] = 1.5 if i == 2 else -0.5
        Image.fromarray(pixels).save(tmp_path / "images" / f"{i}.tif")
    words = ["demo", "--inputs", str(tmp_path / "images"), "--home", str(tmp_path)]
    words += ["--limit", "3", "--per-input", "2", "--device", "cpu"]
    made = main(words)
    assert made is not None
    assert made.result["saturated"] == 2
    assert "2 images have pixels that saturate" in made.sentence
    said = capsys.readouterr().err
    assert "3 images have floats as pixels, up to 1.5: 1 is white in all of them." in said
    assert "warning: 2 of 3 images have pixels below black or above white" in said
    about = describe_store(str(made.result["store"]), "x")
    assert about["saturated"] == [
        {"input": 1, "name": "1.tif", "pixels": 5},
        {"input": 2, "name": "2.tif", "pixels": 10},
    ]
    assert "  2  2.tif: 10 pixels" in described(about)
    again = main(words)
    assert again is not None and again.result["reused"]
