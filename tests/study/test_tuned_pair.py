"""A real language model beside a copy that is fine-tuned here, and beside itself."""

from pathlib import Path

import pytest
import torch

from tendril.harvest.config import LanguageConfig
from tendril.harvest.run import harvest
from tendril.models.subjects.language import language_subject
from tendril.models.subjects.tokenise import tokens_of
from tendril.study.core.study import run_study
from tendril.study.crosscoder_parts.config import PartsConfig
from tendril.study.crosscoder_parts.study import PartsStudy
from tendril.train.config import TrainConfig
from tendril.train.loop import train

CONTEXT = 128


def fine_tune(text: str, folder: Path, steps: int) -> tuple[float, float]:
    """Fine-tune glassllm:en on half of a text; its loss on the other half, before and after."""
    subject = language_subject("glassllm:en")
    network, (tokens,) = subject.module.requires_grad_(True), tokens_of(subject)([text])
    size = len(tokens) // 2 // CONTEXT * CONTEXT
    seen, held = (torch.tensor(part[:size]).view(-1, CONTEXT) for part in (tokens, tokens[size:]))

    def loss_of(tokens_BT: torch.Tensor) -> torch.Tensor:
        loss: torch.Tensor = network(input_ids=tokens_BT, labels=tokens_BT).loss
        return loss

    before = loss_of(held[:32]).item()
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0)
    draw = torch.Generator().manual_seed(0)
    for _ in range(steps):
        optimiser.zero_grad()
        torch.autograd.backward(loss_of(seen[torch.randint(len(seen), (8,), generator=draw)]))
        optimiser.step()
    network.save_pretrained(folder)  # type: ignore[operator]
    subject.tokenizer.save_pretrained(folder)
    return before, loss_of(held[:32]).item()


@pytest.mark.slow  # a minute: fine-tuning, three harvests and four crosscoders
@pytest.mark.many_steps
def test_latents_of_a_fine_tuned_copy_are_told_from_those_of_the_model_itself(
    tmp_path: Path, shared: Path
) -> None:
    pytest.importorskip("glassllm")
    text = (shared / "text" / "wikitext2_valid.txt").read_text("utf-8")[:400_000]
    (tmp_path / "text.txt").write_text(text[200_000:])
    before, after = fine_tune(text, tmp_path / "tuned", 40)
    assert after < before - 1
    for name in ("base", "again", "tuned"):
        harvest(
            LanguageConfig(
                inputs=str(tmp_path / "text.txt"),
                subject=str(tmp_path / "tuned") if name == "tuned" else "glassllm:en",
                sites=("resid_post.2",),
                limit=150,
                device="cpu",
                name=name,
                home=str(tmp_path),
            )
        )
    runs = {}
    for other in ("tuned", "again"):
        for objective, sparsity in (("batch_topk", {"k": 16}), ("relu_l1", {"l1": 5.0})):
            config = TrainConfig(
                name=f"{objective}-{other}",
                store="base",
                paired_store=other,
                objective=objective,  # type: ignore[arg-type]
                latents=256,
                steps=200,
                batch_size=256,
                device="cpu",
                home=str(tmp_path),
                **sparsity,  # type: ignore[arg-type]
            )
            runs[config.name] = train(config).run.name
    found = run_study(PartsStudy(), PartsConfig(run=tuple(runs.values()), home=str(tmp_path)))
    figures = {one["run"]: one for one in (found.figures, *found.figures["others"].values())}
    for name, run in runs.items():
        one = figures[run]
        assert one["median_nu_eps_of_shared"] > 0.5 < one["median_nu_r_of_shared"]
        if name.endswith("again"):  # what one network has, its copy has, too
            assert sum(one["specific"].values()) == one["shared_specific"] == 0
        assert one["halves_agree"] is None or one["halves_agree"] > 0.8
