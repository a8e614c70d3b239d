"""The SAELens format: hand-made files, compared with SAELens's computations written out."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tendril.data.errors import ConfigError, RunDamagedError, RunNotFoundError, TendrilError
from tendril.models.dictionaries.checkpoint import load_dictionary, load_frequency, save_dictionary
from tendril.models.dictionaries.sae import SAE
from tendril.models.dictionaries.saelens import export_saelens, import_saelens, read_frequency
from tendril.models.dictionaries.sparsity import Sparsity
from tendril.train.exchange import export_run, import_run

D, S, N = 6, 17, 50
BASE = {
    "d_in": D,
    "d_sae": S,
    "dtype": "float32",
    "device": "cpu",
    "apply_b_dec_to_input": True,
    "normalize_activations": "none",
    "reshape_activations": "none",
    "metadata": {"sae_lens_version": "6.21.0", "model_name": "gpt2", "hook_name": "blocks.7.hook"},
}
CASES: dict[str, dict[str, Any]] = {
    "standard": {"architecture": "standard"},
    "standard without b_dec": {"architecture": "standard", "apply_b_dec_to_input": False},
    "topk": {"architecture": "topk", "k": 4, "rescale_acts_by_decoder_norm": False},
    "topk by norms": {"architecture": "topk", "k": 4, "rescale_acts_by_decoder_norm": True},
    "jumprelu": {"architecture": "jumprelu", "apply_b_dec_to_input": False},
    "gated": {"architecture": "gated"},
    "gated without b_dec": {"architecture": "gated", "apply_b_dec_to_input": False},
    "batchtopk": {"architecture": "batchtopk", "k": 3.0},
    "scaled": {"architecture": "jumprelu", "normalize_activations": "expected_average_only_in"},
}


def weights(architecture: str) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    tensors = {"W_enc": draw(D, S), "W_dec": draw(S, D), "b_dec": draw(D)}
    if architecture == "gated":
        return tensors | {"b_gate": draw(S), "r_mag": 0.3 * draw(S), "b_mag": draw(S)}
    tensors["b_enc"] = draw(S)
    if architecture == "jumprelu":
        tensors["threshold"] = draw(S)  # some are negative
    if architecture == "batchtopk":
        tensors["topk_threshold"] = torch.tensor(1.3, dtype=torch.float64)
    return tensors


def write(folder: Path, cfg: dict[str, Any], tensors: dict[str, Tensor] | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    whole = BASE | cfg
    (folder / "cfg.json").write_text(json.dumps({k: v for k, v in whole.items() if v is not None}))
    save_file(
        weights(str(cfg.get("architecture"))) if tensors is None else tensors,
        folder / "sae_weights.safetensors",
    )
    return folder


def saelens(cfg: dict[str, Any], w: dict[str, Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """Latents and reconstruction, computed step by step as in SAELens's inference classes."""
    given = BASE | cfg
    architecture = given["architecture"]
    seen = x - w["b_dec"] * given["apply_b_dec_to_input"]
    norm = w["W_dec"].norm(dim=-1)
    if architecture == "gated":
        gate = (seen @ w["W_enc"] + w["b_gate"] > 0).float()
        z = gate * (seen @ (w["W_enc"] * w["r_mag"].exp()) + w["b_mag"]).relu()
        return z, z @ w["W_dec"] + w["b_dec"]
    pre = seen @ w["W_enc"] + w["b_enc"]
    if architecture == "standard":
        z = pre.relu()
    elif architecture == "jumprelu":
        z = pre.relu() * (pre > w["threshold"].relu())
    elif architecture == "batchtopk":
        pre = pre * norm
        z = pre.relu() * (pre > w["topk_threshold"].float())
        return z, (z / norm) @ w["W_dec"] + w["b_dec"]
    else:
        rescale = given["rescale_acts_by_decoder_norm"]
        pre = pre * norm if rescale else pre
        value, index = pre.topk(given["k"], dim=-1)
        z = torch.zeros_like(pre).scatter(-1, index, value.relu())
        decoded = z / norm if rescale else z
        return z, decoded @ w["W_dec"] + w["b_dec"]
    return z, z @ w["W_dec"] + w["b_dec"]


@pytest.fixture
def x() -> Tensor:
    return torch.randn(N, D, generator=torch.Generator().manual_seed(9))


