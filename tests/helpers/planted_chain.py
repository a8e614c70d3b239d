"""A small model in which features cause features: words, what block 0 makes of them, and what block
1 reads of that at earlier positions.

    word w1 -> P -\
                   > Y     (block 1 adds up the P and Q of all positions up to its own)
    word w2 -> Q -/
    word w2 -> Q --> Z     (at the same position)

Other words have directions that nothing reads, and w3 -> R leads nowhere. Every direction is a unit
of the residual stream. One unit is constant: it holds the gates open and the norms still. The
dictionaries know all units but that one, which is what they do not explain.
"""

from pathlib import Path

import torch

from tendril.models.dictionaries.checkpoint import save_dictionary
from tendril.models.dictionaries.sae import SAE
from tendril.models.dictionaries.sparsity import Sparsity

from . import tiny_language

WIDTH, CONSTANT, LEAST = 16, 15, 0.02
UNITS = {"w1": 0, "w2": 1, "w3": 2, "w4": 3, "w5": 4, "P": 8, "Q": 9, "R": 10, "Y": 12, "Z": 13}
SUM = 11  # what block 1's attention adds up
WORDS = [f"w{i}" for i in range(1, 9)]
SITES = ("blocks.0.hook_resid_pre", "blocks.0.hook_resid_post", "blocks.1.hook_resid_post")
CAUSES = {"Y": {"P", "Q"}, "Z": {"Q"}, "P": {"w1"}, "Q": {"w2"}}


def save_model(folder: Path) -> Path:
    """Write the model with its tokenizer."""
    tokenizer = tiny_language.tokenizer(WORDS)
    model = tiny_language.network("llama", layers=2, width=WIDTH, vocabulary=len(tokenizer))
    for name, weight in model.named_parameters():
        if "norm" not in name and "lm_head" not in name:
            weight.data.zero_()
    embedding = model.get_input_embeddings().weight.data
    embedding[:, CONSTANT] = 10.0
    for word in WORDS[:5]:
        embedding[tokenizer.convert_tokens_to_ids(word), UNITS[word]] = 1.0
    first, second = model.model.layers
    for hidden, (read, written) in enumerate((("w1", "P"), ("w2", "Q"), ("w3", "R"))):
        _writes(first.mlp, hidden, UNITS[read], UNITS[written])
    second.self_attn.v_proj.weight.data[0, [UNITS["P"], UNITS["Q"]]] = 4.0
    second.self_attn.o_proj.weight.data[SUM, 0] = 1.0
    _writes(second.mlp, 0, SUM, UNITS["Y"])
    _writes(second.mlp, 1, UNITS["Q"], UNITS["Z"])
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _writes(mlp: torch.nn.Module, hidden: int, read: int, written: int) -> None:
    """One hidden unit that passes a unit on; its gate is open, as the constant unit says."""
    mlp.gate_proj.weight.data[hidden, CONSTANT] = 1.0
    mlp.up_proj.weight.data[hidden, read] = 1.0
    mlp.down_proj.weight.data[written, hidden] = 1.0


def order_of(site: str) -> list[int]:
    """The unit of each latent at a site, in an order of its own."""
    generator = torch.Generator().manual_seed(SITES.index(site))
    return torch.randperm(WIDTH, generator=generator).tolist()


def latent_of(site: str, feature: str) -> int:
    """The latent of a planted feature at a site."""
    return order_of(site).index(UNITS[feature])


def save_runs(runs: Path, store: Path, subject: object) -> None:
    """A dictionary of each site that knows its units: z = ReLU(x_u - LEAST)."""
    for number, site in enumerate(SITES):
        sae = SAE(WIDTH, WIDTH, Sparsity("relu"), pre_bias=False).requires_grad_(False)
        sae.W_dec.copy_(torch.eye(WIDTH)[order_of(site)])
        sae.W_enc.copy_(sae.W_dec.T)
        sae.W_enc[CONSTANT] = 0.0
        sae.b_enc.fill_(-LEAST)
        config = {
            "store": store.name, "store_path": f"../../store/{store.name}", "site": site,
            "subject": subject,
        }  # fmt: skip
        save_dictionary(runs / f"site{number}", sae, config)
