"""Floors of the package: a module imports only modules on lower floors, lazily and for types as well.

`FLOORS` is the order, the lowest first. Folders that share a floor do not know each other.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import simexm

PACKAGE = Path(simexm.__file__).parent
FLOORS: tuple[tuple[str, ...], ...] = (
    ("caches", "errors", "logs", "names", "secret", "systems", "timing", "units", "version"),
    ("machine", "plugins"),
    ("compiled",),
    ("geometry", "random"),
    ("arguments", "store"),
    ("settings",),
    ("jobs", "kernels"),
    ("spectra",),
    ("sources",),
    ("ingestion", "stages"),
    ("spec",),
    ("planning",),
    ("result",),
    ("run",),
    ("analysis",),
    ("sweep",),
    ("export",),
    ("legacy2017",),
    ("view",),
    ("api",),
    ("__init__", "templates"),
    ("cli",),
)
HEIGHT = {name: height for height, names in enumerate(FLOORS) for name in names}
"""Floor of each folder and of each single module."""


def modules(package: Path) -> list[Path]:
    """Every module of a package."""
    return sorted(package.rglob("*.py"))


def floor_of(dotted: str) -> str:
    """The folder, or lone module, that a dotted name below `simexm` belongs to; "__init__" for the package itself."""
    parts = dotted.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in HEIGHT else "__init__"


def imported(text: str) -> Iterator[str]:
    """Dotted names of simexm that a module imports, anywhere in it."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.split(".")[0] == "simexm")
        elif isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").split(".")[0] == "simexm":
            yield from (f"{node.module}.{a.name}" for a in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level:
            yield "simexm.relative"  # which stands on no floor


def upward(package: Path) -> list[str]:
    """Every import of a module that is not on a lower floor, as text."""
    found = []
    for path in modules(package):
        own = path.relative_to(package).with_suffix("").parts
        home = own[0]
        for name in imported(path.read_text(encoding="utf-8")):
            target = floor_of(name)
            if target != home and HEIGHT[target] >= HEIGHT[home]:
                found.append(f"{'/'.join(own)}.py imports {name}")
    return found


def test_every_module_is_on_a_floor() -> None:
    assert {p.relative_to(PACKAGE).with_suffix("").parts[0] for p in modules(PACKAGE)} <= HEIGHT.keys()


def test_imports_point_downwards() -> None:
    assert upward(PACKAGE) == []


@pytest.mark.parametrize(
    "text",
    [
        "from simexm.run.driver import run",
        "def late():\n    import simexm.run.driver",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from simexm.run import driver",
        "from ..run import driver",
        "import simexm",
    ],
)
def test_an_upward_import_is_found_anywhere(tmp_path: Path, text: str) -> None:
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels" / "one.py").write_text(text)
    assert len(upward(tmp_path)) == 1


STAGE_INTERFACES = ("contract", "frames", "installed", "products", "roles")


def named_stages(package: Path) -> list[str]:
    """Every import of a concrete stage by what plans and runs simulations, which knows stages by what they declare."""
    found = []
    for path in (p for folder in ("jobs", "planning", "run") for p in modules(package / folder)):
        for name in imported(path.read_text(encoding="utf-8")):
            parts = name.split(".")
            if parts[1] == "legacy2017" or (parts[1] == "stages" and parts[2] not in STAGE_INTERFACES):
                found.append(f"{path.relative_to(package)} imports {name}")
    return found


def test_planning_running_and_jobs_name_no_stage() -> None:
    assert named_stages(PACKAGE) == []


@pytest.mark.parametrize(
    "text", ["from simexm.stages import Camera", "def f():\n    from simexm.stages.truth.labels import Truth"]
)
def test_a_stage_that_is_named_is_found(tmp_path: Path, text: str) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "one.py").write_text(text)
    assert len(named_stages(tmp_path)) == 1
