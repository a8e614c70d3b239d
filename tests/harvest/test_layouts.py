"""Rows of sites in several layouts; deep verification finds a planted layout fault."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tendril.data.errors import ConfigError, StoreDamagedError, SubjectError
from tendril.data.inputs.images import open_images
from tendril.data.store.reader import open_store
from tendril.harvest.config import HarvestConfig, LanguageConfig, VerifyConfig
from tendril.harvest.language_plan import LanguagePlan
from tendril.harvest.run import harvest, make_plan
from tendril.harvest.verify import comparison, verify_deep

from ..conftest import ROOT
from ..helpers import layouts, tiny_language
from ..helpers.layouts import SIZE
from ..models.test_dimensions import REFUSED, SITES, by_hand

FILE = str(ROOT / "tests" / "helpers" / "layouts.py")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    photos = tmp_path_factory.mktemp("layouts") / "photos"
    photos.mkdir()
    for i in range(9):
        pixels = np.random.default_rng(i).integers(0, 255, (40, 50, 3), np.uint8)
        Image.fromarray(pixels).save(photos / f"{i}.png")
    return photos


def config(photos: Path, home: Path, kind: str, function: str = "network") -> HarvestConfig:
    return HarvestConfig(
        inputs=str(photos),
        subject=f"{FILE}:{function}",
        sites=(f"kinds.{kind}",),
        per_input="all",
        batch_size=4,
        device="cpu",
        dtype="float32",
        home=str(home),
    )


@pytest.mark.parametrize("kind", [*SITES, *layouts.DECLARED])
def test_rows_are_what_a_hook_by_hand_reads(photos: Path, tmp_path: Path, kind: str) -> None:
    function = "declared" if kind in layouts.DECLARED else "network"
    done = harvest(config(photos, tmp_path, kind, function))
    source, (site,) = open_images(str(photos)), done.sites
    pixels = np.stack([source.load(i, SIZE) for i in range(9)])
    rgb_BCHW = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    expected = by_hand(layouts.network(), site, rgb_BCHW)
    rows = open_store(done.store).read(site, np.arange(done.rows))
    np.testing.assert_allclose(rows, expected.reshape(-1, expected.shape[-1]), rtol=1e-4, atol=1e-5)
    found = verify_deep(VerifyConfig(store=done.store), done.store)
    assert (found.faults, found.batch, found.other_batch) == ([], 4, 2)


@pytest.mark.parametrize("kind", REFUSED)
def test_other_sites_are_refused_before_anything_is_written(
    photos: Path, tmp_path: Path, kind: str
) -> None:
    with pytest.raises(SubjectError, match=REFUSED[kind]):
        harvest(config(photos, tmp_path, kind))
    assert not list(tmp_path.iterdir())


def test_the_first_line_names_the_channels_and_the_map(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    harvest(config(photos, tmp_path, "channels_last"))
    told = capsys.readouterr().err
    assert "576 rows of 6 channels on an 8 x 8 map (kinds.channels_last)" in told


@pytest.mark.parametrize("kind", ["mixed", "scrambled", "cut"])
def test_deep_verification_finds_a_planted_layout_fault(
    photos: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the check when the sites are described, only another batch size tells."""
    for check in ("check_batch", "_check_alike"):
        monkeypatch.setattr(f"tendril.models.sites.hooks.{check}", lambda *_: None)
    done = harvest(config(photos, tmp_path, kind))
    found = verify_deep(VerifyConfig(store=done.store), done.store)
    assert found.exact_rows == found.rows  # recomputed as the harvest did, the fault is repeated
    (fault,) = found.faults
    assert f"with batches of {found.other_batch} in place of {found.batch}" in fault
    assert "rows of an input must not depend on its batch" in fault
    assert "in place of" in comparison(found.summary())


def test_a_store_with_the_fault_is_refused_when_it_is_verified(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("tendril.models.sites.hooks._check_alike", lambda *_: None)
        store = harvest(config(photos, tmp_path, "scrambled")).store
    with pytest.raises(SubjectError, match="must not depend on the other images"):
        verify_deep(VerifyConfig(store=store), store)


def test_a_store_whose_height_was_taken_as_its_width_is_refused(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("tendril.models.sites.hooks.layout_of", lambda *_: "NCHW")
        store = harvest(config(photos, tmp_path, "channels_last")).store
    with pytest.raises(
        StoreDamagedError, match=r"8 channels on a 8 x 6 map.*6 channels on a 8 x 8"
    ):
        verify_deep(VerifyConfig(store=store), store)
    with pytest.raises(StoreDamagedError, match=r"channels_last': 6.*got .* 8\}.*--overwrite"):
        harvest(config(photos, tmp_path, "channels_last"))
    with pytest.raises(StoreDamagedError, match="layout that its subject and inputs give"):
        shutil.rmtree(Path(store) / "records/00000")  # the same for one that is to be continued
        harvest(config(photos, tmp_path, "channels_last"))


@pytest.mark.parametrize("kind", ["windows", "flat"])
def test_activations_of_more_entries_than_images_are_refused_at_each_batch(
    photos: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tendril.models.sites.hooks.check_batch", lambda *_: None)
    monkeypatch.setattr("tendril.models.sites.hooks._check_alike", lambda *_: None)
    with pytest.raises(SubjectError, match="must have one entry per image"):
        harvest(config(photos, tmp_path, kind))


def test_a_layer_that_flattens_contexts_and_tokens_is_refused(tmp_path: Path) -> None:
    """As the MLP of OPT does."""
    model = tiny_language.save(tmp_path / "tiny")
    (tmp_path / "text").mkdir()
    (tmp_path / "text/0.txt").write_text(tiny_language.text(200, 0))
    plan = make_plan(
        LanguageConfig(
            inputs=str(tmp_path / "text"),
            subject=str(model),
            sites=("mlp_out.1",),
            context=16,
            device="cpu",
            home=str(tmp_path / "home"),
        )
    )
    assert isinstance(plan, LanguagePlan)
    assert plan.layout().widths == {"blocks.1.hook_mlp_out": 16}
    (path,) = plan.subject.sites["blocks.1.hook_mlp_out"]
    layer = plan.subject.module.get_submodule(path)
    layer.register_forward_hook(lambda _module, _inputs, out: out.flatten(0, 1))
    with pytest.raises(
        SubjectError, match=r"got \[16, 16\] for one context and \[32, 16\] for two"
    ):
        plan.layout()


def test_a_site_of_one_vector_an_image_needs_no_number_of_positions(
    photos: Path, tmp_path: Path
) -> None:
    given = config(photos, tmp_path, "vector")
    made = harvest(dataclasses.replace(given, per_input=HarvestConfig(inputs="").per_input))
    assert made.rows == 9 and open_store(made.store).spec["positions"] == {"rule": "all"}
    again = harvest(given)
    assert again.store == made.store and again.reused
    with pytest.raises(ConfigError, match="--per-input must be `all` or a number from 1 to 1"):
        harvest(dataclasses.replace(given, per_input=0))
