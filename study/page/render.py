"""Render templates to HTML. The base page, its style and the macros lie in this folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

HERE = Path(__file__).parent


def render(folder: Path, context: Mapping[str, Any], template: str = "page.html") -> str:
    """A template in `folder` as one HTML page that needs no other file.

    Templates of `folder` are searched first, then those of this package. Values are escaped;
    a name that the context lacks raises `jinja2.UndefinedError`.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, HERE]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(context)
