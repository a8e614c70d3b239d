"""Simulation scoring against simulators that answer by rule, so that the correlation is known."""

import csv
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import spearmanr

from tendril.data.errors import ConfigError, EndpointError
from tendril.data.store.reader import open_store
from tendril.models.dictionaries.checkpoint import load_sae
from tendril.study.interpret.adapting import Adapting
from tendril.study.interpret.asking import Reply, UnusableAnswerError
from tendril.study.interpret.chances import Chance, chances_of, expected_number
from tendril.study.interpret.config import InterpretConfig
from tendril.study.interpret.simulation import Simulated, Simulation, read_simulation
from tendril.study.measures.simulation_fragments import SimulationFragments
from tendril.study.measures.text_examples import TextExample

from ..helpers import planted_language as planted
from ..helpers.interpreting import config, link_home, make_home, study_interpret
from ..helpers.rule_server import Rules, serving

WORDS = ["one", " two", "three", " ,", "5"]
ASKED = {"max_tokens": 500, "logprobs": True, "top_logprobs": 20}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return make_home(tmp_path_factory.mktemp("home"))


@pytest.fixture
def fresh(home, tmp_path):
    return link_home(home, tmp_path)


class Noisy(Rules):
    """Simulates from a table: words in, activations out; and stops answering after `last`."""

    def __init__(self, table: Mapping[tuple[str, ...], Sequence[float]] = {}) -> None:
        super().__init__(planted.CLASSES)
        self.known = dict(table)
        self.last = 10**9

    def respond(self, body: dict):
        refused = 401, b"no more", {}
        return refused if len(self.asked) > self.last else None

    def simulate(self, explanation: str, words: Sequence[str]) -> list[float]:
        found = self.known.get(tuple(word.strip() for word in words))
        return super().simulate(explanation, words) if found is None else list(found)


def simulations(report, latent: int = 0) -> list[dict]:
    rows = csv.DictReader((report.parent / "simulations.csv").read_text().splitlines())
    return [row for row in rows if row["latent"] == row["explanation_of"] == str(latent)]


def correlated(truth: np.ndarray, wanted: float) -> np.ndarray:
    """Numbers from 0 to 10 whose correlation with the truth is as wanted: r t + sqrt(1 - r^2) n
    with a noise n that is orthogonal to t, moved and stretched."""
    t = (truth - truth.mean()) / truth.std()
    n = np.random.default_rng(0).uniform(-1, 1, len(t))
    n = n - n.mean() - t * (n @ t) / (t @ t)
    found = wanted * t + math.sqrt(1 - wanted**2) * n / n.std()
    return 10 * (found - found.min()) / np.ptp(found)


def test_the_score_is_the_correlation_that_the_rule_has_and_nothing_is_asked_twice(fresh):
    """The simulator's numbers are made to have a correlation of 0.8 with activations that the test
    computes from the store; a run that is refused in the midst of it goes on where it was."""
    fields = {"score": ("simulation",), "latents": (0, 1), "parallel": 1, "shuffled": False}
    with serving(Noisy()) as rules:
        rows = simulations(study_interpret(config(fresh, rules, **fields)).report)
    (store,) = (fresh / "store").iterdir()
    x = open_store(store).read(planted.SITE, np.array([place_of(row) for row in rows]))
    sae = load_sae(fresh / "runs" / "known")
    truth = np.maximum(x @ sae.W_enc[:, 0].numpy() + float(sae.b_enc[0]), 0)
    assert truth == pytest.approx([float(row["true"]) for row in rows], abs=1e-4)
    numbers = correlated(truth, 0.8)
    table = fragments_of(fresh, rows, numbers)
    assert len(table) == 10 and 150 <= len(rows) < 160  # the first token of a text has no row
    (fresh / "answers").rename(fresh / "of-the-first")
    for logprobs, within in ((False, 0.01), (True, 1e-4)):
        with serving(Noisy(table)) as rules:
            rules.logprobs, rules.last = logprobs, 9
            asked = config(fresh, rules, overwrite=True, **fields)
            with pytest.raises(EndpointError, match="refuses with 401"):
                study_interpret(asked)
            stopped = len(rules.asked)
            rules.last = 10**9
            done = study_interpret(asked)
            said = Counter(json.dumps(body, sort_keys=True) for body in rules.asked)
            assert sorted(said.values())[-2:] == [1, 2]  # only the one that was refused
            assert len(rules.asked) - stopped == 2 * 11 - 9 and done.figures["kept"] == 9
        one = done.figures["latents"][0]
        assert one["simulation_correlation"] == pytest.approx(0.8, abs=within)
        assert one["simulation_weighed"] == 10 * logprobs
        own = [float(row["simulated"]) for row in simulations(done.report)]
        assert own == pytest.approx(numbers, abs=1e-4 if logprobs else 0.5)
        random = [i for i, row in enumerate(rows) if row["part"] == "random"]
        right = np.corrcoef(truth[random], np.array(own)[random])[0, 1]
        assert 70 < len(random) <= 80 and one["simulation_random_only"] == pytest.approx(
            right, abs=1e-3
        )
        ranks = spearmanr(truth, own).statistic
        assert one["simulation_rank_correlation"] == pytest.approx(ranks, abs=1e-3)
        (fresh / "answers").rename(fresh / f"of-{logprobs}")


