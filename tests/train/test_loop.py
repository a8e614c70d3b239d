import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tendril.data.errors import ConfigError, StoreLockedError, StoreNotFoundError
from tendril.data.store.atomic import locked
from tendril.data.store.reader import open_store
from tendril.models.dictionaries.checkpoint import load_dictionary, load_frequency, read_tensors
from tendril.train.config import TrainConfig
from tendril.train.loop import run_folder, train
from tendril.train.objectives.base import make_objective
from tendril.train.trainer import Trainer
from tendril.train.vectors import source_of, store_of

from ..helpers import sparse

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "train_losses.json"
SETTINGS: dict[str, dict[str, Any]] = {
    "topk": {"objective": "topk"},
    "batch_topk": {"objective": "batch_topk"},
    "matryoshka": {"objective": "matryoshka"},
    "relu_l1": {"objective": "relu_l1", "l1": 1.0, "lr": 3e-3},
    "tied": {"objective": "tied", "l1": 1.0, "lr": 3e-3},
    "gated": {"objective": "gated", "l1": 1.0, "lr": 3e-3},
    "jumprelu": {"objective": "jumprelu", "l0": 0.01, "lr": 3e-3},
    "jumprelu_target": {"objective": "jumprelu", "l0": 1.0, "target_l0": 3.0, "lr": 3e-3},
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sites of 32 and 8 channels, 16 vectors an input; the first is 64 known features."""
    home = tmp_path_factory.mktemp("home")
    sites = {
        "here": sparse.vectors(8000, sparse.directions()),
        "there": sparse.vectors(8000, sparse.directions(12, 8)),
    }
    sparse.make_store(home, sites)
    return home


@pytest.fixture
def fresh(home: Path, tmp_path: Path) -> Path:
    """The same store in a home without runs."""
    (tmp_path / "store").symlink_to((home / "store").resolve())
    return tmp_path


def test_a_finished_run_is_given_back(home: Path) -> None:
    config = sparse.tiny(home, seed=10)
    first = train(config)
    again = train(replace(config, log_every=1, checkpoint_every=50, name=""))
    assert not first.reused
    assert again == replace(first, reused=True)
    assert 0 < first.fvu < 1
    assert first.l0 <= 3
    assert (first.steps, first.vectors, first.site) == (60, 60 * 128, "here")
    assert first.run.parent == home / "runs"
    told = json.loads((first.run / "config.json").read_text())
    assert {
        "site": "here",
        "width": 32,
        "latents": 64,
        "label": "TopK 64, k 3, here",
    }.items() <= told.items()
    assert told["subject"] == {"name": "sparse"}
    assert (first.run / told["store_path"]).resolve() == store_of(config).path.resolve()
    assert str(home) not in json.dumps(told)


def test_what_determines_the_dictionary_names_the_run(home: Path) -> None:
    config = sparse.tiny(home)
    store = store_of(config)

    def name(site: str = "here", **changed: Any) -> str:
        own = replace(config, site=site, **changed)
        return run_folder(own, source_of(own, store)).name

    assert name() == name(device="cuda", log_every=1, checkpoint_every=9, store="x", home=str(home))
    assert name().startswith("topk-here-")
    assert name(name="mine").startswith("mine-")
    assert name(l1=0.3) == name(), "what belongs to another objective changes nothing"
    others: list[dict[str, Any]] = [
        {"k": 4},
        {"seed": 1},
        {"steps": 61},
        {"lr": 0.1},
        {"objective": "relu_l1"},
    ]
    assert len({name(), name("there"), *(name(**other) for other in others)}) == 7


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("stop", [3, 26])
@pytest.mark.many_steps
def test_a_stopped_run_ends_bit_for_bit_as_one_that_was_not(
    home: Path, fresh: Path, settings: str, stop: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = sparse.tiny(home, **SETTINGS[settings])
    whole = train(config).run
    advance = Trainer.advance

    def stopping(trainer: Trainer) -> Any:
        if trainer.step == stop:
            raise KeyboardInterrupt
        return advance(trainer)

    monkeypatch.setattr(Trainer, "advance", stopping)
    with pytest.raises(KeyboardInterrupt):
        train(replace(config, home=str(fresh)))
    monkeypatch.undo()
    stopped = train(replace(config, home=str(fresh)))
    assert not stopped.reused
    assert_same_run(stopped.run, whole)


def assert_same_run(one: Path, other: Path) -> None:
    """All but the time it took."""
    assert one.name == other.name
    for name in ("dictionary.safetensors", "latents.safetensors", "metrics.csv"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    tensors, others = (read_tensors(run / "state.safetensors")[0] for run in (one, other))
    assert tensors.keys() == others.keys()
    assert all(torch.equal(tensors[name], others[name]) for name in tensors)
    results = [json.loads((run / "result.json").read_text()) for run in (one, other)]
    for result in results:
        del result["seconds"], result["digest"], result["xxh128"]["state.safetensors"]
    assert results[0] == results[1]


def test_a_killed_process_goes_on_bit_for_bit(home: Path, fresh: Path) -> None:
    steps = "600"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def command(where: Path) -> list[str]:
        return [sys.executable, "-m", "tests.helpers.sparse", str(where), steps]

    with subprocess.Popen(
        command(fresh), cwd=ROOT, env=environment, stderr=subprocess.DEVNULL
    ) as process:
        seen = newest(fresh)
        while process.poll() is None and newest(fresh) == seen:
            time.sleep(0.002)
        time.sleep(0.1)
        process.send_signal(signal.SIGKILL)
    killed = process.returncode == -signal.SIGKILL
    assert killed, "the run ended before it could be killed; give it more steps"
    for where in (fresh, home):
        subprocess.run(command(where), cwd=ROOT, env=environment, check=True, capture_output=True)
    (run,) = (fresh / "runs").iterdir()
    assert_same_run(run, home / "runs" / run.name)
    lines = (run / "metrics.csv").read_text().splitlines()
    assert [int(line.split(",")[0]) for line in lines[1:]] == list(range(5, 601, 5))


def newest(home: Path) -> int:
    """When the last checkpoint was written."""
    return max((p.stat().st_mtime_ns for p in home.glob("runs/*/state.safetensors")), default=0)


@pytest.mark.parametrize("settings", ["topk", "relu_l1"])
@pytest.mark.many_steps
def test_known_features_are_recovered(home: Path, settings: str) -> None:
    many: dict[str, Any] = {"steps": 700, "lr": 1e-2, "batch_size": 256, "dead_after": 10_000}
    config = sparse.tiny(home, **SETTINGS[settings] | many)
    result = train(replace(config, log_every=350, checkpoint_every=700))
    sae = load_dictionary(result.run)
    cosine_SS = torch.from_numpy(sparse.directions()) @ sae.W_dec.T
    assert float(cosine_SS.max(dim=1).values.mean()) >= 0.9
    assert result.fvu < 0.2
    assert result.dead < 0.1


@pytest.mark.parametrize("settings", SETTINGS)
def test_the_dictionary_takes_raw_vectors_and_the_result_is_held_out(
    home: Path, settings: str
) -> None:
    """What is exported, on raw vectors, is what was trained, on scaled ones; thresholds too."""
    config = sparse.tiny(home, **SETTINGS[settings])
    result = train(config)
    store = store_of(config)
    x_ND = torch.cat(list(store.batches("here", 512, part="held_out", epochs=1)))
    moments = store.moments("here")
    scale = (32 / float((moments.variance + moments.mean**2).sum())) ** 0.5
    trained = make_objective(config, 32).start(x_ND, 64, torch.Generator())
    tensors, _ = read_tensors(result.run / "state.safetensors")
    trained.load_state_dict({name: tensors[f"sae.{name}"] for name in trained.state_dict()})
    exported = load_dictionary(result.run)
    x_hat_ND = exported(x_ND)
    torch.testing.assert_close(x_hat_ND, trained(x_ND * scale) / scale)
    missed = (x_ND - x_hat_ND).square().sum() / (x_ND - x_ND.mean(dim=0)).square().sum()
    assert result.fvu == pytest.approx(float(missed), rel=1e-4)
    z_NS = exported.encode(x_ND)
    assert result.l0 == pytest.approx(float((z_NS > 0).sum()) / len(x_ND))
    torch.testing.assert_close(load_frequency(result.run), (z_NS > 0).float().mean(dim=0))
    assert result.eval_rows == len(x_ND)


@pytest.mark.parametrize("settings", SETTINGS)
def test_losses_are_the_golden_ones(home: Path, settings: str) -> None:
    """A change of these is a change of what is computed: say why in the commit. With
    UPDATE_GOLDEN=1 in the environment they are written anew."""
    run = train(sparse.tiny(home, **SETTINGS[settings])).run
    lines = [line.split(",") for line in (run / "metrics.csv").read_text().splitlines()]
    columns = {name: [float(line[i]) for line in lines[1:]] for i, name in enumerate(lines[0])}
    golden = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    if os.environ.get("UPDATE_GOLDEN"):
        golden[settings] = columns
        GOLDEN.write_text(json.dumps(golden, indent=1) + "\n")
    assert columns.keys() == golden[settings].keys()
    for name, values in golden[settings].items():
        assert columns[name] == pytest.approx(values, rel=2e-3, abs=1e-6), name


def trainer(config: TrainConfig, device: str = "cpu") -> Trainer:
    store = store_of(config)
    batches = store.batches("here", config.batch_size, seed=config.seed, device=device)
    return Trainer(config, make_objective(config, 32), batches, 1.0, torch.device(device))


def test_latents_are_dead_after_so_many_vectors(home: Path) -> None:
    """Latents that can never fire are dead once `dead_after` vectors have gone by."""
    training = trainer(sparse.tiny(home, dead_after=300, aux_weight=0.0, lr=1e-9))
    with torch.no_grad():
        training.sae.b_enc[:16] = -100
    shares = []
    for _ in range(4):
        training.advance()
        shares.append(training.dead_fraction())
    assert shares[3] == 0.25, "the others fire"
    assert training.vectors == 512


def test_rows_of_a_topk_dictionary_keep_norm_one(home: Path) -> None:
    training = trainer(sparse.tiny(home, lr=0.05))
    for _ in range(20):
        rows_SD = training.sae.W_dec.detach().clone()
        training.advance()
        torch.testing.assert_close(training.sae.W_dec.norm(dim=1), torch.ones(64))
        assert training.sae.W_dec.grad is not None
        along_S = (training.sae.W_dec.grad * rows_SD).sum(dim=1)
        torch.testing.assert_close(along_S, torch.zeros(64), atol=1e-6, rtol=0)


@pytest.mark.gpu
@pytest.mark.parametrize("settings", SETTINGS)
def test_a_step_on_cuda_agrees_with_the_cpu(home: Path, settings: str) -> None:
    """Relative tolerance 1e-4 of the loss and 1e-3 of every gradient. Some latents count as
    dead, so that AuxK runs too."""
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    steps = {}
    for device in ("cpu", "cuda"):
        training = trainer(sparse.tiny(home, **SETTINGS[settings]), device)
        training._quiet_S[:16] = 10**6
        before = [p.detach().cpu().clone() for p in training.sae.parameters()]
        _, loss = training.advance()
        gradients = [p.grad.cpu() for p in training.sae.parameters() if p.grad is not None]
        assert len(gradients) == len(before)
        steps[device] = (loss.total.detach().cpu(), gradients)
    torch.testing.assert_close(steps["cuda"][0], steps["cpu"][0], rtol=1e-4, atol=0.0)
    for there, here in zip(steps["cuda"][1], steps["cpu"][1], strict=True):
        torch.testing.assert_close(there, here, rtol=1e-3, atol=1e-3 * float(here.abs().max()))


def test_training_that_comes_apart_is_stopped(fresh: Path) -> None:
    config = sparse.tiny(fresh, **SETTINGS["relu_l1"])
    with pytest.raises(
        ConfigError,
        match=r"diverged: .*not finite at step 2 \(there is no checkpoint yet\)\. Lower --lr",
    ):
        train(replace(config, lr=1e30))
    (run,) = (fresh / "runs").iterdir()
    assert not (run / "state.safetensors").exists()
    assert not (run / "result.json").exists()


def test_one_process_trains_a_run_at_a_time(fresh: Path) -> None:
    config = sparse.tiny(fresh)
    run = run_folder(config, source_of(config, store_of(config)))
    run.mkdir(parents=True)
    with (
        locked(run),
        pytest.raises(StoreLockedError, match=f"another process is training {run}"),
    ):
        train(config)


@pytest.fixture
def lone(tmp_path: Path) -> Iterator[Path]:
    """A store of which every vector is the same."""
    rows = sparse.vectors(1600, sparse.directions()) * 0 + 3
    yield sparse.make_store(tmp_path, {"flat": rows}, "flat")


def test_a_site_without_variance_is_refused(lone: Path) -> None:
    config = sparse.tiny(lone.parents[1])
    with pytest.raises(ConfigError, match=r"all those of flat in .* are the same"):
        train(config, open_store(lone))


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"k": 65}, "--k must be from 1 to 64, the number of latents; got 65. Lower --k"),
        ({"k": 0}, "--k must be from 1 to 64"),
        ({"latents": 10**9}, "Lower --latents or --batch-size"),
        ({"site": "hre"}, "must be one of here, there, the sites of .*; got 'hre'"),
        ({"steps": 0}, "--steps must be above 0; got 0"),
        ({"batch_size": -1}, "--batch-size must be above 0"),
        ({"held_out": 0.0}, "--held-out must be a fraction between 0 and 1"),
        ({"lr_decay": 1.5}, "--lr-decay must be a fraction from 0 to 1"),
    ],
)
def test_configs_that_cannot_be_used(fresh: Path, fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        train(sparse.tiny(fresh, **fields))
    assert not (fresh / "runs").exists()


def test_a_store_that_is_not_there_is_told_with_those_that_are(fresh: Path) -> None:
    with pytest.raises(StoreNotFoundError, match=r"no store 'x'.*holds sparse-.*tendril harvest"):
        train(sparse.tiny(fresh, store="x"))
    with pytest.raises(FileNotFoundError, match=r"it holds none.*tendril harvest --help"):
        train(sparse.tiny(fresh / "empty"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_writes_a_checkpoint_from_which_the_run_continues_bit_for_bit(
    home: Path, fresh: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also before the first regular checkpoint; handlers are as before afterwards."""
    config = replace(sparse.tiny(home, steps=40), checkpoint_every=10_000, name=f"by-{number}")
    whole = train(config)
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    advance = Trainer.advance

    def with_a_signal(trainer: Trainer) -> Any:
        if trainer.step == 11:
            os.kill(os.getpid(), number)
        return advance(trainer)

    monkeypatch.setattr(Trainer, "advance", with_a_signal)
    elsewhere = replace(config, home=str(fresh))
    with pytest.raises(KeyboardInterrupt):
        train(elsewhere)
    monkeypatch.undo()
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers
    (run,) = (fresh / "runs").glob("by-*")
    assert read_tensors(run / "state.safetensors")[1]["step"] == 12
    assert_same_run(train(elsewhere).run, whole.run)
