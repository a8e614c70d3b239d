"""The command that makes a store again, from what the store records."""

from pathlib import Path

from tendril.data.cli import command_line
from tendril.data.home import SCHEME
from tendril.data.store.provenance import located
from tendril.data.store.reader import Store

from .config import HarvestConfig, LanguageConfig, StoreConfig, VerifyConfig
from .fields import image_fields, text_fields
from .recipes import RECIPES


def harvest_command(store: Store) -> str:
    """`tendril harvest RECIPE ...`, with the flags that give this store; empty for a store that was
    not made by `tendril harvest`. Of local files and folders only the last part is named."""
    origin, spec = store.origin, store.spec
    text = spec["inputs"].get("kind") == "text"
    if not {"subject", "inputs"} <= origin.keys() or not (text or "count" in spec["inputs"]):
        return ""
    name = store.name.rpartition("-")[0]
    if spec["inputs"].get("kind") == "synthetic":
        from .synthetic_plan import config_of  # needs scipy

        return _shortest(config_of(spec, name=name))
    place = str(store.arrays.folder.location)
    common = {
        "inputs": _last(place, origin["inputs"]),
        "subject": _last(place, origin["subject"]),
        "sites": tuple(spec["sites"]),
        "per_input": spec["positions"].get("per_input", "all"),
        "dtype": spec["dtype"],
        "seed": spec["seed"],
        "name": name,
    }
    kind: type[StoreConfig] = LanguageConfig if text else HarvestConfig
    fields = text_fields(store) if text else image_fields(VerifyConfig(store=""), store, place)
    if not text and "weights" in origin:
        fields["weights"] = _last(place, origin["weights"])
    return _shortest(kind(**common, **fields))


def _shortest(config: StoreConfig) -> str:
    """The command with the recipe that needs the fewest flags."""
    lines = []
    for name, make in RECIPES.items():
        default = make()
        if type(default) is type(config):
            lines.append(command_line(["tendril", "harvest", name], config, default))
    return min(lines, key=len)


def _last(place: str, hint: str) -> str:
    """A name as it is; of a path that exists here, or leaves the store's folder, the last part."""
    local = located(place, hint)
    path, colon, function = local.partition(".py:")
    if colon:
        return f"{Path(path).name}.py:{function}"
    library, mark, folder = local.partition(":")
    if mark and SCHEME not in local and "/" in folder and Path(folder).is_absolute():
        return f"{library}:{Path(folder).name}"
    if Path(local).exists() or hint.startswith(".."):
        return Path(hint).name
    return hint
