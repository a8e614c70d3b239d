"""Automatic interpretation: against a server that answers by rule, so that scores are known."""

import base64
import csv
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
import torch
from torch.nn import functional

from tendril.data.cli import print_outcome
from tendril.data.errors import ConfigError, EndpointError
from tendril.data.store.reader import open_store
from tendril.models.dictionaries.checkpoint import load_sae
from tendril.study.__main__ import main
from tendril.study.core.report import read_sealed
from tendril.study.interpret.config import InterpretConfig
from tendril.train.config import TrainConfig
from tendril.train.loop import train

from ..helpers import planted_language as planted
from ..helpers.interpreting import config, link_home, make_home, study_interpret
from ..helpers.rule_server import Difficult, Rules, serving

ROOT = Path(__file__).parents[2]
REQUESTS = 1 + 2 * (4 + 2)  # of a latent below: explain; detect and fuzz, twice


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return make_home(tmp_path_factory.mktemp("home"))


@pytest.fixture
def fresh(home, tmp_path):
    return link_home(home, tmp_path)


def exactly_one(latents: int) -> dict:
    """The mean of scores that are all 1."""
    ends = {"low": 1.0, "high": 1.0}
    return {"mean": 1.0, "standard_error": 0.0, "latents": latents, "undefined": 0, **ends}


def answers(home: Path) -> int:
    return len(list((home / "answers").rglob("*.json")))


def test_planted_classes_are_named_and_scores_are_exactly_those_of_the_rule(fresh, capsys):
    with serving(Rules(planted.CLASSES)) as rules:
        done = study_interpret(config(fresh, rules))
    report, told = done.report.parent, done.figures
    assert read_sealed(report / "result.json")[0] == told
    latents = told["latents"]
    assert [one["latent"] for one in latents] == [0, 1, 2]  # the last latent never fires
    for one, name in zip(latents, planted.CLASSES, strict=True):
        assert one["explanation"] == f"words of the class {name}"
        for kind in ("detection", "fuzzing"):
            assert one[f"{kind}_balanced_accuracy"] == 1.0
            assert one[f"{kind}_precision"] == one[f"{kind}_recall"] == 1.0
        assert one["fuzzing_shuffled"] == 0.5  # the judge says no to everything
    assert told["detection"] == exactly_one(3)
    assert told["fuzzing_shuffled"]["mean"] == told["fuzzing_shuffled_mean"] == 0.5
    assert "1.00 in detection" in done.headline
    hold_against_text(fresh, report, latents)
    assert told["failed"] == 0
    assert told["requested"] == len(rules.asked) == told["estimate"]["requests"] == 3 * REQUESTS
    assert (told["tokens_in"], told["tokens_out"]) == (10 * 3 * REQUESTS, 2 * 3 * REQUESTS)
    assert f"{3 * REQUESTS} requests to rule" in capsys.readouterr().err
    assert "words of the class beasts" in done.table
    table = (report / "latents.csv").read_text().splitlines()
    assert len(table) == 4 and table[0].startswith("latent,frequency,examples")
    judged = (report / "judgements.csv").read_text().splitlines()
    assert len(judged) == 1 + 3 * 2 * (20 + 10)
    page = (report / "index.html").read_text()
    assert "words of the class digits" in page and "✗" not in page
    assert "None" not in page and "nan" not in page


def hold_against_text(home: Path, report: Path, latents: list[dict]) -> None:
    """Every answer of the judge against the text itself, a line a context."""
    lines = [["<s>", *line.split()] for line in (home / "text.txt").read_text().split("\n")]
    names = list(planted.CLASSES)
    said: dict[tuple[int, int], list[tuple[bool, bool]]] = {}
    for row in csv.DictReader((report / "judgements.csv").read_text().splitlines()):
        latent, whose = int(row["latent"]), int(row["explanation_of"])
        start = int(row["position"])
        words = lines[int(row["context"])][start : start + 16]
        own, theirs = (planted.CLASSES[names[i]] for i in (latent, whose))
        if row["kind"] == "fuzzing":
            marked = [words[int(i)] for i in row["marked"].split()]
            assert marked
            assert int(row["truth"]) == all(word in own for word in marked)
            assert int(row["grade"][0]) == all(word in theirs for word in marked)
            continue
        assert int(row["truth"]) == any(word in own for word in words)
        assert int(row["grade"][0]) == any(word in theirs for word in words)
        said.setdefault((latent, whose), []).append((row["truth"] == "1", row["grade"] >= "0.5"))
    for one in latents:
        each = said[one["latent"], one["shuffled_from"]]
        recall = np.mean([yes for truth, yes in each if truth])
        specificity = np.mean([not yes for truth, yes in each if not truth])
        assert one["detection_shuffled"] == pytest.approx((recall + specificity) / 2)


