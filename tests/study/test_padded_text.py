"""Studies of padded text: padding is in no example, and predicts nothing."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from tendril.data.errors import ConfigError
from tendril.harvest.config import LanguageConfig
from tendril.harvest.run import harvest
from tendril.study.core.language_text import held_out_text
from tendril.study.core.stores import StoredText
from tendril.study.measures.text_examples import Firing, examples_of

from ..helpers import tiny_language


def test_padding_is_in_no_example() -> None:
    contexts, length = 40, 12
    draw = np.random.default_rng(0)
    ends_C = draw.integers(2, length + 1, contexts)
    padding_CT = np.arange(length) >= ends_C[:, None]
    tokens_CT = np.where(padding_CT, 9, 1).astype(np.int32)
    documents_CT = np.where(padding_CT, -1, np.arange(contexts)[:, None]).astype(np.int32)
    dense_CT = np.where(padding_CT, 0, draw.random((contexts, length)) < 0.1).astype(np.float32)
    places = np.flatnonzero(dense_CT)
    text = StoredText(tokens_CT, documents_CT, ~padding_CT)
    firing = Firing(text, np.arange(contexts), (7,), [places], [dense_CT.reshape(-1)[places]])
    drawn = examples_of(firing, 0, 5, shown=3, top=10, tested=12, min_peak=0.0, seed=0)
    assert len(drawn.active) > 5
    assert len(drawn.silent) > 5
    for example in (*drawn.shown, *drawn.active, *drawn.silent):
        assert 9 not in example.tokens
        assert len(example.tokens) == len(example.values) == len(example.valid)
    assert {len(example.tokens) for example in drawn.silent} == {5}
    assert min(len(example.tokens) for example in drawn.active) < 5


def test_the_last_token_before_padding_predicts_nothing(tmp_path: Path) -> None:
    lines = [json.dumps({"text": tiny_language.text(1 + i % 9, i)}) for i in range(60)]
    (tmp_path / "lines.jsonl").write_text("\n".join(lines))
    config = LanguageConfig(
        inputs=str(tmp_path / "lines.jsonl"),
        subject=str(tiny_language.save(tmp_path / "tiny")),
        context=8,
        pad=True,
        device="cpu",
        home=str(tmp_path),
    )
    store = harvest(config).open()
    text = held_out_text(store, 0.9, None)
    padding_BT = text.tokens_BT == 2  # the end of text, which this tokenizer pads with
    assert padding_BT.any()
    assert not text.kept_BT[padding_BT].any()
    before_BT = np.roll(padding_BT, -1, axis=1)
    before_BT[:, -1] = False
    assert not text.kept_BT[before_BT].any()
    assert text.kept_BT[(text.tokens_BT > 2) & ~before_BT].all()
    apart = harvest(dataclasses.replace(config, pad=False, document_mask=True)).open()
    with pytest.raises(ConfigError, match=r"were read apart \(--document-mask\).*Pass --inputs"):
        held_out_text(apart, 0.9, None)
