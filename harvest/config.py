"""Configurations of a harvest. Imports no torch, so that `--help` is quick."""

from dataclasses import dataclass
from typing import Annotated, Literal, final

import tyro

# `--site NAME` reads as `--sites NAME`, since training and studies take one site as --site.
Sites = Annotated[tuple[str, ...], tyro.conf.arg(aliases=["--site"])]


@dataclass(frozen=True)
class StoreConfig:
    """Fields that every harvest has. Abstract: HarvestConfig is for images, LanguageConfig for
    text."""

    inputs: str = ""
    """What the subject reads."""
    subject: str = ""
    """The network to study."""
    sites: Sites = ()
    """Sites to record, all in one pass."""
    limit: int | None = None
    """Number of inputs; by default all."""
    per_input: int | Literal["all"] = "all"
    """Positions kept of each input."""
    dtype: Literal["float16", "bfloat16", "float32", "int8"] = "float16"
    """Dtype of the stored rows; int8 keeps one scale a row."""
    seed: int = 0
    """Seed for the positions."""
    device: str = "auto"
    """Device: auto, cpu, cuda, cuda:N or mps."""
    home: str = ""
    """Folder that holds store/, runs/ and reports/; by default $TENDRIL_HOME, or the current
    folder."""
    name: str = ""
    """First part of the store's name; by default subject and inputs."""
    batch_size: int = 0
    """Inputs in one forward pass (a slice); 0 takes 8 on a CPU, 32 on mps and 64 on a GPU."""
    threads: int = 0
    """CPU threads of the subject; 0 leaves the choice to torch."""
    compressor: Literal["zstd", "lz4", "none"] = "zstd"
    """Compressor of the chunks."""
    rank: int = 0
    """Index of this process among --ranks processes, from 0."""
    ranks: int = 0
    """Processes that share the shards; 0 takes the number from torchrun, or 1."""
    dry_run: bool = False
    """Report rows, bytes and seconds without writing anything."""
    overwrite: bool = False
    """Make it again even if it exists."""


@final
@dataclass(frozen=True)
class HarvestConfig(StoreConfig):
    """A harvest of images: the subject, the images, and the rows to keep."""

    inputs: str = ""
    """Folder of images, a parquet file, hf:NAME_OR_PATH[@SPLIT], or dead-leaves[:SEED]."""
    subject: str = "inceptionv1"
    """FILE.py:FUNCTION for a network of your own, hf:NAME (a name on the Hugging Face hub or a
    folder), timm:NAME, torchvision:NAME, a run of `tendril train classifier`, inceptionv1,
    handmade, planted, planted-hard or planted-test."""
    weights: str = ""
    """Weights of inceptionv1, timm and torchvision: a file, or `random[:SEED]` for an untrained
    control; `lucent` fetches the Lucid checkpoint of inceptionv1."""
    normalisation: Literal["auto", "lucent", "sibling"] = "auto"
    """Response normalisation of inceptionv1; auto recognises the weights by their checksum."""
    sites: Sites = ()
    """Sites to record, all in one pass; positions are drawn on the map of the first. By default
    mixed3b for inceptionv1, handmade and planted; other networks have no default."""
    limit: int | None = None
    """Number of images, drawn at random with a fixed seed; by default all."""
    per_input: int | Literal["all"] = 10
    """Positions kept of each image; a site with one vector an image has one position."""
    positions: Literal["norm", "uniform"] = "norm"
    """How positions are drawn: in proportion to the norm of the activation, or uniformly."""
    tokens: Literal["auto", "patches", "class", "all"] = "auto"
    """Tokens of a vision transformer: its patches as a map, its class token, or all tokens one
    after another; auto takes the patches where they can be told from the other tokens."""
    rotations: int = 0
    """Rotations in the group that acts on each position's patch (rows [G, D]); 0 for no group."""
    reflections: bool = True
    """Include reflections, which doubles the number of elements."""
    turn: Literal["random", "none"] = "random"
    """Turn each patch by a random angle before the group acts, so that the orientations common
    in photographs are not built in."""
    workers: int = 0
    """Threads that read and resize images; 0 for one a core."""


@final
@dataclass(frozen=True)
class LanguageConfig(StoreConfig):
    """A harvest of text: the language model, the text, and the rows to keep."""

    inputs: str = ""
    """File or folder of text, a parquet file, hf:NAME_OR_PATH[@SPLIT], docstrings (of Python's
    standard library), or self[:SEED] for text that the model generates."""
    subject: str = ""
    """Folder of a model, its name on the Hugging Face hub, package:NAME, or glassllm:en or :pt."""
    sites: Sites = ("resid_post.-1",)
    """Sites to record: resid_pre.N, resid_mid.N, resid_post.N, attn_out.N, mlp_out.N (-1 is the
    last block), or TransformerLens's full names."""
    limit: int | None = None
    """Number of contexts, from the start of the text; by default all."""
    context: int = 128
    """Tokens in a context, including special tokens."""
    pad: bool = False
    """One document a context: shorter ones are padded, and longer ones take several contexts. By
    default documents are packed end to end."""
    document_mask: bool = False
    """Documents that share a context do not attend to each other, and positions begin anew with
    each."""
    skip_special: bool = True
    """Mark the rows of special tokens (start of text, separators) as invalid."""
    skip_first: int = 0
    """Positions at the start of each context whose rows are marked as invalid."""
    column: str = "text"
    """Field of a data set or of a JSON line that holds the text."""
    token_ids: bool = False
    """The column holds lists of token ids of the subject's tokenizer, without special tokens,
    instead of text."""
    chat: bool = False
    """The column holds chats: lists of messages with role and content, which the chat template of
    the tokenizer turns into text. --column is then `messages` by default."""
    streaming: bool = False
    """Stream a Hugging Face data set instead of downloading it whole."""
    compute: Literal["float32", "bfloat16", "float16"] = "float32"
    """Dtype that the subject computes in."""


