"""A home with a store of a tiny language model over four texts, and runs trained on it."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32

from tendril.data.store.reader import Store, open_store
from tendril.harvest.config import LanguageConfig
from tendril.harvest.run import harvest
from tendril.models.dictionaries.checkpoint import save_dictionary
from tendril.models.dictionaries.sae import SAE, initialised
from tendril.models.dictionaries.sparsity import Sparsity

from . import tiny_language

T, D, S, K = 16, 16, 40, 6
SITE = "blocks.1.hook_resid_post"
DEAD = 7  # a latent that is never active


def make_store(folder: Path, kind: str = "llama", **options: Any) -> Store:
    """A store of a tiny model over four texts, 24 contexts or so."""
    model = tiny_language.save(folder / kind, kind)
    (folder / "text").mkdir(exist_ok=True)
    for number, words in enumerate((70, 3, 200, 90)):
        (folder / "text" / f"{number}.txt").write_text(tiny_language.text(words, number))
    told = {"sites": ("resid_post.1",), "context": T, "dtype": "float32", "batch_size": 3}
    config = LanguageConfig(
        inputs=str(folder / "text"),
        subject=str(model),
        device="cpu",
        home=str(folder),
        **{**told, **options},
    )
    return open_store(harvest(config).store)


def make_run(home: Path, store: Store, sparsity: Sparsity, width: int = D) -> Path:
    """A dictionary at random, as a run of the store; one of its latents is never on."""
    sae = SAE(width, S, sparsity, pre_bias=True)
    initialised(sae, torch.Generator().manual_seed(1), decoder_norm=0.5)
    with torch.no_grad():
        sae.b_enc[DEAD] = -100
    run = home / "runs" / f"a-{sparsity.name}"
    run.mkdir(parents=True)
    told = {"site": SITE, "sites": {SITE: width}, "store": store.name, "held_out": 0.3}
    save_dictionary(run, sae, told)
    return run


def make_home(folder: Path) -> Path:
    """A home with a store of a llama, and two runs, a-topk and a-relu."""
    store = make_store(folder)
    make_run(folder, store, Sparsity("topk", K))
    make_run(folder, store, Sparsity("relu"))
    return folder


def brute(store: Store, sae: SAE) -> Float32[np.ndarray, "b t s"]:
    """What every latent does on every row at once; NaN where a row does not count."""
    x_RD = torch.from_numpy(store.read(SITE, slice(0, store.rows)))
    with torch.no_grad():
        z_RS = sae.encode(x_RD.nan_to_num()).numpy()
    z_RS[~store.column("valid")] = np.nan
    return z_RS.reshape(-1, T, S)
