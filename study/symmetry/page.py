"""What the page of the symmetry study shows."""

from ..measures.pose_images import STEPS
from . import figures, tables, words
from .findings import SymmetryFindings


def context(findings: SymmetryFindings) -> dict[str, object]:
    """What page.html shows of the findings."""
    analysis = findings.analysis
    curves = findings.rows_named("curve")
    # the copies of a tied latent point in every direction, so there is no circle to cover
    circle = findings.tuning is not None and not analysis.tied and len(analysis.latents) > 0
    rows = tables.table_rows(findings)
    return {
        "lead": words.lead(findings),
        "numbers": words.headline(findings),
        "group": analysis.group.name,
        "alive": len(analysis.latents),
        "bars": figures.class_bars(findings),
        "classes": tables.class_table(findings),
        "name_text": words.name_text(findings),
        "chance_text": words.chance_text(findings),
        "chance": figures.chance_charts(analysis),
        "rates": tables.rate_table(analysis),
        "race": race_table(findings),
        "legend": [(name.replace(" ", "-"), text) for name, text in figures.LEGEND.items()],
        "circle": circle,
        "ring": figures.compass(findings, curves) if circle and curves else None,
        "no_curves": words.no_curves_text(findings) if circle and not curves else "",
        "family_text": words.family_text(findings),
        "families": [
            figures.family_row(findings, number) for number, _ in enumerate(findings.heads)
        ],
        "planted": tables.planted_table(findings.planted) if findings.planted else None,
        "steps": STEPS,
        "maps": figures.map_pictures(findings),
        "rows": rows,
        "more": len(findings.listing) - len(rows),
        "method": words.method(findings),
        "caveats": words.caveats(findings),
        "notes": findings.notes,
    }


def race_table(findings: SymmetryFindings) -> dict[str, object] | None:
    """The comparison of methods; None where there are no orbits to compare them on."""
    race = findings.race
    if race is None or not race.entries:
        return None
    return {
        "orbits": race.orbits,
        "heads": [head for head, _ in tables.RACE.values()],
        "legend": list(tables.RACE.values()),
        "rows": tables.race_rows(race.figures()),
    }
