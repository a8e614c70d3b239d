"""The page of symmetries: one file of HTML that needs nothing else, to be looked at anywhere."""

import json
from pathlib import Path

from ..page.render import render
from . import figures as figures
from . import words as words
from .findings import SymmetryFindings
from .images import STEPS


def render_page(findings: SymmetryFindings) -> str:
    """The whole page as HTML."""
    return render(Path(__file__).parent, _context(findings))


def _context(findings: SymmetryFindings) -> dict[str, object]:
    reading = findings.reading
    curves = findings.rows_named("curve")
    shown = range(min(findings.shown, len(findings.families)))
    rows = figures.table_rows(findings)
    return {
        "title": findings.title,
        "group": reading.group.name,
        "lead": words.lead(findings),
        "headline": words.headline(findings),
        "bars": figures.class_bars(findings),
        "classes": figures.class_table(findings),
        "name_text": words.name_text(findings),
        "chance_text": words.chance_text(findings),
        "chance": figures.chance_charts(reading),
        "legend": [(name.replace(" ", "-"), text) for name, text in figures.LEGEND.items()],
        # copies of a tied family point everywhere, whatever their representative does
        "ring": None if reading.tied or not curves else figures.compass(findings, curves),
        "family_text": words.family_text(findings),
        "families": [figures.family_row(findings, number) for number in shown],
        "planted": findings.planted,
        "steps": STEPS,
        "maps": figures.latent_maps(findings),
        "rows": rows,
        "more": len(findings.listing) - len(rows),
        "method": words.method(findings),
        "caveats": words.caveats(findings),
        "notes": findings.notes,
        "command": findings.command,
        "made": json.dumps(findings.made, indent=2),
    }
