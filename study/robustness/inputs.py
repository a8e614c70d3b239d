"""The networks that runs belong to, and images that no run was trained on."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np

from tendril.data import order
from tendril.data.errors import ConfigError
from tendril.data.home import NETWORK
from tendril.data.inputs.images import ImageSource, open_images
from tendril.data.store.provenance import located
from tendril.data.store.reader import BATCH_DEFAULTS, Store
from tendril.models.attacks import Attack
from tendril.models.dictionaries.checkpoint import CONFIG, read_config, read_json
from tendril.models.epsilon import check_epsilon
from tendril.models.subjects.subject import Subject

from ..core.image_batches import harvested_images, some_images
from ..core.image_labels import labels_of
from ..core.stores import dictionary_digests, training_warnings
from ..core.vision_inputs import find_vision_inputs
from .config import RobustnessConfig

HELD_OUT = "held out of the training of every run"


@final
@dataclass(frozen=True)
class Trained:
    """How a network was trained: what groups it with others. An unknown value is empty or -1."""

    name: str
    data: str = ""
    architecture: str = ""
    width: int = -1
    epsilon: float = 0.0
    attack: str = "none"
    seed: int = -1

    @property
    def known(self) -> bool:
        """True for a network of `tendril train classifier`."""
        return bool(self.architecture)


@final
@dataclass(frozen=True)
class Network:
    """A subject, how it was trained, and the runs on it, each with its site."""

    subject: Subject
    trained: Trained
    runs: tuple[tuple[Path, str], ...]


@final
@dataclass(frozen=True)
class RobustnessInputs:
    """Networks, the images that they are compared on, their classes if known, and the attack."""

    networks: tuple[Network, ...]
    images: ImageSource
    labels: Sequence[int] | None
    attack: Attack

    @property
    def runs(self) -> list[Path]:
        """All runs."""
        return [run for network in self.networks for run, _ in network.runs]

    def identity(self) -> dict[str, Any]:
        """What determines findings besides the settings."""
        return {
            "subjects": [dict(one.subject.identity) for one in self.networks],
            "dictionaries": dictionary_digests(self.runs),
            "images": [self.images.identity, len(self.images)],
            "epsilon": self.attack.epsilon,
        }

    def remarks(self) -> list[str]:
        """What training has warned of."""
        return training_warnings(self.runs)


def find_robustness_inputs(config: RobustnessConfig, runs: Sequence[Path]) -> RobustnessInputs:
    """Group runs by network, and choose images and attack.

    Raises ConfigError for fewer than two networks, for networks without a store, for one whose
    images have another size, and for an attack without a size.
    """
    grouped: dict[str, list[tuple[Path, str, Subject, Store]]] = {}
    for run in runs:
        found = find_vision_inputs(config, str(run), images=False)
        if found.store is None:
            raise ConfigError(
                f"the store of {run.name} is gone, and with it the way to its network. Harvest it "
                "again, or leave the run out."
            )
        key = repr(sorted(found.subject.identity.items()))
        grouped.setdefault(key, []).append((run, found.site, found.subject, found.store))
    if len(grouped) < 2:
        raise ConfigError(
            "study robustness compares networks, plain and robust ones; all runs given are of one "
            "network. Add runs of the others to --run."
        )
    networks = tuple(
        Network(some[0][2], _trained(some[0][3]), tuple((run, site) for run, site, _, _ in some))
        for some in grouped.values()
    )
    sizes = {one.subject.input_size for one in networks}
    if len(sizes) > 1 or len({one.trained.data for one in networks}) > 1:
        raise ConfigError(
            "the networks must take the same images; got images of "
            f"{', '.join(sorted({o.trained.data or str(o.subject.input_size) for o in networks}))}"
            ". Study each data set by itself."
        )
    images = _images(
        config, [(run, store) for some in grouped.values() for run, _, _, store in some]
    )
    return RobustnessInputs(
        networks, images, labels_of(config.labels, images), _attack(config, networks)
    )


def _trained(store: Store) -> Trained:
    """How the network of a store was trained, if `tendril train classifier` did it."""
    place = Path(located(store.path, store.origin.get("subject", "")))
    if not (place / NETWORK.marker).is_file():
        return Trained(str(store.spec["subject"].get("name", "")) or place.name)
    config = read_json(place / CONFIG)
    plain = config.get("attack", "none") == "none"
    return Trained(
        place.resolve().name,
        Path(str(config.get("inputs", ""))).stem,
        str(config["network"]["architecture"]),
        int(config["network"]["width"]),
        0.0 if plain else float(config["epsilon"]),
        str(config.get("attack", "none")),
        int(config.get("seed", -1)),
    )


def _images(config: RobustnessConfig, runs: Sequence[tuple[Path, Store]]) -> ImageSource:
    """The images given, or those of the stores that no run was trained on."""
    if config.inputs:
        images = open_images(config.inputs)
        chosen = np.arange(len(images))
        part = "given"
    else:
        first = runs[0][1]
        taken = first.spec["inputs"]
        if any(store.spec["inputs"] != taken for _, store in runs):
            raise ConfigError(
                "the stores of the runs must be of the same images, or --inputs must name images "
                "that no run was trained on; their images differ. Pass --inputs."
            )
        images = harvested_images(first)
        aside = np.ones(len(images), bool)
        for run, _ in runs:
            fraction = float(read_config(run).get("held_out", BATCH_DEFAULTS["held_out"]))
            aside &= order.held_out(np.arange(len(images)), fraction)
        chosen, part = np.flatnonzero(aside), HELD_OUT
    if not len(chosen):
        raise ConfigError("no image is held out of the training of every run. Pass --inputs.")
    if config.limit < len(chosen):
        chosen = chosen[order.sample(len(chosen), config.limit, 0)]
    return some_images(images, [int(i) for i in chosen], part)


def _attack(config: RobustnessConfig, networks: Sequence[Network]) -> Attack:
    epsilon = config.epsilon or max(one.trained.epsilon for one in networks)
    if epsilon <= 0:
        raise ConfigError(
            "--epsilon must say how strong the attacks are: none of the networks says that it was "
            "trained against any. E.g. --epsilon 0.0157, which is 4/255."
        )
    check_epsilon(epsilon, config.norm, 3 * networks[0].subject.input_size ** 2)
    return Attack(config.norm, epsilon, config.attack_steps)
