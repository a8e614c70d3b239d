"""A model behind an OpenAI-compatible endpoint."""

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from typing import Any, final

from tendril.data.cli import printable
from tendril.data.errors import ConfigError, EndpointError

from .asking import Messages, Model, PassingError, Reply, checked_text
from .redact import check_key, redacting

PASSING = (408, 409, 425, 429)  # and all from 500 on
LARGEST = 2**24  # bytes of a response that are read
SHOWN = 300  # characters of an error's text
MOST_TOKENS = 2**40


def endpoint_model(
    endpoint: str, name: str, key: str = "", *, timeout: float = 120.0, parallel: int = 1
) -> Model:
    """A model behind POST <endpoint>/chat/completions, as in the API of OpenAI, vLLM, llama.cpp,
    Ollama and others."""
    check_key(key)
    redact = redacting(key)
    if redact(endpoint) != endpoint or redact(name) != name:
        raise ConfigError(
            "--endpoint and --model must not hold the endpoint's key, because pages and logs show "
            "them. Name the variable that holds the key with --key-env."
        )
    url = f"{endpoint.rstrip('/')}/chat/completions"
    headers = {"Content-Type": "application/json"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    opener = urllib.request.build_opener(_NoRedirect)

    def complete(messages: Messages, parameters: dict[str, Any]) -> Reply:
        said = [{"role": role, "content": content} for role, content in messages]
        body = json.dumps({"model": name, "messages": said, **parameters}).encode()
        request = urllib.request.Request(url, body, headers, method="POST")
        reply = _sent(opener, request, name, timeout, redact)
        # Raised here, so that its context holds no exception whose text was not redacted.
        if isinstance(reply, Exception):
            raise reply
        return replace(reply, text=redact(reply.text))

    return Model(name, complete, parallel, redact)


def _sent(
    opener: urllib.request.OpenerDirector,
    request: urllib.request.Request,
    name: str,
    timeout: float,
    redact: Callable[[str], str],
) -> Reply | EndpointError | PassingError:
    """The reply to a request, or the exception to raise, whose message does not hold the key."""
    try:
        with opener.open(request, timeout=timeout) as response:
            body = response.read(LARGEST + 1)
        return _reply(body, redact)
    except urllib.error.HTTPError as error:
        with error:
            return _refused(error, request.full_url, name, redact)
    except PassingError as error:
        return error
    except (OSError, ValueError, http.client.HTTPException) as error:  # a timeout is an OSError
        reason = printable(redact(str(getattr(error, "reason", error))))[:SHOWN]
        return PassingError(f"the endpoint does not answer ({reason})")


@final
class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """The key goes only to the endpoint that was named; redirects are not followed."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


def _refused(
    error: urllib.error.HTTPError, url: str, name: str, redact: Callable[[str], str]
) -> EndpointError | PassingError:
    """The exception for an answer with an error status."""
    try:
        body = error.read(LARGEST)
    except (OSError, http.client.HTTPException):
        body = b""
    text = _start(body, redact)
    if error.code in PASSING or error.code >= 500:
        after = str(error.headers.get("Retry-After", ""))
        return PassingError(
            f"the endpoint answers {error.code} ({text})",
            float(after) if after.isdecimal() else 0.0,
        )
    return EndpointError(
        f"{url} must answer for the model {name!r}; it refuses with {error.code} ({text}). Check "
        "--endpoint, --model and --key-env. Answers so far are kept."
    )


def _reply(body: bytes, redact: Callable[[str], str]) -> Reply:
    """A reply from the JSON of a completion. Anything else may be a passing fault of the server."""
    try:
        if len(body) > LARGEST:
            raise ValueError
        completion = json.loads(body)
        text = completion["choices"][0]["message"]["content"]
        if text is None or text == "":
            return Reply("")
        text = checked_text(text)
        usage = completion.get("usage")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        raise PassingError(
            f"the endpoint's answer is no completion: {_start(body, redact)!r}"
        ) from None
    counted = usage if isinstance(usage, dict) else {}
    return Reply(text, *(_tokens(counted.get(k)) for k in ("prompt_tokens", "completion_tokens")))


def _start(body: bytes, redact: Callable[[str], str]) -> str:
    """How a body begins, on one line; it is redacted whole, since a cut may split the key."""
    text = redact(body.decode("utf-8", "replace"))[: 10 * SHOWN]
    return printable(" ".join(text.split()))[:SHOWN]


def _tokens(count: object) -> int:
    """A number of tokens as a server counts them; 0 for what is none."""
    if isinstance(count, int | float) and 0 <= count < MOST_TOKENS:  # false for NaN
        return int(count)
    return 0
