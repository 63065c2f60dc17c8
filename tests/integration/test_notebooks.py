# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""The notebooks, executed as a reader's machine would, and free of what a run has left in them."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient


ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "examples" / "notebooks").glob("*.ipynb"))


def results(book):
    """What cells have given: the last text of each."""
    texts = [
        out.get("data", {}).get("text/plain") or out.get("text")
        for cell in book.cells
        for out in cell.get("outputs", [])
    ]
    return [text for text in texts if text]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_without_outputs(path):
    book = nbformat.read(path, as_version=4)
    nbformat.validate(book)
    assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in book.cells)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, tmp_path):
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    book = nbformat.read(path, as_version=4)
    NotebookClient(book, timeout=240, resources={"metadata": {"path": str(tmp_path)}}).execute()
    printed = "\n".join(results(book))
    if path.stem == "quickstart":
        assert "96 optimizer steps" in printed and "Wrote runs/notebook/report/index.html" in printed
        images = [out for cell in book.cells for out in cell.get("outputs", []) if "image/png" in out.get("data", {})]
        assert len(images) == 1
        assert "dual" in (tmp_path / "runs" / "notebook" / "README.md").read_text()
    else:
        assert "14 maps in 4 bits, unchanged" in printed and "adapter_model.safetensors" in printed
