"""Two stores of one text, cut by different tokenizers -> two stores whose rows are paired.

A row of the pair is a place in the text where a token ends in both networks, so that both have
read the same characters up to it. Ends of words nearly always are such places. How far back a
network has read depends on where its context began.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import final

import numpy as np
from jaxtyping import Bool, Int64

from tendril.data.errors import ConfigError
from tendril.data.home import find_store, store_location
from tendril.data.inputs.packing import pack
from tendril.data.inputs.texts import open_text
from tendril.data.store.dtypes import ITEM_BYTES
from tendril.data.store.layout import plan_layout
from tendril.data.store.paired import network_names
from tendril.data.store.provenance import located
from tendril.data.store.reader import Store, open_store
from tendril.data.store.spec import StoreSpec
from tendril.models.subjects.generate import is_self
from tendril.models.subjects.language import LanguageSubject, language_subject
from tendril.models.subjects.tokenise import cut_for

from .config import PairConfig
from .loop import SliceRows, write_store

KIND = "pair"
COLUMNS = ("document", "character")
NO_END = -1  # of tokens that stand for no text
PER_INPUT = 128  # rows that are held out together


@final
@dataclass(frozen=True)
class Paired:
    """Two stores of paired rows, and the fraction of each text store's rows that have a partner."""

    stores: tuple[str, str]
    rows: int
    fractions: tuple[float, float]


def pair_stores(config: PairConfig) -> Paired:
    """Write both stores. Raises ConfigError for stores that are not of one whole text, and what
    `open_store`, `open_text` and `language_subject` raise."""
    found = [open_store(find_store(s, config.home)) for s in (config.store, config.paired_store)]
    places = [_places(store) for store in found]
    keys, first, second = np.intersect1d(
        places[0][0], places[1][0], assume_unique=True, return_indices=True
    )
    count = len(keys) // PER_INPUT * PER_INPUT
    if not count:
        raise ConfigError(
            f"the stores must hold one text of which {PER_INPUT} places or more are ends of tokens "
            f"in both; {found[0].name} and {found[1].name} share {len(keys)}. Harvest both from "
            "the same --inputs."
        )
    names, written = network_names(found[0], found[1]), []
    stores = [store.name for store in found]
    for number, (store, at) in enumerate(zip(found, (first, second), strict=True)):
        rows_N = places[number][1][at[:count]]
        written.append(_write(store, stores, number, names[number], keys[:count], rows_N, config))
    fractions = [count / int(store.column("valid").sum()) for store in found]
    return Paired((written[0], written[1]), count, (fractions[0], fractions[1]))


def _places(store: Store) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
    """The places in the text at which tokens of valid rows end, (document << 32) + character in
    ascending order, and their rows. Of tokens that end at one character the last one counts."""
    inputs = store.spec["inputs"]
    source = located(store.path, store.origin.get("inputs", ""))
    if inputs.get("kind") != "text" or store.spec["positions"]["rule"] != "all":
        raise ConfigError(
            f"--store and --paired-store must hold whole texts; {store.name} does not. Harvest "
            "them with `tendril harvest language`."
        )
    if is_self(source):
        raise ConfigError(
            f"--store and --paired-store must be of one text; {store.name} holds text that its "
            "model wrote. Harvest both from a file."
        )
    subject = language_subject(located(store.path, store.origin.get("subject", "")))
    tokens_R, ends_R = _ends(subject, source, inputs["contexts"], inputs["context"])
    valid = store.column("valid")
    if len(tokens_R) != store.rows or (tokens_R != store.column("token"))[valid].any():
        raise ConfigError(
            f"the text of {store.name} must be that of {source}; its tokens differ. Harvest it "
            "again."
        )
    rows = np.flatnonzero(valid & (ends_R != NO_END))
    keys = (store.column("document")[rows].astype(np.int64) << 32) + ends_R[rows]
    last: Bool[np.ndarray, " n"] = np.append(keys[1:] != keys[:-1], True)
    return keys[last], rows[last]


def _ends(
    subject: LanguageSubject, source: str, contexts: int, length: int
) -> tuple[Int64[np.ndarray, " r"], Int64[np.ndarray, " r"]]:
    """Token and last character of every row of a store of a text; NO_END for tokens between."""
    cut = cut_for(subject, length)
    blank = replace(
        cut,
        prefix=(NO_END,) * len(cut.prefix),
        suffix=(NO_END,) * len(cut.suffix),
        between=(NO_END,) * len(cut.between),
    )
    texts = list(open_text(source).documents())
    coded = [
        subject.tokenizer(
            text,
            add_special_tokens=False,
            split_special_tokens=True,
            return_offsets_mapping=True,
            verbose=False,
        )
        for text in texts
    ]
    ids = [one["input_ids"] for one in coded]
    ends = [[end for _, end in one["offset_mapping"]] for one in coded]
    packed = (
        islice(pack(documents, how), contexts) for documents, how in ((ids, cut), (ends, blank))
    )
    tokens_R, ends_R = (
        np.concatenate([body for body, _ in part]).astype(np.int64) for part in packed
    )
    return tokens_R, ends_R


def _write(
    store: Store,
    stores: Sequence[str],
    number: int,
    network: str,
    keys_N: Int64[np.ndarray, " n"],
    rows_N: Int64[np.ndarray, " n"],
    config: PairConfig,
) -> str:
    """One of the two stores; returns its place."""
    spec = StoreSpec(
        subject=store.spec["subject"],
        inputs={"kind": KIND, "stores": list(stores), "number": number},
        sites=tuple(store.sites),
        positions={"rule": "all"},
        seed=0,
        dtype=store.spec["dtype"],
    )
    layout = plan_layout(
        len(rows_N) // PER_INPUT,
        PER_INPUT,
        {site: store.width(site) for site in store.sites},
        columns=COLUMNS,
        item_bytes=ITEM_BYTES[store.spec["dtype"]],
    )

    def produce(slices: Sequence[range]) -> Iterator[SliceRows]:
        for inputs in slices:
            at = layout.row_range(inputs)
            yield SliceRows(
                inputs=inputs,
                activations={site: store.read(site, rows_N[at]) for site in store.sites},
                columns={
                    "document": (keys_N[at] >> 32).astype(np.int32),
                    "character": (keys_N[at] & 0xFFFFFFFF).astype(np.int32),
                },
                names=[str(i) for i in inputs],
            )

    location = store_location(spec.folder(f"{network}-paired"), config.home)
    write_store(
        location,
        spec,
        layout,
        produce,
        origin=store.origin,
        environment={"device": "none"},
        overwrite=config.overwrite,
    )
    return location
