"""A result of another format is read, and neither resumed nor repaired nor decoded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from simexm.api import Simulation
from simexm.cli import app
from simexm.version import FORMAT_VERSION, __version__
from tests import rounds_build
from tests.run.conftest import fingerprint

pytestmark = pytest.mark.filterwarnings("ignore::simexm.errors.SimexmWarning")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a spec of two rounds, `spec.yaml`, and what it makes, `out.zarr`."""
    folder = tmp_path_factory.mktemp("format")
    phantom = {"kind": "phantom", "shape": [16, 40, 40], "voxel_size_nm": list(rounds_build.VOXEL_NM)}
    spec = rounds_build.spec(phantom, rounds=2)
    (folder / "spec.yaml").write_text(yaml.safe_dump(spec))
    Simulation.from_mapping(spec).run(folder / "out.zarr", quiet=True)
    return folder


def of_format(made: Path, folder: Path, version: int | None, status: str) -> Path:
    """A copy of the result that says it is of another format; returns the folder."""
    shutil.copytree(made, folder, dirs_exist_ok=True)
    for path in (folder / "out.run" / "plan.json", folder / "out.zarr" / "zarr.json"):
        whole = json.loads(path.read_text())
        told = whole if path.name == "plan.json" else whole["attributes"]["simexm"]
        assert told.pop("format") == FORMAT_VERSION
        if version is not None:
            told["format"] = version
        if "status" in told:
            told["status"] = status
        path.write_text(json.dumps(whole))
    return folder


def typed(folder: Path, *words: str) -> Any:
    """What the command line answers, in a folder."""
    full = [str(folder / w) if "." in w else w for w in words]
    return CliRunner().invoke(app, full)


@pytest.mark.parametrize(
    ("version", "status"), [(None, "complete"), (FORMAT_VERSION - 1, "incomplete"), (FORMAT_VERSION + 1, "complete")]
)
def test_another_format_is_refused_where_it_would_be_mixed(
    made: Path, tmp_path: Path, version: int | None, status: str
) -> None:
    folder = of_format(made, tmp_path, version, status)
    before = fingerprint(folder / "out.zarr"), fingerprint(folder / "out.run")
    for words in (
        ("run", "spec.yaml", "--output", "out.zarr", "-q"),
        ("verify", "out.zarr", "--repair", "-q"),
        ("decode", "out.zarr", "-o", "read.zarr"),
    ):
        told = typed(folder, *words)
        assert told.exit_code == 2, told.output
        text = " ".join(told.output.split())
        named = "no format version" if version is None else f"format version {version}"
        for word in (named, f"writes format version {FORMAT_VERSION}", "--overwrite", f"({__version__})"):
            assert word in text
    assert (fingerprint(folder / "out.zarr"), fingerprint(folder / "out.run")) == before


def test_another_format_is_read_and_replaced(made: Path, tmp_path: Path) -> None:
    folder = of_format(made, tmp_path, None, "complete")
    for words in (
        ("info", "out.zarr"),
        ("status", "out.zarr"),
        ("export", "out.zarr", "-o", "files.d", "--format", "tiff", "-q"),
    ):
        told = typed(folder, *words)
        assert told.exit_code == 0, told.output
    assert any((folder / "files.d").iterdir())
    told = typed(folder, "run", "spec.yaml", "--output", "out.zarr", "--overwrite", "-q")
    assert told.exit_code == 0, told.output
    assert typed(folder, "decode", "out.zarr", "-o", "read.zarr").exit_code == 0
    assert typed(folder, "verify", "out.zarr", "--repair", "-q").exit_code == 0
