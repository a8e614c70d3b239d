"""The comparison of methods: its table has every cell, and no image on two sides."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from tendril.data.order import held_out
from tendril.data.store.reader import open_store
from tendril.models.dictionaries.checkpoint import save_dictionary
from tendril.models.dictionaries.sae import SAE
from tendril.models.dictionaries.sparsity import Sparsity
from tendril.study.core.study import run_study
from tendril.study.measures.family_quality import FamilyQuality
from tendril.study.symmetry.config import SymmetryConfig
from tendril.study.symmetry.race import Entry, Race, divided, method_of, views_of
from tendril.study.symmetry.runs import OrbitRun, describe
from tendril.study.symmetry.study import SymmetryStudy
from tendril.study.symmetry.tables import RACE, race_rows, terminal

from ..helpers.study_subject import ORIENTATIONS
from .test_page import check
from .test_symmetry import GROUP, LINE, QUICK, WIDTH, home  # noqa: F401

QUALITY = FamilyQuality(5, 0.5, 0.2, -0.1, 0.7, 0.6, 0.3, 20.0, 90.0)


def entry(method: str, silhouette: float, assigned: list[int], *, tied: bool = False) -> Entry:
    quality = replace(QUALITY, silhouette=silhouette)
    return Entry("run", method, quality, np.array(assigned), tied, 0.25, 16, 1000, 12.0)


def test_each_method_is_a_row_with_every_cell_over_its_seeds() -> None:
    race = Race(
        4,
        (
            entry("tied", 0.1, [0, 0, 1, 1], tied=True),
            entry("tied", 0.3, [5, 5, 2, 2], tied=True),
            entry("units", 0.2, [0, 1, 2, 3]),
        ),
    )
    figures = race.figures()
    rows = race_rows(figures)
    assert [(row["method"], row["seeds"]) for row in rows] == [("tied", 2), ("units", 1)]
    cells = [dict(zip(RACE, row["cells"], strict=True)) for row in rows]
    assert all(text for row in cells for text in row.values())
    assert cells[0]["silhouette"] == "0.20 (0.10 to 0.30)" and cells[1]["silhouette"] == "0.20"
    assert cells[0]["stability"] == "1.00" and cells[1]["stability"] == "one seed"
    assert cells[0]["agreement"] == "0.70*" and cells[1]["agreement"] == "0.70"
    assert cells[0]["pose_error"] == "20.0°*" and cells[0]["pose_chance"] == "90.0°"
    told = terminal({"false_positives": {}, "race": figures})
    assert "tied (2 seeds)" in told and "silhouette 0.20 (0.10 to 0.30); by chance -0.10" in told


def test_methods_are_told_apart_by_what_is_no_seed(home: Path) -> None:  # noqa: F811
    (store,) = (home / "store").iterdir()
    trained = {"objective": "batch_topk", "latents": 384, "families": 32, "k": 16, "l1": 1.0}
    trained |= {"steps": 400, "lr": 0.002, "store": store.name, "group": {}, "sources": "one"}
    run = OrbitRun(Path("run"), open_store(store), "units", GROUP, trained)
    dictionary = SAE(WIDTH * len(GROUP), 1, Sparsity("relu", 0), pre_bias=False)
    about = describe(replace(run, trained={**trained, "seed": 3}), dictionary)
    assert about == "not tied, encoder reads the identity, seed 3"
    method = method_of(run, about, tied=False)
    assert method == (
        "not tied, encoder reads the identity, latents 384, k 16, steps 400, lr 0.002"
    )
    assert views_of(run) == 1 and views_of(replace(run, trained={})) == len(GROUP)


def test_no_image_is_both_tested_and_chosen_by_or_trained_on() -> None:
    inputs = np.repeat(np.arange(200), 3)
    test, validation = (set(inputs[part]) for part in divided(inputs, 0.2, 0.5))
    assert test and validation and not test & validation
    assert test | validation == set(inputs[held_out(inputs, 0.2)]), "none that training has seen"


def single_run(home: Path, name: str, **changed: str) -> Path:  # noqa: F811
    """A run of single vectors that reads each curve unit by itself."""
    run = home / "runs" / name
    shutil.copytree(home / "runs" / "noise-0", run)
    config = json.loads((run / "config.json").read_text())
    sae = SAE(WIDTH, WIDTH, Sparsity("relu", 0), pre_bias=False)
    with torch.no_grad():
        sae.W_dec.copy_(torch.eye(WIDTH))
        sae.W_dec[LINE:] = 0  # of most orbits the line, and of all the light is most active
        sae.W_enc.copy_(sae.W_dec.T)
    save_dictionary(run, sae, config | changed, torch.full((WIDTH,), 0.1))
    return run


def test_a_run_of_single_elements_is_studied_and_compared_by_its_responses(home: Path) -> None:  # noqa: F811
    runs = [single_run(home, f"single-{i}", orbits="each") for i in range(2)]
    quick = QUICK | {"visualise": 0, "examples": 1}
    config = SymmetryConfig(
        run="single-0", controls=("single-1", "templates-0"), home=str(home), **quick
    )
    found = run_study(SymmetryStudy(), config)
    latents = {row["latent"]: row for row in found.figures["latents"]}
    for i, angle in enumerate(ORIENTATIONS):
        assert latents[i]["class"] == "one reflection"
        assert abs((latents[i]["orientation"] - angle + 90) % 180 - 90) < 1
    methods = found.figures["race"]["methods"]
    assert [(name.partition(",")[0], one["seeds"]) for name, one in methods.items()] == [
        ("SAE of augmented inputs", 2),
        ("SAE of augmented inputs", 2),
        ("not tied", 1),
    ]
    by_blocks, by_decoder, _ = methods.values()
    assert by_blocks["stability"] == [1, 1, 1] and by_blocks["units"][0] <= 1
    assert by_blocks["pose_error"][0] < by_decoder["pose_error"][0] == 90  # rows are orthogonal
    told = found.report.read_text()
    check(told)
    assert "Methods side by side" in told and "families by decoder" in told
    assert "stability" in SymmetryStudy().table(found.figures)
    assert "class agreement" in SymmetryStudy().table(found.figures)
    for run in runs:
        shutil.rmtree(run)


def test_a_run_on_single_vectors_is_studied_over_the_orbits_of_another_store(home: Path) -> None:  # noqa: F811
    run = single_run(home, "plain-0", store="plain-store", store_path="../../store/plain-store")
    (store,) = [path.name for path in (home / "store").iterdir()]
    quick = QUICK | {"visualise": 0, "examples": 0}
    config = SymmetryConfig(run="plain-0", store=store, home=str(home), **quick)
    found = run_study(SymmetryStudy(), config)
    (name, _) = found.figures["race"]["methods"]
    assert name.startswith("SAE of plain inputs")
    assert "plain-0 was trained on plain-store." in found.report.read_text()
    shutil.rmtree(run)
