"""`tendril train export RUN FOLDER` and `import FOLDER`: runs to and from SAELens."""

import hashlib
import shlex
from pathlib import Path
from typing import Any

from torch import Tensor

from tendril.data.cli import Outcome
from tendril.data.errors import ConfigError
from tendril.data.group.dihedral import Dihedral
from tendril.data.home import find_run, runs_folder
from tendril.data.store.atomic import check_not_link, locked, remove_asides
from tendril.data.store.spec import slug
from tendril.models.dictionaries.checkpoint import (
    CONFIG,
    DICTIONARY,
    LATENTS,
    RESULT,
    check_files,
    load_frequency,
    load_sae,
    read_config,
    save_dictionary,
    write_figures,
)
from tendril.models.dictionaries.sae import SAE
from tendril.models.dictionaries.saelens import (
    CFG,
    WEIGHTS,
    cfg_entry,
    export_saelens,
    import_saelens,
    read_frequency,
)

from .config import run_label


def export_run(wanted: str | Path, target: str | Path, home: str = "") -> Outcome:
    """Write the dictionary of a run to a folder in the format of SAELens.

    Raises RunNotFoundError, RunDamagedError, and ConfigError for a crosscoder, which the format
    cannot hold, and for a folder that holds a dictionary already.
    """
    run = find_run(wanted, home)
    trained = read_config(run)
    if group := trained.get("group"):
        raise ConfigError(
            "the run must be a dictionary of single vectors, as the format of SAELens is; "
            f"{run.name} is a crosscoder of the elements of {Dihedral(**group).name}. Export "
            "another run."
        )
    if len(trained.get("sites") or ()) > 1:
        raise ConfigError(
            "the run must be a dictionary of one site, as the format of SAELens is; "
            f"{run.name} is a crosscoder of the sites {', '.join(trained['sites'])}. Export "
            "another run."
        )
    metadata = {
        "model_name": (trained.get("subject") or {}).get("name"),
        "hook_name": trained.get("site"),
        "trained_by": "tendril",
        "run": run.resolve().name,
    }
    frequency_S = load_frequency(run) if (run / LATENTS).exists() else None
    sae = load_sae(run)
    folder = export_saelens(sae, Path(target), metadata, frequency_S)
    return Outcome(
        {"exported": str(folder), "run": str(run), "width": sae.width, "latents": sae.latents},
        f"Exported {run.name} for SAELens: {sae.latents} latents of width {sae.width}; {folder}",
        f"python -c \"from sae_lens import SAE; SAE.load_from_disk('{folder}')\"",
    )


def import_run(
    folder: str | Path, name: str = "", scale: float | None = None, home: str = ""
) -> Outcome:
    """Make a run from a dictionary in the format of SAELens, or return the one that exists.

    Raises RunNotFoundError, RunDamagedError, and ConfigError for what cannot be read.
    """
    folder = Path(folder)
    sae, cfg = import_saelens(folder, scale)
    parts = [(folder / file).read_bytes() for file in (CFG, WEIGHTS)]
    digest = hashlib.sha256(b"".join([*parts, repr(scale).encode()])).hexdigest()
    site = cfg_entry(cfg, "hook_name")
    name = slug(name or f"imported-{site or folder.resolve().name}")
    run = runs_folder(home) / f"{name}-{digest[:12]}"
    reused = (run / RESULT).exists()
    if reused:
        check_files(run)
    if not reused:
        _write(run, name, site or "", sae, cfg, scale, read_frequency(folder))
    return Outcome(
        {
            "run": str(run),
            "site": site,
            "width": sae.width,
            "latents": sae.latents,
            "reused": reused,
        },
        f"{'Already there' if reused else 'Imported'}: {sae.latents} latents of width {sae.width}, "
        f"on {site or 'an unknown site'}; {run}",
        shlex.join(["tendril", "data", "info", run.name, *(("--home", home) if home else ())]),
    )


def _write(
    run: Path,
    name: str,
    site: str,
    sae: SAE,
    cfg: dict[str, Any],
    scale: float | None,
    frequency_S: Tensor | None,
) -> None:
    check_not_link(run)
    run.mkdir(parents=True, exist_ok=True)
    written = {
        "name": name,
        "objective": cfg.get("architecture", "standard"),
        "site": site,
        "store": "",
        "subject": {"name": cfg_entry(cfg, "model_name") or ""},
        "width": sae.width,
        "latents": sae.latents,
        "scale": scale,
        "imported": cfg,
    }
    label, parameters = run_label(written), sum(p.numel() for p in sae.parameters())
    figures = {"label": label, "store": "", "site": site, "parameters": parameters}
    with locked(run, wait=True):
        remove_asides(run)
        save_dictionary(run, sae, {"label": label, **written}, frequency_S)
        write_figures(run, figures, (CONFIG, DICTIONARY, LATENTS))
