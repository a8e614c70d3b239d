"""Responses to patches of photographs that are turned about the centre of the receptive field.

Source of the protocol: Cammarata et al., "Curve Detectors", Distill 2020 ("joint tuning curves").
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack

import numpy as np
import torch
from jaxtyping import Float

from tendril.data.cli import progress_bar
from tendril.data.group.dihedral import Dihedral
from tendril.data.group.warp import Warp
from tendril.data.inputs.images import ImageSource, readable
from tendril.data.store.reader import Store
from tendril.models.sites.window import ReceptivePatch

from .image_examples import Row, cell_of
from .tuning import exact_arithmetic

PATCHES = 32  # at a time

Respond = Callable[[Float[np.ndarray, "n d"]], Float[np.ndarray, "n m"]]


def record_turned(
    patch: ReceptivePatch,
    store: Store,
    site: str,
    images: ImageSource,
    size: int,
    best: Sequence[Sequence[Row]],
    respond: Respond,
    angles_A: Float[np.ndarray, " a"],
    device: torch.device,
) -> list[Float[np.ndarray, "i a m"]]:
    """Responses [I, A, M] to the patches of each entry of `best`, at every angle.

    `patch` reads `site`; `size` is that of the subject's images in pixels, and `respond` turns
    activations [N, D] into the responses of M detectors. Patches are read by cubic splines and
    fade to the subject's mean colour towards a circle. Images that cannot be read are left out.
    """
    warp = Warp(Dihedral(1, reflections=False), patch.size, patch.colour, device)
    inputs = store.column("input")
    found: list[np.ndarray] = []
    with ExitStack() as stack:
        stack.enter_context(exact_arithmetic())
        stack.enter_context(torch.inference_mode())
        read = stack.enter_context(patch.reading(PATCHES))
        for rows in progress_bar(best, "turning patches"):
            recorded = []
            for row in rows:
                pixels = readable(images, int(inputs[row.number]), size)
                if pixels is None:
                    continue
                image = torch.from_numpy(pixels).to(device).permute(2, 0, 1).float() / 255
                centre = patch.centre(*cell_of(store, site, row.number))
                centres = np.repeat(np.array([centre]), len(angles_A), 0)
                parts = []
                for start in range(0, len(angles_A), PATCHES):
                    some = slice(start, start + PATCHES)
                    turned = warp.turned(image, centres[some], angles_A[some])
                    parts.append(read(turned)[site].float().cpu().numpy())
                recorded.append(respond(np.concatenate(parts)))
            found.append(
                np.stack(recorded) if recorded else np.zeros((0, len(angles_A), len(best)))
            )
    return found


def align(responses_IAM: Float[np.ndarray, "i a m"], own: int) -> Float[np.ndarray, "a m"]:
    """Shift each patch's responses so that the peak of detector `own` comes first, then average
    over patches.

    The peak is the circular mean direction of the responses that reach half the maximum, rounded
    to the nearest turn; of a flat or ragged top it is the middle.
    """
    count = responses_IAM.shape[1]
    if not len(responses_IAM):
        return np.zeros(responses_IAM.shape[1:])
    turned = []
    for responses_AM in responses_IAM:
        own_A = np.maximum(responses_AM[:, own], 0)
        high_A = np.where(own_A >= 0.5 * own_A.max(), own_A, 0)
        peak = np.angle(high_A @ np.exp(2j * np.pi * np.arange(count) / count))
        turned.append(np.roll(responses_AM, -round(peak / (2 * np.pi) * count), axis=0))
    return np.asarray(np.mean(turned, axis=0))
