"""A command is killed before one of its operations on files, and given again.

Afterwards the home must hold what it holds if nothing disturbs the command: every file, with the
same content, and no other file.
"""

import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from tendril.data.cli import DONE
from tendril.data.home import RUN, STORE

from .contents import Contents, changes, contents
from .findings import Ending, Tally
from .flips import named
from .home import COMPARE, EXPORT, FEATURES, HARVEST, JUMP, SWEEP, TRAIN, WORDS_HARVEST, Lab
from .operations import Operations
from .trial import Trial, command

AGAIN = 60.0  # seconds for the command after the kill


@final
@dataclass(frozen=True)
class Case:
    """A command, the state of the home before it, and what of it is removed first.

    `gone` is true of `rm`: given again, it may say that there is nothing to remove.
    """

    name: str
    words: Sequence[str]
    without: tuple[str, ...] = ()
    gone: bool = False

    def begin(self, lab: Lab) -> None:
        """Make the home as it is before the command."""
        lab.restore("made")
        for pattern in self.without:
            for path in lab.home.glob(pattern):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def kills(lab: Lab, count: int, seed: int) -> list[Tally]:
    """Kill commands `count` times in all, spread over all kinds; a tally for each kind."""
    drawn = random.Random(seed)
    chosen = cases(lab)
    tallies = {case.name: Tally(f"kill of {case.name}") for case in chosen}
    measured = [undisturbed(lab, case) for case in chosen[:count]]
    for number in lab.numbers(count, "kills"):
        case, (operations, wanted) = chosen[number % len(chosen)], measured[number % len(chosen)]
        at, torn = drawn.randint(1, operations), drawn.random() < 0.5
        ending, what = killed(lab, case, at, torn, wanted)
        where = f"before operation {at} of {operations}{', file torn' if torn else ''}"
        tallies[case.name].add(ending, f"{' '.join(case.words)}, {where}", what)
    return [tally for tally in tallies.values() if tally.tried]


def cases(lab: Lab) -> list[Case]:
    """The commands that are killed. Those that make something find it absent."""
    kept = lab.folder / "kept" / "made"
    removed = (named(kept, STORE, "small"), named(kept, RUN, "second"))
    report = next((kept / "reports").glob("compare-*")).name
    return [
        Case("harvest", HARVEST, ("store/small-*",)),
        Case("harvest", WORDS_HARVEST, ("store/words-*", "tokens")),
        Case("train", TRAIN, ("runs/first-*",)),
        Case("train", JUMP, ("runs/jump-*",)),
        Case("sweep", SWEEP, ("runs/*-early-*",)),
        Case("study", COMPARE, ("reports/compare-*", "reports/index.html")),
        Case("study", FEATURES, ("reports/features-*",)),
        Case("export", EXPORT),
        *(Case("rm", ("data", "rm", name, "--yes"), gone=True) for name in (*removed, report)),
        Case("overwrite", (*TRAIN, "--overwrite")),
        Case("overwrite", (*HARVEST, "--overwrite")),
    ]


def undisturbed(lab: Lab, case: Case) -> tuple[int, Contents]:
    """The number of operations of a command, and what the home then holds."""
    case.begin(lab)
    counted = Operations()

    def run() -> int:
        try:
            command(*case.words)()
        except SystemExit as left:
            if left.code != DONE:
                raise
        return counted.count

    count = lab.needed(run, guard=counted.install).value
    assert isinstance(count, int)
    return count, contents(lab.home)


def killed(lab: Lab, case: Case, at: int, torn: bool, wanted: Contents) -> tuple[Ending, str]:
    """Kill a command before its operation number `at`, give it again, and look at the home."""
    case.begin(lab)
    lab.run(command(*case.words), AGAIN, Operations(at, torn=torn).install)
    there = contents(lab.home)
    second = lab.run(command(*case.words), AGAIN)
    if second.bad:
        return ("hang" if second.kind == "hang" else "traceback"), second.text
    found = changes(contents(lab.home), wanted)
    if second.kind != "done" and not (case.gone and _is_gone(second)):
        begun = ", ".join(change for change in changes(there, wanted)[:4])
        return "lost", f"the second command: {second.sentence} (then: {begun})"
    if not found:
        return "harmless", ""
    ending: Ending = (
        "lost"
        if found[0].startswith("lost")
        else "left over"
        if all(change.startswith("left over") for change in found)
        else "silent"
    )
    return ending, "; ".join(found[:5])


def _is_gone(trial: Trial) -> bool:
    """True if a command says that what it should remove is not there."""
    return "there is no" in trial.text
