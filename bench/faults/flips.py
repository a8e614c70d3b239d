"""One bit is flipped in one file, and what was written is read, checked or resumed.

A flip is found if any step refuses in a sentence, harmless if every step gives what it gives
without the flip, and silent otherwise.
"""

import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from tendril.data.cli import DONE, MISTAKE, note
from tendril.data.errors import TendrilError
from tendril.data.home import REPORT, RUN, STORE, Kind

from .contents import contents, read_info, read_run, read_store, verified
from .findings import Ending, Tally
from .home import (
    COMPARE,
    FEATURES,
    HARVEST,
    JUMP,
    SHARDS,
    SWEEP,
    TRAIN,
    WORDS_HARVEST,
    Lab,
    files_below,
)
from .operations import Operations
from .trial import Trial, command

REFUSED = "refused"
Step = Callable[[], object]


@final
@dataclass(frozen=True)
class Scenario:
    """What is damaged and what is then done with it.

    `kept` is the state of the home to begin with, `damaged` the folders whose files are flipped.
    """

    name: str
    kept: str
    damaged: tuple[str, ...]
    steps: tuple[Step, ...]
    strict: bool = False
    """The first step must refuse or be right by itself: it reads, and what is read is used. Other
    first steps may be wrong if a later one refuses: a resumed harvest does not read again what is
    there, but every reader does."""

    def files(self, lab: Lab) -> list[str]:
        """The files that are flipped, by their path in the home."""
        root = lab.folder / "kept" / self.kept
        return [
            path.relative_to(root).as_posix()
            for folder in self.damaged
            for path in files_below(root / folder)
            if path.stat().st_size
        ]

    def run(self, lab: Lab) -> Trial:
        """Take the steps; the value has one entry for each: what it gave, or `refused`."""
        return lab.run(lambda: [taken(step) for step in self.steps])


def taken(step: Step) -> Any:
    """What a step gives, or the word for a refusal in a sentence."""
    try:
        return step()
    except TendrilError as error:
        note(f"error: {error}")
        return REFUSED
    except SystemExit as left:
        if left.code == MISTAKE:
            return REFUSED
        raise


def again(words: Sequence[str], *below: str) -> Step:
    """The step of running a command, whose value is what then lies in some folders."""

    def step() -> dict[str, str]:
        try:
            command(*words)()
        except SystemExit as left:
            if left.code != DONE:
                raise
        return contents(Path(), *below)

    return step


def flips(lab: Lab, count: int, seed: int, only: str = "") -> list[Tally]:
    """Flip about `count` bits in all, at least one in every file; a tally for each scenario."""
    chosen = [one for one in scenarios(lab) if only in one.name]
    wanted: dict[int, list[object]] = {}
    places = [(number, name) for number, one in enumerate(chosen) for name in one.files(lab)]
    drawn = random.Random(seed)
    tallies = {one.name: Tally(one.name) for one in chosen}
    for at in lab.numbers(count, "flips"):
        if at % len(places) == 0:
            drawn.shuffle(places)
        number, name = places[at % len(places)]
        scenario = chosen[number]
        if number not in wanted:
            wanted[number] = undamaged(lab, scenario)
        lab.restore(scenario.kept)
        where = flip(lab.home / name, drawn)
        trial = scenario.run(lab)
        ending, what = judged(trial, wanted[number], scenario.strict)
        tallies[scenario.name].add(ending, f"{scenario.name}: {name}, {where}", what)
    return list(tallies.values())


def undamaged(lab: Lab, scenario: Scenario) -> list[object]:
    """What the steps of a scenario give without a fault."""
    lab.restore(scenario.kept)
    trial = scenario.run(lab)
    assert trial.kind == "done", f"{scenario.name} without a fault: {trial.kind}: {trial.text}"
    assert REFUSED not in trial.value, f"{scenario.name} without a fault: {trial.text}"
    found: list[object] = trial.value
    return found


def flip(path: Path, drawn: random.Random) -> str:
    """Flip a bit of a file; returns which."""
    content = bytearray(path.read_bytes())
    at, bit = drawn.randrange(len(content)), drawn.randrange(8)
    content[at] ^= 1 << bit
    path.write_bytes(content)
    return f"byte {at} of {len(content)}, bit {bit}"


def judged(trial: Trial, wanted: Sequence[object], strict: bool = False) -> tuple[Ending, str]:
    """The ending of a trial, and what happened where it is a bad one."""
    if trial.bad:
        return ("hang" if trial.kind == "hang" else "traceback"), trial.text
    if trial.kind == "refused":
        return "found", trial.sentence
    differing = []
    for number, (got, right) in enumerate(zip(trial.value, wanted, strict=True)):
        forgiven = REFUSED in trial.value and not (strict and number == 0)
        if got not in (REFUSED, right) and not forgiven:
            differing.append(f"step {number}: {_difference(got, right)}")
    if differing:
        return "silent", "; ".join(differing)
    return ("found" if REFUSED in trial.value else "harmless"), ""


def _difference(got: object, right: object) -> str:
    if isinstance(got, dict) and isinstance(right, dict):
        names = sorted(n for n in {*got, *right} if got.get(n) != right.get(n))
        return f"differs in {', '.join(names[:6])}"
    return "differs"


