"""What tests of stages share."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.build import forget_packages


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Called with name, module's text and class: installs a package with a stage of that name for one test."""

    def install(package: str, text: str, value: str = "Own", stage: str = "own") -> None:
        about = tmp_path / f"{package}-2.5.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 2.5\n")
        (about / "entry_points.txt").write_text(f"[simexm.stages]\n{stage} = {package}:{value}\n")
        (tmp_path / f"{package}.py").write_text(text)
        monkeypatch.delitem(sys.modules, package, raising=False)
        forget_packages()

    monkeypatch.syspath_prepend(tmp_path)
    yield install
    monkeypatch.undo()
    forget_packages()
