"""`tendril study splice` on runs of a language model, and its held-out text."""

import dataclasses
import json
import shlex
from pathlib import Path

import numpy as np
import pytest

from tendril.data import order
from tendril.data.cli import run_command
from tendril.data.errors import ConfigError, SubjectError, UnknownSiteError
from tendril.data.store.reader import open_store
from tendril.models.dictionaries.checkpoint import save_dictionary
from tendril.study.__main__ import main
from tendril.study.core.language_text import held_out_text
from tendril.study.core.study import StudyResult, run_study
from tendril.study.core.token_classes import CLASSES, bucket_of, position_buckets, token_classes
from tendril.study.splice.config import SpliceConfig
from tendril.study.splice.study import SpliceStudy

from ..helpers import tiny_language
from ..helpers.language_runs import SITE, WIDTH, T, both_signs, harvested


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A harvested text, a run that gives all back and one that gives nothing; an encoder's run."""
    home = tmp_path_factory.mktemp("home")
    for kind in ("llama", "bert"):
        _, told = harvested(home, kind)
        if kind == "bert":
            save_dictionary(home / "runs" / "encoder", both_signs(), told)
            continue
        save_dictionary(home / "runs" / "all", both_signs(), told)
        save_dictionary(home / "runs" / "nothing", both_signs(0.0), told)
        save_dictionary(home / "runs" / "few", both_signs(), {**told, "held_out": 0.0})
        save_dictionary(home / "runs" / "lost", both_signs(), {**told, "site": "blocks.7.hook_mlp"})
        save_dictionary(home / "runs" / "two", both_signs(), {**told, "sites": {SITE: 8, "b": 8}})
    return home


def config(home: Path, *runs: str, **fields: object) -> SpliceConfig:
    return dataclasses.replace(
        SpliceConfig(run=runs or ("all", "nothing"), device="cpu", home=str(home)),
        **fields,  # type: ignore[arg-type]
    )


def splice(config: SpliceConfig) -> StudyResult:
    return run_study(SpliceStudy(), config)


def test_all_is_recovered_by_the_identity_and_nothing_by_zero(home: Path) -> None:
    result = splice(config(home))
    made = result.figures
    everything, nothing = made["runs"]["all"], made["runs"]["nothing"]
    for against in ("zero", "mean"):
        assert everything[f"recovered_against_{against}"] == 1.0
    assert nothing["recovered_against_zero"] == 0.0
    assert nothing["cross_entropy"] == made["zero"]["cross_entropy"]
    assert everything["kl"] == 0
    assert everything["agreement"] == 1
    assert everything["fvu"] == 0
    assert everything["l0"] == WIDTH
    assert "position" in result.table
    assert "word begin" in result.table
    files = {path.name for path in result.report.parent.iterdir()}
    assert files >= {"index.html", "splice.csv", "by_position.csv", "by_class.csv"}
    assert "held-out contexts of llama-" in result.report.read_text()
    assert splice(config(home)).reused


def test_only_contexts_that_were_held_out_are_read(home: Path) -> None:
    store = open_store(next((home / "store").glob("llama-*")))
    inputs = store.column("input")
    contexts = np.unique(inputs[order.held_out(inputs, 0.2)])
    text = held_out_text(store, 0.2, None)
    assert 0 < len(contexts) < inputs.max()
    assert np.array_equal(text.tokens_BT, store.column("token").reshape(-1, T)[contexts])
    assert not text.kept_BT[:, 0].any(), "a context begins with a special token"
    made = splice(config(home, "all")).figures
    assert made["contexts"] == len(contexts)
    some = held_out_text(store, 0.2, 3)
    assert {row.tobytes() for row in some.tokens_BT} < {row.tobytes() for row in text.tokens_BT}


def test_parts_add_up_to_the_whole(home: Path) -> None:
    made = splice(config(home)).figures
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
    asked = config(home, inputs=str(home / "other.txt"))
    before = {path.name for path in home.iterdir()}
    assert splice(dataclasses.replace(asked, dry_run=True)).dry_run
    assert {path.name for path in home.iterdir()} == before, "a dry run writes nothing"
    first = splice(asked)
    assert first.figures["contexts"] == 100 // (T - 1)
    assert first.figures["runs"]["all"]["kl"] == 0
    (home / "other.txt").write_text(tiny_language.text(100, seed=8))
    assert splice(asked).report != first.report, "another text of the same name"
    made = splice(config(home, inputs="self:3", limit=5)).figures
    assert made["contexts"] == 5


def test_what_cannot_be_spliced_is_told(home: Path) -> None:
    with pytest.raises(ConfigError, match=r"is held out at a fraction of 0. Pass --inputs"):
        splice(config(home, "few"))
    with pytest.raises(SubjectError, match="bert is an encoder, which predicts no next token"):
        splice(config(home, "encoder"))
    with pytest.raises(UnknownSiteError, match=r"no site 'blocks.7.hook_mlp'"):
        splice(config(home, "lost"))
    with pytest.raises(ConfigError, match="two is a crosscoder of the sites"):
        splice(config(home, "two"))
    with pytest.raises(ConfigError, match="--labels is for images"):
        splice(config(home, labels="classes.txt"))


def test_the_command(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["splice", "--run", "all", "--home", str(home), "--device", "cpu", "--limit", "4"]
    with pytest.raises(SystemExit, match="0"):
        run_command(lambda: main(words))
    made = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (made["best_run"], made["best_loss_recovered"]) == ("all", 1.0)
    about = json.loads((Path(made["report"]).parent / "about.json").read_text())
    again = main(shlex.split(about["command"])[2:]).result
    assert again["reused"] and again["report"] == made["report"]
    with pytest.raises(SystemExit, match="2"):
        run_command(lambda: splice(config(home, "encoder")).outcome())
    assert "is an encoder" in capsys.readouterr().err


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
