"""Planted curves of any orientation: what of them a dictionary has, against chance."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tendril.data.group.dihedral import Dihedral
from tendril.data.inputs.images import ImageSource
from tendril.data.store.reader import open_store
from tendril.models.dictionaries.sae import SAE
from tendril.models.dictionaries.sparsity import Sparsity
from tendril.models.subjects.synthetic.planted_features import REPRESENTS
from tendril.study.core.vision_inputs import VisionInputs, whole_images
from tendril.study.curves.planted import continuous, planted_curves, planted_truths, write_truths
from tendril.study.curves.words import headline, truth_text
from tendril.study.missing_curves.study import store_rows

from ..helpers.orbits import make_store
from ..helpers.study_example import family, findings, rendered
from ..helpers.study_subject import make
from .test_missing import trained
from .test_page import check


def dictionary(rows_SD: torch.Tensor) -> SAE:
    """A dictionary with these decoder rows."""
    sae = SAE(rows_SD.shape[1], len(rows_SD), Sparsity("relu", 0), pre_bias=False)
    with torch.no_grad():
        sae.W_dec.copy_(rows_SD)
    return sae


def made(subject: str, every: int):
    """Findings of a dictionary that has every n-th curve of the smallest radius, each with the
    right orientation, and as many rows at random."""
    curves = planted_curves(subject)
    least = min(curve.radius for curve in curves)
    chosen = [curve for curve in curves if curve.radius == least][::every]
    random_SD = torch.from_numpy(np.random.default_rng(0).normal(size=(len(chosen), 96))).float()
    rows_SD = torch.cat([torch.stack([curve.direction for curve in chosen]), random_SD])
    found = family("latent", [curve.orientation for curve in chosen], len(chosen))
    units = family("unit", [10.0, 50.0], 94)
    truths = planted_truths(subject, "mixed3b_5x5", [units, found], {}, dictionary(rows_SD))
    example = findings()
    return replace(
        example, subject=subject, site="mixed3b_5x5", units=units, latents=found, truths=truths,
        continuous=continuous(subject), branches={},
    )  # fmt: skip


def test_each_planted_network_has_its_own_curves():
    hard = planted_curves("planted-hard")
    assert len(hard) == 288 and {curve.radius for curve in hard} == {13.0, 24.0, 48.0}
    assert sorted({curve.orientation for curve in hard}) == (np.arange(96) * 3.75).tolist()
    assert len(planted_curves("planted-test")) == 192
    assert len(planted_curves("planted")) == 24 and not planted_curves("inceptionv1")
    named = [continuous(name) for name in ("planted-hard", "planted", "handmade", "inceptionv1")]
    assert named == [True, False, False, False]


def test_a_ring_is_recovered_where_latents_point_along_it():
    every = made("planted-hard", 1)
    first, *others = every.rings
    assert (first.radius, first.represented, first.oriented) == (13.0, 96, 96)
    assert first.cosine.min() == pytest.approx(1, abs=1e-5) and first.error.max() < 3
    assert first.chance.max() < REPRESENTS and first.by_chance.sum() == 0
    # directions are shared between radii, but not so much that one stands for another
    assert all(0.5 < np.median(ring.cosine) < REPRESENTS for ring in others)
    assert [ring.oriented for ring in others] == [0, 0]
    result = every.planted_result()
    assert (result["planted"], result["represented"], result["oriented"]) == (288, 96, 96)
    assert result["oriented_by_chance"] == 0 and len(result["rings"]) == 3


def test_a_sparse_ring_represents_neighbours_and_misses_their_orientation():
    """Latents 30 degrees apart: a direction 7.5 degrees away is along one, one 15 away is not."""
    ring = made("planted-hard", 8).rings[0]
    at = {float(angle): i for i, angle in enumerate(ring.planted)}
    assert ring.cosine[at[7.5]] == pytest.approx(0.94, abs=0.02)
    assert ring.cosine[at[15.0]] < REPRESENTS
    assert ring.error[at[3.75]] < 6 < ring.error[at[15.0]]
    assert 12 < ring.oriented < ring.represented < 96
    assert ring.figures()["latents"] == 12


def test_random_rows_represent_nothing_and_are_oriented_by_chance():
    rng = np.random.default_rng(1)
    found = family("latent", rng.uniform(0, 360, 40), 0)
    rows_SD = torch.from_numpy(rng.normal(size=(40, 96))).float()
    truths = planted_truths("planted-test", "mixed3b_5x5", [found], {}, dictionary(rows_SD))
    example = replace(findings(), truths=truths, latents=found, continuous=True)
    for ring in example.rings:
        assert ring.oriented == 0
        assert np.median(ring.cosine) == pytest.approx(np.median(ring.chance), abs=0.08)
        assert 40 < np.median(ring.error) < 140


def test_the_page_shows_rings_beside_chance(tmp_path):
    example = made("planted-hard", 8)
    page = rendered(example)
    checker = check(page)
    assert "planted.csv" in checker.addresses and page.count('class="ring"') == 3
    result = example.planted_result()
    told = truth_text(example)
    assert f"{result['represented']} of the 288" in told and told in page
    assert f"chance {result['represented_by_chance']:.0f}" in told
    assert any("planted curves" in tile["text"] for tile in headline(example))
    write_truths(example, tmp_path / "planted.csv")
    lines = (tmp_path / "planted.csv").read_text().splitlines()
    assert len(lines) == 289 and "chance_cosine" in lines[0]


def test_rows_of_orbits_have_no_examples_and_are_read_as_they_are(tmp_path):
    """A latent of single elements is studied like any other; patches cannot be cut."""
    group = Dihedral(4)
    x_NGD = np.random.default_rng(0).normal(size=(400, len(group), 6)).astype(np.float32)
    store = open_store(make_store(tmp_path, group, {"mixed3b_5x5": x_NGD}))
    images = ImageSource({}, "", ("one",), lambda _index, size: np.zeros((size, size, 3), np.uint8))
    inputs = VisionInputs(make(), "mixed3b_5x5", None, store, images, "")
    without = whole_images(inputs)
    assert without.images is None and "turned patches" in without.no_images
    run = trained("each", family("latent", [0.0, 90.0], 0))
    rows_ND = store_rows(store, "mixed3b_5x5", "train", run, 1000)
    assert rows_ND.shape[1] == 6
    assert all((abs(x_NGD[:, 0] - row).max(axis=1) < 1e-6).any() for row in rows_ND)
