"""Studies of a crosscoder of two language models that differ in width, depth and site."""

import csv
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tendril.data import order
from tendril.data.errors import ConfigError, StoreNotFoundError
from tendril.data.store.paired import PairedStores
from tendril.data.store.reader import open_store
from tendril.harvest.config import LanguageConfig
from tendril.harvest.run import harvest
from tendril.models.dictionaries.checkpoint import load_sae, read_config, save_dictionary
from tendril.models.dictionaries.sae import SAE
from tendril.models.dictionaries.sparsity import Sparsity
from tendril.models.subjects.language import language_subject
from tendril.study.core.stores import rows_of_run, store_of_run, text_of
from tendril.study.core.study import run_study
from tendril.study.crosscoder_parts.config import PartsConfig
from tendril.study.crosscoder_parts.study import PartsStudy
from tendril.study.features.config import FeaturesConfig
from tendril.study.features.study import FeaturesStudy
from tendril.study.interpret.config import InterpretConfig
from tendril.study.interpret.study import InterpretStudy
from tendril.study.measures.decoder_directions import TOKENS, promoted
from tendril.study.splice.config import SpliceConfig
from tendril.study.splice.study import SpliceStudy
from tendril.train.config import TrainConfig
from tendril.train.loop import train

from ..helpers import tiny_language
from ..helpers.rule_server import Rules, serving

NARROW, WIDE = 16, 32
PARTS = ("narrow:blocks.1.hook_resid_post", "wide:blocks.3.hook_resid_post")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both stores, a trained crosscoder, one that gives all back, and one that gives back the wide
    network's vectors alone."""
    home = tmp_path_factory.mktemp("home")
    (home / "text.txt").write_text(tiny_language.text(1500))
    for name, shape in (("narrow", {}), ("wide", {"width": WIDE, "layers": 4})):
        harvest(
            LanguageConfig(
                inputs=str(home / "text.txt"),
                subject=str(tiny_language.save(home / name, "llama", **shape)),
                sites=("resid_post.-1" if name == "wide" else "resid_post.1",),
                context=16,
                dtype="float32",
                device="cpu",
                name=name,
                home=str(home),
            )
        )
    config = TrainConfig(
        name="pair",
        store="narrow",
        paired_store="wide",
        paired_sites=("resid_post.-1",),
        objective="batch_topk",
        latents=64,
        k=8,
        steps=60,
        batch_size=128,
        lr=3e-3,
        held_out=0.2,
        device="cpu",
        home=str(home),
    )
    told = read_config(train(config).run)
    for name, kept in (("all", (1.0, 1.0)), ("wide-alone", (0.0, 1.0))):
        save_dictionary(home / "runs" / name, both_signs(*kept), told, torch.ones(96))
    return home


def both_signs(narrow: float, wide: float) -> SAE:
    """A latent for each sign of each joined dimension; blocks are given back times a number."""
    width = NARROW + WIDE
    sae = SAE(width, 2 * width, Sparsity("relu"), pre_bias=False).requires_grad_(False)
    both = torch.cat([torch.eye(width), -torch.eye(width)])
    sae.W_enc.copy_(both.T)
    sae.W_dec.copy_(both)
    sae.W_dec[:, :NARROW] *= narrow
    sae.W_dec[:, NARROW:] *= wide
    return sae


def spliced(home: Path, *runs: str, **fields: Any) -> dict[str, Any]:
    config = SpliceConfig(run=runs, device="cpu", home=str(home))
    return dict(run_study(SpliceStudy(), dataclasses.replace(config, **fields)).figures)


def test_splicing_replaces_one_network_and_reads_both(home: Path) -> None:
    first = spliced(home, "all", "wide-alone", "pair")
    second = spliced(home, "all", "wide-alone", "pair", network="wide")
    assert (first["subject"], first["site"]) == ("narrow", "blocks.1.hook_resid_post")
    assert (second["subject"], second["site"]) == ("wide", "blocks.3.hook_resid_post")
    for figures in (first, second):
        assert figures["runs"]["all"]["recovered_against_zero"] == pytest.approx(1, abs=1e-3)
        assert figures["runs"]["all"]["fvu"] < 1e-10
    assert first["runs"]["wide-alone"]["recovered_against_zero"] == 0
    assert second["runs"]["wide-alone"]["recovered_against_zero"] == pytest.approx(1, abs=1e-3)
    name = next((home / "runs").glob("pair-*")).name
    assert 0 < first["runs"][name]["fvu"] < 0.9 and 0 < second["runs"][name]["fvu"] < 0.9
    # the FVU over the held-out rows of both stores, computed from the rows
    rows = rows_of_run(home / "runs" / name, store_of_run(home / "runs" / name, str(home)), "")
    store = open_store(next((home / "store").glob("narrow-*")))
    held = order.held_out(store.column("input"), 0.2) & store.column("valid")
    x_ND = torch.from_numpy(
        np.concatenate([rows.read(part, np.flatnonzero(held)) for part in PARTS], axis=1)
    )
    error_ND = (x_ND - load_sae(home / "runs" / name)(x_ND)).square()
    spread_ND = (x_ND - x_ND.mean(dim=0)).square()
    for figures, part in ((first, slice(0, NARROW)), (second, slice(NARROW, None))):
        fvu = float(error_ND[:, part].sum() / spread_ND[:, part].sum())
        assert figures["runs"][name]["fvu"] == pytest.approx(fvu, rel=1e-3)


