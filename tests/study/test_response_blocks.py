"""Transform blocks of a dictionary that knows no group, from its responses over orbits."""

import numpy as np
import torch

from tendril.data.group.dihedral import Dihedral
from tendril.models.dictionaries.sae import SAE
from tendril.models.dictionaries.sparsity import Sparsity
from tendril.study.measures.planted_recovery import cosines
from tendril.study.measures.response_blocks import response_blocks

from ..helpers import orbits

GROUP = Dihedral(4)


def test_latents_of_one_family_get_the_blocks_of_their_family() -> None:
    """Of orbits of one pattern with a direction an element, read by an SAE of those directions,
    block g of latent s is the direction that the group moves that of s to."""
    directions_GD = np.eye(len(GROUP), dtype=np.float32)  # of T_g: nothing fixes the pattern
    poses = np.arange(len(GROUP))
    x_MGD = torch.from_numpy(directions_GD[GROUP.table_GG[:, poses].T])  # x of T_h p is x[g h]
    sae = SAE(len(GROUP), len(GROUP), Sparsity("relu", 0), pre_bias=False)
    with torch.no_grad():
        for weight in (sae.W_enc, sae.W_dec):
            weight.copy_(torch.eye(len(GROUP)))
    blocks_SGD = response_blocks(sae, x_MGD, GROUP)
    wanted_SGD = directions_GD[GROUP.table_GG].transpose(1, 0, 2) - 1 / len(GROUP)
    np.testing.assert_allclose(blocks_SGD.numpy(), wanted_SGD, atol=1e-6)


def test_what_is_planted_is_seen_by_an_sae_of_its_directions() -> None:
    """Families of every stabiliser at random poses; the last one is fixed by nothing, so each of
    its latents has a copy of its own."""
    truth_FGD = orbits.families(GROUP, 4, 48)
    x_MGD = torch.from_numpy(orbits.orbits(GROUP, truth_FGD, 600, 1))
    rows_SD = torch.from_numpy(truth_FGD.reshape(-1, 48))
    rows_SD = rows_SD / rows_SD.norm(dim=1, keepdim=True)
    sae = SAE(48, len(rows_SD), Sparsity("topk", 1), pre_bias=True)
    with torch.no_grad():
        sae.W_enc.copy_(rows_SD.T)
        sae.W_dec.copy_(rows_SD)
        sae.b_dec.fill_(0.3)
    blocks_SGD = response_blocks(sae, x_MGD, GROUP).numpy()
    copies_PGD = np.concatenate([f[GROUP.table_GG].transpose(1, 0, 2) for f in truth_FGD])
    centred_PGD = copies_PGD - copies_PGD.mean(axis=1, keepdims=True)
    got_SP = cosines(blocks_SGD - blocks_SGD.mean(axis=1, keepdims=True), centred_PGD)
    chiral = slice(3 * len(GROUP), 4 * len(GROUP))
    assert got_SP[chiral].max(axis=1).min() > 0.9
    assert sorted(got_SP[chiral].argmax(axis=1)) == list(range(chiral.start, chiral.stop))


def test_a_latent_that_never_fires_has_no_blocks() -> None:
    sae = SAE(5, 2, Sparsity("relu", 0), pre_bias=False)
    with torch.no_grad():
        sae.b_enc.copy_(torch.tensor([-1.0, 1.0]))
    blocks_SGD = response_blocks(sae, torch.zeros(3, len(GROUP), 5), GROUP)
    assert blocks_SGD.shape == (2, len(GROUP), 5) and not blocks_SGD.any()
