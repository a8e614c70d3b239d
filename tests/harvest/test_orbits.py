"""Orbits: the group acts from the right side, and a crop gives what the whole image does."""

from pathlib import Path

import numpy as np
import pytest
import torch
from jaxtyping import Float
from PIL import Image

from tendril.data.errors import ConfigError
from tendril.data.group.dihedral import Dihedral
from tendril.data.group.warp import Warp
from tendril.data.inputs.images import open_images
from tendril.data.inputs.procedural import dead_leaves
from tendril.data.store.reader import open_store
from tendril.harvest import vision_plan
from tendril.harvest.config import HarvestConfig, VerifyConfig
from tendril.harvest.orbit_rows import MILLI
from tendril.harvest.run import harvest
from tendril.harvest.verify import verify_deep
from tendril.models.sites.hooks import as_grid, recording
from tendril.models.sites.window import find_receptive_patch
from tendril.models.subjects.subject import Subject, site_modules
from tendril.models.subjects.synthetic.handmade import handmade_subject

from ..data.test_store import contents

SITES = ("mixed3b_5x5", "mixed3b")


@pytest.fixture(scope="module")
def subject() -> Subject:
    return handmade_subject()


def config(home: str, **fields: object) -> HarvestConfig:
    given: dict[str, object] = {
        "subject": "handmade",
        "inputs": "dead-leaves",
        "sites": SITES,
        "limit": 3,
        "per_input": 4,
        "rotations": 8,
        "home": home,
        "dtype": "float32",
        "batch_size": 2,
    }
    return HarvestConfig(**{**given, **fields})  # type: ignore[arg-type]


def by_whole_images(
    subject: Subject, image: np.ndarray, cell: tuple[int, int], turn: float, group: Dihedral
) -> dict[str, Float[torch.Tensor, "g d"]]:
    """The slow reference: each patch on a whole image of the mean colour, read at its cell."""
    window = find_receptive_patch(subject, SITES)
    rgb_CHW = torch.from_numpy(image).permute(2, 0, 1) / 255
    x, y = window.centre(*cell)
    patches_GCPP = Warp(group, window.size, window.colour).orbits(
        rgb_CHW, np.array([[x, y]]), np.array([turn])
    )[0]
    whole = torch.tensor(window.colour).view(1, 3, 1, 1).repeat(len(group), 1, 160, 160)
    left, top = (int(at - (window.size - 1) / 2) for at in (x, y))
    whole[:, :, top : top + window.size, left : left + window.size] = patches_GCPP
    with (
        recording(subject.module, site_modules(subject, SITES)) as forward,
        torch.inference_mode(),
    ):
        acts = forward(subject.preprocess(whole))
    return {site: as_grid(acts[site])[:, cell[0], cell[1]] for site in SITES}


@pytest.mark.parametrize("positions", ["norm", pytest.param("uniform", marks=pytest.mark.slow)])
def test_orbits_are_those_of_whole_images(tmp_path: Path, subject: Subject, positions: str) -> None:
    store = open_store(harvest(config(str(tmp_path), positions=positions)).store)
    assert store.group == Dihedral(8)
    source = open_images("dead-leaves", 3)
    columns = store.arrays
    seen = 0.0
    for row in (0, 5, 11):
        index = row // 4
        y, x, turn = (int(columns.column(name)[row]) for name in ("y", "x", "turn"))
        wanted = by_whole_images(
            subject, source.load(index, 160), (y, x), turn / MILLI, Dihedral(8)
        )
        for site in SITES:
            got_GD = store.read(site, slice(row, row + 1))[0]
            top = float(wanted[site].abs().max())
            seen = max(seen, top)
            assert np.abs(got_GD - wanted[site].numpy()).max() <= 1e-5 * top
    assert seen > 0


def test_without_a_turn_and_without_reflections(tmp_path: Path) -> None:
    asked = config(str(tmp_path), turn="none", reflections=False, rotations=3, positions="uniform")
    store = open_store(harvest(asked).store)
    assert store.group == Dihedral(3, reflections=False)
    assert not store.arrays.column("turn").any()
    assert store.read("mixed3b", slice(0, 2)).shape == (2, 3, 480)


def test_the_same_orbits_whatever_the_slices_and_however_often_it_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vision_plan, "SHARD_PATCHES", 64)  # a shard an image
    whole = harvest(config(str(tmp_path / "whole"))).store
    first = harvest_until(config(str(tmp_path / "parts")), shards=1)
    assert first
    again = harvest(config(str(tmp_path / "parts"), batch_size=1))
    assert not again.reused
    assert contents(Path(again.store)) == contents(Path(whole))


def harvest_until(asked: HarvestConfig, shards: int) -> bool:
    """A harvest that dies after so many shards."""
    made = vision_plan.VisionPlan.producer

    def dying(made_plan, inputs_per_slice):  # type: ignore[no-untyped-def]
        def produce(slices):  # type: ignore[no-untyped-def]
            for done, part in enumerate(made(made_plan, inputs_per_slice)(slices)):
                if done == shards:
                    raise KeyboardInterrupt
                yield part

        return produce

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vision_plan.VisionPlan, "producer", dying)
        with pytest.raises(KeyboardInterrupt):
            harvest(asked)
    return True


def test_a_sample_of_orbits_can_be_made_once_more(tmp_path: Path) -> None:
    made = harvest(config(str(tmp_path)))
    done = verify_deep(VerifyConfig(made.store, deep=True, rows=4), made.store)
    assert done.differing == 0
    assert done.exact_rows == done.rows * len(SITES)


def test_an_unreadable_image_leaves_invalid_orbits(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a", "c"):
        Image.fromarray(dead_leaves(0, ord(name), 200)).save(folder / f"{name}.png")
    (folder / "b.png").write_bytes(b"no image")
    made = harvest(config(str(tmp_path), inputs=str(folder), limit=None))
    store = open_store(made.store)
    assert made.unreadable == 1
    assert store.arrays.column("valid").tolist() == [True] * 4 + [False] * 4 + [True] * 4
    batch = next(store.batches("mixed3b", 8, part="all", epochs=1))
    assert batch.shape == (8, 16, 480)
    assert bool(batch.isfinite().all())


def test_more_anchors_than_there_are_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"receptive field \(91 pixels\) lies within the image"):
        harvest(config(str(tmp_path), per_input=400))
