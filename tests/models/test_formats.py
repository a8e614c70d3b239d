"""Dictionaries of other tools: files made by hand, compared with each tool's formulas written out.

The formulas are those of the tools' public code, in the order in which it computes them; nothing of
Tendril is used in them.
"""

import json
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from tendril.data.errors import ConfigError, RunDamagedError, RunNotFoundError, TendrilError
from tendril.models.dictionaries.checkpoint import load_dictionary
from tendril.models.dictionaries.formats.reading import find_format, read_dictionary
from tendril.models.dictionaries.formats.visaebench import export_visaebench
from tendril.models.dictionaries.sae import SAE
from tendril.models.dictionaries.sparsity import Sparsity
from tendril.train.exchange import export_run, import_run

D, S, N, K = 6, 17, 60, 4
Codes = Callable[[Tensor], tuple[Tensor, Tensor]]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def only_largest(z: Tensor, k: int = K) -> Tensor:
    value, index = z.topk(k, dim=-1)
    return torch.zeros_like(z).scatter(-1, index, value)


@dataclass
class Case:
    """Files of one tool, and what the tool computes from them."""

    format: str
    place: Path
    codes: Codes
    site: str = ""
    model: str = ""
    options: dict[str, Any] = field(default_factory=dict)


def openai(folder: Path, kind: str) -> Case:
    w, b, pre, out = draw(S, D), draw(S, seed=1), draw(D, seed=2), draw(D, S, seed=3)
    state: dict[str, Any] = {
        "pre_bias": pre,
        "latent_bias": b,
        "stats_last_nonzero": torch.zeros(S, dtype=torch.long),
        "encoder.weight": w,
        "decoder.weight": out,
        "activation": "ReLU",
    }
    if kind == "tied":
        out = w.T
        state["decoder.linear.weight"] = state.pop("decoder.weight").T
    if kind == "topk":
        inner = {"k": K, "postact_fn": "ReLU"}
        state |= {"activation": "TopK", "activation_state_dict": inner}
    place = folder / "gpt2-small" / "resid_post_mlp_v5_32k" / "autoencoders"
    place.mkdir(parents=True)
    torch.save(state, place / "8.pt")

    def codes(x: Tensor) -> tuple[Tensor, Tensor]:
        z = functional.linear(x - pre, w, b)
        z = only_largest(z).relu() if kind == "topk" else z.relu()
        return z, functional.linear(z, out) + pre

    options = {"normalised": True} if kind == "topk" else {}
    site = "blocks.8.hook_resid_post"
    return Case("openai", place / "8.pt", codes, site, "gpt2-small", options)


def sparsify(folder: Path, kind: str) -> Case:
    w, b, out, b_dec = draw(S, D), draw(S, seed=1), draw(S, D, seed=3), draw(D, seed=2)
    place = folder / ("layers.3.mlp" if kind == "mlp" else "layers.3")
    place.mkdir()
    cfg = {"k": K, "d_in": D, "activation": "topk", "transcode": False, "skip_connection": False}
    if kind == "older":
        cfg = {"k": K, "d_in": D, "expansion_factor": 32, "normalize_decoder": True}
    (place / "cfg.json").write_text(json.dumps(cfg))
    weights = {"encoder.weight": w, "encoder.bias": b, "W_dec": out, "b_dec": b_dec}
    save_file(weights, place / "sae.safetensors")

    def codes(x: Tensor) -> tuple[Tensor, Tensor]:
        z = only_largest(functional.linear(x - b_dec, w, b).relu())
        return z, z @ out + b_dec

    site = "blocks.3.hook_mlp_out" if kind == "mlp" else "blocks.3.hook_resid_post"
    return Case("sparsify", place, codes, site)


