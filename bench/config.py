"""The options of every benchmark, and their defaults. Imports no torch, so that help is quick."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

PAIRS = 7  # how often ours and the yardstick are timed
Device = str
Frequencies = Literal["uniform", "power-law", "correlated", "synth_sae_bench"]
Setting = Literal[
    "topk",
    "batch_topk",
    "matryoshka",
    "relu_l1",
    "tied",
    "gated",
    "jumprelu",
    "jumprelu_target",
]


@dataclass(frozen=True)
class FaultsBench:
    """Flipped bits, malformed inputs, kills, and hostile stores and runs: what becomes of them.

    Works in a temporary home with a small store, run, sweep and report of each kind. A quarter of
    an hour on two cores. Exits with status 1 if anything was silent, a traceback, a hang, lost,
    left over or touched outside the home.
    """

    out: str = ""
    """Where to write the table (FILE.md) and every bad case (FILE.json)."""
    only: tuple[Literal["flips", "inputs", "kills", "hostile"], ...] = ()
    """The classes to try; by default all."""
    flips: int = 1000
    """Bits to flip, spread over all files."""
    inputs: int = 500
    """Malformed inputs to try."""
    kills: int = 100
    """Commands to kill."""
    seed: int = 0
    """Seed of what is drawn."""
    budget: float = 0.0
    """Minutes for each class, after which the next one begins; 0 for as long as it takes."""


@dataclass(frozen=True)
class GroupBench:
    """Orbits from crops against rotating whole images; growth of time and memory with G."""

    weights: str = ""
    """Weights of InceptionV1; random by default."""
    site: str = "mixed3b_5x5"
    """The site to read."""
    rotations: int = 16
    """Rotations of the group; with reflections it has twice as many elements."""
    anchors: int = 2
    """Anchors in one run of the yardstick."""
    pairs: int = PAIRS
    """How often ours and the yardstick are timed."""


@dataclass(frozen=True)
class HarvestBench:
    """A harvest of images against the bare forward pass of the same network."""

    inputs: str = ""
    """A folder of photographs; dead-leaves images by default."""
    weights: str = ""
    """Weights of InceptionV1; random by default."""
    images: int = 800
    """Images in a run; a quarter of them if all positions are kept."""
    batch_size: int = 8
    """Images in a slice."""
    device: Device = "auto"
    """The device of the subject."""
    memory: bool = True
    """Also measure peak memory with `images` and ten times as many."""


@dataclass(frozen=True)
class LanguageBench:
    """A harvest of text against the bare truncated pass, and that against the full pass."""

    subject: str = ""
    """A language model: a folder, a name or package:NAME. By default a Llama with random weights,
    6 blocks of width 384."""
    inputs: str = "docstrings"
    """The text."""
    site: str = "resid_post.-3"
    """The site to read; later blocks do not run."""
    contexts: int = 768
    """Contexts in a run; with fewer, creating the store takes a large part of the time."""
    context: int = 128
    """Tokens in a context."""
    batch_size: int = 8
    """Contexts in a forward pass."""
    dtype: Literal["float16", "bfloat16", "float32"] = "float16"
    """The dtype of the stored rows."""
    device: Device = "auto"
    """The device of the subject."""


@dataclass(frozen=True)
class ReadBench:
    """Shuffled batches against a raw memmap and against a loader of safetensors files."""

    widths: tuple[int, ...] = (480, 4096)
    """Widths of the rows. 480 stands for mixed3b, 4096 for a residual stream."""
    megabytes: int = 384
    """Raw float16 megabytes of rows."""
    batch_size: int = 4096
    """Rows in a batch."""
    folder: str = ""
    """The folder for temporary files; by default the system's."""


