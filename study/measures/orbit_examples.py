"""Dataset examples of a group crosscoder: pose-normalised patches of its strongest anchors."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int

from tendril.data.group.dihedral import Dihedral
from tendril.data.group.warp import Warp
from tendril.data.inputs.images import ImageSource, readable
from tendril.data.store.reader import Store
from tendril.models.dictionaries.equivariant import EquivariantCrosscoder
from tendril.models.dictionaries.sae import Stored
from tendril.models.sites.window import ReceptivePatch

from .image_examples import Patch, Row, strongest_rows
from .latent_families import directed

UP = -90.0  # degrees: the direction that points up on the screen
ROWS = 1024  # orbits that are encoded at a time
MILLI = 1000  # the column `turn` is in millidegrees


def strongest_anchors(
    store: Store, site: str, dictionary: Stored, latents: Sequence[int], count: int
) -> list[list[Row]]:
    """The `count` anchors that excite each latent most, one per input. A tied latent counts in its
    best pose."""

    def respond(x_NGD: Float[np.ndarray, "n g d"]) -> Float[np.ndarray, "n m"]:
        values = [
            coded(dictionary, x_NGD[start : start + ROWS])[0][:, latents]
            for start in range(0, len(x_NGD), ROWS)
        ]
        return np.concatenate(values) if values else np.zeros((0, len(latents)))

    block = max(ROWS, store.chunk_rows)  # so that no chunk is read twice
    return strongest_rows(store, site, respond, len(latents), count, block)


@torch.inference_mode()
def coded(
    dictionary: Stored, x_NGD: Float[np.ndarray, "n g d"]
) -> tuple[Float[np.ndarray, "n s"], Int[np.ndarray, "n s"]]:
    """The activation of each latent on orbits, and the pose of a tied one (0 for others)."""
    x = torch.from_numpy(np.ascontiguousarray(x_NGD, np.float32))
    if isinstance(dictionary, EquivariantCrosscoder):
        values_NS, poses_NS = dictionary.poses_of(x)
        return values_NS.numpy(), poses_NS.numpy()
    z_NS = dictionary.encode(x.flatten(1)).numpy()
    return z_NS, np.zeros(z_NS.shape, np.int64)


def pose_normalised_patches(
    store: Store,
    site: str,
    dictionary: Stored,
    source: ImageSource,
    patch: ReceptivePatch,
    image_size: int,
    best: Sequence[Sequence[Row]],
    latents: Sequence[int],
    directions: Sequence[float],
) -> list[list[Patch]]:
    """The anchors' patches, turned so that the latent's direction points up.

    A row is the orbit of a patch p that was turned by the column `turn`. A latent of direction a
    that is active in pose h sees T_h of its pattern, whose direction is T_h a. The patch is turned
    by the difference to UP; a mirrored one is mirrored back about the vertical axis.
    Images that cannot be read are left out.
    """
    group = store.group
    assert group is not None
    warp = Warp(group, patch.size, patch.colour)
    inputs, turns = store.column("input"), store.column("turn")
    ys, xs = store.column("y"), store.column("x")
    wanted = sorted({int(inputs[row.number]) for rows in best for row in rows})
    images = {index: readable(source, index, image_size) for index in wanted}
    found = []
    for rows, latent, angle in zip(best, latents, directions, strict=True):
        patches = []
        for row in rows:
            index = int(inputs[row.number])
            if (image := images[index]) is None:
                continue
            _, poses_1S = coded(dictionary, store.read(site, np.array([row.number])))
            centre = patch.centre(int(ys[row.number]), int(xs[row.number]))
            turn = float(turns[row.number]) / MILLI
            pixels = pose_normalised(
                warp, _rgb(image), centre, turn, int(poses_1S[0, latent]), angle, group
            )
            patches.append(Patch(pixels, row.value, store.input_name(index)))
        found.append(patches)
    return found


def pose_normalised(
    warp: Warp,
    rgb_CHW: torch.Tensor,
    centre: tuple[float, float],
    turn: float,
    pose: int,
    angle: float,
    group: Dihedral,
) -> np.ndarray:
    """One patch as uint8 [P, P, 3], turned by `turn` and then until T_pose of `angle` is up."""
    total = turn + UP - directed(group, pose, angle)
    patch_CPP = warp.turned(rgb_CHW, np.array([centre]), np.array([total]))[0]
    if group.parts(pose)[0]:
        patch_CPP = patch_CPP.flip(-1)
    pixels: np.ndarray = (patch_CPP.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    return pixels


def _rgb(pixels_HWC: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(pixels_HWC)).permute(2, 0, 1).float() / 255
