"""A config -> a complete store: plan the harvest, estimate its cost, write the rows."""

import time
from dataclasses import asdict, dataclass, replace

import torch

from tendril.data.cards import Card
from tendril.data.cli import Shown, check_finite, need, note
from tendril.data.device import keep_freed_memory, resolve_device
from tendril.data.errors import ConfigError
from tendril.data.store.create import check_layout
from tendril.data.store.folder import LocalFolder, open_folder, sweep_beside
from tendril.data.store.inspect import rounding_of_store
from tendril.data.store.layout import Layout
from tendril.data.store.reader import Store, open_store
from tendril.data.store.record import is_complete, layout_of, read_about, read_list
from tendril.data.store.rounding import rounding_warning

from .config import HarvestConfig, LanguageConfig, StoreConfig, SyntheticConfig
from .cost import estimate
from .loop import Harvested, write_store
from .plan import Plan, environment_of, process_of, say_rank

MOST_BATCH = 2**16  # inputs in one forward pass
BATCH = {"cpu": 8, "mps": 32, "cuda": 64}  # inputs in one forward pass by default


@dataclass(frozen=True, repr=False)
class Harvest(Shown):
    """A store, and what it took to make it.

    In a dry run nothing is written: `rows`, `bytes` and `seconds` are estimates. `elements` is
    the size of the group in rows [G, D], 0 for rows [D]; `unreadable` counts inputs that could
    not be read, whose rows are marked as invalid; `saturated` counts images with pixels below
    black or above white, and `left_out` rows of a data set without text; `reused` is True if the
    store was complete already.
    """

    store: str
    sites: tuple[str, ...]
    rows: int = 0
    elements: int = 0
    seconds: float = 0.0
    rows_per_s: float = 0.0
    reused: bool = False
    unreadable: int = 0
    saturated: int = 0
    left_out: int = 0
    bytes: int = 0
    dry_run: bool = False

    def _card(self) -> Card:
        verb = "would hold" if self.dry_run else "found" if self.reused else "made"
        headline = f"{verb} {self.rows:,} rows of {', '.join(self.sites)} in {self.seconds:,.1f} s"
        if self.reused or self.dry_run:
            headline = headline.rpartition(" in ")[0]
        others = {"images that could not be read": self.unreadable, "MB": self.bytes // 10**6}
        lines = {name: f"{count:,}" for name, count in others.items() if count}
        name = self.store.rpartition("/")[2]
        return Card("Harvest", name, headline, lines, self.store)

    def open(self) -> Store:
        """The store, for reading."""
        return open_store(self.store)

    def summary(self) -> dict[str, object]:
        """The fields for a JSON object of scalars."""
        dropped = {"sites", "elements"} | (set() if self.dry_run else {"bytes", "dry_run"})
        dropped |= {name for name in ("saturated", "left_out") if not getattr(self, name)}
        return {name: value for name, value in asdict(self).items() if name not in dropped}


def harvest(config: StoreConfig) -> Harvest:
    """Make the store that a config describes, or find it complete already.

    A harvest that was interrupted resumes where it stopped. With `dry_run` nothing is written;
    rows, bytes and seconds of the result are then estimates. Raises subclasses of TendrilError
    for whatever the config, its paths or its files can cause.
    """
    began = time.perf_counter()
    say_rank(config)
    plan = make_plan(config)
    made = Harvest(plan.location, plan.spec.sites, dry_run=config.dry_run, left_out=plan.left_out)
    folder = open_folder(plan.location)
    if isinstance(folder, LocalFolder) and not config.dry_run:
        sweep_beside(folder.path)
    if not config.overwrite and is_complete(folder):
        stored = layout_of(read_about(folder))
        check_layout(plan.location, stored, plan.layout())
        _note_other_compressor(plan, stored)
        if not read_list(folder).sealed:
            note(
                f"{plan.location} was written by an earlier version, which could take another "
                f"dimension for the channels. `tendril harvest verify {plan.location} --deep` "
                "recomputes some of its rows; --overwrite makes it again."
            )
        return replace(
            made, rows=stored.rows, elements=stored.elements, seconds=_since(began), reused=True
        )
    plan.check_rows()
    layout = plan.layout()
    made = replace(made, rows=layout.rows, elements=layout.elements)
    if plan.rank == 0 or config.dry_run:
        cost = estimate(plan, layout)
        if plan.rank == 0:
            note(cost.sentence)
        if config.dry_run:
            pace = round(cost.rows / max(cost.seconds, 1e-9), 1)
            seconds = round(cost.seconds, 2)
            return replace(made, seconds=seconds, rows_per_s=pace, bytes=cost.bytes)
    done = _write(plan, layout)
    pace = round(done.rows / max(done.seconds, 1e-9), 1)
    made = replace(made, unreadable=done.invalid_inputs, saturated=done.saturated)
    return replace(made, seconds=_since(began), rows_per_s=pace)


def make_plan(config: StoreConfig) -> Plan:
    """Open subject and inputs, and fix the identity of the harvest.

    Also makes torch deterministic in this process, with the threads that the config requests.
    """
    check_finite(config)
    if not 0 <= config.batch_size <= MOST_BATCH:
        raise ConfigError(
            f"--batch-size must be from 1 to {MOST_BATCH:,}, or 0 for one that suits the device; "
            f"got {config.batch_size:,}."
        )
    process_of(config)
    if config.threads:
        torch.set_num_threads(config.threads)
    keep_freed_memory()
    _make_deterministic()
    device = resolve_device(config.device)
    config = replace(config, batch_size=config.batch_size or BATCH[device.type])
    if isinstance(config, LanguageConfig):
        need("a harvest of text", "transformers")
        from .language_plan import plan_language  # transformers takes seconds to import

        return plan_language(config, device)
    if isinstance(config, SyntheticConfig):
        need("a harvest of synthetic rows", "scipy")
        from .synthetic_plan import plan_synthetic

        return plan_synthetic(config, device)
    from .vision_plan import plan_vision

    assert isinstance(config, HarvestConfig)
    if config.rotations:
        need("--rotations", "scipy")
    return plan_vision(config, device)


def _write(plan: Plan, layout: Layout) -> Harvested:
    config = plan.settings
    done = write_store(
        plan.location,
        plan.spec,
        layout,
        plan.producer(layout.inputs_per_slice),
        origin=plan.origin(),
        environment=environment_of(plan.device),
        overwrite=config.overwrite,
        progress=True,
        overlap=plan.device.type != "cpu",
        rank=plan.rank,
        ranks=plan.ranks,
        declared=config.ranks > 0 or plan.ranks > 1,
        labels=plan.labels,
        truth=plan.truth,
    )
    if done.invalid_inputs:
        note(
            f"{done.invalid_inputs} of {layout.inputs} inputs could not be read. Their rows are "
            f"marked as invalid; {plan.location}/records gives the reasons."
        )
    if done.saturated:
        note(
            f"warning: {done.saturated} of {layout.inputs} images have pixels below black or above "
            "white, which saturate; `tendril data info` lists them."
        )
    if plan.spec.dtype == "int8" and plan.rank == 0:
        for site, lost in rounding_of_store(open_folder(plan.location), plan.spec.sites).items():
            warning = rounding_warning(site, lost)
            if warning:
                note(warning)
    return done


def _note_other_compressor(plan: Plan, stored: Layout) -> None:
    if stored.compressor != plan.settings.compressor:
        note(
            f"the store exists already, compressed with {stored.compressor} instead of "
            f"{plan.settings.compressor}; its rows are the same. Pass --overwrite to make it again."
        )


def _make_deterministic() -> None:
    """Make a device give the same bits each time, and a GPU the CPU's values up to rounding."""
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def _since(began: float) -> float:
    return round(time.perf_counter() - began, 2)
