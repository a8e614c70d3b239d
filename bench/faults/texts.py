"""Texts, tables and data sets that are damaged or hold something other than text."""

import json
import random
from collections.abc import Callable
from pathlib import Path

Writer = Callable[[Path, random.Random], bool]
"""Writes a file into a folder. True if it must be refused or warned of."""
GOOD = "w1 w2 w3 w4 w5 w6 w7 w8 w9\n"
FEW = 40


def bad_utf8(folder: Path, drawn: random.Random) -> bool:
    """Bytes that no UTF-8 text has."""
    content = bytearray((GOOD * FEW).encode())
    content[drawn.randrange(len(content))] = drawn.choice([0xFF, 0xC0, 0x80, 0xF8])
    (folder / "bad.txt").write_bytes(content)
    return True


def other_encoding(folder: Path, drawn: random.Random) -> bool:
    """Text in an encoding that is not UTF-8."""
    name = drawn.choice(["utf-16", "utf-32", "utf-16-le", "utf-16-be", "latin-1"])
    (folder / "bad.txt").write_bytes(("é" + GOOD * FEW).encode(name))
    return True


def control(folder: Path, drawn: random.Random) -> bool:
    """Sound UTF-8 with characters that few texts have."""
    odd = drawn.choice(["\0", "\x1b[2J", "\ufeff", "\u202e", "\r", "\x85", "\u2028", "\ufffe"])
    (folder / "bad.txt").write_text(GOOD * FEW + odd + GOOD)
    return False


def noise(folder: Path, drawn: random.Random) -> bool:
    """Random bytes, or none."""
    size = drawn.choice([0, 1, 5000])
    (folder / "bad.txt").write_bytes(drawn.randbytes(size))
    return size == 5000


def long_line(folder: Path, drawn: random.Random) -> bool:
    """A line of half a million words, or of one word as long."""
    words = drawn.choice(["w1 " * 500_000, "w" * 500_000])
    (folder / "bad.txt").write_text(words)
    return False


def _cell(drawn: random.Random) -> tuple[str, bool]:
    """A JSON line with a text that is none, and whether it must be told."""
    return drawn.choice(
        [
            ('{"text": null}', True),
            ('{"text": ["w1", "w2"]}', True),
            ('{"text": {"a": "w1"}}', True),
            ('{"text": 3}', True),
            ('{"text": true}', True),
            ('{"text": NaN}', True),
            ('{"text": 1e999}', True),
            ('{"other": "w1"}', True),
            ('["w1"]', True),
            ('"w1"', True),
            ("null", True),
            ("{", True),
            ('{"text": "w1"', True),
            ('{"text": "w1"} {"text": "w2"}', True),
            ("[" * 100_000, True),
            ('{"text": ' + "[" * 100_000 + "}", True),
            ('{"text": ' + "9" * 5000 + "}", True),
            ('{"text": "\\ud800 w1"}', False),
            ('{"text": "w1 \\u0000 w2"}', False),
            ('{"text": "w1", "text": "w2"}', False),
            ("\ufeff" + '{"text": "w1"}', False),
        ]
    )


def json_lines(folder: Path, drawn: random.Random) -> bool:
    """One line among sound ones is malformed or holds no text."""
    lines = [json.dumps({"text": GOOD.strip()})] * FEW
    line, must = _cell(drawn)
    lines.insert(drawn.randrange(FEW), line)
    (folder / "bad.jsonl").write_text("\n".join(lines) + "\n", errors="surrogatepass")
    return must


def damaged_table(folder: Path, drawn: random.Random) -> bool:
    """A Parquet file that is cut short, or whose bytes at the end are replaced."""
    path = _parquet(folder, {"text": [GOOD.strip()] * FEW})
    content = bytearray(path.read_bytes())
    if drawn.random() < 0.5:
        path.write_bytes(content[: drawn.randrange(len(content))])
        return True
    content[-drawn.randint(1, 8)] ^= 1 << drawn.randrange(8)  # the length and the magic
    path.write_bytes(content)
    return True


def other_columns(folder: Path, drawn: random.Random) -> bool:
    """A Parquet file without a column of text."""
    good = GOOD.strip()
    columns: dict[str, list[object]] = drawn.choice(
        [
            {"words": [good] * FEW},
            {"text": [None] * FEW},
            {"text": [good] * FEW + [None]},
            {"text": list(range(FEW))},
            {"text": [[good, good]] * FEW},
            {"text": [{"a": good}] * FEW},
            {"text": [b"\xff\xfe"] * FEW},
            {"text": [True] * FEW},
            {"text": [0.5] * FEW},
            {},
            {"text": []},
        ]
    )
    _parquet(folder, columns)
    return True


def _parquet(folder: Path, columns: dict[str, list[object]]) -> Path:
    from datasets import Dataset

    path = folder / "bad.parquet"
    Dataset.from_dict(columns).to_parquet(path)
    return path


TEXTS: tuple[Writer, ...] = (bad_utf8, other_encoding, control, noise, long_line, json_lines)
TABLES: tuple[Writer, ...] = (json_lines, damaged_table, other_columns)
