"""One crosscoder of two networks, from two stores of the same text."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from tendril.data.errors import ConfigError
from tendril.data.store.reader import open_store
from tendril.harvest.config import LanguageConfig
from tendril.harvest.run import harvest
from tendril.models.dictionaries.checkpoint import load_sae, read_config
from tendril.models.subjects.language import language_subject
from tendril.train.command import train_command
from tendril.train.config import TrainConfig
from tendril.train.loop import train
from tendril.train.vectors import source_of, store_of

from ..helpers import tiny_language
from ..helpers.sparse import make_store

SITE = "blocks.1.hook_resid_post"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stores of a base model, of the same model tuned a little, and of other text."""
    home = tmp_path_factory.mktemp("home")
    tiny_language.save(home / "base")
    tuned = language_subject(str(tiny_language.save(home / "tuned"))).module
    generator = torch.Generator().manual_seed(1)
    for weights in tuned.parameters():
        weights.data += 0.02 * torch.randn(weights.shape, generator=generator)
    tuned.save_pretrained(home / "tuned")  # type: ignore[operator]
    (home / "text.txt").write_text(tiny_language.text(4000))
    (home / "other.txt").write_text(tiny_language.text(4000, 7))
    for name, inputs in (("base", "text"), ("tuned", "text"), ("elsewhere", "other")):
        harvest(
            LanguageConfig(
                inputs=str(home / f"{inputs}.txt"),
                subject=str(home / ("tuned" if name == "tuned" else "base")),
                sites=("resid_post.1", "resid_post.2"),
                context=16,
                dtype="float32",
                device="cpu",
                name=name,
                home=str(home),
            )
        )
    return home


@pytest.fixture
def config(home: Path) -> TrainConfig:
    return TrainConfig(
        store="base",
        paired_store="tuned",
        site=SITE,
        objective="batch_topk",
        latents=64,
        k=8,
        steps=60,
        batch_size=128,
        device="cpu",
        home=str(home),
    )


def test_rows_of_two_stores_are_joined(config: TrainConfig, home: Path) -> None:
    source = source_of(config, store_of(config))
    stores = [open_store(next((home / "store").glob(f"{name}-*"))) for name in ("base", "tuned")]
    seen = torch.cat(list(source.once(config, torch.device("cpu"), part="train")))
    assert source.blocks == {f"base:{SITE}": 16, f"tuned:{SITE}": 16}
    whole = [store.read(SITE, slice(0, store.rows)) for store in stores]
    joined = np.concatenate(whole, axis=1)[stores[0].column("valid")]
    known = {row.tobytes() for row in joined}
    assert all(row.numpy().tobytes() in known for row in seen)
    assert len(seen) > 3000
    endless = source.training(config, torch.device("cpu"))
    for _ in range(3):
        next(endless)
    state, after = endless.state(), next(endless)
    endless.restore(state)
    assert torch.equal(next(endless), after)
    endless.close()


def test_a_crosscoder_of_both(config: TrainConfig, home: Path) -> None:
    done = train(config)
    told = read_config(done.run)
    assert told["sites"] == {f"base:{SITE}": 16, f"tuned:{SITE}": 16}
    assert told["paired_store"].startswith("tuned-")
    assert (done.run / told["paired_store_path"]).resolve().is_dir()
    assert done.fvu is not None and done.fvu < 0.6
    assert train(config).reused
    alone = dataclasses.replace(config, paired_store="")
    assert train(dataclasses.replace(alone, steps=1)).run != done.run


def test_stores_of_other_widths_and_chunks_are_read_in_one_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second network that is wider, so that its store has smaller chunks."""
    monkeypatch.setattr("tendril.data.store.layout.CHUNK_BYTES", 2**14)
    random = np.random.default_rng(0)
    rows = {"base": random.normal(size=(9600, 16)), "wide": random.normal(size=(9600, 24))}
    sites = {"base": "s", "wide": "t"}
    for name, x in rows.items():
        make_store(tmp_path, {sites[name]: x.astype(np.float32)}, name=name)
    config = TrainConfig(
        store="base",
        paired_store="wide",
        paired_sites=("t",),
        objective="batch_topk",
        latents=64,
        k=8,
        steps=20,
        batch_size=96,
        device="cpu",
        home=str(tmp_path),
    )
    source = source_of(config, store_of(config))
    assert source.blocks == {"base:s": 16, "wide:t": 24}
    assert [store.chunk_rows for store, _ in source.stores] == [256, 176]
    joined = np.concatenate([rows["base"], rows["wide"]], axis=1).astype(np.float32)
    known = {row.tobytes() for row in joined}
    seen = torch.cat(list(source.once(config, torch.device("cpu"), part="train")))
    assert len(seen) > 9000
    assert {row.numpy().tobytes() for row in seen} <= known
    (base, ours), (wide, theirs) = source.stores
    halves = (  # windows of one block: 2816 rows, 11 chunks of 256 or 16 of 176
        base.batches(ours, 96, epochs=2, part="all", window=1, along=(wide, theirs)),
        wide.batches(theirs, 96, epochs=2, part="all", window=1, along=(base, ours)),
    )
    both = [torch.cat([*a.values(), *b.values()], 1) for a, b in zip(*halves, strict=True)]
    assert {row.numpy().tobytes() for part in both for row in part} == known
    done = train(config)
    told = read_config(done.run)
    assert (told["sites"], told["paired_sites"]) == (source.blocks, ["t"])
    assert load_sae(done.run).W_dec.shape == (64, 40)
    words = train_command(told)
    assert "--paired-sites t" in words and "--site s" in words and "base:s" not in words
    with pytest.raises(ConfigError, match="--paired-sites must be given with --paired-store"):
        dataclasses.replace(config, paired_store="").check(16)


def test_a_site_of_a_language_model_has_a_short_name(config: TrainConfig) -> None:
    alone = dataclasses.replace(config, paired_store="", site="resid_post.1")
    store = store_of(alone)
    assert source_of(alone, store).sites == (SITE,)
    both = dataclasses.replace(alone, site="", sites=("resid_post.2", SITE))
    assert source_of(both, store).name == f"blocks.2.hook_resid_post+{SITE}"
    with pytest.raises(ConfigError, match=r"got .resid_post.3. \(near it: resid_post.2"):
        source_of(dataclasses.replace(alone, site="resid_post.3"), store)
    with pytest.raises(ConfigError, match="--sites must name each site once"):
        source_of(dataclasses.replace(both, sites=("resid_post.1", SITE)), store)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"paired_store": "elsewhere"}, "the columns token differ"),
        ({"paired_store": "tuned", "objective": "topk"}, "--paired-store must be used with one of"),
        ({"paired_store": "tuned", "norm_outliers": "drop"}, "must be keep or cap with --paired"),
        ({"paired_store": "nowhere"}, "there is no store 'nowhere'"),
    ],
)
def test_stores_that_cannot_be_paired(
    config: TrainConfig, change: dict[str, object], told: str
) -> None:
    with pytest.raises((ConfigError, FileNotFoundError), match=told):
        train(dataclasses.replace(config, **change))  # type: ignore[arg-type]