def scenarios(lab: Lab) -> list[Scenario]:
    """Everything that is damaged. Prepares what was stopped half-way."""
    home = lab.folder / "kept" / "made"
    small, words = named(home, STORE, "small"), named(home, STORE, "words")
    first, jump = named(home, RUN, "first"), named(home, RUN, "jump")
    compare, features = named(home, REPORT, "compare"), named(home, REPORT, "features")
    swept = [f"runs/{path.name}" for path in sorted((home / "runs").glob("*-early-*"))]
    sweep = named(home, RUN, "sweep")
    stop(lab, "stopped harvest", HARVEST, half_store)
    stop(lab, "stopped text", WORDS_HARVEST, half_store)
    stop(lab, "stopped training", TRAIN, half_run, store=small)
    stop(lab, "stopped sweep", SWEEP, half_sweep, store=small)
    keep_caches(lab, words, small)
    return [
        *(
            Scenario("complete store", "made", (f"store/{name}",), store_steps(name), True)
            for name in (small, words)
        ),
        *(
            Scenario(name, kept, damaged, (again(made, "store"), *store_steps(store)))
            for name, kept, damaged, made, store in (
                ("incomplete store", "stopped harvest", ("store",), HARVEST, small),
                ("incomplete store", "stopped text", ("store",), WORDS_HARVEST, words),
                ("cache of tokens", "packed", ("tokens",), WORDS_HARVEST, words),
            )
        ),
        Scenario("cache of chunks", "cached", ("cache",), (lambda: read_remote(small),)),
        *(
            Scenario("run", "made", (f"runs/{name}",), run_steps(name, words_of), True)
            for name, words_of in ((first, TRAIN), (jump, JUMP))
        ),
        Scenario("stopped run", "stopped training", ("runs",), (again(TRAIN, "runs"),)),
        Scenario("stopped sweep", "stopped sweep", ("runs",), (again(SWEEP, "runs"),)),
        Scenario(
            "sweep",
            "made",
            tuple(swept),
            (lambda: read_info(sweep), again(SWEEP, *swept)),
        ),
        *(
            Scenario("report", "made", (f"reports/{name}",), report_steps(name, words_of))
            for name, words_of in ((compare, COMPARE), (features, FEATURES))
        ),
    ]


def named(home: Path, kind: Kind, start: str) -> str:
    """The one store, run or report whose name begins with a word."""
    (found,) = (home / kind.folder).glob(f"{start}-*")
    return found.name


def store_steps(name: str) -> tuple[Step, ...]:
    """Read all of a complete store, describe it and verify it."""
    return (lambda: read_store(name), lambda: read_info(name), lambda: check(name))


def check(name: str) -> object:
    """Verify a store; faults count as a refusal."""
    return REFUSED if verified(f"store/{name}") else []


def run_steps(name: str, words: Sequence[str]) -> tuple[Step, ...]:
    """Read all of a finished run, and train it again."""
    return (
        lambda: read_run(name),
        lambda: read_info(name),
        again(words, f"runs/{name}"),
    )


def report_steps(name: str, words: Sequence[str]) -> tuple[Step, ...]:
    """Describe a finished report, and make it and the index again."""
    index = again(("study", "index"), "reports/index.html")
    return (lambda: read_info(name), again(words, f"reports/{name}"), index)


def read_remote(name: str) -> dict[str, str]:
    """Read a store by its URL, through a cache of chunks."""
    return read_store(f"file://{Path('store', name).resolve()}", "cache")


def keep_caches(lab: Lab, words: str, small: str) -> None:
    """Keep a home with packed text and no store of it, and one with a cache of chunks."""
    if (lab.folder / "kept" / "cached").is_dir():
        return
    lab.restore("made")
    shutil.rmtree(lab.home / "store" / words)
    lab.keep("packed")
    lab.restore("made")
    lab.needed(lambda: read_remote(small))
    lab.keep("cached")


def stop(
    lab: Lab, name: str, words: Sequence[str], half: Callable[[Path], bool], store: str = ""
) -> None:
    """Keep a home in which a command was killed as soon as it was half done."""
    if (lab.folder / "kept" / name).is_dir():
        return
    lab.restore("inputs")
    if store:
        shutil.copytree(lab.folder / "kept/made/store" / store, lab.home / "store" / store)
    ended = lab.run(command(*words), guard=Operations(when=lambda: half(Path())).install)
    assert ended.kind == "killed", f"{' '.join(words)} was never half done: {ended.text}"
    lab.keep(name)


def half_store(home: Path) -> bool:
    """True if some shards are written and others are not."""
    return 0 < len(list(home.glob("store/*/records/0*/zarr.json"))) < SHARDS


def half_run(home: Path) -> bool:
    """True if there is a state of training and no result."""
    return _has(home, "state.safetensors") and not _has(home, "dictionary.safetensors")


def half_sweep(home: Path) -> bool:
    """True if all runs have states and none a result."""
    states = len(list(home.glob("runs/*/state.safetensors")))
    return states == 2 and not _has(home, "dictionary.safetensors")


def _has(home: Path, name: str) -> bool:
    return bool(list(home.glob(f"runs/*/{name}")))