def test_features_are_active_where_both_networks_say(home: Path) -> None:
    config = FeaturesConfig(run="pair", home=str(home), device="cpu", quantiles=0)
    done = run_study(FeaturesStudy(), config)
    run = next((home / "runs").glob("pair-*"))
    store = open_store(next((home / "store").glob("narrow-*")))
    rows, sae = rows_of_run(run, store, str(home)), load_sae(run)
    valid = store.column("valid")
    x_ND = np.concatenate([rows.read(part, np.flatnonzero(valid)) for part in PARTS], axis=1)
    fired_S = (sae.encode(torch.from_numpy(x_ND)) > 0).float().mean(dim=0)
    with (done.report.parent / "latents.csv").open() as file:
        latents = list(csv.DictReader(file))
    np.testing.assert_allclose(
        [float(one["frequency"]) for one in latents], fired_S.numpy(), rtol=1e-3
    )
    assert done.figures["logit_weights"] and " + ".join(PARTS) in done.report.read_text()
    assert "narrow or wide" in done.report.read_text()
    # each latent's tokens are of the network where its direction is longer
    scales = read_config(run)["scales"]
    sides = [sae.W_dec[:, :NARROW], sae.W_dec[:, NARROW:]]
    longer_S = sides[1].norm(dim=1) * scales[PARTS[1]] > sides[0].norm(dim=1) * scales[PARTS[0]]
    words = [
        promoted(language_subject(str(home / name)), side, TOKENS)
        for name, side in zip(("narrow", "wide"), sides, strict=True)
    ]
    assert words[0] is not None and words[1] is not None
    best_S = torch.where(longer_S, words[1].up_SP[:, 0], words[0].up_SP[:, 0])
    vocabulary = tiny_language.tokenizer().convert_ids_to_tokens(best_S.tolist())
    assert 0 < longer_S.sum() < 64
    shown = [json.loads(one["promotes"])[0].strip() for one in latents]
    assert shown == vocabulary
    with pytest.raises(ConfigError, match="--subject must be left out"):
        run_study(FeaturesStudy(), dataclasses.replace(config, subject=str(home / "narrow")))


def test_parts_and_words_of_a_pair(home: Path) -> None:
    done = run_study(PartsStudy(), PartsConfig(run=("pair",), home=str(home), device="cpu"))
    assert done.figures["parts"] == list(PARTS)
    assert done.figures["best_directions"] and done.figures["rows"] > 1000
    everything = run_study(PartsStudy(), PartsConfig(run=("all",), home=str(home), device="cpu"))
    assert everything.figures["own"] == dict(zip(PARTS, (2 * NARROW, 2 * WIDE), strict=True))
    with serving(Rules({"even": [f"w{i}" for i in range(0, 40, 2)], "odd": ["w1"]})) as rules:
        config = InterpretConfig(
            run="pair",
            endpoint=rules.url,
            model="rule",
            home=str(home),
            device="cpu",
            count=3,
            order="frequent",
            tested=4,
            per_request=4,
            example_tokens=8,
        )
        told = run_study(InterpretStudy(), config).figures
    assert len(told["latents"]) == 3 and told["failed"] == 0
    assert all("words of the class" in one["explanation"] for one in told["latents"])


@pytest.mark.parametrize(
    ("runs", "fields", "told"),
    [
        (("pair",), {"network": "other"}, "--network must be narrow or wide; got 'other'"),
        (("pair",), {"subject": "narrow"}, "--store and --subject must be left out"),
        (("alone",), {"network": "narrow"}, "--network must be given with a crosscoder of two"),
        (("pair", "alone"), {}, "alone is of one network"),
        (("lost",), {}, "the second store gone of the run lost is neither"),
    ],
)
def test_what_cannot_be_spliced(
    home: Path, runs: tuple[str, ...], fields: dict[str, Any], told: str
) -> None:
    known = read_config(next((home / "runs").glob("pair-*")))
    lost = {**known, "paired_store": "gone", "paired_store_path": "../gone"}
    alone = {**known, "paired_store": "", "sites": {PARTS[0].partition(":")[2]: NARROW}}
    for name, config in (("lost", lost), ("alone", {**alone, "site": PARTS[0].partition(":")[2]})):
        folder = home / "runs" / name
        if not folder.exists():
            save_dictionary(folder, both_signs(1, 1), config, torch.ones(96))
    with pytest.raises((ConfigError, StoreNotFoundError), match=told):
        spliced(home, *runs, **fields)


def test_a_run_of_an_earlier_version_has_as_many_sites_in_both(home: Path) -> None:
    run = next((home / "runs").glob("pair-*"))
    older = {name: value for name, value in read_config(run).items() if name != "paired_sites"}
    folder = home / "runs" / "older"
    save_dictionary(folder, load_sae(run), older, torch.ones(64))
    rows = rows_of_run(folder, store_of_run(folder, str(home)), str(home))
    assert isinstance(rows, PairedStores) and tuple(rows.parts) == PARTS
    assert len(text_of(store_of_run(folder, str(home))).tokens_BT) > 90
    assert json.loads((folder / "config.json").read_text()).get("paired_sites") is None