def dictionary_learning(folder: Path, kind: str) -> Case:
    w, b, out, bias = draw(S, D), draw(S, seed=1), draw(D, S, seed=3), draw(D, seed=2)
    threshold, r_mag = torch.tensor(0.9), 0.3 * draw(S, seed=4)
    gate, magnitude, each = draw(S, seed=5), draw(S, seed=6), 0.5 * draw(S, seed=7)
    trainer: dict[str, Any] = {"dict_class": kind, "layer": 5, "lm_name": "pythia-70m"}
    linear = {"encoder.weight": w, "encoder.bias": b, "decoder.weight": out}
    square = {"W_enc": w.T, "b_enc": b, "W_dec": out.T, "b_dec": bias}
    norm = out.norm(dim=0)

    def codes(x: Tensor) -> tuple[Tensor, Tensor]:
        if kind == "AutoEncoder":  # from_pretrained normalises the decoder
            z = functional.linear(x - bias, w * norm[:, None], b * norm).relu()
            return z, functional.linear(z, out / norm) + bias
        if kind == "AutoEncoderNew":
            z = functional.linear(x, w, b).relu()
            return z, functional.linear(z, out, bias)
        if kind == "GatedAutoEncoder":
            pre = functional.linear(x - bias, w)
            z = (pre + gate > 0).float() * (r_mag.exp() * pre + magnitude).relu()
            return z, functional.linear(z, out) + bias
        if kind == "JumpReluAutoEncoder":
            pre = x @ w.T + b
            z = (pre * (pre > each)).relu()
            return z, z @ out.T + bias
        post = functional.linear(x - bias, w, b).relu()
        z = only_largest(post) if kind == "AutoEncoderTopK" else post * (post > threshold)
        return z, functional.linear(z, out) + bias

    state: dict[str, Any] = {
        "AutoEncoder": linear | {"bias": bias},
        "AutoEncoderNew": linear | {"decoder.bias": bias},
        "GatedAutoEncoder": {
            **{"encoder.weight": w, "decoder.weight": out, "decoder_bias": bias},
            **{"r_mag": r_mag, "gate_bias": gate, "mag_bias": magnitude},
        },
        "AutoEncoderTopK": linear | {"b_dec": bias, "k": torch.tensor(K), "threshold": threshold},
        "BatchTopKSAE": linear | {"b_dec": bias, "k": torch.tensor(K), "threshold": threshold},
        "MatryoshkaBatchTopKSAE": square
        | {"threshold": threshold, "group_sizes": torch.tensor([7, 10])},
        "JumpReluAutoEncoder": square | {"threshold": each},
    }[kind]
    site = "blocks.5.hook_resid_post"
    if "TopK" in kind:
        trainer |= {"k": K, "submodule_name": "mlp_out_layer_5"}
        site = "blocks.5.hook_mlp_out"
    torch.save(state, folder / "ae.pt")
    (folder / "config.json").write_text(json.dumps({"trainer": trainer, "buffer": {}}))
    return Case("dictionary_learning", folder, codes, site, "pythia-70m")


def gemma_scope(folder: Path, kind: str) -> Case:
    w, b, out, bias = draw(D, S), draw(S, seed=1), draw(S, D, seed=3), draw(D, seed=2)
    threshold = draw(S, seed=4).abs()
    place = folder / f"gemma-scope-2b-pt-{kind}" / "layer_20" / "width_16k" / "average_l0_71"
    place.mkdir(parents=True)
    named = {"W_enc": w, "b_enc": b, "W_dec": out, "b_dec": bias, "threshold": threshold}
    np.savez(place / "params.npz", **{name: t.numpy() for name, t in named.items()})

    def codes(x: Tensor) -> tuple[Tensor, Tensor]:
        pre = x @ w + b
        z = (pre > threshold) * pre.relu()
        return z, z @ out + bias

    hook = {"res": "hook_resid_post", "att": "attn.hook_z"}[kind]
    return Case("gemma_scope", place, codes, f"blocks.20.{hook}", "gemma-2-2b")


