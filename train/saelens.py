"""`tendril train export RUN FOLDER` and `import FOLDER`: runs from and for SAELens."""

import hashlib
from pathlib import Path
from typing import Any

from tendril.data.cli import note
from tendril.data.errors import ConfigError
from tendril.data.group.dihedral import Dihedral
from tendril.data.home import find_run, runs_folder
from tendril.data.store.spec import slug
from tendril.models.dictionaries.checkpoint import (
    DICTIONARY,
    LATENTS,
    load_frequency,
    load_sae,
    read_config,
    save_dictionary,
)
from tendril.models.dictionaries.saelens import (
    CFG,
    WEIGHTS,
    export_saelens,
    import_saelens,
    read_frequency,
    told,
)

from .commands import ExportConfig, ImportConfig


def export_run(config: ExportConfig) -> dict[str, Any]:
    """Write the dictionary of a run into a folder in SAELens' format.

    Raises RunNotFoundError, RunDamagedError, and ConfigError for a crosscoder, which that
    format does not know, and where the folder holds a dictionary already.
    """
    run = find_run(config.run, config.home)
    trained = read_config(run)
    if group := trained.get("group"):
        raise ConfigError(
            f"{run.name} is a crosscoder of the elements of {Dihedral(**group).name}, and "
            "SAELens' format is for single vectors; export a dictionary of one site."
        )
    if len(trained.get("sites") or ()) > 1:
        raise ConfigError(
            f"{run.name} is a crosscoder of the sites {', '.join(trained['sites'])}, and "
            "SAELens' format is for one site; export a dictionary of one site."
        )
    metadata = {
        "model_name": (trained.get("subject") or {}).get("name"),
        "hook_name": trained.get("site"),
        "trained_by": "tendril",
        "run": run.resolve().name,
    }
    frequency_S = load_frequency(run) if (run / LATENTS).exists() else None
    sae = load_sae(run)
    folder = export_saelens(sae, Path(config.folder), metadata, frequency_S)
    return {"exported": str(folder), "run": str(run), "width": sae.width, "latents": sae.latents}


def import_run(config: ImportConfig) -> dict[str, Any]:
    """Make a run of a dictionary in SAELens' format; one that is there is given back.

    Raises RunNotFoundError, RunDamagedError, and ConfigError for what cannot be read.
    """
    folder = Path(config.folder)
    scale = config.scale or None
    sae, cfg = import_saelens(folder, scale)
    parts = [(folder / name).read_bytes() for name in (CFG, WEIGHTS)]
    digest = hashlib.sha256(b"".join([*parts, repr(scale).encode()])).hexdigest()
    site = told(cfg, "hook_name")
    name = slug(config.name or f"imported-{site or folder.resolve().name}")
    run = runs_folder(config.home) / f"{name}-{digest[:12]}"
    made = {"run": str(run), "site": site, "width": sae.width, "latents": sae.latents}
    if (run / DICTIONARY).exists():
        note(f"{run} is there already.")
        return {**made, "reused": True}
    run.mkdir(parents=True, exist_ok=True)
    trained = {
        "name": name,
        "objective": cfg.get("architecture", "standard"),
        "site": site or "",
        "store": "",
        "subject": {"name": told(cfg, "model_name") or ""},
        "width": sae.width,
        "latents": sae.latents,
        "scale": scale,
        "imported": cfg,
    }
    save_dictionary(run, sae, trained, read_frequency(folder))
    return {**made, "reused": False}
