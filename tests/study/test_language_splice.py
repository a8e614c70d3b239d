"""`tendril study splice` and `ablate` on runs of a language model."""

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tendril.data import order
from tendril.data.cli import run_command
from tendril.data.errors import ConfigError, SubjectError, UnknownSiteError
from tendril.data.store.reader import open_store
from tendril.harvest.config import LanguageConfig
from tendril.harvest.run import harvest
from tendril.models.dictionaries.checkpoint import load_sae, save_dictionary
from tendril.models.dictionaries.sae import SAE
from tendril.models.dictionaries.sparsity import Sparsity
from tendril.models.subjects.language import language_subject
from tendril.study.__main__ import main
from tendril.study.ablate.study import ablated, study_ablate
from tendril.study.core.language_text import held_out_text
from tendril.study.core.token_classes import CLASSES, bucket_of, position_buckets, token_classes
from tendril.study.curves.config import SpliceConfig
from tendril.study.patching.config import AblateConfig
from tendril.study.splice.images import study_splice

from ..helpers import tiny_language

T, WIDTH, SITE = 16, 16, "blocks.1.hook_resid_post"


def both_signs(scale: float = 1.0) -> SAE:
    """Gives every vector back (times `scale`): a latent for each sign of each dimension."""
    sae = SAE(WIDTH, 2 * WIDTH, Sparsity("relu"), pre_bias=False).requires_grad_(False)
    both = torch.cat([torch.eye(WIDTH), -torch.eye(WIDTH)])
    sae.W_enc.copy_(both.T)
    sae.W_dec.copy_(scale * both)
    return sae


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A harvested text, a run that gives all back and one that gives nothing; an encoder's run."""
    home = tmp_path_factory.mktemp("home")
    for kind in ("llama", "bert"):
        model = tiny_language.save(home / kind, kind)
        (home / "text.txt").write_text(tiny_language.text(900))
        config = LanguageConfig(
            inputs=str(home / "text.txt"), subject=str(model), sites=("resid_post.1",),
            context=T, dtype="float32", device="cpu", home=str(home), name=kind,
        )  # fmt: skip
        store = open_store(harvest(config).store)
        told = {"site": SITE, "subject": store.spec["subject"], "store": store.name,
                "store_path": f"../../store/{store.name}", "held_out": 0.2}  # fmt: skip
        if kind == "bert":
            save_dictionary(home / "runs" / "encoder", both_signs(), told)
            continue
        save_dictionary(home / "runs" / "all", both_signs(), told)
        save_dictionary(home / "runs" / "nothing", both_signs(0.0), told)
        save_dictionary(home / "runs" / "few", both_signs(), {**told, "held_out": 1e-9})
        save_dictionary(home / "runs" / "lost", both_signs(), {**told, "site": "blocks.7.hook_mlp"})
        save_dictionary(home / "runs" / "two", both_signs(), {**told, "sites": {SITE: 8, "b": 8}})
    return home


def config(home: Path, *runs: str, **fields: object) -> SpliceConfig:
    return dataclasses.replace(
        SpliceConfig(run=runs or ("all", "nothing"), device="cpu", home=str(home)),
        **fields,  # type: ignore[arg-type]
    )


