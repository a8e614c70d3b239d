"""`tendril study steer` on a tiny language model, and on a network that tells colours apart."""

import csv
import dataclasses
import html
import io
import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tendril.data.errors import ConfigError, InputsNotFoundError
from tendril.data.store.reader import open_store
from tendril.models.dictionaries.checkpoint import load_sae, save_dictionary
from tendril.models.sites.edit import edit
from tendril.models.subjects.language import language_subject
from tendril.study.__main__ import main
from tendril.study.core.study import StudyResult, run_study
from tendril.study.core.token_text import readable
from tendril.study.measures.steering import (
    ReadBack,
    continued,
    other_dictionaries,
    random_numbers,
    similar_answers,
)
from tendril.study.steer.config import SteerConfig
from tendril.study.steer.study import SteerStudy

from ..helpers import image_home, splice_subject
from ..helpers.language_runs import SITE, WIDTH, both_signs, harvested


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A harvested text and a run; one of its latents is never active."""
    home = tmp_path_factory.mktemp("home")
    _, told = harvested(home, "llama")
    sae = both_signs()
    sae.W_enc[:, 5] = 0
    save_dictionary(home / "runs" / "words", sae, told)
    save_dictionary(home / "runs" / "turned", both_signs(), {**told, "group": {"rotations": 4,
                    "reflections": False}})  # fmt: skip
    return home


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of three colours, their store and a run."""
    home = tmp_path_factory.mktemp("pictures")
    image_home.make_images(home / "images", 24)
    image_home.make_run(home, image_home.make_store(home), "colours")
    (home / "classes.txt").write_text("a red, ruby\nb green\nc blue\n")
    return home


def config(home: Path, **fields: Any) -> SteerConfig:
    least = SteerConfig(
        run="words", latent=(3,), home=str(home), device="cpu", tokens=6, samples=2, random=2,
        contexts=5, strengths=(-1.0, 2.0), prompt=("w1 w2 w3", "w4"),
    )  # fmt: skip
    return dataclasses.replace(least, **fields)


def vision(home: Path, **fields: Any) -> SteerConfig:
    least = SteerConfig(
        run="colours", latent=(2,), home=str(home), device="cpu", random=2, photographs=3,
        strengths=(-1.0, 2.0), labels=str(home / "classes.txt"),
    )  # fmt: skip
    return dataclasses.replace(least, **fields)


def steer(config: SteerConfig) -> StudyResult:
    return run_study(SteerStudy(), config)


def table(made: StudyResult, name: str) -> list[dict[str, str]]:
    text = (made.report.parent / name).read_text()
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_continuations_are_those_of_generation_under_the_edit(home: Path) -> None:
    """Greedy ones, unedited and at each strength, against transformers' own generation."""
    figures = steer(config(home)).figures
    subject, sae = language_subject(str(home / "llama")), load_sae("words", str(home))
    network: Any = subject.module
    latent = figures["latents"]["3"]
    store = open_store(next((home / "store").glob("llama-*")))
    x_RD = torch.from_numpy(store.read(SITE, slice(0, store.rows)))[store.column("valid")]
    assert latent["max"] == pytest.approx(float(x_RD[:, 3].max()))
    assert latent["frequency"] == pytest.approx(float((x_RD[:, 3] > 0).double().mean()))
    for number, words in enumerate(("w1 w2 w3", "w4")):
        prompt = torch.tensor([subject.tokenizer(f"<s> {words}")["input_ids"]])
        said = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0, "eos_token_id": None,
                "attention_mask": torch.ones_like(prompt)}  # fmt: skip

        def text(tokens: torch.Tensor, first: int = prompt.shape[1]) -> str:
            ids = tokens[0, first:].tolist()
            ids = ids[: ids.index(2)] if 2 in ids else ids
            return "".join(readable(subject.tokenizer, ids))

        assert "".join(figures["plain"][number][0]) == text(network.generate(prompt, **said))
        for step in latent["strengths"]:
            assert step["value"] == pytest.approx(step["strength"] * latent["max"])
            with edit(subject, SITE, sae, add={3: step["value"]}, positions=slice(1, None)):
                found = network.generate(prompt, **said)
            assert "".join(step["texts"][number][0]) == text(found)


