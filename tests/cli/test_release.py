"""What is shipped: citation, container, and wheels on each Python with the oldest and the newest dependencies."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import simexm
from tests.cli.test_wheel import build
from tests.markdown import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SUBSET = ["tests/geometry", "tests/sources/test_phantom.py", "tests/stages/test_detectors.py", "tests/run/test_run.py"]
"""Two minutes of tests: exact geometry, a source, physics, and a run on workers with its resume."""


def test_the_citation_names_this_version() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited["version"] == simexm.__version__
    assert cited["license"] == PROJECT["license"]


def test_the_container_is_built_from_files_that_are_here() -> None:
    text = (ROOT / "Dockerfile").read_text()
    copied = [line.split()[1:-1] for line in text.splitlines() if line.startswith("COPY ") and "--from" not in line]
    assert all((ROOT / name).exists() for names in copied for name in names)
    named = {PROJECT["readme"], *PROJECT["license-files"], "pyproject.toml", "simexm"}
    assert named <= {name for names in copied for name in names}
    extras = re.findall(r"^ARG EXTRAS=(\S+)", text, re.MULTILINE)[0].split(",")
    assert set(extras) <= set(PROJECT["optional-dependencies"])
    (python,) = set(re.findall(r"^FROM python:(\d+\.\d+)", text, re.MULTILINE))
    assert f"Programming Language :: Python :: {python}" in PROJECT["classifiers"]


def interpreter(version: str) -> str:
    """A Python of this version on this machine, or the test is skipped."""
    if sys.version.startswith(f"{version}."):
        return sys.executable
    roots = [Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"]
    held = [path for root in roots for path in sorted(root.glob(f"{version}.*/bin/python"))]
    found = str(held[-1]) if held else shutil.which(f"python{version}")
    if not found:
        pytest.skip(f"no Python {version} on this machine")
    return found


def finished(*command: object, cwd: Path, timeout_s: int, **env: str) -> None:
    """Run a command; a failure shows what it printed."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=os.environ | env,
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]


@pytest.mark.release
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("kind", ["wheel", "sdist"])
@pytest.mark.parametrize(
    ("version", "dependencies"), [("3.11", "lowest-direct"), ("3.12", "highest"), ("3.13", "highest")]
)
def test_what_is_built_passes_tests_where_it_is_installed(
    version: str, dependencies: str, kind: str, tmp_path: Path
) -> None:
    """The oldest dependencies pass the complete default suite, the newest a subset."""
    uv = shutil.which("uv") or pytest.skip(
        "uv is not installed, which resolves the oldest dependencies; type: pip install uv"
    )
    made = build(ROOT, kind, tmp_path / "built")
    venv = tmp_path / "venv"
    python = venv / "bin" / "python"
    finished(uv, "venv", "--python", interpreter(version), venv, cwd=tmp_path, timeout_s=300)
    install = [
        uv,
        "pip",
        "install",
        "--python",
        python,
        f"--resolution={dependencies}",
        f"simexm[test] @ {made.as_uri()}",
    ]
    finished(*install, cwd=tmp_path, timeout_s=1800)
    shutil.copytree(ROOT / "tests", tmp_path / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    complete = kind == "wheel" and dependencies != "highest"
    for name in ("pipelines", "cluster_configs", "docs", "benchmarks", "README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        (tmp_path / name).symlink_to(ROOT / name)
    for name in ("pyproject.toml", "mkdocs.yml", "LICENSE", "CITATION.cff", "Dockerfile"):
        (tmp_path / name).symlink_to(ROOT / name)
    words = ["-n", "auto", "--dist", "loadfile", *([] if complete else SUBSET)]
    finished(
        python, "-m", "pytest", "-q", *words, cwd=tmp_path, timeout_s=5400, NUMBA_CACHE_DIR=str(tmp_path / "numba")
    )
