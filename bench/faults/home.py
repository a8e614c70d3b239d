"""The small home that faults are put into: images, text, two networks, and what is made of them.

All paths in commands are relative to the home, which lies at one path in every trial: what is
made is the same bit for bit each time.
"""

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, final

import numpy as np
from PIL import Image

from tendril.data import _torchvision  # noqa: F401  before transformers asks for torchvision

# isort: split
from tendril.data.cli import note, progress_bar
from tendril.data.store.layout import plan_layout
from tendril.harvest import vision_plan

from .trial import LIMIT, Trial, attempt, commands

NETWORK = '''"""Two convolutions on 32 pixels."""

import torch
from torch import nn

from tendril.models.subjects.module import subject_from_module


def network():
    generator = torch.Generator().manual_seed(0)
    stack = nn.Sequential()
    stack.add_module("early", nn.Conv2d(3, 6, 3, stride=2, padding=1))
    stack.add_module("late", nn.Conv2d(6, 10, 3, stride=2, padding=1))
    for parameter in stack.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    return subject_from_module(stack, input_size=32, name="small")
'''
IMAGES, SHARD_INPUTS, SHARDS, WORDS = 10, 4, 3, 40
ONE = ("--device", "cpu", "--threads", "1")
SMALL = ("--latents", "16", "--k", "4", "--batch-size", "16", "--held-out", "0.2")
STEPS = ("--steps", "12", "--checkpoint-every", "4", "--eval-every", "6")
HARVEST = (
    *("harvest", "images", "--name", "small", "--subject", "network.py:network"),
    *("--inputs", "photos", "--sites", "late", "early", "--per-input", "12"),
    *("--batch-size", "2", *ONE),
)
WORDS_HARVEST = (
    *("harvest", "language", "--name", "words", "--subject", "lm", "--inputs", "text.txt"),
    *("--sites", "resid_post.1", "--context", "16", "--limit", "10", "--batch-size", "2", *ONE),
)
TRAIN = (
    *("train", "topk", "--store", "small", "--site", "late", "--name", "first", *SMALL, *STEPS),
    *ONE,
)
SECOND = (*TRAIN, "--name", "second", "--seed", "1")
JUMP = (
    *("train", "jumprelu", "--store", "words", "--name", "jump", "--latents", "16"),
    *("--batch-size", "16", "--held-out", "0.2", *STEPS, *ONE),
)
SWEEP = (
    *("train", "sweep", "--store", "small", "--site", "early", "--objectives", "topk"),
    *("--sizes", "12", "--sparsities", "k=2,3", "--steps", "8", "--batch-size", "16"),
    *("--held-out", "0.2", "--checkpoint-every", "3", *ONE),
)
COMPARE = ("study", "compare", "--run", "first", "second", "--device", "cpu")
FEATURES = ("study", "features", "--run", "jump", "--device", "cpu")
EXPORT = ("train", "export", "first", "saelens")
REMOVE_RUN = ("data", "rm", "second", "--yes")
MADE = (HARVEST, WORDS_HARVEST, TRAIN, SECOND, JUMP, SWEEP, COMPARE, FEATURES)
NEVER_IMPORTED = ("__main__", "_pytest", "pytest")


