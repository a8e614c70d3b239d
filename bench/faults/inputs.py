"""Malformed inputs: images, texts, data sets, weights, dictionaries and JSON of every kind.

An input is found if the command refuses it in a sentence, or records or names it and does the
rest. It is harmless if what is made is right: the other inputs give the rows that they give alone,
and an image that is kept is one that Pillow reads whole.
"""

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tendril.data.home import RUN
from tendril.data.store.reader import open_store

from . import images, tensors, texts
from .contents import read_run
from .findings import Ending, Tally
from .flips import REFUSED, Scenario, judged, named, scenarios, taken, undamaged
from .home import EXPORT, HARVEST, WORDS_HARVEST, Lab
from .trial import Trial, command, commands

TOLD = ("warning", "left out", "could not be read", "skipped", "cannot be read", "passed over")
SHARES = {"images": 0.3, "texts": 0.16, "data sets": 0.12, "weights": 0.12, "dictionaries": 0.1}
"""Of the inputs; what is left are JSON files."""
LAST = "zz"  # an image of this name is the last input, so that the others keep their numbers
IMPORT = ("train", "import", "saelens", "--name", "got")
Ended = tuple[Ending, str, str]  # the ending, the case, what happened


def inputs(lab: Lab, count: int, seed: int) -> list[Tally]:
    """Try about `count` malformed inputs; a tally for each kind."""
    lab.restore("made")
    lab.needed(commands([EXPORT]))
    lab.keep("exported")
    kinds: dict[str, Callable[[Lab, random.Random], Iterator[Ended]]] = {
        "images": try_images,
        "texts": partial(try_texts, writers=texts.TEXTS),
        "data sets": partial(try_texts, writers=texts.TABLES),
        "weights": try_weights,
        "dictionaries": try_dictionaries,
        "JSON files": try_json,
    }
    tallies = []
    left = count
    for name, trials in kinds.items():
        share = min(left, max(1, round(count * SHARES.get(name, 1)))) if left else 0
        left -= share
        tally = Tally(f"malformed {name}")
        endings = trials(lab, random.Random(f"{seed} {name}"))
        for _ in lab.numbers(share, name, share / count):
            tally.add(*next(endings))
        tallies.append(tally)
    return tallies


def wrong(trial: Trial) -> Ending | None:
    """The ending of a trial that is wrong whatever the input is."""
    if trial.bad:
        return "hang" if trial.kind == "hang" else "traceback"
    return None


def try_images(lab: Lab, drawn: random.Random) -> Iterator[Ended]:
    """Harvest sound images and a malformed one."""
    lab.restore("inputs")
    alone = lab.needed(harvested).value
    for make in _in_turn(images.MAKERS):
        suffix, content = make(drawn)
        lab.restore("inputs")
        path = lab.home / "photos" / f"{LAST}{suffix}"
        path.write_bytes(content)
        trial = lab.run(harvested)
        case = f"{make.__name__}: {content[:40].hex()}... ({len(content)} bytes, {suffix})"
        yield _ended(_judged_image(trial, alone, path), case)


def _ended(found: tuple[Ending, str], case: str) -> Ended:
    ending, what = found
    return ending, case, what


def harvested() -> dict[str, str]:
    """Harvest images; the digest of the rows of each, nothing for one that was not read."""
    commands([HARVEST])()
    store = open_store("small")
    valid, owners = store.column("valid"), store.column("input")
    found = {}
    for number in range(store.arrays.layout.inputs):
        rows = np.flatnonzero((owners == number) & valid)
        name = Path(store.input_name(number)).name
        values = [store.read(site, rows).tobytes() for site in store.sites]
        found[name] = hash_of(values) if len(rows) else ""
    return found


def hash_of(values: Sequence[bytes]) -> str:
    """One digest of several arrays."""
    return hashlib.sha256(b"".join(values)).hexdigest()


def _judged_image(trial: Trial, alone: dict[str, str], path: Path) -> tuple[Ending, str]:
    bad = wrong(trial)
    if bad:
        return bad, trial.text
    if trial.kind != "done":
        return "found", ""
    others = {name: rows for name, rows in trial.value.items() if name != path.name}
    if others != alone:
        return "silent", "the rows of other images changed"
    if path.name not in trial.value:
        told = any(word in trial.text for word in TOLD)
        return ("found", "") if told else ("silent", f"left out without a word: {trial.text}")
    if not trial.value[path.name]:
        return "found", ""
    if images.decodes(path):
        return "harmless", ""
    return "silent", "kept, although Pillow cannot read the whole file"


