"""What is probed: examples of a store, the inputs that they belong to, and their labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import final

import numpy as np
from jaxtyping import Bool, Int64

from tendril.data import order
from tendril.data.errors import ConfigError, InputsNotFoundError
from tendril.data.store.reader import Store
from tendril.data.store.truth import FEATURES, open_truth

from ..core.image_labels import INPUTS
from ..measures.sparse_probing import FEWEST
from .config import ProbeConfig

TOKENS, TRUTH = "tokens", "truth"
CAPITAL = "capitalised"
FEWEST_DOCUMENTS = 10  # below which parts of a text are split by context
DRAWN = 0x9B3  # of the examples that are drawn


@final
@dataclass(frozen=True)
class Examples:
    """Rows of a store, and the labels of what they belong to.

    rows_M: rows that are read, in ascending order
    example_M: the example that each belongs to; an example is the mean of its rows
    input_N: the input of each example, which goes into one part of a split as a whole
    labels: the name of each label, and which examples have it
    planted: the planted feature of each label, where labels are planted features
    unit, by: what an example and an input are, in words
    """

    rows_M: Int64[np.ndarray, " m"]
    example_M: Int64[np.ndarray, " m"]
    input_N: Int64[np.ndarray, " n"]
    labels: Mapping[str, Bool[np.ndarray, " n"]]
    unit: str
    by: str
    planted: Mapping[str, int]

    @property
    def pooled(self) -> bool:
        """True if an example has several rows."""
        return len(self.rows_M) > len(self.input_N)

    def digest(self) -> str:
        """A digest of the examples and their labels."""
        parts = [self.rows_M.tobytes(), self.example_M.tobytes(), self.input_N.tobytes()]
        parts += [name.encode() + one.tobytes() for name, one in self.labels.items()]
        return sha256(b"\0".join(parts)).hexdigest()


def find_examples(config: ProbeConfig, store: Store) -> Examples:
    """The examples of a store with the labels that a config asks for.

    Raises ConfigError where the store has no such labels, or too few examples with and without one.
    """
    synthetic, text = FEATURES in store.sites, "token" in store.arrays.layout.columns
    wanted = config.labels or (TRUTH if synthetic else TOKENS if text else INPUTS)
    if wanted == TRUTH:
        found = _planted(config, store)
    elif wanted == TOKENS:
        found = _tokens(config, store)
    elif synthetic:
        raise ConfigError(f"--labels must be truth for a synthetic store; got {wanted!r}.")
    elif text:
        found = _documents(config, store, wanted)
    else:
        found = _images(config, store, wanted)
    kept = {
        name: with_N
        for name, with_N in found.labels.items()
        if min(int(with_N.sum()), int((~with_N).sum())) >= 4 * FEWEST
    }
    names = sorted(kept, key=lambda name: -int(kept[name].sum()))[: config.most_labels]
    if not names:
        raise ConfigError(
            f"a label needs {4 * FEWEST} examples with it and as many without; none of "
            f"{len(found.labels)} has them among {len(found.input_N):,} examples. Raise "
            "--examples, or take classes together with --classes."
        )
    labels = {name: kept[name] for name in names}
    planted = {name: number for name, number in found.planted.items() if name in labels}
    return Examples(
        found.rows_M, found.example_M, found.input_N, labels, found.unit, found.by, planted
    )


def _drawn(config: ProbeConfig, store: Store) -> Int64[np.ndarray, " n"]:
    """Valid rows, drawn at random, in ascending order."""
    valid = np.flatnonzero(store.column("valid"))
    if len(valid) > config.examples:
        valid = valid[order.sample(len(valid), config.examples, config.seed, DRAWN)]
    return valid.astype(np.int64)


def _single(
    rows_N: np.ndarray, input_N: np.ndarray, labels: Mapping[str, np.ndarray], unit: str, by: str
) -> Examples:
    own_N = np.arange(len(rows_N))
    return Examples(rows_N, own_N, input_N.astype(np.int64), labels, unit, by, {})


def _pooled(
    store: Store, of_input_I: np.ndarray, names: Sequence[str], groups: Sequence[str], unit: str
) -> Examples:
    """Inputs as examples, each the mean of its valid rows; `of_input_I` numbers their classes in
    `names`, or is negative."""
    rows = np.flatnonzero(store.column("valid"))
    rows = rows[of_input_I[store.column("input")[rows]] >= 0]
    inputs_N, example_M = np.unique(store.column("input")[rows], return_inverse=True)
    class_N = of_input_I[inputs_N]
    labels = {
        name: np.isin(class_N, list(members)) for name, members in _grouped(names, groups).items()
    }
    return Examples(
        rows.astype(np.int64), example_M.astype(np.int64), inputs_N.astype(np.int64), labels,
        unit, unit, {},
    )  # fmt: skip


def _grouped(names: Sequence[str], groups: Sequence[str]) -> dict[str, set[int]]:
    """The numbers of the classes that each label takes together."""
    if not groups:
        return {name: {number} for number, name in enumerate(names)}
    found: dict[str, set[int]] = {}
    for text in groups:
        label, _, members = text.partition("=")
        if not label or not members:
            raise ConfigError(
                f"--classes must be NAME=CLASS,FIRST-LAST; got {text!r}. Write it like "
                f"some={names[0]},{names[0]}-{names[-1]}."
            )
        found[label] = set()
        for part in members.split(","):
            first, dash, last = part.partition("-")
            low, high = (first, last) if dash and part not in names else (part, part)
            some = {number for number, name in enumerate(names) if low <= name <= high}
            if not some:
                raise ConfigError(
                    f"--classes must name classes of the inputs; none lies in {part!r} of {text!r}."
                    f" They go from {min(names)!r} to {max(names)!r}."
                )
            found[label] |= some
    return found


def _images(config: ProbeConfig, store: Store, wanted: str) -> Examples:
    if wanted == INPUTS:
        own = store.labels()
        if own is None:
            raise ConfigError(
                f"the images of {store.name} have no classes of their own. Pass --labels with a "
                "class list, a file whose lines begin with the ids that begin the images' names."
            )
        return _pooled(store, own.number_B, own.names, config.classes, "image")
    from ..core.image_batches import harvested_images
    from ..core.image_labels import image_labels

    number_I = np.array(image_labels(Path(wanted), harvested_images(store)), np.int64)
    lines = Path(wanted).read_text().splitlines()
    names = sorted({lines[number].split()[0] for number in set(number_I.tolist())})
    place = {name: number for number, name in enumerate(names)}
    of_input_I = np.array([place[lines[number].split()[0]] for number in number_I])
    return _pooled(store, of_input_I, names, config.classes, "image")


def _documents(config: ProbeConfig, store: Store, wanted: str) -> Examples:
    """Stretches of one document in one context, with the class of the document."""
    path = Path(wanted)
    if not path.is_file():
        raise InputsNotFoundError(
            f"--labels must be tokens, or a file with the class of a document in each line; "
            f"{wanted} is no file. Check the path."
        )
    lines = [line.strip() for line in path.read_text().splitlines()]
    rows = np.flatnonzero(store.column("valid"))
    document_M, context_M = store.column("document")[rows], store.column("input")[rows]
    if document_M.max(initial=-1) >= len(lines):
        raise ConfigError(
            f"{path} must have a line for each document of {store.name}; it has {len(lines)}, and "
            f"there are {int(document_M.max()) + 1} documents."
        )
    both = np.stack([context_M, document_M], axis=1)
    pieces_N2, example_M = np.unique(both, axis=0, return_inverse=True)
    input_N = pieces_N2[:, 1].astype(np.int64)
    names = sorted(set(lines))
    class_N = np.array([names.index(line) for line in lines])[input_N]
    labels = {
        name: np.isin(class_N, list(some)) for name, some in _grouped(names, config.classes).items()
    }
    example_M = example_M.reshape(-1).astype(np.int64)
    return Examples(
        rows.astype(np.int64), example_M, input_N, labels, "stretch of a document", "document", {}
    )


def _tokens(config: ProbeConfig, store: Store) -> Examples:
    """Rows, with the kind of their token. Documents are split; contexts, where there are few
    documents."""
    if "token" not in store.arrays.layout.columns:
        raise ConfigError(f"--labels tokens needs a store of text; {store.name} holds none.")
    from ..core.language_inputs import tokenizer_of_store
    from ..core.token_classes import CLASSES, token_classes
    from ..core.token_text import readable

    rows = _drawn(config, store)
    tokens = store.column("token")[rows]
    tokenizer = tokenizer_of_store(store, config.subject)
    vocabulary = max(int(tokens.max(initial=0)) + 1, len(tokenizer))
    kind_N = token_classes(tokenizer, vocabulary)[tokens]
    labels = {name: kind_N == number for number, name in enumerate(CLASSES)}
    text = readable(tokenizer, list(range(vocabulary)))
    capital_V = np.array([piece.strip()[:1].isupper() for piece in text])
    special = kind_N == CLASSES.index("special")
    labels[CAPITAL] = capital_V[tokens] & ~special
    document = store.column("document")
    few = len(np.unique(document)) < FEWEST_DOCUMENTS
    column, by = (store.column("input"), "context") if few else (document, "document")
    return _single(rows, column[rows], labels, "token", by)


def _planted(config: ProbeConfig, store: Store) -> Examples:
    """Rows, with the planted features that are on. Features that are on about equally often, from
    the most frequent to the rarest, are taken where there are too many."""
    truth = open_truth(store)
    rows = _drawn(config, store)
    features_NK = truth.features(rows)
    count = len(truth.directions_FdD)
    on_F = np.bincount(features_NK[features_NK >= 0], minlength=count)
    often = np.flatnonzero((on_F >= 4 * FEWEST) & (on_F <= len(rows) - 4 * FEWEST))
    often = often[np.argsort(-on_F[often], kind="stable")]
    if len(often) > config.most_labels:
        often = often[np.linspace(0, len(often) - 1, config.most_labels).astype(int)]
    labels = {f"feature {f}": (features_NK == f).any(axis=1) for f in often.tolist()}
    found = _single(rows, store.column("input")[rows], labels, "row", "input")
    planted = {f"feature {f}": f for f in often.tolist()}
    return Examples(
        found.rows_M, found.example_M, found.input_N, labels, found.unit, found.by, planted
    )
