"""Does a network resist adversarial images better when a site is replaced by a reconstruction?

A defence replaces the vectors x of a site by f(x): a dictionary's reconstruction, or a control. It
is attacked in three ways, and an image counts as resisting only if it resists all of them:

    through           the gradient of the network with f in it
    straight-through  the same network, but with df/dx taken as the identity (BPDA)
    transferred       images made against the network as it is

If many more images fall to one of the last two than to the first, the defence hides gradients
instead of resisting. Sources: Athalye, Carlini and Wagner, Obfuscated gradients give a false sense
of security (1802.00420); Tramer et al., On adaptive attacks (2002.08347).
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from tendril.models.attacks import Attack, attacked, correct, predicting
from tendril.models.dictionaries.sae import SAE
from tendril.models.sites.splice import BLOCK, Splice, Substitute, splicing, to_parts, to_vectors
from tendril.models.subjects.subject import Subject, site_modules

THROUGH, STRAIGHT, TRANSFERRED = "through", "straight_through", "transferred"
WAYS = (THROUGH, STRAIGHT, TRANSFERRED)
NETWORK = "network"
CLEAR = 2.0  # standard deviations above which a difference between two ways is called masking

Labelled = tuple[Tensor, Tensor | None]  # RGB images in 0..1, classes


@final
@dataclass(frozen=True)
class Resisting:
    """Which images are answered rightly: clean, and under each way of attacking."""

    clean_N: Bool[np.ndarray, " n"]
    by_way: Mapping[str, Bool[np.ndarray, " n"]]

    @property
    def worst_N(self) -> Bool[np.ndarray, " n"]:
        """Answered rightly under every way."""
        every: Bool[np.ndarray, " n"] = np.logical_and.reduce([self.clean_N, *self.by_way.values()])
        return every

    @property
    def masked(self) -> bool:
        """True if another way of attacking succeeds clearly more often than the gradient itself."""
        through = self.by_way[THROUGH]
        for way, other in self.by_way.items():
            more, fewer = int((through & ~other).sum()), int((~through & other).sum())
            if way != THROUGH and more - fewer > CLEAR * np.sqrt(more + fewer):
                return True
        return False

    def figures(self) -> dict[str, float | bool | int]:
        """Accuracies as fractions of all images."""
        return {
            "images": len(self.clean_N),
            "clean": float(self.clean_N.mean()),
            **{way: float(one.mean()) for way, one in self.by_way.items()},
            "worst": float(self.worst_N.mean()),
            "masked": self.masked,
        }


@final
@dataclass(frozen=True)
class SiteMoments:
    """Mean and covariance of a site's vectors over all positions of some images."""

    count: int
    mean_D: Float64[Tensor, " d"]
    covariance_DD: Float64[Tensor, "d d"]

    @classmethod
    @torch.no_grad()
    def of(cls, subject: Subject, site: str, images: Iterable[Tensor]) -> "SiteMoments":
        """From RGB images in 0..1."""
        total = outer = torch.zeros(())
        count = 0
        with splicing(subject.module, site_modules(subject, [site])[site]) as splice:
            for rgb in images:
                x_ND = to_vectors(splice.read(subject.preprocess(rgb))).double().cpu()
                total, outer = total + x_ND.sum(dim=0), outer + x_ND.T @ x_ND
                count += len(x_ND)
        mean_D = total / count
        return cls(count, mean_D, outer / count - torch.outer(mean_D, mean_D))

    def projection(self, fvu: float) -> tuple[Substitute, int]:
        """PCA with the fewest components whose FVU is at most `fvu`, and their number."""
        values_D, vectors_DD = torch.linalg.eigh(self.covariance_DD)
        left_D = values_D.clamp_min(0).cumsum(0) / values_D.clamp_min(0).sum()
        dropped = int((left_D <= fvu).sum())  # the smallest ones
        kept_DM = vectors_DD[:, dropped:].float()
        mean_D = self.mean_D.float()

        def project(x_ND: Tensor) -> Tensor:
            mean, kept = mean_D.to(x_ND), kept_DM.to(x_ND)
            projected: Tensor = (x_ND - mean) @ kept @ kept.T + mean
            return projected

        return project, kept_DM.shape[1]

    def noise(self, fvu: float, seed: int) -> Substitute:
        """Gaussian noise of the same expected squared error, drawn anew at every pass."""
        width = len(self.mean_D)
        sigma = float((fvu * self.covariance_DD.trace() / width).clamp_min(0).sqrt())
        generator = torch.Generator().manual_seed(seed)
        return lambda x_ND: x_ND + sigma * torch.randn(x_ND.shape, generator=generator).to(x_ND)


