"""The study of steering: what a network does when a latent is forced on."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, Union, final

from tendril.data.errors import ConfigError
from tendril.data.home import find_run

from ..core.report import write_csv
from ..core.stores import is_language_run
from ..core.study import Study
from .config import SteerConfig
from .words import best, headline, terminal_table

if TYPE_CHECKING:
    from .images import SteeredImages
    from .text import SteeredText

Inputs: TypeAlias = Union["SteeredText", "SteeredImages"]
Findings = dict[str, Any]


@final
class SteerStudy(Study[SteerConfig, Inputs, Findings]):
    """Edit latents at several strengths and compare what the network says.

    The report holds strengths.csv, and continuations.csv or answers.csv.
    """

    name = "steer"
    config = SteerConfig

    def find(self, config: SteerConfig) -> Inputs:
        run = find_run(config.run, config.home)
        if is_language_run(run):
            from .text import find_text

            found: Inputs = find_text(config, run)
        else:
            from .images import find_images

            found = find_images(config, run)
        latents = found.dictionary.latents
        wrong = [latent for latent in config.latent if not 0 <= latent < latents]
        if wrong:
            raise ConfigError(
                f"--latent must be from 0 to {latents - 1}; got {wrong[0]}. Choose a latent that "
                "the dictionary has."
            )
        return found

    def identity(self, config: SteerConfig, inputs: Inputs) -> Mapping[str, Any]:
        return inputs.identity(config)

    def title(self, config: SteerConfig, inputs: Inputs) -> str:
        return f"Steering {inputs.subject_name} at {inputs.site}"

    def label(self, config: SteerConfig, inputs: Inputs) -> str:
        return f"{inputs.subject_name}-{inputs.site}"

    def estimate(self, config: SteerConfig, inputs: Inputs) -> Mapping[str, Any]:
        return inputs.estimate(config)

    def compute(self, config: SteerConfig, inputs: Inputs, device: Any) -> Findings:
        return inputs.compute(config, device)

    def figures(self, findings: Findings) -> dict[str, Any]:
        kept = {name: value for name, value in findings.items() if name != "pixels"}
        return {**best(kept), **kept}

    def headline(self, figures: Mapping[str, Any]) -> str:
        return headline(figures)

    def table(self, figures: Mapping[str, Any]) -> str:
        return terminal_table(figures)

    def write_tables(self, findings: Findings, folder: Path) -> None:
        rows = list(_strengths(findings))
        write_csv(folder / "strengths.csv", list(rows[0]), map(list, map(dict.values, rows)))
        if "prompts" in findings:
            columns = ("latent", "direction", "strength", "prompt", "sample", "continuation")
            write_csv(folder / "continuations.csv", columns, _continuations(findings))
        else:
            columns = ("latent", "direction", "strength", "photograph", "class", "probability")
            write_csv(folder / "answers.csv", columns, _answers(findings))

    def page(self, config: SteerConfig, inputs: Inputs, findings: Findings) -> Mapping[str, Any]:
        if "prompts" in findings:
            from . import text_page

            return text_page.context(findings)
        from . import image_page

        return image_page.context(findings)


def _strengths(findings: Findings) -> Iterator[dict[str, Any]]:
    """The figures of each latent, direction and strength."""
    for latent, one in findings["latents"].items():
        none = {"strength": "", "value": ""}
        yield {"latent": latent, "direction": "unedited", **none, **_costs(one["unedited"])}
        for step in one["strengths"]:
            for name in ("latent", "random"):
                yield {
                    "latent": latent,
                    "direction": name,
                    "strength": step["strength"],
                    "value": step["value"],
                    **step[name],
                }


def _costs(unedited: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of the unedited network, whose edit costs nothing."""
    if "surprise" in unedited:
        return {**unedited, "kl": 0.0, "loss": 0.0}
    return dict(unedited)


def _continuations(findings: Findings) -> Iterator[list[Any]]:
    prompts = findings["prompts"]
    for prompt, texts in zip(prompts, findings["plain"], strict=True):
        for sample, text in enumerate(texts):
            yield ["", "unedited", "", prompt, _sample(sample), "".join(text)]
    for latent, one in findings["latents"].items():
        for step in one["strengths"]:
            for name, key in (("latent", "texts"), ("random", "random_texts")):
                for prompt, texts in zip(prompts, step[key], strict=True):
                    for sample, text in enumerate(texts):
                        told = (_sample(sample), "".join(text))
                        yield [latent, name, step["strength"], prompt, *told]


def _sample(number: int) -> str:
    return f"sample {number}" if number else "greedy"


def _answers(findings: Findings) -> Iterator[list[Any]]:
    photographs = findings["photographs"]
    for one in photographs:
        for name, p in one["answers"]:
            yield ["", "unedited", "", one["name"], name, p]
    for latent, one in findings["latents"].items():
        for step in one["strengths"]:
            for direction, key in (("latent", "answers"), ("random", "random_answers")):
                for photograph, answers in zip(photographs, step[key], strict=True):
                    for name, p in answers:
                        yield [latent, direction, step["strength"], photograph["name"], name, p]