def fragments_of(home, rows, numbers) -> dict[tuple[str, ...], list[float]]:
    """The words of every fragment with the numbers for them: 9 for a token without a row."""
    lines = [["<s>", *line.split()] for line in (home / "text.txt").read_text().split("\n")]
    found: dict[tuple[str, ...], list[float]] = {}
    at = 0
    while at < len(rows):
        context, position = int(rows[at]["context"]), int(rows[at]["position"])
        missing = int(position == 1)
        words = lines[context][position - missing : position - missing + 16]
        words[0] = "\u2039s\u203a" if missing else words[0]
        found[tuple(words)] = [9.0] * missing + numbers[at : at + 16 - missing].tolist()
        at += 16 - missing
    return found


def place_of(row: Mapping[str, str]) -> int:
    """The row of the store that a line of simulations.csv is about."""
    return int(row["context"]) * 33 + int(row["position"])


def test_undefined_correlations_are_counted_and_told_and_no_zero(fresh):
    with serving(Noisy()) as rules:
        rules.simulate = lambda explanation, words: [0.0] * len(words)
        done = study_interpret(config(fresh, rules, score=("simulation",)))
    told = done.figures
    assert told["simulation"] == {"mean": None, "latents": 0, "undefined": 3}
    assert told["simulation_mean"] is None
    for one in told["latents"]:
        assert one["simulation_correlation"] is None
        assert one["simulation_undefined"] == "the simulated activations are constant"
    assert "3 correlations undefined" in done.headline
    page = done.report.read_text()
    assert "undefined" in page and "None" not in page and "nan" not in page
    with serving(Noisy()) as rules:  # some of them: the mean is of the others, which are counted
        own = rules.simulate

        def digits_are_lost(explanation: str, words: Sequence[str]) -> list[float]:
            lost = explanation.endswith("digits")
            return [3.0] * len(words) if lost else own(explanation, words)

        rules.simulate = digits_are_lost
        (fresh / "answers").rename(fresh / "before")
        again = study_interpret(config(fresh, rules, score=("simulation",), overwrite=True))
    mean = again.figures["simulation"]
    assert (mean["latents"], mean["undefined"]) == (2, 1) and mean["mean"] > 0.95
    assert again.figures["simulation_shuffled"]["undefined"] >= 1


def simulated(truth: Sequence[float], guess: Sequence[float]) -> Simulated:
    count = len(truth) // 2
    examples = [
        TextExample(0, 0, (0,) * count, tuple(map(float, part)), (True,) * count)
        for part in (truth[:count], truth[count:])
    ]
    numbers = [tuple(map(float, part)) for part in (guess[:count], guess[count:])]
    return Simulated(
        SimulationFragments(examples[:1], examples[1:]),
        [Simulation(part, weighed=False) for part in numbers],
    )