def visaebench(folder: Path, kind: str) -> Case:
    w, b, out, bias = draw(S, D), draw(S, seed=1), draw(S, D, seed=3), draw(D, seed=2)
    each = draw(S, seed=4).abs()
    config: dict[str, Any] = {"activation": kind, "input_dim": D, "hidden_dim": S, "k": K}
    state = {"encoder.weight": w, "encoder.bias": b, "decoder.weight": out, "decoder.bias": bias}
    if kind == "batchtopk":
        config["threshold"] = 0.75
    if kind == "jumprelu":
        state["jump_thresholds"] = each
    if kind == "overcomplete":
        config["activation"], bias = "topk", torch.zeros(D)
        names = {"encoder.final_block.0.weight": w, "encoder.final_block.0.bias": b}
        state = {**names, "dictionary._weights": out, "dictionary.multiplier": torch.tensor(0.4)}
        out = out * torch.tensor(0.4).exp()
    if kind == "jumprelu":
        save_file(state, folder / "model.safetensors")
        (folder / "config.yaml").write_text(f"architecture: {kind}\n")
    else:
        torch.save(state, folder / "sae.pt")
        (folder / "config.json").write_text(json.dumps(config))

    def codes(x: Tensor) -> tuple[Tensor, Tensor]:
        post = (x @ w.T + b).relu()
        if kind in ("topk", "overcomplete"):
            z = only_largest(post)
        else:
            z = post * (post >= 0.75) if kind == "batchtopk" else post * (post > each)
        return z, z @ out + bias

    return Case("visaebench", folder, codes)


def overcomplete(folder: Path, kind: str) -> Case:
    w, b, out = draw(S, D), draw(S, seed=1), draw(S, D, seed=3)
    thresholds = 0.3 * draw(S, seed=4)
    norm = torch.nn.BatchNorm1d(S).eval()
    torch.manual_seed(5)
    for tensor in (norm.weight, norm.bias, norm.running_mean):
        torch.nn.init.normal_(tensor)  # type: ignore[arg-type]
    torch.nn.init.uniform_(norm.running_var, 0.5, 2.0)  # type: ignore[arg-type]
    state = {"encoder.final_block.0.weight": w, "encoder.final_block.0.bias": b}
    state |= {"dictionary._weights": out, "dictionary.multiplier": torch.tensor(0.4)}
    if kind == "batch norm":
        state |= {f"encoder.final_block.1.{n}": t for n, t in norm.state_dict().items()}
    if kind == "jump":
        state["thresholds"] = thresholds
    torch.save(state, folder / "model.pth")

    def codes(x: Tensor) -> tuple[Tensor, Tensor]:
        pre = functional.linear(x, w, b)
        z = (norm(pre) if kind == "batch norm" else pre).relu()
        if kind == "jump":
            z[z < thresholds.exp()] = 0
        elif kind == "batch":
            z = z * (z >= 0.8)
        elif kind != "relu":
            z = only_largest(z)
        atoms = out / (torch.norm(out, p=2, dim=1, keepdim=True) + 1e-8)
        return z, z @ (atoms * torch.tensor(0.4).exp())

    options: dict[str, Any] = {"k": 0 if kind == "relu" else K}
    if kind in ("jump", "batch"):
        options = {"threshold": 0.8} if kind == "batch" else {}
    return Case("overcomplete", folder / "model.pth", codes, options=options)


CASES: dict[str, tuple[Callable[[Path, str], Case], str]] = {
    f"{make.__name__}: {kind}": (make, kind)
    for make, kinds in (
        (openai, ("relu", "tied", "topk")),
        (sparsify, ("topk", "mlp", "older")),
        (
            dictionary_learning,
            (
                *("AutoEncoder", "AutoEncoderNew", "GatedAutoEncoder", "AutoEncoderTopK"),
                *("BatchTopKSAE", "MatryoshkaBatchTopKSAE", "JumpReluAutoEncoder"),
            ),
        ),
        (gemma_scope, ("res", "att")),
        (visaebench, ("topk", "batchtopk", "jumprelu", "overcomplete")),
        (overcomplete, ("topk", "batch norm", "jump", "batch", "relu")),
    )
    for kind in kinds
}


@pytest.fixture
def x() -> Tensor:
    return draw(N, D, seed=9)


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_codes_and_reconstructions_are_those_of_the_tool(
    case: str, tmp_path: Path, x: Tensor
) -> None:
    make, kind = CASES[case]
    made = make(tmp_path, kind)
    assert find_format(made.place) == made.format
    found = read_dictionary(made.place, **made.options)
    z, x_hat = made.codes(x.clone())
    torch.testing.assert_close(found.sae.encode(x), z, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.sae(x), x_hat, rtol=1e-5, atol=1e-5)
    assert torch.equal(found.sae.encode(x) > 0, z > 0)
    assert 0.02 < float((z > 0).float().mean()) < 0.9, "some are on and some are off"
    assert (found.format, found.site, found.model) == (made.format, made.site, made.model)


