"""What Python and a notebook show of a store, a run or a report: a title, some lines and a link."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import final
from urllib.parse import quote

from .home import SCHEME, home_folder

CELL = "padding:0.1em 1em 0.1em 0;border:0;text-align:left;vertical-align:top"
BOX = (
    "display:inline-block;border:1px solid rgba(128,128,128,0.5);border-radius:6px;"
    "padding:0.6em 1em;max-width:60em"
)


@final
@dataclass(frozen=True)
class Card:
    """`kind` and `name` say what it is, `headline` sums it up, `lines` are name and value. `place`
    is its folder, page or URL; `page` says that it can be opened in a browser."""

    kind: str
    name: str
    headline: str
    lines: Mapping[str, str] = field(default_factory=dict)
    place: str = ""
    page: bool = False

    def text(self) -> str:
        """One line for a terminal."""
        return f"<{self.kind} {self.name}: {self.headline.rstrip('.')}; {self.place}>"

    def html(self) -> str:
        """A box for a notebook, which takes the colours of the page around it."""
        rows = "".join(
            f"<tr style='background:none'><td style='{CELL};opacity:0.7'>{escape(name)}</td>"
            f"<td style='{CELL}'>{escape(value)}</td></tr>"
            for name, value in self.lines.items()
        )
        table = f"<table style='border:0;margin:0.4em 0 0'>{rows}</table>" if rows else ""
        place = escape(self.place)
        if self.page:
            place = f"<a href='{escape(link_to(self.place))}' target='_blank'>open {place}</a>"
        return (
            f"<div style='{BOX}'><div><b>{escape(self.kind)} {escape(self.name)}</b></div>"
            f"<div>{escape(self.headline)}</div>{table}"
            f"<div style='opacity:0.7;margin-top:0.4em'>{place}</div></div>"
        )


def link_to(page: str) -> str:
    """A link to a file: relative to the notebook's folder, since Jupyter serves no other; a file
    URL for one outside of it."""
    if SCHEME in page:
        return page
    path = Path(page).resolve()
    if path.is_relative_to(Path.cwd().resolve()):
        return quote(path.relative_to(Path.cwd().resolve()).as_posix())
    return path.as_uri()


def home_of(place: str | os.PathLike[str], folder: str) -> str:
    """The home of a store, run or report that lies in its `folder` there, as --home takes it; empty
    for the usual home, and for what lies elsewhere or at a URL."""
    text = os.fspath(place)
    parent = Path(text).parent
    if SCHEME in text or parent.name != folder:
        return ""
    home = parent.parent
    return "" if home.absolute() == home_folder().absolute() else str(home)
