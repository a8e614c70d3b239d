"""Packing: no token is lost or doubled at a border, and contexts are always the same."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tendril.data.errors import ConfigError, InputsNotFoundError, UnreadableInputsError
from tendril.data.inputs.packing import Cut, pack, with_role
from tendril.data.inputs.texts import open_text
from tendril.data.inputs.tokens import TokenSource, contexts_of, tokenised

Documents = st.lists(st.lists(st.integers(10, 99), max_size=12), max_size=12)
Frames = st.tuples(
    st.integers(4, 9),
    st.sampled_from([(), (1,)]),
    st.sampled_from([(), (2,)]),
    st.sampled_from([(), (3,), (3, 4)]),
)


@given(Documents, Frames)
def test_contexts_are_the_documents_end_to_end(
    documents: list[list[int]], frame: tuple[int, tuple[int, ...], tuple[int, ...], tuple[int, ...]]
) -> None:
    cut = Cut(*frame)
    stream: list[tuple[int, int]] = []
    for number, document in enumerate(documents):
        ahead = cut.between if number else ()
        stream += [(token, number) for token in (*ahead, *document)]
    contexts = list(pack(documents, cut))
    assert len(contexts) == len(stream) // cut.body
    body: list[tuple[int, int]] = []
    for tokens_T, documents_T in contexts:
        assert len(tokens_T) == len(documents_T) == cut.length
        end = cut.length - len(cut.suffix)
        assert tuple(tokens_T[: len(cut.prefix)]) == cut.prefix
        assert tuple(tokens_T[end:]) == cut.suffix
        inner = slice(len(cut.prefix), end)
        body += zip(tokens_T[inner].tolist(), documents_T[inner].tolist(), strict=True)
        assert (np.diff(documents_T) >= 0).all()
    assert body == stream[: len(body)]


@given(Documents, Frames, st.sampled_from(["alone", "apart"]), st.booleans())
def test_padded_contexts_hold_every_document(
    documents: list[list[int]],
    frame: tuple[int, tuple[int, ...], tuple[int, ...], tuple[int, ...]],
    packing: Literal["alone", "apart"],
    lazy: bool,
) -> None:
    length, prefix, suffix, _ = frame
    cut = Cut(length, prefix, suffix, packing=packing, pad=7)
    given_out = [iter(d) if lazy else d for d in documents]
    contexts = [(t.tolist(), d.tolist()) for t, d in pack(given_out, cut)]
    read: dict[int, list[int]] = {}
    for number, (tokens, owners) in enumerate(contexts):
        assert len(tokens) == len(owners) == length
        text = [owner for owner in owners if owner >= 0]
        assert owners == sorted(text) + [-1] * (length - len(text))
        assert tokens[len(text) :] == [7] * (length - len(text))
        assert packing == "apart" or len(set(text)) == 1
        for owner in dict.fromkeys(text):
            part = [t for t, o in zip(tokens, owners, strict=True) if o == owner]
            end = len(part) - len(suffix)
            assert tuple(part[: len(prefix)]) == prefix
            assert tuple(part[end:]) == suffix
            assert part[len(prefix) : end]
            read.setdefault(owner, []).extend(part[len(prefix) : end])
        if packing == "apart" and number + 1 < len(contexts):  # another part would not fit
            assert length - len(text) <= len(prefix) + len(suffix)
    assert read == {n: document for n, document in enumerate(documents) if document}


def test_roles_are_kept_beside_the_tokens(tmp_path: Path) -> None:
    cut = Cut(5, (1,), (), (1,), (1,), roles=True)
    documents = [with_role([10, 11, 2**31 - 1], [-1, 4, 0]), with_role([12, 13, 14, 15], [2] * 4)]
    contexts = contexts_of(_source(documents), cut, None, tmp_path)
    assert contexts.tokens_BT.tolist() == [[1, 10, 11, 2**31 - 1, 1], [1, 12, 13, 14, 15]]
    assert contexts.roles_BT is not None
    assert contexts.roles_BT.tolist() == [[-1, -1, 4, 0, -1], [-1, 2, 2, 2, 2]]
    (place,) = tmp_path.iterdir()
    (place / "roles.npy").unlink()
    again = contexts_of(_source(documents), cut, None, tmp_path)  # packed again
    assert again.digest == contexts.digest
    assert (place / "roles.npy").is_file()


def _source(documents: list[list[int]], asked: list[int] | None = None) -> TokenSource:
    def given_out() -> Iterator[list[int]]:
        for number, document in enumerate(documents):
            if asked is not None:
                asked.append(number)
            yield document

    return TokenSource({"kind": "test", "documents": documents}, "here", given_out)


def test_contexts_are_made_once(tmp_path: Path) -> None:
    asked: list[int] = []
    documents = [[10 + i] * 7 for i in range(5)]
    cut = Cut(8, (1,), (), (3,), (1, 3))
    first = contexts_of(_source(documents, asked), cut, None, tmp_path)
    assert asked == list(range(5))
    again = contexts_of(_source(documents, asked), cut, None, tmp_path)
    assert asked == list(range(5))
    assert again.digest == first.digest
    np.testing.assert_array_equal(again.tokens_BT, first.tokens_BT)
    few = contexts_of(_source(documents, asked), cut, 2, tmp_path)
    assert len(few) == 2
    np.testing.assert_array_equal(few.tokens_BT, first.tokens_BT[:2])
    assert few.digest != first.digest


def test_a_stream_is_read_no_further_than_needed(tmp_path: Path) -> None:
    asked: list[int] = []
    contexts_of(_source([[10] * 7 for _ in range(500)], asked), Cut(7), 3, tmp_path)
    assert len(asked) < 10


def test_a_source_that_breaks_leaves_nothing_half_made(tmp_path: Path) -> None:
    def broken() -> Iterator[list[int]]:
        yield [10] * 30
        raise UnreadableInputsError("line 7 is no JSON")

    with pytest.raises(UnreadableInputsError):
        contexts_of(TokenSource({"kind": "broken"}, "here", broken), Cut(8), None, tmp_path)
    assert not list(tmp_path.iterdir())


def test_which_positions_are_kept(tmp_path: Path) -> None:
    cut = Cut(6, (1,), (), (3,), (1, 3))
    contexts = contexts_of(_source([[10, 11, 12], [13, 14, 15, 16, 17, 18]]), cut, None, tmp_path)
    assert contexts.tokens_BT.tolist() == [[1, 10, 11, 12, 3, 13], [1, 14, 15, 16, 17, 18]]
    assert contexts.documents_BT.tolist() == [[0, 0, 0, 0, 1, 1], [1] * 6]
    kept = contexts.kept(range(2), skip_special=True, skip_first=2)
    assert kept.tolist() == [[False, False, True, True, False, True], [False, False] + [True] * 4]
    assert contexts.kept(range(2), skip_special=False, skip_first=0).all()


@pytest.mark.parametrize(
    ("cut", "limit", "match"),
    [
        (Cut(64), None, "shorter than one context of 64 tokens"),
        (Cut(2, (1,), (2,)), None, "--context must be larger than the 2 special tokens"),
        (Cut(8), 0, "--limit must be at least 1"),
    ],
)
def test_what_cannot_be_cut(tmp_path: Path, cut: Cut, limit: int | None, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        contexts_of(_source([[10] * 7]), cut, limit, tmp_path)
    assert not list(tmp_path.iterdir())


def _documents(inputs: Path | str, **how: str) -> list[str]:
    return list(open_text(str(inputs), **how).documents())  # type: ignore[arg-type]


def test_files_folders_and_lines(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("\ufeffsecond, with a naïve é\n", encoding="utf-8")
    (tmp_path / "a.md").write_text("first")
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "c.jsonl").write_text('{"text": "third"}\n\n{"text": "fourth", "n": 1}\n')
    (tmp_path / "picture.png").write_bytes(b"\xff\xff")
    assert _documents(tmp_path) == ["first", "second, with a naïve é\n", "third", "fourth"]
    assert _documents(tmp_path / "a.md") == ["first"]
    key = open_text(str(tmp_path)).key
    (tmp_path / "a.md").write_text("other")
    assert open_text(str(tmp_path)).key != key


def test_hugging_face_sets_of_this_machine(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = {"text": ["one", "two"], "story": ["eins", "zwei"]}
    datasets.Dataset.from_dict(rows).save_to_disk(tmp_path / "set")
    assert _documents(f"hf:{tmp_path / 'set'}") == ["one", "two"]
    assert _documents(tmp_path / "set", column="story") == ["eins", "zwei"]
    stream = open_text(str(tmp_path / "set"), streaming=True)
    assert list(stream.documents()) == list(stream.documents()) == ["one", "two"]
    with pytest.raises(ConfigError, match=r"--column must be one of text, story, .* got 'body'"):
        open_text(str(tmp_path / "set"), column="body")


def test_docstrings_are_english_and_always_the_same() -> None:
    documents = open_text("docstrings").documents()
    first = [next(documents) for _ in range(40)]
    assert all(len(text) >= 80 for text in first)
    again = open_text("docstrings").documents()
    assert first == [next(again) for _ in range(40)]


def test_texts_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "stories.txt").write_text("x")
    with pytest.raises(InputsNotFoundError, match=r"near names are stories\.txt"):
        open_text(str(tmp_path / "storie.txt"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputsNotFoundError, match="holds none in any of its"):
        open_text(str(tmp_path / "empty"))
    (tmp_path / "latin.txt").write_bytes("caf\u00e9".encode("latin-1"))
    with pytest.raises(UnreadableInputsError, match=r"byte 0xe9 at 3\. Convert it"):
        _documents(tmp_path / "latin.txt")
    (tmp_path / "rows.jsonl").write_text('{"text": "one"}\n{"text": \n')
    with pytest.raises(UnreadableInputsError, match="line 2 is not JSON"):
        _documents(tmp_path / "rows.jsonl")
    (tmp_path / "rows.jsonl").write_text('{"body": "one"}')
    with pytest.raises(ConfigError, match=r"under 'text'; got body\. Name .* --column"):
        _documents(tmp_path / "rows.jsonl")


def test_rows_without_text_are_left_out_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    datasets = pytest.importorskip("datasets")
    rows = {"text": ["one", None, "", "two", None]}
    datasets.Dataset.from_dict(rows).save_to_disk(tmp_path / "set")
    (tmp_path / "rows.jsonl").write_text(
        "\n".join(json.dumps({"text": text}) for text in rows["text"])
    )
    for place in (tmp_path / "set", tmp_path / "rows.jsonl"):
        text = open_text(str(place))
        for _ in range(2):  # counted anew each time
            assert list(text.documents()) == ["one", "", "two"]
            assert text.left_out.rows == 2
        source = tokenised(text, lambda batch: [[7] * len(one) for one in batch], "t")
        for _ in range(2):  # also where the contexts are found made already
            assert len(contexts_of(source, Cut(2), None, tmp_path / "tokens")) == 3
            assert f"2 rows of {place} have no text and were" in capsys.readouterr().err
        with pytest.raises(ConfigError, match=r"9 tokens \(2 rows without text were left out\)"):
            contexts_of(source, Cut(9), None, tmp_path / "tokens")


@pytest.mark.parametrize(
    ("value", "match"),
    [
        (["one", "two"], "got list. Name another column"),
        ([5, 6, 7], "got list. Token ids are not taken without --token-ids"),
        ({"en": "one"}, "got dict. Name another column"),
        (3, "got int. Name the column"),
        (2.5, "got float. Name the column"),
        (True, "got bool. Name the column"),
    ],
)
def test_what_is_no_text_is_refused(tmp_path: Path, value: object, match: str) -> None:
    datasets = pytest.importorskip("datasets")
    where = {"rows.jsonl": "line 2 of", "set": r"row 1 \(from 0\) of the dataset"}
    (tmp_path / "rows.jsonl").write_text(
        json.dumps({"text": "a"}) + "\n" + json.dumps({"text": value})
    )
    datasets.Dataset.from_dict({"text": [None, value]}).save_to_disk(tmp_path / "set")
    for name, place in where.items():
        with pytest.raises(ConfigError, match=f"{place}.* a string under 'text'; {match}"):
            _documents(tmp_path / name)


def test_rows_of_bytes_and_rows_without_the_column_are_refused(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_dict({"text": [b"one"]}).save_to_disk(tmp_path / "set")
    with pytest.raises(ConfigError, match=r"got bytes\. Name another column .* decode"):
        _documents(tmp_path / "set")
    (tmp_path / "rows.jsonl").write_text("[1, 2]")
    with pytest.raises(ConfigError, match=r"must be a JSON object .*; got list"):
        _documents(tmp_path / "rows.jsonl")
    (tmp_path / "rows.jsonl").write_text(json.dumps({f"k{i}": i for i in range(9000)}))
    with pytest.raises(ConfigError, match=r"got k0, .*k9, \.\.\.\. Name the right"):
        _documents(tmp_path / "rows.jsonl")


@pytest.mark.parametrize(
    ("line", "match"),
    [
        (r'{"text": "a\ud83db"}', r"line 1 .* got the lone surrogate U\+D83D at character 1\."),
        ("[" * 100_000, "line 1 is not JSON .*nested too deeply"),
        ('{"text": "a", "n": ' + '{"n": ' * 100_000, "line 1 is not JSON .*nested too deeply"),
        ('{"text": ' + "1" * 5000 + "}", "line 1 is not JSON"),
    ],
)
def test_lines_that_no_reader_takes(tmp_path: Path, line: str, match: str) -> None:
    (tmp_path / "rows.jsonl").write_text(line)
    with pytest.raises(UnreadableInputsError, match=match):
        _documents(tmp_path / "rows.jsonl")


def test_pairs_of_surrogates_are_one_character(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(r'{"text": "a\ud83d\ude00b"}')
    assert _documents(tmp_path / "rows.jsonl") == ["a\U0001f600b"]


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl"])
@pytest.mark.parametrize(
    ("encoding", "told"),
    [
        ("utf-16", "UTF-16"),
        ("utf-16-le", "UTF-16LE"),
        ("utf-16-be", "UTF-16BE"),
        ("utf-32", "UTF-32"),
        ("utf-32-le", "UTF-32LE"),
    ],
)
def test_wide_encodings_are_named(tmp_path: Path, name: str, encoding: str, told: str) -> None:
    (tmp_path / name).write_bytes('{"text": "Ein Caf\u00e9, so gro\u00df"}'.encode(encoding))
    with pytest.raises(UnreadableInputsError, match=f"got {told}. Convert .* -f {told} -t UTF-8"):
        _documents(tmp_path / name)


def test_other_files_are_not_taken_for_wide_encodings(tmp_path: Path) -> None:
    for text in ("", "\0", "ab\0", "word\0other\0" * 50, "a" * 99 + "\0" * 99, "\u4e2d\u6587"):
        (tmp_path / "a.txt").write_bytes(text.encode())
        assert _documents(tmp_path / "a.txt") == [text]
    (tmp_path / "a.txt").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR")
    with pytest.raises(UnreadableInputsError, match="zero bytes: it is probably no text"):
        _documents(tmp_path / "a.txt")


def test_tokens_decode_to_the_text(tmp_path: Path, shared: Path) -> None:
    from tendril.models.subjects.language import language_subject
    from tendril.models.subjects.tokenise import cut_for, tokens_of

    subject = language_subject(str(shared / "lm" / "stories260K"))
    text = open_text(str(shared / "text" / "wikitext2_valid.txt"))
    source = tokenised(text, tokens_of(subject), str(subject.identity["tokenizer"]))
    cut = cut_for(subject, 128)
    contexts = contexts_of(source, cut, 300, tmp_path)
    body = contexts.tokens_BT[:, len(cut.prefix) :].ravel().tolist()
    decoded = subject.tokenizer.decode(body, clean_up_tokenization_spaces=False)
    whole = next(iter(text.documents()))
    assert "<unk>" in whole  # an ordinary word here, not a special token
    assert decoded[:-4].strip() == whole[: len(decoded) + 9].strip()[: len(decoded[:-4].strip())]
    assert len(decoded) > 30_000


def test_packed_text_is_not_written_through_a_link(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "tokens").symlink_to(outside)
    with pytest.raises(ConfigError, match="must be a folder; got a symbolic link"):
        contexts_of(_source([[1, 2, 3, 4]], []), Cut(2), None, tmp_path / "tokens")
    assert not list(outside.iterdir())


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_packed_text_that_was_read_leaves_memory(tmp_path: Path) -> None:
    def mapped() -> int:
        """Megabytes of files that are mapped into memory."""
        status = Path("/proc/self/status").read_text()
        return int(status.partition("RssFile:")[2].split()[0]) // 1024

    source = TokenSource({"kind": "long"}, "here", lambda: iter([range(1 << 20)] * 4))
    contexts = contexts_of(source, Cut(1 << 20), None, tmp_path)  # 32 MB
    before = mapped()
    first = [int(contexts.tokens_BT[i].sum() + contexts.documents_BT[i].sum()) for i in range(4)]
    assert mapped() > before + 24
    contexts.release()
    assert mapped() < before + 8
    again = [int(contexts.tokens_BT[i].sum() + contexts.documents_BT[i].sum()) for i in range(4)]
    assert first == again