def reconstructing(dictionary: SAE) -> Substitute:
    """f(x) = decode(encode(x)), through which gradients flow."""

    def reconstruct(x_ND: Tensor) -> Tensor:
        blocks = torch.split(x_ND.float(), BLOCK)
        return torch.cat([dictionary.decode(dictionary.encode(some)) for some in blocks])

    return reconstruct


def straight_through(substitute: Substitute) -> Substitute:
    """The same values, with the identity as derivative."""
    return lambda x_ND: x_ND + (substitute(x_ND) - x_ND).detach()


def attack_defences(
    subject: Subject,
    site: str,
    defences: Mapping[str, Substitute],
    batches: Iterable[Labelled],
    attack: Attack,
    seed: int = 0,
) -> dict[str, Resisting]:
    """Which images the network (NETWORK) and each defence answer rightly, clean and attacked.

    Classes that are None are the network's own answers. Random starts are those of `seed`, the
    same for every defence. Raises ConfigError and SubjectError as `attacked` does.
    """
    found: dict[str, dict[str, list[np.ndarray]]] = {}
    names = site_modules(subject, [site])[site]

    def keep(name: str, way: str, right_B: Bool[Tensor, " b"]) -> None:
        found.setdefault(name, {}).setdefault(way, []).append(right_B.cpu().numpy())

    with predicting(subject) as plain, splicing(subject.module, names, subject.logits) as splice:
        for number, (rgb, classes) in enumerate(batches):
            if classes is None:
                with torch.no_grad():
                    classes = plain(rgb).argmax(dim=1)
            classes = classes.to(rgb.device)

            def against(logits_of: Callable[[Tensor], Tensor]) -> Tensor:
                start = torch.Generator().manual_seed(seed * 1_000_003 + number)  # noqa: B023
                return attacked(logits_of, rgb, classes, attack, start)  # noqa: B023

            moved = against(plain)
            keep(NETWORK, "clean", correct(plain, rgb, classes))
            keep(NETWORK, THROUGH, correct(plain, moved, classes))
            for name, substitute in defences.items():
                defended = _spliced(splice, subject, substitute)
                loose = _spliced(splice, subject, straight_through(substitute))
                keep(name, "clean", correct(defended, rgb, classes))
                keep(name, THROUGH, correct(defended, against(defended), classes))
                keep(name, STRAIGHT, correct(defended, against(loose), classes))
                keep(name, TRANSFERRED, correct(defended, moved, classes))
    joined = {n: {w: np.concatenate(one) for w, one in ways.items()} for n, ways in found.items()}
    return {name: Resisting(ways.pop("clean"), ways) for name, ways in joined.items()}


def _spliced(
    splice: Splice, subject: Subject, substitute: Substitute
) -> Callable[[Float[Tensor, "b c h w"]], Float[Tensor, "b v"]]:
    """Logits of RGB images with the site replaced, through which gradients flow."""

    def logits_of(rgb_BCHW: Tensor) -> Tensor:
        x = subject.preprocess(rgb_BCHW)
        parts = splice.read(x)
        return splice.run(x, to_parts(substitute(to_vectors(parts)), parts))

    return logits_of