@pytest.mark.parametrize("case", CASES)
def test_an_import_is_a_run_and_says_its_format(case: str, tmp_path: Path, x: Tensor) -> None:
    make, kind = CASES[case]
    (tmp_path / "files").mkdir()
    made, home = make(tmp_path / "files", kind), str(tmp_path / "home")
    outcome = import_run(made.place, home=home, **made.options)
    assert outcome.result["format"] == made.format
    assert f"Imported ({made.format})" in outcome.sentence
    loaded = load_dictionary(str(outcome.result["run"]))
    torch.testing.assert_close(loaded.encode(x), made.codes(x.clone())[0], rtol=1e-5, atol=1e-5)
    again = import_run(made.place, home=home, format=made.format, **made.options)
    assert again.result == {**outcome.result, "reused": True}


Damage = Callable[[dict[str, Any]], dict[str, Any]]
DAMAGES: dict[str, tuple[Damage, str]] = {
    "missing": (lambda s: dict(list(s.items())[:1]), "must hold"),
    "shape": (lambda s: {n: t[..., :-1] for n, t in s.items()}, "must have the shape|must be"),
    "nan": (lambda s: {n: t * torch.nan for n, t in s.items()}, "must be finite"),
    "whole numbers": (lambda s: {n: t.long() for n, t in s.items()}, "floating-point"),
    "not tensors": (lambda s: {name: [1.0] for name in s}, "must be a matrix|must hold"),
}


def alter(made: Case, damage: Damage) -> None:
    """Change the tensors of a case's files; those that give a name or a number stay."""
    folder = made.place if made.place.is_dir() else made.place.parent
    for path in folder.iterdir():
        if path.suffix in (".pt", ".pth"):
            state = torch.load(path, weights_only=True)
            matrices = {n: t for n, t in state.items() if isinstance(t, Tensor) and t.ndim}
            torch.save({**{n: t for n, t in state.items() if n not in matrices}, **damage(matrices)}
                       if matrices else state, path)  # fmt: skip
        elif path.suffix == ".npz":
            arrays = {n: torch.from_numpy(a) for n, a in np.load(path).items()}
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                np.savez(path, **{n: np.asarray(t) for n, t in damage(arrays).items()})


@pytest.mark.parametrize("damaged", DAMAGES)
@pytest.mark.parametrize(
    "case",
    ["openai: relu", "dictionary_learning: AutoEncoder", "gemma_scope: res", "overcomplete: jump"],
)
def test_a_malformed_file_is_one_sentence(case: str, damaged: str, tmp_path: Path) -> None:
    make, kind = CASES[case]
    made = make(tmp_path, kind)
    damage, sentence = DAMAGES[damaged]
    alter(made, damage)
    with pytest.raises(TendrilError, match=sentence) as caught:
        read_dictionary(made.place, made.format, **made.options)
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")


def config_of(**changes: Any) -> dict[str, Any]:
    return {"k": K, "d_in": D} | changes


