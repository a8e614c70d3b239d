"""Documents that do not read each other: one a padded context, or several behind masks."""

import dataclasses
import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tendril.data.cli import run_command
from tendril.data.errors import ConfigError, SubjectError
from tendril.data.inputs.packing import tokens_and_roles
from tendril.data.store.reader import Store, open_store
from tendril.harvest.__main__ import main
from tendril.harvest.command import harvest_command
from tendril.harvest.config import LanguageConfig, VerifyConfig
from tendril.harvest.run import harvest, make_plan
from tendril.harvest.verify import verify_deep
from tendril.models.sites.hooks import recording
from tendril.models.subjects import chats as chats_of
from tendril.models.subjects.language import language_subject
from tendril.models.subjects.subject import site_modules

from ..conftest import ROOT
from ..data.test_store import contents
from ..helpers import tiny_language

# isort: split
from transformers import MambaConfig, MambaForCausalLM, MistralConfig, MistralForCausalLM

T = 16
WORDS = (9, 3, 40, 0, 1, 14, 25, 2, 2, 7, 30, 5)
SITES = ("resid_post.0", "resid_post.-1")
TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'alien' %}{{ raise_exception('Who is this?') }}"
    "{% endif %}{{ '<s> ' if loop.first else '' }}{{ m.role ~ ' ' }}"
    "{{ m.content | trim ~ ' </s> ' }}{% endfor %}"
)


def model_of(kind: str, folder: Path) -> str:
    torch.manual_seed(0)
    shape = {"vocab_size": 53, "hidden_size": 16, "num_hidden_layers": 3}
    if kind == "mistral":
        network: Any = MistralForCausalLM(
            MistralConfig(
                **shape,
                intermediate_size=32,
                num_attention_heads=2,
                num_key_value_heads=1,
                max_position_embeddings=64,
                sliding_window=5,
            )
        )
    elif kind == "mamba":
        network = MambaForCausalLM(MambaConfig(**shape, state_size=4))
    else:
        return str(tiny_language.save(folder / kind, kind))
    network.save_pretrained(folder / kind)
    tiny_language.tokenizer().save_pretrained(folder / kind)
    return str(folder / kind)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    return {k: model_of(k, folder) for k in ("llama", "gpt2", "bert", "mistral", "mamba")}


@pytest.fixture
def config(models: dict[str, str], tmp_path: Path) -> LanguageConfig:
    lines = [json.dumps({"text": tiny_language.text(n, i)}) for i, n in enumerate(WORDS)]
    (tmp_path / "lines.jsonl").write_text("\n".join(lines))
    return LanguageConfig(
        inputs=str(tmp_path / "lines.jsonl"),
        subject=models["llama"],
        sites=SITES,
        context=T,
        dtype="float32",
        device="cpu",
        batch_size=3,
        home=str(tmp_path),
    )


def check_rows_are_those_of_documents_alone(store: Store, subject: str, encoder: bool) -> None:
    """Every part of a document in one context has the rows of a context of its own."""
    network = language_subject(subject)
    shape = (store.arrays.layout.inputs, T)
    token_BT, document_BT, valid_BT = (
        store.column(c).reshape(shape) for c in ("token", "document", "valid")
    )
    rows = {
        site: store.read(site, slice(0, store.rows)).reshape(*shape, -1) for site in store.sites
    }
    read: dict[int, list[int]] = {}
    for context in range(shape[0]):
        for number in sorted(set(document_BT[context].tolist()) - {-1}):
            at = np.flatnonzero(document_BT[context] == number)
            tokens = token_BT[context, at]
            assert (np.diff(at) == 1).all()
            assert tokens[0] == 1
            assert not encoder or tokens[-1] == 2
            body = tokens[1 : len(tokens) - encoder].tolist()
            read.setdefault(number, []).extend(body)
            assert valid_BT[context, at].tolist() == [t > 2 for t in tokens.tolist()]
            with (
                recording(network.module, site_modules(network, store.sites)) as forward,
                torch.no_grad(),
            ):
                alone = forward(torch.from_numpy(tokens.astype(np.int64))[None])
            kept = valid_BT[context, at]
            for site in store.sites:
                off = np.abs(rows[site][context, at] - alone[site][0].numpy())[kept]
                assert off.max(initial=0) < 1e-5
    assert not valid_BT[document_BT < 0].any()
    assert {n: len(words) for n, words in read.items()} == {i: n for i, n in enumerate(WORDS) if n}
    for number, words in read.items():
        assert network.tokenizer.decode(words) == tiny_language.text(WORDS[number], number)


