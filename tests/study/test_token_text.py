"""Tokens as text: with leading spaces, line breaks and characters of several bytes."""

import pytest
from transformers import PreTrainedTokenizerFast

from tendril.models.subjects.language import language_subject, tokenizer_of
from tendril.study.core.token_text import readable

from ..helpers import planted_language as planted
from ..helpers import tiny_language


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


def test_tokens_read_as_they_stand_in_a_text(tmp_path):
    planted.save_model(tmp_path)
    subject = language_subject(str(tmp_path))
    read = readable(subject.tokenizer, range(len(subject.tokenizer))).__getitem__
    tokens = subject.tokenizer("dog one tala", add_special_tokens=False)["input_ids"]
    assert "".join(map(read, tokens)) == " dog one tala"


def test_tokens_of_a_real_tokenizer_read_as_they_stand(shared):
    tokenizer = tokenizer_of(str(shared / "lm" / "stories260K"))
    read = readable(tokenizer, range(len(tokenizer))).__getitem__
    told = 'Once upon a time, Lily said: "Look!"\nThe dog\'s ball was — big.'
    tokens = tokenizer(told, add_special_tokens=False)["input_ids"]
    assert "".join(map(read, tokens)).strip() == told
