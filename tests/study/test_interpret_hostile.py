"""Interpretation against an endpoint that echoes the key or answers with anything at all: every
fault is a failure of one question, and the key is written nowhere."""

import base64
import html
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

import pytest

from tendril.data.errors import ConfigError, EndpointError
from tendril.study.interpret.asking import Asker, PassingError, UnansweredError
from tendril.study.interpret.config import InterpretConfig
from tendril.study.interpret.endpoint import endpoint_model
from tendril.study.interpret.prompts import read_explanation, read_grades
from tendril.study.interpret.redact import redacting
from tendril.study.interpret.study import model_of

KEY = 'sk-"Sesame\\+47/11&=<x>'
ASKED = (("system", "Explain."), ("user", "words"))


@contextmanager
def endpoint(status: int, body: bytes) -> Iterator[str]:
    """A server that answers every request with the same bytes."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def completion(content: object, **more: object) -> bytes:
    return json.dumps({"choices": [{"message": {"content": content}}], **more}).encode()


def asker(url: str, folder: Path, key: str = "", tries: int = 1) -> Asker:
    return Asker(endpoint_model(url, "m", key), folder, {"max_tokens": 5}, tries, 0.0)


FORMS: dict[str, Callable[[str], str]] = {
    "raw": str,
    "as a header": lambda key: f"Authorization: Bearer {key}",
    "URL-encoded": quote,
    "all URL-encoded": lambda key: quote(key, safe=""),
    "lower-case URL": lambda key: quote(key, safe="").lower(),
    "base64": lambda key: base64.b64encode(key.encode()).decode(),
    "base64 after one byte": lambda key: base64.b64encode(b":" + key.encode()).decode(),
    "base64 of a header": lambda key: base64.b64encode(f"Bearer {key}".encode()).decode(),
    "base64 of a user": lambda key: base64.b64encode(f"me:{key}\n".encode()).decode(),
    "urlsafe base64": lambda key: base64.urlsafe_b64encode(key.encode()).decode(),
    "hex": lambda key: key.encode().hex(),
    "repr": repr,
    "JSON": json.dumps,
    "JSON with all escaped": lambda key: "".join(f"\\u{ord(c):04x}" for c in key),
    "HTML": html.escape,
    "wrapped": lambda key: f"{key[:7]}\n{key[7:]}",
    "spaced": " ".join,
    "upper case": str.upper,
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("way", ["error", "refusal", "no completion", "answer", "unusable"])
def test_the_key_is_removed_in_every_form_and_way(
    way: str, form: Callable[[str], str], tmp_path: Path
) -> None:
    said = f"you sent {form(KEY)} here"
    status, body = {
        "error": (500, said.encode()),
        "refusal": (401, said.encode()),
        "no completion": (200, said.encode()),
        "answer": (200, completion(f"Explanation: {said}")),
        "unusable": (200, completion(said)),
    }[way]
    told = ""
    with endpoint(status, body) as url:
        try:
            told = asker(url, tmp_path, KEY).ask(ASKED, read_explanation)
        except (UnansweredError, EndpointError) as error:
            seen: BaseException | None = error
            while seen is not None:  # whatever a traceback would show
                told += str(seen)
                seen = seen.__cause__ or seen.__context__
    told += "".join(path.read_text() for path in tmp_path.rglob("*.json"))
    assert "[key]" in told and "here" in told
    assert form(KEY) not in told and "Sesame" not in told


def test_a_cut_does_not_leave_half_a_key(tmp_path: Path) -> None:
    for before in range(270, 304, 3):
        body = b"x" * before + KEY.encode()
        with endpoint(500, body) as url, pytest.raises(UnansweredError) as raised:
            asker(url, tmp_path, KEY).ask(ASKED, read_explanation)
        assert "sk-" not in str(raised.value)


@pytest.mark.parametrize("key", ["sk-1234\n", " sk-1234", "sk 1234", "sk-\x1b1234", "sk-12\r\n34",
                                 "schlüssel", "sk-\u20281"])  # fmt: skip
def test_a_key_that_no_header_holds_is_refused_and_not_shown(
    key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_KEY", key)
    config = InterpretConfig(endpoint="http://127.0.0.1:1/v1", model="m", key_env="SOME_KEY")
    with pytest.raises(ConfigError, match="must consist of visible ASCII characters") as raised:
        model_of(config)
    assert "1234" not in str(raised.value) and "schl" not in str(raised.value)


def test_a_key_in_place_of_its_variable_or_in_the_address_is_not_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SOME_KEY", "sesame-4711")
    config = InterpretConfig(endpoint="http://127.0.0.1:1/v1", model="m", key_env="sesame-4711")
    with pytest.raises(ConfigError, match="the one named is not set"):
        model_of(config)
    for url, model in (("http://here/sesame-4711/v1", "m"), ("http://here/v1", "sesame-4711")):
        with pytest.raises(ConfigError, match="must not hold the endpoint's key") as raised:
            model_of(InterpretConfig(endpoint=url, model=model, key_env="SOME_KEY"))
        assert "sesame" not in str(raised.value)
    for url in (
        "https://me:sesame@host/v1",
        "https://host/v1?key=sesame",
        "https://host/v1#sesame",
    ):
        with pytest.raises(ConfigError, match="without a user, a query") as raised:
            InterpretConfig(endpoint=url, model="m").check()
        assert "sesame" not in str(raised.value)


@pytest.mark.parametrize(
    ("key", "text", "left"),
    [
        ("none", "none of nonesuch", "[key] of nonesuch"),
        ("x", "x", "x"),
        ("", "anything", "anything"),
        ("EMPTY", "an empty list", "an empty list"),
    ],
)
def test_placeholders_do_not_change_answers(key: str, text: str, left: str) -> None:
    assert redacting(key)(text) == left


def test_answers_are_for_their_owner_only(tmp_path: Path) -> None:
    (tmp_path / "answers").mkdir(mode=0o755)
    mask = os.umask(0)
    try:
        with endpoint(200, completion("Explanation: words")) as url:
            asker(url, tmp_path / "answers").ask(ASKED, read_explanation)
    finally:
        os.umask(mask)
    (written,) = (tmp_path / "answers").rglob("*.json")
    assert written.stat().st_mode & 0o777 == 0o600
    for folder in (written.parent, tmp_path / "answers"):
        assert folder.stat().st_mode & 0o777 == 0o700


DEEP = b"[" * 200_000
BODIES = {
    "nested brackets": DEEP,
    "nested objects": b'{"a":' * 200_000,
    "nested content": b'{"choices": [{"message": {"content": ' + DEEP + b"}}]}",
    "infinity": b"Infinity",
    "NaN": b"NaN",
    "a long integer": b"1" * 10_000,
    "half a surrogate": b'{"choices": [{"message": {"content": "Explanation: \\ud800"}}]}',
    "not UTF-8": b"\xff\xfe\x00",
    "nothing": b"",
    "null": b"null",
    "a list": b"[]",
    "a text": b'"choices"',
    "no choice": b'{"choices": []}',
    "choices of a wrong type": b'{"choices": {"0": 1}}',
    "a number as content": completion(5),
    "a list as content": completion(["Explanation: x"]),
    "true as content": completion(True),
    "no content": completion(None),
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_whatever_an_endpoint_sends_is_a_failure_of_the_question(
    body: bytes, tmp_path: Path
) -> None:
    with endpoint(200, body) as url, pytest.raises(UnansweredError, match="after 2 tries"):
        asker(url, tmp_path, tries=2).ask(ASKED, read_explanation)
    assert not list(tmp_path.rglob("*.json"))


GRADES = {
    "nested brackets": "[" * 100_000 + "1" + "]" * 100_000,
    "nested objects": "[" + '{"a":' * 100_000 + "1" + "}" * 100_000 + ", 0]",
    "infinity": "[1e999, 0]",
    "a name of infinity": "[Infinity, 0]",
    "NaN": "[NaN, 0]",
    "a long integer": f"[{'1' * 10_000}, 0]",
    "texts": '["1", "0"]',
    "booleans": "[true, false]",
    "null": "[null, 0]",
    "too few": "[1]",
    "too large": "[2, 0]",
    "negative": "[-1, 0]",
    "complex": "[1j, 0]",
}


@pytest.mark.parametrize("answer", GRADES.values(), ids=GRADES)
def test_grades_that_are_none_are_a_failure(answer: str, tmp_path: Path) -> None:
    said = completion(answer)
    with endpoint(200, said) as url, pytest.raises(UnansweredError, match="no list of 2 numbers"):
        asker(url, tmp_path).ask(ASKED, lambda text: read_grades(text, 2))


@pytest.mark.parametrize("usage", [
    {"prompt_tokens": float("inf")}, {"prompt_tokens": float("nan")}, {"prompt_tokens": "9" * 9999},
    {"prompt_tokens": -5}, {"prompt_tokens": 10**400}, {"prompt_tokens": [1]}, [1], "many", None,
])  # fmt: skip
def test_token_counts_that_are_none_count_as_not_told(usage: object, tmp_path: Path) -> None:
    with endpoint(200, completion("Explanation: words", usage=usage)) as url:
        one = asker(url, tmp_path)
        assert one.ask(ASKED, read_explanation) == "words"
    assert (one.tally.tokens_in, one.tally.tokens_out) == (0, 0)


def test_an_explanation_holds_no_control_characters() -> None:
    assert read_explanation("Explanation: a \x1b[31mred\x07 \u202eword") == "a [31mred word"


def test_an_error_text_reaches_the_terminal_without_escapes(tmp_path: Path) -> None:
    with endpoint(500, b"\x1b[2Jgone") as url, pytest.raises(UnansweredError) as raised:
        asker(url, tmp_path).ask(ASKED, read_explanation)
    assert "\x1b" not in str(raised.value)


KEPT = {
    "no JSON": "{",
    "nested": "[" * 200_000,
    "a list": "[]",
    "no answer": "{}",
    "another question": '{"model": "m", "parameters": {"max_tokens": 5}, "messages": '
    '[["user", "x"]], "answer": "Explanation: planted"}',
    "a number": 5,
    "nothing to read": "Nothing.",
    "half a surrogate": "Explanation: \ud800",
}


@pytest.mark.parametrize("kept", KEPT.values(), ids=KEPT)
def test_a_kept_answer_that_cannot_be_read_is_asked_again(kept: object, tmp_path: Path) -> None:
    with endpoint(200, completion("Explanation: words")) as url:
        one = asker(url, tmp_path)
        one.ask(ASKED, read_explanation)
        (place,) = tmp_path.rglob("*.json")
        record = json.loads(place.read_text())
        whole = isinstance(kept, str) and kept[0] in "{["
        place.write_text(str(kept) if whole else json.dumps(record | {"answer": kept}))
        again = asker(url, tmp_path)
        assert again.ask(ASKED, read_explanation) == "words"
    assert (again.tally.requested, again.tally.kept) == (1, 0)
    with pytest.raises(PassingError):
        again.model.complete(ASKED, again.parameters)
