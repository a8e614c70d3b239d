"""Embeddings: is an explanation nearer to examples that activate the latent than to silent ones?

The score is the AUROC of the cosine of the explanation's embedding with those of the examples.
Source: Paulo et al. (2410.13928), embedding score.

An answer holds the vectors of all texts of a question: float32 numbers in base64, a line each.
"""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float32

from tendril.data.errors import ConfigError
from tendril.models.subjects.language import LanguageSubject

from ..measures.score_statistics import auroc
from .asking import Messages, Model, Reply, UnusableAnswerError
from .config import Kind

AT_ONCE = 32  # texts that a local encoder embeds at a time
LONGEST = 512  # tokens of a text, for an encoder that does not say
POOLINGS = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}


@final
@dataclass(frozen=True)
class Embedded:
    """The cosines of an explanation with the active and with the silent examples."""

    active: tuple[float, ...]
    silent: tuple[float, ...]

    @property
    def value(self) -> float | None:
        """The AUROC: 0.5 by chance."""
        return auroc(np.array(self.active), np.array(self.silent))

    @property
    def undefined(self) -> str:
        """Empty: with ties counted half it is always defined."""
        return ""

    def figures(self, kind: Kind) -> dict[str, Any]:
        """As entries of latents.csv."""
        value = self.value
        count = len(self.active) + len(self.silent)
        return {
            "embedding_auroc": None if value is None else round(value, 4),
            "embedding_items": count,
        }


def embedding_messages(texts: Sequence[str]) -> Messages:
    """Ask for the embeddings of some texts."""
    return tuple(("input", text) for text in texts)


def cosines(
    one_D: Float32[np.ndarray, " d"], others_ND: Float32[np.ndarray, "n d"]
) -> tuple[float, ...]:
    """Of one vector with others; 0 with a vector of zeros."""
    norms_N = np.linalg.norm(others_ND, axis=1) * np.linalg.norm(one_D)
    products_N = others_ND @ one_D
    return tuple((products_N / np.where(norms_N > 0, norms_N, 1)).tolist())


def written_vectors(vectors_ND: Float32[np.ndarray, "n d"]) -> str:
    """Vectors as the text of an answer."""
    rows = np.ascontiguousarray(vectors_ND, "<f4")
    return "\n".join(base64.b64encode(row.tobytes()).decode() for row in rows)


def read_vectors(answer: str, count: int) -> Float32[np.ndarray, "n d"]:
    """The vectors of an answer. Raises UnusableAnswerError unless there are `count` finite ones of
    one width."""
    try:
        rows = [
            np.frombuffer(base64.b64decode(line, validate=True), "<f4")
            for line in answer.splitlines()
        ]
    except ValueError:
        raise UnusableAnswerError("its vectors cannot be read") from None
    if len(rows) != count or len({len(row) for row in rows}) != 1 or not len(rows[0]):
        raise UnusableAnswerError(f"it has no {count} vectors of one width")
    vectors_ND = np.stack(rows).astype(np.float32)
    if not np.isfinite(vectors_ND).all():
        raise UnusableAnswerError("it has numbers that are not finite")
    return vectors_ND


def read_embeddings(body: bytes) -> Reply:
    """The reply in the JSON of POST /embeddings. Raises ValueError and its like for anything
    else."""
    told = json.loads(body)
    listed = sorted(told["data"], key=lambda one: int(one["index"]))
    if [one["index"] for one in listed] != list(range(len(listed))):
        raise ValueError("embeddings must be numbered from 0")
    vectors_ND = np.array([one["embedding"] for one in listed], np.float32)
    if vectors_ND.ndim != 2:
        raise ValueError("embeddings must be vectors of one width")
    usage = told.get("usage")
    tokens = usage.get("prompt_tokens") if isinstance(usage, dict) else 0
    return Reply(written_vectors(vectors_ND), tokens if isinstance(tokens, int) else 0)


def local_encoder(subject: LanguageSubject, device: torch.device) -> Model:
    """A model of transformers whose last layer is pooled over the tokens of a text.

    The mean over all tokens, or the first token where 1_Pooling/config.json beside the weights says
    so, as in sentence-transformers. Texts that are too long are cut. Raises ConfigError for a
    pooling of another kind.
    """
    module: Any = subject.module.to(device)
    tokenizer: Any = subject.tokenizer
    pooling = pooling_of(subject)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    longest = min(subject.context or LONGEST, LONGEST)

    @torch.inference_mode()
    def complete(messages: Messages, parameters: dict[str, Any]) -> Reply:
        texts, found, tokens = [text for _, text in messages], [], 0
        for start in range(0, len(texts), AT_ONCE):
            coded = tokenizer(
                texts[start : start + AT_ONCE],
                padding=True,
                truncation=True,
                max_length=longest,
                return_tensors="pt",
            ).to(device)
            mask_NT1 = coded["attention_mask"][..., None]
            out = module(coded["input_ids"], attention_mask=coded["attention_mask"],
                         output_hidden_states=True)  # fmt: skip
            x_NTD = out.hidden_states[-1].float()
            mean_ND = (x_NTD * mask_NT1).sum(1) / mask_NT1.sum(1).clamp(min=1)
            found.append(mean_ND if pooling == "mean" else x_NTD[:, 0])
            tokens += int(mask_NT1.sum())
        return Reply(written_vectors(torch.cat(found).cpu().numpy()), tokens)

    return Model(f"{subject.name}-{str(subject.identity['weights'])[:12]}-{pooling}", complete)


def pooling_of(subject: LanguageSubject) -> str:
    """How an encoder's tokens become one vector: mean or cls."""
    config: Any = getattr(subject.module, "config", None)
    place = Path(str(getattr(config, "_name_or_path", ""))) / "1_Pooling" / "config.json"
    if not place.is_file():
        return "mean"
    try:
        told = json.loads(place.read_text("utf-8"))
        chosen = [name for name, on in told.items() if name.startswith("pooling_mode_") and on]
    except (OSError, ValueError, AttributeError) as error:
        raise ConfigError(f"{place} must be the JSON of a pooling; it is not ({error}).") from error
    if len(chosen) != 1 or chosen[0] not in POOLINGS:
        raise ConfigError(
            f"--encoder must pool by the mean of all tokens or the first one; {place} says "
            f"{', '.join(chosen) or 'nothing'}. Choose another encoder, or an --embedding-model."
        )
    return POOLINGS[chosen[0]]