@dataclass(frozen=True)
class RecoveryBench:
    """How many planted directions each objective recovers. Takes half an hour on a core.

    Rows come from synthetic stores and are read from their shards, as in any training.
    """

    frequencies: tuple[Frequencies, ...] = ("uniform", "power-law", "correlated")
    """How features fire: with equal probability, by rank, or correlated by a Gaussian copula;
    synth_sae_bench: as in SynthSAEBench, with 2,048 features in 256 dimensions."""
    objectives: tuple[Setting, ...] = (
        "topk",
        "batch_topk",
        "matryoshka",
        "relu_l1",
        "tied",
        "gated",
        "jumprelu",
        "jumprelu_target",
    )
    """The objectives to try."""
    seeds: int = 3
    """Seeds of the directions, the vectors and the initial weights."""
    steps: int = 2000
    """Training steps of 1024 vectors."""


@dataclass(frozen=True)
class RemoteBench:
    """Batches from a server with a latency against batches from the local disk."""

    rows: int = 196_608
    """Rows of the store: several windows."""
    width: int = 480
    """The width D of the rows."""
    late_ms: float = 20.0
    """Milliseconds that the server waits before each answer."""
    batch_size: int = 4096
    """Rows in a batch."""
    window: int = 8
    """Chunks in a shuffle window; fewer than all, so that each epoch reads them again."""
    pairs: int = PAIRS
    """How often both are timed; the median ratio counts."""
    scratch: str = ""
    """The folder for the store; a temporary one by default."""


@dataclass(frozen=True)
class SnapshotBench:
    """Names and digests of what small versions of every recipe and study make.

    Runs some forty commands in a temporary home on one CPU thread, about five minutes. Exits with
    status 2 if the result differs from the file `against`.
    """

    out: str = ""
    """The JSON file to write."""
    against: str = ""
    """A JSON file from an earlier run, to compare with."""
    home: str = ""
    """An existing home to take the digests of; no command is run."""
    keep: str = ""
    """A folder to use as the home, which is kept; by default a temporary one."""
    only: tuple[str, ...] = ()
    """Run only commands that begin with one of these texts, e.g. `harvest`."""


@dataclass(frozen=True)
class StorageBench:
    """Bytes per row, and encoding and decoding speed, of every dtype and compressor."""

    store: str = "latest"
    """A store of float32 or float16 rows."""
    site: str = ""
    """The site; by default the first."""
    chunks: int = 4
    """Chunks of 4096 rows, spread over the store."""
    home: str = ""
    """The folder that holds store/."""


@dataclass(frozen=True)
class TrainBench:
    """A training step against a dense PyTorch loop; a sweep against its runs one by one."""

    width: int = 480
    """The width D of the vectors."""
    latents: int = 3840
    """The number S of latents."""
    k: int = 32
    """Active latents per vector."""
    batch_size: int = 4096
    """Vectors in a step."""
    steps: int = 25
    """Steps in a turn. There are eight turns, the first one to warm up."""
    large: bool = False
    """Also measure D 4096, S 32768, one step per turn (12 GB of memory, five minutes on two
    cores)."""
    memory: bool = True
    """Also measure the memory of a step, each side in its own process."""
    sweep: bool = True
    """Also measure a sweep of sixteen dictionaries with 960 latents."""
    device: Device = "auto"
    """The device of both sides."""


@dataclass(frozen=True)
class WriteBench:
    """Writing a store against a plain safetensors writer with two threads."""

    widths: tuple[int, ...] = (480, 4096)
    """Widths of the rows. 480 stands for mixed3b, 4096 for a residual stream."""
    megabytes: int = 384
    """Raw float16 megabytes of rows."""
    folder: str = ""
    """The folder for temporary files; by default the system's."""


BENCHES: dict[str, Callable[..., Any]] = {
    "faults": FaultsBench,
    "group": GroupBench,
    "harvest": HarvestBench,
    "language": LanguageBench,
    "read": ReadBench,
    "recovery": RecoveryBench,
    "remote": RemoteBench,
    "snapshot": SnapshotBench,
    "storage": StorageBench,
    "train": TrainBench,
    "write": WriteBench,
}
