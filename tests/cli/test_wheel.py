"""What a wheel holds, installed where there is no checkout: the experiments of `simexm new`, and what makes their labels."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.markdown import ROOT

pytest.importorskip("hatchling")


def build(folder: Path, kind: str, to: Path) -> Path:
    """The one file that is built from a checkout or a source distribution."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(to)],
        cwd=folder, check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    (made,) = to.iterdir()
    return made


@pytest.mark.slow
@pytest.mark.parametrize("begin", ["checkout", "source distribution"])
def test_a_wheel_holds_the_experiments(begin: str, tmp_path: Path) -> None:
    source = ROOT
    if begin == "source distribution":
        with tarfile.open(build(ROOT, "sdist", tmp_path / "sdist")) as packed:
            packed.extractall(tmp_path / "source", filter="data")
        (source,) = (tmp_path / "source").iterdir()
    site = tmp_path / "site"
    with zipfile.ZipFile(build(source, "wheel", tmp_path / "wheel")) as packed_wheel:
        packed_wheel.extractall(site)

    def python(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, *words], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(site)}, check=True,
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        return done.stdout

    assert python("-c", "import simexm; print(simexm.__file__)").startswith(str(site))
    listed = python("-m", "simexm.cli", "new", "--list")
    texts = {path.stem: path.read_text() for path in (ROOT / "pipelines").glob("*.yaml")}
    assert all(name in listed for name in texts)
    held = python(
        "-c",
        "import json; from simexm import templates as t; print(json.dumps({n: t.spec_text(n) for n in t.experiments()}))",
    )
    assert json.loads(held) == texts
    assert "--cells" in python("-m", "simexm.templates.moving_discs", "--help")
