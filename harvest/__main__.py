"""`tendril harvest RECIPE [--field value ...]`: inputs + a network -> a store."""

import dataclasses
import inspect
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import tyro

from tendril.data.cli import (
    CONFIG_HELP,
    Outcome,
    as_json,
    config_files,
    need,
    no_exit,
    printable,
    run_command,
    scalars,
)
from tendril.data.errors import ConfigError
from tendril.data.home import SCHEME, find_store

from .config import LanguageConfig, PairConfig, StoreConfig, VerifyConfig
from .recipes import RECIPES

if TYPE_CHECKING:
    from .run import Harvest

VERIFY = """Check a store: all its files or, with --deep, a sample of its rows.

--deep recomputes the rows of a random sample of inputs from the subject and the inputs that the
store records, and compares them. Exits with status 2 after listing what differs."""


PAIR = """Pair rows of two networks whose tokenizers differ: two stores of one text -> two stores.

Kept are places of the text where a token ends in both, so that both networks have read the same
characters. `tendril train crosscoder --store A --paired-store B` trains on the result. Both stores
must be of a text from a file, with all positions."""


def main(arguments: Sequence[str] | None = None) -> Outcome | None:
    """Parse, then harvest or verify. Of several processes only the first returns an outcome."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    known = (*RECIPES, "pair", "verify")
    if words and not words[0].startswith("-") and words[0] not in known:
        raise ConfigError(
            f"the first word after harvest must be one of {', '.join(known)}; got {words[0]!r}. "
            "`tendril harvest --help` says what each does."
        )
    rest, files = config_files(words)
    first = words[0] if words else ""
    recipes: dict[str, tuple[str, Any]] = {
        name: (inspect.getdoc(make) or "", make()) for name, make in RECIPES.items()
    } | {"pair": (PAIR, PairConfig()), "verify": (VERIFY, VerifyConfig())}
    config: object = tyro.extras.overridable_config_cli(
        {
            name: (f"{text}\n\n{CONFIG_HELP}", files.over(default) if name == first else default)
            for name, (text, default) in recipes.items()
        },
        args=rest or ["--help"],
        prog="tendril harvest",
        description="Record activations of a network in a store.",
    )
    files.save(config, ["tendril", "harvest", first])
    if isinstance(config, VerifyConfig):
        return _verify(config)
    if isinstance(config, PairConfig):
        return _pair(config)
    assert isinstance(config, StoreConfig)
    from .plan import process_of  # after parsing: torch takes a second
    from .run import harvest

    rank, _ = process_of(config)
    if config.dry_run and rank > 0:
        return None
    with no_exit(config.subject):
        done = harvest(config)
    if rank > 0:
        return None
    return Outcome(done.summary(), sentence(done), next_command(done, config, rest, files.read))


def sentence(done: "Harvest") -> str:
    """What was made, for a person."""
    group = f" of {done.elements} elements" if done.elements else ""
    rows = f"{done.rows:,} rows{group} of {', '.join(done.sites)}"
    if done.reused:
        return f"{done.store} exists already, with {rows}."
    if done.dry_run:
        return (
            f"Nothing was written. {done.store} would hold {rows}: about {done.bytes / 1e6:,.1f} "
            f"MB, {done.seconds:,.1f} s."
        )
    unreadable = f" {done.unreadable:,} inputs could not be read." if done.unreadable else ""
    saturated = f" {done.saturated:,} images have pixels that saturate." if done.saturated else ""
    left_out = f" {done.left_out:,} rows without text were left out." if done.left_out else ""
    return (
        f"Made {done.store}: {rows}, in {done.seconds:,.1f} s ({done.rows_per_s:,.0f} rows/s)."
        f"{unreadable}{saturated}{left_out}"
    )


def next_command(done: "Harvest", config: StoreConfig, words: Sequence[str], file: str = "") -> str:
    """The harvest itself after a dry run (`file` is that of --config), else the training of a
    dictionary on the store."""
    if done.dry_run and not done.reused:
        wet = [w for w in words if w not in ("--dry-run", "--dry_run")]
        from_file = len(wet) == len(words)
        wet += ["--config", file] if file else []
        wet += ["--no-dry-run"] if from_file else []
        return shlex.join(["tendril", "harvest", *wet])
    recipe = "equivariant_crosscoder" if done.elements else "topk"
    store = done.store if SCHEME in done.store else done.store.rpartition("/")[2]
    command = ["tendril", "train", recipe, "--store", store]
    if not isinstance(config, LanguageConfig) or len(done.sites) > 1:
        command += ["--site", done.sites[0]]
    home = config.home if SCHEME not in config.home else ""
    return shlex.join([*command, *(["--home", home] if home else [])])


def _pair(config: PairConfig) -> Outcome:
    need("harvest pair", "transformers")
    from .pairing import pair_stores  # transformers takes seconds to import

    made = pair_stores(config)
    names = [place.rpartition("/")[2] for place in made.stores]
    first, second = (f"{fraction:.0%}" for fraction in made.fractions)
    home = ["--home", config.home] if config.home and SCHEME not in config.home else []
    command = ["tendril", "train", "crosscoder", "--store", names[0], "--paired-store", names[1]]
    return Outcome(
        {"store": made.stores[0], "paired_store": made.stores[1], "rows": made.rows},
        f"Made {names[0]} and {names[1]}: {made.rows:,} paired rows, {first} and {second} of those "
        "of the two texts.",
        shlex.join([*command, *home]),
    )


def _verify(config: VerifyConfig) -> Outcome:
    from tendril.data.store import tables

    location = find_store(config.store, config.home)
    if not config.deep:
        from tendril.data.store.verify import verify_store

        about = dataclasses.asdict(verify_store(location, progress=sys.stderr.isatty()))
        text = tables.verified(about)
    else:
        from .verify import comparison, verify_deep

        with no_exit(config.subject):
            about = verify_deep(config, location).summary()
        text = comparison(about)
    result = _report(about, text, config.json)
    if about["faults"]:
        print(as_json(result), flush=True)
        tables.refuse(about)
    return Outcome(result)


def _report(about: Mapping[str, Any], text: str, as_object: bool) -> Mapping[str, Any]:
    """The JSON object of a check: whole if that is all there is to print, else its scalars below
    the text."""
    if as_object:
        return about
    print(printable(text))
    return {**scalars(about), "faults": len(about["faults"])}


if __name__ == "__main__":
    run_command(main)
