"""Orbits: the group acts from the right side, and a crop gives what the whole image does."""

import numpy as np
import pytest
import torch
from jaxtyping import Float

from data.dihedral import Dihedral
from data.images import open_images
from data.reader import open_store
from data.warp import Warp
from harvest.config import HarvestConfig
from harvest.orbits import MILLI
from harvest.run import harvest
from models.hooks import as_grid, recording
from models.subjects.handmade import handmade_subject
from models.subjects.subject import Subject, site_modules
from models.subjects.window import find_window

SITES = ("mixed3b_5x5", "mixed3b")


@pytest.fixture(scope="module")
def subject() -> Subject:
    return handmade_subject()


def config(home: str, **fields: object) -> HarvestConfig:
    given = {
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
    window = find_window(subject, SITES)
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


@pytest.mark.parametrize("positions", ["norm", "uniform"])
def test_orbits_are_those_of_whole_images(tmp_path, subject: Subject, positions: str) -> None:  # type: ignore[no-untyped-def]
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
