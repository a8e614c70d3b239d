"""The sentences of the page."""

from collections.abc import Sequence

from ..measures.curve_family import CurveFamily
from ..measures.curve_scores import degrees, lowest
from .figures import envelope_of
from .findings import Findings
from .rings_page import ring_text, ring_tiles
from .truth import RECOVERED

NAMED = 8  # orientations listed in a sentence


def lead(findings: Findings) -> str:
    """The first sentences: how many curve detectors there are, where, and what latents add."""
    units = findings.units
    many = len(units.members)
    text = (
        f"{count(many, 'unit')} of {len(units.scores.max)} at {findings.site} "
        f"{'responds' if many == 1 else 'respond'} to curves of one orientation and hardly to "
        f"any other drawn curve"
    )
    counts = {name: count for name, count in findings.branch_counts().items() if count}
    if counts and many:
        most = max(counts.values())
        names = [name for name, number in counts.items() if number == most]
        where = " and ".join(names)
        text += f"; {'all' if most == many > 1 else most} of them lie in {where}"
        text += " each" if len(names) > 1 else ""
    text += "."
    if findings.latents is not None:
        latents = len(findings.latents.members)
        same = "does" if latents == 1 else "do"
        text += (
            f" The dictionary trained there has {count(latents, 'latent')} that {same} the same."
        )
        text += _filled(findings)
    return text


def _filled(findings: Findings) -> str:
    """How many curve latents lie in the widest gap between curve units."""
    gap, latents = findings.units.gap, findings.latents
    if latents is None or not findings.units.members:
        return ""
    within = [
        member
        for member in latents.members
        if 0 < (latents.orientation(member) - gap.start) % 360 < gap.degrees
    ]
    ties = len(findings.units.gaps)
    which = "widest gap" if ties == 1 else f"first of {ties} equally wide gaps"
    return (
        f" The units' {which}, {gap.degrees:.0f}° about {degrees(gap.middle)}, holds "
        f"{count(len(within), 'curve latent')}; as many uniform orientations would put "
        f"{len(latents.members) * gap.degrees / 360:.1f} there."
    )


def headline(findings: Findings) -> list[dict[str, str]]:
    """The tiles at the top of the page."""
    tiles = []
    for family in findings.families:
        gap, kind = family.gap, family.kind
        tiles.append(
            {
                "value": str(len(family.members)),
                "of": f"of {len(family.scores.max)}",
                "text": f"{kind}s are curve detectors",
            }
        )
        about = f", about {degrees(gap.middle)}" if family.members else ""
        if len(family.gaps) > 1:
            about = f"; {len(family.gaps)} gaps are that wide"
        tiles.append(
            {
                "value": f"{gap.degrees:.0f}°",
                "of": "",
                "text": f"is the widest gap between curve {kind}s{about}",
            }
        )
    if findings.rings:
        tiles += ring_tiles(findings)
    elif findings.truths:
        kind = findings.families[-1].kind
        found = sum(truth.recovered(kind) for truth in findings.truths)
        tiles.append(
            {
                "value": str(found),
                "of": f"of {len(findings.truths)}",
                "text": f"planted orientations recovered by a {kind}, within {RECOVERED:g}°",
            }
        )
    return tiles


def envelope_text(findings: Findings) -> str:
    """Where the envelope of each family is lowest."""
    texts = []
    for family in findings.families:
        if not family.members:
            texts.append(f"There is no curve {family.kind}, so there is no envelope.")
            continue
        texts.append(_lowest(family))
    return " ".join(texts) + " A deep dip shows where a curve detector is missing."


def _lowest(family: CurveFamily) -> str:
    """Where the envelope of a family is lowest, and where else it is as low."""
    curve = envelope_of(family)
    name, places = f"The envelope of the curve {family.kind}s", lowest(curve)
    if not places:
        return f"{name} has no dip."
    angles = [f"{family.orientations[i]:.0f}°" for i in places]
    level = f"{curve[places[0]]:.2f} of its maximum"
    if len(places) == 1:
        return f"{name} is lowest at {angles[0]}, where the highest tuning curve reaches {level}."
    more = f" and {len(angles) - NAMED} more" if len(angles) > NAMED else ""
    return (
        f"{name} is lowest at {len(angles)} orientations alike, where the highest tuning curve "
        f"reaches {level}: {', '.join(angles[:NAMED])}{more}."
    )


def chance_text(findings: Findings) -> str:
    """The widest gap and the lowest point of the envelope of each family, against chance."""
    texts = []
    for family in findings.families:
        chances = findings.chances[family.kind]
        if chances is None:
            continue
        gap, low = chances
        texts.append(
            f"Curve {family.kind}s: widest gap {gap.text()}; lowest envelope {low.text('', 2)}."
        )
    if not texts:
        return ""
    return (
        " ".join(texts) + " Chance is the mean, and the range of 90 %, of as many uniform "
        "orientations, and for the envelope of the same tuning curves turned at random. P is the "
        "fraction of draws that cover the circle as well or better; for the units' widest gap, "
        "that leave one as wide. The study of missing curve detectors asks whether latents fill "
        "the units' gaps."
    )


