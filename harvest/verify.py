"""Rows made once more from subject and inputs, and compared with those in the store."""

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64

from tendril.data import order
from tendril.data.device import cpu_threads
from tendril.data.errors import (
    ConfigError,
    InputsNotFoundError,
    StoreDamagedError,
    SubjectError,
    WeightsError,
    WeightsNotFoundError,
)
from tendril.data.store.dtypes import decode_rows, encode_rows, quantise
from tendril.data.store.provenance import identity_in_words, located, same_identity
from tendril.data.store.reader import Store
from tendril.data.store.record import read_record
from tendril.data.store.verify import row_in_words

from .config import HarvestConfig, LanguageConfig, VerifyConfig
from .loop import SliceRows
from .plan import Plan, environment_of, make_plan

SAMPLE = 0xDEE9  # the key of the sample of slices
TOLD = 20  # rows that are named; all are counted
MOVED = 0.01  # share of rows that another machine's rounding may draw elsewhere
# Of a row's largest value: one step of the dtype where device, threads and torch are the
# recorded ones (another processor of the same name may round otherwise), two steps elsewhere;
# float32, which shows the network's own rounding, 1e-5 and 1e-3.
TOLERANCE = {
    "float16": (2.0**-10, 2.0**-9),
    "bfloat16": (2.0**-7, 2.0**-6),
    "float32": (1e-5, 1e-3),
    "int8": (1 / 127, 2 / 127),
}


@final
@dataclass
class Recomputed:
    """What a deep check compared. `largest` is, of each site, the largest difference of a
    value over the largest value of its row; `moved` counts rows drawn at other positions."""

    store: str
    rows: int = 0
    inputs: int = 0
    exact_rows: int = 0
    largest: dict[str, float] = field(default_factory=dict)
    tolerance: float = 0.0
    same_environment: bool = True
    recorded: dict[str, Any] = field(default_factory=dict)
    here: dict[str, Any] = field(default_factory=dict)
    moved: int = 0
    differing: int = 0
    faults: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def summary(self) -> dict[str, Any]:
        """As JSON."""
        compared = self.rows * max(len(self.largest), 1)
        return {**vars(self), "exact_share": self.exact_rows / compared if compared else None}

    def tell(self, fault: str) -> None:
        """Count a fault, and keep its sentence where there are few."""
        self.differing += 1
        if len(self.faults) < TOLD:
            self.faults.append(fault)


def verify_deep(config: VerifyConfig, location: str) -> Recomputed:
    """Make a random sample of slices once more, as the harvest did, and compare every row.

    `rows` is the least number of rows compared (fewer where the store has fewer): whole slices
    are made. Raises what opening a store raises; SubjectError, WeightsError and
    InputsNotFoundError where subject or inputs cannot be found again or are not the same ones.
    """
    began = time.perf_counter()
    store = Store(location)
    if config.rows < 1:
        raise ConfigError(f"--rows wants a whole number from 1 on, and got {config.rows}.")
    recorded = read_record(store.arrays.folder, 0)["environment"]
    threads = config.threads or int(recorded.get("threads", 0)) or torch.get_num_threads()
    with cpu_threads(threads):
        plan = _find_again(config, store, recorded)
        done = Recomputed(
            location,
            largest=dict.fromkeys(store.sites, 0.0),
            recorded=recorded,
            here=environment_of(plan.device),
        )
        layout = store.arrays.layout
        for part in plan.producer(layout.inputs_per_slice)(_sample(store, config)):
            _compare(store, part, done)
    if done.moved > MOVED * done.rows or (done.moved and done.same_environment):
        done.tell(f"{done.moved} of {done.rows} rows are drawn at other positions than stored")
    done.seconds = round(time.perf_counter() - began, 2)
    return done


