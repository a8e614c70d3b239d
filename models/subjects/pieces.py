"""Long texts in pieces whose tokens, end to end, are exactly those of the whole text.

A cut is at a space between two ASCII letters or digits ("one two"). Whether it changes a token
depends on the tokenizer, so its parts are looked through:

- Normalizers must work on each character by itself, or on sequences that start with a letter or
  space and go on with combining marks (Unicode forms). Neither reaches across the space.
- A pre-tokenizer must separate words at the space. Then the model, which sees one word at a time,
  never sees both sides.
- Without such a pre-tokenizer, BPE sees the whole text, with "▁" for each space. No merge reaches
  across the cut if no token of the vocabulary has "▁" after another character.
- Added tokens are found in the raw text, so none may have a space or take in the spaces around it.

Texts for any other tokenizer stay in one piece.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeGuard

from tendril.data import _torchvision  # noqa: F401  before transformers asks for torchvision

# isort: split
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from tendril.data.cli import note
from tendril.data.inputs.text_files import Blocks

from .language import LanguageSubject
from .transformers_networks import CHUNKS

PIECE = 1 << 16  # characters in a piece; a few more, to the next cut
CUT = re.compile(r"(?<=[A-Za-z0-9]) (?=[A-Za-z0-9])")
SPACE = "▁"  # stands for a space in the tokens of SentencePiece
LOCAL = frozenset({"NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "BertNormalizer"})
SEPARATING = frozenset({"WhitespaceSplit", "Whitespace", "BertPreTokenizer"})
HARMLESS = frozenset({"Digits", "Punctuation", "UnicodeScripts"})  # they only split further
PATTERNS = frozenset(
    {
        # GPT-2
        r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
        # Llama 3
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
        r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        # Qwen 2
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|"
        r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    }
)

MARKED = frozenset({CHUNKS})  # of text in which "▁" stands for each space


def pieces_of(subject: LanguageSubject) -> Callable[[str | Blocks], Iterator[str]]:
    """A function that cuts a text into pieces whose tokens, end to end, are those of the text.

    A text that comes in blocks is read as pieces are asked for. The text stays whole if this cannot
    be shown for the tokenizer; a note says so.
    """
    keeps_space = None
    if _is_plain(subject.tokenizer):
        keeps_space = _keeps_space(json.loads(subject.tokenizer.backend_tokenizer.to_str()))

    def pieces(text: str | Blocks) -> Iterator[str]:
        if keeps_space is None:
            whole = text if isinstance(text, str) else "".join(text)
            note(
                f"The tokenizer of {subject.name} may join words across spaces, so a document of "
                f"{len(whole):,} characters is tokenised in one piece. If memory is short, split "
                "it into several documents."
            )
            yield whole
            return
        held, looked = "", 0  # what is not cut yet, and how far it was searched
        for block in (text,) if isinstance(text, str) else text:
            held += block
            start = 0
            while cut := CUT.search(held, max(start + PIECE, looked)):
                yield held[start : cut.start()]
                start = cut.start() if keeps_space else cut.end()
            held = held[start:] if start else held
            looked = max(len(held) - 1, 0)  # its last character may be the space of a cut
        yield held

    return pieces


def _is_plain(tokenizer: PreTrainedTokenizerBase) -> TypeGuard[PreTrainedTokenizerFast]:
    """True if all that happens to a text is in the JSON form of the tokenizers library."""
    kind, plain = type(tokenizer), PreTrainedTokenizerFast
    return isinstance(tokenizer, plain) and all(
        getattr(kind, name) is getattr(plain, name) for name in ("__call__", "_encode_plus")
    )


def _keeps_space(tokenizer: Mapping[str, Any]) -> bool | None:
    """Whether a piece begins with the space of its cut, or None if there may be no cuts.

    `tokenizer` is in the JSON form of the tokenizers library. The space is left out where the
    normalizer puts one in front of each piece.
    """
    normalizers = _parts(tokenizer["normalizer"], "normalizers")
    splitters = _parts(tokenizer["pre_tokenizer"], "pretokenizers")
    model = tokenizer["model"]
    if model.get("dropout") or not _added_allow(tokenizer["added_tokens"]):
        return None
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    marked = normalizers[-1:] == [spaces]  # then the splitter sees "▁" for each space
    local = all(part["type"] in LOCAL for part in normalizers[: -1 if marked else None])
    if local and (_is_split(splitters, MARKED) if marked else _separates(splitters)):
        return True
    if any(not token["special"] for token in tokenizer["added_tokens"]) or not _stops(model):
        return None
    if not normalizers and len(splitters) == 1 and splitters[0]["type"] == "Metaspace":
        return True
    prepends = [
        {"type": "Prepend", "prepend": SPACE},
        spaces,
    ]
    return False if normalizers == prepends and not splitters else None


def _parts(part: Mapping[str, Any] | None, name: str) -> list[Mapping[str, Any]]:
    """A part of a tokenizer as a flat list: nothing, one, or those of a sequence."""
    if part is None:
        return []
    if part["type"] != "Sequence":
        return [part]
    return [inner for one in part[name] for inner in _parts(one, name)]


def _added_allow(added: list[Mapping[str, Any]]) -> bool:
    """True if no added token that is searched for in the text has or takes in a space.

    Special tokens are not searched for: they are tokenised as ordinary text.
    """
    return not any(
        token["lstrip"] or token["rstrip"] or re.search(r"\s", token["content"])
        for token in added
        if not token["special"]
    )


def _separates(splitters: list[Mapping[str, Any]]) -> bool:
    """True if a pre-tokenizer begins a new word at a space between letters or digits."""
    if not splitters:
        return False
    first, others = splitters[0], splitters[1:]
    while first["type"] == "Digits" and others:
        first, others = others[0], others[1:]
    if any(part["type"] not in HARMLESS and not _is_byte_map(part) for part in others):
        return False
    if first["type"] in SEPARATING:
        return not any(_is_byte_map(part) for part in others)
    if first["type"] == "Metaspace":
        return first["replacement"] == SPACE and bool(first["split"]) and not others
    if first["type"] == "Split":
        return _is_split([first], PATTERNS)
    return first["type"] == "ByteLevel" and bool(first["use_regex"])


def _is_split(splitters: list[Mapping[str, Any]], patterns: frozenset[str]) -> bool:
    """True for one pre-tokenizer that makes a word of each match of one of some patterns."""
    if len(splitters) != 1 or splitters[0]["type"] != "Split":
        return False
    (split,) = splitters
    isolated = split["behavior"] == "Isolated" and not split["invert"]
    return isolated and split["pattern"].get("Regex") in patterns


def _is_byte_map(part: Mapping[str, Any]) -> bool:
    """True for the map from bytes to characters, without a pattern and without added spaces."""
    return part["type"] == "ByteLevel" and not part["use_regex"] and not part["add_prefix_space"]


def _stops(model: Mapping[str, Any]) -> bool:
    """True if BPE on a whole text joins nothing across "▁" after a letter or digit."""
    vocabulary = model["vocab"]
    return (
        model["type"] == "BPE"
        and not model["continuing_subword_prefix"]
        and not model["end_of_word_suffix"]
        and not model["ignore_merges"]  # then a short last piece could be one token
        and SPACE in vocabulary
        and not any(re.search(f"[^{SPACE}]{SPACE}", token) for token in vocabulary)
    )
