"""Which parts of a crosscoder its latents are of."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tendril.data.errors import ConfigError
from tendril.models.dictionaries.checkpoint import DICTIONARY, save_dictionary
from tendril.models.dictionaries.sae import SAE
from tendril.models.dictionaries.sparsity import Sparsity
from tendril.study.core.study import StudyResult, run_study
from tendril.study.crosscoder_parts.config import PartsConfig
from tendril.study.crosscoder_parts.findings import cosines, norm_fractions, owners
from tendril.study.crosscoder_parts.study import PartsStudy


def study_parts(config: PartsConfig) -> StudyResult:
    return run_study(PartsStudy(), config)


@pytest.fixture
def W_dec() -> torch.Tensor:
    """Six latents in two parts of width 4: of the first, of the second, shared and alike, shared
    and turned round, three times as long in the second, and nothing."""
    e = torch.eye(4)
    zero = torch.zeros(4)
    pairs = [
        (e[0], zero),
        (zero, e[1]),
        (e[2], e[2]),
        (e[3], -e[3]),
        (e[0], 3 * e[0]),
        (zero, zero),
    ]
    return torch.stack([torch.cat(pair) for pair in pairs])


def test_shares_owners_and_cosines(W_dec: torch.Tensor) -> None:
    fractions_SP = norm_fractions(W_dec, [4, 4])
    np.testing.assert_allclose(fractions_SP[:, 1], [0, 1, 0.5, 0.5, 0.75, 0.5])
    np.testing.assert_allclose(fractions_SP.sum(axis=1), 1)
    assert owners(fractions_SP, 0.1).tolist() == [0, 1, -1, -1, -1, -1]
    assert owners(fractions_SP, 0.3).tolist() == [0, 1, -1, -1, 1, -1]
    np.testing.assert_allclose(cosines(W_dec, {"a": 4, "b": 4}), [0, 0, 1, -1, 1, 0], atol=1e-12)
    assert np.isnan(cosines(W_dec, {"a": 3, "b": 5})).all()


def _run(home: Path, W_dec: torch.Tensor, **config: object) -> Path:
    run = home / "runs" / "both-0123456789ab"
    run.mkdir(parents=True)
    sae = SAE(8, 6, Sparsity("topk", 2), pre_bias=True)
    sae.W_dec.data = W_dec.clone()
    told = {"site": "a+b", "sites": {"a": 4, "b": 4}, "group": None, "k": 2, **config}
    (run / "config.json").write_text(json.dumps(told))
    save_dictionary(run, sae, told, torch.zeros(6))
    assert (run / DICTIONARY).is_file()
    return run


def test_a_page_and_a_table(W_dec: torch.Tensor, tmp_path: Path) -> None:
    _run(tmp_path, W_dec, scales={"a": 3.0, "b": 1.0})
    done = study_parts(PartsConfig(home=str(tmp_path)))
    # three times as long in a part a third as loud is no longer: that latent is shared evenly
    lines = (done.report.parent / "latents.csv").read_text().splitlines()
    assert lines[0] == "latent,own,cosine,a,b"
    assert lines[5] == "4,,1.000000,0.500000,0.500000"
    assert done.figures["own"] == {"a": 1, "b": 1}
    assert done.figures["shared"] == 4
    assert "To make it again" in done.report.read_text()
    assert study_parts(PartsConfig(home=str(tmp_path))).reused


def test_networks_read_at_one_site_go_by_their_names(W_dec: torch.Tensor, tmp_path: Path) -> None:
    _run(tmp_path, W_dec, site="x:s+y:s", sites={"x:s": 4, "y:s": 4})
    assert study_parts(PartsConfig(home=str(tmp_path))).figures["parts"] == ["x", "y"]


def test_what_is_no_crosscoder(W_dec: torch.Tensor, tmp_path: Path) -> None:
    _run(tmp_path, W_dec, site="a", sites={"a": 8})
    with pytest.raises(ConfigError, match="is of a alone"):
        study_parts(PartsConfig(home=str(tmp_path)))
    with pytest.raises(ConfigError, match="--own must be a fraction between 0 and"):
        study_parts(PartsConfig(own=0.6))
