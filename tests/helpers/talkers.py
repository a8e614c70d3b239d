"""A small language model that has learned who is spoken to, trained here in seconds."""

import json
from pathlib import Path

import torch
from torch.nn import functional

from tendril.study.patching.prompts import NAMES, TEMPLATES

from . import tiny_language

CONTEXT, BATCH, STEPS, RATE, WIDTH = 48, 48, 150, 3e-3, 64
SPOKEN_TO = NAMES[:24]


def save(folder: Path, prompts: int = 3000) -> Path:
    """Write prompts with their answers (`text.jsonl`), a document each, and a llama of two blocks
    trained on them (`model`)."""
    generator = torch.Generator().manual_seed(0)
    texts = [_prompt(generator) for _ in range(prompts)]
    (folder / "text.jsonl").write_text("\n".join(json.dumps({"text": t}) for t in texts))
    tokenizer = tiny_language.tokenizer(sorted({word for text in texts for word in text.split()}))
    tokens: list[int] = []
    for text in texts:
        tokens += [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]
    size = len(tokens) // CONTEXT * CONTEXT
    packed = torch.tensor(tokens[:size]).view(-1, CONTEXT)
    answers = torch.zeros_like(packed, dtype=torch.bool).flatten()
    answers[:-1] = packed.flatten()[1:] == tokenizer.eos_token_id  # a name ends each prompt
    answers = answers.view_as(packed)
    model = tiny_language.network("llama", layers=2, width=WIDTH, vocabulary=len(tokenizer))
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE)
    for step in range(STEPS):
        optimiser.param_groups[0]["lr"] = RATE * min(1.0, (step + 1) / 30, 2 * (1 - step / STEPS))
        some = torch.randint(len(packed), (BATCH,), generator=generator)
        logits = model(packed[some]).logits[:, :-1].flatten(0, 1)
        losses = functional.cross_entropy(logits, packed[some, 1:].flatten(), reduction="none")
        loss = losses.mean() + losses[answers[some, 1:].flatten()].mean()
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    return folder


def _prompt(generator: torch.Generator) -> str:
    a, b = (SPOKEN_TO[i] for i in torch.randperm(len(SPOKEN_TO), generator=generator)[:2].tolist())
    templates = TEMPLATES["dialogue"]
    template = templates[int(torch.randint(len(templates), (1,), generator=generator))]
    return f"{template.format(a=a, b=b, speaker=a, other=b)} {b}"
