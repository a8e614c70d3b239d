"""What the page of curve detectors shows."""

from ..measures.curve_family import CurveFamily
from . import figures, rings_page, words
from .findings import Findings


def context(findings: Findings) -> dict[str, object]:
    """What page.html shows of the findings."""
    families = [_family(findings, family) for family in findings.families]
    return {
        "lead": words.lead(findings),
        "numbers": words.headline(findings),
        "families": families,
        "kinds": " or ".join(family.kind for family in findings.families),
        "envelope_text": words.envelope_text(findings),
        "chance_text": words.chance_text(findings),
        "truths": [] if findings.rings else figures.truth_rows(findings),
        "ring_columns": rings_page.COLUMNS,
        "ring_rows": rings_page.ring_rows(findings.rings),
        "ring_charts": rings_page.ring_charts(findings.rings),
        "truth_text": words.truth_text(findings),
        "branches": list(findings.branch_counts().items()),
        "receptive_field": findings.receptive_field,
        "examples_shown": any(family.patches for family in findings.families),
        "examples_note": findings.examples_note,
        "training": figures.training_panels(findings.metrics),
        "training_text": words.training_text(findings),
        "method": words.method(findings),
        "caveats": words.caveats(findings),
    }


def _family(findings: Findings, family: CurveFamily) -> dict[str, object]:
    chosen = figures.shown(family)
    text = f"{words.count(len(family.members), f'curve {family.kind}')}, in order of orientation."
    if len(chosen) < len(family.members):
        text += f" The {len(chosen)} strongest have a card; all are in the table."
    return {
        "kind": family.kind,
        "heading": words.count(len(family.members), f"curve {family.kind}").capitalize(),
        "text": text.capitalize(),
        "ring": figures.ring(family),
        "envelope": figures.envelope_chart(family),
        "cards": [figures.card(findings, family, member) for member in chosen],
        "rows": [figures.row(family, member) for member in family.members],
        "near": [figures.row(family, index, reason) for index, reason in family.near_misses()],
    }
