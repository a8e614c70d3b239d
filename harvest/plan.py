"""The plan of a harvest: what is fixed before the first row is computed."""

import os
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tendril.data.cli import note
from tendril.data.device import launched_as
from tendril.data.errors import ConfigError
from tendril.data.home import store_location
from tendril.data.store.folder import SCHEME
from tendril.data.store.labels import Labels
from tendril.data.store.layout import Layout
from tendril.data.store.spec import StoreSpec
from tendril.data.store.truth import Constants

from .config import StoreConfig
from .loop import Produce

FROM_ENVIRONMENT = "RANK and WORLD_SIZE of the environment"


@dataclass(frozen=True)
class Plan(ABC):
    """Subject, inputs and spec of a harvest. VisionPlan is for images, LanguagePlan for text."""

    spec: StoreSpec
    name: str
    """First part of the store's name where the config gives none."""
    device: torch.device

    @property
    @abstractmethod
    def settings(self) -> StoreConfig:
        """The config that this is the plan of."""

    @abstractmethod
    def layout(self) -> Layout:
        """The shape of the store: widths of the sites, chunks and shards.

        Runs the subject once to find the widths. Raises ConfigError if more positions are
        requested than there are.
        """

    @abstractmethod
    def producer(self, inputs_per_slice: int) -> Produce:
        """The function that turns slices of the inputs into rows."""

    @abstractmethod
    def seconds(self, layout: Layout) -> float:
        """Estimated seconds that the subject takes over all inputs; times a small batch."""

    @abstractmethod
    def sources(self) -> dict[str, str]:
        """Paths and names of subject, inputs and the like, as the config gives them."""

    def about(self, site: str) -> str:
        """What the positions of a site are, to follow their number in a sentence; empty if they
        are the cells of a map or the tokens of a text."""
        return ""

    def check_rows(self) -> None:  # noqa: B027  only text can have none
        """Raise ConfigError if no row could be valid."""

    @property
    def labels(self) -> Labels | None:
        """The classes of the inputs, if they are known."""
        return None

    @property
    def truth(self) -> Constants | None:
        """Arrays that say how rows were made, for rows that no network made."""
        return None

    @property
    def left_out(self) -> int:
        """Rows of a data set that have no text."""
        return 0

    @property
    def location(self) -> str:
        """Path or URL of the store."""
        return store_location(self.spec.folder(self.settings.name or self.name), self.settings.home)

    @property
    def rank(self) -> int:
        """Index of this process."""
        return process_of(self.settings)[0]

    @property
    def ranks(self) -> int:
        """Number of processes."""
        return process_of(self.settings)[1]

    def origin(self) -> dict[str, str]:
        """`sources`, with paths relative to the store's folder.

        It is recorded so that subject and inputs can be found again, and is no part of the
        store's identity. For a store at a URL, a path is reduced to its last part.
        """
        return {key: _relative(text, self.location) for key, text in self.sources().items()}


def process_of(config: StoreConfig) -> tuple[int, int]:
    """Index and number of processes, from the flags or from a launcher such as torchrun.

    Raises ConfigError if the index is out of range, or if several processes are to overwrite.
    """
    rank, ranks = config.rank, config.ranks
    if rank and not ranks:
        raise ConfigError(
            f"--rank must come with --ranks, the number of processes; got --rank {rank} alone."
        )
    source = "--rank and --ranks"
    if not ranks:
        source = FROM_ENVIRONMENT
        rank, ranks = launched_as()
    if not 0 <= rank < ranks:
        raise ConfigError(
            f"a rank must be from 0 to the number of processes - 1; got rank {rank} of {ranks} "
            f"from {source}. Correct or unset them."
        )
    if ranks > 1 and config.overwrite:
        raise ConfigError(
            f"--overwrite needs a single process; got {ranks}, which could not tell the old store "
            "from the new one. Remove the store with `tendril data rm STORE` first."
        )
    return rank, ranks


def say_rank(config: StoreConfig) -> None:
    """Note which of several processes this one is, how it knows, and whom it waits for."""
    rank, ranks = process_of(config)
    if ranks == 1:
        return
    source = "--rank and --ranks" if config.ranks else FROM_ENVIRONMENT
    waits = "waits for the other ranks at the end" if rank == 0 else "waits for rank 0 to create it"
    alone = "--ranks 1" if config.ranks else "--ranks 1, or unset these variables"
    note(
        f"rank {rank} of {ranks} (from {source}): it writes its share of the store's shards, and "
        f"{waits}. If this is the only process, stop it and pass {alone}."
    )


def environment_of(device: torch.device) -> dict[str, Any]:
    """Device, CPU threads and torch version: with these equal, rows are equal bit for bit."""
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "device": gpu or device.type,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def _relative(text: str, location: str) -> str:
    library, colon, folder = text.partition(":")
    if colon and library in ("hf", "timm") and Path(folder).is_dir():
        return f"{library}:{_relative(folder, location)}"
    file, python, function = text.partition(".py:")
    if python:
        return f"{_relative(f'{file}.py', location)}:{function}"
    path, at, split = text.rpartition("@")  # of a dataset
    if path and not Path(text).exists() and Path(path).exists():
        return f"{_relative(path, location)}{at}{split}"
    if not text or not Path(text).exists():
        return text
    return Path(text).name if SCHEME in location else os.path.relpath(text, location)