@pytest.mark.parametrize(
    ("truth", "guess", "both", "random"),
    [
        ([0, 0, 4, 0, 0, 0], [0, 0, 9, 0, 0, 0], "", "the true activations are constant"),
        ([0, 1, 4, 0, 0, 2], [5, 5, 5, 5, 5, 5], "the simulated activations are constant", "same"),
        ([0, 1, 4, 0, 0, 2], [0, 1, 2, 1, 1, 1], "", "the simulated activations are constant"),
        ([2, 2, 2, 2, 2, 2], [0, 1, 2, 1, 1, 0], "the true activations are constant", "same"),
        ([0, 1, 4, 0, 0, 2], [3.0, 3.0 + 1e-9, 3.0, 3.0, 3.0, 3.0],
         "the simulated activations are constant", "same"),
    ],
)  # fmt: skip
def test_constant_activations_have_no_correlation(truth, guess, both, random):
    found = simulated(truth, guess)
    assert found.both.undefined == both
    assert found.random_only.undefined == (both if random == "same" else random)
    assert (found.both.value is None) == bool(both) and (found.random_only.value is None)


def test_ties_share_their_rank():
    truth, guess = [0, 0, 4, 0, 3, 3, 0, 9], [0, 2, 2, 0, 5, 5, 2, 5]
    assert simulated(truth, guess).rank.value == pytest.approx(spearmanr(truth, guess).statistic)


def lines(*numbers: object, words: Sequence[str] = WORDS) -> str:
    each = zip(words[: len(numbers)], numbers, strict=True)
    return "\n".join(f"{i}\t{w}\t{n}" for i, (w, n) in enumerate(each, 1))


@pytest.mark.parametrize(
    "answer",
    [
        lines(0, 10, 3, 0, 2),
        "Here it is:\n```\n" + lines(0, 10, 3, 0, 2) + "\n```\nDone.",
        "1. one 0\n2. two: 10\n 3 | three | 3\n4) \u2018,\u2019 0\n5 5 2",
        lines("0", "10.0", "3.0", 0, 2),
    ],
)
def test_a_simulation_is_read(answer):
    assert read_simulation(Reply(answer), WORDS).numbers == (0, 10, 3, 0, 2)


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (lines(0, 10, 3, 0), "has 4 of 5 lines"),
        ("", "has 0 of 5 lines"),
        (lines(0, 10, 3, 0, 2) + "\n6\tsix\t1", "is not the line 6 of 5"),
        (lines(0, 10, 3, 0, 2) + "\n" + lines(0, 10, 3, 0, 2), "is not the line 6 of 5"),
        (lines(0, 10, 0, 2, words=["one", " two", " ,", "5"]), "line 3 is not 'three'"),
        (lines(0, 10, 3, 0, 2).replace("3\tthree", "4\tthree"), "is not the line 3 of 5"),
        (lines(0, 10, "?", 0, 2), "line 3 is not 'three' with a number"),
        (lines(0, 10, -3, 0, 2), "line 3 is not 'three' with a number"),
        (lines(0, 11, 3, 0, 2), "a number above 10"),
        (lines(0, 10, 3, 0, ""), "line 5 is not '5' with a number"),
        (lines(0, "high", 3, 0, 2), "line 2 is not 'two' with a number"),
        ("[0, 10, 3, 0, 2]", "has 0 of 5 lines"),
    ],
)
def test_missing_surplus_and_other_tokens_are_no_simulation(answer, problem):
    with pytest.raises(UnusableAnswerError, match=problem.replace("?", r"\?")):
        read_simulation(Reply(answer), WORDS)


def test_a_simulation_that_cannot_be_read_is_asked_anew_or_told(fresh):
    with serving(Noisy()) as rules:
        rules.faults = ["Explanation: words of the class digits", "1\ttala\t0"]
        fields = {"score": ("simulation",), "latents": (0,), "parallel": 1, "tries": 2}
        told = study_interpret(config(fresh, rules, **fields)).figures
        assert told["failed"] == 0 and told["requested"] == 12
        assert "its line 1 is not" in rules.asked[2]["messages"][3]["content"]
        rules.broken = {"\t?": "1\ttala\t0"}
        (fresh / "answers").rename(fresh / "before")
        told = study_interpret(config(fresh, rules, overwrite=True, **fields)).figures
        assert told["failed"] == 1 and told["simulation"] is None
        assert "its line 1 is not" in told["latents"][0]["failed"]


def listed(*tokens: str, **top: dict[str, float]) -> list[dict]:
    """Log-probabilities of the tokens; `t2` gives the likeliest ones at place 2."""
    return [
        {
            "token": token,
            "top_logprobs": [
                {"token": other, "logprob": math.log(p)}
                for other, p in top.get(f"t{i}", {token: 1.0}).items()
            ],
        }
        for i, token in enumerate(tokens)
    ]


