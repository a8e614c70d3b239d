"""Fragments, prompts, answers and scores of automatic interpretation, each alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, precision_score, recall_score, roc_auc_score

from tendril.models.subjects.language import language_subject
from tendril.study.core.language_inputs import StoredText
from tendril.study.core.token_text import readable
from tendril.study.interpret.ask import Asker, UnansweredError
from tendril.study.interpret.clients import local_model
from tendril.study.interpret.prompts import (
    UnusableAnswerError,
    explain_messages,
    marked,
    read_explanation,
    read_grades,
)
from tendril.study.interpret.scores import items_of, score_of
from tendril.study.measures.text_examples import (
    AHEAD,
    Examples,
    Firing,
    Fragment,
    active_places,
    examples_of,
    silent_places,
)

from ..helpers import planted_language as planted


def sparse(seed: int, contexts: int, length: int, share: float) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = rng.random((contexts, length)) * (rng.random((contexts, length)) < share)
    return values.astype(np.float32)


def slow_places(dense_CT: np.ndarray, length: int) -> list[tuple[float, int, int]]:
    """The same, one token after the other."""
    found = []
    for context, values in enumerate(dense_CT):
        taken: list[int] = []
        for at in sorted(range(len(values)), key=lambda i: (-values[i], i)):
            start = min(max(at - int(length * AHEAD), 0), len(values) - length)
            if values[at] > 0 and all(abs(start - other) >= length for other in taken):
                taken.append(start)
                found.append((-float(values[start : start + length].max()), context, start))
    return sorted(found)


@given(st.integers(0, 999), st.integers(1, 6), st.integers(1, 12), st.sampled_from([0, 0.1, 0.9]))
def test_active_fragments_are_the_strongest_that_do_not_overlap(seed, contexts, length, share):
    dense_CT = sparse(seed, contexts, 12, share)
    place_N2, peak_N = active_places(dense_CT, length)
    fast = [(-float(p), int(c), int(s)) for (c, s), p in zip(place_N2, peak_N, strict=True)]
    assert fast == slow_places(dense_CT, length)


@given(st.integers(0, 999), st.integers(1, 12), st.sampled_from([0.0, 0.1, 0.5]))
def test_silent_fragments_are_silent_and_all_can_be_drawn(seed, length, share):
    dense_CT = sparse(seed, 20, 12, share)
    silent = [
        c
        for c in range(20)
        if any(not dense_CT[c, s : s + length].any() for s in range(13 - length))
    ]
    places = silent_places(dense_CT, length, 50, seed)
    assert places[:, 0].tolist() == silent
    assert all(not dense_CT[c, s : s + length].any() for c, s in places)
    assert len(silent_places(dense_CT, length, 3, seed)) == min(3, len(silent))


def firing(dense_CT: np.ndarray) -> Firing:
    contexts, length = dense_CT.shape
    tokens = np.arange(dense_CT.size, dtype=np.int32).reshape(contexts, length)
    text = StoredText(tokens, tokens * 0, np.ones(tokens.shape, bool))
    on = np.flatnonzero(dense_CT)
    return Firing(text, np.arange(contexts), (7,), [on], [dense_CT.reshape(-1)[on]])


def test_examples_are_apart_over_all_quantiles_and_a_pure_function_of_the_seed():
    dense_CT = sparse(0, 300, 16, 0.04)
    how = {"shown": 5, "top": 20, "tested": 10, "floor": 0.0}
    examples = examples_of(firing(dense_CT), 0, 8, seed=3, **how)
    again = examples_of(firing(dense_CT), 0, 8, seed=3, **how)
    other = examples_of(firing(dense_CT), 0, 8, seed=4, **how)
    assert examples == again != other
    _, peak_N = active_places(dense_CT, 8)
    assert all(f.peak >= peak_N[19] for f in examples.shown)
    assert not {(f.context, f.start) for f in examples.shown} & {
        (f.context, f.start) for f in examples.active
    }
    peaks = [f.peak for f in examples.active]
    assert peaks == sorted(peaks, reverse=True)
    ranks = [int((peak_N > peak).sum()) for peak in peaks]
    tenth = len(peak_N) / 10
    assert all(abs(rank - tenth * (i + 0.5)) <= tenth for i, rank in enumerate(ranks))
    assert all(f.peak == 0 for f in examples.silent) and len(examples.silent) == 10
    for f in examples.active:
        assert f.tokens == tuple(f.context * 16 + f.start + i for i in range(8))
    high = examples_of(firing(dense_CT), 0, 8, seed=3, **(how | {"floor": 0.5}))
    assert high.found == (peak_N >= 0.5 * peak_N[0]).sum()
    assert min(f.peak for f in high.active) >= 0.5 * high.maximum


def fragment(*values: float) -> Fragment:
    count = len(values)
    return Fragment(0, 0, tuple(range(count)), tuple(map(float, values)), (True,) * count)


def test_wrong_marks_are_as_many_and_lie_where_the_latent_is_silent():
    active = [fragment(0, 0, 5 - i / 10, 1, 0, 2, 0, 0) for i in range(8)]
    examples = Examples(1, 8, 5.0, active[:1], active, [fragment(*[0] * 8)] * 8)
    items = items_of(examples, "fuzzing", 0.3, 0)
    assert sum(item.truth for item in items) == 4 == len(items) - 4
    for item in items:
        on = [value for value, mark in zip(item.fragment.values, item.marks, strict=True) if mark]
        assert len(on) == 2
        assert all(value >= 2 for value in on) if item.truth else on == [0, 0]
    full = Examples(1, 8, 5.0, active[:1], [fragment(1, 1)] * 8, [])
    assert all(item.truth for item in items_of(full, "fuzzing", 0.3, 0))
    assert len(items_of(examples, "detection", 0.3, 0)) == 16


def test_scores_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    truth, grade = np.arange(40) % 3 == 0, rng.integers(0, 11, 40) / 10
    score, said = score_of(truth.tolist(), grade.tolist(), True), grade >= 0.5
    assert score.balanced_accuracy == pytest.approx(balanced_accuracy_score(truth, said))
    assert score.precision == pytest.approx(precision_score(truth, said))
    assert score.recall == pytest.approx(recall_score(truth, said))
    assert score.auroc == pytest.approx(roc_auc_score(truth, grade))
    never = score_of([True, False], [0.0, 0.0], False)
    assert (never.balanced_accuracy, never.precision, never.auroc) == (0.5, None, None)


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ("Explanation: numbers as words", "numbers as words"),
        ("Let me see.\n**Explanation:** numbers\nas words", "numbers"),
        ("Explanation: first thought\n[EXPLANATION]: 'a' behind \"b\".", "'a' behind \"b\"."),
        ("explanation:   two   spaces ", "two spaces"),
    ],
)
def test_an_explanation_is_read(answer, sentence):
    assert read_explanation(answer) == sentence


@pytest.mark.parametrize("answer", ["", "numbers", "Explanation:", "Explanation: ..."])
def test_an_answer_without_an_explanation_is_of_no_use(answer):
    with pytest.raises(UnusableAnswerError, match="no line that begins with"):
        read_explanation(answer)


def test_grades_are_read_and_nothing_else():
    assert read_grades("[1, 0, 1]", 3) == (1, 0, 1)
    assert read_grades("[0, 0, 0] no: [0.5, 1, 0.25].", 3) == (0.5, 1, 0.25)
    for answer in ("1, 0, 1", "[1, 0]", "[1, 2, 0]", "[1, 0, true]", "[1, 0, NaN]", "[1, 0, x]"):
        with pytest.raises(UnusableAnswerError, match="no list of 3 numbers"):
            read_grades(answer, 3)


def test_a_fragment_is_written_with_its_marks():
    words = [" one", " two", "-s\n", " <<b>>", " ."]
    text = marked(fragment(0, 1, 1, 0, 1), (False, True, True, False, True), words.__getitem__)
    assert text == "one<< two-s\\n>> \u2039\u2039b\u203a\u203a<< .>>"
    shown = explain_messages([fragment(0, 4, 1, 0, 8)], 8.0, 0.3, words.__getitem__)
    assert shown[1][1] == (
        '1. one<< two>>-s\\n \u2039\u2039b\u203a\u203a<< .>>\nActive: " two" 5, " ." 10'
    )


@pytest.fixture(scope="module")
def subject(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    planted.save_model(folder)
    return language_subject(str(folder))


def test_tokens_read_as_they_stand_in_a_text(subject):
    read = readable(subject.tokenizer, range(len(subject.tokenizer))).__getitem__
    tokens = subject.tokenizer("dog one tala", add_special_tokens=False)["input_ids"]
    assert "".join(map(read, tokens)) == " dog one tala"


def test_tokens_of_a_real_tokenizer_read_as_they_stand(shared):
    from tendril.models.subjects.language import tokenizer_of

    tokenizer = tokenizer_of(str(shared / "lm" / "stories260K"))
    read = readable(tokenizer, range(len(tokenizer))).__getitem__
    told = 'Once upon a time, Lily said: "Look!"\nThe dog\'s ball was — big.'
    tokens = tokenizer(told, add_special_tokens=False)["input_ids"]
    assert "".join(map(read, tokens)).strip() == told


def test_a_local_model_answers_greedily_and_nonsense_is_given_up(subject, tmp_path):
    import torch

    model = local_model(subject, torch.device("cpu"))
    messages = (("system", "dog cat"), ("user", "one two tala"))
    reply = model.complete(messages, {"max_tokens": 6})
    ids = torch.tensor([subject.tokenizer("dog cat one two tala")["input_ids"]])
    for _ in range(6):  # the slow way: all over again for every token
        ids = torch.cat([ids, subject.module(ids).logits[:, -1:].argmax(-1)], dim=1)
    assert reply.text == subject.tokenizer.decode(ids[0, -6:], skip_special_tokens=True)
    assert (reply.tokens_in, reply.tokens_out) == (ids.shape[1] - 6, 6)
    asker = Asker(model, tmp_path, {"max_tokens": 6}, tries=2, backoff=0.0)
    with pytest.raises(UnansweredError, match=r"after 2 tries: the answer .* cannot be read"):
        asker.ask(messages, read_explanation)
    assert asker.tally.asked == 2 and not list(tmp_path.rglob("*.json"))
    with pytest.raises(Exception, match="is more than the 2048 that it takes"):
        model.complete((("user", "dog " * 3000),), {"max_tokens": 6})
