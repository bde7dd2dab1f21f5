# SPDX-License-Identifier: Apache-2.0
"""The notebooks and the page of the public objects: executed, with their outputs, and whole."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import mlm_jax

DOCS = Path(__file__).parents[1] / "docs"
NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))
# What a machine's own folders begin with, addresses of its memory, and the colours of a terminal.
OF_A_MACHINE = re.compile(r"/(?:home|root|tmp|work|usr|opt|Users|private|var)/|0x[0-9a-f]{6}|\x1b")


def code_cells(path):
    return [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]


def test_every_public_object_has_its_section():
    page = (DOCS / "python.md").read_text()
    for name in mlm_jax.__all__:
        assert re.search(rf"^##+ `{name}`$", page, re.MULTILINE), name
        assert f"(#{name.lower()})" in page
    for method in ("embed", "fill_mask", "hidden_states", "predict", "apply", "batch"):
        assert f"`{method}(" in page and callable(getattr(mlm_jax.TextEncoder, method))
    assert [path.stem for path in NOTEBOOKS] == ["first_run", "what_a_layer_knows", "your_language_into_xlmr"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_stored_and_of_no_machine(path):
    cells = code_cells(path)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    for output in outputs:
        assert output["output_type"] != "error"
        shown = json.dumps({kind: text for kind, text in output.get("data", {}).items() if kind != "image/png"})
        assert not OF_A_MACHINE.search("".join(output.get("text", ())) + shown)


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_each_runs_from_an_empty_folder(path, tmp_path):
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    notebook = nbformat.read(path, 4)
    kernel = {"kernel_name": "python3", "resources": {"metadata": {"path": str(tmp_path)}}}
    nbclient.NotebookClient(notebook, timeout=900, **kernel).execute()  # an error in a cell is one here
    stored = [len(cell["outputs"]) > 0 for cell in code_cells(path)]
    assert [len(cell.outputs) > 0 for cell in notebook.cells if cell.cell_type == "code"] == stored
