"""The notebook of the guide runs, in an empty folder."""

import json
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[1] / "docs" / "notebook.ipynb"


def test_the_notebook_is_small_and_without_outputs() -> None:
    assert NOTEBOOK.stat().st_size < 100_000
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    assert all(not cell.get("outputs") and not cell.get("execution_count") for cell in cells)


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """The notebook with its outputs, and the folder in which it ran."""
    folder = tmp_path_factory.mktemp("notebook")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR"):
            patch.setenv(name, str(folder / "jupyter"))
        patch.delenv("TENDRIL_HOME", raising=False)
        notebook = nbformat.read(NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]
        client = NotebookClient(
            notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": folder}}
        )
        client.execute()
    return notebook, folder


def shown(notebook: Any, words: str) -> list[Any]:
    """The outputs of the cell whose code contains the words."""
    (cell,) = (c for c in notebook.cells if c.cell_type == "code" and words in c.source)
    outputs: list[Any] = cell.outputs
    return outputs


def test_the_notebook_makes_store_run_and_page(executed: tuple[Any, Path]) -> None:
    notebook, folder = executed
    for kind, count in (("store", 1), ("runs", 1), ("reports", 1)):
        made = [p for p in (folder / "demo" / kind).iterdir() if p.is_dir()]
        assert len(made) == count, made
    for words, told in (
        ("tendril.harvest(", "Harvest Network-Shapes-"),
        ("harvest.open()", "4,800 rows of middle, late from 240 inputs"),
        ("tendril.train(", "TopK 256, k 8, middle"),
        ("tendril.study.features(", "latents are active somewhere in 4,800 positions"),
    ):
        html = shown(notebook, words)[-1]["data"]["text/html"]
        assert told in html
    page = shown(notebook, "tendril.study.features(")[-1]["data"]["text/html"]
    link = page.partition("href='")[2].partition("'")[0]
    assert (folder / link).is_file()
    read = shown(notebook, "store.labels()")[-1]["data"]["text/plain"]
    assert read == "((3, 64), ('disc', 'square', 'stripes'))"


def test_the_notebook_shows_progress_and_nothing_on_stderr(executed: tuple[Any, Path]) -> None:
    notebook, _ = executed
    told = [o for c in notebook.cells for o in c.get("outputs", []) if o.output_type == "stream"]
    ours = [o.text for o in told if o.name == "stderr" and "IProgress" not in o.text]
    assert ours == []  # huggingface_hub warns where there is no ipywidgets
    text = "".join(o.text for o in told)
    assert "240 inputs x 20 positions" in text
    assert "harvest: 100%" in text
