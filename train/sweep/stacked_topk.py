"""One step of several TopK dictionaries of one shape at once, over the same vectors.

The M S latents of M dictionaries form one dictionary, of which the k largest of each member are
taken: one product encodes for all members, one pass over the entries decodes for all, and autograd
returns to each member its own part of the gradients. AuxK, whose latents differ, runs member by
member.
"""

from collections.abc import Hashable, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tendril.models.dictionaries.kernels.sparse import encoder_bias
from tendril.models.dictionaries.kernels.sparse_product import (
    Active,
    at_entries,
    decode,
    entries_of_rows,
    largest,
)
from tendril.models.dictionaries.sae import SAE

from ..objectives.base import Loss, annealed, squared
from ..objectives.k_sparse import TopK, aux_loss, counted
from ..trainer import Trainer

# floats of reconstructions at a time. On a CPU only steps this small gain: a larger one fills it by
# itself, and large arrays are slower (four dictionaries of 480 x 960 took a fifth longer)
CPU_FLOATS, GPU_FLOATS = 2**19, 2**29


def stacks(trainers: Sequence[Trainer]) -> list[list[Trainer]]:
    """Trainers in groups that can take a step at once; the others alone."""
    alike: dict[Hashable, list[Trainer]] = {}
    for trainer in trainers:
        alike.setdefault(_likeness(trainer), []).append(trainer)
    found: list[list[Trainer]] = []
    for group in alike.values():
        room = CPU_FLOATS if group[0].sae.b_dec.device.type == "cpu" else GPU_FLOATS
        many = max(1, room // (group[0].config.batch_size * group[0].sae.width))
        found += [group[i : i + many] for i in range(0, len(group), many)]
    return found


def _likeness(trainer: Trainer) -> Hashable:
    """Equal for trainers that can be stacked."""
    if not isinstance(trainer.objective, TopK) or trainer.config.compile:
        return id(trainer)
    return trainer.objective, trainer.sae.latents, trainer.step, trainer.config.steps


def stacked_losses(trainers: Sequence[Trainer], x_ND: Float[Tensor, "n d"]) -> list[Loss]:
    """The losses of a stack, after their backward pass: those that each trainer would compute."""
    objective = trainers[0].objective
    assert isinstance(objective, TopK), "see `stacks`"
    saes: list[SAE] = []
    for trainer in trainers:
        assert isinstance(trainer.sae, SAE)
        saes.append(trainer.sae)
        trainer.clear()
    with trainers[0].autocast():
        losses = topk_losses(
            objective,
            saes,
            x_ND,
            [trainer.dead_S for trainer in trainers],
            trainers[0].progress,
        )
    torch.autograd.backward([loss.total for loss in losses])
    return losses


def topk_losses(
    objective: TopK,
    saes: Sequence[SAE],
    x_ND: Float[Tensor, "n d"],
    dead: Sequence[Bool[Tensor, " s"]],
    progress: float,
) -> list[Loss]:
    """`objective.loss` of every dictionary. Reference: `TopK.loss` of one after the other."""
    count, parts, latents = len(x_ND), len(saes), saes[0].latents
    k = annealed(objective.k, min(saes[0].width, latents), objective.anneal, progress)
    W_enc = torch.cat([sae.W_enc for sae in saes], dim=1)
    bias_S = torch.cat([encoder_bias(sae) for sae in saes])
    W_dec = torch.cat([sae.W_dec for sae in saes])
    b_dec_MD = torch.stack([sae.b_dec for sae in saes])
    values, places = largest(x_ND, W_enc, bias_S, k, parts)
    entries = entries_of_rows(places, parts * latents)
    rows_M = entries.bags_M // parts
    pre_M = at_entries(values.flatten(), entries, rows_M, x_ND, W_enc, bias_S)
    values_M = torch.relu(pre_M)
    x_hat_NMD = decode(values_M, entries, W_dec).view(count, parts, -1) + b_dec_MD
    values_NMK = values_M.view(count, parts, k)
    indices_NMK = entries.latents_M.view(count, parts, k)
    losses = []
    for m, sae in enumerate(saes):
        x_hat_ND = x_hat_NMD[:, m]
        error_ND = x_ND - x_hat_ND
        missed = squared(error_ND).mean()
        missed = missed + aux_loss(sae, x_ND, error_ND, dead[m], objective.aux)
        on = (values_NMK[:, m].flatten(), indices_NMK[:, m].flatten() - m * latents)
        losses.append(counted(missed / sae.width, Active(*on, x_hat_ND[None]), dead[m]))
    return losses
