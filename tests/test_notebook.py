"""The notebook in `examples/` runs from its first cell to its last, and what it says is true.

`python tests/test_notebook.py` runs it on the engine of GEMMA3N_RUNTIME_URL and keeps its outputs.
"""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parent.parent / "examples" / "notebook.ipynb"
TRUE = {
    "gemma.run(describe, picture)": ["answer='A red circle.'", "image_tokens=256"],
    "heard.answer": ["'4 1 2 3 6 8'", "Segment(start="],
    "memory={}": ["'4 1 2 3 6 8', "],
    '"What do you see and hear?"': ["'A red circle; you said 3 1 4.'"],
    "gemma.run(chat, talk)": ["'Red.'"],
    "gemma.stream(vision": ["Step(name='observation', text='A blue square.')", "Step(name='reasoning'", "Delta(text=", "Done(answer="],
    "gemma.run_batch": ["['A red circle.', 'A blue square.', 'A yellow star.']"],
    "def glance": ["('Red.', 'Circle.')"],
    'part="size"': ["Option 'part' of the program 'glance'"],
}
"""A piece of a cell, and what its output holds."""

SHOWN = {"picture": ["<img src="], "clip": ["<audio controls", "<svg"], "recording": ["Recording", "<audio", "<svg"], "heard": ["<table", "<td"]}
"""The last line of a cell, and how its value shows itself."""


def executed() -> nbformat.NotebookNode:
    """The notebook with the outputs of a run just now, on the engine that GEMMA3N_RUNTIME_URL names."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    place = {"metadata": {"path": str(NOTEBOOK.parent)}}
    NotebookClient(notebook, timeout=120, kernel_name="python3", record_timing=False, resources=place).execute()
    return notebook


def output(cell: nbformat.NotebookNode, kind: str = "text/plain") -> str:
    """What a cell printed, then the value of its last line."""
    printed = "".join(each.text for each in cell.outputs if each.output_type == "stream" and each.name == "stdout")
    return printed + "".join(each.data.get(kind, "") for each in cell.outputs if each.output_type == "execute_result")


def assert_true(notebook: nbformat.NotebookNode) -> None:
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for piece, expected in TRUE.items():
        [cell] = [cell for cell in cells if piece in cell.source]
        for text in expected:
            assert text in output(cell)
    for name, shown in SHOWN.items():
        [cell] = [cell for cell in cells if cell.source.splitlines()[-1] == name]
        assert all(piece in output(cell, "text/html") for piece in shown)


def test_the_outputs_it_is_stored_with_are_true():
    assert_true(nbformat.read(NOTEBOOK, as_version=4))


@pytest.mark.engine
def test_it_runs_and_tells_the_truth(engine: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GEMMA3N_RUNTIME_URL", engine)
    assert_true(executed())


if __name__ == "__main__":
    nbformat.write(executed(), NOTEBOOK)
