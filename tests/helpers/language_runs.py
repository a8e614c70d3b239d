"""A harvested text of a tiny language model, and a dictionary that is known."""

from pathlib import Path
from typing import Any

import torch

from tendril.data.store.reader import Store, open_store
from tendril.harvest.config import LanguageConfig
from tendril.harvest.run import harvest
from tendril.models.dictionaries.sae import SAE
from tendril.models.dictionaries.sparsity import Sparsity

from . import tiny_language

T, WIDTH, SITE = 16, 16, "blocks.1.hook_resid_post"


def both_signs(scale: float = 1.0) -> SAE:
    """Gives every vector back (times `scale`): a latent for each sign of each dimension."""
    sae = SAE(WIDTH, 2 * WIDTH, Sparsity("relu"), pre_bias=False).requires_grad_(False)
    both = torch.cat([torch.eye(WIDTH), -torch.eye(WIDTH)])
    sae.W_enc.copy_(both.T)
    sae.W_dec.copy_(scale * both)
    return sae


def harvested(home: Path, kind: str) -> tuple[Store, dict[str, Any]]:
    """A store of 900 words at SITE, and the config of a run on it."""
    model = tiny_language.save(home / kind, kind)
    (home / "text.txt").write_text(tiny_language.text(900))
    config = LanguageConfig(
        inputs=str(home / "text.txt"), subject=str(model), sites=("resid_post.1",),
        context=T, dtype="float32", device="cpu", home=str(home), name=kind,
    )  # fmt: skip
    store = open_store(harvest(config).store)
    return store, {
        "site": SITE,
        "subject": store.spec["subject"],
        "store": store.name,
        "store_path": f"../../store/{store.name}",
        "held_out": 0.2,
    }
