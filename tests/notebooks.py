"""Execute notebooks in a separate kernel, as Jupyter does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbclient
import nbformat


def read(path: Path) -> Any:
    """Read a notebook of format 4."""
    return nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]


def execute(notebook: Any, folder: Path, seconds: float = 280) -> Any:
    """Run all cells of a notebook in a folder, and return it with its outputs; a cell that raises fails the test."""
    client = nbclient.NotebookClient(notebook, timeout=seconds, resources={"metadata": {"path": str(folder)}})
    return client.execute()


def cells_of(*sources: str) -> Any:
    """A notebook of these cells."""
    nodes: Any = nbformat.v4  # untyped
    return nodes.new_notebook(cells=[nodes.new_code_cell(source) for source in sources])


def outputs_of(notebook: Any, cell: str | int) -> list[Any]:
    """Outputs of the cell of this id or number."""
    found = notebook.cells[cell] if isinstance(cell, int) else next(c for c in notebook.cells if c.id == cell)
    outputs: list[Any] = found.outputs
    return outputs
