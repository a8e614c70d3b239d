"""Which format a folder or file has, and its dictionary."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tendril.data.errors import ConfigError, RunNotFoundError

from ..saelens import CFG as SAELENS_CFG
from ..saelens import SPARSITY, cfg_entry, import_saelens, read_frequency
from ..saelens import WEIGHTS as SAELENS_WEIGHTS
from .dictionary_learning import is_dictionary_learning, read_dictionary_learning
from .files import Imported, read_weights
from .gemma_scope import is_gemma_scope, read_gemma_scope
from .openai import has_openai_keys, read_openai
from .overcomplete import has_overcomplete_keys, read_overcomplete
from .sparsify import is_sparsify, read_sparsify
from .visaebench import CONFIGS as VISAEBENCH_CONFIGS
from .visaebench import WEIGHTS as VISAEBENCH_WEIGHTS
from .visaebench import is_visaebench, read_visaebench

FILES = {  # what a folder of each format holds
    "saelens": "cfg.json and sae_weights.safetensors",
    "sparsify": "cfg.json and sae.safetensors",
    "dictionary_learning": "ae.pt and config.json",
    "gemma_scope": "params.npz",
    "visaebench": "config.json and sae.pt or model.safetensors",
}
ONE_FILE = ("openai", "overcomplete")  # formats of a single file
FORMATS = (*FILES, *ONE_FILE)
SUFFIXES = (".pt", ".pth", ".safetensors")
DOWNLOADED = (  # from a folder on the hub
    *(SAELENS_CFG, SAELENS_WEIGHTS, SPARSITY, "sae.safetensors", "ae.pt", "params.npz"),
    *(*VISAEBENCH_CONFIGS, *VISAEBENCH_WEIGHTS),
)


def read_dictionary(
    place: Path,
    format: str = "",
    *,
    scale: float | None = None,
    k: int | None = None,
    threshold: float | None = None,
    normalised: bool = False,
) -> Imported:
    """The dictionary in a folder or file of any of FORMATS; `format` says which, or is found.

    `scale`, `k`, `threshold` and `normalised` are what a file may lack: see the formats. Raises
    RunNotFoundError, RunDamagedError and ConfigError.
    """
    if not place.exists():
        raise RunNotFoundError(f"the dictionary must be a folder or a file; there is no {place}.")
    found = format or find_format(place)
    for name, given, users in (
        ("scale", scale is not None, ("saelens",)),
        ("k", k is not None, ("overcomplete",)),
        ("threshold", threshold is not None, ("overcomplete",)),
        ("normalised", normalised, ("openai",)),
    ):
        if given and found not in users:
            raise ConfigError(
                f"--{name} is a flag for the format {users[0]}; {place} has the format {found}. "
                "Leave it out."
            )
    if found in ONE_FILE:
        read = read_openai if found == "openai" else read_overcomplete
        return read(one_file(place), k=k, threshold=threshold, normalised=normalised)
    if place.is_file():
        place = place.parent
    if found == "saelens":
        return _read_saelens(place, scale)
    is_one, read_folder = FOLDERS[found]
    if not is_one(place):
        raise RunNotFoundError(
            f"a dictionary of the format {found} must be a folder with {FILES[found]}; {place} is "
            "not one. Check the path, or leave out --format."
        )
    return read_folder(place)


FOLDERS: dict[str, tuple[Callable[[Path], bool], Callable[..., Imported]]] = {
    "sparsify": (is_sparsify, read_sparsify),
    "dictionary_learning": (is_dictionary_learning, read_dictionary_learning),
    "gemma_scope": (is_gemma_scope, read_gemma_scope),
    "visaebench": (is_visaebench, read_visaebench),
}


def find_format(place: Path) -> str:
    """The format of a folder, by the names of its files, or of a file, by its entries.

    Raises RunNotFoundError if it has none of FORMATS.
    """
    folder = place.parent if place.is_file() else place
    if not place.is_file() or place.name in NAMED:
        if (folder / SAELENS_CFG).is_file() and (folder / SAELENS_WEIGHTS).is_file():
            return "saelens"
        for name, (is_one, _) in FOLDERS.items():
            if is_one(folder):
                return name
        if (folder / SAELENS_CFG).is_file() or (folder / SAELENS_WEIGHTS).is_file():
            return "saelens"  # half of one; its reader says what is missing
    if (path := only_file(place)) is not None:
        state: dict[str, Any] = read_weights(path)
        if has_openai_keys(state):
            return "openai"
        if has_overcomplete_keys(state):
            return "overcomplete"
    listed = "; ".join(f"{name}: {files}" for name, files in FILES.items())
    raise RunNotFoundError(
        f"{place} must hold a dictionary of a known format ({listed}; openai and overcomplete: a "
        "file with a state dict); it holds none. Check the path."
    )


NAMED = ("cfg.json", "config.json", "params.npz", "ae.pt", "sae.safetensors", SAELENS_WEIGHTS)


def only_file(place: Path) -> Path | None:
    """A file itself, or the only one in a folder that may hold a state dict."""
    if place.is_file():
        return place
    files = sorted(p for p in place.iterdir() if p.suffix in SUFFIXES and p.is_file())
    return files[0] if len(files) == 1 else None


def one_file(place: Path) -> Path:
    """`only_file`. Raises RunNotFoundError if there is none, or several."""
    path = only_file(place)
    if path is None:
        raise RunNotFoundError(
            f"{place} must be a file with a state dict, or a folder with just one "
            f"({', '.join(SUFFIXES)}). Give the path of the file."
        )
    return path


def _read_saelens(folder: Path, scale: float | None) -> Imported:
    sae, cfg = import_saelens(folder, scale)
    model, site = cfg_entry(cfg, "model_name"), cfg_entry(cfg, "hook_name")
    return Imported(
        "saelens",
        sae,
        cfg,
        (folder / SAELENS_CFG, folder / SAELENS_WEIGHTS),
        model=str(model or ""),
        site=str(site or ""),
        frequency_S=read_frequency(folder),
    )
