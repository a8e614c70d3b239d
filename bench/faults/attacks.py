"""What somebody plants in a store, a run or a folder, and the commands that then read it."""

import json
import os
import pickle  # no pickle is ever loaded here: one is made, to see that nothing loads it
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, final

from tendril.data.home import REPORT, RUN, STORE
from tendril.harvest.vision_plan import VisionPlan

from .flips import named
from .home import COMPARE, FEATURES, HARVEST, SECOND, SWEEP, TRAIN, WORDS_HARVEST, Lab
from .inputs import IMPORT
from .trial import commands

MARKER = "marker"  # written by hostile code as soon as it runs
PRECIOUS = "outside"  # a folder beside the home that nothing may touch
Lines = Sequence[Sequence[str]]


@final
@dataclass(frozen=True)
class Attack:
    """What is planted in a home, and the commands that then run, each in a home of its own."""

    name: str
    plant: Callable[[Lab], object]
    lines: Lines


class Payload:
    """Runs a program when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self._marker}",)


def evil(lab: Lab) -> str:
    """The network of the home, with code that writes the marker when it is imported."""
    network = (lab.home / "network.py").read_text()
    marker = str(lab.folder / MARKER)
    return f"{network}\nfrom pathlib import Path\n\nPath({marker!r}).write_text('ran')\n"


def plant_code(place: str, lab: Lab) -> None:
    """A store and a run of hostile code, which the store names at `place`."""
    for path in (*lab.home.glob("store/small-*"), *lab.home.glob("runs/first-*")):
        shutil.rmtree(path)
    (lab.home / "evil.py").write_text(evil(lab))
    hint = f"{place}/evil.py:network"
    words = [*HARVEST]
    words[words.index("--subject") + 1] = "evil.py:network"

    def make() -> None:
        real = VisionPlan.origin
        setattr(VisionPlan, "origin", lambda plan: {**real(plan), "subject": hint})  # noqa: B010
        commands([words, TRAIN])()

    lab.needed(make)
    target = lab.home / place
    target.mkdir(parents=True, exist_ok=True)
    (lab.home / "evil.py").rename(target / "evil.py")


def plant_model(lab: Lab) -> None:
    """The model's folder asks for code of its own."""
    folder = lab.home / "lm"
    (folder / "evil.py").write_text(evil(lab))
    for name, entry in (
        ("config.json", {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"}),
        ("tokenizer_config.json", {"AutoTokenizer": ["evil.T", None]}),
    ):
        content = json.loads((folder / name).read_text())
        changed = {"auto_map": entry, "model_type": "evil", "tokenizer_class": "Evil"}
        (folder / name).write_text(json.dumps(content | changed))


def plant_pickle(pattern: str, names: Sequence[str], lab: Lab) -> None:
    """Files of a folder are replaced by pickles, under these names."""
    content = pickle.dumps(Payload(lab.folder / MARKER))
    for folder in lab.home.glob(pattern):
        for path in (*folder.glob("*.safetensors"), *folder.glob("*.npy")):
            path.write_bytes(content)
        for name in names:
            (folder / name).write_bytes(content)


def plant_only_pickle(lab: Lab) -> None:
    """A model folder with pickled weights and no others."""
    (lab.home / "lm" / "model.safetensors").unlink()
    content = pickle.dumps(Payload(lab.folder / MARKER))
    (lab.home / "lm" / "pytorch_model.bin").write_bytes(content)


def plant_link(place: str, lab: Lab) -> None:
    """A folder or file of the home becomes a link to precious files outside."""
    path, outside = lab.home / place, lab.folder / PRECIOUS
    is_file = path.is_file()
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    path.symlink_to(outside / "metrics.csv" if is_file else outside)


def plant_half_link(lab: Lab) -> None:
    """A stopped run whose metrics lie outside, behind a link."""
    (run,) = lab.home.glob("runs/second-*")
    for name in ("result.json", "dictionary.safetensors", "metrics.csv"):
        (run / name).unlink()
    (run / "metrics.csv").symlink_to(lab.folder / PRECIOUS / "metrics.csv")


def plant_words(word: str, lab: Lab) -> None:
    """Every text in the JSON files of stores, runs and reports becomes one word."""
    for folder in ("store", "runs", "reports"):
        for path in (lab.home / folder).rglob("*.json"):
            content = json.loads(path.read_text())
            path.write_text(json.dumps(_with_words(content, word)))


def _with_words(value: Any, word: str, key: str = "") -> Any:
    """A JSON value in which names and paths are replaced; what sets types and codecs stays."""
    if isinstance(value, dict):
        return {k: _with_words(v, word, k) for k, v in value.items()}
    if isinstance(value, list):
        return [_with_words(v, word, key) for v in value]
    replaced = ("name", "path", "store", "run", "subject", "inputs", "origin", "title", "label")
    wanted = any(part in key for part in (*replaced, "headline", "home", "site", "weights"))
    return word if isinstance(value, str) and wanted else value


def attacks(lab: Lab) -> list[Attack]:
    """All attacks, on the home `exported`."""
    kept = lab.folder / "kept" / "exported"
    small = named(kept, STORE, "small")
    first, sweep = (named(kept, RUN, name) for name in ("first", "sweep"))
    compare, features = (named(kept, REPORT, name) for name in ("compare", "features"))
    deep = ("harvest", "verify", "small", "--deep", "--device", "cpu")
    deep_words = ("harvest", "verify", "words", "--deep", "--device", "cpu")
    splice = ("study", "splice", "--run", "first", "--device", "cpu", "--limit", "4")
    code = (deep, splice, ("data", "info", "small"))
    readers = (
        *(("data", "info", name) for name in (small, first, sweep, compare)),
        *(("data", "ls"), ("data", "verify", small), ("data", "stats", small)),
        *((*TRAIN, "--name", "third"), COMPARE, (*FEATURES, "--overwrite"), deep),
    )
    hostile_words = {
        "..": "../../outside/x",
        "absolute paths": str(lab.folder / PRECIOUS / "x"),
        "escapes": "\x1b]0;owned\x07\x1b[2J\r",
        "URLs": "http://127.0.0.1:9/x",
        "code references": "evil.py:network",
        "markup": "<script>alert(1)</script>{{ 7 * 7 }}",
    }
    links = (
        (f"store/{small}", _remade(small, HARVEST)),
        (f"store/{small}/activations/late/c", (*_remade(small, HARVEST), deep)),
        (f"runs/{first}", _remade(first, TRAIN)),
        (f"runs/{first}/metrics.csv", _remade(first, TRAIN)),
        (f"runs/{sweep}", _remade(sweep, SWEEP)),
        (f"reports/{compare}", _remade(compare, COMPARE)),
        (f"reports/{features}/data", _remade(features, FEATURES)),
        ("tokens", (WORDS_HARVEST, FEATURES)),
    )
    places = (f"store/{small}", f"runs/{first}", f"reports/{compare}", "store", "elsewhere")
    return [
        *(Attack(f"code in {place}", partial(plant_code, place), code) for place in places),
        Attack("model folder with code", plant_model, (WORDS_HARVEST, deep_words, FEATURES)),
        *(
            Attack(f"pickles in {pattern}", partial(plant_pickle, pattern, names), lines)
            for pattern, names, lines in (
                ("lm", ("pytorch_model.bin",), (WORDS_HARVEST, deep_words)),
                ("runs/*", ("state.pt",), (COMPARE, splice, TRAIN, SWEEP)),
                ("saelens", ("sae_weights.pt",), (IMPORT,)),
                ("tokens/*", (), (WORDS_HARVEST, (*WORDS_HARVEST, "--overwrite"))),
            )
        ),
        Attack("only pickled weights", plant_only_pickle, (WORDS_HARVEST, deep_words)),
        *(Attack(f"link at {at}", partial(plant_link, at), lines) for at, lines in links),
        Attack("stopped run behind a link", plant_half_link, (SECOND,)),
        *(
            Attack(f"{name} in names", partial(plant_words, word), readers)
            for name, word in hostile_words.items()
        ),
    ]


def _remade(name: str, words: Sequence[str]) -> Lines:
    """Remove what is there, and make it again."""
    return (("data", "rm", name, "--yes"), (*words, "--overwrite"))
