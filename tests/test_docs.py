"""Tests that the pages name exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")
PAGES = [p for p in sorted((ROOT / "docs").glob("*.md")) if NAMED.search(p.read_text())]


def test_the_table_of_faults_names_tests() -> None:
    found = NAMED.findall((ROOT / "docs" / "reliability.md").read_text())
    assert len(found) >= 20


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_test_that_a_page_names_exists(page: Path) -> None:
    for file, name in NAMED.findall(page.read_text()):
        path = ROOT / file
        assert path.is_file(), f"{page.name} names {file}, which does not exist"
        assert re.search(rf"^def {name}\(", path.read_text(), re.M), f"{file} has no {name}"
