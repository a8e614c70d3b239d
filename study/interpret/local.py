"""A causal model on this machine that explains, judges and simulates."""

from collections.abc import Sequence
from typing import Any

import torch

from tendril.data.errors import ConfigError
from tendril.models.subjects.language import LanguageSubject

from .asking import CutError, Messages, Model, Reply
from .chances import HIGHEST

UNKNOWN = "unknown"  # what stands in place of every number while it is predicted


def local_model(subject: LanguageSubject, device: torch.device) -> Model:
    """A causal model of transformers that decodes greedily.

    Messages go through the tokenizer's chat template, or one after the other where it has none. A
    model without one does not end its answers, so that only with one an answer can be cut.
    Given `slots`, it predicts their numbers as in `filled`. Raises ConfigError for an encoder, and,
    when asked, for messages that exceed its context.
    """
    if subject.kind != "causal" or not subject.head:
        raise ConfigError(f"--local must be a model that writes text; {subject.name} does not.")
    module: Any = subject.module.to(device)
    tokenizer: Any = subject.tokenizer
    chat = bool(getattr(tokenizer, "chat_template", None))
    stop = getattr(getattr(module, "generation_config", None), "eos_token_id", None)
    ends = {stop} if isinstance(stop, int) else {*(stop or ()), tokenizer.eos_token_id}

    def prompt(messages: Messages) -> str:
        if not chat:
            return "\n\n".join(content for _, content in messages) + "\n\n"
        said = [{"role": role, "content": content} for role, content in messages]
        return str(tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True))

    @torch.inference_mode()
    def complete(messages: Messages, parameters: dict[str, Any]) -> Reply:
        text = prompt(messages)
        if slots := parameters.get("slots"):
            return filled(module, tokenizer, text, slots, subject, device)
        tokens = tokenizer(text, add_special_tokens=True)["input_ids"]
        room = subject.context - parameters["max_tokens"] if subject.context else len(tokens)
        if len(tokens) > room:
            raise ConfigError(
                f"a request and its answer must fit into the {subject.context} tokens that "
                f"{subject.name} takes; got {len(tokens)} and --max-tokens "
                f"{parameters['max_tokens']}. Choose another model, or a smaller --per-request, "
                "--shown, --example-tokens or --max-tokens."
            )
        tokens_1T = torch.tensor([tokens], device=device)
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
        written = module.generate(
            tokens_1T,
            attention_mask=torch.ones_like(tokens_1T),
            max_new_tokens=parameters["max_tokens"],
            do_sample=False,
            use_cache=True,  # subjects are loaded without it
            pad_token_id=pad,
        )[0, len(tokens) :]
        answer = str(tokenizer.decode(written, skip_special_tokens=True))
        if chat and len(written) >= parameters["max_tokens"] and int(written[-1]) not in ends:
            raise CutError("the answer was cut at the limit of tokens", len(tokens), len(written))
        return Reply(answer, len(tokens), len(written))

    name = f"{subject.name}-{str(subject.identity['weights'])[:12]}"
    return Model(f"{name}-{subject.identity.get('compute', 'float32')}", complete, fills=True)


def filled(
    module: Any,
    tokenizer: Any,
    prompt: str,
    slots: Sequence[str],
    subject: LanguageSubject,
    device: torch.device,
) -> Reply:
    """The expected numbers from 0 to 10 behind each slot, from one forward pass.

    A line of the answer is a slot and E = sum_n p(n) n, with p normalised over the numbers; in the
    pass all numbers are `unknown`. Numbers are compared by their first token. Where 10 begins as 1
    does, digits from 0 to 9 are read, and E is stretched to 10. Source: the simulator of Bills et
    al. (2023), which predicts all tokens at once.

    Raises ConfigError for a tokenizer without digits, and for a request that is too long.
    """
    text, places = prompt, []
    for slot in slots:
        text += slot
        places.append(len(text))
        text += f"{UNKNOWN}\n"
    coded = tokenizer(text, add_special_tokens=True, return_offsets_mapping=True)
    tokens, spans = coded["input_ids"], coded["offset_mapping"]
    if subject.context and len(tokens) > subject.context:
        raise ConfigError(
            f"a request and its answer must fit into the {subject.context} tokens that "
            f"{subject.name} takes; got {len(tokens)}. Choose another model, or a smaller "
            "--example-tokens."
        )
    before = [_token_at(spans, place) - 1 for place in places]
    tokens_1T = torch.tensor([tokens], device=device)
    logits_TV = module(tokens_1T, attention_mask=torch.ones_like(tokens_1T)).logits[0, before]
    numbers = number_tokens(tokenizer, slots[0], subject.name)
    p_TN = torch.softmax(logits_TV[:, numbers].double(), dim=1)
    scale_N = torch.linspace(0, HIGHEST, len(numbers), dtype=torch.float64, device=device)
    lines = [
        f"{slot}{mean:.5f}" for slot, mean in zip(slots, (p_TN @ scale_N).tolist(), strict=True)
    ]
    return Reply("\n".join(lines), len(tokens), 0)


def number_tokens(tokenizer: Any, slot: str, name: str) -> list[int]:
    """The first token of every number from 0 to 10 behind a slot; of the digits from 0 to 9 where
    10 begins as 1 does. Raises ConfigError where even these are not told apart."""
    found, starts = [], set()
    for written in (*map(str, range(HIGHEST + 1)), UNKNOWN):
        coded = tokenizer(f"{slot}{written}\n", return_offsets_mapping=True)
        at = _token_at(coded["offset_mapping"], len(slot))
        found.append(int(coded["input_ids"][at]))
        starts.add(coded["offset_mapping"][at][0])
    numbers = found[:-1]
    numbers = numbers if len(set(numbers)) == len(numbers) else numbers[:-1]
    if len(set(numbers)) < len(numbers) or len(starts) > 1:
        raise ConfigError(
            f"--score simulation needs a local model whose tokenizer has a token for each digit; "
            f"that of {name} has none. Choose another --local, or an --endpoint."
        )
    return numbers


def _token_at(spans: Sequence[Sequence[int]], place: int) -> int:
    """The number of the token that holds a character."""
    return next(i for i, (begin, end) in enumerate(spans) if begin <= place < end)
