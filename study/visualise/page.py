"""What the page of feature visualisations shows."""

from typing import Any

from ..page import svg as drawing
from .config import VisualiseConfig
from .findings import Images


def context(config: VisualiseConfig, findings: Images) -> dict[str, Any]:
    """What page.html shows of the images."""
    return {
        "size": findings.size,
        "images": [
            {
                "name": one.name,
                "url": drawing.data_url(one.pixels, "PNG"),
                "figures": f"cosine {one.cosine:.2f}, response {one.dot:.4g}"
                if one.dot > 0
                else "no response",
            }
            for one in findings.images
        ],
        "silent": _silent(findings),
        "method": [
            f"{config.steps} steps of Adam on the Fourier coefficients of each image with "
            "decorrelated colours, in lucent's parametrisation; all images start from the same "
            "noise. Gradients flow through the part of the network that this cell needs, and start "
            "before the last ReLU where the site has a twin there. The objective is the dot "
            f"product times the cosine to the power {config.cosine:g}. Each step shifts the image "
            "by a few pixels and scales it by up to 5 %; it is never rotated. One image took "
            f"{findings.seconds_each:.1f} seconds."
        ],
        "caveats": [
            "The images show what excites a direction most. What excites it in photographs may "
            "look different.",
            "Other seeds give other images. Only what they have in common is the feature.",
        ],
    }


def _silent(findings: Images) -> str:
    """A sentence about images without a response; empty if all have one."""
    silent = [one.name for one in findings.images if one.dot <= 0]
    if not silent:
        return ""
    return (
        f"Nothing excites {', '.join(silent)}: where a direction is silent on noise, no gradient "
        "reaches the image. Another --seed, more --steps or another --margin may help."
    )
