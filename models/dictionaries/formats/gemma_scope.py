"""Dictionaries of Gemma Scope: params.npz.

    pre = x W_enc + b_enc,  z = ReLU(pre) 1[pre > threshold],  x_hat = z W_dec + b_dec

Source: Lieberum et al., Gemma Scope (2408.05147), and the notebook that its authors publish.
"""

import re
from pathlib import Path
from typing import Any

from .files import Imported, checked, made, matrix_size, read_npz

WEIGHTS = "params.npz"
RELEASE = re.compile(r"gemma-scope-([0-9]+b)-(pt|it)-(res|mlp|att)")
LAYER = re.compile(r"layer_(\d+)")
HOOKS = {"res": "hook_resid_post", "mlp": "hook_mlp_out", "att": "attn.hook_z"}


def is_gemma_scope(folder: Path) -> bool:
    """True if a folder has the file of this format."""
    return (folder / WEIGHTS).is_file()


def read_gemma_scope(folder: Path, **_: Any) -> Imported:
    """Read a dictionary of Gemma Scope. Raises RunDamagedError.

    The model and the site are read from the path, where it has the names of the release, such as
    gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71.
    """
    source = folder / WEIGHTS
    tensors = read_npz(source)
    width, latents = matrix_size(tensors, "W_enc", source)
    shapes: dict[str, tuple[int, ...]] = {
        "W_enc": (width, latents),
        "b_enc": (latents,),
        "W_dec": (latents, width),
        "b_dec": (width,),
        "threshold": (latents,),
    }
    used = checked(tensors, shapes, source)
    weights = (used["W_enc"], used["b_enc"], used["W_dec"], used["b_dec"])
    sae = made(*weights, "jumprelu", pre_bias=False, threshold_S=used["threshold"])
    path = folder.resolve().as_posix()
    release, layer = RELEASE.search(path), LAYER.search(path)
    model = f"gemma-2-{release[1]}{'-it' if release[2] == 'it' else ''}" if release else ""
    site = f"blocks.{layer[1]}.{HOOKS[release[3]]}" if release and layer else ""
    return Imported("gemma_scope", sae, {}, (source,), model=model, site=site)
