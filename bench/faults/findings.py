"""What a class of faults came to: counts, and every case that should not be."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, final

Ending = Literal[
    "found", "harmless", "silent", "traceback", "hang", "lost", "left over", "touched outside"
]
GOOD: tuple[Ending, ...] = ("found", "harmless")
BAD: tuple[Ending, ...] = (
    "silent",
    "traceback",
    "hang",
    "lost",
    "left over",
    "touched outside",
)


@final
@dataclass
class Tally:
    """The endings of the trials of one class, and of the bad ones what happened."""

    name: str
    endings: Counter[Ending] = field(default_factory=Counter)
    failures: list[dict[str, str]] = field(default_factory=list)

    def add(self, ending: Ending, case: str, what: str = "") -> None:
        """Count a trial; `case` says how to make it again, `what` what happened."""
        self.endings[ending] += 1
        if ending in BAD:
            self.failures.append({"ending": ending, "case": case, "what": what[-600:]})

    @property
    def tried(self) -> int:
        """The number of trials."""
        return sum(self.endings.values())

    @property
    def bad(self) -> int:
        """Trials that ended as they must not."""
        return sum(self.endings[name] for name in BAD)

    def row(self) -> dict[str, Any]:
        """The counts as JSON."""
        counts: dict[str, Any] = {name: self.endings[name] for name in (*GOOD, *BAD)}
        return {"class": self.name, "tried": self.tried, **counts, "failures": self.failures}


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table, one line a class and one for their sums."""
    names = ["class", "tried", *GOOD, *BAD]
    total = {name: sum(row[name] for row in rows) for name in names[1:]}
    lines = [names, ["---"] + ["---:"] * (len(names) - 1)]
    lines += [[_cell(row[name]) for name in names] for row in (*rows, {"class": "all", **total})]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)
