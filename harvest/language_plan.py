"""The plan of a harvest of text: sites of a language model on packed contexts."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, final

import numpy as np
import torch

from tendril.data.cli import note
from tendril.data.errors import ConfigError, SubjectError
from tendril.data.home import home_folder, store_location
from tendril.data.inputs.chats import COLUMN as CHATS
from tendril.data.inputs.chats import open_chats
from tendril.data.inputs.files import irregular_files
from tendril.data.inputs.packing import NOBODY, Cut
from tendril.data.inputs.texts import open_ids, open_text
from tendril.data.inputs.tokens import (
    Contexts,
    TokenSource,
    contexts_of,
    given_ids,
    rendered,
    tokenised,
)
from tendril.data.store.dtypes import ITEM_BYTES
from tendril.data.store.folder import SCHEME
from tendril.data.store.layout import Layout, plan_layout
from tendril.data.store.spec import StoreSpec
from tendril.models.sites.hooks import recording
from tendril.models.subjects.chats import items_of_chats, template_of
from tendril.models.subjects.generate import is_self, written_by
from tendril.models.subjects.language import (
    LanguageSubject,
    full_names,
    language_subject,
)
from tendril.models.subjects.masks import Masks, masks_for, no_masks
from tendril.models.subjects.pieces import pieces_of
from tendril.models.subjects.subject import site_modules
from tendril.models.subjects.tokenise import check_known, cut_for, padded_cut, tokens_of
from tendril.models.subjects.transformers_networks import one_line

from .config import LanguageConfig
from .cost import seconds_per_pass
from .language_rows import TokenRule, language_rows
from .loop import Produce
from .plan import Plan
from .sites import split_names

CONTEXTS = 1024  # that are looked at a time
MOST_PADDING = 0.5  # fraction of the positions above which a note says so
TOKENS = "tokens"  # folder next to store/ that keeps packed text


@final
@dataclass(frozen=True)
class LanguagePlan(Plan):
    """The plan of a harvest of text."""

    config: LanguageConfig
    subject: LanguageSubject
    contexts: Contexts
    inputs_origin: str
    masks: Masks = no_masks

    @property
    def settings(self) -> LanguageConfig:
        return self.config

    def check_rows(self) -> None:
        contexts, rule = self.contexts, self.rule
        for start in range(0, len(contexts), CONTEXTS):
            some = range(start, min(start + CONTEXTS, len(contexts)))
            if contexts.kept(some, rule.skip_special, rule.skip_first).any():
                return
        raise ConfigError(
            f"a context must keep at least one token; none of {len(contexts)} contexts of "
            f"{contexts.cut.length} tokens does with --skip-first {rule.skip_first}"
            f"{' and --skip-special' if rule.skip_special else ''}. Lower --skip-first, pass "
            "--no-skip-special, or give other text."
        )

    @property
    def left_out(self) -> int:
        return self.contexts.left_out

    @property
    def rule(self) -> TokenRule:
        """The rule that chooses which positions become rows."""
        config = self.config
        return TokenRule(config.per_input, config.skip_special, config.skip_first, config.seed)

    def producer(self, inputs_per_slice: int) -> Produce:
        return language_rows(
            self.subject,
            self.contexts,
            self.spec.sites,
            self.rule,
            device=self.device,
            dtype=self.config.dtype,
            masks=self.masks,
        )

    def layout(self) -> Layout:
        config, length = self.config, self.contexts.cut.length
        per_input = length if config.per_input == "all" else config.per_input
        if not 1 <= per_input <= length:
            raise ConfigError(
                f"--per-input must be `all` or a number from 1 to {length}, the tokens of a "
                f"context; got {per_input}."
            )
        sites = self.spec.sites
        device = next(self.subject.module.parameters()).device
        tokens_BT = self._some_tokens(2).to(device)
        with recording(self.subject.module, site_modules(self.subject, sites)) as forward:
            try:
                acts, of_two = forward(tokens_BT[:1]), forward(tokens_BT[[0, -1]])
            except (RuntimeError, IndexError, ValueError, TypeError) as error:
                raise SubjectError(
                    f"{self.subject.name} must take contexts of {length} tokens; it fails on them "
                    f"({type(error).__name__}: {one_line(error)}). Give a smaller --context, or "
                    "another model."
                ) from error
        for site in sites:
            check_tokens(site, length, acts[site].shape, of_two[site].shape)
        return plan_layout(
            inputs=len(self.contexts),
            rows_per_input=per_input,
            widths={site: acts[site].shape[-1] for site in sites},
            grids=dict.fromkeys(sites, (length, 1)),
            inputs_per_slice=config.batch_size,
            compressor=config.compressor,
            item_bytes=ITEM_BYTES[config.dtype],
            columns=("position", "token", "document", *(("role",) if self.config.chat else ())),
        )

    def seconds(self, layout: Layout) -> float:
        batch = self._some_tokens(layout.inputs_per_slice).to(self.device)
        modules = site_modules(self.subject, self.spec.sites)
        seconds = seconds_per_pass(self.subject.module, modules, lambda: batch, self.device)
        return seconds / len(batch) * layout.inputs

    def origin(self) -> dict[str, str]:
        return super().origin() | {"blocks": str(self.subject.layers)}

    def sources(self) -> dict[str, str]:
        return {
            "inputs": self.inputs_origin,
            "subject": self.subject.origin,
            "column": column_of(self.config),
            **({"chat": "yes"} if self.config.chat else {}),
            **({"token_ids": "yes"} if self.config.token_ids else {}),
            **({"left_out": f"{self.left_out} rows without text"} if self.left_out else {}),
        }

    def _some_tokens(self, count: int) -> torch.Tensor:
        return torch.from_numpy(self.contexts.tokens_BT[:count].copy()).long()


def check_tokens(site: str, length: int, one: Sequence[int], two: Sequence[int]) -> None:
    """Raise SubjectError unless activations are [B, T, D] for one and for two contexts of
    `length` tokens: some layers flatten contexts and tokens into one dimension."""
    if len(one) != 3 or list(one[:2]) != [1, length] or list(two) != [2, length, one[2]]:
        raise SubjectError(
            f"activations at {site!r} must have shape [B, {length}, D] for contexts of {length} "
            f"tokens; got {list(one)} for one context and {list(two)} for two. Choose another "
            "site, such as the output of the block (resid_post.0)."
        )


def column_of(config: LanguageConfig) -> str:
    """The column of the documents."""
    return CHATS if config.chat and config.column == LanguageConfig().column else config.column


def plan_language(config: LanguageConfig, device: torch.device) -> LanguagePlan:
    """Load the model, pack the text, and fix the identity of the harvest.

    Raises ConfigError, and what `open_text` and `language_subject` raise.
    """
    _check(config)
    text = None
    if not is_self(config.inputs) and not config.token_ids and not config.chat:
        text = open_text(config.inputs, config.column, config.streaming)
    folder = Path(config.subject)
    if folder.is_dir() and (irregular := irregular_files(folder)):
        raise SubjectError(
            f"the files of the model {folder} must be regular; {irregular[0]} is a pipe, a device "
            "or a broken link. Remove it."
        )
    subject = language_subject(config.subject, config.compute)
    sites = full_names(subject, split_names(config.sites))
    site_modules(subject, sites)
    if subject.context and config.context > subject.context:
        raise ConfigError(
            f"--context must be at most {subject.context}, the tokens that {subject.name} takes; "
            f"got {config.context}."
        )
    cut = cut_for(subject, config.context)
    packing: Literal["", "alone", "apart"]
    packing = "alone" if config.pad else "apart" if config.document_mask else ""
    if packing:
        cut = padded_cut(subject, config.context, packing)
    check_known(subject, (*cut.prefix, *cut.suffix, *cut.between))
    digest = str(subject.identity["tokenizer"])
    if text:
        source = tokenised(text, tokens_of(subject), digest, pieces_of(subject))
    elif config.chat:
        template, items = template_of(subject), items_of_chats(subject)
        chats = open_chats(config.inputs, items, column_of(config), config.streaming)
        source = rendered(chats, digest, template)
        cut = replace(cut, roles=True, between=() if packing else cut.prefix)
    elif config.token_ids:
        ids = open_ids(config.inputs, subject.vocabulary, config.column, config.streaming)
        source = given_ids(ids, digest)
    else:
        source = written_by(subject, config.inputs, config.context, config.limit, device)
        cut = replace(cut, between=())  # every document fills a context
    contexts = _packed(source, cut, config)
    if subject.beyond:  # the text may have been packed for a model that has these tokens
        check_known(subject, [int(contexts.tokens_BT.max())])
    everywhere = config.per_input == "all"
    drawn = {"rule": "uniform", "per_input": config.per_input}
    spec = StoreSpec(
        subject=subject.identity,
        inputs={
            "kind": "text",
            "contexts": len(contexts),
            "context": config.context,
            "digest": contexts.digest,
            "skip_special": config.skip_special,
            "skip_first": config.skip_first,
            **({"packing": packing} if packing else {}),
        },
        sites=sites,
        positions={"rule": "all"} if everywhere else drawn,
        seed=0 if everywhere else config.seed,
        dtype=config.dtype,
    )
    name = f"{subject.name}-{Path(source.origin).stem}"
    masks = _masks(subject, contexts, sites, device) if packing else no_masks
    _say_padding(contexts)
    return LanguagePlan(spec, name, device, config, subject, contexts, source.origin, masks)


def _check(config: LanguageConfig) -> None:
    """Raise ConfigError for fields that are out of range or contradict each other."""
    if config.skip_first < 0:
        raise ConfigError(
            f"--skip-first must be a whole number of at least 0; got {config.skip_first}."
        )
    if not config.subject:
        raise ConfigError(
            "--subject must be the folder of a language model, its name on the Hugging Face hub, "
            "or package:NAME; got nothing."
        )
    if config.pad and config.document_mask:
        raise ConfigError(
            "--document-mask is for documents that share a context; with --pad each has contexts "
            "of its own. Leave one of them out."
        )
    if config.chat and (config.token_ids or is_self(config.inputs)):
        other = "--token-ids" if config.token_ids else f"--inputs {config.inputs}"
        raise ConfigError(
            f"--chat needs a dataset or .jsonl files of chats; got {other} with it. Leave one of "
            "them out."
        )


def _say_padding(contexts: Contexts) -> None:
    """Note a context that is much longer than the documents in it."""
    text = (contexts.documents_BT[:CONTEXTS] != NOBODY).sum(axis=1)
    fraction = 1 - text.mean() / contexts.cut.length
    if len(contexts) > 1 and fraction > MOST_PADDING:
        note(
            f"{fraction:.0%} of the positions are padding; nine of ten contexts have at most "
            f"{np.quantile(text, 0.9):.0f} tokens. A smaller --context takes less time and disk."
        )


def _masks(
    subject: LanguageSubject, contexts: Contexts, sites: Sequence[str], device: torch.device
) -> Masks:
    """The masks that the network needs to leave out padding and to read documents apart."""
    some = slice(0, CONTEXTS)
    words = contexts.tokens_BT[some][contexts.documents_BT[some] != NOBODY]
    tokens_T = np.resize(words, contexts.cut.length).tolist()  # repeated if there are few
    module, packing = subject.module.to(device), contexts.cut.packing
    assert packing != "joined"
    with recording(module, site_modules(subject, sites)) as forward, torch.inference_mode():
        return masks_for(
            subject, packing, tokens_T, lambda tokens_BT, named: forward(tokens_BT, **named)
        )


def _packed(source: TokenSource, cut: Cut, config: LanguageConfig) -> Contexts:
    """The contexts, kept in tokens/ next to store/, or in the current folder if that is at a URL.

    A dry run leaves nothing behind: it packs into a temporary folder, whose files stay mapped
    into memory after they are removed.
    """
    if config.dry_run:
        with tempfile.TemporaryDirectory() as scratch:
            return contexts_of(source, cut, config.limit, Path(scratch))
    remote = SCHEME in store_location("", config.home)
    folder = Path(TOKENS) if remote else home_folder(config.home) / TOKENS
    return contexts_of(source, cut, config.limit, folder)
