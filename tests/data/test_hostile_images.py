"""One bad image is one unreadable input: it ends nothing, and nothing is read in its place."""

import io
import os
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from tendril.data.errors import UnreadableInputError
from tendril.data.inputs import decoding, images
from tendril.data.inputs.decoding import decode, fit
from tendril.data.inputs.images import SUFFIXES, open_images

# made by version 0.1 of the folder below
KNOWN_FINGERPRINT = "89970795b58f93b838a8082b95714d6824419fe33add9f308542bb8ac6e7ffd8"


def save(path: Path, colour: int = 0, kind: str = "PNG") -> None:
    Image.new("RGB", (20, 20), (colour, 100, 200)).save(path, format=kind)


def png(width: int, height: int, depth: int, rows: bytes) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    head = struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def bomb(width: int, height: int) -> bytes:
    """A small file of many 16-bit grey pixels."""
    squeeze, row = zlib.compressobj(9), b"\0" * (2 * width + 1)
    rows = b"".join(squeeze.compress(row) for _ in range(height)) + squeeze.flush()
    return png(width, height, 16, rows)


@pytest.mark.parametrize(
    "error",
    [
        TypeError("a"),
        AttributeError("b"),
        struct.error("c"),
        KeyError("d"),
        IndexError("e"),
        zlib.error("f"),
        OverflowError("g"),
        RecursionError("h"),
        Image.DecompressionBombError("i"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "j"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_any_failure_of_a_decoder_is_of_that_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fails(*_: object) -> None:
        raise error

    save(tmp_path / "a.png")
    monkeypatch.setattr(images, "fit", fails)
    with pytest.raises(UnreadableInputError, match=rf"^(zlib\.|struct\.)?{type(error).__name__}: "):
        open_images(str(tmp_path)).load(0, 16)


def test_a_lack_of_memory_is_no_fault_of_the_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise MemoryError

    save(tmp_path / "a.png")
    monkeypatch.setattr(images, "fit", fails)
    with pytest.raises(MemoryError):
        open_images(str(tmp_path)).load(0, 16)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_of_exif_only_the_orientation_is_read(kind: str) -> None:
    """Other tags of a wrong type make Pillow's own exif_transpose fail, as it writes them back."""
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "camera"
    file = io.BytesIO()
    picture = Image.effect_noise((40, 30), 60).convert("RGB")
    picture.save(file, kind, exif=exif)
    with Image.open(io.BytesIO(file.getvalue())) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    assert np.array_equal(decode(file.getvalue()), expected)


@pytest.mark.parametrize("value", ["six", (6,), (6, 6), [6], b"\x06", None, 0, 99])
def test_an_orientation_of_a_wrong_type_is_upright(
    value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = io.BytesIO()
    picture = Image.effect_noise((40, 30), 60).convert("RGB")
    picture.save(file, "PNG")
    monkeypatch.setattr(Image.Image, "getexif", lambda _: {0x0112: value})
    assert np.array_equal(decode(file.getvalue()), np.asarray(picture))


def as_before(content: bytes, size: int) -> np.ndarray:
    """What `fit` gave when it converted whole images."""
    with Image.open(io.BytesIO(content)) as opened:
        image: Image.Image = ImageOps.exif_transpose(opened)
        if image.mode.startswith(("I", "F")):
            values = np.asarray(image).astype(np.float64)
            if image.mode.startswith("I"):
                values = values / 257 if values.max(initial=0) > 255 else values
            elif values.max(initial=0) <= 1:
                values = values * 255
            image = Image.fromarray(np.clip(values, 0, 255).round().astype(np.uint8))
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        image = image.convert("RGB")
    width, height = image.size
    shorter = min(width, height)
    scaled = min(max(shorter, size), round(size * 8 / 7))
    side = size * shorter / scaled
    left, top = (width - side) / 2, (height - side) / 2
    if scaled == shorter:
        return np.asarray(image)[int(top) : int(top) + size, int(left) : int(left) + size]
    box = (left, top, left + side, top + side)
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC, box=box))


def noise(mode: str) -> Image.Image:
    draw = np.random.default_rng(0)
    if mode.startswith("I;16"):
        return Image.fromarray(draw.integers(0, 2**16, (61, 83)).astype(mode[4:] or "<u2"))
    if mode == "I":
        return Image.fromarray(draw.integers(0, 256, (61, 83)).astype(np.int32))
    if mode == "F":
        return Image.fromarray(draw.random((61, 83)).astype(np.float32))
    depth = len(Image.new(mode, (1, 1)).getbands())
    shape = (61, 83) if depth == 1 else (61, 83, 4)
    levels = draw.integers(0, 256, shape).astype(np.uint8)
    return Image.fromarray(levels).convert(mode)


@pytest.mark.parametrize("band", [100, 2**22])
@pytest.mark.parametrize(
    ("mode", "kind", "options"),
    [
        ("L", "PNG", {}),
        ("L", "PNG", {"transparency": 7}),
        ("LA", "PNG", {}),
        ("P", "PNG", {}),
        ("P", "PNG", {"transparency": 3}),
        ("P", "PNG", {"transparency": bytes(range(256))}),
        ("P", "GIF", {"transparency": 3}),
        ("RGB", "PNG", {}),
        ("RGB", "PNG", {"transparency": (1, 2, 3)}),
        ("RGB", "JPEG", {}),
        ("L", "JPEG", {}),
        ("CMYK", "JPEG", {}),
        ("RGBA", "PNG", {}),
        ("1", "PNG", {}),
        ("I;16", "PNG", {}),
        ("I;16>u2", "TIFF", {}),
        ("I", "TIFF", {}),
        ("F", "TIFF", {}),
        ("YCbCr", "TIFF", {}),
        ("LAB", "TIFF", {}),
    ],
)
@pytest.mark.parametrize("size", [24, 60, 90])
def test_bands_give_the_pixels_of_the_whole_image(
    mode: str,
    kind: str,
    options: dict[str, object],
    size: int,
    band: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = io.BytesIO()
    noise(mode).save(file, kind, **options)
    expected = as_before(file.getvalue(), size)
    monkeypatch.setattr(decoding, "BAND_PIXELS", band)
    assert np.array_equal(fit(file.getvalue(), size), expected)


def test_too_many_pixels_are_refused_before_they_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.png").write_bytes(png(20_000, 20_000, 8, b""))
    save(tmp_path / "b.png")
    source = open_images(str(tmp_path))
    for most in (Image.MAX_IMAGE_PIXELS, None):  # Pillow's limit, and a program without it
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", most)
        with pytest.raises(UnreadableInputError, match="pixels"):
            source.load(0, 16)
    assert source.load(1, 16).shape == (16, 16, 3)


def test_a_small_file_of_many_pixels_takes_little_memory(tmp_path: Path) -> None:
    """It took 6.8 GB: eight bytes a pixel, several times over."""
    (tmp_path / "a.png").write_bytes(bomb(16_000, 11_000))
    program = (
        "import sys; from pathlib import Path\n"
        "from tendril.data.inputs.images import open_images\n"
        "open_images(sys.argv[1]).load(0, 224)\n"
        "print(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 1_200_000  # KiB


def test_the_fingerprint_of_known_suffixes_stays(tmp_path: Path) -> None:
    for i in range(3):
        (tmp_path / f"{i}.jpg").write_bytes(bytes([i]) * 9000)
    (tmp_path / "notes").write_text("no image")
    (tmp_path / "labels.csv").write_text("a,b")
    assert open_images(str(tmp_path)).identity["fingerprint"] == KNOWN_FINGERPRINT


def test_what_pillow_reads_is_read_and_what_is_skipped_is_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, kind in (
        ("a.jfif", "JPEG"),
        ("b.JPE", "JPEG"),
        ("c.jp2", "JPEG2000"),
        ("d.tga", "TGA"),
        ("e", "PNG"),
        ("f", "WEBP"),
    ):
        save(tmp_path / name, kind=kind)
    for name in ("notes.txt", "labels.csv", "README", "z.npy"):
        (tmp_path / name).write_text("no image")
    source = open_images(str(tmp_path))
    assert source.names == ("a.jfif", "b.JPE", "c.jp2", "d.tga", "e", "f")
    for index in range(len(source)):
        assert np.abs(source.load(index, 16).astype(int) - (0, 100, 200)).max() < 5
    said = capsys.readouterr().err
    assert said == (
        "4 files are not images Pillow reads and were skipped: README, labels.csv, notes.txt, ...\n"
    )


def test_every_suffix_of_pillow_is_known() -> None:
    Image.init()
    never = {"EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG", "IPTC"}  # IPTC holds text
    pillows = {s for s, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    refused = {s for s in pillows if Image.registered_extensions()[s] in never}
    assert pillows - refused <= set(SUFFIXES)
    assert not refused & set(SUFFIXES)


def test_a_file_whose_content_would_run_a_program_is_not_decoded() -> None:
    content = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
    with pytest.raises(Image.UnidentifiedImageError):
        fit(content, 16)


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def make_folder(path: Path) -> None:
    path.mkdir()


def make_broken_link(path: Path) -> None:
    path.symlink_to("nowhere")


@pytest.mark.parametrize("make", [make_pipe, make_device, make_broken_link])
def test_only_regular_files_are_opened(
    tmp_path: Path, make: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path / "a.png")
    make(tmp_path / "x.jpg")
    source = open_images(str(tmp_path))
    assert source.names == ("a.png",)
    assert capsys.readouterr().err == "1 file is not regular and was skipped: x.jpg.\n"


@pytest.mark.parametrize("make", [make_pipe, make_device, make_folder])
def test_what_became_a_pipe_since_is_unreadable(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    save(tmp_path / "a.png")
    source = open_images(str(tmp_path))
    (tmp_path / "a.png").unlink()
    make(tmp_path / "a.png")
    with pytest.raises(UnreadableInputError, match="OSError: not a regular file"):
        source.load(0, 16)


def test_a_folder_called_as_an_image_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").mkdir()
    save(tmp_path / "x.jpg" / "a.png")
    assert open_images(str(tmp_path)).names == ("x.jpg/a.png",)


def test_an_enormous_file_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "a.png").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(UnreadableInputError, match=r"bytes are more than"):
        open_images(str(tmp_path)).load(0, 16)


def test_names_that_are_not_utf8_are_read_and_printable(tmp_path: Path) -> None:
    save(Path(os.fsdecode(os.fsencode(tmp_path) + b"/a\xff.png")), 9)
    save(tmp_path / "é.png", 10)
    source = open_images(str(tmp_path))
    assert source.names == ("é.png", "a\\xff.png") or source.names == ("a\\xff.png", "é.png")
    for index, name in enumerate(source.names):
        name.encode()
        assert source.load(index, 16)[0, 0, 0] == (10 if name == "é.png" else 9)


def test_a_file_that_cannot_be_opened_has_a_fingerprint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "a.png")
    save(tmp_path / "b.png")
    whole = open_images(str(tmp_path)).identity
    opened = Path.open

    def denied(path: Path, *options: object) -> object:
        if path.name == "a.png":
            raise PermissionError(13, "Permission denied")
        return opened(path, *options)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", denied)
    source = open_images(str(tmp_path))
    assert source.identity != whole
    assert source.identity == open_images(str(tmp_path)).identity
    with pytest.raises(UnreadableInputError, match="PermissionError"):
        source.load(0, 16)
    assert source.load(1, 16).shape == (16, 16, 3)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_cells_of_a_data_set_that_hold_no_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")
    save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    with zipfile.ZipFile(tmp_path / "some.zip", "w") as archive:
        archive.writestr("b.png", content)
    os.mkfifo(tmp_path / "pipe.png")
    cells = [
        {"bytes": content, "path": None},
        None,
        {"bytes": None, "path": str(tmp_path / "gone.png")},
        {"bytes": None, "path": str(tmp_path / "pipe.png")},
        {"bytes": None, "path": f"zip://b.png::{tmp_path / 'some.zip'}"},
        {"bytes": None, "path": f"zip://none.png::{tmp_path / 'some.zip'}"},
        {"bytes": None, "path": "zip://b.png::https://example.invalid/some.zip"},
        {"bytes": b"no image", "path": None},
        {"bytes": None, "path": str(tmp_path / "a.png")},
    ]
    kinds = datasets.Features({"image": datasets.Image(), "other": datasets.Image()})
    table = datasets.Dataset.from_dict({"image": cells, "other": [None] * len(cells)}, kinds)
    monkeypatch.setattr(images, "open_table", lambda *_: table)  # saving would read every file
    source = open_images("hf:some")
    assert source.identity == open_images("hf:some").identity
    reasons = {}
    for index in range(len(source)):
        try:
            assert source.load(index, 16)[0, 0].tolist() == [0, 100, 200]
        except UnreadableInputError as error:
            reasons[index] = str(error)
    assert sorted(reasons) == [1, 2, 3, 5, 6, 7]
    assert reasons[1] == "ValueError: the cell is empty"
    assert "not a regular file" in reasons[3]
    assert "not a file of this machine" in reasons[6]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_parquet_file_is_a_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    save(tmp_path / "a.png")
    cell = {"bytes": (tmp_path / "a.png").read_bytes(), "path": "a.png"}
    table = datasets.Dataset.from_dict({"label": [1, 2], "image": [cell, cell]})
    table.to_parquet(tmp_path / "plain.parquet")
    table.cast_column("image", datasets.Image()).to_parquet(tmp_path / "typed.parquet")
    plain = open_images(str(tmp_path / "plain.parquet"))
    typed = open_images(f"hf:{tmp_path / 'typed.parquet'}")
    assert len(plain) == 2
    assert plain.load(1, 16)[0, 0].tolist() == [0, 100, 200]
    assert plain.identity == typed.identity
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(FileNotFoundError, match="cannot be opened"):
        open_images(str(tmp_path / "broken.parquet"))
