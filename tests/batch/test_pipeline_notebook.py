"""The notebook of `pipelines/` with its one line changed: the same bytes from the jobs of a queue."""

from __future__ import annotations

import shutil
from pathlib import Path

import nbformat
import pytest

from simexm.result.result import Result
from tests.batch.conftest import Lab, cluster_file, fingerprint
from tests.notebooks import execute, outputs_of

pytestmark = [
    pytest.mark.batch,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*:ResourceWarning"),
]

ROOT = Path(__file__).resolve().parents[2]


def made(project: Path, kind: str) -> tuple[dict[str, str], int]:
    """What the notebook writes on a cluster of this kind, and in how many jobs; it is taken away from where it was written."""
    notebook = nbformat.read(project / "pipelines" / "simexm.ipynb", as_version=4)  # type: ignore[no-untyped-call]
    cell = next(c for c in notebook.cells if c.id == "cluster")
    lines = [line.removeprefix("# ") for line in cell.source.splitlines()]
    (cell.source,) = [line for line in lines if f"/{kind}.yaml" in line]
    done = execute(notebook, project / "pipelines")
    (told,) = [o for o in outputs_of(done, "run") if o.output_type == "display_data"]
    written = project / "pipelines" / "simexm-notebook"
    blocks = Result.open(written / "out.zarr").plan_record["blocks"]["count"]
    assert f"finished: {blocks} blocks done" in told.data["text/html"]
    found = fingerprint(written / "out.zarr")
    jobs = written / "out.run" / "jobs" / "jobs.jsonl"
    submitted = len(jobs.read_text().splitlines()) if jobs.exists() else 0
    for name in ("out.zarr", "out.run"):
        shutil.rmtree(written / name)
    return found, submitted


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The notebook, and cluster files edited for this machine. Results tell where their labels are: all runs are in one place."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copytree(ROOT / "pipelines", folder / "pipelines")
    (folder / "cluster_configs").mkdir()
    (folder / "cluster_configs" / "local.yaml").write_text("kind: local\nworkers: 2\n")
    for kind in ("slurm", "lsf"):
        cluster_file(folder / "cluster_configs", kind, workers=1)
    return folder


@pytest.fixture(scope="module")
def local(project: Path) -> dict[str, str]:
    found, jobs = made(project, "local")
    assert jobs == 0
    return found


@pytest.mark.parametrize("kind", ["slurm", "lsf"])
def test_one_changed_line_gives_the_same_bytes(lab: Lab, project: Path, local: dict[str, str], kind: str) -> None:
    found, jobs = made(project, kind)
    assert jobs == 2
    assert len(local) > 50
    assert found == local
