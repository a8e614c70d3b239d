"""Long files of text: read by blocks, in memory that does not grow with the file."""

import gzip
import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from tendril.data.errors import ConfigError, InputsNotFoundError, UnreadableInputsError
from tendril.data.inputs import text_files
from tendril.data.inputs.packing import Cut
from tendril.data.inputs.text_files import Blocks
from tendril.data.inputs.texts import open_text
from tendril.data.inputs.tokens import contexts_of, tokenised
from tendril.models.subjects.pieces import CUT

MB = 1 << 20


def words_of(texts: list[str]) -> list[list[int]]:
    return [[len(word) for word in text.split()] for text in texts]


def by_words(text: str | Blocks) -> Iterator[str]:
    """Pieces of a text, as those of `pieces_of`."""
    held = ""
    for block in (text,) if isinstance(text, str) else text:
        held += block
        while cut := CUT.search(held, 1000):
            yield held[: cut.start()]
            held = held[cut.start() :]
    yield held


@pytest.mark.parametrize("kind", ["txt", "jsonl"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, kind: str) -> None:
    file = tmp_path / f"long.{kind}"
    line = "some words of a text " * 500
    line = json.dumps({"text": line}) + "\n" if kind == "jsonl" else line
    with file.open("w") as out:
        for _ in range(64 * MB // len(line)):
            out.write(line)
    source = tokenised(open_text(str(file)), words_of, "digest", by_words)
    tracemalloc.start()
    try:
        contexts = contexts_of(source, Cut(128), 1000, tmp_path / "tokens")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(contexts) == 1000
    assert file.stat().st_size > 60 * MB
    assert peak < 16 * MB


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_files, "WHOLE", 8)
    monkeypatch.setattr(text_files, "BLOCK", 5)


def test_blocks_are_the_text(tmp_path: Path, small: None) -> None:
    text = "\ufeffna\u00efve \u4e2d\u6587 \U0001f600\r\nand \ufeff more\r"
    (tmp_path / "a.txt").write_bytes(text.encode())
    (document,) = open_text(str(tmp_path / "a.txt")).documents()
    assert isinstance(document, Blocks)
    assert "".join(document) == "".join(document) == text[1:]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"0123456789 caf\xe9 and more", "byte 0xe9 at 14"),
        ("0123456789 caf\u00e9".encode()[:-1], "byte 0xc3 at 14"),
        (b"\xef\xbb\xbf" + b"a" * 2000 + b"\xff", "byte 0xff at 2,003"),
        ("a long text".encode("utf-16"), "got UTF-16"),
        (
            gzip.compress(b"a long text", mtime=0),
            r"0x8b at 1: it is compressed\. Unpack it with gzip -d",
        ),
    ],
)
@pytest.mark.parametrize("kind", ["txt", "jsonl"])
def test_bytes_that_are_no_text(
    tmp_path: Path, small: None, content: bytes, told: str, kind: str
) -> None:
    (tmp_path / f"a.{kind}").write_bytes(content)
    with pytest.raises(UnreadableInputsError, match=told):
        for document in open_text(str(tmp_path / f"a.{kind}")).documents():
            "".join(document)


def test_a_line_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_files, "MOST_LINE", 40)
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n{"text": "' + "a" * 40 + '"}\n')
    documents = open_text(str(tmp_path / "a.jsonl")).documents()
    assert next(documents) == "one"
    with pytest.raises(UnreadableInputsError, match="the one at byte 16 is longer"):
        next(documents)


def test_the_key_of_many_bytes_is_of_sizes_times_and_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes(b"a" * 200_000)
    whole = open_text(str(file)).key
    monkeypatch.setattr(text_files, "HASHED_WHOLE", 1000)
    keys = [open_text(str(file)).key for _ in range(2)]
    file.write_bytes(b"a" * 100_000 + b"b" + b"a" * 99_999)
    keys.append(open_text(str(file)).key)
    assert keys[0] == keys[1]
    assert len({str(key) for key in (whole, *keys)}) == 3


def test_a_parquet_file_is_read_as_it_comes(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    file, keys = tmp_path / "rows.parquet", []
    for rows in (["one", None, "two"], ["one", None, "six"]):
        datasets.Dataset.from_dict({"text": rows}).to_parquet(file)
        text = open_text(str(file))
        assert list(text.documents()) == list(text.documents()) == [rows[0], rows[2]]
        assert text.left_out.rows == 1
        keys.append(text.key)
    assert keys[0] != keys[1]
    with pytest.raises(ConfigError, match=r"--column must be one of text, .* got 'body'"):
        open_text(str(file), column="body")
    with pytest.raises(ConfigError, match="must be one of train; got 'test'"):
        open_text(f"{file}@test")
    content = file.read_bytes()
    for damaged in (content[:-20], b"PAR1" + bytes(300) + content[-200:], b"no parquet"):
        file.write_bytes(damaged)
        with pytest.raises((UnreadableInputsError, InputsNotFoundError)):
            list(open_text(str(file)).documents())


def test_tables_are_not_taken_for_text_silently(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.csv").write_text("id,text\n0,one\n1,two\n")
    assert list(open_text(str(tmp_path / "a.csv")).documents()) == ["id,text\n0,one\n1,two\n"]
    assert "a.csv is read as plain text, which is one document" in capsys.readouterr().err
