import dataclasses
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tendril.data.errors import (
    ConfigError,
    OverflowingRowsError,
    SubjectError,
    UnreadableInputsError,
)
from tendril.data.inputs import images
from tendril.data.inputs.images import open_images
from tendril.data.store.reader import open_store
from tendril.harvest.config import HarvestConfig
from tendril.harvest.run import harvest, make_plan
from tendril.harvest.sampling import draw_by_norm

from ..conftest import ROOT
from ..helpers import mine

MINE = str(ROOT / "tests" / "helpers" / "mine.py")


@pytest.fixture
def config(tmp_path: Path) -> HarvestConfig:
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(9):
        pixels = np.random.default_rng(i).integers(0, 255, (40, 50, 3), np.uint8)
        Image.fromarray(pixels).save(photos / f"{i}.png")
    (photos / "4.png").write_bytes(b"broken")
    return HarvestConfig(
        inputs=str(photos),
        subject=f"{MINE}:network",
        sites=("late", "early"),
        per_input=5,
        batch_size=4,
        device="cpu",
        dtype="float32",
        home=str(tmp_path / "home"),
    )


def forward(config: HarvestConfig, index: int) -> dict[str, torch.Tensor]:
    """What the network says of one photograph, without hooks."""
    network = mine.network().module
    pixels = torch.from_numpy(open_images(config.inputs).load(index, 32))
    image = pixels.permute(2, 0, 1)[None].float() / 255
    early = network.early(image)
    return {"early": early[0].clone(), "late": network.late(early.relu())[0]}


def test_rows_are_the_activations_at_their_columns(config: HarvestConfig) -> None:
    done = harvest(config)
    store = open_store(done.store)
    assert (done.rows, done.unreadable, done.reused) == (45, 1, False)
    assert store.sites == ("late", "early")
    inputs, y, x, valid = (store.column(c) for c in ("input", "y", "x", "valid"))
    assert valid.sum() == 40
    assert not valid[inputs == 4].any()
    rows = {site: store.read(site, slice(0, 45)) for site in store.sites}
    for r in np.flatnonzero(valid):
        acts = forward(config, int(inputs[r]))
        np.testing.assert_allclose(
            rows["late"][r], acts["late"][:, y[r], x[r]], rtol=1e-5, atol=1e-5
        )
        early = acts["early"][:, 2 * y[r] + 1, 2 * x[r] + 1]
        np.testing.assert_allclose(rows["early"][r], early, rtol=1e-4, atol=1e-6)
    norms = forward(config, 2)["late"].norm(dim=0).flatten().numpy()
    assert (8 * y + x)[inputs == 2].tolist() == draw_by_norm(norms[None], 5, 0, [2])[0].tolist()


@pytest.mark.parametrize("group", [{}, {"rotations": 4, "sites": ("early",)}])
def test_whatever_a_decoder_raises_is_of_one_input(
    config: HarvestConfig, monkeypatch: pytest.MonkeyPatch, group: dict[str, object]
) -> None:
    photos = Path(config.inputs)
    os.mkfifo(photos / "pipe.jpg")
    (photos / "zero.jpg").symlink_to("/dev/zero")
    (photos / "7.png").rename(os.fsdecode(os.fsencode(photos) + b"/\xff.png"))
    whole = images.fit

    def fit(content: bytes, size: int, *others: object) -> np.ndarray:
        if content == (photos / "2.png").read_bytes():
            raise struct.error("unpack requires\n4 bytes")
        return whole(content, size, *others)

    monkeypatch.setattr(images, "fit", fit)
    done = harvest(dataclasses.replace(config, **group))
    store = open_store(done.store)
    assert done.unreadable == 2
    unreadable = np.unique(store.column("input")[~store.column("valid")])
    assert [store.input_name(int(i)) for i in unreadable] == ["2.png", "4.png"]
    records = Path(done.store, "records").rglob("*")
    written = "".join(file.read_text() for file in records if file.is_file())
    assert "struct.error: unpack requires 4 bytes" in written
    assert store.input_name(8) == "\\xff.png"


