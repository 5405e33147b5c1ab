"""The notebook of `pipelines/` runs unchanged, and runs in a notebook show their progress in one place."""

from __future__ import annotations

import base64
import io
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from PIL import Image

from simexm.result.result import Result
from tests.notebooks import cells_of, execute, outputs_of, read

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "pipelines").glob("*.ipynb"))

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*:ResourceWarning"),
]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.name)
def test_notebooks_are_stored_without_what_running_them_leaves(path: Path) -> None:
    notebook = read(path)
    nbformat.validate(notebook)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert notebook.metadata.language_info == {"name": "python"}
    for cell in notebook.cells:
        assert not cell.metadata
        if cell.cell_type == "code":
            assert (cell.outputs, cell.execution_count) == ([], None)


def test_ten_cells_and_one_line_to_change() -> None:
    cells = [c for c in read(ROOT / "pipelines" / "simexm.ipynb").cells if c.cell_type == "code"]
    assert len(cells) == 10
    lines = next(c.source for c in cells if c.id == "cluster").splitlines()
    assert [
        bool(re.fullmatch(r'(# )?cluster = simexm.cluster\("\.\./\S+\.yaml"(, jobs=2)?\)', li)) for li in lines
    ] == [True] * 3
    assert [line.startswith("# ") for line in lines] == [False, True, True]
    for name in re.findall(r"\.\./(\S+?\.yaml)", "\n".join(lines)):
        assert (ROOT / name).is_file()


@pytest.mark.slow
def test_it_runs_unchanged(tmp_path: Path) -> None:
    for name in ("pipelines", "cluster_configs"):
        shutil.copytree(ROOT / name, tmp_path / name)
    local = tmp_path / "cluster_configs" / "local.yaml"
    local.write_text(local.read_text() + "workers: 2\n")
    folder = tmp_path / "pipelines"
    done = execute(read(folder / "simexm.ipynb"), folder)
    for cell in ("simulation", "plan", "preview", "result"):
        (shown,) = outputs_of(done, cell)
        assert "<svg" in shown.data["text/html"] or "<img" in shown.data["text/html"]
    (told,) = outputs_of(done, "run")
    blocks = Result.open(folder / "simexm-notebook" / "out.zarr").plan_record["blocks"]["count"]
    assert f"finished: {blocks} blocks done" in told.data["text/html"]
    assert not [o for c in done.cells for o in c.get("outputs", ()) if o.get("name") == "stderr"], "a cell warns"
    (figure,) = outputs_of(done, "truth")
    assert np.asarray(Image.open(io.BytesIO(base64.b64decode(figure.data["image/png"])))).std() > 30
    result = Result.open(folder / "simexm-notebook" / "out.zarr")
    assert result.complete
    names = {p.name for p in folder.iterdir()} - {p.name for p in (ROOT / "pipelines").iterdir()}
    assert names == {"simexm-notebook"}


RUN = """
import sys
sys.modules["ipywidgets"] = None  # it cannot be imported
from simexm.jobs.events import *
from simexm.jobs.progress import progress
with progress(total=500, voxels=10**9) as listener:
    listener(RunStarted(2, 2, "http://127.0.0.1:8787/status"))
    for block in range(499):
        listener(BlockDone(block, 1, {}, "node7", 0.1))
    listener(Retried(499, 1, "ValueError: bad", "node7"))
    listener(WorkerLost("tcp://node7:1", (499,)))
    listener(BlockFailed(Failure(499, "<img src=x onerror=alert(1)>", "", 3, "node7")))
    listener(RunFinished(499, 1, 61.0, complete=True))
"""

QUIET = """
with progress(total=2, voxels=10, quiet=True) as listener:
    listener(RunStarted(2, 2, None))
    listener(BlockDone(0, 1, {}, "node7", 0.1))
"""


class Text(HTMLParser):
    """What a page says, and its elements."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.said, self.tags = "", set[str]()
        self.feed(page)

    def handle_data(self, data: str) -> None:
        self.said += data + "\n"

    def handle_starttag(self, tag: str, attrs: list[Any]) -> None:
        self.tags.add(tag)


def test_progress_is_one_output_that_changes(tmp_path: Path) -> None:
    done = execute(cells_of(RUN, QUIET), tmp_path, 60)
    (shown,) = outputs_of(done, 0)
    assert shown.output_type == "display_data"
    page = Text(shown.data["text/html"])
    assert page.tags == {"div"}
    for line in (
        "499/500 blocks",
        "1 retried, 1 failed",
        "running on 2 workers with 2 threads, dashboard at http://127.0.0.1:8787/status",
        "worker tcp://node7:1 died; 1 block will be run again",
        "block 499 set aside after 3 attempts: <img src=x onerror=alert(1)>",
        "finished: 499 blocks done in 61 s, 1 block failed",
    ):
        assert line in page.said
    assert "width: 99.8%" in shown.data["text/html"]
    assert [line for line in shown.data["text/plain"].splitlines() if line not in page.said] == []
    assert outputs_of(done, 1) == []
