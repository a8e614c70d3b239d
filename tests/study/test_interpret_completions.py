"""Answers of endpoints of every kind: parts, reasoning, limits, and parameters that are refused."""

import json

import pytest

from tendril.study.interpret.adapting import Adapting
from tendril.study.interpret.asking import CutError
from tendril.study.interpret.completion import read_completion, without_reasoning
from tendril.study.interpret.endpoint import seconds_after

ASKED = {"temperature": 0, "max_tokens": 500}


def completion(content: object, finish: str | None = "stop") -> bytes:
    choice = {"message": {"content": content}, "finish_reason": finish}
    usage = {"prompt_tokens": 3, "completion_tokens": 7}
    return json.dumps({"choices": [choice], "usage": usage}).encode()


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("plain", "plain"),
        ("<think>a\nb</think>\n\nyes", "yes"),
        ("a template wrote the beginning</think>yes", "yes"),
        ("<reasoning>x</reasoning> and <think>y</think> yes", "and  yes"),
        ("2 < 3 and 4 > 3", "2 < 3 and 4 > 3"),
        ("<THINK>a</THINK>yes", "yes"),
        ("no <thing>", "no <thing>"),
    ],
)
def test_reasoning_is_no_answer(text: str, left: str) -> None:
    assert without_reasoning(text) == left


@pytest.mark.parametrize(
    "text", ["<think>Explanation: x", "<think>a</think> <think>Explanation: b"]
)
def test_an_answer_that_ends_in_its_reasoning_is_cut(text: str) -> None:
    with pytest.raises(CutError, match="inside its reasoning") as raised:
        read_completion(completion(text))
    assert (raised.value.tokens_in, raised.value.tokens_out) == (3, 7)


@pytest.mark.parametrize("finish", ["length", "max_tokens"])
def test_an_answer_at_the_limit_is_cut_whatever_can_be_read(finish: str) -> None:
    with pytest.raises(CutError, match="limit of tokens"):
        read_completion(completion("Explanation: words", finish))
    with pytest.raises(CutError):
        read_completion(completion(None, finish))
    with pytest.raises(ValueError, match="withheld"):
        read_completion(completion("Explanation: words", "content_filter"))


def test_content_may_be_parts() -> None:
    parts = [
        {"type": "reasoning", "text": "Explanation: no"},
        {"type": "text", "text": "Explanation: "},
        {"type": "output_text", "text": "words"},
        {"type": "image_url", "image_url": "x"},
    ]
    assert read_completion(completion(parts)).text == "Explanation: words"
    assert read_completion(completion([])).text == ""
    for wrong in ([{"type": "text"}], [{"type": "text", "text": 5}], ["x"]):
        with pytest.raises((ValueError, KeyError)):
            read_completion(completion(wrong))


@pytest.mark.parametrize(
    ("errors", "sent"),
    [
        (
            ["Unsupported parameter: 'max_tokens' is not supported with this model. Use "
             "'max_completion_tokens' instead."],
            {"temperature": 0, "max_completion_tokens": 500},
        ),
        (
            ["Unsupported value: 'temperature' does not support 0 with this model."],
            {"max_tokens": 500},
        ),
        (
            ['{"detail":[{"loc":["body","max_tokens"],"msg":"Extra inputs are not permitted"}]}',
             '{"detail":[{"loc":["body","max_completion_tokens"],"msg":"Extra inputs"}]}'],
            {"temperature": 0},
        ),
    ],
)  # fmt: skip
def test_parameters_are_adapted_to_what_is_refused(
    errors: list[str], sent: dict[str, int], capsys: pytest.CaptureFixture[str]
) -> None:
    adapting = Adapting("m")
    for error in errors:
        assert adapting.learn(ASKED, adapting.sent(ASKED), error)
    assert adapting.sent(ASKED) == sent
    assert capsys.readouterr().err.count("from now on") == len(errors)


@pytest.mark.parametrize(
    "error",
    [
        "max_tokens is too large: 500. This model supports at most 256.",
        "the model `m` does not exist",
        "maximum context length is 100 tokens",
        "invalid api key",
    ],
)
def test_what_a_user_must_change_is_not_adapted(error: str) -> None:
    adapting = Adapting("m")
    assert not adapting.learn(ASKED, adapting.sent(ASKED), error)
    assert adapting.sent(ASKED) == ASKED


def test_a_request_that_was_under_way_takes_what_others_have_learned() -> None:
    adapting = Adapting("m")
    first = adapting.sent(ASKED)
    assert adapting.learn(ASKED, first, "unsupported parameter: max_tokens")
    assert adapting.learn(ASKED, first, "unsupported parameter: max_tokens")
    assert adapting.sent(ASKED) == {"temperature": 0, "max_completion_tokens": 500}


def test_a_server_says_how_long_to_wait_in_every_form() -> None:
    from datetime import UTC, datetime, timedelta
    from email.message import Message
    from email.utils import format_datetime

    def after(**headers: str) -> float:
        message = Message()
        for name, value in headers.items():
            message[name.replace("_", "-")] = value
        return seconds_after(message)

    assert after(Retry_After="7") == 7
    assert after(Retry_After="0.5") == 0.5
    assert after(Retry_After="7", retry_after_ms="250") == 0.25
    assert after() == after(Retry_After="soon") == after(Retry_After="-3") == 0
    assert after(Retry_After="inf") == after(Retry_After="nan") == 0
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    assert 25 < after(Retry_After=soon) <= 30