def test_a_slice_of_which_nothing_can_be_read(config: HarvestConfig) -> None:
    store = open_store(harvest(dataclasses.replace(config, batch_size=1)).store)
    valid = store.column("valid")
    assert np.array_equal(~valid, store.column("input") == 4)


def test_all_positions(config: HarvestConfig) -> None:
    store = open_store(harvest(dataclasses.replace(config, per_input="all")).store)
    assert store.rows == 9 * 64
    assert store.column("x")[:64].tolist() == list(range(8)) * 8
    expected = forward(config, 0)["late"].permute(1, 2, 0).reshape(64, 10)
    np.testing.assert_allclose(store.read("late", slice(0, 64)), expected, rtol=1e-4, atol=1e-5)


def test_the_second_harvest_finds_the_first(config: HarvestConfig) -> None:
    first, second = harvest(config), harvest(config)
    assert second.reused
    assert (second.store, second.rows) == (first.store, first.rows)


@pytest.mark.parametrize(
    "change",
    [
        {"per_input": 6},
        {"positions": "uniform"},
        {"seed": 1},
        {"dtype": "float16"},
        {"limit": 7},
        {"sites": ("late",)},
        {"subject": f"{MINE}:huge"},
        {"per_input": "all"},
    ],
)
def test_a_changed_spec_makes_another_store(
    config: HarvestConfig, change: dict[str, object]
) -> None:
    assert make_plan(dataclasses.replace(config, **change)).location != make_plan(config).location  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change",
    [{"batch_size": 1}, {"workers": 1}, {"compressor": "none"}, {"threads": 1}, {"dry_run": True}],
)
def test_what_cannot_change_the_rows_keeps_the_store(
    config: HarvestConfig, change: dict[str, object]
) -> None:
    assert make_plan(dataclasses.replace(config, **change)).location == make_plan(config).location  # type: ignore[arg-type]


