"""Chats: rows whose column holds a list of messages, each with a role and a content."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from ..errors import ConfigError
from .texts import DOCSTRINGS, HELD, IdSource, cell, opened

COLUMN = "messages"
# Names of the fields of a message, and of roles, as ShareGPT writes them.
SAME = {"from": "role", "value": "content"}
SPEAKERS = {"human": "user", "gpt": "assistant"}

Message: TypeAlias = Mapping[str, Any]


def open_chats(
    inputs: str,
    items: Callable[[Sequence[Message]], list[int]],
    column: str = COLUMN,
    streaming: bool = False,
) -> IdSource:
    """The chats that `inputs` names, as `items` makes them of the messages in `column`.

    `inputs` is what `open_text` takes, except files of plain text and `docstrings`. Messages are
    objects with "role" and "content", or "from" and "value". Raises what `open_text` raises.
    Reading documents raises ConfigError if a row holds no chat, or if `items` refuses one.
    """
    if inputs == DOCSTRINGS or inputs in HELD:
        raise ConfigError(
            f"--chat needs a dataset or .jsonl files with a column of messages; got {inputs}, "
            "which is text. Leave out --chat."
        )

    def chat_of(row: Mapping[str, Any], where: str) -> list[int] | None:
        messages = cell(row, column, where, "its messages")
        if messages is None:
            return None
        try:
            return items(_checked(messages, where, column))
        except ConfigError as error:
            if str(error).startswith(where):
                raise
            raise ConfigError(f"{where}: {error}") from error

    return IdSource(*opened(inputs, column, streaming, chat_of))


def _checked(messages: Any, where: str, column: str) -> list[Message]:
    """The messages of a chat, with "role" and "content". Raises ConfigError."""
    if not isinstance(messages, Iterable) or isinstance(messages, (str, bytes, Mapping)):
        kind = "text" if not isinstance(messages, (int, float, Mapping)) else "no list"
        raise ConfigError(
            f"{where} must have a list of messages under {column!r}; got {kind}. Give --chat "
            'JSON lines such as {"messages": [{"role": "user", "content": "Hello"}]}, or leave it '
            "out."
        )
    found: list[Message] = []
    for number, message in enumerate(messages):
        if not isinstance(message, Mapping):
            raise ConfigError(
                f"{where} must have objects as messages under {column!r}; number {number} is of "
                f"type {type(message).__name__}. Write each with a role and a content."
            )
        named = {SAME.get(str(key), str(key)): value for key, value in message.items()}
        role = named.get("role")
        if not isinstance(role, str):
            raise ConfigError(
                f"{where} must have messages with a role under {column!r}; number {number} has "
                f"{', '.join(map(str, list(message)[:10])) or 'no keys'}. Name the right column "
                "with --column, or give each message a role and a content."
            )
        found.append({**named, "role": SPEAKERS.get(role, role)})
    return found