def test_a_rule_that_is_wrong_scores_what_it_should(fresh):
    """The judge knows only half of the digits: what it must miss is counted by hand."""
    known = {**planted.CLASSES, "digits": planted.CLASSES["digits"][:5]}
    with serving(Rules(known)) as rules:
        done = study_interpret(config(fresh, rules, latents=(0,), tested=40, graded=True))
    latent = done.figures["latents"][0]
    assert latent["explanation"] == "words of the class digits"
    texts = detected(rules)
    active = [t for t in texts if any(w in planted.CLASSES["digits"] for w in t.split())]
    hits = [t for t in active if any(w in known["digits"] for w in t.split())]
    assert len(active) == len(texts) // 2 and 0 < len(hits) < len(active)
    recall = len(hits) / len(active)
    assert latent["detection_recall"] == pytest.approx(recall, abs=1e-4)
    assert latent["detection_precision"] == 1.0
    assert latent["detection_balanced_accuracy"] == pytest.approx((recall + 1) / 2, abs=1e-4)
    assert latent["detection_auroc"] == pytest.approx(recall + (1 - recall) / 2, abs=1e-4)
    assert latent["shuffled_from"] is None  # there is no other


def detected(rules: Rules) -> list[str]:
    """The examples that a judge was asked to detect in."""
    users = [body["messages"] for body in rules.asked if "<<" not in str(body["messages"])]
    return [line.split(". ", 1)[1] for m in users for line in m[1]["content"].split("\n")[2:]]


def test_a_difficult_endpoint_gives_no_latent_a_wrong_text(fresh, capsys):
    """It refuses parameters, cuts answers, thinks aloud, limits requests and fails."""
    with serving(Rules(planted.CLASSES)) as rules:
        plain = study_interpret(config(fresh, rules)).figures
    (fresh / "answers").rename(fresh / "other")
    with serving(Difficult(planted.CLASSES, needed=40)) as rules:
        fields = {"max_tokens": 10, "tries": 8, "parallel": 3, "overwrite": True}
        told = study_interpret(config(fresh, rules, **fields)).figures
        assert told["failed"] == 0
        names = ("latent", "explanation", "detection_balanced_accuracy", "fuzzing_shuffled")
        for mine, theirs in zip(told["latents"], plain["latents"], strict=True):
            assert {n: mine[n] for n in names} == {n: theirs[n] for n in names}
        assert len(set(rules.answered)) == len(rules.answered) == 3 * REQUESTS
        for file in (fresh / "answers").rglob("*.json"):
            kept = json.loads(file.read_text())["answer"]
            assert "nothing" not in kept and "wrong" not in kept and "think" not in kept
        before = rules.served
        study_interpret(config(fresh, rules, **fields))
        assert rules.served == before  # all is kept
    said = capsys.readouterr().err
    assert said.count("refuses max_tokens; max_completion_tokens is sent from now on") == 1
    assert said.count("refuses temperature; it is left out from now on") == 1
    with serving(Difficult(planted.CLASSES, needed=400)) as rules:  # more than eight times as many
        for file in (fresh / "answers").rglob("*.json"):
            file.unlink()
        with pytest.raises(EndpointError, match=r"cut at .*|inside its reasoning"):
            study_interpret(config(fresh, rules, **fields | {"tries": 4}))
        assert answers(fresh) == 0


def test_a_second_run_asks_nothing_and_other_latents_ask_for_what_is_new(fresh):
    with serving(Rules(planted.CLASSES)) as rules:
        done = study_interpret(config(fresh, rules))
        first = done.figures
        again = study_interpret(config(fresh, rules))
        assert again.reused and len(rules.asked) == first["requested"]
        about = json.loads((done.report.parent / "about.json").read_text())
        pasted = main(shlex.split(about["command"])[2:])
        assert pasted.result["reused"] and pasted.result["report"] == str(done.report)
        anew = study_interpret(config(fresh, rules, overwrite=True)).figures
        assert len(rules.asked) == first["requested"]
        assert (anew["requested"], anew["kept"]) == (0, 3 * REQUESTS)
        assert anew["detection"] == first["detection"]
        study_interpret(config(fresh, rules, latents=(0, 1), shuffled=False))
        assert len(rules.asked) == first["requested"]  # all of it was part of the first
        for file in list((fresh / "answers").rglob("*.json"))[:2]:
            file.write_text("[1")  # cut short
        mended = study_interpret(config(fresh, rules, overwrite=True)).figures
        assert (mended["requested"], mended["detection"]) == (2, first["detection"])


