"""Models of the package glassllm as subjects, compared with a Llama and with the package itself."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tendril.data import order
from tendril.data.errors import ConfigError, SubjectError
from tendril.models.subjects import pieces as pieces_module
from tendril.models.subjects.generate import written_by
from tendril.models.subjects.glass import write_model
from tendril.models.subjects.language import language_subject
from tendril.models.subjects.pieces import pieces_of
from tendril.models.subjects.tokenise import cut_for, tokens_of

from ..helpers import tiny_language

MERGES = [("▁", "a"), ("b", "c"), ("▁a", "bc"), ("▁", "▁")]
ALPHABET = ["\n", "a", "b", "c", "é", "▁"]
CONFIG = {"vocab_size": 14, "d_model": 8, "n_layers": 2, "n_heads": 2, "n_kv_heads": 1}


def invented(files: Path, **other: Any) -> dict[str, np.ndarray]:
    """A model of random weights in the layout of glassllm, beside its tokenizer."""
    draw = np.random.default_rng(0)
    shapes = {"attn.W_Q": (8, 8), "attn.W_K": (8, 4), "attn.W_V": (8, 4), "attn.W_O": (8, 8)}
    shapes |= {"ffn.W1": (8, 21), "ffn.W3": (8, 21), "ffn.W2": (21, 8)}
    shapes |= {"norm1.gamma": (8,), "norm2.gamma": (8,)}
    arrays = {f"blocks.{block}.{name}": shapes[name] for block in (0, 1) for name in shapes}
    arrays |= {"E": (14, 8), "norm_f.gamma": (8,)}
    numbers = {name: draw.normal(size=shape).astype(np.float16) for name, shape in arrays.items()}
    config = {**CONFIG, "max_len": 16, "rope_base": 100.0, "eps": 1e-6, "init_std": 0.02}
    saved = {"__config__": np.array(json.dumps(config)), **numbers} | other
    np.savez(files.with_suffix(".npz"), allow_pickle=True, **saved)
    tokenizer = {"version": 1, "alphabet": ALPHABET, "merges": MERGES}
    files.with_suffix(".tokenizer.json").write_text(json.dumps(tokenizer))
    return numbers


def forward(numbers: dict[str, np.ndarray], ids: list[int]) -> np.ndarray:
    """The logits as the layout is defined, position by position and pair by pair, in float64."""
    wide = {name: value.astype(np.float64) for name, value in numbers.items()}

    def norm(x: np.ndarray, gamma: str) -> np.ndarray:
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-6) * wide[gamma]

    def turned(head: np.ndarray, position: int) -> np.ndarray:
        pairs = head[0::2] + 1j * head[1::2]
        angles = position * 100.0 ** (-2 * np.arange(len(pairs)) / len(head))
        result = pairs * np.exp(1j * angles)
        return np.stack([result.real, result.imag], 1).ravel()

    x = wide["E"][ids]
    for block in ("blocks.0.", "blocks.1."):
        h = norm(x, f"{block}norm1.gamma")
        q, k, v = (h @ wide[f"{block}attn.W_{name}"] for name in "QKV")
        mixed = np.zeros_like(q)
        keys = [turned(k[i], i) for i in range(len(ids))]
        for i in range(len(ids)):
            for part in (slice(0, 4), slice(4, 8)):  # two heads share one head of keys
                scores = np.array([turned(q[i, part], i) @ keys[j] / 2 for j in range(i + 1)])
                weights = np.exp(scores - scores.max())
                mixed[i, part] = weights / weights.sum() @ v[: i + 1]
        x = x + mixed @ wide[f"{block}attn.W_O"]
        h = norm(x, f"{block}norm2.gamma")
        gate = h @ wide[f"{block}ffn.W1"]
        inner = gate / (1 + np.exp(-gate)) * (h @ wide[f"{block}ffn.W3"])
        x = x + inner @ wide[f"{block}ffn.W2"]
    return np.asarray(norm(x, "norm_f.gamma") @ wide["E"].T)


@torch.inference_mode()
def test_an_invented_model_gives_the_logits_of_its_layout(tmp_path: Path) -> None:
    numbers = invented(tmp_path / "xx")
    write_model(tmp_path / "xx", tmp_path / "tiny")
    subject = language_subject(str(tmp_path / "tiny"))
    ids = [4, 13, 7, 1, 10, 9, 9, 5, 8, 12]
    ours = subject.module(torch.tensor([ids])).logits[0].double().numpy()
    theirs = forward(numbers, ids)
    assert np.abs(ours - theirs).max() <= 1e-5 * np.abs(theirs).max()
    assert np.ptp(theirs, axis=0).min() > 0.1
    # specials, the alphabet, the merges; an unknown character is one token; "e" and its accent
    # are composed; no text begins or ends with a special token
    known = tokens_of(subject)(["a abc\n bcé e\u0301!  a<bos>"])[0]
    assert known == [5, 12, 4, 9, 11, 8, 9, 8, 1, 9, 10, 1, 6, 1, 1, 1]
    assert subject.tokenizer.decode(tokens_of(subject)(["a abc\n bc  a"])[0]) == "a abc\n bc  a"
    cut = cut_for(subject, 8)
    assert (cut.prefix, cut.between, cut.suffix) == ((), (), ())
    assert (subject.layers, subject.width, subject.context, subject.kind) == (2, 8, 16, "causal")


@torch.inference_mode()
def test_a_model_without_a_begin_of_text_token_writes_after_a_line_break(tmp_path: Path) -> None:
    invented(tmp_path / "xx")
    write_model(tmp_path / "xx", tmp_path / "tiny")
    subject = language_subject(str(tmp_path / "tiny"))
    written = list(written_by(subject, "self:1", 3, 70, torch.device("cpu")).documents())
    chances = torch.softmax(subject.module(torch.tensor([[4]])).logits[0, -1].double(), -1)
    for number in (0, 1, 69):
        level = order.uniform(3, 1, number)[0] * chances.sum()
        assert written[number][0] == int((chances.cumsum(0) < level).sum())
    assert {len(one) for one in written} == {3} and len({tuple(one) for one in written}) > 30
    known = tiny_language.save(tmp_path / "words")  # neither a token for a line break ...
    tiny_language.tokenizer().save_pretrained(known)
    (known / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    with pytest.raises(ConfigError, match="a token for a line break"):  # ... nor one that begins
        written_by(language_subject(str(known)), "self", 3, 5, torch.device("cpu"))


def test_files_that_are_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SubjectError, match="en or pt; got 'fr'"):
        language_subject("glassllm:fr")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SubjectError, match="Run `pip install glassllm`"):
        language_subject("glassllm:en")
    with pytest.raises(SubjectError, match="as glassllm saves them"):
        write_model(tmp_path / "none", tmp_path / "out")
    invented(tmp_path / "pickled", E=np.array([{"an": "object"}], dtype=object))
    with pytest.raises(SubjectError, match="allow_pickle=False"):
        write_model(tmp_path / "pickled", tmp_path / "out")
    invented(tmp_path / "cut")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "cut.npz").read_bytes()[:400])
    with pytest.raises(SubjectError, match="as glassllm saves them"):
        write_model(tmp_path / "cut", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("language", ["en", "pt"])
@torch.inference_mode()
def test_the_packages_own_models(
    language: str, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = pytest.importorskip("glassllm")
    model, words = package.load_pretrained(language)
    subject = language_subject(f"glassllm:{language}")
    assert (subject.name, subject.origin) == (f"glassllm-{language}", f"glassllm:{language}")
    assert sum(p.numel() for p in subject.module.parameters()) == 852_608
    text = (shared / "text" / "wikitext2_valid.txt").read_text("utf-8")[:60_000]
    rare = "".join(random.Random(0).choices(" \n\u2581ae\u0301ç—“”xyzQ7<bos>中", k=3000))
    for one in (text, rare, "", "  a", "<bos> b"):
        assert tokens_of(subject)([one])[0] == words.encode(one)
    ids = np.array(words.encode(text)[: 4 * 128]).reshape(4, 128)
    with package.no_grad():
        theirs = torch.from_numpy(model.forward(ids).data)
    ours = subject.module(torch.from_numpy(ids)).logits
    assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()
    monkeypatch.setattr(pieces_module, "PIECE", 40)
    parts = list(pieces_of(subject)(text))
    assert [token for part in tokens_of(subject)(parts) for token in part] == words.encode(text)
    assert len(parts) > 500