@final
@dataclass(frozen=True)
class Lab:
    """The folders of a bench: `home`, where trials run, and `kept`, what it begins as."""

    folder: Path
    budget: float = 0.0
    """Seconds for each class of faults; 0 for as long as it takes."""

    def numbers(self, count: int, name: str, share: float = 1.0) -> Iterator[int]:
        """Count trials, until there are `count` or their share of the budget is used."""
        began = time.monotonic()
        for number in progress_bar(range(count), desc=name):
            if self.budget and time.monotonic() - began > share * self.budget:
                note(f"{name}: {number} of {count} tried in the budget.")
                return
            yield number

    @property
    def home(self) -> Path:
        """The home of the trial that runs now."""
        return self.folder / "home"

    def keep(self, name: str) -> None:
        """Keep the home as it is, under a name."""
        shutil.rmtree(self.folder / "kept" / name, ignore_errors=True)
        shutil.copytree(self.home, self.folder / "kept" / name, symlinks=True)

    def restore(self, name: str) -> None:
        """Make the home what was kept under a name."""
        shutil.rmtree(self.home, ignore_errors=True)
        shutil.copytree(self.folder / "kept" / name, self.home, symlinks=True)

    def run(
        self,
        action: Callable[[], object],
        limit: float = LIMIT,
        guard: Callable[[], object] | None = None,
    ) -> Trial:
        """Run an action in the home, with a guard installed just before it."""

        def before() -> None:
            os.fsync = no_sync
            small_shards()
            if guard is not None:
                guard()

        return attempt(action, self.home, limit=limit, before=before)

    def needed(
        self, action: Callable[[], object], guard: Callable[[], object] | None = None
    ) -> Trial:
        """Run an action that must succeed; it takes part in preparing the bench."""
        done = self.run(action, 300, guard)
        assert done.kind == "done", f"the bench cannot be prepared: {done.kind}: {done.text}"
        return done


def no_sync(fd: Any) -> None:
    """Takes the place of fsync: nothing here has to outlive a stop of the machine."""


def small_shards() -> None:
    """Shards of a few inputs, so that small stores have several."""
    defaults = plan_layout.__kwdefaults__
    assert defaults is not None
    defaults["shard_inputs"] = vars(vision_plan)["SHARD_INPUTS"] = SHARD_INPUTS


def quiet(folder: Path) -> None:
    """Keep this process and its children on one thread, off the network and in `folder`."""
    import torch

    torch.set_num_threads(1)
    os.environ |= {
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HUB_OFFLINE": "1",
        "XDG_STATE_HOME": str(folder / "state"),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "MPLCONFIGDIR": str(folder / "cache"),
    }
    for name in ("TENDRIL_HOME", "TENDRIL_CACHE", "RANK", "WORLD_SIZE"):
        os.environ.pop(name, None)


def prepare(folder: Path, budget: float = 0.0) -> Lab:
    """Make the home in a child, keep it as `inputs` and `made`, and import what that needed."""
    lab = Lab(folder, budget)
    quiet(folder)
    lab.home.mkdir(parents=True)
    lab.needed(lambda: write_inputs(Path()))
    lab.keep("inputs")

    def make() -> list[str]:
        commands(MADE)()
        return [name for name in sys.modules if name.partition(".")[0] not in NEVER_IMPORTED]

    for name in lab.needed(make).value:
        _import(name)
    lab.keep("made")
    return lab


def _import(name: str) -> None:
    try:
        import_module(name)
    except ImportError:  # a name that another module puts there; the child imports it if needed
        return


def write_inputs(folder: Path) -> None:
    """Images, a text, a network in a file and a language model in a folder."""
    import torch
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    (folder / "photos").mkdir()
    random = np.random.default_rng(0)
    for i in range(IMAGES):
        pixels = random.integers(0, 255, (40, 48, 3), np.uint8)
        Image.fromarray(pixels).save(folder / "photos" / f"{i}.png")
    (folder / "network.py").write_text(NETWORK)
    words = [f"w{i}" for i in range(WORDS)]
    drawn = random.integers(0, WORDS, 400)
    lines = [" ".join(words[i] for i in drawn[at : at + 20]) for at in range(0, 400, 20)]
    (folder / "text.txt").write_text("\n\n".join(lines) + "\n")
    vocabulary = {word: i for i, word in enumerate(["<unk>", "<s>", "</s>", *words])}
    backend = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    setattr(backend, "pre_tokenizer", WhitespaceSplit())  # noqa: B010  its type has no setter
    make: Any = PreTrainedTokenizerFast  # has no types
    fast = make(tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>")
    fast.save_pretrained(folder / "lm")
    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
    )
    LlamaForCausalLM(shape).save_pretrained(folder / "lm")


def files_below(folder: Path) -> Iterator[Path]:
    """All files below a folder, in order; symbolic links are not followed."""
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or path.is_file():
            yield path
