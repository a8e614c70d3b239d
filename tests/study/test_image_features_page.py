"""The page of features of images at the size of a large dictionary: made-up findings."""

from pathlib import Path

import numpy as np
import torch

from tendril.data.store.atomic import write_whole
from tendril.data.store.labels import Labels
from tendril.models.sites.receptive import ReceptiveField
from tendril.study.features import image_page
from tendril.study.features.image_findings import ImageFindings, Shown
from tendril.study.features.page import PIECE, script
from tendril.study.measures.image_activity import (
    Together,
    class_spread,
    morans_i,
    together,
)
from tendril.study.measures.image_maps import ExampleMaps, as_texts
from tendril.study.measures.latent_activity import Activity
from tendril.study.page.render import render

from .test_features_page import browsed

TOP, LENGTH, IMAGES, SIDE = 15, 100, 20_000, 28


def made_up(latents: int, classes: int) -> ImageFindings:
    """Findings of many latents over 20,000 made-up images."""
    rng = np.random.default_rng(0)
    activity = Activity(latents, LENGTH, 10, 0, 1)
    activity.rows = IMAGES * LENGTH
    activity.fired_S[:] = rng.integers(1, 1000, latents)
    activity.max_S[:] = rng.exponential(2, latents)
    activity.histogram_SH[:, 90:100] = 7
    count = latents * TOP
    input_M = rng.integers(0, IMAGES, count)
    map_MC = np.maximum(rng.normal(-1.5, 1, (64, SIDE * SIDE)), 0).astype(np.float32)
    texts = as_texts(map_MC, map_MC.max(axis=1))
    ring = (torch.arange(latents)[:, None] + torch.arange(1, 9)) % latents
    return ImageFindings(
        run="many",
        store="photos",
        subject="made-up",
        sites=("mixed4a",),
        part="all",
        images=IMAGES,
        activity=activity,
        images_S=activity.fired_S // 2,
        labels=Labels(
            tuple(f"class {i}" for i in range(classes)),
            rng.integers(0, classes, IMAGES).astype(np.int32),
        ),
        spread=class_spread(
            rng.exponential(1, (classes, latents)) ** 6, np.full(classes, IMAGES // classes)
        ),
        together=Together(ring.numpy(), np.full((latents, 8), 0.1, np.float32), 1000),
        neighbours=(ring, torch.full((latents, 8), 0.5)),
        norm_S=np.ones(latents, np.float32),
        shown=Shown(
            np.repeat(np.arange(latents), TOP),
            input_M * LENGTH,
            rng.exponential(1, count).astype(np.float32),
            np.tile(np.r_[np.full(10, np.nan), np.arange(5)[::-1] / 5 + 0.1], latents),
        ),
        maps=ExampleMaps(
            [texts[m % 64] for m in range(count)],
            np.ones(count, np.float32),
            rng.uniform(0, 1, count),
            dict.fromkeys(range(IMAGES), b""),
        ),
        whole="network",
        names={i: f"n{i:08d}_photograph.jpg" for i in range(IMAGES)},
        field=ReceptiveField((SIDE, SIDE), (14, 14), (119.0, 119.0), (99, 99), (8.0, 8.0)),
        size=224,
        grid=(SIDE, SIDE),
        cell_M=rng.integers(0, SIDE, (count, 2)),
        no_images="",
    )


def test_a_page_of_many_latents_opens_at_once(tmp_path: Path) -> None:
    found, linked, data = made_up(32_768, 100), 32_000, tmp_path / "data"
    data.mkdir()
    index = script("features.index", image_page.index_of(found))
    assert len(index) < 3_500_000
    write_whole(data / "index.js", index)
    for number in (0, linked // PIECE):
        latents = range(number * PIECE, (number + 1) * PIECE)
        piece = script("features.piece", number, [image_page.latent_of(found, i) for i in latents])
        assert len(piece) < 1_200_000
        write_whole(data / f"{number:03d}.js", piece)
    common = {"title": "Features", "command": "tendril", "identity": "{}", "tables": []}
    html = render(Path(image_page.__file__).parent, {**common, **image_page.context(found)})
    (tmp_path / "index.html").write_text(html, encoding="utf-8")
    assert len(html) < 70_000
    dom = browsed(tmp_path, f"#latent={linked}")
    if dom is None:
        return
    assert f"Latent {linked}</a>" in dom  # the permalink, out of a piece of its own
    assert 10 < dom.count('class="row') < 120  # the list draws what can be seen
    assert dom.count('<canvas width="112"') == TOP
    assert "32,768 of 32,768 latents" in dom


def test_morans_i_of_known_maps() -> None:
    y, x = np.mgrid[:8, :8]
    halves, chessboard = (x < 4).astype(np.float32), ((y + x) % 2).astype(np.float32)
    unknown = np.where(x == 0, np.nan, halves).astype(np.float32)
    found = morans_i(np.stack([halves, chessboard, np.ones_like(halves), unknown]))
    # of 112 pairs of neighbours, 8 cross the middle
    assert np.allclose(found[:2], [(104 - 8) / 112, -1])
    assert np.isnan(found[2:]).all()


def test_latents_together_are_those_of_all_pairs() -> None:
    rng = np.random.default_rng(0)
    on_RS = rng.random((300, 9)) < np.linspace(0.02, 0.6, 9)
    on_RS[:, 8] = on_RS[:, 3]
    row, latent = np.nonzero(on_RS)
    found = together(row * 7, latent, 9, 4)
    assert found.rows == on_RS.any(1).sum()
    for i in range(9):
        both = on_RS.T.astype(int) @ on_RS[:, i]
        union = on_RS.sum(0) + on_RS[:, i].sum() - both
        score = np.where((both >= 3) & (np.arange(9) != i), both / union, -1)
        wanted = [j for j in np.lexsort((np.arange(9), -score)) if score[j] > 0][:4]
        assert found.number_SK[i, : len(wanted)].tolist() == wanted
        assert np.allclose(found.jaccard_SK[i, : len(wanted)], score[wanted])
    assert (found.number_SK[3, 0], found.jaccard_SK[3, 0]) == (8, 1)


def test_maps_as_text_keep_zeros_apart_from_unknown_cells() -> None:
    map_MC = np.array([[0, 0, 1, np.nan, np.nan, 0, 0.5, 0.01]], np.float32)
    assert as_texts(map_MC, np.ones(1, np.float32)) == ["2.z2_.ZA"]
    assert as_texts(np.zeros((1, 784), np.float32), np.zeros(1, np.float32)) == ["784."]