def test_a_flag_outside_the_spec_is_told_where_it_differs(
    config: HarvestConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    harvest(config)
    assert harvest(dataclasses.replace(config, compressor="none")).reused
    assert "compressed with zstd instead of none" in capsys.readouterr().err
    assert not harvest(dataclasses.replace(config, compressor="none", overwrite=True)).reused


def test_a_dry_run_returns_an_estimate_and_writes_nothing(config: HarvestConfig) -> None:
    import tendril.harvest

    dry = dataclasses.replace(config, dry_run=True)
    done = tendril.harvest(dry)  # type: ignore[operator]  # the package is callable
    assert (done.rows, done.dry_run, done.reused) == (45, True, False)
    assert done.bytes > 0
    assert not Path(config.home).exists()
    harvest(config)
    assert harvest(dry).reused


def test_sites_may_be_joined_by_commas(config: HarvestConfig) -> None:
    assert make_plan(dataclasses.replace(config, sites=("late,early",))).spec.sites == (
        "late",
        "early",
    )


def test_only_broken_images(config: HarvestConfig) -> None:
    for file in Path(config.inputs).iterdir():
        file.write_bytes(b"broken")
    with pytest.raises(UnreadableInputsError, match="none of the 9 images"):
        harvest(config)
    assert not list(Path(config.home).rglob("zarr.json"))


def test_overflow_proposes_another_dtype_and_that_works(config: HarvestConfig) -> None:
    overflowing = dataclasses.replace(config, subject=f"{MINE}:huge", dtype="float16")
    with pytest.raises(OverflowingRowsError, match="--dtype bfloat16"):
        harvest(overflowing)
    store = open_store(harvest(dataclasses.replace(overflowing, dtype="bfloat16")).store)
    assert np.abs(store.moments("late").mean).max() > 65504


@pytest.mark.parametrize(
    ("per_input", "flag"), [(0, "per-input"), (65, "1 to 64, the positions of the map of late")]
)
def test_more_positions_than_there_are(config: HarvestConfig, per_input: int, flag: str) -> None:
    with pytest.raises(ConfigError, match=flag):
        make_plan(dataclasses.replace(config, per_input=per_input)).layout()


def test_the_origin_leads_back_and_is_no_absolute_path(config: HarvestConfig) -> None:
    store = open_store(harvest(config).store)
    assert (store.path / store.origin["inputs"]).resolve() == Path(config.inputs).resolve()
    assert not Path(store.origin["subject"]).is_absolute()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_harvests_what_the_cpu_harvests(config: HarvestConfig, tmp_path: Path) -> None:
    """Relative error at most 1e-3 of the site's scale, in float32 without TF32."""
    everywhere = dataclasses.replace(config, per_input="all")
    on_cpu = open_store(harvest(everywhere).store)
    on_gpu = open_store(
        harvest(dataclasses.replace(everywhere, device="cuda", home=str(tmp_path / "gpu"))).store
    )
    for site in on_cpu.sites:
        a, b = (s.read(site, slice(0, s.rows)) for s in (on_cpu, on_gpu))
        valid = on_cpu.column("valid")
        assert np.abs(a - b)[valid].max() <= 1e-3 * np.abs(a[valid]).max()


PEAK = """
import sys
from tendril.bench.measure import peak_memory
from tendril.harvest.config import HarvestConfig
from tendril.harvest.run import harvest
harvest(HarvestConfig(inputs="dead-leaves", subject=sys.argv[1], sites=("late",),
    per_input="all", limit=int(sys.argv[2]), device="cpu", home=sys.argv[3]))
print(peak_memory())
"""


@pytest.mark.slow
def test_peak_memory_is_flat_when_the_inputs_grow_tenfold(tmp_path: Path) -> None:
    peaks = []
    for limit in (300, 3000):  # both more than a shard, which is what the writer holds
        command = [sys.executable, "-c", PEAK, f"{MINE}:network", str(limit), str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks.append(float(done.stdout.split()[-1]))
    assert peaks[1] < 1.1 * peaks[0], f"{peaks} MB"


def test_a_harvest_that_stops_leaves_gradients_on(config: HarvestConfig) -> None:
    with pytest.raises(OverflowingRowsError):
        harvest(dataclasses.replace(config, subject=f"{MINE}:huge", dtype="float16"))
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()


def test_a_subject_whose_weights_differ_at_each_call_is_refused(
    config: HarvestConfig, tmp_path: Path
) -> None:
    code = "from torch import nn\n\n\ndef make():\n    return nn.Sequential(nn.Conv2d(3, 4, 3))\n"
    (tmp_path / "unseeded.py").write_text(code)
    subject = f"{tmp_path / 'unseeded.py'}:make"
    with pytest.raises(SubjectError, match="must return the same weights at each call"):
        harvest(dataclasses.replace(config, subject=subject, sites=("0",)))
    seeded = code.replace("def make():\n", "def make():\n    torch.manual_seed(0)\n")
    (tmp_path / "seeded.py").write_text(f"import torch\n{seeded}")
    subject = f"{tmp_path / 'seeded.py'}:make"
    assert harvest(dataclasses.replace(config, subject=subject, sites=("0",), per_input=2)).rows


def test_int8_that_loses_much_is_warned_of(
    config: HarvestConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    for dtype, function, warned in (
        ("int8", "loud", True),
        ("int8", "network", False),
        ("float16", "loud", False),
    ):
        harvest(dataclasses.replace(config, dtype=dtype, subject=f"{MINE}:{function}"))
        said = capsys.readouterr().err
        assert ("of the variance of the median channel of late" in said) is warned, said
        assert "median channel of early" not in said


def test_int8_that_loses_most_is_refused_before_a_shard_is_written(config: HarvestConfig) -> None:
    loudest = dataclasses.replace(config, dtype="int8", subject=f"{MINE}:loudest")
    with pytest.raises(ConfigError, match=r"at most 25% .*; at late it loses \d+%.* bfloat16"):
        harvest(loudest)
    assert not list(Path(config.home).glob("store/*/records/[0-9]*.json"))
    assert harvest(dataclasses.replace(loudest, dtype="bfloat16")).rows