@pytest.mark.parametrize("method", ["add", "set"])
def test_an_edit_of_strength_zero_costs_nothing_where_it_is_added(home: Path, method: str) -> None:
    figures = steer(config(home, strengths=(0.0,), method=method)).figures
    (step,) = figures["latents"]["3"]["strengths"]
    if method == "add":
        assert step["texts"] == step["random_texts"] == figures["plain"]
        assert step["latent"]["kl"] == step["random"]["kl"] == 0
        assert step["latent"]["loss"] == 0
    else:  # it ablates the latent
        assert step["latent"]["kl"] > 0


def test_the_cost_is_that_of_the_edit_by_hand(home: Path) -> None:
    """KL and the change of the cross-entropy on the held-out text, where positions are kept."""
    from tendril.study.core.language_text import held_out_text

    figures = steer(config(home, contexts=100, method="set")).figures
    subject, sae = language_subject(str(home / "llama")), load_sae("words", str(home))
    store = open_store(next((home / "store").glob("llama-*")))
    text = held_out_text(store, 0.2, None)
    tokens_BT, kept_BT = torch.from_numpy(text.tokens_BT).long(), torch.from_numpy(text.kept_BT)
    latent = figures["latents"]["3"]
    for step in latent["strengths"]:
        clean_BTV = subject.module(tokens_BT).logits.double().log_softmax(-1)
        with edit(subject, SITE, sae, set={3: step["value"]}, mask=kept_BT) as model:
            made_BTV = model(tokens_BT).logits.double().log_softmax(-1)
        on_BT = kept_BT[:, :-1]
        kl_BT = (clean_BTV.exp() * (clean_BTV - made_BTV)).sum(-1)[:, :-1]
        assert step["latent"]["kl"] == pytest.approx(float(kl_BT[on_BT].mean()), rel=1e-4)
        loss_BT = (clean_BTV - made_BTV)[:, :-1].gather(-1, tokens_BT[:, 1:, None])[..., 0]
        assert step["latent"]["loss"] == pytest.approx(float(loss_BT[on_BT].mean()), rel=1e-3)


def test_the_page_of_text_shows_all_and_the_report_is_reused(home: Path) -> None:
    asked = config(home, latent=(), choose=2, prompt=())
    planned = steer(dataclasses.replace(asked, dry_run=True))
    assert planned.dry_run and planned.figures["continuations"] == 2 * 3 * 3 * 2 * 3
    made = steer(asked)
    assert made.report == planned.report
    figures = made.figures
    assert len(figures["latents"]) == 2 and figures["chosen"]
    assert str(figures["best_latent"]) in figures["latents"]
    page = html.unescape(made.report.read_text())
    for text in ("x_hat(z')", "random direction", "unedited", "Activating examples", "KL (nats)"):
        assert text in page
    for latent in figures["latents"]:
        assert f'id="latent-{latent}"' in page
    rows = table(made, "continuations.csv")
    assert len(rows) == 3 * 3 * (1 + 2 * 2 * 2)
    assert {row["direction"] for row in rows} == {"unedited", "latent", "random"}
    rows = table(made, "strengths.csv")
    assert len(rows) == 2 * (1 + 2 * 2)
    assert f"Latent {figures['best_latent']} at" in made.headline
    assert steer(asked).reused
    command = json.loads((made.report.parent / "about.json").read_text())["command"]
    told = main(shlex.split(command)[2:]).result
    assert told["reused"] and told["report"] == str(made.report)


