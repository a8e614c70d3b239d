"""What the page of joint tuning shows."""

from typing import Any

import numpy as np

from ..measures.joint_orientations import Joint
from ..page import svg as drawing

CHART = (900.0, 200.0)


def context(joint: Joint) -> dict[str, Any]:
    """What page.html shows of the findings."""
    return {
        "numbers": _tiles(joint),
        "patches": max(joint.patches),
        "strips": _strips(joint),
        "curves": _own_curves(joint),
        "ticks": [
            {"x": f"{450 + a * 2.5:.0f}", "text": _signed(a, "d")} for a in range(-180, 181, 45)
        ],
        "rows": _rows(joint),
        "method": [
            "The photographs that excite each detector most, one patch a photograph, were turned "
            f"about the centre of the receptive field in steps of {joint.step:g}°. Pixels are read "
            "by cubic splines, and a patch fades to the subject's mean colour towards a circle. "
            "The responses to a patch were shifted so that the peak of its own detector comes "
            "first, then averaged over patches.",
            "Orientations follow from the differences between peaks alone, by angular "
            "synchronisation. Differences leave one common rotation free; it is fitted to the "
            "orientations on drawn curves.",
        ],
        "caveats": [
            "The photographs that excite a detector most are its best cases. Photographs of curves "
            "to which it does not respond are not shown.",
            "Which curve a photograph holds is known only through the detectors themselves.",
        ],
    }


def degrees(angle: float) -> str:
    """A rounded orientation, from 0° to 359°."""
    return f"{round(angle) % 360}°"


def _signed(angle: int | float, form: str) -> str:
    return f"{angle:{form}}°".replace("-", "\N{MINUS SIGN}")


def _tiles(joint: Joint) -> list[dict[str, str]]:
    errors = np.abs(joint.errors())
    drawn = np.median([d.width for d in joint.detectors])
    tiles = [
        (str(len(joint.detectors)), "detectors recorded"),
        (
            f"{np.median(errors):.1f}°",
            "median difference of orientations on photographs and on drawn curves, at worst "
            f"{errors.max():.1f}°",
        ),
        (f"{np.median(joint.widths):.0f}°", "median width at half maximum on photographs"),
        (f"{drawn:.0f}°", "median width at half maximum on drawn curves"),
    ]
    return [{"value": value, "of": "", "text": text} for value, text in tiles]


def _rows(joint: Joint) -> list[dict[str, Any]]:
    """The panel and the line of the table of each detector."""
    errors, widths, found = joint.errors(), joint.widths, joint.orientations()
    return [
        {
            "name": d.name,
            "h": f"{d.orientation:.1f}",
            "orientation": degrees(d.orientation),
            "found": degrees(float(found[m])),
            "off": _signed(float(errors[m]), "+.1f"),
            "width": f"{d.width:.0f}°",
            "photographs": f"{widths[m]:.0f}°",
            "patches": joint.patches[m],
            "heat": drawing.heat_map(np.roll(joint.curves[m].T, _half(joint), 1), d.orientation),
        }
        for m, d in enumerate(joint.detectors)
    ]


def _half(joint: Joint) -> int:
    """Samples by which an aligned curve is shifted to have its peak in the middle."""
    return int(joint.curves.shape[1]) // 2


def _strips(joint: Joint) -> list[dict[str, str]]:
    """For each detector its response to all patches against the orientation that a turn gave
    them, as measured on photographs."""
    found, count = joint.orientations(), joint.curves.shape[1]
    by_angle_MA = np.zeros((len(found), count))
    for u, angle in enumerate(found):
        by_angle_MA += np.roll(joint.curves[u].T, round(angle / joint.step), axis=1)
    by_angle_MA /= np.maximum(by_angle_MA.max(axis=1, keepdims=True), 1e-30)
    return [
        {"name": d.name, "url": drawing.heat_map(by_angle_MA[m : m + 1], d.orientation)}
        for m, d in enumerate(joint.detectors)
    ]


def _own_curves(joint: Joint) -> list[dict[str, str]]:
    """Each detector's aligned curve on its own patches, its peak in the middle."""
    width, height = CHART
    drawn = []
    for m, d in enumerate(joint.detectors):
        curve = np.roll(joint.curves[m, :, m], _half(joint))
        step = width / len(curve)
        points = [(i * step, height * (1 - float(v))) for i, v in enumerate(curve)]
        drawn.append(
            {"h": f"{d.orientation:.1f}", "path": drawing.line_path(points), "title": d.name}
        )
    return drawn
