"""What the study of steering can be asked. Imports no torch."""

import math
from dataclasses import dataclass
from typing import ClassVar

from tendril.data.errors import ConfigError

from ..core.config import StudyConfig, VisionConfig, at_least

METHODS = ("add", "set")


@dataclass(frozen=True)
class SteerConfig(VisionConfig):
    """What a network does when a latent is forced on: continuations or class probabilities.

    Edits one latent at a time, x' = x + (x_hat(z') - x_hat(z)), at several strengths. A strength of
    1 is the latent's maximum activation in the store. Of a language model the page shows greedy and
    sampled continuations beside the unedited ones, how often the latent's own tokens occur in them,
    and what the edit costs on held-out text (cross-entropy, KL); of a vision network the class
    probabilities of photographs. Random directions of the same norm are the control. One to three
    minutes for a small language model, or for six photographs through InceptionV1, on two CPU
    cores. Makes a page and tables.
    """

    run: str = "latest"
    """Run: a path, a name in runs/, the beginning of just one, or latest."""
    latent: tuple[int, ...] = ()
    """Numbers of the latents, each steered by itself; by default --choose of them."""
    choose: int = 3
    """Number of latents that are chosen where --latent is empty: of a language model those whose
    activating examples go on with tokens that the latent promotes, of a vision network those whose
    images get the most similar answers. Rare and dense ones are left out."""
    strengths: tuple[float, ...] = (-1.0, 0.5, 1.0, 2.0)
    """Strengths, in units of the latent's maximum activation in the store."""
    method: str = "add"
    """add: z' = z + s, so that x' = x + s d, with d the latent's decoder row; or set: z' = s
    (clamping), where a strength of 0 ablates the latent."""
    random: int = 3
    """Random directions of the same norm, each at the same strengths."""
    prompt: tuple[str, ...] = ()
    """Prompts of a language model; by default the beginnings of three held-out contexts."""
    tokens: int = 40
    """Tokens of a continuation."""
    samples: int = 3
    """Sampled continuations of each prompt, beside the greedy one."""
    temperature: float = 1.0
    """Temperature of sampled continuations."""
    contexts: int = 64
    """Held-out contexts on which cross-entropy and KL are measured."""
    photographs: int = 6
    """Photographs that are steered, drawn at random from those held out of training."""
    patch: tuple[int, ...] = ()
    """Cells of the site's map that are steered: first row, first column, height and width; by
    default all."""
    inputs: str = ""
    """Text on which cross-entropy and KL are measured, by default held-out contexts; or where the
    harvested images are, by default where they were."""
    subject: str = ""
    """Language model (a folder, a name on the Hugging Face hub, or package:NAME) or vision network
    (as for `tendril harvest images`); by default the store's own."""
    labels: str = ""
    """File whose line i begins with the id of class i, followed by its name."""
    seed: int = 0
    """Seed of samples, random directions and photographs."""
    batch_size: int = 32
    """Continuations, contexts or images that pass through the network at once."""

    NO_SETTING: ClassVar[frozenset[str]] = StudyConfig.NO_SETTING | {"labels"}

    def check(self) -> None:
        """Raise ConfigError where a value cannot be used."""
        if self.method not in METHODS:
            raise ConfigError(f"--method must be one of {', '.join(METHODS)}; got {self.method!r}.")
        if not self.strengths or not all(map(math.isfinite, self.strengths)):
            raise ConfigError("--strengths must be one number or more; e.g. 0.5 1 2.")
        if self.patch and (len(self.patch) != 4 or min(self.patch) < 0 or 0 in self.patch[2:]):
            raise ConfigError(
                "--patch must be four numbers, the first row and column, the height and the width; "
                f"got {' '.join(map(str, self.patch))}."
            )
        if not self.temperature > 0:
            raise ConfigError(f"--temperature must be above 0; got {self.temperature:g}.")
        at_least(self, choose=1, random=1, tokens=1, samples=0, contexts=1, photographs=1, seed=0)
        at_least(self, batch_size=1)
