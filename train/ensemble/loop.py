"""Train the members of an ensemble, and write them as one run."""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from tendril.data.cli import Outcome, note, scalars
from tendril.data.device import resolve_device
from tendril.data.errors import ConfigError
from tendril.data.home import runs_folder
from tendril.data.store.atomic import check_not_link
from tendril.data.store.spec import canonical_json, slug
from tendril.models.dictionaries.checkpoint import (
    CONFIG,
    DICTIONARY,
    LATENTS,
    RESULT,
    load_sae,
    read_config,
    read_figures,
    save_dictionary,
    write_figures,
)
from tendril.models.dictionaries.ensemble import bagged, boosted

from ..config import where_of
from ..distributed import refuse_launch
from ..left import moments_left
from ..loop import TrainResult, next_command, only_trainer, read_result, run_folder, train_on
from ..metrics import evaluate
from ..sweep.config import SweepConfig
from ..sweep.sweep import sweep
from ..vectors import SAMPLE, Left, Source, source_of, store_of
from .config import EnsembleConfig


@final
@dataclass(frozen=True)
class EnsembleResult:
    """A finished ensemble. `members` are the names of the runs it is made of."""

    result: TrainResult
    members: tuple[str, ...]

    def outcome(self, home: str = "") -> Outcome:
        """What the command prints."""
        one, trained = self.result, read_config(self.result.run)
        verb = "Already there:" if one.reused else "Trained"
        return Outcome(
            scalars({**one.summary(), "members": len(self.members)}),
            f"{verb} {trained['label']} of {one.store}: FVU {one.fvu:.3g}, {one.l0:.1f} latents "
            f"active, {100 * one.dead:.1f} % dead; {one.run}",
            next_command(trained, one.run.name, home),
        )


def train_ensemble(config: EnsembleConfig) -> EnsembleResult:
    """Train the members that do not exist yet, and make their ensemble.

    The ensemble's folder is `<home>/runs/<name>-<12 hex of what determines its members>`. FVU and
    L0 are those of the ensemble on held-out vectors. Raises ConfigError, and what `train` raises.
    """
    config.check()
    refuse_launch("an ensemble")
    began = time.monotonic()
    source = source_of(config.member(0), store_of(config.base))
    if len(source.sites) > 1 or source.group:
        raise ConfigError(
            "an ensemble must be of single vectors of one site; got "
            f"{'orbits' if source.group else ' and '.join(source.sites)}. Choose one --site of a "
            "store of single vectors."
        )
    runs = _bagging(config, source) if config.how == "bagging" else _boosting(config, source)
    names = tuple(run.name for run in runs)
    run = _folder(config, source, names)
    check_not_link(run)
    run.mkdir(parents=True, exist_ok=True)
    with only_trainer(run, overwrite=config.base.overwrite):
        if (run / RESULT).exists():
            note(f"{run} exists already.")
            return EnsembleResult(replace(read_result(run), reused=True), names)
        _write(config, source, runs, run, began)
    return EnsembleResult(read_result(run), names)


def _bagging(config: EnsembleConfig, source: Source) -> list[Path]:
    """Members that differ in their seed, in one pass."""
    members = [config.member(number) for number in range(config.members)]
    base = replace(members[0], dry_run=False)
    seeds = tuple(member.seed for member in members)
    sweep(SweepConfig((config.objective,), (), (), seeds, base=base))
    return [run_folder(member, source) for member in members]


def _boosting(config: EnsembleConfig, source: Source) -> list[Path]:
    """Members one after another, each on what the ones before it leave."""
    runs: list[Path] = []
    for number in range(config.members):
        left = replace(source, left=_left(source, runs)) if runs else source
        names = [run.name for run in runs]  # which the digests of all that determines them are in
        member = config.member(number)
        if runs:  # no dictionary of the site's own vectors
            usual = f"{member.objective}-{source.name}"
            member = replace(member, name=f"{member.name or usual}-left-by-{number}")
        member.check(left.width)
        runs.append(train_on(member, left, names).run)
    return runs


def _left(source: Source, runs: Sequence[Path]) -> Left:
    """What the sum of some members leaves of the vectors."""
    whole = boosted([load_sae(run) for run in runs])

    @torch.no_grad()
    def of(x_ND: Tensor) -> Tensor:
        found: Tensor = x_ND - whole.to(x_ND.device)(x_ND)
        return found

    return Left(of, moments_left(source.store, source.sites[0], of, SAMPLE))


def _folder(config: EnsembleConfig, source: Source, names: Sequence[str]) -> Path:
    identity = {"kind": "ensemble", "how": config.how, "members": list(names)}
    digest = hashlib.sha256(canonical_json(identity).encode()).hexdigest()
    usual = f"{config.how}-{config.objective}-{source.name}"
    name = slug(f"{config.base.name}-{config.how}" if config.base.name else usual)
    return runs_folder(config.base.home) / f"{name}-{digest[:12]}"


def _write(
    config: EnsembleConfig, source: Source, runs: Sequence[Path], run: Path, began: float
) -> None:
    saes, device = [load_sae(member) for member in runs], resolve_device(config.base.device)
    made = (bagged if config.how == "bagging" else boosted)(saes).to(device)
    trained = read_config(runs[0])
    base = asdict(config.member(0))
    held = evaluate(made, source.once(config.member(0), device), config.base.eval_rows)
    size = saes[0].latents
    about: dict[str, Any] = {
        **trained,
        "label": f"{config.how} of {len(runs)} {trained['label'].split(',')[0]}, "
        f"{where_of(trained)}",
        "objective": config.objective,
        "latents": made.latents,
        "seed": base["seed"],
        **({"k": trained["k"] * len(runs)} if saes[0].sparsity.k else {}),
        "ensemble": {"how": config.how, "members": [one.name for one in runs], "size": size},
    }
    save_dictionary(run, made.cpu(), about, held.frequency_S)
    figures = [read_figures(member) for member in runs]
    write_figures(
        run,
        {
            "label": about["label"],
            "store": source.store.name,
            "site": source.name,
            "fvu": held.fvu,
            "fvu_without_outliers": None,
            "fvu_train": None,
            "l0": held.l0,
            "dead": float((held.frequency_S == 0).double().mean()),
            "parameters": sum(p.numel() for p in made.parameters()),
            "steps": sum(one["steps"] for one in figures),
            "vectors": sum(one["vectors"] for one in figures),
            "eval_rows": held.rows,
            "seconds": round(time.monotonic() - began, 3),
        },
        (CONFIG, DICTIONARY, LATENTS),
    )