def test_what_it_costs_is_told_and_nothing_asked(fresh, capsys):
    with serving(Rules(planted.CLASSES)) as rules:
        fields = {"dry_run": True, "price_in": 1e6, "price_out": 2e6}
        planned = study_interpret(config(fresh, rules, **fields))
        told = planned.figures
        assert planned.dry_run and not planned.reused
        assert not rules.asked and not (fresh / "reports").exists()
        assert f", for {told['price']:,.2f}." in capsys.readouterr().err
        assert told["requests"] == 3 * REQUESTS
        assert told["price"] == told["tokens_in"] + 2 * told["tokens_out"] > 0
        study_interpret(config(fresh, rules))
        said = sum(len(m["content"]) for body in rules.asked for m in body["messages"])
        assert told["tokens_in"] == pytest.approx(said / 4, rel=0.1)
        after = study_interpret(config(fresh, rules, **fields)).figures
        assert (after["requests"], after["price"], after["kept"]) == (0, 0, 3 * REQUESTS)


def test_faults_that_pass_are_tried_again_and_leave_no_trace(fresh):
    with serving(Rules(planted.CLASSES)) as rules:
        rules.faults = [500, 429, "hang", "no json", "I do not know.", 503]
        rules.hang = 4.0
        told = study_interpret(config(fresh, rules, parallel=1, timeout=3.0, tries=8)).figures
        assert told["failed"] == 0 and told["detection"]["mean"] == 1.0
        assert told["requested"] == 3 * REQUESTS + 6
        reminded = [b for b in rules.asked if len(b["messages"]) == 4]
        assert len(reminded) >= 1 and "cannot be read" in reminded[0]["messages"][3]["content"]


def test_a_latent_without_an_answer_is_told_and_the_others_go_on(fresh, capsys):
    with serving(Rules(planted.CLASSES)) as rules:
        rules.broken = {"Explanation: words of the class colours": "maybe, who knows"}
        done = study_interpret(config(fresh, rules, tries=2, parallel=1))
        told = done.figures
        assert told["failed"] == 2  # its own tests, and those of the latent that it was lent to
        assert told["interpreted"] == 3
        assert told["detection"] == exactly_one(2)
        page = done.report.read_text()
        assert "no judgement (detection) after 2 tries" in page and "maybe, who knows" in page
        assert "2 of 3 latents got no answer" in capsys.readouterr().err
        kept, asked = answers(fresh), len(rules.asked)
        rules.broken = {}
        mended = study_interpret(config(fresh, rules, tries=2))
        assert mended.figures["failed"] == 0 and mended.figures["kept"] == kept
        assert len(rules.asked) - asked == 3 * REQUESTS - kept
        assert not mended.reused and mended.report == done.report


def test_nobody_there_stops_soon_and_a_refusal_at_once(fresh):
    with serving(Rules(planted.CLASSES)) as rules:
        rules.faults = [401] * 100
        with pytest.raises(EndpointError, match=r"refuses with 401 .*--key-env"):
            study_interpret(config(fresh, rules, parallel=1))
        assert len(rules.asked) == 1
        rules.faults = ["I do not know."] * 100
        with pytest.raises(EndpointError, match="no answer that could be used for any"):
            study_interpret(config(fresh, rules, parallel=1, tries=2))
        gone = config(fresh, rules, parallel=1, tries=2)
    with pytest.raises(EndpointError, match="3 requests in a row got nothing"):
        study_interpret(gone)
    assert answers(fresh) == 0


def test_the_key_goes_to_the_endpoint_and_nowhere_else(fresh, monkeypatch, capsys):
    monkeypatch.setenv("SOME_KEY", "sesame-4711")
    with serving(Rules(planted.CLASSES)) as rules:
        done = study_interpret(config(fresh, rules, key_env="SOME_KEY", latents=(0,)))
    assert set(rules.keys) == {"Bearer sesame-4711"}
    written = [*done.report.parent.iterdir(), *(fresh / "answers").rglob("*.json")]
    assert len(written) > 4
    assert not any(b"sesame" in path.read_bytes() for path in written)
    assert "sesame" not in capsys.readouterr().err
    with pytest.raises(ConfigError, match=r"holds the endpoint's key; \$NO_KEY is not set"):
        study_interpret(config(fresh, rules, key_env="NO_KEY"))