@pytest.mark.parametrize("case", CASES)
def test_a_folder_made_by_hand_gives_what_saelens_gives(
    case: str, tmp_path: Path, x: Tensor
) -> None:
    cfg = CASES[case]
    scale = 0.3 if "normalize_activations" in cfg else None
    sae, _ = import_saelens(write(tmp_path, cfg), scale)
    seen = x * (scale or 1)
    z, x_hat = saelens(cfg, weights(cfg["architecture"]), seen)
    torch.testing.assert_close(sae.encode(x), z, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(sae(x) * (scale or 1), x_hat, rtol=1e-5, atol=1e-5)
    assert 0.02 < float((z > 0).float().mean()) < 0.9, "a test of some on and some off"


@pytest.mark.parametrize("name", ["relu", "topk", "jumprelu"])
@pytest.mark.parametrize("pre_bias", [True, False])
def test_what_is_exported_is_in_the_format_and_comes_back_the_same(
    name: Any, pre_bias: bool, tmp_path: Path, x: Tensor
) -> None:
    sae = SAE(D, S, Sparsity(name, 4 if name == "topk" else 0), pre_bias=pre_bias)
    torch.manual_seed(1)
    for parameter in sae.parameters():
        parameter.data = torch.randn_like(parameter)
    folder = export_saelens(sae, tmp_path / "out", {"model_name": "inceptionv1"})
    cfg = json.loads((folder / "cfg.json").read_text())
    tensors = load_file(folder / "sae_weights.safetensors")
    z, x_hat = saelens(cfg, tensors, x)
    torch.testing.assert_close(sae.encode(x), z, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(sae(x), x_hat, rtol=1e-5, atol=1e-5)
    kept = {"d_in", "d_sae", "apply_b_dec_to_input", "normalize_activations", "metadata"}
    assert kept <= cfg.keys()
    assert int(cfg["metadata"]["sae_lens_version"].split(".")[0]) >= 6
    again, _ = import_saelens(folder)
    assert torch.equal(again.encode(x), sae.encode(x))
    with pytest.raises(ConfigError, match="already holds a dictionary"):
        export_saelens(sae, folder)


OLD: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"activation_fn_str": "relu"}, {"architecture": "standard"}),
    (
        {"architecture": "standard", "activation_fn_str": "topk", "activation_fn_kwargs": {"k": 4}},
        CASES["topk"],
    ),
    (
        {"architecture": "topk", "activation_fn": "topk", "activation_fn_kwargs": {"k": 4}},
        CASES["topk"],
    ),
    ({"apply_b_dec_to_input": None, "normalize_activations": False}, {"architecture": "standard"}),
]