@pytest.mark.parametrize(
    ("tokens", "top", "mean"),
    [
        (("1\tone\t", "7"), {"t1": {"7": 0.6, "8": 0.2, " none": 0.2}}, 7.25),
        (("1\tone", "\t7"), {"t1": {"\t7": 0.5, "\t0": 0.5}}, 3.5),
        (("1\tone\t", "10"), {"t1": {"10": 0.5, "9": 0.25, "11": 0.25}}, (5 + 2.25) / 0.75),
        (("1\tone\t", "1", "0"), {"t1": {"1": 0.8, "0": 0.2}, "t2": {"0": 0.75, "\n": 0.25}},
         0.8 * (0.75 * 10 + 0.25)),
        (("1\tone\t", "1", "\n"), {"t1": {"1": 0.8, "0": 0.2}, "t2": {"0": 0.25, "\n": 0.75}},
         0.8 * (0.25 * 10 + 0.75)),
        (("1\tone\t", "7", ".5"), {}, None),
    ],
)  # fmt: skip
def test_expected_numbers_are_those_of_the_probabilities(tokens, top, mean):
    text = "".join(tokens)
    chances = {c.start: c for c in chances_of(listed(*tokens, **top), text)}
    written = text[6:].strip()
    found = expected_number(written, 6, chances)
    assert found == (None if mean is None else pytest.approx(mean))
    simulation = read_simulation(Reply(text, chances=tuple(chances.values())), ["one"])
    assert simulation.weighed == (mean is not None)
    assert simulation.numbers == pytest.approx((mean if mean is not None else 7.5,))


def test_log_probabilities_that_do_not_spell_the_answer_are_left_out():
    top = {"t1": {"7": 0.5, "8": 0.5}}
    both = listed("1\tone\t", "7", **top)
    assert chances_of(both, "1\tone\t7") == (Chance(6, "7", (("7", 0.5), ("8", 0.5))),)
    thinking = listed("<think>7</think>\n", "1\tone\t", "7", t2=top["t1"])
    assert chances_of(thinking, "1\tone\t7")[0].start == 6
    for other, text in ((both, "1\ttwo\t7"), (None, "1"), ([], ""), ([{"token": "7"}], "7"),
                        ([5], "7"), (both[:1], "1\tone\t7")):  # fmt: skip
        assert chances_of(other, text) == ()
    split = [
        {"token": "\\xe2\\x80", "bytes": [0xE2, 0x80], "top_logprobs": []},
        {"token": "\\x99\t", "bytes": [0x99, 9], "top_logprobs": []},
        {"token": "7", "bytes": [55], "top_logprobs": [{"token": "7", "logprob": 0.0}]},
    ]
    assert chances_of(split, "\u2019\t7") == (Chance(2, "7", (("7", 1.0),)),)


def test_a_server_that_refuses_log_probabilities_is_asked_for_fewer_or_none():
    adapting = Adapting("m")
    assert adapting.learn(ASKED, adapting.sent(ASKED), "top_logprobs must be at most 5; got 20")
    assert adapting.sent(ASKED) == ASKED | {"top_logprobs": 5}
    assert adapting.learn(ASKED, ASKED, "top_logprobs must be at most 5; got 20")  # another thread
    assert adapting.sent(ASKED) == ASKED | {"top_logprobs": 5}
    assert adapting.learn(ASKED, adapting.sent(ASKED), "'logprobs' is not supported here")
    assert adapting.sent(ASKED) == {"max_tokens": 500}
    assert adapting.learn(ASKED, ASKED, "'logprobs' is not supported here")


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"score": ("simulation",), "top": 8}, "--top must be 10 or more for a simulation"),
        ({"score": ()}, "--score must name one of detection, fuzzing, simulation"),
        ({"score": ("embedding",)}, "by --encoder MODEL or by --embedding-model NAME; got neither"),
        ({"score": ("embedding",), "encoder": "a", "embedding_model": "b"}, "got both"),
        ({"simulated": 0}, "--simulated must be 1 or more; got 0"),
        ({"embedding_endpoint": "here"}, "--embedding-endpoint must be an http://"),
    ],
)
def test_mistakes_are_told_in_a_sentence(fields, sentence):
    asked = InterpretConfig(endpoint="http://here", model="m")
    with pytest.raises(ConfigError, match=sentence):
        replace(asked, **fields).check()
