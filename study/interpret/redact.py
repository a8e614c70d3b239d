"""The endpoint's key: which keys can be used, and how one is removed from any text.

All that an endpoint says passes through `redact` in `endpoint.endpoint_model`, before it is parsed,
kept, logged or shown.
"""

import base64
import html
import json
import re
from collections.abc import Callable, Iterator
from urllib.parse import quote, quote_plus

from tendril.data.errors import ConfigError

STAND_IN = "[key]"
LEAST = 4
"""Characters of a key from which it is removed. Shorter ones are placeholders such as `x`."""
LONG = 8
"""Characters of a key from which its encodings are removed, too, in upper and lower case. Between
the two limits (`none`, `ollama`) only the key itself is, where it stands as a word."""
NAME = re.compile(r"[A-Z_][A-Z0-9_]{0,63}")  # of an environment variable, which may be shown


def check_key(key: str) -> None:
    """Raise ConfigError for a key that no header can hold; the message does not show it."""
    if key and not (key.isascii() and key.isprintable() and " " not in key):
        raise ConfigError(
            "the endpoint's key must consist of visible ASCII characters; the one in the variable "
            "that --key-env names holds a space, a line break or another character. Set the "
            "variable to the key alone."
        )


def redacting(key: str) -> Callable[[str], str]:
    """A function that replaces a key in a text by `[key]`, in every form of `forms`."""
    if len(key) < LEAST:
        return lambda text: text
    if len(key) < LONG:
        found = re.compile(rf"(?<!\w){re.escape(key)}(?!\w)")
    else:
        longest = sorted(set(forms(key)), key=len, reverse=True)
        found = re.compile("|".join(map(_spaced, longest)), re.IGNORECASE)
    return lambda text: found.sub(STAND_IN, text)


def forms(key: str) -> Iterator[str]:
    """A key as it is, and encoded: as in a URL, as hex, as base64 at any offset, escaped as in
    JSON, in Python and in HTML."""
    raw = key.encode()
    yield from (key, quote(key), quote(key, safe=""), quote_plus(key))
    yield "".join(f"%{byte:02x}" for byte in raw)
    yield raw.hex()
    yield from _base64(raw)
    escaped = json.dumps(key)[1:-1]
    yield from (escaped, escaped.replace("/", "\\/"), repr(key)[1:-1], html.escape(key))
    yield from ("".join(form.format(b) for b in raw) for form in ("\\u{:04x}", "\\x{:02x}"))
    yield from ("".join(form.format(b) for b in raw) for form in ("&#{:d};", "&#x{:x};"))


def _base64(raw: bytes) -> Iterator[str]:
    """The characters that all base64 texts with these bytes share, at each offset modulo 3."""
    for before in range(3):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            text = encode(bytes(before) + raw).decode().rstrip("=")
            end = len(text) - (1 if (before + len(raw)) % 3 else 0)
            yield text[-(-8 * before // 6) : end]


def _spaced(form: str) -> str:
    """A pattern for a form, with or without spaces and line breaks between its characters."""
    return r"\s*".join(map(re.escape, form))