@pytest.mark.parametrize(("old", "new"), OLD)
def test_older_files_are_read_as_saelens_reads_them(
    old: dict[str, Any], new: dict[str, Any], tmp_path: Path, x: Tensor
) -> None:
    flat = {"metadata": None, "hook_name": "blocks.3.hook_mlp_out", **old}
    sae, _ = import_saelens(write(tmp_path, flat, weights("standard")))
    z, x_hat = saelens(new, weights("standard"), x)
    torch.testing.assert_close(sae.encode(x), z, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(sae(x), x_hat, rtol=1e-5, atol=1e-5)


def test_a_factor_a_latent_is_folded_into_the_decoder(tmp_path: Path, x: Tensor) -> None:
    tensors = weights("standard")
    factor = torch.rand(S) + 0.5
    folder = write(tmp_path, CASES["standard"], tensors | {"scaling_factor": factor})
    sae, _ = import_saelens(folder)
    z, _ = saelens(CASES["standard"], tensors, x)
    expected = (z * factor) @ tensors["W_dec"] + tensors["b_dec"]
    torch.testing.assert_close(sae(x), expected, rtol=1e-5, atol=1e-5)


def test_half_precision_and_log_thresholds_are_read(tmp_path: Path, x: Tensor) -> None:
    tensors = weights("jumprelu")
    tensors["log_threshold"] = tensors.pop("threshold")
    half = {name: t.bfloat16() for name, t in tensors.items()}
    sae, _ = import_saelens(write(tmp_path, CASES["jumprelu"], half))
    full = {name: t.float() for name, t in half.items()}
    full["threshold"] = full.pop("log_threshold").exp()
    z, _ = saelens(CASES["jumprelu"], full, x)
    torch.testing.assert_close(sae.encode(x), z, rtol=1e-5, atol=1e-5)


BROKEN: dict[str, tuple[dict[str, Any], type[TendrilError], str]] = {
    "temporal": ({"architecture": "temporal"}, ConfigError, r"must be one of .*; got 'temporal'"),
    "tanh": ({"activation_fn": "tanh-relu"}, ConfigError, "relu or topk; got 'tanh-relu'"),
    "layer norm": (
        {"normalize_activations": "layer_norm"},
        ConfigError,
        "cannot be folded into weights",
    ),
    "rescale": (
        {"normalize_activations": "constant_norm_rescale"},
        ConfigError,
        "cannot be folded into weights",
    ),
    "no scale": (
        {"normalize_activations": "expected_average_only_in"},
        ConfigError,
        "Pass it as --scale",
    ),
    "no k": ({"architecture": "topk"}, RunDamagedError, "k in .* must be an integer"),
    "another size": ({"d_sae": S + 1}, RunDamagedError, r"must hold .*\(6, 18\)"),
    "no threshold": ({"architecture": "jumprelu"}, RunDamagedError, "must hold .*threshold"),
    "no running threshold": ({"architecture": "batchtopk", "k": 3}, RunDamagedError, "inference"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_cannot_be_read_is_told(case: str, tmp_path: Path) -> None:
    cfg, error, sentence = BROKEN[case]
    folder = write(tmp_path, {"architecture": "standard"} | cfg, weights("standard"))
    with pytest.raises(error, match=sentence):
        import_saelens(folder)


def test_what_is_no_folder_of_saelens_is_told(tmp_path: Path) -> None:
    with pytest.raises(RunNotFoundError, match=r"has no cfg\.json"):
        import_saelens(tmp_path)
    folder = write(tmp_path / "cut", CASES["standard"])
    path = folder / "sae_weights.safetensors"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(RunDamagedError, match="cannot be read"):
        import_saelens(folder)
    (folder / "cfg.json").write_text("[1]")
    with pytest.raises(RunDamagedError, match="JSON object"):
        import_saelens(folder)
    whole = write(tmp_path / "whole", CASES["standard"])
    with pytest.raises(ConfigError, match="--scale must be omitted"):
        import_saelens(whole, 2.0)


def test_a_run_goes_out_and_comes_back_as_a_run(tmp_path: Path, x: Tensor) -> None:
    home, out = tmp_path / "home", tmp_path / "out"
    sae = SAE(D, S, Sparsity("topk", 4), pre_bias=True)
    torch.manual_seed(1)
    for parameter in sae.parameters():
        parameter.data = torch.randn_like(parameter)
    frequency_S = torch.linspace(0, 1, S)
    config = {"site": "mixed3b", "subject": {"name": "inceptionv1"}, "objective": "topk"}
    save_dictionary(home / "runs" / "mine", sae, config, frequency_S)
    export_run("mine", out, str(home))
    found = read_frequency(out)
    assert found is not None
    torch.testing.assert_close(found, frequency_S, atol=1e-6, rtol=1e-5)
    imported = import_run(out, home=str(home)).result
    assert imported["site"] == "mixed3b"
    assert not imported["reused"]
    assert Path(imported["run"]).name.startswith("imported-mixed3b-")
    assert torch.equal(load_dictionary(imported["run"]).encode(x), sae.encode(x))
    torch.testing.assert_close(load_frequency(imported["run"]), frequency_S, atol=1e-6, rtol=1e-5)
    again = import_run(out, home=str(home)).result
    assert again == imported | {"reused": True}


def test_a_crosscoder_is_not_exported(tmp_path: Path) -> None:
    sae = SAE(D, S, Sparsity("relu"), pre_bias=False)
    save_dictionary(tmp_path / "run", sae, {"sites": {"one": 2, "two": 4}})
    with pytest.raises(ConfigError, match="a crosscoder of the sites one, two"):
        export_run(tmp_path / "run", tmp_path / "out")


@pytest.mark.parametrize("content", ['{"a":' * 100_000, '{"metadata": 7}', '{"metadata": [1]}'])
def test_a_cfg_that_is_nested_or_has_no_metadata_object_is_a_sentence(
    tmp_path: Path, content: str
) -> None:
    (tmp_path / "cfg.json").write_text(content)
    (tmp_path / "sae_weights.safetensors").write_bytes(b"")
    with pytest.raises(RunDamagedError, match=r"cfg\.json must be (a )?JSON"):
        import_saelens(tmp_path)
