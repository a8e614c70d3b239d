"""The page of features at the size of a language model's dictionary: made-up findings."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import torch

from tendril.study.core.language_inputs import StoredText
from tendril.study.features import page
from tendril.study.features.findings import FeatureFindings
from tendril.study.features.page import PIECE, places, write_index, write_piece
from tendril.study.measures.decoder_directions import neighbours
from tendril.study.measures.latent_activity import Activity
from tendril.study.page.render import render


def made_up(latents: int, top: int, window: int) -> FeatureFindings:
    """Findings of many latents over made-up text."""
    rng = np.random.default_rng(0)
    length, count, words = 64, 400, 40_000
    text = StoredText(
        rng.integers(0, words, (count, length)).astype(np.int32),
        np.arange(count * length, dtype=np.int32).reshape(count, length) // 100,
        np.ones((count, length), bool),
    )
    activity = Activity(latents, length, top, 0, window)
    activity.rows = count * length
    activity.fired_S[:] = rng.integers(1, 1000, latents)
    activity.max_S[:] = rng.exponential(2, latents)
    activity.histogram_SH[:, 90:100] = 7
    activity.top.row_SN[:] = rng.integers(0, count * length, activity.top.row_SN.shape)
    activity.top.acts_SNW[:] = rng.exponential(1, activity.top.acts_SNW.shape)
    W_dec = torch.randn(latents, 8)
    return FeatureFindings(
        run="many",
        store="text",
        subject="made-up",
        sites=("blocks.1.hook_resid_post",),
        part="all",
        contexts=count,
        quantiles=0,
        text=text,
        text_of=[f" word{i}" for i in range(words)],
        activity=activity,
        promoted=None,
        neighbours=neighbours(W_dec[:, :2], 2) if latents < 1000 else _ring(latents),
        norm_S=np.ones(latents, np.float32),
        note="No logits.",
    )


def _ring(latents: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Each one's neighbours are the next two: no product of all with all."""
    numbers = (torch.arange(latents)[:, None] + torch.arange(1, 3)) % latents
    return numbers, torch.full((latents, 2), 0.5)


def test_a_page_of_many_latents_opens_at_once(tmp_path: Path) -> None:
    found, data, linked = made_up(32_768, top=10, window=32), tmp_path / "data", 32_000
    place = places(found)
    assert write_index(found, place, data) < 3_000_000
    assert max(write_piece(found, n, place, data) for n in (0, linked // PIECE)) < 700_000
    common = {"title": "Features", "command": "tendril", "identity": "{}", "tables": []}
    html = render(Path(page.__file__).parent, {**common, **page.context(found)})
    (tmp_path / "index.html").write_text(html, encoding="utf-8")
    assert (tmp_path / "index.html").stat().st_size < 60_000
    chromium = shutil.which("chromium")
    if chromium is None:
        return
    dom = subprocess.run(
        [
            *(chromium, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"),
            *("--virtual-time-budget=4000", f"--user-data-dir={tmp_path / 'browser'}"),
            f"file://{tmp_path / 'index.html'}#latent={linked}",
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout
    assert f"Latent {linked}</a>" in dom  # the permalink, out of a piece of its own
    assert 10 < dom.count('class="row"') < 120  # the list draws what can be seen
    assert "32,768 of 32,768 latents" in dom
