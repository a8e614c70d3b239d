"""Who explains and judges: an OpenAI-compatible endpoint, or a causal model on this machine."""

import http.client
import json
import os
import urllib.error
import urllib.request
from typing import Any, final

import torch

from tendril.data.device import resolve_device
from tendril.data.errors import ConfigError, EndpointError
from tendril.models.subjects.language import LanguageSubject, language_subject

from .ask import Model, PassingError, Reply
from .config import InterpretConfig
from .prompts import Messages

PASSING = (408, 409, 425, 429)  # and all from 500 on


def model_of(config: InterpretConfig) -> Model:
    """The model that a config names. Raises ConfigError and SubjectError."""
    if config.local:
        subject = language_subject(config.local, config.compute)
        return local_model(subject, resolve_device(config.device))
    key = ""
    if config.key_env:
        key = os.environ.get(config.key_env, "")
        if not key:
            raise ConfigError(
                f"--key-env says that ${config.key_env} holds the endpoint's key, and it is not "
                "set; set it, or leave the flag out where no key is needed."
            )
    return endpoint_model(
        config.endpoint, config.model, key, timeout=config.timeout, parallel=config.parallel
    )


def endpoint_model(
    endpoint: str, name: str, key: str = "", *, timeout: float = 120.0, parallel: int = 1
) -> Model:
    """POST <endpoint>/chat/completions, as OpenAI's API has it and vLLM, llama.cpp, Ollama and
    others after it."""
    url = f"{endpoint.rstrip('/')}/chat/completions"
    headers = {"Content-Type": "application/json"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    opener = urllib.request.build_opener(_NoRedirect)

    def complete(messages: Messages, parameters: dict[str, Any]) -> Reply:
        said = [{"role": role, "content": content} for role, content in messages]
        body = json.dumps({"model": name, "messages": said, **parameters}).encode()
        request = urllib.request.Request(url, body, headers, method="POST")
        try:
            with opener.open(request, timeout=timeout) as response:
                return _reply(response.read())
        except urllib.error.HTTPError as error:
            with error:
                raise _refused(error, url, name, key) from error
        except (OSError, http.client.HTTPException) as error:  # timeouts are OSErrors, too
            reason = getattr(error, "reason", error)
            raise PassingError(f"the endpoint does not answer ({reason})") from error

    return Model(name, complete, parallel)


@final
class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A key goes to the endpoint that was named, and nowhere that it points to."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


def _refused(error: urllib.error.HTTPError, url: str, name: str, key: str) -> Exception:
    """What an answer with an error's status means. What is told of it never holds the key."""
    told = " ".join(error.read(2000).decode("utf-8", "replace").split())
    told = (told.replace(key, "[key]") if key else told)[:300]
    if error.code in PASSING or error.code >= 500:
        after = str(error.headers.get("Retry-After", ""))
        return PassingError(
            f"the endpoint answers {error.code} ({told})",
            float(after) if after.isdecimal() else 0.0,
        )
    return EndpointError(
        f"{url} should answer for the model {name!r}, and refuses with {error.code} ({told}); "
        "check --endpoint, --model and --key-env. Answers so far are kept."
    )


def _reply(body: bytes) -> Reply:
    """A reply from the JSON of a completion; what is none may be a passing fault of the server."""
    try:
        told = json.loads(body)
        text = told["choices"][0]["message"]["content"]
        usage = told.get("usage") or {}
        counts = [int(usage.get(k) or 0) for k in ("prompt_tokens", "completion_tokens")]
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        start = body[:80].decode("utf-8", "replace")
        raise PassingError(f"the endpoint answers what is no completion: {start!r}") from error
    return Reply(text if isinstance(text, str) else "", *counts)


def local_model(subject: LanguageSubject, device: torch.device) -> Model:
    """A causal model of transformers, decoding greedily: always the most likely token.

    Messages go through the tokenizer's chat template, or where it has none stand one after the
    other. Raises ConfigError for an encoder, or (on asking) for messages that its context does not
    hold.
    """
    if subject.kind != "causal":
        raise ConfigError(f"--local wants a model that writes text, and {subject.name} is none.")
    module: Any = subject.module.to(device)
    tokenizer: Any = subject.tokenizer

    @torch.inference_mode()
    def complete(messages: Messages, parameters: dict[str, Any]) -> Reply:
        said = [{"role": role, "content": content} for role, content in messages]
        if getattr(tokenizer, "chat_template", None):
            text = tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True)
        else:
            text = "\n\n".join(content for _, content in messages) + "\n\n"
        tokens = tokenizer(text, add_special_tokens=True)["input_ids"]
        room = subject.context - parameters["max_tokens"] if subject.context else len(tokens)
        if len(tokens) > room:
            raise ConfigError(
                f"a request to {subject.name} has {len(tokens)} tokens, which with --max-tokens "
                f"{parameters['max_tokens']} is more than the {subject.context} that it takes; "
                "choose another model, or smaller --together, --shown, --fragment or --max-tokens."
            )
        tokens_1T = torch.tensor([tokens], device=device)
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
        written = module.generate(
            tokens_1T,
            attention_mask=torch.ones_like(tokens_1T),
            max_new_tokens=parameters["max_tokens"],
            do_sample=False,
            use_cache=True,  # which subjects do without
            pad_token_id=pad,
        )[0, len(tokens) :]
        answer = str(tokenizer.decode(written, skip_special_tokens=True))
        return Reply(answer, len(tokens), len(written))

    name = f"{subject.name}-{str(subject.identity['weights'])[:12]}"
    return Model(f"{name}-{subject.identity.get('compute', 'float32')}", complete)
