"""Ask a model (an endpoint, see endpoint.py, or one on this machine, see local.py); keep answers.

Every question is asked once. Its answer is kept in `answers/` under the SHA-256 of (model,
messages, parameters), in a file that is written whole or not at all, so a run that was killed asks
nothing twice. Failures are tried again, and an answer that was cut with more tokens: it is never
kept. Where a server limits requests, all threads wait.
"""

import hashlib
import json
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from types import MappingProxyType
from typing import Any, TypeVar, final

from tendril.data.cli import progress_bar
from tendril.data.errors import EndpointError
from tendril.data.store.atomic import check_not_link, write_whole
from tendril.data.store.spec import canonical_json

from .chances import Chance, Chances

LONGEST_WAIT = 60.0  # seconds
LARGER = 8  # times max_tokens that an answer may have after it was cut
PATIENCE = 20  # times that a question may be put off by a limit of requests, beyond its tries
LOST = 3
"""After so many requests in a row without any answer the endpoint counts as down."""
FOLDER_MODE, FILE_MODE = 0o700, 0o600  # answers may quote private text; only their owner reads them
REMINDER = "This answer cannot be read: {problem}. Answer once more, in the form asked for."

NOTHING: Mapping[str, Any] = MappingProxyType({})

Messages = tuple[tuple[str, str], ...]
"""A conversation: (role, content), with the role `system`, `user` or `assistant`."""

Value = TypeVar("Value")
Thing = TypeVar("Thing")


@final
class UnusableAnswerError(ValueError):
    """An answer that does not hold what was asked for; the message says what is missing."""


@final
class PassingError(Exception):
    """A failure that may pass: a timeout, 429, 5xx, a body that is no completion. `after` is the
    number of seconds that the server asks to wait. `limited`: the server answers that it gets too
    many requests, which says nothing against this one."""

    def __init__(self, problem: str, after: float = 0.0, *, limited: bool = False) -> None:
        super().__init__(problem)
        self.after, self.limited = after, limited


@final
class CutError(Exception):
    """An answer that was cut: at the limit of tokens, or inside its reasoning. It counts as none,
    since its end is missing, and is asked for again with more tokens."""

    def __init__(self, problem: str, tokens_in: int = 0, tokens_out: int = 0) -> None:
        super().__init__(problem)
        self.tokens_in, self.tokens_out = tokens_in, tokens_out


@final
class UnansweredError(Exception):
    """A question that got no usable answer in all its tries."""


@final
@dataclass(frozen=True)
class Reply:
    """A model's answer, the tokens that it counted (0 if it did not say), and what other numbers it
    might have written, where it was asked for log-probabilities and gave them."""

    text: str
    tokens_in: int = 0
    tokens_out: int = 0
    chances: Chances = ()


@final
@dataclass(frozen=True)
class Model:
    """A model that answers.

    `complete` takes messages and parameters. It returns a reply, or raises PassingError, CutError,
    or EndpointError where asking again is of no use. `name` stands for the model in the keys of
    answers; `parallel` is the number of requests that it may get at once.
    """

    name: str
    complete: Callable[[Messages, dict[str, Any]], Reply]
    parallel: int = 1
    fills: bool = False
    """True if the parameter `slots` is taken: beginnings of lines that end in a number each, of
    which the model gives nothing but the numbers."""
    redact: Callable[[str], str] = str
    """Removes the endpoint's key from a text; `complete` has applied it to all that it gives."""


@final
@dataclass
class Tally:
    """Requests sent in this run, answers that were kept from before, and tokens."""

    requested: int = 0
    kept: int = 0
    tokens_in: int = 0
    tokens_out: int = 0


