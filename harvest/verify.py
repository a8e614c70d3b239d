"""Recompute rows from subject and inputs, and compare them with those in a store."""

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64

from tendril.data import order
from tendril.data.cli import check_finite
from tendril.data.device import cpu_threads
from tendril.data.errors import (
    ConfigError,
    InputsNotFoundError,
    StoreDamagedError,
    SubjectError,
    WeightsError,
    WeightsNotFoundError,
)
from tendril.data.inputs.memory import as_shown
from tendril.data.store.dtypes import decode_rows, encode_rows, quantise
from tendril.data.store.provenance import identity_in_words, located, same_identity
from tendril.data.store.reader import Store
from tendril.data.store.verify import row_in_words
from tendril.models.sites.tokens import as_identified
from tendril.models.subjects.subject import OWN
from tendril.models.subjects.trust import check_named

from .config import HarvestConfig, LanguageConfig, VerifyConfig
from .fields import image_fields, text_fields
from .loop import SliceRows
from .other_batch import MOVED, OtherBatch, with_other_batch
from .plan import Plan, environment_of
from .run import make_plan
from .vision_plan import VisionPlan

SAMPLE = 0xDEE9  # key of the random sample of slices
LISTED = 20  # faults that are described; all are counted
OTHER_BATCHES = 2  # slices that are also recomputed with another batch size
# Allowed difference over a row's largest value. First number: device, threads and torch are those
# recorded (processors of one name may still round differently), so one step of the dtype. Second
# number: they differ, so two steps. float32 shows the network's own rounding: 1e-5 and 1e-3.
TOLERANCE = {
    "float16": (2.0**-10, 2.0**-9),
    "bfloat16": (2.0**-7, 2.0**-6),
    "float32": (1e-5, 1e-3),
    "int8": (1 / 127, 2 / 127),
}


@final
@dataclass
class Recomputed:
    """The result of a deep check.

    Some slices are also recomputed with batches of `other_batch` inputs in place of `batch`.

    `largest` is, for each site, the largest difference of a value over the largest value of its
    row. `moved` counts rows that are drawn at other positions than stored, `differing` all
    faults. `recorded` and `here` are the environments of the harvest and of the check.
    """

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
    batch: int = 0
    other_batch: int = 0
    largest_of_batches: float = 0.0

    def summary(self) -> dict[str, Any]:
        """All fields, and the fraction of rows that are equal bit for bit."""
        compared = self.rows * max(len(self.largest), 1)
        return {**vars(self), "exact_fraction": self.exact_rows / compared if compared else None}

    def add_fault(self, fault: str) -> None:
        """Count a fault, and keep its description while there are few."""
        self.differing += 1
        if len(self.faults) < LISTED:
            self.faults.append(fault)


def verify_deep(config: VerifyConfig, location: str) -> Recomputed:
    """Recompute a random sample of slices as the harvest did, and compare every row.

    A few slices are also recomputed with another batch size, which may change the last bits; the
    wider tolerance is allowed for these. Whole slices are recomputed, so at least `rows` rows are
    compared, or all if the store has fewer. Raises what opening a store raises; ConfigError for a
    store that is not of images or text; SubjectError, WeightsError and InputsNotFoundError if
    subject or inputs cannot be found again or have changed.
    """
    began = time.perf_counter()
    check_finite(config)
    store = Store(location)
    if config.rows < 1:
        raise ConfigError(f"--rows must be at least 1; got {config.rows}.")
    recorded = store.arrays.record(0)["environment"]
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
        parts: list[SliceRows] = []
        _check_widths(plan, store)
        for part in plan.producer(layout.inputs_per_slice)(_sample(store, config)):
            _compare(store, part, done)
            parts += [part] if len(parts) < OTHER_BATCHES else []
        other = _other_batch(plan, store, parts, done)
    if done.moved > MOVED * done.rows or (done.moved and done.same_environment):
        done.add_fault(f"{done.moved} of {done.rows} rows are drawn at other positions than stored")
    done.batch, done.other_batch = other.size, other.other
    done.largest_of_batches = other.largest
    done.seconds = round(time.perf_counter() - began, 2)
    return done


def _other_batch(plan: Plan, store: Store, parts: list[SliceRows], done: Recomputed) -> OtherBatch:
    """Recompute some slices with another batch size; add what differs to the faults."""
    dtype = store.arrays.dtype

    def compare(fresh: np.ndarray, before: np.ndarray) -> np.ndarray:
        a, b = (_as_stored(rows, dtype, "rows of another batch size") for rows in (fresh, before))
        return differences(a, b)[1]

    layout, tolerance = store.arrays.layout, TOLERANCE[dtype][1]
    other, faults = with_other_batch(plan, layout, parts, compare, tolerance)
    for fault in faults:
        done.add_fault(fault)
    return other


