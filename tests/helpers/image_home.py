"""A home with photographs of three classes, stores of them, and dictionaries at random."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from tendril.data.store.reader import Store, open_store
from tendril.harvest.config import HarvestConfig
from tendril.harvest.run import harvest
from tendril.models.dictionaries.checkpoint import save_dictionary
from tendril.models.dictionaries.sae import SAE
from tendril.models.dictionaries.sparsity import Sparsity

SUBJECT = f"{Path(__file__).parent / 'splice_subject.py'}:make"
SITE, S, SIDE = "relu", 12, 8
CLASSES = ("blue", "green", "red")


def make_images(folder: Path, count: int = 12) -> Path:
    """Images in a subfolder for each colour, one in none, and one that cannot be read."""
    rng = np.random.default_rng(0)
    for number in range(count):
        pixels = rng.integers(0, 120, (SIDE, SIDE, 3))
        pixels[..., 2 - number % 3] += 100
        place = folder / CLASSES[number % 3] if number else folder
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(place / f"n0144076{number}_fish.png")
    (folder / "red" / "broken.png").write_bytes(b"\x89PNG\r\n no more")
    return folder


def make_store(home: Path, per_input: object = "all", sites: tuple[str, ...] = (SITE,)) -> Store:
    """A store of the images in `home`/images."""
    config = HarvestConfig(
        inputs=str(home / "images"),
        subject=SUBJECT,
        sites=sites,
        per_input=per_input,  # type: ignore[arg-type]
        dtype="float32",
        home=str(home),
        device="cpu",
    )
    return open_store(harvest(config).store)


def make_run(home: Path, store: Store, name: str) -> Path:
    """A dictionary at random, as a run of the store; its last latent is never on."""
    sae = SAE(sum(map(store.width, store.sites)), S, Sparsity("topk", 4), pre_bias=True)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        sae.W_enc.normal_(generator=generator)
        sae.W_dec.normal_(generator=generator)
        sae.b_dec.fill_(0.35)
        sae.b_enc[-1] = -100
    run = home / "runs" / name
    run.mkdir(parents=True)
    identity = dict(store.spec["subject"])
    told = {"site": SITE, "subject": identity, "store": store.name, "held_out": 0.3}
    if len(store.sites) > 1:
        told |= {"site": "+".join(store.sites), "sites": {s: store.width(s) for s in store.sites}}
    save_dictionary(run, sae, told)
    return run