@final
@dataclass
class Asker:
    """A model, the folder where its answers are kept, and how often to try. Threads may share
    it."""

    model: Model
    folder: Path
    parameters: dict[str, Any]
    tries: int = 5
    backoff: float = 1.0
    tally: Tally = field(default_factory=Tally)
    _lost: int = 0
    _hold: float = 0.0
    """When the server may be asked again, on the clock of `monotonic`."""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _of_question: dict[str, threading.Lock] = field(default_factory=dict)
    _stopped: threading.Event = field(default_factory=threading.Event)

    def key(self, messages: Messages, more: Mapping[str, Any] = NOTHING) -> str:
        """SHA-256 of everything that determines an answer."""
        parameters = {**self.parameters, **more}
        about = {"model": self.model.name, "messages": messages, "parameters": parameters}
        return hashlib.sha256(canonical_json(about).encode()).hexdigest()

    def kept(self, messages: Messages, parse: Callable[[str], Value]) -> Value | None:
        """The answer that was kept, as `parse` reads it, or None."""
        return self.kept_reply(messages, lambda reply: parse(reply.text))

    def kept_reply(
        self,
        messages: Messages,
        parse: Callable[[Reply], Value],
        more: Mapping[str, Any] = NOTHING,
    ) -> Value | None:
        """The reply that was kept, as `parse` reads it, or None. A file that is damaged, or holds
        the answer to another question, counts as none."""
        asked = {"model": self.model.name, "parameters": {**self.parameters, **more}}
        try:
            record = json.loads(self._place(messages, more).read_text("utf-8"))
            same = asked == {name: record[name] for name in asked}
            if not same or [list(one) for one in messages] != record["messages"]:
                return None
            text = checked_text(record["answer"])
            chances = [_chance(*one) for one in record.get("chances", [])]
            clean = self.model.redact(text)
            return parse(Reply(clean, chances=tuple(chances) if clean == text else ()))
        except (FileNotFoundError, ValueError, KeyError, TypeError, RecursionError):
            return None  # UnusableAnswerError is a ValueError, too

    def ask(self, messages: Messages, parse: Callable[[str], Value]) -> Value:
        """The answer as `parse` reads it, kept or new. Raises as `ask_reply` does."""
        return self.ask_reply(messages, lambda reply: parse(reply.text))

    def ask_reply(
        self,
        messages: Messages,
        parse: Callable[[Reply], Value],
        more: Mapping[str, Any] = NOTHING,
    ) -> Value:
        """The reply as `parse` reads it, kept or new; `more` are parameters of this question.

        Raises UnansweredError after `tries` timeouts, server errors or answers that cannot be
        read, and EndpointError where the endpoint is down.
        """
        with self._alone(messages, more):
            answer = self.kept_reply(messages, parse, more)
            if answer is not None:
                with self._lock:
                    self.tally.kept += 1
                return answer
            return self._asked(messages, parse, more)

    def _alone(self, messages: Messages, more: Mapping[str, Any]) -> threading.Lock:
        """A lock of this question, so that two threads do not both ask it."""
        key = self.key(messages, more)
        with self._lock:
            return self._of_question.setdefault(key, threading.Lock())

    def _asked(
        self,
        messages: Messages,
        parse: Callable[[Reply], Value],
        more: Mapping[str, Any],
    ) -> Value:
        said, problem, waits = messages, "", _Waits(self.tries)
        larger = 1
        while waits.more():
            self._wait(waits)
            try:
                reply = self.model.complete(said, self._larger(larger, more))
            except PassingError as error:
                problem, said = str(error), messages
                waits.failed(error)
                with self._lock:
                    self.tally.requested += 1
                    if error.limited:  # the others must wait, too
                        self._hold = max(self._hold, monotonic() + min(error.after, LONGEST_WAIT))
                continue
            except CutError as error:
                allowed = self._larger(larger, more).get("max_tokens")
                problem, said = f"{error} ({allowed}); raise --max-tokens", messages
                larger = min(2 * larger, LARGER)
                waits.failed()
                self._count(Reply("", error.tokens_in, error.tokens_out))
                continue
            self._count(reply)
            try:
                value = parse(reply)
            except UnusableAnswerError as error:
                problem = f"the answer {_short(reply.text)} cannot be read: {error}"
                reminder = REMINDER.format(problem=error)
                said = (*messages, ("assistant", reply.text), ("user", reminder))
                waits.failed()
                continue
            self._keep(messages, reply, more)
            return value
        self._give_up(problem, answered=waits.answered)
        raise UnansweredError(f"after {waits.attempts} tries: {problem}")

    def _larger(self, times: int, more: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters, with `times` as many tokens as were asked for."""
        parameters = {**self.parameters, **more}
        limit = parameters.get("max_tokens")
        return parameters | ({"max_tokens": times * limit} if limit else {})

    def each(
        self, label: str, work: Callable[[Thing], Value], things: Iterable[Thing]
    ) -> list[Value]:
        """`work` on every thing, `model.parallel` at a time. The first error stops the others:
        nothing more is asked."""

        def guarded(thing: Thing) -> Value:
            try:
                return work(thing)
            except BaseException:
                self._stopped.set()
                raise

        with ThreadPoolExecutor(self.model.parallel) as pool:
            try:
                futures = [pool.submit(guarded, thing) for thing in things]
                bar = progress_bar(futures, label)
                return [future.result() for future in bar]
            except BaseException:
                self._stopped.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _place(self, messages: Messages, more: Mapping[str, Any]) -> Path:
        key = self.key(messages, more)
        return self.folder / key[:2] / f"{key}.json"

    def _keep(self, messages: Messages, reply: Reply, more: Mapping[str, Any]) -> None:
        record: dict[str, Any] = {
            "model": self.model.name,
            "messages": messages,
            "parameters": {**self.parameters, **more},
            "answer": reply.text,
            "tokens": [reply.tokens_in, reply.tokens_out],
        }
        if reply.chances:
            record["chances"] = [[c.start, c.token, c.numbers] for c in reply.chances]
        place = self._place(messages, more)
        write_private(self.folder, place, (json.dumps(record, indent=1) + "\n").encode())

    def _wait(self, waits: "_Waits") -> None:
        """Exponential back-off from the second try on, or as long as the server asks for."""
        with self._lock:
            held = self._hold - monotonic()
        seconds = max(waits.seconds(self.backoff), held, 0.0)
        if self._stopped.wait(min(seconds, LONGEST_WAIT)):
            raise UnansweredError("stopped")

    def _count(self, reply: Reply) -> None:
        with self._lock:
            self._lost = 0
            self.tally.requested += 1
            self.tally.tokens_in += reply.tokens_in
            self.tally.tokens_out += reply.tokens_out

    def _give_up(self, problem: str, *, answered: bool) -> None:
        with self._lock:
            self._lost = 0 if answered else self._lost + 1
            if self._lost >= LOST:
                raise EndpointError(
                    f"{self.model.name} must answer; {LOST} requests in a row got nothing after "
                    f"{self.tries} tries each ({problem}). Check the endpoint, then run the same "
                    "command again; answers so far are kept."
                )


@final
class _Waits:
    """Tries of one question. Answers that the server is asked too often count only beyond
    PATIENCE."""

    def __init__(self, tries: int) -> None:
        self._left, self._patience = tries, PATIENCE
        self._failures = 0
        self._after = 0.0
        self.attempts = 0
        self.answered = False

    def more(self) -> bool:
        """True if the question may be sent once more; counts it."""
        if self._left <= 0:
            return False
        self.attempts += 1
        return True

    def failed(self, error: PassingError | None = None) -> None:
        """Count a failure; without an error the model has answered, though of no use."""
        self._failures += 1
        self._after = error.after if error else 0.0
        self.answered = error is None
        if error is not None and error.limited and self._patience:
            self._patience -= 1
        else:
            self._left -= 1

    def seconds(self, backoff: float) -> float:
        """Seconds to wait before the next try."""
        if not self._failures:
            return 0.0
        return max(backoff * 2.0 ** min(self._failures - 1, 30), self._after)


def _chance(start: int, token: str, numbers: list[list[Any]]) -> Chance:
    return Chance(int(start), str(token), tuple((str(t), float(p)) for t, p in numbers))


def checked_text(text: object) -> str:
    """Raise ValueError unless `text` is a string that can be written as UTF-8."""
    if not isinstance(text, str):
        raise UnusableAnswerError("it is no text")
    text.encode()  # raises for half a surrogate pair
    return text


def write_private(folder: Path, path: Path, content: bytes) -> None:
    """Write a file below `folder` that only its owner can read.

    The folders are closed to others before the file is written, so it is never open to them.
    Raises ConfigError if `folder` is a symbolic link.
    """
    check_not_link(folder)
    for place in (folder, path.parent):
        place.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        place.chmod(FOLDER_MODE)
    write_whole(path, content)
    path.chmod(FILE_MODE)


def _short(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:77]}...")
