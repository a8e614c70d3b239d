"""Fragments of text on which a latent's activations are simulated from its explanation.

Source: Cunningham et al. (2309.08600), after Bills et al. (2023): five of the twenty strongest
fragments are explained, five others and five random ones are simulated.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final

import numpy as np
from jaxtyping import Int64

from tendril.data import order

from .score_statistics import moments
from .text_examples import Firing, TextExample, active_places, cut

Random = Literal["active", "any"]


@final
@dataclass(frozen=True)
class SimulationFragments:
    """Fragments of one latent: some of the strongest, which no explainer has seen, and random
    ones. Empty for a latent with too few."""

    top: Sequence[TextExample] = ()
    random: Sequence[TextExample] = ()

    def __bool__(self) -> bool:
        return bool(self.top and self.random)


def fragments_of(
    firing: Firing,
    member: int,
    length: int,
    *,
    shown: int,
    top: int,
    count: int,
    random: Random,
    min_peak: float,
    seed: int,
) -> SimulationFragments:
    """Draw `count` fragments of the `top` strongest and `count` random ones.

    Those that `text_examples.examples_of` shows under the same numbers are left out. Random
    fragments are drawn from those in which the latent is active somewhere, as in the public code
    of Cunningham et al., or with `random` = "any" from the whole text; they overlap no others. A
    latent with fewer than `top` activating fragments, and `count` more, gets none.
    """
    latent, dense_CT = firing.latents[member], firing.dense(member)
    length = min(length, dense_CT.shape[1])
    place_N2, peak_N = active_places(dense_CT, length)
    if len(peak_N):
        place_N2 = place_N2[peak_N >= min_peak * float(peak_N[0])]
    if len(place_N2) < top + (count if random == "active" else 0) or top < shown + count:
        return SimulationFragments()
    seen = order.sample(top, shown, seed, latent, 1)
    others = np.setdiff1d(np.arange(top), seen)
    strong = others[order.sample(len(others), count, seed, latent, 5)]
    used = np.concatenate([seen, strong])
    if random == "active":
        left = np.setdiff1d(np.arange(len(place_N2)), used)
        drawn_N2 = place_N2[left[order.sample(len(left), count, seed, latent, 6)]]
    else:
        drawn_N2 = anywhere(dense_CT.shape, length, count, place_N2[used], seed, latent, 6)
    parts = (place_N2[np.sort(strong)], drawn_N2)
    return SimulationFragments(*(cut(firing, dense_CT, part, length) for part in parts))


def anywhere(
    shape: tuple[int, int], length: int, count: int, used_U2: Int64[np.ndarray, "u 2"], *key: int
) -> Int64[np.ndarray, "n 2"]:
    """(context, start) of fragments in as many contexts, at random, that overlap none of `used`."""
    contexts, whole = shape
    drawn = order.permutation(contexts, *key)
    starts = (order.uniform(contexts, *key, 1) * (whole - length + 1)).astype(np.int64)
    found: list[tuple[int, int]] = []
    for context, start in zip(drawn.tolist(), starts.tolist(), strict=True):
        near = used_U2[used_U2[:, 0] == context, 1]
        if (np.abs(near - start) >= length).all():
            found.append((context, start))
        if len(found) == count:
            break
    return np.array(found, np.int64).reshape(-1, 2)


def moments_of(firing: Firing, member: int) -> tuple[float | None, float | None]:
    """Skew and excess kurtosis of a latent's activations over all valid tokens that were read."""
    valid = int(firing.text.valid_BT[firing.contexts_C].sum())
    return moments(firing.values[member], valid)
