"""`--dry-run`: what a command would train, without training."""

from tendril.data.cli import Outcome
from tendril.data.device import resolve_device
from tendril.models.dictionaries.checkpoint import RESULT, STATE

from .config import BASELINES, TrainConfig, run_label
from .loop import check_memory, checked_source, run_folder, together
from .vectors import Source

THRESHOLDED = ("batch_topk", "matryoshka", "gated", "jumprelu")  # stored with thresholds


def dry_run(config: TrainConfig, command: str = "") -> Outcome:
    """The folder of the run, its state, and its numbers of parameters, steps and vectors. `command`
    is the one that trains it.

    Raises what `train` raises before its first step.
    """
    source = checked_source(config)
    device = resolve_device(config.device)
    check_memory(config, source.width, device)
    run = run_folder(config, source, together(device).ranks)
    state = "finished" if (run / RESULT).exists() else "new"
    if state == "new" and (run / STATE).exists():
        state = "stopped"
    fitted = config.objective in BASELINES
    steps = 0 if fitted else config.steps
    vectors = config.fit_rows if fitted else steps * config.batch_size
    numbers = {"parameters": parameters_of(config, source), "steps": steps, "vectors": vectors}
    words = {"finished": "exists already", "stopped": "would be continued", "new": "would be made"}
    label = run_label(
        {**vars(config), "latents": config.latents_for(source.width)} | _where(source)
    )
    return Outcome(
        {"dry_run": True, "run": str(run), "state": state, **numbers},
        f"{label}: {run} {words[state]}; {numbers['parameters']:,} parameters, {vectors:,} vectors"
        + (f", {steps:,} steps" if steps else " at most"),
        command,
    )


def _where(source: Source) -> dict[str, object]:
    group = source.group
    return {"site": source.name, "group": vars(group) if group else None}


def parameters_of(config: TrainConfig, source: Source) -> int:
    """The number of weights of the dictionary, as it is stored."""
    width, latents = source.width, config.latents_for(source.width)
    biases = width // source.elements if config.objective == "equivariant" else width
    thresholds = latents if config.objective in THRESHOLDED else 0
    return 2 * latents * width + latents + biases + thresholds
