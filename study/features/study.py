"""The study of features: all latents of a dictionary, on one page. Images are in images.py."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, Union, final

import numpy as np
import torch
from jaxtyping import Int64

from tendril.data.cli import need
from tendril.data.errors import ConfigError
from tendril.data.home import find_run
from tendril.data.store.paired import PairedStores
from tendril.data.store.reader import BATCH_DEFAULTS, Store
from tendril.models.dictionaries.checkpoint import load_sae, read_config
from tendril.models.dictionaries.sae import SAE

from ..core.config import dropped_identity
from ..core.report import write_csv
from ..core.stores import (
    StoredText,
    dictionary_digests,
    rows_of_run,
    store_of_run,
    text_of,
    text_remarks,
    trained_sites,
    training_warnings,
    without_dropped,
)
from ..core.study import Study
from ..measures.decoder_directions import neighbours
from ..measures.latent_activity import SAMPLE, Activity, chosen_contexts, watch
from . import page
from .config import FeaturesConfig
from .findings import FeatureFindings

if TYPE_CHECKING:
    from .image_findings import ImageFindings
    from .images import ImageFeatureInputs

NEIGHBOURS = 8  # of a latent


@final
@dataclass(frozen=True)
class FeatureInputs:
    """All that the study reads except the language model, which a finished report does without.

    `contexts` are the numbers of those that are read.
    """

    run: Path
    trained: Mapping[str, Any]
    dictionary: SAE
    store: Store
    rows: Store | PairedStores
    text: StoredText
    sites: tuple[str, ...]
    contexts: Int64[np.ndarray, " b"]


AllInputs: TypeAlias = Union[FeatureInputs, "ImageFeatureInputs"]
AllFindings: TypeAlias = Union[FeatureFindings, "ImageFindings"]


@final
class FeaturesStudy(Study[FeaturesConfig, AllInputs, AllFindings]):
    """Activity, activating examples, promoted tokens or classes, and neighbours of every latent.

    The report holds latents.csv, and data/ with what the page loads.
    """

    name = "features"
    version = 3
    config = FeaturesConfig

    def find(self, config: FeaturesConfig) -> AllInputs:
        run = find_run(config.run, config.home)
        store = store_of_run(run, config.home, config.store)
        if store.spec["inputs"].get("kind") == "pair":
            raise ConfigError(
                f"the store must hold whole text; {store.name} holds the places where tokens of "
                "two tokenizers end. Use `tendril study parts`."
            )
        if store.spec["inputs"].get("kind") != "text":
            need("the study features of images", "scipy")
            from .images import find_image_features

            return find_image_features(config, run, store)
        need("the study features of text", "transformers")
        trained, dictionary = read_config(run), load_sae(run)
        text = text_of(store)
        rows = rows_of_run(run, store, config.home)
        if isinstance(rows, PairedStores) and config.subject:
            raise ConfigError(
                "--subject must be left out for a crosscoder of two networks, whose stores say "
                "where both are."
            )
        sites = trained_sites(run, rows, dictionary.width)
        held_out = float(trained.get("held_out", BATCH_DEFAULTS["held_out"]))
        text = without_dropped(text, rows, sites, trained)
        contexts = chosen_contexts(len(text.tokens_BT), config.part, held_out, config.limit)
        if not len(contexts) or not text.valid_BT[contexts].any():
            raise ConfigError(
                f"--part must name contexts that hold a token; {config.part} of {store.name} has "
                f"none with {held_out:g} of its {len(text.tokens_BT)} contexts held out. Choose "
                "another --part, or harvest more text."
            )
        return FeatureInputs(run, trained, dictionary, store, rows, text, sites, contexts)

    def identity(self, config: FeaturesConfig, inputs: AllInputs) -> Mapping[str, Any]:
        if not isinstance(inputs, FeatureInputs):
            return inputs.identity(config)
        return {
            "dictionary": dictionary_digests([inputs.run]),
            "store": inputs.rows.name,
            "subject": inputs.store.spec["subject"],
            "sites": list(inputs.sites),
            "held_out": inputs.trained.get("held_out"),
            **dropped_identity(inputs.trained),
        }

    def remarks(self, config: FeaturesConfig, inputs: AllInputs) -> list[str]:
        if not isinstance(inputs, FeatureInputs):
            return inputs.remarks(config)
        found = text_remarks(inputs.store, inputs.text, inputs.trained, config.part)
        return found + training_warnings([inputs.run])

    def title(self, config: FeaturesConfig, inputs: AllInputs) -> str:
        sites = f"Features at {' + '.join(inputs.sites)}"
        paired = isinstance(inputs, FeatureInputs) and inputs.rows is not inputs.store
        return sites if paired else f"{sites} of {inputs.store.spec['subject']['name']}"

    def label(self, config: FeaturesConfig, inputs: AllInputs) -> str:
        return f"{inputs.store.spec['subject']['name']}-{inputs.sites[-1]}"

    def estimate(self, config: FeaturesConfig, inputs: AllInputs) -> Mapping[str, Any]:
        if not isinstance(inputs, FeatureInputs):
            return {"images": len(inputs.chosen), "latents_total": inputs.dictionary.latents}
        return {"contexts": len(inputs.contexts), "latents_total": inputs.dictionary.latents}

    def compute(
        self, config: FeaturesConfig, inputs: AllInputs, device: torch.device
    ) -> AllFindings:
        if not isinstance(inputs, FeatureInputs):
            return inputs.compute(config, device)
        from ..core.token_text import readable  # transformers, of text alone
        from ..measures.decoder_directions import writes_of

        dictionary, text, store = inputs.dictionary, inputs.text, inputs.store
        sample = max(SAMPLE, config.quantiles) if config.quantiles else 0
        length = text.tokens_BT.shape[1]
        activity = Activity(dictionary.latents, length, config.top, sample, config.window)
        watch(
            inputs.rows, inputs.sites, dictionary, text.valid_BT, inputs.contexts, activity, device
        )
        W_dec = dictionary.W_dec.detach()
        subject, writes, note = writes_of(
            inputs.rows, inputs.sites, inputs.trained, W_dec, config.subject, device
        )
        return FeatureFindings(
            run=inputs.run.resolve().name,
            store=store.name,
            subject=subject.name,
            sites=inputs.sites,
            part=config.part,
            contexts=len(inputs.contexts),
            quantiles=config.quantiles,
            text=text,
            text_of=readable(subject.tokenizer, range(subject.vocabulary)),
            activity=activity,
            promoted=writes,
            neighbours=neighbours(W_dec, NEIGHBOURS),
            norm_S=W_dec.norm(dim=1).float().cpu().numpy(),
            note=note,
        )

    def figures(self, findings: AllFindings) -> dict[str, Any]:
        return findings.figures

    def headline(self, figures: Mapping[str, Any]) -> str:
        total, unit = figures["latents_total"], "token" if "contexts" in figures else "position"
        return (
            f"{total - figures['latents_never_on']:,} of {total:,} latents are active somewhere in "
            f"{figures['rows']:,} {unit}s; on average {figures['l0']:.3g} at a {unit}."
        )

    def write_tables(self, findings: AllFindings, folder: Path) -> None:
        if not isinstance(findings, FeatureFindings):
            from . import image_page

            image_page.write_tables(findings, folder)
            return
        page.write_data(findings, folder / "data")
        rows = (findings.row(latent).values() for latent in range(findings.latents))
        write_csv(folder / "latents.csv", list(findings.row(0)), map(list, rows))

    def page(
        self, config: FeaturesConfig, inputs: AllInputs, findings: AllFindings
    ) -> Mapping[str, Any]:
        if not isinstance(findings, FeatureFindings):
            from . import image_page

            return image_page.context(findings)
        return page.context(findings)