def _sample(store: Store, config: VerifyConfig) -> list[range]:
    """Slices that hold at least the rows asked for, at random, in their order."""
    layout = store.arrays.layout
    a_shard = math.ceil(layout.inputs_per_shard / layout.inputs_per_slice)
    last = len(list(layout.slices(layout.shards - 1)))
    total = (layout.shards - 1) * a_shard + last
    count = math.ceil(config.rows / (layout.inputs_per_slice * layout.rows_per_input))
    chosen = order.sample(total, min(count, total), config.seed, SAMPLE)
    return [list(layout.slices(int(at) // a_shard))[int(at) % a_shard] for at in chosen]


def _find_again(config: VerifyConfig, store: Store, recorded: Mapping[str, Any]) -> Plan:
    """The plan of the harvest that made a store, with its subject and its inputs."""
    origin, text = store.origin, store.spec["inputs"].get("kind") == "text"
    if not {"subject", "inputs"} <= origin.keys() or not (text or "count" in store.spec["inputs"]):
        raise ConfigError(
            f"{store.name} holds {store.spec['inputs'].get('kind', 'no known kind of inputs')}, "
            "and only what `tendril harvest` made of images or text can be made once more; "
            "`tendril data verify` checks it without."
        )
    on_cpu = config.device == "auto" and recorded.get("device") == "cpu"
    place = store.arrays.folder.location
    common = {
        "inputs": config.inputs or located(place, origin["inputs"]),
        "subject": config.subject or located(place, origin["subject"]),
        "sites": tuple(store.spec["sites"]),
        "per_input": store.spec["positions"].get("per_input", "all"),
        "dtype": store.spec["dtype"],
        "seed": store.spec["seed"],
        "home": config.home,
        "device": "cpu" if on_cpu else config.device,
    }
    try:
        if text:
            plan = make_plan(LanguageConfig(**common, **_text_fields(store)))
        else:
            plan = make_plan(HarvestConfig(**common, **_image_fields(config, store, place)))
    except InputsNotFoundError as error:
        raise InputsNotFoundError(
            f"the inputs of {store.name} cannot be found again ({error}); pass --inputs with the "
            "folder or set that was harvested."
        ) from error
    except (SubjectError, WeightsNotFoundError) as error:
        raise SubjectError(
            f"the subject of {store.name} cannot be found again ({error}); pass --subject, and "
            "--weights for inceptionv1."
        ) from error
    _check_same(plan, store)
    return plan


def _text_fields(store: Store) -> dict[str, Any]:
    inputs = store.spec["inputs"]
    return {
        "limit": inputs["contexts"],
        "column": store.origin.get("column", "text"),
        "compute": store.spec["subject"].get("compute", "float32"),
    } | {name: inputs[name] for name in ("context", "skip_special", "skip_first")}


def _image_fields(config: VerifyConfig, store: Store, place: str) -> dict[str, Any]:
    inputs, origin = store.spec["inputs"], store.origin
    normalisation = "" if config.subject else origin.get("normalisation", "")
    weights = "" if config.subject else located(place, origin.get("weights", ""))
    orbit = inputs.get("orbit", {})
    return {k: orbit[k] for k in ("rotations", "reflections", "turn") if orbit} | {
        "weights": config.weights or weights,
        "normalisation": config.normalisation or normalisation or "auto",
        "limit": inputs["count"],
        "positions": store.spec["positions"]["rule"].replace("all", "uniform"),
    }


def _check_same(plan: Plan, store: Store) -> None:
    spec = store.spec
    if not same_identity(plan.spec.subject, spec["subject"]):
        raise WeightsError(
            f"{store.name} was harvested from {identity_in_words(spec['subject'])}, and this "
            f"subject is {identity_in_words(plan.spec.subject)}; give the --subject, --weights and "
            "--normalisation that it was harvested with."
        )
    if not same_identity(plan.spec.inputs, spec["inputs"]):
        raise InputsNotFoundError(
            f"{store.name} was harvested from {identity_in_words(spec['inputs'])}, and "
            f"{plan.found()['inputs']} holds {identity_in_words(plan.spec.inputs)}; pass --inputs "
            "with what was harvested."
        )
    if plan.spec.digest() != store.arrays.about["digest"]:
        raise StoreDamagedError(
            f"the spec of {store.name} is not the one that its digest says; `tendril data "
            "verify` says what else is altered."
        )


def _compare(store: Store, part: SliceRows, done: Recomputed) -> None:
    """Every row of a slice, of every site, against what is stored."""
    arrays, layout = store.arrays, store.arrays.layout
    rows, shard = layout.row_range(part.inputs), part.inputs.start // layout.inputs_per_shard
    same = read_record(arrays.folder, shard)["environment"] == done.here
    done.same_environment &= same
    tolerance = TOLERANCE[arrays.dtype][0 if same else 1]
    done.tolerance = max(done.tolerance, tolerance)
    at = slice(rows.start - shard * layout.rows_per_shard, None)
    stored = {c: arrays.column_shard(c, shard)[at] for c in ("valid", *layout.columns)}
    failed = np.isin(np.arange(part.inputs.start, part.inputs.stop), list(part.failures))
    valid = ~np.repeat(failed, layout.rows_per_input)
    if part.valid is not None:
        valid &= part.valid
    was_valid = stored["valid"][: len(valid)]
    for row in _firsts(valid != was_valid, layout.rows_per_input):
        now = (
            "could be read and can no longer" if was_valid[row] else "could not be read and now can"
        )
        done.tell(f"the input of {row_in_words(arrays, rows.start + row)} {now}")
    kept = valid & was_valid
    places = [tuple(int(stored[c][i]) for c in layout.columns) for i in range(len(kept))]
    drawn = [tuple(int(part.columns[c][i]) for c in layout.columns) for i in range(len(kept))]
    made = {(i // layout.rows_per_input, drawn[i]): i for i in np.flatnonzero(kept).tolist()}
    pairs = [
        (i, made.get((i // layout.rows_per_input, places[i])))
        for i in np.flatnonzero(kept).tolist()
    ]
    matched = np.array([i for i, j in pairs if j is not None], np.int64)
    again = np.array([j for _, j in pairs if j is not None], np.int64)
    done.rows += int(kept.sum())
    done.inputs += int((~failed).sum())
    done.moved += int(kept.sum()) - len(matched)
    for site in store.sites:
        where = f"{site} (inputs {part.inputs.start} to {part.inputs.stop - 1})"
        fresh = _as_stored(part.activations[site][again], arrays.dtype, where)
        kept_before = store.read(site, rows.start + matched)
        exact, relative = differences(fresh, kept_before)
        done.exact_rows += int(exact.sum())
        done.largest[site] = max(done.largest[site], float(relative.max(initial=0)))
        for i in np.flatnonzero(~(relative <= tolerance)).tolist():
            done.tell(
                f"{row_in_words(arrays, int(rows.start + matched[i]))} at {site} differs from "
                f"what its input gives by {relative[i]:.3g} of its largest value, and "
                f"{tolerance:.3g} is allowed"
            )


def differences(
    fresh: Float32[np.ndarray, " n *d"], stored: Float32[np.ndarray, " n *d"]
) -> tuple[Bool[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """Which rows are equal in every value, and max |fresh - stored| / max |stored| of each:
    infinite where a row is zero and should not be, NaN where it holds NaN."""
    wide = math.prod(stored.shape[1:])
    flat, flat_stored = (a.reshape(len(a), wide).astype(np.float64) for a in (fresh, stored))
    exact: Bool[np.ndarray, " n"] = (flat == flat_stored).all(axis=1)
    error = np.abs(flat - flat_stored).max(axis=1, initial=0)
    scale = np.abs(flat_stored).max(axis=1, initial=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return exact, np.where(exact, 0.0, error / scale)


def _as_stored(rows: np.ndarray, dtype: str, where: str) -> Float32[np.ndarray, " n *d"]:
    """Rows as a reader would get them, had they been stored."""
    if dtype == "int8":
        stored, scale = quantise(rows, where)
        return decode_rows(stored, dtype, scale)
    return decode_rows(encode_rows(rows, dtype, where), dtype)


def _firsts(differs: Bool[np.ndarray, " r"], rows_per_input: int) -> Iterator[int]:
    """The first row of each input that differs."""
    for row in np.flatnonzero(differs).tolist():
        if row % rows_per_input == 0:
            yield row
