"""All curve latents of a kind removed at once, beside as many other latents that resemble them."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tendril.data.cli import note, progress_bar
from tendril.models.subjects.subject import Subject

from ..core.vision_inputs import VisionInputs
from ..measures.curve_family import CurveFamily
from ..measures.curve_scores import angle_between
from ..measures.curve_stimuli import draw_curve
from ..measures.gap_chance import copies_a_unit
from ..measures.latent_effects import LatentsTogether, answer_effect, matched_sets, tuning_effect
from .config import EvidenceConfig
from .examine import AROUND, Downstream, Measured, read_photographs
from .findings import COPIES, NEW, Together

TURNS = 8
"""Orientations of the drawn curves."""
ROWS = 20_000
"""Stored rows from which frequency and energy of latents are measured, at most."""


def removed_together(
    config: EvidenceConfig,
    inputs: VisionInputs,
    one: Measured,
    watched: Downstream | None,
    device: torch.device,
) -> list[Together]:
    """Remove the new curve latents of a run at once, then those that copy units."""
    if not config.together:
        return []
    frequency_S, energy_S = activity(inputs, one, device)
    copied = copies_a_unit(one.rows)
    kinds = {
        NEW: [m for m, copy in zip(one.family.members, copied, strict=True) if not copy],
        COPIES: [m for m, copy in zip(one.family.members, copied, strict=True) if copy],
    }
    others = [m for m in one.alive if m not in one.family.members and frequency_S[m] > 0]
    assert inputs.images is not None
    count = min(config.together, len(inputs.images))
    numbers = [i * len(inputs.images) // count for i in range(count)]  # at even distances
    photographs = read_photographs(config, inputs, numbers, device)
    found = []
    for kind, chosen in kinds.items():
        if not chosen or photographs is None:
            continue
        if len(others) < len(chosen):
            note(
                f"{len(chosen)} {kind} of {one.run.name} are not removed together, since only "
                f"{len(others)} other latents are active to compare them with."
            )
            continue
        sets = matched_sets(chosen, others, frequency_S, energy_S, config.directions)
        removal = LatentsTogether(one.dictionary, [chosen, *sets])
        subject, site = inputs.subject, inputs.site
        tuning = None
        if watched is not None and watched.units.members:
            drawn, counted_BU = curves_for(watched, one.family, subject, device)
            tuning = tuning_effect(
                subject, site, watched.site, watched.field, removal, drawn, counted_BU
            )
        images_BCHW, labels_B = photographs
        kl, top5 = answer_effect(subject, site, removal, images_BCHW, labels_B)
        mean_S = frequency_S * energy_S
        found.append(
            Together(
                run=one.run.name,
                seed=one.seed,
                kind=kind,
                latents=len(chosen),
                energy=float(mean_S[chosen].sum()),
                energy_of_others=float(np.mean([mean_S[some].sum() for some in sets])),
                tuning=tuning,
                kl=kl,
                top5=top5,
                photographs=len(images_BCHW),
            )
        )
    return found


def activity(
    inputs: VisionInputs, one: Measured, device: torch.device
) -> tuple[Float[np.ndarray, " s"], Float[np.ndarray, " s"]]:
    """How often each latent is active on stored rows, and the mean of z^2 ||d||^2 where it is."""
    assert inputs.store is not None
    count_S = np.zeros(one.dictionary.latents)
    sum_S = np.zeros(one.dictionary.latents)
    seen = 0
    norm_S = one.dictionary.W_dec.detach().norm(dim=1)
    for x_ND in inputs.store.batches(inputs.site, batch_size=2048):
        with torch.inference_mode():
            z_NS = one.dictionary.encode(x_ND.float().to(device))
        count_S += (z_NS > 0).sum(dim=0).double().cpu().numpy()
        sum_S += ((z_NS * norm_S) ** 2).sum(dim=0).double().cpu().numpy()
        seen += len(x_ND)
        if seen >= ROWS:
            break
    return count_S / max(seen, 1), sum_S / np.maximum(count_S, 1)


def curves_for(
    watched: Downstream, family: CurveFamily, subject: Subject, device: torch.device
) -> tuple[Float[Tensor, "b c h w"], Bool[Tensor, "b u"]]:
    """Drawn curves of TURNS orientations, and which units count for each: the curve units that are
    at most AROUND degrees away."""
    drawn, counted = [], []
    orientation_U = {m: watched.units.orientation(m) for m in watched.units.members}
    for angle in np.arange(TURNS) * (360 / TURNS):
        near = [m for m, at in orientation_U.items() if angle_between(at, angle) <= AROUND]
        row_U = torch.zeros(len(watched.units.scores.max), dtype=torch.bool)
        row_U[near] = True
        for radius in family.radii[::2]:
            for style in family.styles:
                drawn.append(
                    draw_curve(
                        float(angle), float(radius), style, subject.input_size, watched.field.centre
                    )
                )
                counted.append(row_U)
    grey_BHW = torch.from_numpy(np.stack(drawn)).to(device)
    return subject.preprocess(grey_BHW[:, None].repeat(1, 3, 1, 1)), torch.stack(counted)


def each_run(
    config: EvidenceConfig,
    inputs: Sequence[VisionInputs],
    measured: Sequence[Measured],
    watched: Downstream | None,
    device: torch.device,
) -> list[Together]:
    """`removed_together` of every run."""
    pairs = list(zip(inputs, measured, strict=True))
    return [
        found
        for one, run in progress_bar(pairs, "removing latents together")
        for found in removed_together(config, one, run, watched, device)
    ]