@pytest.mark.parametrize("flag", ["pad", "document_mask"])
@pytest.mark.parametrize("kind", ["llama", "gpt2", "bert", "mistral"])
def test_rows_are_those_of_documents_alone(
    config: LanguageConfig, models: dict[str, str], kind: str, flag: str
) -> None:
    config = dataclasses.replace(config, subject=models[kind], **{flag: True})
    store = harvest(config).open()
    check_rows_are_those_of_documents_alone(store, models[kind], kind == "bert")
    document_BT = store.column("document").reshape(-1, T)
    shared = [len(set(row) - {-1}) for row in document_BT.tolist()]
    assert max(shared) == 1 if flag == "pad" else max(shared) > 2
    plan, count = make_plan(config), len(document_BT)
    valid = store.column("valid")
    for size in (1, 7):  # the rows of a context do not depend on its batch
        slices = [range(i, min(i + size, count)) for i in range(0, count, size)]
        parts = list(plan.producer(size)(slices))
        for site in store.sites:
            again = np.concatenate([part.activations[site] for part in parts])[valid]
            assert np.abs(store.read(site, slice(0, store.rows))[valid] - again).max() < 1e-5


def test_a_mask_changes_what_is_read(config: LanguageConfig) -> None:
    """The same contexts without the mask have other rows, so the tests above can fail."""
    masked = make_plan(dataclasses.replace(config, document_mask=True))
    plain = dataclasses.replace(masked, masks=lambda documents_BT: {})
    rows = [next(iter(p.producer(3)([range(3)]))).activations for p in (masked, plain)]
    site = masked.spec.sites[-1]
    off = np.abs(rows[0][site] - rows[1][site]).reshape(3, T, -1).max(-1)
    document_BT = masked.contexts.documents_BT[:3]
    first_BT = document_BT == document_BT[:, :1]
    assert off[first_BT].max() < 1e-5
    assert off[~first_BT & (document_BT >= 0)].max() > 1e-3


def test_networks_that_read_documents_together_are_refused(
    config: LanguageConfig, models: dict[str, str]
) -> None:
    mamba = dataclasses.replace(config, subject=models["mamba"])
    with pytest.raises(
        SubjectError, match=r"--document-mask needs .* mamba does not .* Pass --pad"
    ):
        harvest(dataclasses.replace(mamba, document_mask=True))
    assert not (Path(config.home) / "store").exists()
    check_rows_are_those_of_documents_alone(
        harvest(dataclasses.replace(mamba, pad=True)).open(), models["mamba"], False
    )


def test_much_padding_is_noted(config: LanguageConfig, capsys: pytest.CaptureFixture[str]) -> None:
    make_plan(dataclasses.replace(config, pad=True))
    assert "padding" not in capsys.readouterr().err
    make_plan(dataclasses.replace(config, pad=True, context=60))
    assert "% of the positions are padding; nine of ten contexts have" in capsys.readouterr().err


def test_flags_are_part_of_the_identity_and_are_found_again(config: LanguageConfig) -> None:
    names = set()
    for change in ({}, {"pad": True}, {"document_mask": True}, {"pad": True, "per_input": 4}):
        done = harvest(dataclasses.replace(config, **change))  # type: ignore[arg-type]
        names.add(done.store)
        store = done.open()
        found = verify_deep(
            VerifyConfig(store=done.store, rows=10_000, home=config.home), done.store
        )
        assert (found.faults, found.moved) == ([], 0)
        assert found.rows == store.column("valid").sum() > 0
        flags = [f"--{key.replace('_', '-')}" for key, value in change.items() if value is True]
        assert [word for word in harvest_command(store).split() if word in flags] == flags
    assert len(names) == 4


