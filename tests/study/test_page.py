"""The page: whole, self-contained, and true to the findings."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from tendril.study.curves.figures import training_panels
from tendril.study.page import svg as drawing

from ..helpers.study_example import family, findings, rendered

BESIDE = {"../index.html", "units.csv", "latents.csv", "tuning.npz"}
VOID = {"meta", "img", "br", "hr", "link", "input"}


class Checker(HTMLParser):
    """Opens and closes in order; keeps addresses, ids and text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.ids: set[str] = set()

    def handle_starttag(self, tag, attrs):
        named = dict(attrs)
        self.addresses += [named[a] for a in ("src", "href") if named.get(a)]
        if "id" in named:
            self.ids.add(named["id"])
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        self.addresses += [value for name, value in attrs if name in ("src", "href")]


def check(page: str) -> Checker:
    checker = Checker()
    checker.feed(page)
    assert checker.open == []
    return checker


@pytest.mark.parametrize("latents", [True, False])
@pytest.mark.parametrize("truths", [True, False])
def test_the_page_is_whole_and_needs_nothing_else(latents: bool, truths: bool):
    page = rendered(findings(latents, truths))
    checker = check(page)
    for address in checker.addresses:
        assert address.startswith(("data:image/", "#")) or address in BESIDE, address[:60]
    inner = [a.removeprefix("#") for a in checker.addresses if a.startswith("#")]
    assert set(inner) <= checker.ids
    assert "url(http" not in page and "@import" not in page
    assert len(page) < 7_000_000
    assert ("curve latents" in page) == latents
    assert ("The planted truth" in page) == truths
    assert (
        re.search(r"(?<![\w#.])(nan|inf|None)(?![\w])", re.sub(r"base64,[^\"]*", "", page)) is None
    )


def test_every_detector_has_its_card_with_its_figures_and_patches():
    made = findings()
    page = rendered(made)
    for unit in made.units.members:
        assert f'id="unit-{unit}"' in page
        assert f"{made.units.orientation(unit):.1f}°" in page
    assert page.count('title="photo 0: 9.00"') == len(made.units.members) + 60


def test_a_site_without_curves_has_a_page_too():
    empty = family("unit", [0.0], others=0)
    silent = replace(empty, responses=np.zeros_like(empty.responses), patches={})
    page = rendered(replace(findings(False, False), units=silent))
    check(page)
    assert "0 <small>of 1</small>" in page.replace("\n", "")
    assert "There is no curve unit" in page


def test_names_from_outside_cannot_break_the_page():
    made = findings(latents=False)
    evil = replace(made, site='<script>alert("x")</script>', examples_note="<b>&")
    page = rendered(evil)
    assert "<script>alert" not in page and "&lt;b&gt;&amp;" in page


def test_training_curves_skip_what_was_not_written():
    panels = training_panels(
        {"step": [0.0, 1.0, 2.0], "loss": [3.0, 2.0, float("nan")], "l0": [1.0]}
    )
    assert [panel["name"] for panel in panels] == ["loss"]
    assert panels[0]["last"] == "2.00" and panels[0]["steps"] == "1"
    assert training_panels({}) == []


def test_one_angle_is_one_colour_and_angles_go_clockwise():
    assert drawing.point(90.0, 10.0) == pytest.approx((0, 10))
    assert drawing.hue_colour(10.0) == drawing.hue_colour(370.0) != drawing.hue_colour(60.0)
    for degrees in range(0, 360, 15):
        assert all(0 <= channel <= 255 for channel in drawing.hue_colour(float(degrees)))


def test_hues_are_those_of_oklch(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(drawing, "LIGHTNESS", 0.62796)
    monkeypatch.setattr(drawing, "CHROMA", 0.25768)
    assert drawing.hue_colour(29.234) == (255, 0, 0)


def test_labels_keep_their_distance_round_the_circle():
    levels = drawing.label_levels([0.0, 3.0, 6.0, 90.0, 355.0], apart=9.0, levels=2)
    assert levels == [0, 1, None, 0, None]


def test_the_drawn_curve_bulges_towards_plus_x():
    path = drawing.curve_path(10.0, 5.0)
    start, x, y = re.match(r"M(\S+) \S+L(\S+) (\S+)A", path).groups()
    assert float(start) < float(x) < 0 and float(y) < 0
