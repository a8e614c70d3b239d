"""The study of features: what it counts against brute force, its page and data, and mistakes."""

import base64
import csv
import dataclasses
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jaxtyping import Float32
from transformers import PreTrainedTokenizerFast

from tendril.data import order
from tendril.data.errors import ConfigError, RunDamagedError
from tendril.data.store.reader import Store, open_store
from tendril.harvest.config import LanguageConfig
from tendril.harvest.run import harvest
from tendril.models.dictionaries.checkpoint import load_sae, save_dictionary
from tendril.models.dictionaries.sae import SAE, initialised
from tendril.models.dictionaries.sparsity import Sparsity
from tendril.models.subjects.language import language_subject
from tendril.study.core.language_inputs import text_of
from tendril.study.core.token_text import readable
from tendril.study.features.config import FeaturesConfig
from tendril.study.features.page_data import thousandths
from tendril.study.features.study import study_features
from tendril.study.measures import latent_activity as features_activity
from tendril.study.measures.decoder_directions import neighbours, promoted
from tendril.study.measures.latent_activity import SAMPLE_KEY, Activity, edges, watch
from tendril.study.measures.top_examples import Best

from ..helpers import tiny_language

T, D, S, K = 16, 16, 40, 6
SITE = "blocks.1.hook_resid_post"
DEAD = 7  # a latent that is never on


def make_store(folder: Path, kind: str = "llama", **options: Any) -> Store:
    """A store of a tiny model over four texts, 24 contexts or so."""
    model = tiny_language.save(folder / kind, kind)
    (folder / "text").mkdir(exist_ok=True)
    for number, words in enumerate((70, 3, 200, 90)):
        (folder / "text" / f"{number}.txt").write_text(tiny_language.text(words, number))
    told = {"sites": ("resid_post.1",), "context": T, "dtype": "float32", "batch_size": 3}
    config = LanguageConfig(
        inputs=str(folder / "text"),
        subject=str(model),
        device="cpu",
        home=str(folder),
        **{**told, **options},
    )
    return open_store(harvest(config).store)


