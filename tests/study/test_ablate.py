"""`tendril study ablate` on a dictionary with a latent for each sign of each dimension."""

import dataclasses
import json
import shlex
from pathlib import Path

import pytest
import torch

from tendril.data.errors import ConfigError, SubjectError
from tendril.data.store.reader import open_store
from tendril.models.dictionaries.checkpoint import load_sae, save_dictionary
from tendril.models.subjects.language import language_subject
from tendril.study.__main__ import main
from tendril.study.ablate.config import AblateConfig
from tendril.study.ablate.findings import ablated
from tendril.study.ablate.study import AblateStudy
from tendril.study.core.language_text import held_out_text
from tendril.study.core.study import StudyResult, run_study

from ..helpers.language_runs import SITE, both_signs, harvested


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A harvested text and a run; an encoder's run, and one of a vision network."""
    home = tmp_path_factory.mktemp("home")
    for kind, name in (("llama", "all"), ("bert", "encoder")):
        _, told = harvested(home, kind)
        save_dictionary(home / "runs" / name, both_signs(), told)
    silent = both_signs()
    silent.W_enc[:, 5] = 0
    _, told = harvested(home, "llama")
    save_dictionary(home / "runs" / "silent", silent, told)
    save_dictionary(home / "runs" / "seen", both_signs(), {**told, "subject": {"name": "planted"}})
    return home


def config(home: Path, **fields: object) -> AblateConfig:
    return dataclasses.replace(
        AblateConfig(run="all", latent=(3,), home=str(home), device="cpu", tokens=4),
        **fields,  # type: ignore[arg-type]
    )


def ablate(config: AblateConfig) -> StudyResult:
    return run_study(AblateStudy(), config)


def test_ablating_a_latent_takes_its_direction_away(home: Path) -> None:
    """Against a network whose block has this dimension set to zero where it is above."""
    made = ablate(config(home, latent=(3, 20))).figures
    assert set(made["latents"]) == {"3", "20"}
    store = open_store(next((home / "store").glob("llama-*")))
    text = held_out_text(store, 0.2, None)
    subject = language_subject(str(home / "llama"))
    sae = load_sae("all", str(home))
    told = ablated(subject, SITE, sae, 3, text, 5, torch.device("cpu"))
    tokens_BT, kept_BT = torch.from_numpy(text.tokens_BT).long(), torch.from_numpy(text.kept_BT)

    def without(_module: object, _inputs: object, x_BTD: torch.Tensor) -> torch.Tensor:
        x_BTD = x_BTD.clone()
        x_BTD[..., 3][kept_BT & (x_BTD[..., 3] > 0)] = 0
        return x_BTD

    block = subject.module.get_submodule("model.layers.1")
    clean_BTV = subject.module(tokens_BT).logits.log_softmax(-1)
    on_BT = subject.module(tokens_BT, output_hidden_states=True).hidden_states[2][..., 3] > 0
    on_BT = (on_BT & kept_BT)[:, :-1]
    handle = block.register_forward_hook(without)
    gone_BTV = subject.module(tokens_BT).logits.log_softmax(-1)
    handle.remove()
    change_NV = (gone_BTV - clean_BTV)[:, :-1][on_BT].double()
    assert told.count == len(change_NV) > 0
    torch.testing.assert_close(told.change_V, change_NV.mean(0), atol=1e-6, rtol=1e-4)
    lowest = subject.tokenizer.convert_ids_to_tokens(int(change_NV.mean(0).argmin()))
    assert made["latents"]["3"]["falls"][0]["token"] == lowest


def test_the_page_has_a_card_a_latent_and_the_report_is_reused(home: Path) -> None:
    asked = config(home, run="silent", latent=(3, 5))
    planned = ablate(dataclasses.replace(asked, dry_run=True))
    assert planned.dry_run and not planned.report.parent.exists()
    made = ablate(asked)
    assert made.report == planned.report
    assert made.figures["latents"]["5"]["positions"] == 0
    assert (made.figures["latents_active"], made.figures["strongest"]) == (1, 3)
    page = made.report.read_text()
    assert "Latent 3" in page
    assert "Active at no position of this text." in page
    assert "latent 5 is active at no position" in made.table
    lines = (made.report.parent / "latents.csv").read_text().splitlines()
    assert lines[0] == "latent,positions,value,kl,loss"
    assert len((made.report.parent / "tokens.csv").read_text().splitlines()) == 1 + 2 * 4
    assert ablate(asked).reused
    command = json.loads((made.report.parent / "about.json").read_text())["command"]
    told = main(shlex.split(command)[2:]).result
    assert told["reused"] and told["report"] == str(made.report)


def test_a_text_without_the_latent_has_a_page(home: Path) -> None:
    made = ablate(config(home, run="silent", latent=(5,)))
    assert made.headline == "No latent is active in this text."
    assert made.figures["strongest"] is None


@pytest.mark.parametrize(
    ("fields", "error", "told"),
    [
        ({"latent": ()}, ConfigError, "--latent must give"),
        ({"latent": (999,)}, ConfigError, "--latent must be from 0 to 31"),
        ({"limit": 0}, ConfigError, "--limit must be 1 or more"),
        ({"run": "encoder"}, SubjectError, "ablate needs a causal model; bert is an encoder"),
        ({"run": "seen"}, ConfigError, "ablate needs a run of a language model; seen"),
    ],
)
def test_what_cannot_be_ablated(
    home: Path, fields: dict[str, object], error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        ablate(config(home, **fields))