def truth_text(findings: Findings) -> str:
    """How many planted orientations are recovered; empty if none were planted."""
    result = findings.planted_result()
    if not result:
        return ""
    if findings.rings:
        return ring_text(findings)
    found = " and ".join(
        f"{result[f'recovered_{family.kind}s']} of them by a curve {family.kind}"
        for family in findings.families
    )
    kind = findings.families[-1].kind
    aligned = ""
    if "aligned_latents" in result:
        aligned = (
            f" The latents whose decoder rows point most along the planted directions (median "
            f"cosine {result['aligned_cosine']:.2f}) lie within {RECOVERED:g}° in "
            f"{result['aligned_latents']} cases."
        )
    return (
        f"The weights of this network were written by rule, and {result['planted']} curve "
        f"detectors were planted in it. The study finds {found}, within {RECOVERED:g}° of where "
        f"they were planted; the worst error of the curve {kind}s is "
        f"{result['worst_error_degrees']}°. As many orientations drawn at random would recover "
        f"{result['recovered_by_chance']} of them.{aligned}"
    )


def count(number: int, noun: str) -> str:
    """`no curves`, `1 curve`, `2 curves`."""
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"


def method(findings: Findings) -> list[str]:
    """How the numbers were measured, a paragraph a step."""
    units, limits = findings.units, findings.units.thresholds
    step = 360 / len(units.orientations)
    radii = ", ".join(f"{radius:.0f}" for radius in units.radii)
    texts = [
        f"{units.responses[..., 0].size:,} curves were drawn: {len(units.orientations)} "
        f"orientations {step:g}° apart, radii of {radii} pixels, each as "
        f"{_styles(units.styles)}, dark on white, and {_rivals(findings)}. The midpoint of each "
        f"arc lies on "
        f"the centre of the receptive field of the middle cell of {findings.site}, so that a curve "
        f"turns about the centre of what the cell sees.",
        f"A tuning curve is the positive response averaged over radii and styles. A curve "
        f"detector has a resultant length of at least {limits.resultant:g}, an echo of at most "
        f"{limits.echo:g}, and a maximum of at least {limits.strength:g} of the strongest "
        f"{' or of the strongest '.join(family.kind for family in findings.families)}. Its "
        f"greatest response to a rival shape is at most {limits.rival:g} of that to a curve. Its "
        f"orientation is the circular mean direction of its tuning curve.",
    ]
    if findings.latents is not None:
        texts.append(
            f"Latents come from encoding the activations of {findings.site} at that cell with "
            f"the dictionary of run {findings.run}. Its decoder rows have norm 1, so a latent's "
            f"value is a length in the space of the activations."
        )
    return texts


def _rivals(findings: Findings) -> str:
    rivals = findings.units.rivals
    return (
        f"{len(rivals.shapes):,} rival shapes (corners, straight edges and lines, line ends, "
        "circles, gratings)"
        if rivals
        else "no rival shapes"
    )


def _styles(styles: Sequence[str]) -> str:
    drawn = {
        "line": "a thin line",
        "edge": "an edge that is dark on its hollow side",
        "reverse": "an edge that is dark on the other side",
    }
    *most, last = [drawn[style] for style in styles]
    return f"{', '.join(most)} and {last}" if most else last


def training_text(findings: Findings) -> str:
    """The run's own figures."""
    text = f"Run {findings.run}, against the training step."
    names = {"fvu": "FVU", "l0": "L0"}
    trained = findings.trained
    ended = [f"{name} {trained[key]:.3g}" for key, name in names.items() if key in trained]
    if ended:
        text += f" On held-out vectors it reached {' and '.join(ended)}."
    if "dead" in trained:
        text += f" At the end of training {100 * trained['dead']:.1f} % of the latents were dead."
    return text


def caveats(findings: Findings) -> list[str]:
    """What the numbers do not show."""
    texts = [
        "Drawn curves are not photographs. A unit that passes here may also respond to "
        "other things; compare the patches and the near misses.",
        "The thresholds are conventions. A unit close to one passes or fails with small "
        "changes of the stimuli; the near misses show how many such units there are.",
        "A gap is measured between mean orientations. It does not show how wide the tuning curves "
        "on either side are; the envelope does.",
    ]
    if findings.latents is not None:
        texts.append(
            "The latents are those of one dictionary with one seed; another seed finds others."
        )
    if not findings.truths:
        texts.append(
            "The true curve detectors of a trained network are unknown; these follow from one "
            "definition."
        )
    return texts
