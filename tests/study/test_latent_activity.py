"""One pass over a store of text, against all activations at once."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tendril.data import order
from tendril.data.errors import ConfigError
from tendril.data.store.reader import Store, open_store
from tendril.models.dictionaries.checkpoint import load_sae
from tendril.study.core.stores import text_of
from tendril.study.measures import latent_activity
from tendril.study.measures.latent_activity import (
    SAMPLE_KEY,
    Activity,
    TopEntries,
    edges,
    watch,
)

from ..helpers.language_home import DEAD, SITE, S, T, brute, make_home


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_home(tmp_path_factory.mktemp("activity"))


@pytest.fixture
def store(home: Path) -> Store:
    return open_store(next((home / "store").iterdir()))


@pytest.mark.parametrize("name", ["a-topk", "a-relu"])
@pytest.mark.parametrize("at_once", [1, T * S * 5, 2**24])
def test_counts_are_those_of_all_rows_at_once(
    home: Path, store: Store, name: str, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latent_activity, "AT_ONCE", at_once)
    sae, text = load_sae(name, str(home)), text_of(store)
    z_BTS = brute(store, sae)
    contexts = np.arange(len(z_BTS))
    made = Activity(S, T, 5, 8, 9)
    watch(store, [SITE], sae, text.valid_BT, contexts, made, torch.device("cpu"))
    z_RS = z_BTS.reshape(-1, S)
    on_RS = z_RS > 0
    assert made.rows == text.valid_BT.sum() == np.isfinite(z_RS[:, 0]).sum()
    assert np.array_equal(made.fired_S, on_RS.sum(0))
    assert np.allclose(made.frequency_S, on_RS.sum(0) / made.rows)
    assert np.allclose(made.max_S, np.nanmax(z_RS, 0).clip(0))
    assert np.allclose(made.total_S, np.nansum(np.where(on_RS, z_RS, 0), 0), rtol=1e-5)
    for latent in range(S):
        values = z_RS[on_RS[:, latent], latent]
        assert np.array_equal(made.histogram_SH[latent], np.histogram(values, edges())[0])
    assert made.fired_S[DEAD] == 0
    assert (made.top.row_SN[DEAD] == -1).all()


@pytest.mark.parametrize("name", ["a-topk", "a-relu"])
@pytest.mark.parametrize("at_once", [1, T * S * 5])
def test_strongest_contexts_and_the_sample_are_those_of_a_full_sort(
    home: Path, store: Store, name: str, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latent_activity, "AT_ONCE", at_once)
    sae, text = load_sae(name, str(home)), text_of(store)
    z_BTS = brute(store, sae)
    contexts = np.arange(len(z_BTS))
    made = Activity(S, T, 5, 8, 9)
    watch(store, [SITE], sae, text.valid_BT, contexts, made, torch.device("cpu"))
    assert made.sample is not None
    drawn_BT = np.stack([order.uniform(T, SAMPLE_KEY, int(c)) for c in contexts])
    for latent in range(S):
        z_BT = np.where(z_BTS[..., latent] > 0, z_BTS[..., latent], 0)
        peaks = z_BT.max(1)
        best = [b for b in np.lexsort((contexts, -peaks)) if peaks[b] > 0][:5]
        wanted = [b * T + int(z_BT[b].argmax()) for b in best]
        rows = made.top.row_SN[latent]
        assert rows[rows >= 0].tolist() == wanted
        assert np.allclose(made.top.value_SN[latent, : len(best)], peaks[best])
        on = np.flatnonzero(z_BT.ravel() > 0)
        sampled = on[np.argsort(-drawn_BT.ravel()[on])][:8]
        got = made.sample.row_SN[latent]
        assert got[got >= 0].tolist() == sampled.tolist()
        for row, acts_W in zip(rows[rows >= 0], made.top.acts_SNW[latent], strict=False):
            begin = int(made.begin(np.array(row)))
            assert begin // T == row // T
            assert begin <= row < begin + 9
            around = z_BTS.reshape(-1, S)[begin : begin + 9, latent]
            assert np.allclose(acts_W, around, equal_nan=True)


def test_the_best_of_a_stream_are_the_best_of_all() -> None:
    rng = np.random.default_rng(0)
    best = TopEntries(6, 4, 3)
    latent, score = rng.integers(0, 6, 500), rng.integers(0, 60, 500).astype(np.float64)
    row = np.arange(500)
    for some in np.array_split(row, 23):
        chosen = some[best.candidates(latent[some], score[some])]
        around = np.repeat(chosen[:, None], 3, 1).astype(np.float32)
        best.add(latent[chosen], score[chosen], chosen, score[chosen].astype(np.float32), around)
    for one in range(6):
        mine = row[latent == one]
        wanted = mine[np.argsort(-score[mine], kind="stable")][:4]
        assert best.row_SN[one].tolist() == wanted.tolist()
        assert np.array_equal(best.value_SN[one], score[wanted])
        assert np.array_equal(best.acts_SNW[one, :, 1], wanted)


def test_a_store_of_images_is_refused(home: Path, store: Store) -> None:
    store.spec["inputs"] = {"kind": "images"}
    with pytest.raises(ConfigError, match="holds images and no text"):
        text_of(store)
