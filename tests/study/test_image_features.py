"""The study of features of images: its data against brute force, and mistakes."""

import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jaxtyping import Float32
from PIL import Image

from tendril.data import order
from tendril.data.errors import ConfigError, InputsNotFoundError
from tendril.data.store.reader import Store, open_store
from tendril.models.dictionaries.checkpoint import load_sae
from tendril.study.__main__ import main
from tendril.study.core.study import StudyResult, run_study
from tendril.study.features.config import FeaturesConfig
from tendril.study.features.study import FeaturesStudy
from tendril.study.measures.image_maps import LEVELS

from ..helpers.image_home import CLASSES, SIDE, SITE, S, make_images, make_run, make_store
from .test_features import floats, script, table_of
from .test_features_page import browsed

CELLS = SIDE * SIDE


def study(home: Path, **fields: Any) -> StudyResult:
    given: dict[str, Any] = {"run": "whole", "home": str(home), "device": "cpu", "top": 3}
    return run_study(FeaturesStudy(), FeaturesConfig(**(given | fields)))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("images")
    make_images(home / "images")
    for name, per_input in (("whole", "all"), ("scattered", 10)):
        make_run(home, make_store(home, per_input), name)
    return home


def store_of(home: Path, run: str) -> Store:
    config = json.loads((home / "runs" / run / "config.json").read_text())
    return open_store(home / "store" / config["store"])


def brute(home: Path, run: str) -> Float32[np.ndarray, "b p s"]:
    """What every latent does on every row at once; NaN where a row does not count."""
    store = store_of(home, run)
    with torch.no_grad():
        x_RD = torch.from_numpy(store.read(SITE, slice(0, store.rows)))
        z_RS = load_sae(run, str(home)).encode(x_RD.nan_to_num()).numpy()
    z_RS[~store.column("valid")] = np.nan
    return z_RS.reshape(store.spec["inputs"]["count"], -1, S)


def data_of(done: StudyResult) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    folder = done.report.parent / "data"
    (index,) = script(folder / "index.js")
    _, latents = script(folder / "000.js")
    return index, latents


def unpacked(text: str) -> Float32[np.ndarray, " c"]:
    """A map from its text, in parts of its peak."""
    cells: list[float] = []
    for count, symbol in re.findall(r"(\d*)(\D)", text):
        value = {"_": np.nan, ".": 0}.get(symbol, (LEVELS.find(symbol) + 1) / len(LEVELS))
        cells += [value] * int(count or 1)
    return np.array(cells, np.float32)


@pytest.mark.parametrize("run", ["whole", "scattered"])
def test_counts_classes_and_examples_are_those_of_all_rows_at_once(home: Path, run: str) -> None:
    done = study(home, run=run)
    assert study(home, run=run).reused
    z_BPS, store = brute(home, run), store_of(home, run)
    index, latents = data_of(done)
    on_BPS = z_BPS > 0
    assert np.allclose(
        floats(index["frequency"]), on_BPS.sum((0, 1)) / np.isfinite(z_BPS[..., 0]).sum()
    )
    assert index["tokens"] == ["", *CLASSES]
    labels = store.labels()
    assert labels
    of_class = [labels.number_B == c for c in range(3)]
    mean_CS = np.stack([np.nanmean(z_BPS[some].reshape(-1, S), axis=0) for some in of_class])
    part_CS = mean_CS / np.where(mean_CS.sum(0) > 0, mean_CS.sum(0), 1)
    entropy_S = -np.where(part_CS > 0, part_CS * np.log(np.where(part_CS > 0, part_CS, 1)), 0).sum(
        0
    )
    alive = on_BPS.any((0, 1))
    assert not alive[-1] and alive.sum() > S // 2
    assert np.allclose(floats(index["effective"]), np.where(alive, np.exp(entropy_S), 0), rtol=1e-4)
    flat_SR = on_BPS.reshape(-1, S).T
    lines = table_of(done.report.parent / "latents.csv")
    for latent, told in enumerate(latents):
        assert told["fired"] == on_BPS[..., latent].sum() == int(lines[latent]["fired"])
        assert told["images"] == on_BPS[..., latent].any(1).sum() == int(lines[latent]["images"])
        best = [c for c in np.argsort(-part_CS[:, latent]) if part_CS[c, latent] > 0]
        assert [kind - 1 for kind, _ in told["classes"]] == best
        assert json.loads(lines[latent]["classes"]) == [CLASSES[c] for c in best]
        peak_B = np.nan_to_num(z_BPS[..., latent]).max(1)
        wanted = [b for b in np.argsort(-peak_B, kind="stable")[:3] if peak_B[b] > 0]
        assert [e[0] for e in told["strongest"]] == wanted
        for image, name, kind, y, x, value, level, *_ in told["strongest"] + told["weaker"]:
            row = np.flatnonzero(
                (store.column("input") == image)
                & (store.column("y") == y)
                & (store.column("x") == x)
            )
            assert value == pytest.approx(z_BPS.reshape(-1, S)[row[0], latent], rel=1e-3)
            assert name == store.input_name(image)
            assert kind - 1 == labels.number_B[image]
            assert (level is None) == (
                [image, name, kind, y, x, value, level] in [e[:7] for e in told["strongest"]]
            )
        for other, jaccard in told["together"]:
            both = (flat_SR[latent] & flat_SR[other]).sum()
            assert jaccard == pytest.approx(
                both / (flat_SR[latent] | flat_SR[other]).sum(), rel=1e-3
            )
            assert both >= 3
    assert {e[0] for told in latents for e in told["strongest"]} >= {0}  # it has no class
    assert done.figures["latents_never_on"] == (~alive).sum()


