"""`tendril train export RUN FOLDER` and `import FOLDER`: runs to and from other tools."""

import hashlib
import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from tendril.data.cli import Outcome
from tendril.data.errors import ConfigError
from tendril.data.group.dihedral import Dihedral
from tendril.data.home import find_run, runs_folder
from tendril.data.hub.address import is_hub
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
from tendril.models.dictionaries.formats.files import Imported
from tendril.models.dictionaries.formats.reading import DOWNLOADED, FORMATS, read_dictionary
from tendril.models.dictionaries.formats.visaebench import export_visaebench
from tendril.models.dictionaries.saelens import export_saelens

from .config import run_label

ExportFormat = Literal["saelens", "visaebench"]
LARGEST_THRESHOLD = 1e30  # beyond this float32 may overflow
TOOLS = {"saelens": "SAELens", "visaebench": "ViSAEBench"}
OPENED_BY = {
    "saelens": "from sae_lens import SAE; SAE.load_from_disk('{}')",
    "visaebench": "from visaebench.hub import load_sae; load_sae('{}', device='cpu')",
}


def export_run(
    wanted: str | Path, target: str | Path, home: str = "", format: str = "saelens"
) -> Outcome:
    """Write the dictionary of a run to a folder in the format of SAELens or ViSAEBench.

    Raises RunNotFoundError, RunDamagedError, and ConfigError for a crosscoder, which the formats
    cannot hold, and for a folder that holds a dictionary already.
    """
    if format not in TOOLS:
        known = " or ".join(get_args(ExportFormat))
        raise ConfigError(f"--format of an export must be {known}; got {format!r}.")
    run, tool = find_run(wanted, home), TOOLS[format]
    trained = read_config(run)
    if group := trained.get("group"):
        raise ConfigError(
            f"the run must be a dictionary of single vectors, as the format of {tool} is; "
            f"{run.name} is a crosscoder of the elements of {Dihedral(**group).name}. Export "
            "another run."
        )
    if len(trained.get("sites") or ()) > 1:
        raise ConfigError(
            f"the run must be a dictionary of one site, as the format of {tool} is; "
            f"{run.name} is a crosscoder of the sites {', '.join(trained['sites'])}. Export "
            "another run."
        )
    metadata: dict[str, Any] = {"trained_by": "tendril", "run": run.resolve().name}
    model, site = (trained.get("subject") or {}).get("name"), trained.get("site")
    sae = load_sae(run)
    if sae.residual or (sae.sparsity.parts > 1 and not sae.sparsity.elementwise):
        raise ConfigError(
            f"the run must be a dictionary with one choice of active latents, as the format of "
            f"{tool} is; {run.name} is an ensemble, whose members choose by themselves. Export its "
            "members, which config.json names, or a bagging of ReLU or JumpReLU members."
        )
    if format == "saelens":
        frequency_S = load_frequency(run) if (run / LATENTS).exists() else None
        metadata = {"model_name": model, "hook_name": site, **metadata}
        folder = export_saelens(sae, Path(target), metadata, frequency_S)
    else:
        metadata = {"model_name": model, "site": site, **metadata}
        folder = export_visaebench(sae, Path(target), metadata)
    return Outcome(
        {"exported": str(folder), "run": str(run), "width": sae.width, "latents": sae.latents},
        f"Exported {run.name} for {tool}: {sae.latents} latents of width {sae.width}; {folder}",
        f'python -c "{OPENED_BY[format].format(folder)}"',
    )


def import_run(
    place: str | Path,
    name: str = "",
    scale: float | None = None,
    home: str = "",
    *,
    format: str = "",
    k: int | None = None,
    threshold: float | None = None,
    normalised: bool = False,
) -> Outcome:
    """Make a run from a dictionary that another tool wrote, or return the run that exists.

    The format is found by the files, or given. `place` is a folder, a file, or a folder on the hub
    (hf://user/repository/folder). Raises RunNotFoundError, RunDamagedError, and
    ConfigError for what cannot be read.
    """
    if format and format not in FORMATS:
        raise ConfigError(f"--format must be one of {', '.join(FORMATS)}; got {format!r}.")
    if k is not None and k < 0:
        raise ConfigError(f"--k must be 0 or more; got {k}.")
    if threshold is not None and not abs(threshold) < LARGEST_THRESHOLD:
        raise ConfigError(f"--threshold must be a finite number; got {threshold}.")
    text, place = str(place), Path(place)
    if is_hub(text):
        from tendril.data.hub.places import cached_folder  # not needed for a local folder

        place = cached_folder(text, DOWNLOADED)
    found = read_dictionary(
        place, format, scale=scale, k=k, threshold=threshold, normalised=normalised
    )
    parts = [path.read_bytes() for path in found.files]
    given = scale if found.format == "saelens" else (found.format, k, threshold, normalised)
    digest = hashlib.sha256(b"".join([*parts, repr(given).encode()])).hexdigest()
    called = text.rpartition("/")[2] if is_hub(text) else place.resolve().stem
    name = slug(name or f"imported-{found.site or called}")
    run = runs_folder(home) / f"{name}-{digest[:12]}"
    reused = (run / RESULT).exists()
    if reused:
        check_files(run)
    if not reused:
        _write(run, name, found, scale)
    sae = found.sae
    return Outcome(
        {
            "run": str(run),
            "format": found.format,
            "site": found.site or None,
            "width": sae.width,
            "latents": sae.latents,
            "reused": reused,
        },
        f"{'Already there' if reused else 'Imported'} ({found.format}): {sae.latents} latents of "
        f"width {sae.width}, on {found.site or 'an unknown site'}; {run}",
        shlex.join(["tendril", "data", "info", run.name, *(("--home", home) if home else ())]),
    )


def plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config as JSON: other values become text, NaN and infinities null; keys that JSON lacks
    are left out."""
    text = json.dumps(config, default=str, skipkeys=True)
    kept: dict[str, Any] = json.loads(text, parse_constant=lambda _: None)
    return kept


def _objective(found: Imported) -> str:
    if found.format == "saelens":
        return str(found.config.get("architecture", "standard"))
    return found.sae.sparsity.name


def _write(run: Path, name: str, found: Imported, scale: float | None) -> None:
    check_not_link(run)
    run.mkdir(parents=True, exist_ok=True)
    sae = found.sae
    written: dict[str, Any] = {
        "name": name,
        "objective": _objective(found),
        "site": found.site,
        "store": "",
        "subject": {"name": found.model},
        "width": sae.width,
        "latents": sae.latents,
        "scale": scale,
        "imported": plain(found.config),
        "imported_from": found.format,
    }
    label, parameters = run_label(written), sum(p.numel() for p in sae.parameters())
    figures = {"label": label, "store": "", "site": found.site, "parameters": parameters}
    with locked(run, wait=True):
        remove_asides(run)
        save_dictionary(run, sae, {"label": label, **written}, found.frequency_S)
        write_figures(run, figures, (CONFIG, DICTIONARY, LATENTS))
