"""The images that feature visualisation makes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from ..measures.feature_visualisation import Visualised


@final
@dataclass(frozen=True)
class Images:
    """Optimised images of `size` pixels, and how long one took."""

    images: Sequence[Visualised]
    size: int
    seconds_each: float

    def figures(self) -> dict[str, Any]:
        """Counts, and the cosine and dot product of each image's activation with its aim."""
        return {
            "images": len(self.images),
            "pixels": self.size,
            "seconds_an_image": round(self.seconds_each, 2),
            "median_cosine": round(float(np.median([one.cosine for one in self.images])), 3),
            "visualised": [
                {"of": one.name, "cosine": round(one.cosine, 3), "dot": round(one.dot, 2)}
                for one in self.images
            ],
        }