REFUSED: dict[str, tuple[dict[str, Any], type[TendrilError], str]] = {
    "transcoder": (config_of(transcode=True), ConfigError, "has the option transcode"),
    "skip": (config_of(skip_connection=True), ConfigError, "has the option skip_connection"),
    "groupmax": (config_of(activation="groupmax"), ConfigError, "activation function 'groupmax'"),
    "no k": ({"d_in": D}, RunDamagedError, "k in .* must be a whole number above 0; got None"),
    "k of zero": (config_of(k=0), RunDamagedError, "must be above 0; got 0"),
    "k too large": (config_of(k=S + 1), RunDamagedError, "at most the number of latents, 17"),
    "k a text": (config_of(k="4"), RunDamagedError, "whole number above 0; got '4'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_config_that_cannot_be_used_is_one_sentence(case: str, tmp_path: Path) -> None:
    config, error, sentence = REFUSED[case]
    made = sparsify(tmp_path, "topk")
    (made.place / "cfg.json").write_text(json.dumps(config))
    with pytest.raises(error, match=sentence):
        read_dictionary(made.place)


def test_a_config_that_is_no_json_is_kept_as_text(tmp_path: Path) -> None:
    made = visaebench(tmp_path, "jumprelu")
    config = made.place / "config.yaml"
    config.write_text(config.read_text() + "lr: .nan\nwhen: 2026-01-01\n")
    run = import_run(made.place, home=str(tmp_path / "home")).result["run"]
    kept = json.loads((Path(str(run)) / "config.json").read_text())["imported"]
    assert kept == {"architecture": "jumprelu", "lr": None, "when": "2026-01-01"}


def test_no_code_of_a_file_is_run(tmp_path: Path) -> None:
    """A whole model, saved as overcomplete's examples do, is refused without being built."""
    torch.save(torch.nn.Linear(2, 2), tmp_path / "model.pth")
    with pytest.raises(RunDamagedError, match="without running code from it"):
        read_dictionary(tmp_path / "model.pth")
    (tmp_path / "params.npz").write_bytes(b"")
    np.savez(tmp_path / "params.npz", W_enc=np.array([{}], dtype=object))
    with pytest.raises(RunDamagedError, match="plain arrays"):
        read_dictionary(tmp_path, "gemma_scope")


def flipped(content: bytes, draws: np.random.Generator) -> bytes:
    """A file with a few bytes changed, or cut short."""
    if draws.random() < 0.3:
        return content[: int(draws.integers(len(content)))]
    changed = bytearray(content)
    for at in draws.integers(len(content), size=int(draws.integers(1, 8))):
        changed[at] = draws.integers(256)
    return bytes(changed)


@pytest.mark.parametrize(
    "case", ["openai: relu", "sparsify: topk", "gemma_scope: res", "visaebench: topk"]
)
def test_damaged_bytes_are_read_or_refused(case: str, tmp_path: Path) -> None:
    make, kind = CASES[case]
    made, draws = make(tmp_path, kind), np.random.default_rng(7)
    folder = made.place if made.place.is_dir() else made.place.parent
    whole = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    refused = 0
    for _ in range(40):
        path = list(whole)[int(draws.integers(len(whole)))]
        path.write_bytes(flipped(whole[path], draws))
        try:
            found = read_dictionary(made.place, made.format, **made.options)
            assert found.sae.encode(torch.zeros(1, found.sae.width)).isfinite().all()
        except TendrilError as error:
            assert "\n" not in str(error)
            refused += 1
        path.write_bytes(whole[path])
    assert refused


@pytest.mark.parametrize("value", [None, [], {}, 1e400, -1, True, "x", float("nan")])
def test_any_value_in_a_config_is_a_sentence(value: object, tmp_path: Path) -> None:
    for make, kind, file in (
        (sparsify, "topk", "cfg.json"),
        (dictionary_learning, "AutoEncoderTopK", "config.json"),
        (visaebench, "batchtopk", "config.json"),
    ):
        (tmp_path / kind).mkdir()
        place = make(tmp_path / kind, kind).place
        config = json.loads((place / file).read_text())
        inner = config.get("trainer", config)
        for name in [*inner, "trainer", "activation", "threshold"]:
            changed = config | {name: value}
            if "trainer" in config and name != "trainer":
                changed = config | {"trainer": inner | {name: value}}
            (place / file).write_text(json.dumps(changed))
            try:
                read_dictionary(place)
            except TendrilError as error:
                assert "\n" not in str(error)


def test_a_sparse_tensor_is_a_sentence(tmp_path: Path) -> None:
    made = openai(tmp_path, "relu")
    state = torch.load(made.place, weights_only=True)
    torch.save({**state, "encoder.weight": state["encoder.weight"].to_sparse()}, made.place)
    with pytest.raises(RunDamagedError, match=r"encoder\.weight in .* must be a dense tensor"):
        read_dictionary(made.place)


def test_the_command_refuses_with_status_2(tmp_path: Path) -> None:
    place = openai(tmp_path, "topk").place
    words = [sys.executable, "-m", "tendril", "train", "import", str(place)]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


def test_what_a_file_lacks_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(ConfigError, match="--k must be given"):
        read_dictionary(overcomplete(tmp_path / "a", "topk").place)
    with pytest.raises(ConfigError, match="Add --normalised"):
        read_dictionary(openai(tmp_path, "topk").place)
    with pytest.raises(ConfigError, match="--k is a flag for the format overcomplete"):
        read_dictionary(sparsify(tmp_path, "topk").place, k=3)
    with pytest.raises(RunNotFoundError, match="a known format"):
        read_dictionary(tmp_path)
    with pytest.raises(RunNotFoundError, match="there is no"):
        read_dictionary(tmp_path / "nowhere")
    for bad, sentence in (({"k": -1}, "--k must be 0"), ({"threshold": 1e38}, "--threshold must")):
        with pytest.raises(ConfigError, match=sentence):
            import_run(tmp_path / "a", **bad)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="--format must be one of saelens, sparsify"):
        import_run(tmp_path, format="onnx")


@pytest.mark.parametrize("norm", ["layer norm", "layers", "archetypal"])
def test_encoders_that_are_not_linear_are_refused(norm: str, tmp_path: Path) -> None:
    place = overcomplete(tmp_path, "topk").place
    state = torch.load(place, weights_only=True)
    if norm == "layer norm":
        state |= {"encoder.final_block.1.weight": torch.ones(S)}
    elif norm == "layers":
        state |= {"encoder.mlp_blocks.0.0.weight": torch.ones(D, D)}
    else:
        state |= {"dictionary.W": torch.ones(S, 3), "dictionary.C": torch.ones(3, D)}
        del state["dictionary._weights"]
    torch.save(state, place)
    sentence = {"layer norm": "LayerNorm", "layers": "several layers", "archetypal": "archetypal"}
    with pytest.raises(ConfigError, match=sentence[norm]):
        read_dictionary(place, k=K)


@pytest.mark.parametrize("name", ["relu", "topk", "jumprelu"])
@pytest.mark.parametrize("pre_bias", [True, False])
@torch.no_grad()
def test_an_export_for_visaebench_is_read_as_visaebench_reads_it(
    name: Any, pre_bias: bool, tmp_path: Path, x: Tensor
) -> None:
    from safetensors.torch import load_file

    sae = SAE(D, S, Sparsity(name, K if name == "topk" else 0), pre_bias=pre_bias)
    torch.manual_seed(1)
    for parameter in sae.parameters():
        parameter.data = torch.randn_like(parameter)
    folder = export_visaebench(sae, tmp_path / "out", {"site": "layer3", "model_name": "resnet50"})
    config = json.loads((folder / "config.json").read_text())
    state = load_file(folder / "model.safetensors")
    post = (x @ state["encoder.weight"].T + state["encoder.bias"]).relu()
    if config["activation"] == "topk":
        z = only_largest(post, config["k"])
    else:
        z = post * (post > state["jump_thresholds"])
    x_hat = z @ state["decoder.weight"] + state["decoder.bias"]
    torch.testing.assert_close(sae.encode(x), z, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(sae(x), x_hat, rtol=1e-5, atol=1e-5)
    back = read_dictionary(folder)
    assert (back.format, back.site, back.model) == ("visaebench", "layer3", "resnet50")
    torch.testing.assert_close(back.sae.encode(x), sae.encode(x), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(back.sae(x), sae(x), rtol=1e-5, atol=1e-5)
    with pytest.raises(ConfigError, match="already holds a dictionary"):
        export_visaebench(sae, folder)


def test_a_run_goes_to_visaebench_and_back(tmp_path: Path, x: Tensor) -> None:
    home = str(tmp_path / "home")
    first = import_run(sparsify(tmp_path, "topk").place, home=home).result["run"]
    out = tmp_path / "out"
    export_run(str(first), out, home, "visaebench")
    second = import_run(out, home=home).result
    assert second["site"] == "blocks.3.hook_resid_post"
    one, two = load_dictionary(str(first)), load_dictionary(str(second["run"]))
    torch.testing.assert_close(two.encode(x), one.encode(x), rtol=1e-5, atol=1e-5)
    with pytest.raises(ConfigError, match="--format of an export must be saelens or visaebench"):
        export_run(str(first), tmp_path / "more", home, "onnx")
