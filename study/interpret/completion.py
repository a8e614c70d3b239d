"""The answer in a completion: its text without reasoning, and whether it was cut.

A completion that ends at its limit of tokens is cut, whatever of it can be read, and so is one that
ends inside a block of reasoning.
"""

import json
import re
from collections.abc import Mapping

from .asking import CutError, Reply, checked_text
from .chances import chances_of

TAGS = "think|thinking|thought|thoughts|reasoning|analysis|scratchpad"
BLOCK = re.compile(rf"<({TAGS})>.*?</\1>", re.DOTALL | re.IGNORECASE)
BEGIN = re.compile(rf"<({TAGS})>", re.IGNORECASE)
END = re.compile(rf"</({TAGS})>", re.IGNORECASE)
LIMITS = ("length", "max_tokens", "max_output_tokens", "model_length")
WITHHELD = "content_filter"
MOST_TOKENS = 2**40


def read_completion(body: bytes) -> Reply:
    """The reply in the JSON of a completion.

    Content may be a text or a list of parts, of which those of type text count. Raises ValueError
    and its like for what is no completion, and CutError for an answer that was cut.
    """
    completion = json.loads(body)
    choice = completion["choices"][0]
    text = content_text(choice["message"]["content"])
    finish = choice.get("finish_reason") if isinstance(choice, Mapping) else None
    usage = completion.get("usage")
    counted = usage if isinstance(usage, dict) else {}
    tokens = [_tokens(counted.get(k)) for k in ("prompt_tokens", "completion_tokens")]
    if finish in LIMITS:
        raise CutError("the answer was cut at the limit of tokens", *tokens)
    if finish == WITHHELD:
        raise ValueError("the endpoint withheld the answer")
    try:
        text = without_reasoning(text)
    except CutError as error:
        raise CutError(str(error), *tokens) from None
    logprobs = choice.get("logprobs")
    listed = logprobs.get("content") if isinstance(logprobs, dict) else None
    return Reply(text, tokens[0], tokens[1], chances_of(listed, text))


def content_text(content: object) -> str:
    """The text of a message's content: a text, nothing, or a list of parts."""
    if content is None:
        return ""
    if isinstance(content, list):
        if not all(isinstance(part, dict) for part in content):
            raise ValueError("parts of a content must be objects")
        texts = [p["text"] for p in content if p.get("type", "text") in ("text", "output_text")]
        return "".join(checked_text(text) for text in texts)
    return checked_text(content)


def without_reasoning(text: str) -> str:
    """A text without blocks of reasoning, such as <think> ... </think>.

    The first block may lack its beginning, which the template of some models writes. Raises
    CutError where a block does not end.
    """
    answer = BLOCK.sub("", text)
    if ends := list(END.finditer(answer)):
        answer = answer[ends[-1].end() :]
    if BEGIN.search(answer):
        raise CutError("the answer ends inside its reasoning")
    return text if answer == text else answer.strip()


def _tokens(count: object) -> int:
    """A number of tokens as a server counts them; 0 for what is none."""
    if isinstance(count, int | float) and 0 <= count < MOST_TOKENS:  # false for NaN
        return int(count)
    return 0
