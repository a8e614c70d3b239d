"""Orbits that are sums of known families at random poses, and a store of them."""

from pathlib import Path

import numpy as np

from tendril.data.group.dihedral import Dihedral

from . import sparse

STABILISERS = ("all", "reflection", "half turn", "nothing")


def subgroup(group: Dihedral, name: str) -> list[int]:
    """The elements that leave a pattern as it is."""
    kept = {
        "all": list(range(len(group))),
        "reflection": [0, group.element(1, 0)],
        "half turn": [0, group.element(0, group.rotations // 2)],
        "nothing": [0],
    }
    return kept[name]


def families(group: Dihedral, count: int, width: int, seed: int = 0) -> np.ndarray:
    """Unit decoders [F, G, D], a stabiliser after the other: D[g s] = D[g]."""
    random = np.random.default_rng(seed)
    found = np.empty((count, len(group), width), np.float32)
    for number in range(count):
        rows = random.standard_normal((len(group), width))
        kept = subgroup(group, STABILISERS[number % len(STABILISERS)])
        rows = np.mean([rows[group.table_GG[:, s]] for s in kept], axis=0)
        found[number] = rows / np.linalg.norm(rows)
    return found


def orbits(group: Dihedral, truth_FGD: np.ndarray, count: int, on: int, seed: int = 1):  # type: ignore[no-untyped-def]
    """x[n, g] = .3 + sum of amount D_f[g h]: `on` families each, from 1 to 2, at any pose."""
    random = np.random.default_rng(seed)
    which = random.random((count, len(truth_FGD))).argsort(axis=1)[:, :on]
    poses = random.integers(0, len(group), which.shape)
    amounts = random.uniform(1, 2, which.shape).astype(np.float32)
    copies = truth_FGD[:, group.table_GG.T]  # [F, h, g, D]
    size = truth_FGD[0].size ** 0.5
    return 0.3 + size * np.einsum("nk,nkgd->ngd", amounts, copies[which, poses], dtype=np.float32)


def make_store(home: Path, group: Dihedral, sites: dict[str, np.ndarray]) -> Path:
    """A complete store of orbits."""
    orbit = {"rotations": group.rotations, "reflections": group.reflections, "size": 91}
    return sparse.make_store(home, sites, name="orbits", orbit=orbit)


def likeness(group: Dihedral, truth_FGD: np.ndarray, found_FGD: np.ndarray) -> np.ndarray:
    """For each true family the largest cosine of any family found, at any pose [F]."""
    copies = found_FGD[:, group.table_GG.T].reshape(len(found_FGD) * len(group), -1)
    copies = copies / np.linalg.norm(copies, axis=1, keepdims=True)
    best: np.ndarray = (truth_FGD.reshape(len(truth_FGD), -1) @ copies.T).max(axis=1)
    return best
