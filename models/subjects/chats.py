"""Chats as tokens: the tokenizer's own template, with the role of each token."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from tendril.data.errors import ConfigError, SubjectError
from tendril.data.inputs.packing import NOBODY, OTHER, ROLES, with_role

from .language import LanguageSubject
from .tokenise import check_known, cut_for
from .transformers_networks import one_line

DATE = "26 Jul 2024"  # what templates that write the date are told, as Llama's own by default
NOW = "strftime_now"  # the function of templates that gives the date


def template_of(subject: LanguageSubject) -> str:
    """The chat template of a model's tokenizer. Raises SubjectError if it has none."""
    found: Any = getattr(subject.tokenizer, "chat_template", None)
    if isinstance(found, Mapping):  # several, by name
        found = found.get("default")
    if not isinstance(found, str) or not found:
        raise SubjectError(
            f"--chat needs a tokenizer with a chat template; that of {subject.name} has none. "
            "Choose a model that was tuned for chats, or leave out --chat and give text."
        )
    return found


def items_of_chats(
    subject: LanguageSubject,
) -> Callable[[Sequence[Mapping[str, Any]]], list[int]]:
    """A function from the messages of a chat to its tokens with their roles, as `with_role` packs
    them. It raises ConfigError if the template refuses the messages.

    A begin-of-text token that the template writes is left out, since each context and each document
    begins with one. A token has the role of the message whose content it spells, as far as the
    template leaves the content as it is; all others, such as the marks around messages, have none.
    A template that writes the date is told the same one each time.
    """
    tokenizer: Any = subject.tokenizer
    template = template_of(subject)
    if NOW in template:
        template = f"{{% macro {NOW}(form) %}}{DATE}{{% endmacro %}}{template}"
    begins = list(cut_for(subject, 1).prefix)

    def items(messages: Sequence[Mapping[str, Any]]) -> list[int]:
        try:
            text = tokenizer.apply_chat_template(
                list(messages), chat_template=template, tokenize=False, date_string=DATE
            )
        except Exception as error:  # a template may raise anything
            raise ConfigError(
                f"a chat must suit the template of {subject.name}; it fails with "
                f"{type(error).__name__}: {one_line(error)}. Correct or remove the chat."
            ) from error
        fast = bool(getattr(tokenizer, "is_fast", False))
        encoding = tokenizer(
            text, add_special_tokens=False, return_offsets_mapping=fast, verbose=False
        )
        tokens = list(encoding["input_ids"])
        check_known(subject, tokens)
        roles = [NOBODY] * len(tokens)
        if fast:
            roles = _roles(encoding["offset_mapping"], list(_spans(text, messages)))
        start = len(begins) if begins and tokens[: len(begins)] == begins else 0
        return with_role(tokens[start:], roles[start:])

    return items


def _spans(text: str, messages: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, int, int]]:
    """First character, end and role of each message's content in the rendered text."""
    at = 0
    for message in messages:
        role = ROLES.index(message["role"]) if message["role"] in ROLES else OTHER
        for content in _contents(message.get("content")):
            for form in (content, content.strip()):
                place = text.find(form, at) if form else -1
                if place >= 0:
                    at = place + len(form)
                    yield place, at, role
                    break


def _contents(content: object) -> Iterator[str]:
    """The texts of a message: a string, or the parts of type text."""
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        for part in content:
            if isinstance(part, Mapping) and isinstance(part.get("text"), str):
                yield part["text"]


def _roles(offsets: Sequence[tuple[int, int]], spans: Sequence[tuple[int, int, int]]) -> list[int]:
    """The role of each token: that of the first span that shares a character with it."""
    roles, number = [], 0
    for start, end in offsets:
        while number < len(spans) and spans[number][1] <= start:
            number += 1
        inside = number < len(spans) and start < end and end > spans[number][0]
        roles.append(spans[number][2] if inside else NOBODY)
    return roles