def _check_widths(plan: Plan, store: Store) -> None:
    """Raise StoreDamagedError if the subject's sites have other widths or maps than the store.

    Raises SubjectError if no dimension of a site's activations is the batch.
    """
    stored, here = store.arrays.layout, plan.layout()
    for site, width in stored.widths.items():
        was = (width, tuple(stored.grids.get(site, here.grids[site])))
        now = (here.widths[site], tuple(here.grids[site]))
        if was != now:
            (channels, (rows, columns)), (c, (h, w)) = was, now
            raise StoreDamagedError(
                f"{store.name} holds rows of {channels} channels on a {rows} x {columns} map of "
                f"{site}; the subject gives {c} channels on a {h} x {w} map. Harvest it again "
                "with --overwrite."
            )


def _sample(store: Store, config: VerifyConfig) -> list[range]:
    """Random slices that hold at least the requested rows, in ascending order."""
    layout = store.arrays.layout
    a_shard = math.ceil(layout.inputs_per_shard / layout.inputs_per_slice)
    last = len(list(layout.slices(layout.shards - 1)))
    total = (layout.shards - 1) * a_shard + last
    count = math.ceil(config.rows / (layout.inputs_per_slice * layout.rows_per_input))
    chosen = order.sample(total, min(count, total), config.seed, SAMPLE)
    return [list(layout.slices(int(at) // a_shard))[int(at) % a_shard] for at in chosen]


def _find_again(config: VerifyConfig, store: Store, recorded: Mapping[str, Any]) -> Plan:
    """The plan of the harvest that made a store, with its subject and its inputs.

    Raises the errors that `verify_deep` lists.
    """
    if store.spec["inputs"].get("kind") == "synthetic":
        from .synthetic_plan import config_of  # needs scipy

        made = config_of(store.spec, home=config.home, device="cpu")
        plan = make_plan(replace(made, batch_size=store.arrays.layout.inputs_per_slice))
        _check_same(plan, store)
        return plan
    origin, text = store.origin, store.spec["inputs"].get("kind") == "text"
    if not {"subject", "inputs"} <= origin.keys() or not (text or "count" in store.spec["inputs"]):
        raise ConfigError(
            "--deep needs a store that `tendril harvest` made of images or text; the inputs of "
            f"{store.name} are {store.spec['inputs'].get('kind', 'of no known kind')}. Check its "
            "files with `tendril data verify`."
        )
    on_cpu = config.device == "auto" and recorded.get("device") == "cpu"
    place = store.arrays.folder.location
    hint = located(place, origin["subject"])
    if not config.subject:
        check_named(hint, place, store.spec["subject"])
    common = {
        "inputs": config.inputs or located(place, origin["inputs"]),
        "subject": config.subject or hint,
        "sites": tuple(store.spec["sites"]),
        "per_input": store.spec["positions"].get("per_input", "all"),
        "dtype": store.spec["dtype"],
        "seed": store.spec["seed"],
        "home": config.home,
        "device": "cpu" if on_cpu else config.device,
    }
    try:
        if text:
            plan = make_plan(LanguageConfig(**common, **text_fields(store)))
        else:
            plan = make_plan(HarvestConfig(**common, **image_fields(config, store, place)))
    except InputsNotFoundError as error:
        raise InputsNotFoundError(
            f"the inputs of {store.name} cannot be found again ({error}) Pass --inputs with the "
            "folder or data set that was harvested."
        ) from error
    except (SubjectError, WeightsNotFoundError) as error:
        raise SubjectError(
            f"the subject of {store.name} cannot be found again ({error}) Pass --subject, and "
            "--weights for inceptionv1."
        ) from error
    plan = _as_passed(plan, store)
    _check_same(plan, store)
    return plan


def _as_passed(plan: Plan, store: Store) -> Plan:
    """The plan, where the store is of a network or of images that a program held, with the
    identities that those from a file or a folder would have as such."""
    spec = plan.spec
    if isinstance(plan, VisionPlan) and OWN in store.spec["subject"]:
        spec = replace(spec, subject=as_identified(plan.subject, store.spec["subject"]).identity)
    taken = store.spec["inputs"]
    if isinstance(plan, VisionPlan) and taken.get("kind") == "memory" != spec.inputs.get("kind"):
        rest = {k: v for k, v in spec.inputs.items() if k in ("size", "orbit")}
        spec = replace(spec, inputs=as_shown(plan.source, taken) | rest)
    return replace(plan, spec=spec)


def _check_same(plan: Plan, store: Store) -> None:
    spec = store.spec
    if not same_identity(plan.spec.subject, spec["subject"]):
        raise WeightsError(
            f"{store.name} was harvested from {identity_in_words(spec['subject'])}; this subject "
            f"is {identity_in_words(plan.spec.subject)}. Pass the --subject, --weights and "
            "--normalisation of the harvest."
        )
    if not same_identity(plan.spec.inputs, spec["inputs"]):
        raise InputsNotFoundError(
            f"{store.name} was harvested from {identity_in_words(spec['inputs'])}; "
            f"{plan.sources()['inputs']} holds {identity_in_words(plan.spec.inputs)}. Pass "
            "--inputs with the inputs of the harvest."
        )
    if plan.spec.digest() != store.arrays.about["digest"]:
        raise StoreDamagedError(
            f"the spec of {store.name} does not match its digest. `tendril data verify` lists "
            "what else has changed."
        )


def _compare(store: Store, part: SliceRows, done: Recomputed) -> None:
    """Compare every row of a slice, at every site, with the stored one."""
    arrays, layout = store.arrays, store.arrays.layout
    rows, shard = layout.row_range(part.inputs), part.inputs.start // layout.inputs_per_shard
    same = arrays.record(shard)["environment"] == done.here
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
            "was readable and no longer is"
            if was_valid[row]
            else "was unreadable and now is readable"
        )
        done.add_fault(f"the input of {row_in_words(arrays, rows.start + row)} {now}")
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
            done.add_fault(
                f"{row_in_words(arrays, int(rows.start + matched[i]))} at {site} differs from the "
                f"recomputed row by {relative[i]:.3g} of its largest value; {tolerance:.3g} is "
                "allowed"
            )


def comparison(about: Mapping[str, Any]) -> str:
    """The summary of a deep check as text for the terminal."""
    exact = about["exact_fraction"]
    then, now = (
        ", ".join(f"{key} {value}" for key, value in about[k].items()) for k in ("recorded", "here")
    )
    parts = [f"fault: {fault}" for fault in about["faults"]]
    hidden = about["differing"] - len(about["faults"])
    parts += [f"  and {hidden:,} more"] if hidden else []
    parts += [f"  {site}: largest difference {d:.4g}" for site, d in about["largest"].items()]
    parts.append(f"  harvested on {then}" + ("" if about["same_environment"] else f"; here {now}"))
    if about["other_batch"]:
        parts.append(
            f"  with batches of {about['other_batch']} in place of {about['batch']}: largest "
            f"difference {about['largest_of_batches']:.4g}"
        )
    if about["moved"]:
        parts.append(f"  {about['moved']:,} rows are drawn at other positions here")
    if about["same_environment"] and exact is not None and exact < 1:
        parts.append("  device, threads and torch are those recorded, but some bits differ")
    parts.append(
        f"{about['store']}: recomputed {about['rows']:,} rows of {about['inputs']:,} inputs; "
        f"{'-' if exact is None else format(exact, '.2%')} are equal bit for bit, "
        f"{about['differing'] or 'none'} differ by more than {about['tolerance']:.4g} of a "
        "row's largest value"
    )
    return "\n".join(parts)


def differences(
    fresh: Float32[np.ndarray, " n *d"], stored: Float32[np.ndarray, " n *d"]
) -> tuple[Bool[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """For each row, whether all values are equal, and max |fresh - stored| / max |stored|.

    The quotient is infinite if the stored row is zero and the fresh one is not, and NaN if a row
    holds NaN.
    """
    wide = math.prod(stored.shape[1:])
    flat, flat_stored = (a.reshape(len(a), wide).astype(np.float64) for a in (fresh, stored))
    exact: Bool[np.ndarray, " n"] = (flat == flat_stored).all(axis=1)
    error = np.abs(flat - flat_stored).max(axis=1, initial=0)
    scale = np.abs(flat_stored).max(axis=1, initial=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return exact, np.where(exact, 0.0, error / scale)


def _as_stored(rows: np.ndarray, dtype: str, where: str) -> Float32[np.ndarray, " n *d"]:
    """Rows as a reader returns them after they are stored in `dtype`."""
    if dtype == "int8":
        stored, scale = quantise(rows, where)
        return decode_rows(stored, dtype, scale)
    return decode_rows(encode_rows(rows, dtype, where), dtype)


def _firsts(differs: Bool[np.ndarray, " r"], rows_per_input: int) -> Iterator[int]:
    """The rows at which an input begins and that differ."""
    for row in np.flatnonzero(differs).tolist():
        if row % rows_per_input == 0:
            yield row
