"""What can be asked of the automatic interpretation of latents. Imports no torch."""

import re
from dataclasses import dataclass
from typing import Literal, final

from tendril.data.errors import ConfigError

LEAST_TESTED = 4
"""Fragments of each half that a score is worth making of."""


@final
@dataclass(frozen=True)
class InterpretConfig:
    """Sentences about latents of a language model's dictionary, and how well they predict."""

    run: str = "latest"
    """The run: a path, a name in runs/, the beginning of one, or latest."""
    endpoint: str = ""
    """An OpenAI-compatible endpoint that explains and judges, e.g. http://127.0.0.1:8000/v1."""
    model: str = ""
    """The name of the model that the endpoint is asked for."""
    key_env: str = ""
    """The environment variable that holds the endpoint's key, e.g. OPENAI_API_KEY. The key itself
    is sent and never written. None by default."""
    local: str = ""
    """In place of an endpoint: a causal model that transformers loads, by folder or name."""
    compute: Literal["float32", "bfloat16", "float16"] = "float32"
    """The dtype that the local model computes in."""
    latents: tuple[int, ...] = ()
    """The latents by number; by default --count of them."""
    count: int = 20
    """So many latents that fire on held-out rows, where --latents names none."""
    order: Literal["random", "frequent", "rare"] = "random"
    """Which those are: drawn at random, or those that fire most or least often. Only the mean
    over a random draw says something of the dictionary."""
    fragment: int = 32
    """Tokens in a fragment of text."""
    shown: int = 5
    """Fragments that the explainer sees."""
    top: int = 20
    """Those are drawn from so many fragments that excite the latent most."""
    tested: int = 20
    """Other fragments in which the latent is active, over all quantiles, that the explanation is
    tested on, and as many in which it is silent."""
    together: int = 5
    """Fragments that the judge is asked about in one request."""
    mark: float = 0.3
    """Tokens are marked from this share of a fragment's peak on."""
    floor: float = 0.0
    """Fragments whose peak is below this share of the latent's maximum are left out, neither
    active nor silent."""
    graded: bool = False
    """Ask the judge for probabilities in place of 0 or 1, which gives an AUROC."""
    shuffled: bool = True
    """Test every latent with the explanation of another one, too: what a score means without."""
    price_in: float = 0.0
    """Price of a million tokens of prompts, for the estimate."""
    price_out: float = 0.0
    """Price of a million tokens of answers."""
    dry_run: bool = False
    """Say what it would cost and stop."""
    max_tokens: int = 500
    """Tokens that an answer may have."""
    timeout: float = 120.0
    """Seconds that the endpoint may take for an answer."""
    tries: int = 5
    """How often a request is sent before its latent is given up."""
    backoff: float = 1.0
    """Seconds before the second try; twice as many before each further one, 60 at most."""
    parallel: int = 4
    """Latents asked about at once, of an endpoint."""
    subject: str = ""
    """The model that was harvested, for its tokenizer; where it was by default."""
    store: str = ""
    """The store that fragments come from; the run's own by default."""
    seed: int = 0
    """Seed of all that is drawn: latents, fragments, wrong marks, order in a request."""
    device: str = "auto"
    """auto, cpu or cuda."""
    home: str = ""
    """Folder that holds store/, runs/, reports/ and answers/; $TENDRIL_HOME, or here, by
    default."""
    name: str = ""
    """First part of the report's name."""
    overwrite: bool = False
    """Make the report anew where it is there already; answers that were kept are used again."""

    def check(self) -> None:
        """Raise ConfigError where a value cannot be used."""
        if bool(self.endpoint) == bool(self.local):
            raise ConfigError(
                "--endpoint URL with --model NAME, or --local MODEL says who explains and judges; "
                f"give one of the two, and not {'both' if self.local else 'neither'}."
            )
        if self.endpoint and not re.match(r"https?://[^\s/]", self.endpoint):
            raise ConfigError(
                "--endpoint is an http:// or https:// address, e.g. http://127.0.0.1:8000/v1, and "
                f"not {self.endpoint!r}."
            )
        if self.endpoint and not self.model:
            raise ConfigError("--endpoint needs --model: the name of the model to ask it for.")
        if any(latent < 0 for latent in self.latents):
            raise ConfigError(f"--latents are numbers from 0 on, and not {list(self.latents)}.")
        least = {
            **dict.fromkeys(("count", "shown", "together", "max_tokens", "tries", "parallel"), 1),
            **{"fragment": 4, "top": self.shown, "tested": LEAST_TESTED},
            **dict.fromkeys(("price_in", "price_out", "backoff", "seed"), 0),
        }
        for name, low in least.items():
            if getattr(self, name) < low:
                flag = name.replace("_", "-")
                raise ConfigError(f"--{flag} is {low} or more, and not {getattr(self, name):g}.")
        for name in ("mark", "floor"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(
                    f"--{name} is a share from 0 to 1, and not {getattr(self, name)}."
                )
        if not self.timeout > 0:
            raise ConfigError(f"--timeout is more than 0 seconds, and not {self.timeout:g}.")
