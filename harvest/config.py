"""What can be asked of a harvest. Imports no torch: `--help` answers at once."""

from dataclasses import dataclass
from typing import Literal, final

import tyro


@dataclass(frozen=True)
class StoreConfig:
    """What every harvest can be asked: abstract, a kind of subject adds its own."""

    inputs: str = ""
    """What the subject reads."""
    subject: str = ""
    """The network studied."""
    sites: tuple[str, ...] = ()
    """Where activations are read, in one pass."""
    limit: int | None = None
    """How many inputs to take; all by default."""
    per_input: int | Literal["all"] = "all"
    """Positions kept of each input."""
    dtype: Literal["float16", "bfloat16", "float32", "int8"] = "float16"
    """The dtype of the stored rows; int8 has a scale for each row."""
    seed: int = 0
    """Seed of the positions."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the subject runs."""
    home: str = ""
    """The folder or URL that holds store/; $TENDRIL_HOME or this folder by default."""
    name: str = ""
    """What the store is called, before its digest; subject and inputs by default."""
    batch_size: int = 8
    """Inputs in a slice: what the subject sees at once; a GPU likes 64."""
    threads: int = 0
    """CPU threads of the subject; 0 is torch's own choice."""
    compressor: Literal["zstd", "lz4", "none"] = "zstd"
    """How chunks are compressed."""
    rank: int = 0
    """Which of several processes this is, counted from 0."""
    ranks: int = 0
    """How many processes share the shards; 0: what a launcher such as torchrun says, or one."""
    dry_run: bool = False
    """Only say how many rows, bytes and seconds it would be."""
    overwrite: bool = False
    """Remove a store of the same spec first."""


@final
@dataclass(frozen=True)
class HarvestConfig(StoreConfig):
    """A harvest of images: which subject reads which, and what of its activations is kept."""

    inputs: str = ""
    """A folder of images, hf:NAME_OR_PATH[@SPLIT], or dead-leaves[:SEED]."""
    subject: str = "inceptionv1"
    """inceptionv1, handmade, planted, or FILE.py:FUNCTION for a network of your own."""
    weights: str = ""
    """A file of weights, `lucent` to fetch the Lucid checkpoint, or `random[:SEED]` for a control
    that has learned nothing (inceptionv1)."""
    normalisation: Literal["auto", "lucent", "sibling"] = "auto"
    """Response normalisation of inceptionv1; auto goes by the checksum of the weights."""
    sites: tuple[str, ...] = ("mixed3b",)
    """Where activations are read, in one pass; positions are drawn on the first one's map."""
    limit: int | None = None
    """How many inputs to take, at random, the same ones each time; all by default."""
    per_input: int | Literal["all"] = 10
    """Positions kept of each input."""
    positions: Literal["norm", "uniform"] = "norm"
    """How they are drawn: with probability proportional to the norm there, or uniformly."""
    rotations: int = 0
    """Turns of the group that each position's patch is taken through (rows [G, D]); 0: no group."""
    reflections: bool = True
    """Whether the group reflects, too: it then has twice as many elements."""
    turn: Literal["random", "none"] = "random"
    """Whether each patch is first turned by an angle of its own, so that no direction that
    photographs prefer is built in."""
    workers: int = 0
    """Threads that read and scale images; 0: one a core."""


@final
@dataclass(frozen=True)
class LanguageConfig(StoreConfig):
    """A harvest of text: which language model reads it, and what of its activations is kept."""

    inputs: str = ""
    """A file or folder of text, hf:NAME_OR_PATH[@SPLIT], docstrings (of Python's standard
    library), or self[:SEED], which the model writes itself."""
    subject: str = ""
    """The folder of a model, its name on the Hugging Face hub, or package:NAME."""
    sites: tuple[str, ...] = ("resid_post.-1",)
    """TransformerLens's names, or short: resid_pre.N, resid_mid.N, resid_post.N, attn_out.N,
    mlp_out.N; -1 is the last block."""
    limit: int | None = None
    """How many contexts to take, from the beginning; all by default."""
    context: int = 128
    """Tokens in a context, special ones included."""
    skip_special: bool = True
    """Whether rows of special tokens (begin of text, separators) are marked as not valid."""
    skip_first: int = 0
    """Positions at the beginning of each context whose rows are marked as not valid."""
    column: str = "text"
    """Where a set or a line of JSON has its text."""
    streaming: bool = False
    """Read a Hugging Face set as it comes, instead of fetching it whole."""
    compute: Literal["float32", "bfloat16", "float16"] = "float32"
    """The dtype that the subject computes in."""


@dataclass(frozen=True)
class VerifyConfig:
    """A check of a store: what is on the disk or, deeply, rows made once more."""

    store: tyro.conf.Positional[str] = tyro.MISSING
    """A path, a URL, a name in store/, one without its digest, the beginning of one, or latest."""
    deep: bool = False
    """Make a random sample once more from subject and inputs, and compare."""
    rows: int = 256
    """How many rows to compare at least: all of the slices that are made."""
    seed: int = 0
    """Seed of the sample."""
    inputs: str = ""
    """Where the inputs are; where the store says that they were, by default."""
    subject: str = ""
    """The subject; the one that the store names, by default."""
    weights: str = ""
    """Its file of weights; the one that the store names, by default."""
    normalisation: str = ""
    """Response normalisation of inceptionv1; as harvested, by default."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the subject runs; auto is a CPU where it did then."""
    threads: int = 0
    """CPU threads of the subject; 0: as many as then."""
    home: str = ""
    """The folder or URL that holds store/; $TENDRIL_HOME or this folder by default."""
    json: bool = False
    """Print the JSON object on the last line of stdout and nothing else."""
