"""Measure the dictionaries of networks on clean and attacked images."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from tendril.models.attacks import Attack, attacked, correct, fgsm, predicting
from tendril.models.dictionaries.checkpoint import load_sae, read_config, read_figures
from tendril.models.sites.splice import splicing, to_vectors
from tendril.models.subjects.subject import site_modules

from ..core.image_batches import ImageBatches
from ..core.trained import sparsity_of
from ..measures.effective_features import ConditionSums
from .findings import CONDITIONS, Measured, NetworkFigures
from .inputs import Network, RobustnessInputs

SEED = 0  # of random starts


def measured(
    inputs: RobustnessInputs, network: Network, batch_size: int, device: torch.device
) -> tuple[NetworkFigures, list[Measured]]:
    """Accuracies of a network, and figures of its runs, clean and attacked."""
    subject = network.subject
    subject.module.to(device)
    dictionaries = {run: load_sae(run).to(device) for run, _ in network.runs}
    sums: dict[Any, dict[str, ConditionSums]] = {run: {} for run in dictionaries}
    right = dict.fromkeys(CONDITIONS, 0)
    count = 0
    batches = ImageBatches(inputs.images, subject, batch_size, device, inputs.labels)
    with predicting(subject) as logits_of, torch.no_grad():
        for number, (rgb, classes) in enumerate(batches.rgb(network.trained.name)):
            known = logits_of(rgb).argmax(dim=1) if classes is None else classes.to(device)
            count += len(rgb)
            for name, shown in conditions(logits_of, rgb, known, inputs.attack, number):
                right[name] += int(correct(logits_of, shown, known).sum())
                for site, x_ND in vectors(network, shown):
                    for run, its in network.runs:
                        if its == site:
                            if name not in sums[run]:
                                sums[run][name] = ConditionSums(dictionaries[run], x_ND.shape[1])
                            sums[run][name].add(x_ND)
    accuracy = {name: right[name] / count for name in CONDITIONS}
    runs = []
    for run, site in network.runs:
        trained = read_config(run)
        runs.append(
            Measured(
                run=run.resolve().name,
                network=network.trained,
                site=site,
                objective=str(trained.get("objective", "")),
                setting=sparsity.text if (sparsity := sparsity_of(trained)) else "",
                latents=dictionaries[run].latents,
                neurons=int(dictionaries[run].W_dec.shape[1]),
                seed=int(trained.get("seed", 0)),
                fvu_of_training=float(read_figures(run).get("fvu") or float("nan")),
                figures={name: one.figures() for name, one in sums[run].items()},
            )
        )
    return NetworkFigures(network.trained, accuracy, count), runs


def conditions(
    logits_of: Any, rgb: Tensor, classes: Tensor, attack: Attack, number: int
) -> Iterator[tuple[str, Tensor]]:
    """Images as they are, and attacked by FGSM and PGD of one size."""
    start = torch.Generator().manual_seed(SEED + number)
    yield "clean", rgb
    yield "fgsm", attacked(logits_of, rgb, classes, fgsm(attack.epsilon, attack.norm))
    yield "pgd", attacked(logits_of, rgb, classes, attack, start)


def vectors(network: Network, rgb: Tensor) -> Iterator[tuple[str, Tensor]]:
    """The vectors at each site of the runs, over all positions of images."""
    x = network.subject.preprocess(rgb)
    for site in dict.fromkeys(site for _, site in network.runs):
        names = site_modules(network.subject, [site])[site]
        with splicing(network.subject.module, names, network.subject.logits) as splice:
            yield site, to_vectors(splice.read(x))
