"""Ask a model, once for each question: answers are kept by content, failures tried again.

An answer lies in `answers/` under the SHA-256 of (model, messages, parameters), written whole or
not at all, so a run that was killed asks nothing twice.
"""

import hashlib
import json
import sys
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, final

from tqdm import tqdm

from tendril.data.errors import EndpointError
from tendril.data.store.atomic import write_whole
from tendril.data.store.spec import canonical_json

from .prompts import REMINDER, Messages, UnusableAnswerError

LONGEST_WAIT = 60.0  # seconds
LOST = 3
"""So many requests in a row given up without an answer of any kind: nobody is there."""

Value = TypeVar("Value")
Thing = TypeVar("Thing")


@final
class PassingError(Exception):
    """A failure that may pass: a timeout, 429, 5xx, a body that is no answer. `after` is how many
    seconds the other side wants to be left alone."""

    def __init__(self, told: str, after: float = 0.0) -> None:
        super().__init__(told)
        self.after = after


@final
class UnansweredError(Exception):
    """A question that got no usable answer, often as it was asked."""


@final
@dataclass(frozen=True)
class Reply:
    """What a model said, and the tokens that it counted (0: it did not say)."""

    text: str
    tokens_in: int = 0
    tokens_out: int = 0


@final
@dataclass(frozen=True)
class Model:
    """Something that answers: `complete` takes messages and parameters, and gives a reply or raises
    PassingError, or EndpointError where asking again is of no use. `name` tells it from others in
    the keys of answers; `parallel` says how many may ask at once."""

    name: str
    complete: Callable[[Messages, dict[str, Any]], Reply]
    parallel: int = 1


@final
@dataclass
class Tally:
    """What was asked in this run."""

    asked: int = 0
    kept: int = 0
    tokens_in: int = 0
    tokens_out: int = 0


@final
@dataclass
class Asker:
    """A model, where its answers are kept, and how patient to be. Threads may share it."""

    model: Model
    folder: Path
    parameters: dict[str, Any]
    tries: int = 5
    backoff: float = 1.0
    tally: Tally = field(default_factory=Tally)
    _lost: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stopped: threading.Event = field(default_factory=threading.Event)

    def key(self, messages: Messages) -> str:
        """SHA-256 of all that decides an answer."""
        about = {"model": self.model.name, "messages": messages, "parameters": self.parameters}
        return hashlib.sha256(canonical_json(about).encode()).hexdigest()

    def kept(self, messages: Messages) -> str | None:
        """The answer from an earlier time, if there is one; a damaged file is none."""
        try:
            return str(json.loads(self._place(messages).read_text())["answer"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def ask(self, messages: Messages, parse: Callable[[str], Value]) -> Value:
        """The answer as `parse` reads it, kept or new.

        Raises UnansweredError after `tries` of timeouts, errors of the server or answers that
        cannot be read, EndpointError where nobody is there at all.
        """
        answer = self.kept(messages)
        if answer is not None:
            with self._lock:
                self.tally.kept += 1
            return parse(answer)  # it could be read when it was kept
        said, problem, after = messages, "", 0.0
        for attempt in range(self.tries):
            self._wait(attempt, after)
            after = 0.0
            try:
                reply = self.model.complete(said, self.parameters)
            except PassingError as error:
                problem, after, said = str(error), error.after, messages
                with self._lock:
                    self.tally.asked += 1
                continue
            self._count(reply)
            try:
                value = parse(reply.text)
            except UnusableAnswerError as error:
                problem = f"the answer {_short(reply.text)} cannot be read: {error}"
                reminder = REMINDER.format(problem=error)
                said = (*messages, ("assistant", reply.text), ("user", reminder))
                continue
            self._keep(messages, reply)
            return value
        self._give_up(problem, answered=said is not messages)
        raise UnansweredError(f"after {self.tries} tries: {problem}")

    def each(
        self, what: str, work: Callable[[Thing], Value], things: Iterable[Thing]
    ) -> list[Value]:
        """`work` on every thing, `model.parallel` at a time; the first error stops the others:
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
                bar = tqdm(futures, what, mininterval=0.5 if sys.stderr.isatty() else 20)
                return [future.result() for future in bar]
            except BaseException:
                self._stopped.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _place(self, messages: Messages) -> Path:
        key = self.key(messages)
        return self.folder / key[:2] / f"{key}.json"

    def _keep(self, messages: Messages, reply: Reply) -> None:
        told = {
            "model": self.model.name,
            "messages": messages,
            "parameters": self.parameters,
            "answer": reply.text,
            "tokens": [reply.tokens_in, reply.tokens_out],
        }
        write_whole(self._place(messages), (json.dumps(told, indent=1) + "\n").encode())

    def _wait(self, attempt: int, after: float) -> None:
        """Exponential back-off from the second try on, or as long as the server asks for."""
        seconds = max(self.backoff * 2 ** (attempt - 1), after) if attempt else 0.0
        if self._stopped.wait(min(seconds, LONGEST_WAIT)):
            raise UnansweredError("stopped")

    def _count(self, reply: Reply) -> None:
        with self._lock:
            self._lost = 0
            self.tally.asked += 1
            self.tally.tokens_in += reply.tokens_in
            self.tally.tokens_out += reply.tokens_out

    def _give_up(self, problem: str, *, answered: bool) -> None:
        with self._lock:
            self._lost = 0 if answered else self._lost + 1
            if self._lost >= LOST:
                raise EndpointError(
                    f"{self.model.name} should answer, and {LOST} requests in a row got nothing "
                    f"after {self.tries} tries each ({problem}); look after it, then run the same "
                    "command again: answers so far are kept."
                )


def _short(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:77]}...")
