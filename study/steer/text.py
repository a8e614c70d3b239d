"""Steering a language model: continuations against strength, and what the edit costs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import torch

from tendril.data.cli import progress_bar
from tendril.data.errors import ConfigError
from tendril.models.dictionaries.checkpoint import load_sae, read_config
from tendril.models.dictionaries.sae import SAE
from tendril.models.sites.edit import edit
from tendril.models.sites.language_splice import next_token_sums
from tendril.models.sites.splice import CLEAN
from tendril.models.subjects.subject import site_modules
from tendril.models.subjects.tokenise import cut_for, tokens_of

from ..core.language_inputs import LanguageInputs, find_language_inputs
from ..core.language_text import (
    JudgedText,
    TextChoice,
    choose_text,
    held_out_text,
)
from ..core.stores import held_out_fraction, text_of, without_dropped
from ..core.token_text import readable
from ..measures.decoder_directions import promoted
from ..measures.latent_activity import Activity, watch
from ..measures.steering import (
    ReadBack,
    continued,
    joined,
    other_dictionaries,
    random_numbers,
    read_back,
    steered,
    usable,
)
from .config import SteerConfig

EXAMPLES, SHOWN, WINDOW = 20, 3, 24  # activating examples that are used and shown; their tokens
PROMPTS, BEGINNING = 3, 9  # held-out contexts whose first tokens are prompts
PROMOTED = 10
RARE, DENSE = 5e-4, 0.03
OWN = ("peak", "following")


@final
@dataclass(frozen=True)
class SteeredText:
    """A run of a language model, its dictionary, prompts as tokens, and the text of the figures."""

    found: LanguageInputs
    dictionary: SAE
    prompts: tuple[tuple[int, ...], ...]
    text: TextChoice

    @property
    def subject_name(self) -> str:
        """The name of the model, for titles."""
        return self.found.subject.name

    @property
    def site(self) -> str:
        """The site that is edited."""
        return self.found.site

    def remarks(self) -> list[str]:
        """What became of norm outliers that the run dropped or capped."""
        return self.found.remarks()

    def identity(self, config: SteerConfig) -> dict[str, Any]:
        """What determines findings besides the settings."""
        return {
            **self.found.identity(),
            "text": self.text.key,
            "prompts": [list(p) for p in self.prompts],
        }

    def estimate(self, config: SteerConfig) -> dict[str, Any]:
        """Counts for `--dry-run`."""
        each = len(self.prompts) * len(config.strengths) * (1 + config.samples)
        latents = len(config.latent) or config.choose
        return {"latents": latents, "continuations": latents * (1 + config.random) * each}

    def compute(self, config: SteerConfig, device: torch.device) -> dict[str, Any]:
        """The JSON object of result.json."""
        return _Steering(self, config, device).findings()


def find_text(config: SteerConfig, run: Path) -> SteeredText:
    """Find model, store, dictionary and text of a run. Raises what `find_language_inputs` and
    `choose_text` raise, and ConfigError for latents that are not there or a prompt that is too
    long."""
    found = find_language_inputs(
        "steer", [run], config.home, store=config.store, subject=config.subject
    )
    if config.patch:
        raise ConfigError("--patch is for runs of a vision network. Leave it out.")
    subject, dictionary = found.subject, load_sae(run)
    text = choose_text(found, config.inputs, config.contexts)
    prefix = cut_for(subject, 2).prefix
    if config.prompt:
        prompts = [(*prefix, *ids) for ids in tokens_of(subject)(list(config.prompt))]
    else:
        fraction = held_out_fraction([read_config(run)])
        chosen = held_out_text(found.store, fraction, PROMPTS)
        prompts = [tuple(row[:BEGINNING].tolist()) for row in chosen.tokens_BT]
    longest = max(map(len, prompts)) + config.tokens
    if min(map(len, prompts)) <= len(prefix):
        raise ConfigError("--prompt must hold a token; got an empty one. Give it some text.")
    if 0 < subject.context < longest:
        raise ConfigError(
            f"--tokens must leave room in the {subject.context} tokens that {subject.name} takes; "
            f"a prompt and its continuation have {longest}. Lower it, or shorten --prompt."
        )
    return SteeredText(found, dictionary, tuple(prompts), text)


@final
class _Steering:
    """The parts of the study that share model, dictionary and activity."""

    def __init__(self, inputs: SteeredText, config: SteerConfig, device: torch.device) -> None:
        self.config, self.device, self.prompts = config, device, inputs.prompts
        self.found, self.choice = inputs.found, inputs.text
        self.subject = inputs.found.subject
        self.module = self.subject.module.to(device)
        self.sae = inputs.dictionary.to(device)
        self.names = site_modules(self.subject, [inputs.site])[inputs.site]
        self.spelled = readable(self.subject.tokenizer, range(self.subject.vocabulary))
        self.end = self.subject.tokenizer.eos_token_id
        self.skipped = len(cut_for(self.subject, 2).prefix)
        store = self.found.store
        self.stored = without_dropped(
            text_of(store), store, [inputs.site], read_config(self.found.runs[0])
        )
        length = self.stored.tokens_BT.shape[1]
        self.activity = Activity(self.sae.latents, length, EXAMPLES, 0, WINDOW)
        every = np.arange(len(self.stored.tokens_BT))
        valid = self.stored.valid_BT
        watch(store, [inputs.site], self.sae, valid, every, self.activity, device)
        self.writes = promoted(self.subject, self.sae.W_dec.detach(), PROMOTED)

    def findings(self) -> dict[str, Any]:
        """Figures, continuations and examples of every latent."""
        config = self.config
        text = self.choice.read(self.found, config.home, self.device)
        plain = [self._continued(number, None, 0, None) for number in range(len(self.prompts))]
        latents = {}
        chosen = list(dict.fromkeys(config.latent)) or self._chosen()
        count = len(chosen) * (1 + config.random)
        with progress_bar(total=count, desc="steer", unit=" directions") as bar:
            for latent in chosen:
                latents[str(latent)] = self._latent(latent, plain, text, bar)
        return {
            "run": self.found.runs[0].resolve().name,
            "subject": self.subject.name,
            "site": self.found.site,
            "method": config.method,
            "text": text.source,
            "contexts": len(text.tokens_BT),
            "chosen": not config.latent,
            "prompts": ["".join(self._words(prompt[self.skipped :])) for prompt in self.prompts],
            "plain": [self._texts(tokens) for tokens in plain],
            "latents": latents,
        }

    def _chosen(self) -> list[int]:
        """Latents whose activating examples go on with tokens that they promote."""
        candidates = usable(self.activity.frequency_S, RARE, DENSE)

        def score(latent: int) -> tuple[float, float]:
            peaks, following = self._own(latent)
            most = float(self.activity.max_S[latent])  # of equal ones the latent that moves more
            if self.writes is None:
                return max(map(peaks.count, set(peaks))) / len(peaks), most
            promised = set(self.writes.up_SP[latent].tolist())
            return sum(t in promised for t in following) / max(len(following), 1), most

        ranked = sorted(candidates.tolist(), key=score, reverse=True)
        return ranked[: self.config.choose]

    def _own(self, latent: int) -> tuple[list[int], list[int]]:
        """The tokens at the peaks of a latent's strongest contexts, and those that follow them."""
        rows = self.activity.top.row_SN[latent]
        rows = rows[rows >= 0]
        tokens_N, length = self.stored.tokens_BT.reshape(-1), self.activity.length
        after = rows[rows % length < length - 1] + 1
        return tokens_N[rows].tolist(), tokens_N[after].tolist()

    def _latent(
        self, latent: int, plain: Sequence[np.ndarray], text: JudgedText, bar: Any
    ) -> dict[str, Any]:
        config, most = self.config, float(self.activity.max_S[latent])
        if most == 0:
            raise ConfigError(
                f"latent {latent} is active nowhere in {self.found.store.name}, so it has no "
                "maximum to steer by. Name another --latent."
            )
        own = dict(zip(OWN, map(set, self._own(latent)), strict=True))
        own["either"] = own["peak"] | own["following"]
        writes = self.writes.up_SP[latent].tolist() if self.writes else []
        own["promoted"] = set(writes)
        unedited = self._read(latent, plain).figures(own)
        directions = other_dictionaries(self.sae, latent, config.random, config.seed)
        made = []
        for sae in (self.sae, *directions):
            values = [most * strength for strength in config.strengths]
            costs = self._costs(sae, latent, values, text)
            texts = [
                self._continued(number, sae, latent, values) for number in range(len(self.prompts))
            ]
            read = [self._read(latent, [part[i] for part in texts]) for i in range(len(values))]
            figures = [{**one.figures(own), **cost} for one, cost in zip(read, costs, strict=True)]
            made.append((figures, texts))
            bar.update(1)
        return {
            "max": most,
            "frequency": float(self.activity.frequency_S[latent]),
            **{name: self._words(sorted(tokens)) for name, tokens in own.items()},
            "promotes": self._words(writes),
            "examples": self._examples(latent),
            "unedited": unedited,
            "strengths": [
                {
                    "strength": strength,
                    "value": most * strength,
                    "latent": made[0][0][i],
                    "random": _mean([figures[i] for figures, _ in made[1:]]),
                    "texts": [self._texts(part[i]) for part in made[0][1]],
                    "random_texts": [self._texts(part[i]) for part in made[1][1]],
                }
                for i, strength in enumerate(config.strengths)
            ],
        }

    def _continued(
        self, number: int, sae: SAE | None, latent: int, values: Sequence[float] | None
    ) -> Any:
        """Continuations of a prompt: [b, t] unedited, or one such for each value of a latent."""
        config, prompt = self.config, self.prompts[number]
        drawn_BT = random_numbers(config.samples, config.tokens, (config.seed, number))
        if sae is None or values is None:
            return continued(self.module, prompt, drawn_BT, config.temperature, self.device)
        found, value_M = [], np.repeat(values, len(drawn_BT))
        drawn_MT = np.tile(drawn_BT, (len(values), 1))
        for start in range(0, len(value_M), config.batch_size):
            some = slice(start, start + config.batch_size)
            strength = {latent: torch.tensor(value_M[some], dtype=torch.float32)}
            positions = slice(self.skipped, None)
            with edit(
                self.subject,
                self.found.site,
                sae,
                set=strength if config.method == "set" else None,
                add=strength if config.method == "add" else None,
                positions=positions,
            ) as module:
                found.append(
                    continued(module, prompt, drawn_MT[some], config.temperature, self.device)
                )
        return np.split(np.concatenate(found), len(values))

    def _read(self, latent: int, texts: Sequence[np.ndarray]) -> ReadBack:
        """The continuations of all prompts as the unedited model reads them."""
        return joined(
            [
                read_back(
                    self.module, self.names, self.sae, latent, prompt, tokens, self.end, self.device
                )
                for prompt, tokens in zip(self.prompts, texts, strict=True)
            ]
        )

    def _costs(
        self, sae: SAE, latent: int, values: Sequence[float], text: JudgedText
    ) -> list[dict[str, float]]:
        """KL(clean || edited) and the change of the cross-entropy on the text, in nats."""
        method = self.config.method
        sums = next_token_sums(
            self.module,
            self.names,
            {str(i): steered(sae, latent, method, value) for i, value in enumerate(values)},
            text.batches(self.config.batch_size, self.device, f"latent {latent}"),
            1,
        )
        means = {name: one.means() for name, one in sums.items()}
        clean = means[CLEAN]["cross_entropy"]
        return [
            {"kl": means[str(i)]["kl"], "loss": means[str(i)]["cross_entropy"] - clean}
            for i in range(len(values))
        ]

    def _words(self, tokens: Sequence[int]) -> list[str]:
        return [self.spelled[token] for token in tokens]

    def _texts(self, tokens_BT: np.ndarray) -> list[list[str]]:
        """The tokens of each continuation as text, up to its end."""
        rows = tokens_BT.tolist()
        return [self._words(row[: row.index(self.end)] if self.end in row else row) for row in rows]

    def _examples(self, latent: int) -> list[dict[str, str]]:
        """The strongest contexts around their peak."""
        tokens_N, found = self.stored.tokens_BT.reshape(-1), []
        rows = self.activity.top.row_SN[latent][:SHOWN]
        for row in rows[rows >= 0].tolist():
            begin = int(self.activity.begin(np.array(row)))
            window = tokens_N[begin : begin + self.activity.window].tolist()
            at = row - begin
            parts = (window[:at], window[at : at + 1], window[at + 1 :])
            names = ("before", "peak", "after")
            found.append(dict(zip(names, map("".join, map(self._words, parts)), strict=True)))
        return found


def _mean(figures: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    """The mean of each figure; None where one of them is not known."""
    found: dict[str, float | None] = {}
    for name in figures[0]:
        values = [one[name] for one in figures]
        known = [v for v in values if v is not None]
        found[name] = sum(known) / len(known) if len(known) == len(values) else None
    return found
