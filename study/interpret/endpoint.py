"""A model behind an OpenAI-compatible endpoint.

Parameters that it refuses are renamed or left out (adapting.py). Its answers are read in
completion.py and embedding.py.
"""

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from email.message import Message
from email.utils import parsedate_to_datetime
from typing import Any, final

from tendril.data.cli import printable
from tendril.data.errors import ConfigError, EndpointError

from .adapting import Adapting
from .asking import CutError, Messages, Model, PassingError, Reply
from .completion import read_completion
from .embedding import read_embeddings
from .redact import check_key, redacting

PASSING = (408, 409, 425, 429)  # and all from 500 on
LARGEST = 2**24  # bytes of a response that are read
SHOWN = 300  # characters of an error's text
LONG = 4000  # characters of an error in which the name of a parameter is looked for
OF_PARAMETERS = (400, 422)
LIMITED = (429, 503)


@final
@dataclass(frozen=True)
class _Refusal:
    """A request that was refused, perhaps for one of its parameters, and what was said of it."""

    error: EndpointError
    text: str


def endpoint_model(
    endpoint: str, name: str, key: str = "", *, timeout: float = 120.0, parallel: int = 1
) -> Model:
    """A model behind POST <endpoint>/chat/completions, as in the API of OpenAI, vLLM, llama.cpp,
    Ollama and others."""

    def about(messages: Messages) -> dict[str, Any]:
        return {"messages": [{"role": role, "content": content} for role, content in messages]}

    return _model(
        endpoint, "chat/completions", name, key, about, read_completion, timeout, parallel
    )


def embedding_endpoint(
    endpoint: str, name: str, key: str = "", *, timeout: float = 120.0, parallel: int = 1
) -> Model:
    """A model behind POST <endpoint>/embeddings. Its messages are ("input", text) each, its answer
    their vectors, as in embedding.py."""

    def about(messages: Messages) -> dict[str, Any]:
        return {"input": [text for _, text in messages]}

    return _model(endpoint, "embeddings", name, key, about, read_embeddings, timeout, parallel)


def _model(
    endpoint: str,
    path: str,
    name: str,
    key: str,
    about: Callable[[Messages], dict[str, Any]],
    read: Callable[[bytes], Reply],
    timeout: float,
    parallel: int,
) -> Model:
    """A model behind POST <endpoint>/<path>: `about` makes the body of messages, `read` reads that
    of the response."""
    check_key(key)
    redact = redacting(key)
    if redact(endpoint) != endpoint or redact(name) != name:
        raise ConfigError(
            "--endpoint and --model must not hold the endpoint's key, because pages and logs show "
            "them. Name the variable that holds the key with --key-env."
        )
    url = f"{endpoint.rstrip('/')}/{path}"
    headers = {"Content-Type": "application/json"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    opener = urllib.request.build_opener(_NoRedirect)

    adapting = Adapting(name)

    def complete(messages: Messages, parameters: dict[str, Any]) -> Reply:
        for _ in range(2 * len(parameters) + 1):
            sent = adapting.sent(parameters)
            body = json.dumps({"model": name, **about(messages), **sent}).encode()
            request = urllib.request.Request(url, body, headers, method="POST")
            reply = _sent(opener, request, name, timeout, redact, read)
            # Raised here, so that its context holds no exception whose text was not redacted.
            if isinstance(reply, _Refusal):
                if adapting.learn(parameters, sent, reply.text):
                    continue
                raise reply.error
            if isinstance(reply, Exception):
                raise reply
            clean = redact(reply.text)
            return reply if clean == reply.text else replace(reply, text=clean, chances=())
        raise PassingError("the endpoint refuses all parameters")

    return Model(name, complete, parallel, redact=redact)


def _sent(
    opener: urllib.request.OpenerDirector,
    request: urllib.request.Request,
    name: str,
    timeout: float,
    redact: Callable[[str], str],
    read: Callable[[bytes], Reply],
) -> Reply | _Refusal | EndpointError | PassingError | CutError:
    """The reply to a request, or the exception to raise, whose message does not hold the key."""
    try:
        with opener.open(request, timeout=timeout) as response:
            body = response.read(LARGEST + 1)
        return _reply(body, redact, read)
    except urllib.error.HTTPError as error:
        with error:
            return _refused(error, request.full_url, name, redact)
    except (PassingError, CutError) as error:
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
) -> _Refusal | EndpointError | PassingError:
    """The exception for an answer with an error status."""
    try:
        body = error.read(LARGEST)
    except (OSError, http.client.HTTPException):
        body = b""
    text = _start(body, redact)
    if error.code in PASSING or error.code >= 500:
        return PassingError(
            f"the endpoint answers {error.code} ({text})",
            seconds_after(error.headers),
            limited=error.code in LIMITED,
        )
    refused = EndpointError(
        f"{url} must answer for the model {name!r}; it refuses with {error.code} ({text}). Check "
        "--endpoint, --model and --key-env. Answers so far are kept."
    )
    if error.code in OF_PARAMETERS:
        return _Refusal(refused, redact(body.decode("utf-8", "replace"))[:LONG])
    return refused


def seconds_after(headers: Message) -> float:
    """How long a server asks to wait: Retry-After, in seconds or as a date, or its variant in
    milliseconds; 0 where it does not say."""
    after = str(headers.get("Retry-After", ""))
    for text, unit in ((str(headers.get("retry-after-ms", "")), 0.001), (after, 1.0)):
        try:
            seconds = float(text) * unit
        except ValueError:
            continue
        return seconds if 0 <= seconds < float("inf") else 0.0
    try:
        when = parsedate_to_datetime(after)
        return max(0.0, (when - datetime.now(when.tzinfo)).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return 0.0


def _reply(body: bytes, redact: Callable[[str], str], read: Callable[[bytes], Reply]) -> Reply:
    """A reply from the JSON of a completion. Anything else may be a passing fault of the server."""
    try:
        if len(body) > LARGEST:
            raise ValueError
        return read(body)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        raise PassingError(
            f"the endpoint's answer is no completion: {_start(body, redact)!r}"
        ) from None


def _start(body: bytes, redact: Callable[[str], str]) -> str:
    """How a body begins, on one line; it is redacted whole, since a cut may split the key."""
    text = redact(body.decode("utf-8", "replace"))[: 10 * SHOWN]
    return printable(" ".join(text.split()))[:SHOWN]
