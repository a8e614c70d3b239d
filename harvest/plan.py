"""What is settled before the first row: subject, inputs, identity, shapes, and who makes rows."""

import os
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tendril.data.device import keep_freed_memory, resolve_device
from tendril.data.errors import ConfigError
from tendril.data.home import store_location
from tendril.data.store.folder import SCHEME
from tendril.data.store.layout import Layout
from tendril.data.store.spec import StoreSpec

from .config import HarvestConfig, LanguageConfig, StoreConfig
from .loop import Produce


@dataclass(frozen=True)
class Plan(ABC):
    """What is settled without running the subject. Abstract: images and text differ."""

    spec: StoreSpec
    name: str
    """What the store is called where the config gives no name."""
    device: torch.device

    @property
    @abstractmethod
    def settings(self) -> StoreConfig:
        """The config that is planned."""

    @abstractmethod
    def layout(self) -> Layout:
        """Find the sites' shapes with one pass, and cut the rows into chunks and shards.

        Raises ConfigError where more positions are asked for than there are.
        """

    @abstractmethod
    def producer(self, inputs_per_slice: int) -> Produce:
        """What turns slices of the inputs into rows."""

    @abstractmethod
    def seconds(self, layout: Layout) -> float:
        """How long the subject will take over all inputs, by a try of its slowest step."""

    @abstractmethod
    def found(self) -> dict[str, str]:
        """Where subject, inputs and the like were found, as they were given."""

    @property
    def location(self) -> str:
        """Where the store is, or will be."""
        return store_location(self.spec.folder(self.settings.name or self.name), self.settings.home)

    @property
    def rank(self) -> int:
        """Which process this is."""
        return process_of(self.settings)[0]

    @property
    def ranks(self) -> int:
        """Of how many."""
        return process_of(self.settings)[1]

    def origin(self) -> dict[str, str]:
        """Where things were found, for those who come back: relative to the store's folder, and
        no part of its identity. To a store at a URL nothing is relative, so names must do."""
        return {key: _relative(text, self.location) for key, text in self.found().items()}


def make_plan(config: StoreConfig) -> Plan:
    """Open subject and inputs, and settle the identity of the harvest."""
    if config.batch_size < 1:
        raise ConfigError(
            f"--batch-size wants a whole number from 1 on, and got {config.batch_size}."
        )
    process_of(config)
    if config.threads:
        torch.set_num_threads(config.threads)
    keep_freed_memory()
    _make_deterministic()
    device = resolve_device(config.device)
    if isinstance(config, LanguageConfig):
        from .language_plan import plan_language  # transformers takes seconds to import

        return plan_language(config, device)
    from .vision_plan import plan_vision

    assert isinstance(config, HarvestConfig)
    return plan_vision(config, device)


def process_of(config: StoreConfig) -> tuple[int, int]:
    """Which process of how many this is: from the flags, or from a launcher such as torchrun."""
    rank, ranks = config.rank, config.ranks
    if not ranks:
        rank = int(os.environ.get("RANK", 0))
        ranks = int(os.environ.get("WORLD_SIZE", 1))
    if not 0 <= rank < ranks:
        raise ConfigError(f"--rank counts from 0 to --ranks less one, and is {rank} of {ranks}.")
    if ranks > 1 and config.overwrite:
        raise ConfigError(
            "--overwrite is for one process alone, as the others could not tell the old store from "
            "the new one; remove it with `tendril data rm STORE`, then start all of them."
        )
    return rank, ranks


def split_names(sites: tuple[str, ...]) -> tuple[str, ...]:
    """Sites, also where several are given with commas between them."""
    return tuple(site for group in sites for site in group.split(",") if site)


def environment_of(device: torch.device) -> dict[str, Any]:
    """What makes the same rows the same bits: device, CPU threads, version."""
    gpu = torch.cuda.get_device_name() if device.type == "cuda" else None
    return {
        "device": gpu or "cpu",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def _relative(text: str, location: str) -> str:
    file, python, function = text.partition(".py:")
    if python:
        return f"{_relative(f'{file}.py', location)}:{function}"
    if not text or not Path(text).exists():
        return text
    return Path(text).name if SCHEME in location else os.path.relpath(text, location)


def _make_deterministic() -> None:
    """The same device gives the same bits, and a GPU the CPU's values but for rounding."""
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