@pytest.mark.parametrize(
    ("run", "maps", "source"),
    [("whole", True, "store"), ("scattered", True, "network"), ("scattered", False, "positions")],
)
def test_maps_are_those_of_the_whole_image(home: Path, run: str, maps: bool, source: str) -> None:
    done = study(home, run=run, maps=maps, name=f"maps-{source}")
    assert done.figures["maps"] == source
    z_BPS = brute(home, "whole")  # the dictionaries are equal
    index, latents = data_of(done)
    moran = floats(index["moran"]) if index["moran"] else np.full(S, np.nan)
    for latent, told in enumerate(latents):
        found = []
        for image, _, _, y, x, value, level, text, peak in told["strongest"] + told["weaker"]:
            truth = z_BPS[image, :, latent]
            cells = unpacked(text) * peak
            known = np.isfinite(cells)
            assert len(cells) == CELLS and known.sum() == (10 if source == "positions" else CELLS)
            assert cells[known] == pytest.approx(truth[known], abs=peak / len(LEVELS) * 1.05)
            assert known[y * SIDE + x] and value <= peak * 1.001
            if level is None:
                found.append(naive_moran(truth.reshape(SIDE, SIDE)))
        if source != "positions" and found:
            assert moran[latent] == pytest.approx(np.mean(found), abs=1e-4)
        else:
            assert np.isnan(moran[latent])
    picture = done.report.parent / "data" / "images" / "1.png"
    with Image.open(picture) as kept, Image.open(home / "images/blue/n01440763_fish.png") as true:
        assert kept.size == true.size == (SIDE, SIDE)
    page = done.report.read_text()
    assert ("Moran's I of a map is" in page.replace("&#39;", "'")) == (source != "positions")


def naive_moran(z_HW: Float32[np.ndarray, "h w"]) -> float:
    """Moran's I by its definition."""
    off, total, pairs = z_HW.astype(float) - z_HW.astype(float).mean(), 0.0, 0
    for y in range(SIDE):
        for x in range(SIDE):
            for v, u in ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)):
                if 0 <= v < SIDE and 0 <= u < SIDE:
                    total, pairs = total + off[y, x] * off[v, u], pairs + 1
    return float(off.size / pairs * total / (off**2).sum())


def test_labels_of_a_file_and_parts(home: Path) -> None:
    lines = [f"n0144076{i} kind {i}" for i in range(10)]
    (home / "classes.txt").write_text("\n".join(lines))
    done = study(home, labels=str(home / "classes.txt"))
    index, _ = data_of(done)
    assert index["tokens"] == ["", *(f"kind {i}" for i in range(10))]
    assert done.figures["classes"] == 10
    aside = order.held_out(np.arange(13), 0.3)
    held_out = study(home, part="held_out")
    assert held_out.figures["images"] == aside.sum()
    few = study(home, limit=5)
    assert few.figures["remarks"][0].startswith("Figures and examples are of 5 images of")
    seen = {e[0] for told in data_of(held_out)[1] for e in told["strongest"]}
    assert seen <= set(np.flatnonzero(aside).tolist())