def test_results_do_not_depend_on_the_batch_size(home: Path) -> None:
    once = steer(config(home)).figures
    again = steer(config(home, batch_size=2, overwrite=True)).figures
    assert (
        once["latents"]["3"]["strengths"][0]["texts"]
        == (again["latents"]["3"]["strengths"][0]["texts"])
    )
    assert once["latents"]["3"]["strengths"][0]["latent"]["kl"] == pytest.approx(
        again["latents"]["3"]["strengths"][0]["latent"]["kl"], rel=1e-5
    )


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"latent": (99,)}, "--latent must be from 0 to 31; got 99"),
        ({"latent": (5,)}, "latent 5 is active nowhere"),
        ({"method": "clamp"}, "--method must be one of add, set; got 'clamp'"),
        ({"strengths": ()}, "--strengths must be one number or more"),
        ({"strengths": (float("inf"),)}, "--strengths must be"),
        ({"temperature": 0.0}, "--temperature must be above 0"),
        ({"tokens": 100}, "--tokens must leave room in the 64 tokens that llama takes"),
        ({"prompt": ("",)}, "--prompt must hold a token"),
        ({"patch": (0, 0, 1, 1)}, "--patch is for runs of a vision network"),
        ({"patch": (0, 0, 0, 1)}, "--patch must be four numbers"),
        ({"random": 0}, "--random must be 1 or more"),
        ({"run": "turned"}, "turned is a crosscoder over a group"),
    ],
)
def test_what_cannot_be_steered(home: Path, fields: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        steer(config(home, **fields))


def test_class_probabilities_are_those_of_the_edited_maps(pictures: Path) -> None:
    """Against a hand computation, at all positions and in a patch."""
    store = open_store(next((pictures / "store").glob("*")))
    sae, subject = load_sae("colours", str(pictures)), splice_subject.make()
    x_RD = torch.from_numpy(store.read("relu", slice(0, store.rows)))[store.column("valid")]
    most = float(sae.encode(x_RD)[:, 2].max())
    for patch in ((), (2, 1, 3, 4)):
        made = steer(vision(pictures, patch=patch))
        figures = made.figures
        latent = figures["latents"]["2"]
        assert latent["max"] == pytest.approx(most, rel=1e-4)
        assert len(figures["photographs"]) == 3
        for photograph, number in zip(figures["photographs"], range(3), strict=True):
            rows = store.column("input") == photograph["number"]
            maps_1CHW = torch.from_numpy(store.read("relu", slice(0, store.rows)))[rows]
            maps_1CHW = maps_1CHW.view(8, 8, 2).permute(2, 0, 1)[None]
            image = pictures / "images" / photograph["name"]
            from PIL import Image

            x = torch.from_numpy(np.array(Image.open(image))).permute(2, 0, 1)[None].float() / 255
            blue = subject.module.blue(subject.preprocess(x)).relu()  # type: ignore[operator]
            plain = 10 * torch.cat([maps_1CHW, blue], 1).mean((2, 3))
            names = ["red", "green", "blue"]
            found = dict(photograph["answers"])
            for name, p in zip(names, plain.softmax(-1)[0].tolist(), strict=True):
                assert found[name] == pytest.approx(p, abs=1e-5)
            for step in latent["strengths"]:
                moved = torch.zeros_like(maps_1CHW)
                moved += step["value"] * sae.W_dec[2][:, None, None]
                if patch:
                    inside = torch.zeros(8, 8, dtype=torch.bool)
                    inside[2:5, 1:5] = True
                    moved = moved * inside
                logits = 10 * torch.cat([maps_1CHW + moved, blue], 1).mean((2, 3))
                found = dict(step["answers"][number])
                for name, p in zip(names, logits.softmax(-1)[0].tolist(), strict=True):
                    assert found[name] == pytest.approx(p, abs=1e-5)


def test_the_page_of_images_shows_photographs_and_moves(pictures: Path) -> None:
    made = steer(vision(pictures, latent=(), choose=2, strengths=(0.0, 1.0)))
    figures = made.figures
    assert len(figures["latents"]) == 2 and "pixels" not in figures
    for one in figures["latents"].values():
        zero = one["strengths"][0]
        assert zero["latent"]["kl"] == zero["random"]["kl"] == zero["latent"]["changed"] == 0
        assert zero["answers"] == [photo["answers"] for photo in figures["photographs"]]
        shown = {photo["number"] for photo in figures["photographs"]}
        assert not shown & set(one["examples"])
    page = made.report.read_text()
    assert page.count("data:image/jpeg") == 2 * len(figures["photographs"]) + sum(
        len(one["examples"]) for one in figures["latents"].values()
    )
    for text in ("Classes that move most", "random direction", "red"):
        assert text in page
    rows = table(made, "answers.csv")
    assert len(rows) == 3 * len(figures["photographs"]) * (1 + 2 * 2 * 2)
    assert steer(vision(pictures, latent=(), choose=2, strengths=(0.0, 1.0))).reused


@pytest.mark.parametrize(
    ("fields", "error", "told"),
    [
        ({"prompt": ("a",)}, ConfigError, "--prompt is for runs of a language model"),
        ({"patch": (6, 0, 3, 1)}, ConfigError, "--patch must lie in the 8 x 8 cells of relu"),
        ({"labels": "none.txt"}, InputsNotFoundError, "--labels must be a file with a class"),
        ({"latent": (11,)}, ConfigError, "latent 11 is active nowhere"),
    ],
)
def test_what_cannot_be_steered_of_images(
    pictures: Path, fields: dict[str, Any], error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        steer(vision(pictures, **fields))


def test_a_read_back_counts_tokens_before_the_end() -> None:
    tokens_BT = np.array([[1, 2, 3, 2], [4, 9, 1, 1]])
    ended_BT = np.logical_or.accumulate(tokens_BT == 9, axis=1)
    read = ReadBack(tokens_BT, np.arange(8.0).reshape(2, 4), tokens_BT == 2, ~ended_BT)
    found = read.figures({"peak": {2}, "following": {1, 4}})
    assert found == {
        "peak": 2 / 5,
        "following": 2 / 5,
        "active": 2 / 5,
        "surprise": (0 + 1 + 2 + 3 + 4) / 5,
    }
    none = ReadBack(tokens_BT, np.zeros((2, 4)), tokens_BT == 2, np.zeros((2, 4), bool))
    assert none.figures({"peak": {2}}) == {"peak": None, "active": None, "surprise": None}


def test_random_directions_have_the_norm_of_the_row_and_the_same_code() -> None:
    sae = both_signs(3.0)
    x_ND = torch.randn(7, WIDTH, generator=torch.Generator().manual_seed(0))
    one, two = other_dictionaries(sae, 4, 2, 0)
    for other in (one, two):
        assert torch.equal(other.encode(x_ND), sae.encode(x_ND))
        assert float(other.W_dec[4].norm()) == pytest.approx(3.0)
        others = torch.arange(2 * WIDTH) != 4
        assert torch.equal(other.W_dec[others], sae.W_dec[others])
    assert not torch.allclose(one.W_dec[4], two.W_dec[4])
    assert torch.equal(other_dictionaries(sae, 4, 1, 0)[0].W_dec, one.W_dec)
    assert not torch.allclose(other_dictionaries(sae, 4, 1, 1)[0].W_dec, one.W_dec)


def test_a_continuation_depends_on_its_own_random_numbers(home: Path) -> None:
    module = language_subject(str(home / "llama")).module
    drawn_BT = random_numbers(4, 8, (0, 1))
    assert np.isnan(drawn_BT[0]).all() and not np.isnan(drawn_BT[1:]).any()
    device = torch.device("cpu")
    every_BT = continued(module, [1, 5, 6], drawn_BT, 1.0, device)
    alone_BT = np.concatenate(
        [continued(module, [1, 5, 6], drawn_BT[i : i + 1], 1.0, device) for i in range(5)]
    )
    assert (every_BT == alone_BT).all()
    assert len({tuple(row) for row in every_BT.tolist()}) == 5
    logits_V = module(torch.tensor([[1, 5, 6]])).logits[0, -1]
    assert every_BT[0, 0] == int(logits_V.argmax())
    first = logits_V.double().softmax(-1).cumsum(-1) >= drawn_BT[1, 0]
    assert every_BT[1, 0] == int(first.double().argmax())
    cold_BT = continued(module, [1, 5, 6], drawn_BT, 1e-3, device)
    assert (cold_BT == cold_BT[0]).all()


def test_similar_answers_is_a_mean_cosine() -> None:
    logits_BV = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert similar_answers(logits_BV, torch.zeros(2)) == pytest.approx(1 / 3)
    assert similar_answers(logits_BV[:1], torch.zeros(2)) == -1.0