def test_an_endpoint_that_echoes_the_key_shows_it_nowhere(fresh, monkeypatch, capsys):
    key = "sk-Sesame+47/11=="
    monkeypatch.setenv("SOME_KEY", key)
    forms = [key, base64.b64encode(f"Bearer {key}".encode()).decode(), quote(key, safe="")]
    with serving(Rules(planted.CLASSES)) as rules:
        rules.broken = {"": f"Explanation: you sent {' and '.join(forms)}"}
        done = study_interpret(config(fresh, rules, key_env="SOME_KEY", tries=1, parallel=1))
    print_outcome(done.outcome())
    assert done.figures["failed"] == 3  # the judge's answers are no lists
    assert "you sent [key] and" in done.report.read_text()
    answered = [*(fresh / "answers").rglob("*.json")]
    told = [path.read_text() for path in (*done.report.parent.iterdir(), *answered)]
    told += capsys.readouterr()
    assert answered and all(path.stat().st_mode & 0o077 == 0 for path in answered)
    assert not any(form[4:16] in text for form in forms for text in told)


@pytest.mark.slow
def test_killed_and_started_again_asks_nothing_twice(fresh):
    fields = ["--run", "known", "--model", "rule", "--home", str(fresh), "--example-tokens", "16"]
    fields += ["--tested", "10", "--parallel", "2", "--score", "detection", "fuzzing", "simulation"]
    requests = REQUESTS + 2 * 10  # five strong and five random fragments, for two sentences
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with serving(Rules(planted.CLASSES)) as rules:
        rules.slow = 0.15
        command = [
            sys.executable,
            "-m",
            "tendril",
            "study",
            "interpret",
            "--endpoint",
            rules.url,
            *fields,
        ]
        first = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 240
        while answers(fresh) < 12 and time.monotonic() < until:
            time.sleep(0.02)
        first.send_signal(signal.SIGKILL)
        first.wait()
        time.sleep(0.4)  # what was under way ends
        kept, asked = answers(fresh), len(rules.asked)
        assert 12 <= kept < 3 * requests
        rules.slow = 0.0
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert (told["kept"], told["requested"]) == (kept, 3 * requests - kept)
    assert len(rules.asked) - asked == 3 * requests - kept
    said = [json.dumps(body, sort_keys=True) for body in rules.asked]
    assert len(said) - len(set(said)) <= 2  # only what was under way when it was killed
    assert told["detection_mean"] == 1.0


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"endpoint": ""}, "or by --local MODEL; got neither"),
        ({"local": "somewhere"}, "or by --local MODEL; got both"),
        ({"endpoint": "file:///etc/passwd"}, "--endpoint must be an http:// or https:// address"),
        ({"model": ""}, "--endpoint needs --model"),
        ({"latents": (9,)}, "--latents must be from 0 to 3 in known; got 9"),
        ({"latents": (3,)}, "of the 1 latents none has them"),
        ({"top": 3}, "--top must be 5 or more; got 3"),
        ({"mark_threshold": 1.5}, "--mark-threshold must be a fraction from 0 to 1; got 1.5"),
    ],
)
def test_mistakes_are_told_in_a_sentence(home, fields, sentence):
    asked = InterpretConfig(run="known", endpoint="http://here", model="m", home=str(home))
    with pytest.raises(ConfigError, match=sentence):
        study_interpret(replace(asked, **fields))


def test_a_feature_planted_in_a_model_is_found_shown_and_named(home, fresh):
    """The acceptance test: a class of words pushes the residual stream along a direction; a
    dictionary trained on it has a latent of that direction, which the rule names."""
    store = next((home / "store").iterdir())
    trained = train(
        TrainConfig(
            name="learnt",
            store=str(store),
            objective="topk",
            latents=8,
            k=1,
            steps=300,
            batch_size=256,
            lr=3e-3,
            device="cpu",
            home=str(fresh),
        ),
        open_store(store),
    )
    directions = torch.load(home / "directions.pt", weights_only=True)
    rows = functional.normalize(load_sae(trained.run).W_dec, dim=1)
    cosines_CS = directions @ rows.T
    latents = cosines_CS.argmax(1).tolist()
    assert cosines_CS[0].max() > 0.9
    with serving(Rules(planted.CLASSES)) as rules:
        asked = config(fresh, rules, latents=tuple(latents), min_peak=0.3)
        done = study_interpret(replace(asked, run=str(trained.run)))
    found = done.figures["latents"]
    digits = next(one for one in found if one["latent"] == latents[0])
    assert digits["explanation"] == "words of the class digits"
    assert digits["detection_balanced_accuracy"] == digits["fuzzing_balanced_accuracy"] == 1.0
    page = done.report.read_text()
    assert f"Latent {latents[0]} " in page and "words of the class digits" in page
    assert np.isin(page.split(), planted.CLASSES["digits"]).any() or 'class="mark"' in page
