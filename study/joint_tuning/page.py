"""The pictures of the page of joint tuning."""

from typing import Any

import numpy as np

from ..page import svg as drawing
from .study import Joint

CHART = (900.0, 200.0)


def joint_context(joint: Joint, subject: str, site: str, command: str) -> dict[str, Any]:
    """Everything that the template shows."""
    errors, widths, found = joint.errors(), joint.widths, joint.orientations()
    return {
        "title": f"Joint tuning at {site} of {subject}",
        "count": len(joint.detectors),
        "median_off": f"{np.median(np.abs(errors)):.1f}°",
        "worst_off": f"{np.abs(errors).max():.1f}°",
        "width": f"{np.median([d.width for d in joint.detectors]):.0f}°",
        "width_photographs": f"{np.median(widths):.0f}°",
        "patches": max(joint.patches),
        "step": f"{joint.step:g}",
        "mean_heat": _heat(joint),
        "curves": _own_curves(joint),
        "ticks": [{"x": f"{450 + a * 2.5:.0f}", "text": f"{a}°"} for a in range(-180, 181, 45)],
        "rows": [
            {
                "name": d.name,
                "h": f"{d.orientation:.1f}",
                "orientation": f"{d.orientation:.0f}°",
                "found": f"{found[m]:.0f}°",
                "off": f"{errors[m]:+.1f}°".replace("-", "\N{MINUS SIGN}"),
                "width": f"{d.width:.0f}°",
                "photographs": f"{widths[m]:.0f}°",
                "patches": joint.patches[m],
                "heat": drawing.heat_map(
                    np.roll(joint.curves[m].T, _half(joint), 1), d.orientation
                ),
            }
            for m, d in enumerate(joint.detectors)
        ],
        "command": command,
    }


def _half(joint: Joint) -> int:
    """Samples by which an aligned curve is rolled to have its peak in the middle."""
    return int(joint.curves.shape[1]) // 2


def _heat(joint: Joint) -> list[dict[str, str]]:
    """One strip a detector: its response to all patches against the orientation that turning
    brought them to, by what was found on the photographs."""
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
    """Each one's aligned curve, its peak in the middle."""
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
