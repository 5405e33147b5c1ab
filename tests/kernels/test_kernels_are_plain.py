"""Kernels are functions of arrays: they know nothing of specs, files or schedulers."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import simexm

PACKAGE = Path(simexm.__file__).parent
KERNELS = sorted(p for p in (PACKAGE / "kernels").rglob("*.py") if p.stem != "__init__")
OURS = (
    "simexm.compiled",
    "simexm.errors",
    "simexm.machine",
    "simexm.units",
    "simexm.geometry",
    "simexm.random",
    "simexm.kernels",
)
FORBIDDEN = {"dask", "distributed", "zarr", "pydantic"}


def imports(path: Path) -> Iterator[str]:
    """Every module that the file imports, wherever in it, `from a import b` as a.b."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} imports relatively"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def file_of(name: str) -> Path | None:
    """The file of one of our modules, or of that which holds the name."""
    parts = name.split(".")[1:]
    for path in (PACKAGE.joinpath(*parts[:n]) for n in (len(parts), len(parts) - 1)):
        if path.with_suffix(".py").is_file():
            return path.with_suffix(".py")
        if (path / "__init__.py").is_file():
            return path / "__init__.py"
    return None


def reached(start: Path) -> dict[Path, set[str]]:
    """What a file and every module of ours behind it import."""
    found: dict[Path, set[str]] = {}
    waiting = [start]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found[path] = set(imports(path))
            waiting += [f for n in found[path] if n.split(".")[0] == "simexm" and (f := file_of(n)) is not None]
    return found


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda p: p.stem)
def test_kernels_import_only_numbers(kernel: Path) -> None:
    for path, names in reached(kernel).items():
        assert not FORBIDDEN & {n.split(".")[0] for n in names}, path.name
        for name in names:
            assert name.split(".")[0] != "simexm" or f"{name}.".startswith(tuple(f"{o}." for o in OURS)), path.name


def test_the_walk_sees_what_is_imported_further_on() -> None:
    names = set().union(*reached(PACKAGE / "stages" / "microscope" / "widefield.py").values())
    assert {
        "pydantic.Field",
        "simexm.kernels.imaging.deposit.Ring",
        "simexm.kernels.diffraction.special.gauss_legendre",
    } <= names
