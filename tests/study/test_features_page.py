"""The page of features at the size of a language model's dictionary: made-up findings."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import torch

from tendril.study.core.stores import StoredText
from tendril.study.features import page
from tendril.study.features.findings import FeatureFindings
from tendril.study.features.page import PIECE, places, write_data, write_index, write_piece
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


def html_of(found: FeatureFindings) -> str:
    """The page of findings."""
    common = {"title": "Features", "command": "tendril", "identity": "{}", "tables": []}
    return render(Path(page.__file__).parent, {**common, **page.context(found)})


def _ring(latents: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Each one's neighbours are the next two: no product of all with all."""
    numbers = (torch.arange(latents)[:, None] + torch.arange(1, 3)) % latents
    return numbers, torch.full((latents, 2), 0.5)


def test_a_page_of_many_latents_opens_at_once(tmp_path: Path) -> None:
    found, data, linked = made_up(32_768, top=10, window=32), tmp_path / "data", 32_000
    place = places(found)
    assert write_index(found, place, data) < 3_000_000
    assert max(write_piece(found, n, place, data) for n in (0, linked // PIECE)) < 700_000
    (tmp_path / "index.html").write_text(html_of(found), encoding="utf-8")
    assert (tmp_path / "index.html").stat().st_size < 60_000
    dom = browsed(tmp_path, f"#latent={linked}")
    if dom is None:
        return
    assert f"Latent {linked}</a>" in dom  # the permalink, out of a piece of its own
    assert 10 < dom.count('class="row"') < 120  # the list draws what can be seen
    assert "32,768 of 32,768 latents" in dom


def browsed(folder: Path, link: str) -> str | None:
    """The page of a folder as the browser has it after its scripts; None without a browser."""
    chromium = shutil.which("chromium")
    if chromium is None:
        return None
    return subprocess.run(
        [
            *(chromium, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"),
            *("--virtual-time-budget=4000", f"--user-data-dir={folder / 'browser'}"),
            f"file://{folder / 'index.html'}{link}",
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout


READER = """<script>
const wait = (ms) => new Promise((done) => setTimeout(done, ms));
const rows = () => [...document.querySelectorAll("#rows .row")].map((row) => row.dataset.latent);
const shown = () => document.querySelector("#detail h2").textContent;
const press = (key) => dispatchEvent(new KeyboardEvent("keydown", { key }));
const find = async (text) => {
  const box = document.getElementById("search");
  box.value = text; box.dispatchEvent(new Event("input")); await wait(200);
};
(async () => {
  const seen = {};
  await wait(200); seen.linked = shown();
  press("j"); await wait(50); seen.next = shown(); seen.address = location.hash;
  press("k"); await wait(50); seen.previous = shown();
  document.querySelector('[data-by="max"]').click(); seen.highest = rows()[0];
  document.querySelector('[data-by="max"]').click(); seen.lowest = rows()[0];
  await find("#11"); seen.found = rows(); seen.count = document.getElementById("count").textContent;
  await find("no such token"); seen.none = document.getElementById("rows").textContent;
  await find(""); location.hash = "#latent=3"; await wait(50); seen.hash = shown();
  const output = document.createElement("output");
  output.textContent = JSON.stringify(seen); document.body.append(output);
})();
</script>"""


def test_links_keys_search_and_order_work(tmp_path: Path) -> None:
    found = made_up(200, top=4, window=16)
    write_data(found, tmp_path / "data")
    (tmp_path / "index.html").write_text(html_of(found) + READER, encoding="utf-8")
    dom = browsed(tmp_path, "#latent=150")
    if dom is None:
        return
    output = re.search(r"<output>(.*)</output>", dom)
    assert output
    assert json.loads(output[1]) == {
        "linked": "Latent 150",
        "next": "Latent 151",
        "address": "#latent=151",
        "previous": "Latent 150",
        "highest": str(found.activity.max_S.argmax()),
        "lowest": str(found.activity.max_S.argmin()),
        "found": ["11"],
        "count": "1 of 200 latents",
        "none": "No latent matches.",
        "hash": "Latent 3",
    }
