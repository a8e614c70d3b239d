"""Parameters as an endpoint takes them: what it refuses is renamed or left out.

OpenAI's newer models refuse `max_tokens` for `max_completion_tokens`, and every temperature but
their own; other servers know neither. What they refuse stands in the text of the error.
"""

import re
import threading
from collections.abc import Mapping
from typing import Any, final

from tendril.data.cli import note

RENAMED = {"max_tokens": "max_completion_tokens"}
"""Second names of parameters. One that is refused under both is left out."""
LOGPROBS = ("logprobs", "top_logprobs")
"""Parameters that belong together: where one is refused, so is the other."""
FEWER = 5
"""The number of log-probabilities that is asked for where more are refused."""
VALUE = re.compile(r"too (large|small|many)|at most|at least|maximum|exceed|less than|greater than")
"""What an error says that refuses a value, which the user must change, and no parameter."""


@final
class Adapting:
    """What an endpoint has refused so far. Threads may share it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._sent: dict[str, str | None] = {}
        self._values: dict[str, Any] = {}
        self._lock = threading.Lock()

    def sent(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Parameters under the names that the endpoint takes."""
        with self._lock:
            names = {name: self._sent.get(name, name) for name in parameters}
            values = {name: self._values.get(name, value) for name, value in parameters.items()}
        return {new: values[old] for old, new in names.items() if new is not None}

    def learn(self, parameters: Mapping[str, Any], tried: Mapping[str, Any], error: str) -> bool:
        """Read the refusal of `tried`, which `sent` gave for `parameters`.

        True if the request is worth sending again, with what `sent` gives now.
        """
        said = error.lower()
        with self._lock:
            names = {old: self._sent.get(old, old) for old in parameters}
            refused = [
                (old, new)
                for old, new in names.items()
                if new is not None and new in tried and _named(new, said)
            ]
            if any(name not in names.values() for name in tried):
                return True  # another thread has learned it since
            if any(name in tried and tried[name] != v for name, v in self._values.items()):
                return True
            if any(old in LOGPROBS for old, _ in refused):
                self._fewer_logprobs(tried, said)
                return True
            for old, new in refused:
                other = RENAMED.get(old)
                wanted = other is not None and new == old and _named(other, said)
                if VALUE.search(said) and not wanted:
                    continue
                self._sent[old] = other if other is not None and new == old else None
                left = f"{self._sent[old]} is sent" if self._sent[old] else "it is left out"
                note(f"{self._name} refuses {new}; {left} from now on.")
                return True
        return False

    def _fewer_logprobs(self, tried: Mapping[str, Any], said: str) -> None:
        """Ask for fewer log-probabilities where an error says so, else for none."""
        if VALUE.search(said) and tried.get("top_logprobs", 0) > FEWER:
            self._values["top_logprobs"] = FEWER
            note(f"{self._name} refuses top_logprobs; {FEWER} are asked for from now on.")
            return
        self._sent.update(dict.fromkeys(LOGPROBS))
        note(f"{self._name} refuses logprobs; they are left out from now on.")


def _named(parameter: str, text: str) -> bool:
    return re.search(rf"(?<![a-z_]){parameter}(?![a-z_])", text) is not None
