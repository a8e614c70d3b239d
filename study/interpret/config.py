"""What the automatic interpretation of latents can be asked. Imports no torch."""

import re
from dataclasses import dataclass
from typing import ClassVar, Literal, final

from tendril.data.errors import ConfigError

from ..core.config import LanguageConfig, StudyConfig, at_least, fractions

LEAST_TESTED = 4
"""Fewest examples of each kind, active and silent, from which a score is computed."""


@final
@dataclass(frozen=True)
class InterpretConfig(LanguageConfig):
    """A sentence about each latent of a language model's dictionary, and how well it predicts.

    A model (--endpoint URL --model NAME, or --local MODEL) explains 20 latents from their
    activating examples, and is tested on others: which of them activate the latent, and are the
    right tokens marked? Reports balanced accuracy (0.5 by chance), next to that of another
    latent's sentence, as a page and tables. By default each latent takes 25 requests of some 200
    tokens; --dry-run counts them, and with --price-in and --price-out their price. Finding
    examples in 250,000 rows takes seconds; the rest depends on the model. Answers are kept in
    answers/: a stopped run asks nothing twice.
    """

    run: str = "latest"
    """Run: a path, a name in runs/, the beginning of just one, or latest."""
    endpoint: str = ""
    """OpenAI-compatible endpoint that explains and judges, e.g. http://127.0.0.1:8000/v1."""
    model: str = ""
    """Name of the model at the endpoint."""
    key_env: str = ""
    """Environment variable that holds the endpoint's key, e.g. OPENAI_API_KEY; by default no key
    is sent. The key itself is never written to disk."""
    local: str = ""
    """Causal model that explains and judges in place of an endpoint: a folder, or a name on the
    Hugging Face hub."""
    compute: Literal["float32", "bfloat16", "float16"] = "float32"
    """Dtype in which the local model computes."""
    latents: tuple[int, ...] = ()
    """Latents by number; by default --count of them."""
    count: int = 20
    """Number of latents, out of those that fire on held-out rows, if --latents is not given."""
    order: Literal["random", "frequent", "rare"] = "random"
    """Which latents: drawn at random, or those that fire most or least often. Only the mean over
    a random draw describes the whole dictionary."""
    example_tokens: int = 32
    """Tokens of an example."""
    shown: int = 5
    """Activating examples that the explainer sees."""
    top: int = 20
    """Number of strongest examples from which the shown ones are drawn."""
    tested: int = 20
    """Other activating examples, over all quantiles, on which the sentence is tested, with as many
    silent ones."""
    per_request: int = 5
    """Examples that the judge sees in one request."""
    mark_threshold: float = 0.3
    """Tokens are marked if their activation is at least this fraction of the example's peak."""
    min_peak: float = 0.0
    """Examples whose peak is below this fraction of the latent's maximum are left out: they count
    neither as active nor as silent."""
    graded: bool = False
    """Ask the judge for probabilities instead of 0 or 1, which also gives an AUROC."""
    shuffled: bool = True
    """Also test every latent with the sentence of another one, as a baseline."""
    price_in: float = 0.0
    """Price of a million tokens of prompts, for the estimate."""
    price_out: float = 0.0
    """Price of a million tokens of answers, for the estimate."""
    max_tokens: int = 500
    """Most tokens of an answer. One that is cut there counts as none, and is asked for again with
    twice as many, up to eight times."""
    timeout: float = 120.0
    """Seconds to wait for an answer of the endpoint."""
    tries: int = 5
    """Times that a request is sent before its latent counts as failed."""
    backoff: float = 1.0
    """Seconds before the second try; doubled before each further one, up to 60."""
    parallel: int = 4
    """Latents processed at once with an endpoint."""
    seed: int = 0
    """Seed of everything that is drawn: latents, examples, wrong marks, order in a request."""

    NO_SETTING: ClassVar[frozenset[str]] = StudyConfig.NO_SETTING | {
        *("endpoint", "model", "key_env", "local", "compute", "latents", "count", "order"),
        *("price_in", "price_out", "timeout", "tries", "backoff", "parallel"),
    }
    """The identity holds the model and the chosen latents themselves."""

    def check(self) -> None:
        """Raise ConfigError where a value cannot be used."""
        if bool(self.endpoint) == bool(self.local):
            raise ConfigError(
                "the model must be given by --endpoint URL with --model NAME, or by --local MODEL; "
                f"got {'both' if self.local else 'neither'}."
            )
        if self.endpoint and not re.match(r"https?://[^\s/]", self.endpoint):
            raise ConfigError(
                "--endpoint must be an http:// or https:// address, e.g. "
                f"http://127.0.0.1:8000/v1; got {self.endpoint!r}."
            )
        if self.endpoint and not (self.endpoint.isascii() and self.endpoint.isprintable()):
            raise ConfigError("--endpoint must consist of visible ASCII characters. Check the URL.")
        if re.search(r"[@?# ]", self.endpoint):
            raise ConfigError(
                "--endpoint must be an address without a user, a query, a fragment or spaces, "
                "because pages show it. Give a key by --key-env."
            )
        if self.endpoint and not self.model:
            raise ConfigError("--endpoint needs --model, the name of the model there; got none.")
        if any(latent < 0 for latent in self.latents):
            raise ConfigError(f"--latents must be 0 or more; got {list(self.latents)}.")
        at_least(self, count=1, shown=1, per_request=1, max_tokens=1, tries=1, parallel=1)
        at_least(self, example_tokens=4, top=self.shown, tested=LEAST_TESTED)
        at_least(self, price_in=0, price_out=0, backoff=0, seed=0)
        fractions(self, ("mark_threshold", "min_peak"))
        if not self.timeout > 0:
            raise ConfigError(f"--timeout must be more than 0 seconds; got {self.timeout:g}.")
