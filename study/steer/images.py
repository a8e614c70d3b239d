"""Steering a vision network: class probabilities of photographs against strength."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tendril.data import order
from tendril.data.cli import progress_bar
from tendril.data.errors import ConfigError, InputsNotFoundError, UnreadableInputsError
from tendril.data.inputs.images import ImageSource, readable
from tendril.data.store.reader import BATCH_DEFAULTS, Store
from tendril.models.dictionaries.checkpoint import load_sae, read_config
from tendril.models.dictionaries.sae import SAE
from tendril.models.sites.dimensions import tokens_of
from tendril.models.sites.edit import edit
from tendril.models.sites.splice import splicing
from tendril.models.subjects.subject import site_modules

from ..core.report import file_digest
from ..core.stores import common_site, dictionary_digests
from ..core.vision_inputs import VisionInputs, find_vision_inputs
from ..measures.latent_activity import Activity, encoded
from ..measures.steering import other_dictionaries, similar_answers, usable
from .config import SteerConfig

EXAMPLES, CANDIDATES = 8, 32  # images of a latent that excite it most; latents compared
RARE, DENSE = 0.01, 0.1  # fractions of images
MOVED, SHOWN = 5, 3  # classes that move most; classes shown of a photograph
AT_ONCE = 2**24


@final
@dataclass(frozen=True)
class SteeredImages:
    """A run of a vision network, its dictionary, store and images, and the names of classes."""

    found: VisionInputs
    run: Path
    dictionary: SAE
    store: Store
    images: ImageSource
    classes: tuple[str, ...]

    @property
    def subject_name(self) -> str:
        """The name of the network, for titles."""
        return self.found.subject.name

    @property
    def site(self) -> str:
        """The site that is edited."""
        return self.found.site

    def remarks(self) -> list[str]:
        """Tokens in place of a map, training images, norm outliers."""
        return self.found.remarks()

    def identity(self, config: SteerConfig) -> dict[str, Any]:
        """What determines findings besides the settings."""
        return {
            "subject": dict(self.found.subject.identity),
            "site": self.site,
            "dictionaries": dictionary_digests([self.run]),
            "store": self.store.name,
            "labels": file_digest(Path(config.labels)) if config.labels else None,
        }

    def estimate(self, config: SteerConfig) -> dict[str, Any]:
        """Counts for `--dry-run`."""
        latents = len(config.latent) or config.choose
        passes = latents * (1 + config.random) * len(config.strengths) * config.photographs
        return {"latents": latents, "photographs": config.photographs, "passes": passes}

    def compute(self, config: SteerConfig, device: torch.device) -> dict[str, Any]:
        """The JSON object of result.json, and pixels of the images that are shown."""
        return _Steering(self, config, device).findings()


def find_images(config: SteerConfig, run: Path) -> SteeredImages:
    """Find network, store, dictionary and images of a run. Raises what `find_vision_inputs`
    raises, ConfigError for dictionaries of several sites or of orbits and for a run without a
    store, and InputsNotFoundError where the images are gone."""
    common_site([run])
    found = find_vision_inputs(config, str(run))
    if config.prompt:
        raise ConfigError("--prompt is for runs of a language model. Leave it out.")
    if found.store is None:
        raise ConfigError(
            f"steer needs the store of {run.resolve().name}, for the latents' maxima; it is gone. "
            "Pass --store with its path, or harvest it again."
        )
    if found.images is None:
        raise InputsNotFoundError(f"steer needs photographs. {found.no_images}")
    if config.patch:
        if found.tokens and tokens_of(found.subject.module).keep != "patches":
            raise ConfigError(
                f"--patch needs a site with rows and columns; {found.site} was read as tokens "
                "without places. Leave it out, or harvest with --tokens patches."
            )
        top, left, height, width = config.patch
        rows, columns = (*found.grid, 1)[:2]
        if top + height > rows or left + width > columns:
            raise ConfigError(
                f"--patch must lie in the {rows} x {columns} cells of {found.site}; got "
                f"{' '.join(map(str, config.patch))}."
            )
    classes = _class_names(Path(config.labels)) if config.labels else ()
    return SteeredImages(found, run, load_sae(run), found.store, found.images, classes)


def _class_names(path: Path) -> tuple[str, ...]:
    """The names in a file of a class a line, without their ids."""
    if not path.is_file():
        raise InputsNotFoundError(
            f"--labels must be a file with a class a line; {path} is no file. Check the path."
        )
    lines = [line.strip().split(None, 1) for line in path.read_text().splitlines()]
    return tuple(line[-1].split(",")[0] if line else "" for line in lines)


@final
class _Steering:
    """The parts of the study that share network, dictionary and activity."""

    def __init__(self, inputs: SteeredImages, config: SteerConfig, device: torch.device) -> None:
        self.inputs, self.config, self.device = inputs, config, device
        self.subject = inputs.found.subject
        self.module = self.subject.module.to(device)
        self.names = site_modules(self.subject, [inputs.site])[inputs.site]
        self.sae = inputs.dictionary.to(device)
        self.unread: set[int] = set()
        self.pixels: dict[int, np.ndarray] = {}
        store = inputs.store
        count = int(store.spec["inputs"]["count"])
        valid_BP = store.column("valid").reshape(count, -1)
        self.activity = Activity(self.sae.latents, valid_BP.shape[1], EXAMPLES, 0, 1)
        fired_S = np.zeros(self.sae.latents, np.int64)
        for some, z_NS in encoded(
            store, [inputs.site], self.sae, valid_BP, np.arange(count), device, "images", AT_ONCE
        ):
            self.activity.add(some, z_NS)
            fired_S += (z_NS.view(len(some), -1, z_NS.shape[1]) > 0).any(1).sum(0).cpu().numpy()
        self.fraction_S = fired_S / max(count, 1)
        fraction = float(read_config(inputs.run).get("held_out", BATCH_DEFAULTS["held_out"]))
        aside = order.held_out(np.arange(count), fraction)
        self.held_out = np.flatnonzero(aside) if aside.any() else np.arange(count)

    def findings(self) -> dict[str, Any]:
        """Figures of every latent, and the pixels of images, by number, under `pixels`."""
        config = self.config
        chosen = list(dict.fromkeys(config.latent)) or self._chosen()
        taken = self._photographs(chosen)
        plain_BV = self._predictions(taken).softmax(-1)
        latents = {}
        count = len(chosen) * (1 + config.random)
        with progress_bar(total=count, desc="steer", unit=" directions") as bar:
            for latent in chosen:
                latents[str(latent)] = self._latent(latent, taken, plain_BV, bar)
        return {
            "run": self.inputs.run.resolve().name,
            "subject": self.subject.name,
            "site": self.inputs.site,
            "method": config.method,
            "patch": list(config.patch),
            "grid": list(self.inputs.found.grid),
            "chosen": not config.latent,
            "photographs": [
                {"number": i, "name": self.inputs.images.name(i), "answers": self._answers(row_V)}
                for i, row_V in zip(taken, plain_BV, strict=True)
            ],
            "latents": latents,
            "pixels": self.pixels,
        }

    def _photographs(self, latents: Sequence[int]) -> list[int]:
        """Held-out photographs at random, without the latents' own images."""
        own = {i for latent in latents for i in self._images_of(latent)}
        drawn = self.held_out[order.permutation(len(self.held_out), self.config.seed)]
        found: list[int] = []
        for i in drawn.tolist():
            if len(found) == self.config.photographs:
                break
            if i not in own and self._pixels(i) is not None:
                found.append(i)
        if not found:
            raise UnreadableInputsError(
                f"none of the held-out images of {self.inputs.images.origin} can be steered: they "
                "cannot be read, or are the latents' own. Give --inputs a folder of more images."
            )
        return found

    def _images_of(self, latent: int) -> list[int]:
        """The images that excite a latent most, the strongest first."""
        rows = self.activity.top.row_SN[latent]
        return list(dict.fromkeys((rows[rows >= 0] // self.activity.length).tolist()))

    def _chosen(self) -> list[int]:
        """Latents whose images get the most similar answers."""
        usual = usable(self.fraction_S, RARE, DENSE)
        spread = np.linspace(0, len(usual) - 1, min(CANDIDATES, len(usual))).astype(np.int64)
        candidates = usual[spread].tolist()
        own = {latent: [i for i in self._images_of(latent) if self._pixels(i) is not None]
               for latent in candidates}  # fmt: skip
        every = sorted({i for images in own.values() for i in images})
        logits_BV = self._predictions(every) if every else torch.zeros(0, 1)
        mean_V = logits_BV.mean(dim=0)

        def score(latent: int) -> float:
            places = [every.index(i) for i in own[latent]]
            return similar_answers(logits_BV[places], mean_V)

        return sorted(candidates, key=score, reverse=True)[: self.config.choose]

    def _latent(
        self, latent: int, taken: Sequence[int], plain_BV: Float[Tensor, "b v"], bar: Any
    ) -> dict[str, Any]:
        config, most = self.config, float(self.activity.max_S[latent])
        if most == 0:
            raise ConfigError(
                f"latent {latent} is active nowhere in {self.inputs.store.name}, so it has no "
                "maximum to steer by. Name another --latent."
            )
        images = [i for i in self._images_of(latent) if self._pixels(i) is not None]
        own = sorted(set(self._predictions(images).argmax(-1).tolist())) if images else []
        directions = other_dictionaries(self.sae, latent, config.random, config.seed)
        made = []
        for sae in (self.sae, *directions):
            made.append(
                [
                    self._predictions(taken, sae, latent, most * strength).softmax(-1)
                    for strength in config.strengths
                ]
            )
            bar.update(1)
        return {
            "max": most,
            "images": float(self.fraction_S[latent]),
            "examples": images,
            "classes": [self._name(c) for c in own],
            "unedited": _figures(plain_BV, plain_BV, own),
            "strengths": [
                {
                    "strength": strength,
                    "value": most * strength,
                    "latent": _figures(plain_BV, made[0][i], own),
                    "random": _mean([_figures(plain_BV, one[i], own) for one in made[1:]]),
                    "moved": self._moved(plain_BV, made[0][i]),
                    "random_moved": self._moved(plain_BV, made[1][i]),
                    "answers": [self._answers(row_V) for row_V in made[0][i]],
                    "random_answers": [self._answers(row_V) for row_V in made[1][i]],
                }
                for i, strength in enumerate(config.strengths)
            ],
        }

    @torch.inference_mode()
    def _predictions(
        self, numbers: Sequence[int], sae: SAE | None = None, latent: int = 0, value: float = 0.0
    ) -> Float[Tensor, "b v"]:
        """Logits of images, with a latent edited if a dictionary is given."""
        config, found = self.config, []
        places: Any = None
        if config.patch:
            top, left, height, width = config.patch
            places = (slice(top, top + height), slice(left, left + width))
        strength = {latent: value} if sae is not None else None
        for start in range(0, len(numbers), config.batch_size):
            some = numbers[start : start + config.batch_size]
            rgb_BHWC = np.stack([self.pixels[i] for i in some])
            rgb_BCHW = torch.from_numpy(rgb_BHWC).permute(0, 3, 1, 2).to(self.device).float() / 255
            with (
                edit(
                    self.subject,
                    self.inputs.site,
                    self.sae if sae is None else sae,
                    set=strength if config.method == "set" else None,
                    add=strength if config.method == "add" else None,
                    positions=places,
                ),
                splicing(self.module, self.names, self.subject.logits) as splice,
            ):
                found.append(splice.run(self.subject.preprocess(rgb_BCHW), {}).float().cpu())
        return torch.cat(found)

    def _pixels(self, number: int) -> np.ndarray | None:
        """An image as the network's input shows it; None if it cannot be read."""
        if number not in self.pixels and number not in self.unread:
            image = readable(self.inputs.images, number, self.subject.input_size)
            if image is None:
                self.unread.add(number)
            else:
                self.pixels[number] = image
        return self.pixels.get(number)

    def _answers(self, p_V: Float[Tensor, " v"]) -> list[list[Any]]:
        """The most likely classes, each with its probability."""
        p_K, class_K = p_V.topk(min(SHOWN, len(p_V)))
        pairs = zip(class_K.tolist(), p_K.tolist(), strict=True)
        return [[self._name(c), p] for c, p in pairs]

    def _moved(self, plain_BV: Tensor, made_BV: Tensor) -> list[list[Any]]:
        """The classes whose mean probability rises most, and falls most, each with its change."""
        change_V = (made_BV - plain_BV).double().mean(dim=0)
        ranked = change_V.argsort(descending=True).tolist()
        most = min(MOVED, len(ranked) // 2)
        chosen = [*ranked[:most], *ranked[len(ranked) - most :]]
        return [[self._name(c), float(change_V[c])] for c in chosen]

    def _name(self, number: int) -> str:
        names = self.inputs.classes
        return names[number] if number < len(names) else f"class {number}"


def _figures(
    plain_BV: Float[Tensor, "b v"], made_BV: Float[Tensor, "b v"], own: Sequence[int]
) -> dict[str, float]:
    """Means over photographs: the probability of the first answer of the plain network and of the
    latent's own classes, KL(plain || edited) in nats, and the fraction of changed first answers."""
    first_B1 = plain_BV.argmax(-1, keepdim=True)
    log_ratio_BV = (
        plain_BV.double().clamp_min(1e-30).log() - made_BV.double().clamp_min(1e-30).log()
    )
    changed_B: Bool[Tensor, " b"] = made_BV.argmax(-1) != first_B1[:, 0]
    return {
        "own": float(made_BV[:, list(own)].double().sum(-1).mean()),
        "kept": float(made_BV.gather(1, first_B1).double().mean()),
        "kl": float((plain_BV.double() * log_ratio_BV).sum(-1).mean()),
        "changed": float(changed_B.double().mean()),
    }


def _mean(figures: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: sum(one[name] for one in figures) / len(figures) for name in figures[0]}
