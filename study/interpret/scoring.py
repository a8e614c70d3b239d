"""Explain latents, and put the questions of every score.

Every latent is asked about on its own: if one of its questions gets no answer, that latent has
failed and the others go on. Beside its own sentence each latent is tested with that of the next
latent of its dictionary, as a control; for `intruder` see intruder.py.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, final

from tendril.data.cli import note
from tendril.data.errors import EndpointError

from .asking import Asker, Messages, Reply, UnansweredError
from .config import InterpretConfig, Kind
from .embedding import Embedded, cosines, embedding_messages, read_vectors
from .findings import Interpretation, Result
from .intruder import ALIKE, Intruded, intruder_messages, read_place, trials_of
from .judging import Item, Judged, items_of, score_of
from .prompts import explain_messages, judge_messages, marked, read_explanation, read_grades
from .simulation import (
    Simulated,
    read_simulation,
    shown,
    simulation_messages,
    simulation_parameters,
)

PLACEHOLDER = "Words of about this length stand here until an explanation has been written."
CHARACTERS = 4  # of English text in a token, by rule of thumb
SENTENCE, GRADE, NUMBERED, PLACE = 60, 4, 6, 4
"""Estimated tokens of an explanation, a grade, a line of a simulation, and the place of an
intruder."""


@final
@dataclass(frozen=True)
class Request:
    """A question of a score: how its reply is read, and about how many tokens that has. `vectors`:
    it goes to the model that embeds."""

    messages: Messages
    read: Callable[[Reply], Any]
    tokens: int
    more: Mapping[str, Any] = field(default_factory=dict)
    vectors: bool = False


@final
@dataclass(frozen=True)
class Questions:
    """What is asked about latents under a config; `read` gives the text of a token. `encoder` is
    asked for embeddings."""

    config: InterpretConfig
    read: Callable[[int], str]
    asker: Asker
    encoder: Asker | None = None

    def explain(self, one: Interpretation) -> Request:
        """The request for a sentence."""
        examples = one.examples
        messages = explain_messages(
            examples.shown, examples.maximum, self.config.mark_threshold, self.read
        )
        return Request(messages, lambda reply: read_explanation(reply.text), SENTENCE)

    def items(self, one: Interpretation, kind: Kind) -> list[Item]:
        """What is judged about a latent; empty unless both answers are right for some items."""
        items = items_of(one.examples, kind, self.config.mark_threshold, self.config.seed)
        return items if len({item.truth for item in items}) == 2 else []

    def requests(
        self, kind: Kind, one: Interpretation, sentence: str, mates: Sequence[Interpretation]
    ) -> list[Request]:
        """The questions of one score about a latent, given a sentence; none where its examples do
        not allow the score. `mates` lend the examples of the control of `intruder`."""
        if kind == "simulation":
            return [self._simulate(words, sentence) for words in self._words(one)]
        if kind == "embedding":
            return [self._embed([sentence]), self._embed(self._texts(one))]
        if kind == "intruder":
            return [
                Request(intruder_messages(trial, self.read), lambda r: read_place(r.text), PLACE)
                for trial in self._trials(one, mates)
            ]
        items, size = self.items(one, kind), self.config.per_request
        batches = [items[i : i + size] for i in range(0, len(items), size)]
        return [self._judge(kind, sentence, batch) for batch in batches]

    def result(
        self,
        kind: Kind,
        one: Interpretation,
        answers: Sequence[Any],
        mates: Sequence[Interpretation],
    ) -> Result:
        """The score from the answers to `requests`."""
        if kind == "simulation":
            return Simulated(one.fragments, answers)
        if kind == "intruder":
            return Intruded(self._trials(one, mates), answers)
        if kind == "embedding":
            found, many = cosines(answers[0][0], answers[1]), len(one.examples.active)
            return Embedded(found[:many], found[many:])
        items = self.items(one, kind)
        grades = [grade for batch in answers for grade in batch]
        truths = [item.truth for item in items]
        return Judged(items, grades, score_of(truths, grades, self.config.graded))

    def _judge(self, kind: Kind, sentence: str, batch: Sequence[Item]) -> Request:
        texts = [marked(item.example, item.marks, self.read) for item in batch]
        messages = judge_messages(kind, sentence, texts, self.config.graded)
        read = partial(read_grades, count=len(batch))
        return Request(messages, lambda reply: read(reply.text), GRADE * len(batch))

    def _words(self, one: Interpretation) -> list[list[str]]:
        return [shown(e, self.read) for e in (*one.fragments.top, *one.fragments.random)]

    def _simulate(self, words: Sequence[str], sentence: str) -> Request:
        fills = self.asker.model.fills
        more = simulation_parameters(words, self.config.max_tokens, fills)
        read = partial(read_simulation, words=words, fills=fills)
        return Request(simulation_messages(sentence, words), read, NUMBERED * len(words), more)

    def _trials(self, one: Interpretation, mates: Sequence[Interpretation]) -> Any:
        lent = [mate.examples for mate in mates]
        return trials_of(one.examples, lent, self.config.mark_threshold, self.config.seed)

    def _texts(self, one: Interpretation) -> list[str]:
        """The tested examples, active ones first, as they are embedded."""
        each = (*one.examples.active, *one.examples.silent)
        return ["".join(map(self.read, e.tokens)).strip() or " " for e in each]

    def _embed(self, texts: Sequence[str]) -> Request:
        read = partial(read_vectors, count=len(texts))
        return Request(embedding_messages(texts), lambda r: read(r.text), 0, vectors=True)

    def asker_of(self, request: Request) -> Asker:
        """Whom a question goes to."""
        if not request.vectors:
            return self.asker
        assert self.encoder is not None
        return self.encoder

    def ask(self, request: Request) -> Any:
        """The answer to a question. Raises UnansweredError and EndpointError."""
        return self.asker_of(request).ask_reply(request.messages, request.read, request.more)


def mates_of(latents: Sequence[Interpretation], place: int) -> list[Interpretation]:
    """The four latents that follow one of its dictionary, in a circle; none where there are
    fewer."""
    if len(latents) <= ALIKE:
        return []
    return [latents[(place + step) % len(latents)] for step in range(1, ALIKE + 1)]


def estimate(
    questions: Questions, dictionaries: Sequence[Sequence[Interpretation]]
) -> dict[str, Any]:
    """What is still to be asked: requests, tokens and their price.

    A token is taken as four characters, an answer as a sentence or a short list. Answers that are
    kept cost nothing. Where an explanation is still to be written, so are its tests.
    """
    config = questions.config
    counts = {"requests": 0, "kept": 0, "tokens_in": 0, "tokens_out": 0}

    def count(request: Request) -> Any:
        asker = questions.asker_of(request)
        answer = asker.kept_reply(request.messages, request.read, request.more)
        if answer is not None:
            counts["kept"] += 1
            return answer
        counts["requests"] += 1
        counts["tokens_in"] += sum(len(text) for _, text in request.messages) // CHARACTERS
        counts["tokens_out"] += request.tokens
        return None

    for latents in dictionaries:
        sentences = [count(questions.explain(one)) for one in latents]
        for place, one in enumerate(latents):
            for kind in config.kinds:
                for request in questions.requests(kind, one, sentences[place] or PLACEHOLDER, ()):
                    count(request)
                if not config.shuffled or len(latents) < 2 or kind == "embedding":
                    continue  # a control of embeddings asks for nothing new
                other = sentences[(place + 1) % len(latents)] or PLACEHOLDER
                mates = mates_of(latents, place) if kind == "intruder" else []
                if kind != "intruder" or mates:
                    for request in questions.requests(kind, one, other, mates):
                        count(request)
    price = (counts["tokens_in"] * config.price_in + counts["tokens_out"] * config.price_out) / 1e6
    return {**counts, "price": round(price, 4)}


def cost_sentence(cost: Mapping[str, Any], model: str) -> str:
    """The estimate in a sentence."""
    price = f", for {cost['price']:,.2f}" if cost["price"] else ""
    return (
        f"{cost['requests']:,} requests to {model} ({cost['kept']:,} more are already answered): "
        f"about {cost['tokens_in']:,} tokens of prompts and {cost['tokens_out']:,} of answers"
        f"{price}."
    )


def interpret(
    questions: Questions, dictionaries: Sequence[Sequence[Interpretation]]
) -> list[list[Interpretation]]:
    """Explain every latent of every dictionary, then test its sentence on it, and that of the next
    latent.

    Raises EndpointError where the model cannot be asked at all, or explains none of them; answers
    so far are kept.
    """
    flat = [one for latents in dictionaries for one in latents]
    explained = questions.asker.each("explain", lambda one: _explained(questions, one), flat)
    work: list[tuple[Interpretation, Interpretation | None, list[Interpretation]]] = []
    begin = 0
    for latents in dictionaries:
        mine = explained[begin : begin + len(latents)]
        begin += len(latents)
        having = [one for one in mine if one.explanation]
        circle = questions.config.shuffled and len(having) > 1
        for one in mine:
            if not one.explanation:
                work.append((one, None, []))
                continue
            place = next(i for i, other in enumerate(having) if other is one)
            other = having[(place + 1) % len(having)] if circle else None
            work.append((one, other, mates_of(having, place) if circle else []))
    tested = questions.asker.each("test", lambda each: _tested(questions, *each), work)
    _check_answers(tested, questions.asker.model.name)
    found, begin = [], 0
    for latents in dictionaries:
        found.append(tested[begin : begin + len(latents)])
        begin += len(latents)
    return found


def _explained(questions: Questions, one: Interpretation) -> Interpretation:
    try:
        sentence = questions.ask(questions.explain(one))
    except UnansweredError as error:
        return replace(one, failed=f"no explanation {error}")
    return replace(one, explanation=sentence)


def _tested(
    questions: Questions,
    one: Interpretation,
    other: Interpretation | None,
    mates: Sequence[Interpretation],
) -> Interpretation:
    """The scores of one latent, as far as its questions were answered."""
    if not one.explanation:
        return one
    for kind in questions.config.kinds:
        try:
            if own := _result(questions, kind, one, one.explanation, ()):
                one = replace(one, own={**one.own, kind: own})
            lent = mates if kind == "intruder" else ()
            if own and other and (lent or kind != "intruder"):
                theirs = _result(questions, kind, one, other.explanation, lent)
                if theirs:
                    one = replace(one, shuffled={**one.shuffled, kind: theirs}, other=other.latent)
        except UnansweredError as error:
            return replace(one, failed=f"no judgement ({kind}) {error}")
    return one


def _result(
    questions: Questions,
    kind: Kind,
    one: Interpretation,
    sentence: str,
    mates: Sequence[Interpretation],
) -> Result | None:
    requests = questions.requests(kind, one, sentence, mates)
    if not requests:
        return None
    return questions.result(kind, one, [questions.ask(request) for request in requests], mates)


def _check_answers(found: Sequence[Interpretation], model: str) -> None:
    """Say which latents got no answer. Raises EndpointError where none got one."""
    failed = [one for one in found if one.failed]
    if not failed:
        return
    first = f"latent {failed[0].latent}: {failed[0].failed}"
    if not any(one.explanation for one in found):
        raise EndpointError(
            f"{model} must explain {len(found)} latents; it gave no answer that could be used for "
            f"any ({first}). Check the model, then run the same command again."
        )
    note(
        f"{len(failed)} of {len(found)} latents got no answer ({first}). The same command asks "
        "again, for what is missing only."
    )