def make_run(home: Path, store: Store, sparsity: Sparsity, width: int = D) -> Path:
    """A dictionary at random, as a run of the store; one of its latents is never on."""
    sae = SAE(width, S, sparsity, pre_bias=True)
    initialised(sae, torch.Generator().manual_seed(1), decoder_norm=0.5)
    with torch.no_grad():
        sae.b_enc[DEAD] = -100
    run = home / "runs" / f"a-{sparsity.name}"
    run.mkdir(parents=True)
    told = {"site": SITE, "sites": {SITE: width}, "store": store.name, "held_out": 0.3}
    save_dictionary(run, sae, told)
    return run


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a store of a llama, and two runs."""
    folder = tmp_path_factory.mktemp("features")
    store = make_store(folder)
    make_run(folder, store, Sparsity("topk", K))
    make_run(folder, store, Sparsity("relu"))
    return folder


@pytest.fixture
def store(home: Path) -> Store:
    return open_store(next((home / "store").iterdir()))


def brute(store: Store, sae: SAE) -> Float32[np.ndarray, "b t s"]:
    """What every latent does on every row at once; NaN where a row does not count."""
    x_RD = torch.from_numpy(store.read(SITE, slice(0, store.rows)))
    with torch.no_grad():
        z_RS = sae.encode(x_RD.nan_to_num()).numpy()
    z_RS[~store.column("valid")] = np.nan
    return z_RS.reshape(-1, T, S)


@pytest.mark.parametrize("name", ["a-topk", "a-relu"])
@pytest.mark.parametrize("at_once", [1, T * S * 5, 2**24])
def test_counts_are_those_of_all_rows_at_once(
    home: Path, store: Store, name: str, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features_activity, "AT_ONCE", at_once)
    sae, text = load_sae(name, str(home)), text_of(store)
    z_BTS = brute(store, sae)
    contexts = np.arange(len(z_BTS))
    made = Activity(S, T, 5, 8, 9)
    watch(store, [SITE], sae, text.valid_BT, contexts, made, torch.device("cpu"))
    z_RS = z_BTS.reshape(-1, S)
    on_RS = z_RS > 0
    assert made.rows == text.valid_BT.sum() == np.isfinite(z_RS[:, 0]).sum()
    assert np.array_equal(made.fired_S, on_RS.sum(0))
    assert np.allclose(made.frequency_S, on_RS.sum(0) / made.rows)
    assert np.allclose(made.max_S, np.nanmax(z_RS, 0).clip(0))
    assert np.allclose(made.total_S, np.nansum(np.where(on_RS, z_RS, 0), 0), rtol=1e-5)
    for latent in range(S):
        values = z_RS[on_RS[:, latent], latent]
        assert np.array_equal(made.histogram_SH[latent], np.histogram(values, edges())[0])
    assert made.fired_S[DEAD] == 0
    assert (made.top.row_SN[DEAD] == -1).all()


@pytest.mark.parametrize("name", ["a-topk", "a-relu"])
@pytest.mark.parametrize("at_once", [1, T * S * 5])
def test_strongest_contexts_and_the_sample_are_those_of_a_full_sort(
    home: Path, store: Store, name: str, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features_activity, "AT_ONCE", at_once)
    sae, text = load_sae(name, str(home)), text_of(store)
    z_BTS = brute(store, sae)
    contexts = np.arange(len(z_BTS))
    made = Activity(S, T, 5, 8, 9)
    watch(store, [SITE], sae, text.valid_BT, contexts, made, torch.device("cpu"))
    assert made.sample is not None
    drawn_BT = np.stack([order.uniform(T, SAMPLE_KEY, int(c)) for c in contexts])
    for latent in range(S):
        z_BT = np.where(z_BTS[..., latent] > 0, z_BTS[..., latent], 0)
        peaks = z_BT.max(1)
        best = [b for b in np.lexsort((contexts, -peaks)) if peaks[b] > 0][:5]
        wanted = [b * T + int(z_BT[b].argmax()) for b in best]
        rows = made.top.row_SN[latent]
        assert rows[rows >= 0].tolist() == wanted
        assert np.allclose(made.top.value_SN[latent, : len(best)], peaks[best])
        on = np.flatnonzero(z_BT.ravel() > 0)
        sampled = on[np.argsort(-drawn_BT.ravel()[on])][:8]
        got = made.sample.row_SN[latent]
        assert got[got >= 0].tolist() == sampled.tolist()
        for row, acts_W in zip(rows[rows >= 0], made.top.acts_SNW[latent], strict=False):
            begin = int(made.begin(np.array(row)))
            assert begin // T == row // T
            assert begin <= row < begin + 9
            around = z_BTS.reshape(-1, S)[begin : begin + 9, latent]
            assert np.allclose(acts_W, around, equal_nan=True)


def test_the_best_of_a_stream_are_the_best_of_all() -> None:
    rng = np.random.default_rng(0)
    best = Best(6, 4, 3)
    latent, score = rng.integers(0, 6, 500), rng.integers(0, 60, 500).astype(np.float64)
    row = np.arange(500)
    for some in np.array_split(row, 23):
        chosen = some[best.candidates(latent[some], score[some])]
        around = np.repeat(chosen[:, None], 3, 1).astype(np.float32)
        best.add(latent[chosen], score[chosen], chosen, score[chosen].astype(np.float32), around)
    for one in range(6):
        mine = row[latent == one]
        wanted = mine[np.argsort(-score[mine], kind="stable")][:4]
        assert best.row_SN[one].tolist() == wanted.tolist()
        assert np.array_equal(best.value_SN[one], score[wanted])
        assert np.array_equal(best.acts_SNW[one, :, 1], wanted)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_logit_weights_are_those_of_the_unembedding(tmp_path: Path, kind: str) -> None:
    subject = language_subject(str(tiny_language.save(tmp_path / kind, kind)))
    norm: Any = subject.module.get_submodule(subject.final_norm)
    rng = torch.Generator().manual_seed(3)
    norm.weight.copy_(torch.randn(D, generator=rng))
    if kind == "gpt2":
        norm.bias.copy_(torch.randn(D, generator=rng))
    W_dec = torch.randn(300, D, generator=rng)
    made = promoted(subject, W_dec, 4)
    assert made is not None
    W_VD: Any = subject.module.get_submodule(subject.unembed).weight
    v_SD = W_dec / W_dec.norm(dim=1, keepdim=True) * D**0.5
    if kind == "gpt2":
        v_SD = (v_SD - v_SD.mean(1, keepdim=True)) / v_SD.std(1, keepdim=True, correction=0)
    logits_SV = (v_SD * norm.weight) @ W_VD[: len(subject.tokenizer)].T
    logits_SV -= logits_SV.mean(1, keepdim=True)
    for descending, numbers, weights in (
        (True, made.up_SP, made.up_weight_SP),
        (False, made.down_SP, made.down_weight_SP),
    ):
        ranked = logits_SV.sort(dim=1, descending=descending)
        assert torch.equal(numbers, ranked.indices[:, :4])
        assert torch.allclose(weights, ranked.values[:, :4], rtol=1e-3, atol=1e-5)
    assert promoted(subject, W_dec[:, :8], 4) is None


def test_neighbours_are_those_of_all_cosines() -> None:
    W_dec = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    numbers, cosines = neighbours(W_dec, 3)
    cosine_SS = np.corrcoef(np.c_[W_dec, -W_dec])  # centred by the mirrored half: plain cosines
    np.fill_diagonal(cosine_SS, -2)
    assert np.array_equal(numbers.numpy(), np.argsort(-cosine_SS, 1)[:, :3])
    assert np.allclose(cosines.numpy(), -np.sort(-cosine_SS, 1)[:, :3], atol=1e-5)
    assert neighbours(W_dec[:1], 3)[0].shape == (1, 0)


def test_thousandths_keep_what_is_on_and_what_is_not_counted() -> None:
    acts = np.array([0, 2, 1, 1e-6, np.nan], np.float32)
    assert thousandths(acts, 2.0).tolist() == [0, 1000, 500, 1, -1]


def script(path: Path) -> list[Any]:
    """The arguments of a file of data."""
    call = re.fullmatch(r"features\.\w+\((.*)\);\n", path.read_text(), re.DOTALL)
    assert call
    return list(json.loads(f"[{call[1]}]"))


def table_of(path: Path) -> list[dict[str, str]]:
    """The lines of a CSV file."""
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))


def floats(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), "<f4")


def test_a_report_holds_what_was_counted(home: Path, store: Store) -> None:
    config = FeaturesConfig(run="a-topk", home=str(home), device="cpu", top=4, window=9)
    done = study_features(config)
    assert not done.reused
    assert study_features(config).reused
    folder = done.report.parent
    z_RS = brute(store, load_sae("a-topk", str(home))).reshape(-1, S)
    frequency = (z_RS > 0).sum(0) / np.isfinite(z_RS[:, 0]).sum()
    (index,) = script(folder / "data" / "index.js")
    assert np.allclose(floats(index["frequency"]), frequency)
    number, latents = script(folder / "data" / "000.js")
    assert (number, len(latents)) == (0, S)
    lines = table_of(folder / "latents.csv")
    assert [int(line["latent"]) for line in lines] == list(range(S))
    tokens, token = index["tokens"], store.column("token")
    known = readable(language_subject(str(home / "llama")).tokenizer, range(53))
    for latent, (told, line) in enumerate(zip(latents, lines, strict=True)):
        assert told["fired"] == int(line["fired"]) == (z_RS[:, latent] > 0).sum()
        assert float(line["frequency"]) == pytest.approx(frequency[latent], rel=1e-3)
        assert [tokens[t] for t, _ in told["up"]] == json.loads(line["promotes"])
        for context, position, _, value, at, shown, acts, _, level in told["strongest"]:
            row = context * T + position
            assert value == pytest.approx(z_RS[row, latent], rel=1e-3)
            assert tokens[shown[at]] == known[token[row]]
            assert acts[at] == round(1000 * z_RS[row, latent] / np.nanmax(z_RS[:, latent]))
            assert level is None
        strongest = {(c, p) for c, p, *_ in told["strongest"]}
        assert not strongest & {(c, p) for c, p, *_ in told["weaker"]}
        weaker = [e[3] for e in told["weaker"]]
        assert weaker == sorted(weaker, reverse=True)
    borders = [b for told in latents for e in told["strongest"] for b in e[7]]
    assert borders
    assert done.figures["latents_never_on"] == 1
    page = done.report.read_text()
    assert "--run a-topk" in page
    assert str(home) not in page


def test_parts_and_a_limit_choose_contexts(home: Path, store: Store) -> None:
    config = FeaturesConfig(run="a-relu", home=str(home), device="cpu", top=50)
    aside = order.held_out(np.arange(store.rows // T), 0.3)
    for part, wanted in (("held_out", aside), ("train", ~aside)):
        done = study_features(dataclasses.replace(config, part=part))
        (told,) = [p for p in script(done.report.parent / "data" / "000.js") if p != 0]
        seen = {c for latent in told for c, *_ in latent["strongest"]}
        assert done.figures["contexts"] == wanted.sum()
        assert seen <= set(np.flatnonzero(wanted).tolist())
    done = study_features(dataclasses.replace(config, limit=5, quantiles=0))
    assert done.figures["contexts"] == 5


def test_an_encoder_has_no_logits_and_its_page_says_so(tmp_path: Path) -> None:
    store = make_store(tmp_path, "bert")
    make_run(tmp_path, store, Sparsity("topk", K))
    done = study_features(FeaturesConfig(home=str(tmp_path), device="cpu"))
    assert done.figures["logit_weights"] is False
    page = done.report.read_text()
    assert "is an encoder, whose network ends in vectors" in page
    assert 'value="promotes"' not in page
    (index,) = script(done.report.parent / "data" / "index.js")
    assert index["promotes"] is None
    assert table_of(done.report.parent / "latents.csv")[0]["promotes"] == "[]"


def test_mistakes_are_told_in_a_sentence(home: Path, store: Store, tmp_path: Path) -> None:
    config = FeaturesConfig(run="a-topk", home=str(home), device="cpu")
    for change, said in (
        ({"part": "most"}, "--part is one of train, held_out, all"),
        ({"limit": 0}, "--limit is 1 context or more"),
        ({"top": 0}, "--top is 1 or more"),
        ({"window": 0}, "--window is from 1"),
    ):
        with pytest.raises(ConfigError, match=said):
            study_features(dataclasses.replace(config, **change))  # type: ignore[arg-type]
    sampled = make_store(tmp_path, per_input=4)
    with pytest.raises(ConfigError, match="some positions of each context only"):
        study_features(dataclasses.replace(config, store=str(sampled.path)))
    wide = make_run(tmp_path, store, Sparsity("topk", K), width=8)
    with pytest.raises(RunDamagedError, match="takes vectors of width 8"):
        study_features(dataclasses.replace(config, run=str(wide)))


def test_a_store_of_images_is_refused(home: Path, store: Store) -> None:
    store.spec["inputs"] = {"kind": "images"}
    with pytest.raises(ConfigError, match="holds images and no text"):
        text_of(store)


@pytest.mark.parametrize(
    ("pieces", "wanted"),
    [
        (["▁the", "ing", "<0x0A>", "<0xE2>", "<0x06>"], [" the", "ing", "\n", "\\xe2", "\\x06"]),
        (["Ġthe", "ing", "Ċ", "â", "Ã¼"], [" the", "ing", "\n", "\\xe2", "ü"]),
        (["the", "##ing", "##s"], [" the", "ing", "s"]),
        (["the", "ing"], [" the", " ing"]),
    ],
)
def test_tokens_are_readable(pieces: list[str], wanted: list[str]) -> None:
    tokenizer: PreTrainedTokenizerFast = tiny_language.tokenizer(pieces)
    read = readable(tokenizer, range(len(tiny_language.SPECIAL) + len(pieces)))
    assert read == [*tiny_language.SPECIAL, *wanted]
    assert readable(tokenizer, [999]) == ["<999>"]
