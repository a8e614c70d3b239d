"""One name of a site works in every command, and a name that is no folder's is refused first."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tendril.data.errors import ConfigError, TendrilError
from tendril.data.store.inspect import summarise
from tendril.data.store.reader import open_store
from tendril.data.store.spec import StoreSpec, blocks_of, full_site, short_site, slug
from tendril.harvest.config import HarvestConfig, LanguageConfig
from tendril.harvest.run import harvest
from tendril.models.subjects.module import subject_from_module
from tendril.train.config import TrainConfig
from tendril.train.exchange import export_run
from tendril.train.loop import train
from tendril.train.sweep.config import SweepConfig
from tendril.train.sweep.sweep import sweep

from ..helpers import tiny_language

LAST = "blocks.2.hook_resid_post"
NAMES = (LAST, "resid_post.2", "resid_post.-1")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two of three blocks: only their number tells which one is the last."""
    home = tmp_path_factory.mktemp("names")
    (home / "text").mkdir()
    (home / "text/0.txt").write_text(tiny_language.text(2000))
    config = LanguageConfig(
        inputs=str(home / "text"),
        subject=str(tiny_language.save(home / "tiny")),
        sites=("resid_post.0", "resid_post.-1"),
        context=16,
        device="cpu",
        home=str(home),
    )
    return harvest(config).store


def trained_on(store: str, **fields: Any) -> TrainConfig:
    home = str(Path(store).parent.parent)
    shape: dict[str, Any] = {"latents": 32, "k": 4, "steps": 3, "batch_size": 32, "device": "cpu"}
    return TrainConfig(store=store, home=home, **{**shape, **fields})


def test_every_name_of_a_site_gives_the_same_rows_run_sweep_and_export(
    store: str, tmp_path: Path
) -> None:
    opened, rows = open_store(store), np.arange(5)
    expected = opened.read(LAST, rows)
    runs, sweeps, exports, summaries = set(), set(), set(), []
    for name in NAMES:
        np.testing.assert_array_equal(opened.read(name, rows), expected)
        assert opened.width(name) == 16
        (batch,) = [next(opened.batches(name, 8, seed=0))]
        assert torch.equal(batch, next(opened.batches(LAST, 8, seed=0)))
        summaries.append(summarise(store, name))
        run = train(trained_on(store, site=name)).run
        runs.add(run)
        exports.add(str(export_run(run, tmp_path / name).result["width"]))
        sweeps.add(
            sweep(SweepConfig(base=trained_on(store, site=name), sparsities=("k=2,4",))).sweep
        )
    assert summaries[0] == summaries[1] == summaries[2]
    assert (len(runs), len(sweeps), len(exports)) == (1, 1, 1)
    both = trained_on(store, objective="batch_topk", sites=("resid_post.0", "resid_post.-1"))
    apart = replace(both, sites=("blocks.0.hook_resid_post", LAST))
    assert train(both).run == train(apart).run


@pytest.mark.parametrize(
    "name",
    ["resid_post.-2", "resid_post.-0", "resid_post.-99", f"resid_post.{'9' * 5000}", "layer", ""],
)
def test_a_site_that_is_not_stored_is_refused(store: str, name: str) -> None:
    """Block -2 of three is block 1, though two are stored."""
    with pytest.raises(ConfigError, match=r"must be one of .*; got '"):
        open_store(store).read(name, np.arange(2))
    for refused in (lambda: train(trained_on(store, site=name)), lambda: summarise(store, name)):
        if name:  # nothing stands for the first site, or for all
            with pytest.raises(ConfigError, match=r"must be one of .*; got '"):
                refused()