@final
@dataclass(frozen=True)
class SyntheticConfig(StoreConfig):
    """A store of rows that no network made: sums of features that are known."""

    inputs: tyro.conf.Suppress[str] = ""
    subject: tyro.conf.Suppress[str] = ""
    sites: tyro.conf.Suppress[tuple[str, ...]] = ()
    limit: tyro.conf.Suppress[int | None] = None
    dtype: tyro.conf.Suppress[Literal["float32"]] = "float32"  # so that rows equal their truth
    kind: Literal["features", "manifolds"] = "features"
    """Features are unit directions with a magnitude; manifolds are sets of points in subspaces."""
    rows: int = 200_000
    """Number of rows."""
    width: int = 64
    """Width D of a row."""
    features: int = 256
    """Number of features or manifolds."""
    active: float = 4.0
    """Features that are on in a row, on average, trees and exclusion apart; 0: frequencies go from
    --most to --least."""
    exponent: float = 0.5
    """Probability of feature i is proportional to i^-exponent, at most --most; 0: all are equally
    frequent. For manifolds this is 1 + alpha of the allocation model."""
    most: float = 0.5
    """Probability of the most frequent feature, at most."""
    least: float = 0.0
    """With --active 0, the probability of the last feature."""
    per_input: int = 64
    """Rows of an input. An input is what is held out of training together; no more."""
    strongest: float = 1.5
    """Features: mean magnitude of the first feature."""
    weakest: float = 1.5
    """Features: mean magnitude of the last feature; linear between."""
    spread: float = 0.5
    """Features: what is added to the mean is |N(0, spread^2)|."""
    orthogonalise: int = 0
    """Steps that push directions apart, which lowers the mean largest cosine."""
    roots: int = 0
    """Features: trees of features, of which a child can be on only with its parent; 0: none."""
    children: int = 4
    """Features: children of a feature in a tree."""
    depth: int = 3
    """Features: generations of children in a tree."""
    exclusive: bool = False
    """Features: of the children of a feature, at most one is on. Manifolds: exactly one is on in
    each row, which needs --active 1."""
    correlation_rank: int = 0
    """Features: rank of the correlation between features, by a Gaussian copula; 0: independent."""
    correlation: float = 0.1
    """Features: fraction of the copula's variance that features share."""
    shape: Literal["sphere", "shell", "torus", "interval", "circle"] = "sphere"
    """Manifolds: sphere S^(d-1) of radius 1; shell with radius from 0.5 to 2; torus of d/2 circles;
    interval from 0.5 to 2; circle with d/2 harmonics, the k-th of amplitude 1/k."""
    dimension: int = 2
    """Manifolds: dimension d of each subspace."""
    subspaces: Literal["random", "orthogonal"] = "random"
    """Manifolds: subspaces drawn at random, or orthogonal ones, of which there are D/d at most."""


@dataclass(frozen=True)
class VerifyConfig:
    """A check of a store: of its files, or with `deep` of its rows against recomputed ones."""

    store: tyro.conf.Positional[str] = tyro.MISSING
    """A path, a URL, a name in store/, the beginning of one name, or latest."""
    deep: bool = False
    """Recompute a random sample of rows from the subject and the inputs, and compare."""
    rows: int = 256
    """Rows to compare at least; whole slices are recomputed."""
    seed: int = 0
    """Seed for the sample."""
    inputs: str = ""
    """Inputs; by default those recorded in the store."""
    subject: str = ""
    """Subject; by default the one recorded in the store."""
    weights: str = ""
    """Weights of inceptionv1; by default those recorded in the store."""
    normalisation: str = ""
    """Response normalisation of inceptionv1; by default as harvested."""
    device: str = "auto"
    """Device: auto, cpu, cuda, cuda:N or mps."""
    threads: int = 0
    """CPU threads of the subject; 0 for as many as in the harvest."""
    home: str = ""
    """Folder that holds store/, runs/ and reports/; by default $TENDRIL_HOME, or the current
    folder."""
    json: bool = False
    """Print nothing on stdout but the full report, as one JSON object."""


@dataclass(frozen=True)
class PairConfig:
    """Two stores of one text that different tokenizers cut -> two stores whose rows are paired."""

    store: str = ""
    """Store of the first network: a path, a name in store/, or the beginning of one."""
    paired_store: str = ""
    """Store of the second network, of the same text."""
    home: str = ""
    """Folder that holds store/, runs/ and reports/; by default $TENDRIL_HOME, or the current
    folder."""
    overwrite: bool = False
    """Make both again even if they exist."""
