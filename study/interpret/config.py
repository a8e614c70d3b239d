"""What the automatic interpretation of latents can be asked. Imports no torch."""

import re
from dataclasses import dataclass
from typing import ClassVar, Literal, final, get_args

from tendril.data.errors import ConfigError

from ..core.config import LanguageConfig, StudyConfig, at_least, fractions

Kind = Literal["detection", "fuzzing", "simulation", "intruder", "embedding"]
KINDS: tuple[Kind, ...] = get_args(Kind)
LEAST_TESTED = 4
"""Fewest examples of each kind, active and silent, from which a score is computed."""


@final
@dataclass(frozen=True)
class InterpretConfig(LanguageConfig):
    """A sentence about each latent of a language model's dictionary, and how well it predicts.

    A model (--endpoint URL --model NAME, or --local MODEL) explains 20 latents from their
    activating examples, and is tested on others: which of them activate the latent, and are the
    right tokens marked? Reports balanced accuracy (0.5 by chance), next to that of another
    latent's sentence, as a page and tables. --score adds other tests, and --controls puts the same
    to other dictionaries. By default each latent takes 25 requests of some 200 tokens, simulation
    20 more; --dry-run counts them, and with --price-in and --price-out their price. Finding
    examples in 250,000 rows takes seconds; the rest depends on the model. Answers are kept in
    answers/: a stopped run asks nothing twice.
    """

    run: str = "latest"
    """Run: a path, a name in runs/, the beginning of just one, or latest."""
    controls: tuple[str, ...] = ()
    """Runs of the same site whose latents get the same questions, for a table of dictionaries:
    those of the recipes neurons, random, pca and ica, or others."""
    score: tuple[Kind, ...] = ("detection", "fuzzing")
    """Tests of a sentence. detection: which examples activate the latent? fuzzing: are the right
    tokens marked? simulation: the correlation of activations that are predicted token by token
    with the true ones. embedding: is it nearer to active examples than to silent ones (AUROC)?
    intruder needs no sentence: which of five examples is not the latent's?"""
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
    encoder: str = ""
    """Local model whose embeddings --score embedding takes: a folder, a name on the Hugging Face
    hub, or package:NAME. Its last layer is averaged over tokens, or as its 1_Pooling/ says."""
    embedding_model: str = ""
    """Model at the endpoint whose embeddings --score embedding takes, in place of --encoder."""
    embedding_endpoint: str = ""
    """Endpoint of --embedding-model; by default that of --endpoint."""
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
    simulated: int = 5
    """Number of other strong examples on which activations are simulated (of the --top strongest),
    and of random ones."""
    random_examples: Literal["active", "any"] = "active"
    """Random examples of a simulation: from those that activate the latent, as in the code of
    Cunningham et al., or from the whole text, where most are silent and correlations often
    undefined."""
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
        *("encoder", "embedding_model", "embedding_endpoint"),
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
        _check_address("endpoint", self.endpoint)
        _check_address("embedding-endpoint", self.embedding_endpoint)
        if self.endpoint and not self.model:
            raise ConfigError("--endpoint needs --model, the name of the model there; got none.")
        self._check_embedding()
        if any(latent < 0 for latent in self.latents):
            raise ConfigError(f"--latents must be 0 or more; got {list(self.latents)}.")
        at_least(self, count=1, shown=1, per_request=1, max_tokens=1, tries=1, parallel=1)
        at_least(self, example_tokens=4, top=self.shown, tested=LEAST_TESTED)
        at_least(self, simulated=1)
        at_least(self, price_in=0, price_out=0, backoff=0, seed=0)
        fractions(self, ("mark_threshold", "min_peak"))
        if not self.timeout > 0:
            raise ConfigError(f"--timeout must be more than 0 seconds; got {self.timeout:g}.")
        if "simulation" in self.score and self.top < self.shown + self.simulated:
            raise ConfigError(
                f"--top must be {self.shown + self.simulated} or more for a simulation, which "
                f"takes --simulated examples besides the shown ones; got {self.top}."
            )

    def _check_embedding(self) -> None:
        if not self.score:
            raise ConfigError(f"--score must name one of {', '.join(KINDS)}; got none.")
        wanted = "embedding" in self.score
        given = bool(self.encoder) + bool(self.embedding_model)
        if wanted and given != 1:
            raise ConfigError(
                "--score embedding needs a model that embeds texts, by --encoder MODEL or by "
                f"--embedding-model NAME; got {'both' if given else 'neither'}."
            )
        if wanted and self.embedding_model and not (self.embedding_endpoint or self.endpoint):
            raise ConfigError(
                "--embedding-model needs an endpoint; got none. Give --embedding-endpoint."
            )

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The tests, each once, in a fixed order."""
        return tuple(kind for kind in KINDS if kind in self.score)


def _check_address(name: str, address: str) -> None:
    """Raise ConfigError for an address that cannot be used; none is fine."""
    if not address:
        return
    if not re.match(r"https?://[^\s/]", address):
        raise ConfigError(
            f"--{name} must be an http:// or https:// address, e.g. "
            f"http://127.0.0.1:8000/v1; got {address!r}."
        )
    if not (address.isascii() and address.isprintable()):
        raise ConfigError(f"--{name} must consist of visible ASCII characters. Check the URL.")
    if re.search(r"[@?# ]", address):
        raise ConfigError(
            f"--{name} must be an address without a user, a query, a fragment or spaces, "
            "because pages show it. Give a key by --key-env."
        )
