"""Prompts, answers, marks and scores of automatic interpretation, each alone."""

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, precision_score, recall_score, roc_auc_score

from tendril.models.subjects.language import language_subject
from tendril.study.interpret.asking import (
    Asker,
    UnansweredError,
    UnusableAnswerError,
)
from tendril.study.interpret.judging import items_of, score_of
from tendril.study.interpret.local import local_model
from tendril.study.interpret.prompts import (
    explain_messages,
    marked,
    read_explanation,
    read_grades,
)
from tendril.study.measures.text_examples import LatentExamples, TextExample

from ..helpers import planted_language as planted


def example(*values: float) -> TextExample:
    count = len(values)
    return TextExample(0, 0, tuple(range(count)), tuple(map(float, values)), (True,) * count)


def test_wrong_marks_are_as_many_and_lie_where_the_latent_is_silent():
    active = [example(0, 0, 5 - i / 10, 1, 0, 2, 0, 0) for i in range(8)]
    examples = LatentExamples(1, 8, 5.0, active[:1], active, [example(*[0] * 8)] * 8)
    items = items_of(examples, "fuzzing", 0.3, 0)
    assert sum(item.truth for item in items) == 4 == len(items) - 4
    for item in items:
        on = [value for value, mark in zip(item.example.values, item.marks, strict=True) if mark]
        assert len(on) == 2
        assert all(value >= 2 for value in on) if item.truth else on == [0, 0]
    full = LatentExamples(1, 8, 5.0, active[:1], [example(1, 1)] * 8, [])
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


def test_an_example_is_written_with_its_marks():
    words = [" one", " two", "-s\n", " <<b>>", " ."]
    text = marked(example(0, 1, 1, 0, 1), (False, True, True, False, True), words.__getitem__)
    assert text == "one<< two-s\\n>> \u2039\u2039b\u203a\u203a<< .>>"
    shown = explain_messages([example(0, 4, 1, 0, 8)], 8.0, 0.3, words.__getitem__)
    assert shown[1][1] == (
        '1. one<< two>>-s\\n \u2039\u2039b\u203a\u203a<< .>>\nActive: " two" 5, " ." 10'
    )


@pytest.fixture(scope="module")
def subject(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    planted.save_model(folder)
    return language_subject(str(folder))


def test_a_local_model_answers_greedily_and_nonsense_is_given_up(subject, tmp_path):
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
    assert asker.tally.requested == 2 and not list(tmp_path.rglob("*.json"))
    with pytest.raises(Exception, match="must fit into the 2048 tokens that"):
        model.complete((("user", "dog " * 3000),), {"max_tokens": 6})
