"""`tendril bench` on the command line."""

import pytest

from tendril.bench.__main__ import ratios_of
from tendril.bench.config import BENCHES

from ..helpers.helped import check_help

SHOWS = {"harvest": "--images", "snapshot": "--against", "recovery": "--objectives"}


@pytest.mark.parametrize("name", SHOWS)
def test_help_is_quick_and_imports_no_torch(name: str) -> None:
    check_help("bench", name, shows=SHOWS[name], never=("torch", "zarr", "numba"))


def test_help_lists_every_benchmark() -> None:
    check_help("bench", shows="snapshot", never=("torch", "zarr", "numba"))
    assert len(BENCHES) == 11


def test_ratios_are_told_in_one_line() -> None:
    line = ratios_of({"ratios": {"a_over_b": 1.23456, "c_over_d": 2}})
    assert line == "yardstick over ours, larger is better: a_over_b 1.235, c_over_d 2"
    assert ratios_of({"tables": {}}) == ""