def test_all_is_recovered_by_the_identity_and_nothing_by_zero(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = study_splice(config(home))
    everything, nothing = made["runs"]["all"], made["runs"]["nothing"]
    for against in ("zero", "mean"):
        assert everything[f"recovered_against_{against}"] == 1.0
    assert nothing["recovered_against_zero"] == 0.0
    assert nothing["cross_entropy"] == made["zero"]["cross_entropy"]
    assert everything["kl"] == 0
    assert everything["agreement"] == 1
    assert everything["fvu"] == 0
    assert everything["l0"] == WIDTH
    told = capsys.readouterr().out
    assert "position" in told
    assert "word begin" in told
    assert (Path(made["report"]) / "index.html").is_file()


def test_only_contexts_that_were_held_out_are_read(home: Path) -> None:
    store = open_store(next((home / "store").glob("llama-*")))
    inputs = store.column("input")
    contexts = np.unique(inputs[order.held_out(inputs, 0.2)])
    text = held_out_text(store, 0.2, None)
    assert 0 < len(contexts) < inputs.max()
    assert np.array_equal(text.tokens_BT, store.column("token").reshape(-1, T)[contexts])
    assert not text.kept_BT[:, 0].any(), "a context begins with a special token"
    made = study_splice(config(home, "all"))
    assert made["contexts"] == len(contexts)
    some = held_out_text(store, 0.2, 3)
    assert {row.tobytes() for row in some.tokens_BT} < {row.tobytes() for row in text.tokens_BT}


def test_parts_add_up_to_the_whole(home: Path) -> None:
    made = study_splice(config(home))
    for part in ("by_position", "by_class"):
        cut = made[part].values()
        assert sum(one["predictions"] for one in cut) == made["predictions"]
        for find in (lambda told: told["zero"], lambda told: told["runs"]["nothing"]):
            summed = sum(one["predictions"] * find(one)["kl"] for one in cut)
            assert summed == pytest.approx(made["predictions"] * find(made)["kl"])
    first = made["by_position"]["1-2"]["predictions"]
    assert first == made["contexts"], "only token 2: token 1 is predicted where nothing is put"


def test_another_text_and_one_that_the_model_writes(home: Path) -> None:
    (home / "other.txt").write_text(tiny_language.text(100, seed=9))
    made = study_splice(config(home, inputs=str(home / "other.txt")))
    assert made["contexts"] == 100 // (T - 1)
    assert made["runs"]["all"]["kl"] == 0
    made = study_splice(config(home, inputs="self:3", limit=5))
    assert made["contexts"] == 5


def test_what_cannot_be_spliced_is_told(home: Path) -> None:
    with pytest.raises(ConfigError, match=r"none is held out at a share of 1e-09; pass --inputs"):
        study_splice(config(home, "few"))
    with pytest.raises(SubjectError, match="bert is an encoder, which predicts none"):
        study_splice(config(home, "encoder"))
    with pytest.raises(UnknownSiteError, match=r"no site 'blocks.7.hook_mlp'"):
        study_splice(config(home, "lost"))
    with pytest.raises(ConfigError, match="two is a crosscoder of the sites"):
        study_splice(config(home, "two"))
    with pytest.raises(ConfigError, match="--labels is for images"):
        study_splice(config(home, labels="classes.txt"))
    for latents in ((), (999,)):
        with pytest.raises(ConfigError, match="--latent"):
            study_ablate(AblateConfig(run="all", latent=latents, home=str(home), device="cpu"))


def test_the_command(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fixed = ["--home", str(home), "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", ["study", "splice", "--run", "all", *fixed])
    with pytest.raises(SystemExit, match="0"):
        main()
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["runs"]["all"]["kl"] == 0
    with pytest.raises(SystemExit, match="2"):
        run_command(lambda: study_splice(config(home, "encoder")))
    assert "is an encoder" in capsys.readouterr().err


def test_ablating_a_latent_takes_its_direction_away(home: Path) -> None:
    """Against a network whose block has this dimension set to zero where it is above."""
    made = study_ablate(
        AblateConfig(run="all", latent=(3, 20), home=str(home), device="cpu", tokens=4)
    )
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


def test_classes_of_tokens() -> None:
    words = ["▁the", "ing", "▁7", "42", ".", '▁"', "▁", "\n", "Ġx"]
    tokenizer = tiny_language.tokenizer(words)
    classes = [CLASSES[i] for i in token_classes(tokenizer, 14)]
    assert classes[3:12] == [
        "word begin", "word continuation", "digit", "digit", "punctuation", "punctuation",
        "word begin", "newline", "word begin",
    ]  # fmt: skip
    assert set(classes[:3] + classes[12:]) == {"special"}
    plain = token_classes(tiny_language.tokenizer(["cat", "dog", "7"]), 6)
    assert [CLASSES[i] for i in plain[3:]] == ["word begin", "word begin", "digit"]


def test_buckets_of_positions() -> None:
    assert position_buckets(16) == [(1, 2), (3, 4), (5, 8), (9, 15)]
    assert position_buckets(2) == [(1, 1)]
    assert bucket_of(10, position_buckets(10)).tolist() == [-1, 0, 0, 1, 1, 2, 2, 2, 2, 3]
