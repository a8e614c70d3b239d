"""A dictionary goes to SAELens's own loader and back, where sae-lens is installed beside Tendril.

`pip install 'tendril[language]' sae-lens` makes such an environment. That of the other tests has a
newer TransformerLens than sae-lens takes.
"""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tendril.models.dictionaries.sae import SAE
from tendril.models.dictionaries.saelens import export_saelens, import_saelens
from tendril.models.dictionaries.sparsity import Sparsity

sae_lens = pytest.importorskip("sae_lens")


def dictionary(sparsity: Sparsity) -> SAE:
    """A dictionary at random."""
    sae = SAE(16, 64, sparsity, pre_bias=True)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for part, scale in ((sae.W_enc, 0.3), (sae.W_dec, 1), (sae.b_enc, 0.1), (sae.b_dec, 0.1)):
            part.normal_(generator=generator, std=scale)
    return sae


@pytest.mark.parametrize(
    "sparsity", [Sparsity("topk", 8), Sparsity("relu", 0)], ids=["topk", "relu"]
)
def test_codes_are_equal_there_and_back(sparsity: Sparsity, tmp_path: Path) -> None:
    x_ND = torch.randn(512, 16, generator=torch.Generator().manual_seed(5))
    ours = dictionary(sparsity)
    folder = export_saelens(ours, tmp_path / "out", {"model_name": "gpt2"})
    theirs = sae_lens.SAE.load_from_disk(folder)
    with torch.no_grad():
        z_NS: Tensor = ours.encode(x_ND)
        # SAELens adds the biases in another order, so the last bit of a float32 may differ
        torch.testing.assert_close(theirs.encode(x_ND), z_NS, atol=5e-6, rtol=0)
        torch.testing.assert_close(theirs.decode(z_NS), ours.decode(z_NS), atol=1e-5, rtol=0)
        theirs.save_model(tmp_path / "back")
        again, _ = import_saelens(tmp_path / "back")
        assert torch.equal(again.encode(x_ND), z_NS)
