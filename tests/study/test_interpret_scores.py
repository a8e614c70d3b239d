"""Intruders, embeddings, controls and local simulators of automatic interpretation."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tendril.data.errors import ConfigError, SubjectError
from tendril.data.store.reader import open_store
from tendril.models.dictionaries.checkpoint import load_sae, read_config, save_dictionary
from tendril.models.subjects.language import language_subject
from tendril.study.interpret.asking import Asker, UnusableAnswerError
from tendril.study.interpret.embedding import embedding_messages, local_encoder, read_vectors
from tendril.study.interpret.intruder import read_place, trials_of
from tendril.study.interpret.local import local_model, number_tokens
from tendril.study.interpret.prompts import read_explanation
from tendril.study.interpret.simulation import (
    read_simulation,
    simulation_messages,
    simulation_parameters,
    slots,
)
from tendril.study.measures.text_examples import LatentExamples, TextExample

from ..helpers import planted_language as planted
from ..helpers.interpreting import config, link_home, make_home, study_interpret
from ..helpers.rule_server import Difficult, Rules, serving
from ..helpers.token_rules import TokenRules

ALL = ("detection", "fuzzing", "simulation", "intruder", "embedding")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = make_home(tmp_path_factory.mktemp("home"))
    known = home / "runs" / "known"
    trained, sae = read_config(known), load_sae(known)
    with torch.no_grad():  # a control: directions that know no class
        drawn = torch.randn(32, 4, generator=torch.Generator().manual_seed(3))
        sae.W_enc.copy_(torch.linalg.qr(drawn)[0])
        (store,) = (home / "store").iterdir()
        x = torch.from_numpy(open_store(store).read(planted.SITE, np.arange(200 * 33)))
        x = x[x.isfinite().all(1)]
        sae.b_enc.copy_(-(x @ sae.W_enc).quantile(0.985, dim=0))
    (home / "runs" / "blind").mkdir()
    save_dictionary(home / "runs" / "blind", sae, trained, torch.full((4,), 0.5))
    return home


@pytest.fixture
def fresh(home, tmp_path):
    return link_home(home, tmp_path)


def test_every_score_of_a_dictionary_and_its_control_stands_in_one_table(fresh):
    with serving(Rules(planted.CLASSES)) as rules:
        asked = config(fresh, rules, score=ALL, controls=("blind",), embedding_model="counts")
        done = study_interpret(asked)
        requests, embedded = len(rules.asked), len(rules.embedded)
        again = study_interpret(replace(asked, overwrite=True))
        assert (len(rules.asked), len(rules.embedded)) == (requests, embedded)  # all is kept
        texts = [text for body in rules.embedded for text in body["input"]]
        sentences = [text for text in texts if text.startswith("words of the class")]
        assert len(sentences) == len(set(sentences))  # asked once, though it serves two latents
    told = done.figures
    assert told["requested"] == requests + embedded and again.figures["requested"] == 0
    assert again.figures["simulation"] == told["simulation"]
    for one in told["latents"]:
        assert one["simulation_correlation"] > 0.95
        assert one["intruder_accuracy"] == 1.0 and one["intruder_trials"] == 2
        assert one["embedding_auroc"] == 1.0 and one["embedding_items"] == 20
        assert one["simulation_shuffled"] is None or one["simulation_shuffled"] < 0.2
        assert one["embedding_shuffled"] < 0.7
        assert one["intruder_shuffled"] is None  # it takes five latents
        assert one["skew"] > 1 and one["kurtosis"] > 1
    known, blind = told["dictionaries"]
    assert (known["run"], blind["run"]) == ("known", "blind") and blind["latents"] == 4
    for kind in ALL:
        mean = known[kind]
        assert mean["low"] <= mean["mean"] <= mean["high"] and mean["latents"] == 3
        assert mean["mean"] > blind[kind]["mean"] or kind == "intruder"
    pairs = {f"{kind}_{moment}" for kind in ALL for moment in ("skew", "kurtosis")}
    assert set(known["rank_correlations"]) == pairs
    rows = list(csv.DictReader((done.report.parent / "latents.csv").read_text().splitlines()))
    assert [row["run"] for row in rows] == ["known"] * 3 + ["blind"] * 4
    page = done.report.read_text()
    for piece in ("Dictionaries", "blind", "Skew and kurtosis", "simulation, top and random"):
        assert piece in page
    assert ">None<" not in page and "nan" not in page
    assert "blind" in done.table and "undefined" not in done.headline
    other = replace(asked, controls=(), embedding_model="", encoder=str(fresh / "tiny"))
    local = study_interpret(replace(other, score=("embedding",))).figures
    assert local["encoder"].startswith("tiny-") and local["embedding"]["latents"] == 3


def test_a_difficult_endpoint_gives_the_same_simulations_and_places(fresh):
    """It refuses parameters, thinks aloud in numbers, cuts, limits requests and fails."""
    fields = {"score": ("simulation", "intruder"), "latents": (0, 1), "overwrite": True}
    with serving(Rules(planted.CLASSES)) as rules:
        plain = study_interpret(config(fresh, rules, **fields)).figures["latents"]
    (fresh / "answers").rename(fresh / "of-the-first")
    with serving(Difficult(planted.CLASSES, needed=40)) as rules:
        hard = {"max_tokens": 10, "tries": 8, "parallel": 3}
        done = study_interpret(config(fresh, rules, **fields, **hard))
        assert len(set(rules.answered)) == len(rules.answered)
    assert done.figures["failed"] == 0
    assert done.figures["latents"] == plain


def test_the_rule_of_tokens_simulates_from_the_table_that_it_explains_by():
    rules = TokenRules()
    shown = '1. a<< dog>> b\nActive: " dog" 10, " c\\"at" 4\n\n2. <<\u00e4>>\nActive: " dog" 9'
    sentence = read_explanation(rules.explain(shown))
    assert sentence == 'tokens {" dog": 9.5, " c\\"at": 4.0}'
    assert rules.simulate(sentence, [" dog", "dog", ' c"at']) == [9.5, 0.0, 4.0]
    assert rules.simulate("another sentence", [" dog"]) == [0.0]


def example(*values: float) -> TextExample:
    count = len(values)
    return TextExample(0, 0, tuple(range(count)), tuple(map(float, values)), (True,) * count)


def test_an_intruder_is_silent_has_as_many_marks_and_stands_anywhere():
    active = [example(0, 5 - i / 10, 4, 0, 0, 0) for i in range(20)]
    silent = [example(*[0] * 6) for _ in range(20)]
    latent = LatentExamples(3, 20, 5.0, active[:1], active, silent)
    trials = [t for seed in range(40) for t in trials_of(latent, [], 0.3, seed)]
    assert len(trials) == 40 * 5
    for trial in trials:
        peaks = [e.peak for e in trial.examples]
        assert peaks.index(0) == trial.place and sum(p > 0 for p in peaks) == 4
        assert [sum(marks) for marks in trial.marks] == [2] * 5
    places = np.bincount([t.place for t in trials], minlength=5)
    assert (places > 20).all()  # 40 each, within four standard deviations
    lent = {n: [example(n, 0, 0, 0, 0, 0)] * 8 for n in range(4, 8)}
    others = [replace(latent, latent=n, active=each) for n, each in lent.items()]
    mixed = trials_of(latent, others, 0.3, 0)
    assert sorted(e.peak for e in mixed[0].examples) == [0, 4, 5, 6, 7]


@pytest.mark.parametrize(
    ("answer", "place"), [("3", 2), ("Perhaps 1, or 2.\n\nThe fragment is **4**.", 3), ("5.", 4)]
)
def test_a_place_is_read(answer, place):
    assert read_place(answer) == place


@pytest.mark.parametrize("answer", ["", "none", "0", "6", "2 or 3", "12", "1.5"])
def test_an_answer_without_one_place_is_of_no_use(answer):
    with pytest.raises(UnusableAnswerError, match="no number from 1 to 5"):
        read_place(answer)


@pytest.fixture(scope="module")
def counting(tmp_path_factory):
    """A tiny model whose tokenizer has the numbers from 0 to 10, and the word unknown."""
    folder = tmp_path_factory.mktemp("counting")
    planted.save_model(folder)
    words = ["<s>", "<unk>", *map(str, range(11)), "unknown", *planted.WORDS]
    words = words[: 2 + len(planted.WORDS)]  # as many as the model has
    backend = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", unk_token="<unk>"
    ).save_pretrained(folder)
    return language_subject(str(folder))


def test_a_local_model_simulates_in_one_pass_by_expected_values(counting, tmp_path):
    model, words = local_model(counting, torch.device("cpu")), [" one", " dog", " 5"]
    messages = simulation_messages("words of the class digits", words)
    asker = Asker(model, tmp_path, {"temperature": 0, "max_tokens": 20}, tries=1)
    more = simulation_parameters(words, 20, model.fills)
    assert more == {"slots": ["1\t one\t", "2\t dog\t", "3\t 5\t"]}

    def read(reply):
        return read_simulation(reply, words, fills=True)

    found = asker.ask_reply(messages, read, more)
    assert found.weighed and asker.ask_reply(messages, read, more) == found
    assert (asker.tally.requested, asker.tally.kept) == (1, 1)
    prompt = "\n\n".join(content for _, content in messages) + "\n\n"
    ids = [counting.tokenizer.convert_tokens_to_ids(str(n)) for n in range(11)]
    text, slow = prompt, []
    for slot in slots(words):  # one pass a token
        text += slot
        tokens = torch.tensor([counting.tokenizer(text)["input_ids"]])
        p = torch.softmax(counting.module(tokens).logits[0, -1, ids].double(), dim=0)
        slow.append(float(p @ torch.arange(11.0, dtype=torch.float64)))
        text += "unknown\n"
    assert found.numbers == pytest.approx(slow, abs=1e-4) and len(set(slow)) == 3
    with pytest.raises(ConfigError, match=r"must fit into the 2048 tokens .* --example-tokens"):
        many = ["one"] * 800
        asker.ask_reply(simulation_messages("x", many), read, {"slots": slots(many)})


def test_digits_are_stretched_where_ten_is_two_tokens_and_needed(tmp_path):
    vocabulary = {c: i for i, c in enumerate("\n\t 0123456789unkow")}
    backend = Tokenizer(models.BPE(vocabulary, []))
    letters = PreTrainedTokenizerFast(tokenizer_object=backend)
    assert number_tokens(letters, "1\t", "x") == [vocabulary[str(n)] for n in range(10)]
    planted.save_model(tmp_path)
    wordless = language_subject(str(tmp_path))
    with pytest.raises(ConfigError, match="a token for each digit; that of x has none"):
        number_tokens(wordless.tokenizer, "1\t one\t", "x")


def test_a_local_encoder_averages_over_tokens_or_takes_the_first(tmp_path):
    planted.save_model(tmp_path)
    subject = language_subject(str(tmp_path))
    model = local_encoder(subject, torch.device("cpu"))
    texts = ["one two tala", "dog", "one two red red red"]
    reply = model.complete(embedding_messages(texts), {})
    vectors = read_vectors(reply.text, 3)
    for text, vector in zip(texts, vectors, strict=True):
        ids = torch.tensor([subject.tokenizer(text)["input_ids"]])
        states = subject.module(ids, output_hidden_states=True).hidden_states[-1][0]
        assert vector == pytest.approx(states.mean(0).numpy(), abs=1e-5)
    for answer, count in ((reply.text, 2), ("AAAA\n!", 2), ("AACAfw==", 1), ("", 1)):
        with pytest.raises(UnusableAnswerError):
            read_vectors(answer, count)
    (tmp_path / "1_Pooling").mkdir()
    place = tmp_path / "1_Pooling" / "config.json"
    told = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    place.write_text(json.dumps(told))
    first = local_encoder(subject, torch.device("cpu"))
    assert first.name == model.name.replace("-mean", "-cls")
    dog = torch.tensor([subject.tokenizer("dog")["input_ids"]])
    state = subject.module(dog, output_hidden_states=True).hidden_states[-1][0, 0].numpy()
    found = read_vectors(first.complete(embedding_messages(texts), {}).text, 3)
    assert found[1] == pytest.approx(state, abs=1e-5)
    for told in ({"pooling_mode_max_tokens": True}, {}, []):
        place.write_text(json.dumps(told))
        with pytest.raises(ConfigError, match="pool"):
            local_encoder(subject, torch.device("cpu"))


def test_a_local_model_that_is_none_is_told_under_its_own_flag(fresh):
    with serving(Rules(planted.CLASSES)) as rules:
        asked = config(fresh, rules, score=("embedding",), encoder=str(fresh / "store"))
        with pytest.raises(SubjectError, match="--encoder must be the folder of a language model"):
            study_interpret(asked)
        with pytest.raises(SubjectError, match="--local must be the folder of a language model"):
            study_interpret(replace(asked, endpoint="", local=str(fresh / "store"), score=ALL[:1]))


def test_controls_of_other_sites_are_refused(fresh):
    other = fresh / "elsewhere"
    other.mkdir()
    sae = load_sae(fresh / "runs" / "known")
    trained = read_config(fresh / "runs" / "known")
    save_dictionary(other, sae, trained | {"site": "other", "sites": {"other": 32}})
    with (
        serving(Rules(planted.CLASSES)) as rules,
        pytest.raises(ConfigError, match="must be one of"),
    ):
        study_interpret(config(fresh, rules, controls=(str(other),)))