@pytest.mark.slow
def test_a_killed_harvest_is_finished_by_two_processes(config: LanguageConfig) -> None:
    lines = [json.dumps({"text": tiny_language.text(i % 23, i)}) for i in range(1200)]
    Path(config.inputs).write_text("\n".join(lines))
    config = dataclasses.replace(
        config, document_mask=True, batch_size=2, threads=1, home=f"{config.home}/killed"
    )
    flags = ["--inputs", config.inputs, "--subject", config.subject, "--sites", *config.sites]
    flags += ["--context", str(T), "--dtype", "float32", "--document-mask", "--batch-size", "2"]
    flags += ["--threads", "1", "--device", "cpu", "--home", config.home, "--ranks", "1"]
    threads = torch.get_num_threads()
    process = subprocess.Popen(
        [sys.executable, "-m", "tendril", "harvest", "language", *flags],
        cwd=ROOT,
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 120
    while not list(Path(config.home).glob("store/*/records/*/zarr.json")):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.01)
    process.kill()
    process.communicate()
    store = next(Path(config.home).glob("store/*"))
    there = len(list(store.glob("records/*/zarr.json")))
    second = threading.Thread(
        target=harvest, args=(dataclasses.replace(config, rank=1, ranks=2),), daemon=True
    )
    second.start()
    done = harvest(dataclasses.replace(config, rank=0, ranks=2))
    second.join()
    assert 0 < there < open_store(done.store).arrays.layout.shards
    whole = harvest(dataclasses.replace(config, home=str(Path(config.home).parent / "whole")))
    torch.set_num_threads(threads)
    assert contents(Path(done.store)) == contents(Path(whole.store))


def chats(folder: Path, **other: object) -> str:
    roles = ("user", "assistant", "user", "assistant")
    rows = [
        [
            {"role": role, "content": f" {tiny_language.text(2 + (i + j) % 5, i + 7 * j)}\n"}
            for j, role in enumerate(("system", *roles) if i % 3 else roles)
        ]
        for i in range(12)
    ]
    lines = [json.dumps({"messages": messages}) for messages in rows]
    lines += [json.dumps(other)] if other else []
    (folder / "chats.jsonl").write_text("\n".join(lines))
    return str(folder / "chats.jsonl")


@pytest.fixture
def talker(tmp_path: Path) -> str:
    words = [*tiny_language.WORDS, "user", "assistant", "system"]
    tokenizer: Any = tiny_language.tokenizer(words)
    tokenizer.chat_template = TEMPLATE
    tiny_language.network("llama", vocabulary=56).save_pretrained(tmp_path / "talker")
    tokenizer.save_pretrained(tmp_path / "talker")
    return str(tmp_path / "talker")


@pytest.mark.parametrize("flags", [{}, {"pad": True}, {"document_mask": True}])
def test_chats_have_the_tokens_of_the_template_and_their_roles(
    config: LanguageConfig, talker: str, tmp_path: Path, flags: dict[str, bool]
) -> None:
    config = dataclasses.replace(
        config, subject=talker, inputs=chats(tmp_path), chat=True, context=40, **flags
    )
    done = harvest(config)
    store = done.open()
    tokenizer: Any = language_subject(talker).tokenizer
    token, document, role = (store.column(c) for c in ("token", "document", "role"))
    lines = Path(config.inputs).read_text().splitlines()
    for number, line in enumerate(lines[: 12 if flags else 6]):
        messages = json.loads(line)["messages"]
        theirs = tokenizer.apply_chat_template(messages, tokenize=False)
        ids = tokenizer(theirs, add_special_tokens=False)["input_ids"]
        ours, of = token[document == number], role[document == number]
        marks = [i for i, t in enumerate(ours.tolist()) if t == 1][1:]  # of contexts begun within
        assert np.delete(ours, marks).tolist() == ids
        for name, count in (("system", 0), ("user", 1), ("assistant", 2), ("tool", 3)):
            words = " ".join(m["content"].strip() for m in messages if m["role"] == name)
            assert tokenizer.decode(ours[of == count]) == words
    found = verify_deep(VerifyConfig(store=done.store, rows=10_000, home=config.home), done.store)
    assert found.faults == []
    assert "--chat" in harvest_command(store).split()