def test_full_and_short_names() -> None:
    sites = ("blocks.0.hook_mlp_out", "blocks.11.hook_mlp_out", "layer2.0", "features.3")
    assert full_site("mlp_out.11", sites) == full_site("mlp_out.-1", sites, 12) == sites[1]
    assert full_site("mlp_out.-1", sites) == "mlp_out.-1"  # the number of blocks is not on record
    for name in ("layer2.0", "features.3", "features.-1", "mlp_out.00", "mlp_out.1", ""):
        assert full_site(name, sites, 12) == name
    assert [short_site(site) for site in sites] == [
        *("mlp_out.0", "mlp_out.11", "layer2.0", "features.3")
    ]


BAD = (
    *("a/b", "a\\b", ".hidden", "..", ".", "__a", "zarr.json", "a\0b", "a\nb", " a", "a ", ""),
    *("x" * 201, "é" * 101, "a\ud800", "a\x1b[2J", "/a", "../a"),
)


def test_the_run_of_many_sites_has_a_name_that_file_systems_allow(tmp_path: Path) -> None:
    joined = "batch_topk-" + "+".join(f"blocks.{i}.hook_resid_post" for i in range(24))
    assert slug(joined[:240]) == joined[:240].replace("+", "-")
    (tmp_path / spec("a").folder(joined)).mkdir()
    assert len(slug(joined)) == 200


@pytest.mark.parametrize("blocks", ["", "-3", "x", "9" * 5000, "٣"])
def test_a_number_of_blocks_that_is_none_is_left_out(blocks: str) -> None:
    assert blocks_of({"blocks": blocks}) == blocks_of({}) == 0
    assert blocks_of({"blocks": "12"}) == 12


def spec(*sites: str) -> StoreSpec:
    return StoreSpec({}, {}, sites, {"rule": "all"}, 0, "float16")


@pytest.mark.parametrize("site", BAD)
def test_a_name_that_cannot_be_a_folder_is_refused(site: str) -> None:
    with pytest.raises(ConfigError, match="name of a site must") as raised:
        spec(site)
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 450


@pytest.mark.parametrize(
    "sites",
    [("conv", "Conv"), ("straße", "STRASSE"), ("é", "e\u0301"), ("a", "b", "a+b"), ("a", "a")],
)
def test_names_that_would_be_taken_for_one_another_are_refused(sites: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="--sites must be"):
        spec(*sites)


ODD = ("a b", "a:b", "a*b", "a?b", "a[0]", "a#b", "100%", "a%2Fb", "größe", "a+b", "c", "'a'", "~")


class Odd(nn.Module):
    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__()
        self.parts = nn.ModuleList()
        for name in names:
            self.add_module(name, nn.Conv2d(3, 4, 3))

    def forward(self, x: torch.Tensor) -> None:
        for part in self.children():
            if isinstance(part, nn.Conv2d):
                part(x)


@pytest.mark.parametrize("name", [*ODD, "a/b", "a\\b", "__a", "a\nb", "y" * 300])
def test_a_site_is_stored_and_trained_on_or_refused_before_anything_is_written(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    subject = subject_from_module(Odd((name, "plain")), input_size=16)
    monkeypatch.setattr("tendril.harvest.vision_plan.load_subject", lambda *_, **__: subject)
    config = HarvestConfig(
        inputs="dead-leaves:1",
        subject="odd",
        sites=(name, "plain"),
        limit=40,
        per_input=4,
        device="cpu",
        home=str(tmp_path / "home"),
    )
    if name not in ODD:
        with pytest.raises(ConfigError, match="name of a site must"):
            harvest(config)
        assert not (tmp_path / "home").exists()
        return
    store = harvest(config).store
    rows = open_store(store).read(name, np.arange(160))
    assert rows.shape == (160, 4)
    assert np.isfinite(rows).all()
    run = train(trained_on(store, site=name)).run
    assert Path(run).parent == tmp_path / "home" / "runs"


def test_a_site_with_a_slash_is_refused_by_training_and_studies(store: str) -> None:
    for site in ("../x", "a/b", "a\0b"):
        with pytest.raises(TendrilError, match="must be one of"):
            train(trained_on(store, site=site))
