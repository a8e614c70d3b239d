"""The equivariant group crosscoder: its equivariance, its fast path, and its files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tendril.data.errors import ConfigError
from tendril.data.group.dihedral import Dihedral
from tendril.models.dictionaries.checkpoint import (
    described,
    load_dictionary,
    load_sae,
    save_dictionary,
)
from tendril.models.dictionaries.equivariant import EquivariantCrosscoder, blocks_of
from tendril.models.dictionaries.folding import folded
from tendril.models.dictionaries.kernels import orbit as orbit_active_module
from tendril.models.dictionaries.kernels.orbit import orbit_active
from tendril.models.dictionaries.kernels.orbit_fourier import copies_of, correlated, waves_of
from tendril.models.dictionaries.kernels.orbit_product import spread
from tendril.models.dictionaries.sae import SAE
from tendril.models.dictionaries.sparsity import Sparsity

WIDTH, FAMILIES, K = 5, 7, 3
GROUPS = [Dihedral(1), Dihedral(4), Dihedral(6), Dihedral(5, reflections=False)]


def crosscoder(group: Dihedral, **options: Any) -> EquivariantCrosscoder:
    """One whose weights are all random."""
    made = EquivariantCrosscoder(group, WIDTH, FAMILIES, K, **options).double()
    generator = torch.Generator().manual_seed(len(group))
    for parameter in made.parameters():
        drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.data.copy_(drawn)
    return made


def some_orbits(group: Dihedral, count: int = 40) -> torch.Tensor:
    generator = torch.Generator().manual_seed(9)
    return torch.randn(count, len(group), WIDTH, generator=generator, dtype=torch.float64)


def moved(group: Dihedral, a: int, x_NGD: torch.Tensor) -> torch.Tensor:
    """The orbits of the inputs taken through T_a: x[g a]."""
    return x_NGD[:, group.table_GG[:, a]]


def codes_move(made: EquivariantCrosscoder) -> bool:
    """Whether turning the input moves every copy h to a h, for every a."""
    group, x_NGD = made.group, some_orbits(made.group)
    z_NFG = made.encode(x_NGD)
    agree = []
    for a in range(len(group)):
        z_moved_NFG = made.encode(moved(group, a, x_NGD))
        agree.append(torch.allclose(z_moved_NFG[:, :, group.table_GG[a]], z_NFG))
        agree.append(torch.allclose(made.decode(z_moved_NFG), moved(group, a, made.decode(z_NFG))))
    return all(agree)


@pytest.mark.parametrize("options", [{}, {"poses": "all"}, {"rounds": K}])
@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)
def test_codes_move_with_the_input(group: Dihedral, options: dict[str, Any]) -> None:
    assert codes_move(crosscoder(group, **options))


def test_on_the_wrong_side_they_do_not_unless_the_group_commutes() -> None:
    assert not codes_move(crosscoder(Dihedral(4), side="wrong"))
    assert codes_move(crosscoder(Dihedral(5, reflections=False), side="wrong"))


def test_the_equation_element_by_element() -> None:
    group = Dihedral(3)
    made, x_NGD = crosscoder(group), some_orbits(group, 4)
    pre_NFG, x_hat_NGD = made.pre(x_NGD), made.decode(z_NFG := made.encode(x_NGD))
    for n in range(4):
        wanted_GD = made.b_dec.repeat(len(group), 1)
        for f in range(FAMILIES):
            for h in range(len(group)):
                pre = made.b_enc[f]
                for g in range(len(group)):
                    place = group.product(g, h)
                    pre = pre + (x_NGD[n, g] - made.b_dec) @ made.W_enc[f, place]
                    wanted_GD[g] = wanted_GD[g] + z_NFG[n, f, h] * made.W_dec[f, place]
                torch.testing.assert_close(pre_NFG[n, f, h], pre)
        torch.testing.assert_close(x_hat_NGD[n], wanted_GD)


def test_of_each_family_the_best_pose_is_on_and_k_families_in_all() -> None:
    group = Dihedral(4)
    made, x_NGD = crosscoder(group), some_orbits(group)
    pre_NFG, z_NFG = made.pre(x_NGD), made.encode(x_NGD)
    assert ((z_NFG > 0).sum(dim=2) <= 1).all()
    assert ((z_NFG > 0).sum(dim=(1, 2)) == K).all()
    values_NF, poses_NF = made.poses_of(x_NGD)
    best_NF, at_NF = pre_NFG.max(dim=2)
    on_NF = values_NF > 0
    assert torch.equal(poses_NF[on_NF], at_NF[on_NF])
    torch.testing.assert_close(values_NF.sum(dim=1), best_NF.topk(K).values.sum(dim=1))


def test_rounds_turn_one_family_on_at_several_poses() -> None:
    """Each explains what those before it have left, so no copy comes twice."""
    group = Dihedral(4)
    made = crosscoder(group, rounds=K)
    for weight in (made.W_enc, made.W_dec):
        decoder_FE = made.W_dec.detach().flatten(1)
        weight.data.copy_((decoder_FE / decoder_FE.norm(dim=1, keepdim=True)).view_as(weight))
    for bias in (made.b_enc, made.b_dec):
        bias.data.zero_()
    copies_HGD = made.W_dec[2, group.table_GG.T]
    x_NGD = (5 * copies_HGD[1] + 3 * copies_HGD[6])[None]
    z_NFG = made.encode(x_NGD)
    assert set(z_NFG[0, 2].topk(2).indices.tolist()) == {1, 6}
    once_NFG = crosscoder(group).encode(x_NGD)
    assert ((once_NFG > 0).sum(dim=2) <= 1).all()
    left = [
        float((x_NGD - made.decode(z)).detach().norm()) for z in (z_NFG, torch.zeros_like(z_NFG))
    ]
    assert left[0] < 0.5 * left[1]


@pytest.mark.parametrize("group", [Dihedral(4), Dihedral(12)], ids=["rows", "waves"])
@pytest.mark.parametrize("options", [{}, {"poses": "all"}, {"side": "wrong"}, {"rounds": K}])
@pytest.mark.parametrize("some", [False, True])
def test_the_fast_path_gives_the_values_and_gradients_of_the_slow_one(
    options: dict[str, Any],
    some: bool,
    group: Dihedral,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(orbit_active_module, "PAY", 60)  # none of D_4, all of D_12
    made, x_NGD = crosscoder(group, **options), some_orbits(group)
    chosen = torch.tensor([1, 2, 4, 6]) if some else torch.arange(FAMILIES)
    slow = EquivariantCrosscoder(group, WIDTH, len(chosen), K, **options).double()
    whole = dict(made.named_parameters())
    for name, parameter in slow.named_parameters():
        parameter.data.copy_(whole[name] if name == "b_dec" else whole[name][chosen])
    x_fast, x_slow = (x_NGD.clone().requires_grad_() for _ in range(2))
    active = orbit_active(made, x_fast.flatten(1), K, chosen if some else None, rounds=made.rounds)
    x_hat_fast = active.x_hat_ND + made.b_dec.repeat(len(group))
    z_NFG = slow.encode(x_slow)
    x_hat_slow = slow.decode(z_NFG).flatten(1)
    torch.testing.assert_close(x_hat_fast, x_hat_slow)
    rows_M = torch.arange(len(x_NGD)).repeat_interleave(K)
    z_fast_NS = torch.zeros_like(z_NFG.flatten(1)).index_put(
        (rows_M, active.indices_M), active.values_M, accumulate=True
    )
    torch.testing.assert_close(z_fast_NS, z_NFG.flatten(1))
    for x_hat, values in ((x_hat_fast, z_fast_NS), (x_hat_slow, z_NFG)):
        torch.autograd.backward((x_hat - 1).square().sum() + (values**3).sum())
    torch.testing.assert_close(x_fast.grad, x_slow.grad)
    for name, parameter in slow.named_parameters():
        grad = whole[name].grad
        assert grad is not None
        torch.testing.assert_close(grad if name == "b_dec" else grad[chosen], parameter.grad)
        assert (parameter.grad != 0).any(), name


@pytest.mark.parametrize("group", [*GROUPS, Dihedral(2), Dihedral(9)], ids=lambda group: group.name)
def test_waves_answer_as_the_copies_written_out(group: Dihedral) -> None:
    made, x_NGD = crosscoder(group), some_orbits(group)
    answers = correlated(waves_of(x_NGD, group), copies_of(made.W_enc, group), group)
    torch.testing.assert_close(answers + made.bias()[:, None], made.pre(x_NGD))


def test_rows_written_out_have_the_gradient_of_an_index() -> None:
    group = Dihedral(5)
    table_HG = torch.from_numpy(group.table_GG.T.copy())
    W_FGD = torch.randn(3, len(group), 4, dtype=torch.float64, requires_grad=True)
    rows = spread(W_FGD, table_HG)
    assert torch.equal(rows, W_FGD[:, table_HG].reshape(3 * len(group), -1))
    assert torch.autograd.gradcheck(lambda W: spread(W, table_HG), W_FGD)


def test_written_out_it_is_an_sae_of_as_many_latents() -> None:
    group = Dihedral(4)
    made, x_NGD = crosscoder(group, poses="all"), some_orbits(group)
    sae = made.untied()
    torch.testing.assert_close(sae.encode(x_NGD.flatten(1)), made.encode(x_NGD).flatten(1))
    torch.testing.assert_close(sae(x_NGD.flatten(1)), made(x_NGD).flatten(1))
    assert sum(p.numel() for p in sae.parameters()) > 7 * sum(p.numel() for p in made.parameters())
    copies_FHGD = blocks_of(sae, group).view(FAMILIES, len(group), len(group), WIDTH)
    blocks_FGD = blocks_of(made, group)
    for h in range(len(group)):
        wanted_FGD = blocks_FGD[:, group.table_GG[:, h]]
        assert torch.equal(copies_FHGD[:, h], wanted_FGD), "copy h writes D_f[g h] into block g"


@pytest.mark.parametrize("scale", [3.0, torch.tensor([1.0, 2.0, 0.5, 4.0, 1.0] * 8)])
def test_a_scale_is_folded_in(scale: Any) -> None:
    group = Dihedral(4)
    made, x_NGD = crosscoder(group, rounds=K), some_orbits(group)
    scale_GD = scale.view(8, 5).double() if isinstance(scale, torch.Tensor) else scale
    raw = folded(made, scale)
    torch.testing.assert_close(raw(x_NGD) * scale_GD, made(x_NGD * scale_GD))


def test_it_comes_back_from_its_file(tmp_path: Path) -> None:
    made = crosscoder(Dihedral(4), poses="all", side="wrong", rounds=K).float()
    save_dictionary(tmp_path / "run", made, {"site": "here"}, torch.zeros(FAMILIES))
    again = load_dictionary(tmp_path / "run")
    assert isinstance(again, EquivariantCrosscoder)
    x_NGD = some_orbits(made.group).float()
    assert torch.equal(again.encode(x_NGD), made.encode(x_NGD))
    assert again.description() == made.description()
    older = described({**made.description(), "kind": "orbit"})
    assert older.description() == made.description(), "the name before format 3"
    with pytest.raises(ConfigError, match="group crosscoder, whose latents are families of 8"):
        load_sae(tmp_path / "run")


def test_blocks_want_the_group_that_the_dictionary_is_of() -> None:
    with pytest.raises(ConfigError, match=r"group must be D4, that of .*; got D8"):
        blocks_of(crosscoder(Dihedral(4)), Dihedral(8))
    with pytest.raises(ConfigError, match=r"multiple of its 16 elements; got 24"):
        blocks_of(SAE(24, 3, Sparsity("relu"), pre_bias=False), Dihedral(8))
    sae = SAE(24, 3, Sparsity("relu"), pre_bias=False)
    sae.W_dec.data.copy_(torch.from_numpy(np.arange(72.0).reshape(3, 24)))
    assert blocks_of(sae, Dihedral(4))[1, 2].tolist() == [30, 31, 32]