def test_a_template_is_told_the_same_date_each_day(
    talker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chats_of, "DATE", "w3")
    subject: Any = language_subject(talker)
    said = "{{ strftime_now('%d') }} {{ date_string }} {{ messages[0].content }}"
    subject.tokenizer.chat_template = said
    items = chats_of.items_of_chats(subject)([{"role": "user", "content": "w5"}])
    tokens, roles = tokens_and_roles(np.array(items))
    assert subject.tokenizer.decode(tokens) == "w3 w3 w5"
    assert roles.tolist() == [-1, -1, 1]


@pytest.mark.parametrize("compute", ["bfloat16", pytest.param("float16", marks=pytest.mark.slow)])
def test_networks_of_16_bits_take_masks(
    config: LanguageConfig, models: dict[str, str], compute: str
) -> None:
    for kind in ("llama", "bert"):
        for flag in ("pad", "document_mask"):
            half = dataclasses.replace(config, subject=models[kind], **{flag: True})
            make_plan(dataclasses.replace(half, compute=compute))  # type: ignore[arg-type]
    mamba = dataclasses.replace(config, subject=models["mamba"], document_mask=True)
    with pytest.raises(SubjectError, match="mamba does not"):
        make_plan(dataclasses.replace(mamba, compute="bfloat16"))


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"text": "a"}, "line 13 .* must have its messages under 'messages'; got text"),
        ({"messages": "Hello"}, "line 13 .* must have a list of messages .*; got text"),
        ({"messages": ["Hello"]}, "must have objects as messages .* number 0 is of type str"),
        ({"messages": [{"text": "a"}]}, "messages with a role .* number 0 has text"),
        (
            {"messages": [{"role": "alien", "content": ""}]},
            r"line 13 .*: a chat must suit the template of talker; .* Who is this\?",
        ),
    ],
)
def test_rows_that_are_no_chats_are_refused(
    config: LanguageConfig, talker: str, tmp_path: Path, row: dict[str, object], told: str
) -> None:
    config = dataclasses.replace(config, subject=talker, inputs=chats(tmp_path, **row), chat=True)
    with pytest.raises(ConfigError, match=told):
        harvest(config)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--pad", "--document-mask"], "--document-mask is for documents that share a context"),
        (["--chat"], "--chat needs a tokenizer with a chat template; that of llama has none"),
        (["--chat", "--token-ids"], "--chat needs a dataset or .jsonl files of chats"),
        (["--chat", "--inputs", "self", "--limit", "3"], "got --inputs self with it"),
        (["--pad", "--inputs", "empty.jsonl"], "has no tokens. Give --inputs more text"),
    ],
)
def test_mistakes_are_told_in_a_sentence(
    flags: list[str],
    told: str,
    config: LanguageConfig,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    (tmp_path / "empty.jsonl").write_text('{"text": ""}\n{"text": ""}')
    monkeypatch.chdir(tmp_path)
    given = ["--inputs", config.inputs, "--subject", config.subject, "--context", str(T)]
    argv = ["harvest", "language", *given, "--device", "cpu", "--home", config.home, *flags]
    monkeypatch.setattr(sys, "argv", argv)
    with pytest.raises(SystemExit) as left:
        run_command(main)
    assert left.value.code == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "store").exists()