def try_texts(lab: Lab, drawn: random.Random, writers: Sequence[texts.Writer]) -> Iterator[Ended]:
    """Harvest a malformed text or data set."""
    for write in _in_turn(writers):
        lab.restore("inputs")
        must = write(lab.home, drawn)
        (path,) = lab.home.glob("bad.*")
        words = list(WORDS_HARVEST)
        words[words.index("--inputs") + 1] = path.name
        trial = lab.run(command(*words))
        content = path.read_bytes()
        case = f"{write.__name__}: {len(content)} bytes, {content[:60]!r}"
        yield _ended(_judged(trial, must), case)


def _judged(trial: Trial, must: bool) -> tuple[Ending, str]:
    """The ending for an input that must be told, or may be used."""
    bad = wrong(trial)
    if bad:
        return bad, trial.text
    if trial.kind != "done" or trial.value == [REFUSED]:
        return "found", ""
    if any(word in trial.text for word in TOLD):
        return "found", ""
    return ("silent", f"used without a word: {trial.text[-300:]}") if must else ("harmless", "")


def try_weights(lab: Lab, drawn: random.Random) -> Iterator[Ended]:
    """Harvest with a subject whose weights are damaged, or whose JSON files are."""
    for number, damage in enumerate(_in_turn(tensors.DAMAGES)):
        lab.restore("inputs")
        if number % 4 == 3:
            path = lab.home / "lm" / drawn.choice(["config.json", "tokenizer.json"])
            case, must = f"{path.name}: {tensors.mutate(path, drawn)}", False
        else:
            must = damage(lab.home / "lm" / "model.safetensors", drawn)
            case = f"model.safetensors: {damage.__name__}"
        yield _ended(_judged(lab.run(command(*WORDS_HARVEST)), must), case)


def try_dictionaries(lab: Lab, drawn: random.Random) -> Iterator[Ended]:
    """Import a damaged folder of SAELens, and read a damaged run."""
    first = named(lab.folder / "kept" / "made", RUN, "first")
    for number, damage in enumerate(_in_turn(tensors.DAMAGES)):
        lab.restore("exported")
        action: Callable[[], Any] = command(*IMPORT)
        must = False
        if number % 3 == 2:
            case = f"saelens/cfg.json: {tensors.mutate(lab.home / 'saelens/cfg.json', drawn)}"
        elif number % 3 == 1:
            path = lab.home / "runs" / first / "dictionary.safetensors"
            must, case = damage(path, drawn), f"run's {path.name}: {damage.__name__}"
            action = lambda: [taken(lambda: read_run(first))]  # noqa: E731
        else:
            path = lab.home / "saelens" / "sae_weights.safetensors"
            must, case = damage(path, drawn), f"saelens/{path.name}: {damage.__name__}"
        yield _ended(_judged(lab.run(action), must), case)


def try_json(lab: Lab, drawn: random.Random) -> Iterator[Ended]:
    """Mutate JSON files of stores, runs, sweeps and reports; then read, list and resume."""
    chosen = [one for one in scenarios(lab) if "cache" not in one.name]
    wanted = [undamaged(lab, one) for one in chosen]
    files = [
        (one, right, name)
        for one, right in zip(chosen, wanted, strict=True)
        for name in one.files(lab)
        if name.endswith(".json")
    ]
    drawn.shuffle(files)
    for one, right, name in _in_turn(_spread(files)):
        lab.restore(one.kept)
        what = tensors.mutate(lab.home / name, drawn)
        trial = one.run(lab)
        yield _ended(judged(trial, right, one.strict), f"{one.name}: {name}: {what}")


def _spread(
    files: Sequence[tuple[Scenario, list[object], str]],
) -> list[tuple[Scenario, list[object], str]]:
    """The files, those of runs and reports four times: stores have many and all alike."""
    return [file for file in files for _ in range(1 if file[2].startswith("store") else 4)]


def _in_turn(values: Sequence[Any]) -> Iterator[Any]:
    while True:
        yield from values