def test_without_the_images_the_numbers_are_still_there(home: Path, tmp_path: Path) -> None:
    for part in ("store", "runs"):
        shutil.copytree(home / part, tmp_path / part)
    done = study(tmp_path)
    index, latents = data_of(done)
    assert done.figures["maps"] is None and not index["pictures"]
    assert latents[0]["strongest"][0][0] == -1
    assert "cannot be found again" in done.report.read_text()


def test_search_by_class_links_and_order_work(home: Path) -> None:
    done = study(home, name="browsed")
    index, latents = data_of(done)
    reader = """<script>
    const wait = (ms) => new Promise((done) => setTimeout(done, ms));
    const drawn = () => [...document.querySelectorAll("#rows .row")];
    const rows = () => drawn().map((row) => +row.dataset.latent);
    (async () => {
      const seen = {};
      await wait(300); seen.linked = document.querySelector("#detail h2").textContent;
      seen.pictures = document.querySelectorAll("#detail .pic").length;
      seen.canvases = document.querySelectorAll("#detail canvas").length;
      document.querySelector('[data-by="effective"]').click(); seen.widest = rows()[0];
      const box = document.getElementById("search");
      box.value = '"red"'; box.dispatchEvent(new Event("input")); await wait(250);
      seen.red = rows().sort((a, b) => a - b);
      const output = document.createElement("output");
      output.textContent = JSON.stringify(seen); document.body.append(output);
    })();
    </script>"""
    done.report.write_text(done.report.read_text() + reader)
    dom = browsed(done.report.parent, "#latent=1")
    if dom is None:
        return
    output = re.search(r"<output>(.*)</output>", dom)
    assert output
    red = CLASSES.index("red") + 1
    assert json.loads(output[1]) == {
        "linked": "Latent 1",
        "pictures": len(latents[1]["strongest"] + latents[1]["weaker"]),
        "canvases": len(latents[1]["strongest"] + latents[1]["weaker"]),
        "widest": int(floats(index["effective"]).argmax()),
        "red": [i for i, t in enumerate(latents) if red in [kind for kind, _ in t["classes"]]],
    }


def test_a_crosscoder_of_several_sites_has_a_page(home: Path, tmp_path: Path) -> None:
    (tmp_path / "images").symlink_to(home / "images")
    make_run(tmp_path, make_store(tmp_path, 10, ("relu", "blue_relu")), "both")
    done = study(tmp_path, run="both")
    assert (done.figures["site"], done.figures["maps"]) == ("relu+blue_relu", "network")


def test_a_store_without_classes_has_those_of_its_images(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Store, "labels", lambda _: None)
    index, _ = data_of(study(home, name="older", limit=9))
    assert index["tokens"] == ["", *CLASSES]


def test_a_run_of_orbits_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Store, "group", range(8))
    with pytest.raises(ConfigError, match=r"under 8 transforms\. `tendril study symmetry` shows"):
        study(home, name="orbits")


def test_mistakes_are_told_in_a_sentence(home: Path, tmp_path: Path) -> None:
    (tmp_path / "other.txt").write_text("n99999999 nothing\n")
    for fields, error, said in (
        ({"labels": str(tmp_path / "none")}, InputsNotFoundError, "--labels must be a file"),
        ({"labels": str(tmp_path / "other.txt")}, ConfigError, "begins with the id of an image"),
        ({"part": "most"}, ConfigError, "--part must be one of"),
    ):
        with pytest.raises(error, match=said):
            study(home, **fields)


def test_the_command_on_the_page_finds_the_report_again(home: Path) -> None:
    words = ["features", "--run", "whole", "--home", str(home), "--device", "cpu", "--top", "2"]
    planned = main([*words, "--dry-run"])
    assert planned.result["images"] == 13
    made = main(words)
    assert "positions; on average" in made.sentence
    config = dataclasses.replace(FeaturesConfig(), run="whole", home=str(home), top=2, device="cpu")
    assert run_study(FeaturesStudy(), config).reused
