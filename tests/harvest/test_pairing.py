"""Rows of two tokenizers are paired where tokens of both end."""

import shlex
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Sequence, Split, WhitespaceSplit
from transformers import PreTrainedTokenizerFast

from tendril.data.errors import ConfigError
from tendril.data.store.reader import open_store
from tendril.harvest.__main__ import main
from tendril.harvest.config import LanguageConfig, PairConfig
from tendril.harvest.pairing import pair_stores
from tendril.harvest.run import harvest
from tendril.train.config import TrainConfig
from tendril.train.vectors import source_of, store_of

from ..helpers import tiny_language

SITE = "blocks.1.hook_resid_post"


def by_letters(folder: Path) -> None:
    """A tokenizer with a token for the w of a word and one for each digit, and none that begins."""
    words = ["<unk>", "w", *map(str, range(10))]
    backend = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    parts = [WhitespaceSplit(), Split("", "isolated")]
    backend.pre_tokenizer = Sequence(parts)  # type: ignore[assignment]
    PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>").save_pretrained(folder)


def stored(home: Path, name: str, inputs: str = "text", context: int = 16) -> str:
    config = LanguageConfig(
        inputs=str(home / f"{inputs}.jsonl"),
        subject=str(home / name),
        sites=("resid_post.1",),
        context=context,
        dtype="float32",
        device="cpu",
        name=f"{name}-{inputs}",
        home=str(home),
    )
    return harvest(config).store


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One text of two documents, read word by word and letter by letter."""
    home = tmp_path_factory.mktemp("home")
    documents = [tiny_language.text(300, seed) for seed in (0, 1)]
    lines = [f'{{"text": "{document}"}}' for document in documents]
    (home / "text.jsonl").write_text("\n".join(lines))
    (home / "other.jsonl").write_text(lines[1])
    tiny_language.save(home / "words")
    tiny_language.save(home / "letters", width=24)
    by_letters(home / "letters")
    return home


def test_rows_are_those_at_the_ends_of_words(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words, letters = (open_store(stored(home, name)) for name in ("words", "letters"))
    outcome = main(
        shlex.split(f"pair --store {words.name} --paired-store {letters.name} --home {home}")
    )
    assert outcome is not None and outcome.next_command is not None
    pair = [open_store(str(outcome.result[key])) for key in ("store", "paired_store")]
    # by hand: the last letter of each word, in the order of the text
    text = [tiny_language.text(300, seed) for seed in (0, 1)]
    places = [
        (number, end)
        for number, document in enumerate(text)
        for end in np.cumsum([len(word) + 1 for word in document.split()]) - 1
    ]
    for store, mine, width in zip((words, letters), pair, (16, 24), strict=True):
        assert mine.width(SITE) == width and mine.rows == outcome.result["rows"]
        valid = store.column("valid")
        kept = np.flatnonzero(valid)
        if store is words:  # a row a word, but for the tokens that begin contexts and documents
            at = dict(zip(places, kept, strict=False))
        else:
            sizes = [len(word) for document in text for word in document.split()]
            last = np.cumsum(sizes) - 1
            at = {
                place: kept[end] for place, end in zip(places, last, strict=True) if end < len(kept)
            }
        keys = list(zip(mine.column("document"), mine.column("character"), strict=True))
        chosen = np.array([at[int(d), int(c)] for d, c in keys])
        np.testing.assert_array_equal(
            mine.read(SITE, slice(0, mine.rows)), store.read(SITE, chosen)
        )
    np.testing.assert_array_equal(pair[0].column("character"), pair[1].column("character"))
    assert set(pair[0].column("document")) == {0, 1}
    config = TrainConfig(
        store=pair[0].name, paired_store=pair[1].name, objective="batch_topk", home=str(home)
    )
    assert list(source_of(config, store_of(config)).blocks.values()) == [16, 24]
    assert "paired rows" in outcome.sentence and "train crosscoder --store" in outcome.next_command
    again = pair_stores(PairConfig(words.name, letters.name, str(home)))
    assert again.stores == (pair[0].location, pair[1].location)


def test_stores_that_are_not_of_one_text(home: Path) -> None:
    words, other = stored(home, "words"), stored(home, "letters", "other")
    (home / "short.jsonl").write_text('{"text": "w1 w2 w3 w4 w5 w6 w7 w8 w9 w1 w2 w3 w4 w5 w6 w7"}')
    short = stored(home, "words", "short")
    with pytest.raises(ConfigError, match="share 15"):
        pair_stores(PairConfig(short, short, str(home)))
    own = LanguageConfig(inputs="self", limit=9, subject=str(home / "words"), context=16)
    wrote = harvest(
        LanguageConfig(
            **{**vars(own), "sites": ("resid_post.1",), "device": "cpu", "home": str(home)}
        )
    )
    with pytest.raises(ConfigError, match="text that its model wrote"):
        pair_stores(PairConfig(words, wrote.store, str(home)))
    (home / "other.jsonl").write_text('{"text": "w9 w9 w9 w9 w9 w9 w9 w9 w9 w9"}')
    with pytest.raises(ConfigError, match="its tokens differ"):
        pair_stores(PairConfig(words, other, str(home)))
