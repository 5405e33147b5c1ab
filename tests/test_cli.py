"""The command line without errors: its output and its speed."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import numpy as np
import pytest
import yaml
import zarr
from typer.testing import CliRunner, Result

from simexm import __version__
from simexm.api import Simulation
from simexm.cli import app
from simexm.errors import SimexmWarning
from simexm.kernels.devices import cupy_device
from simexm.result.result import Result as Simulated
from tests.build import confocal, spec

COMMANDS = [
    "run", "plan", "preview", "ingest", "new", "schema", "info", "convert", "show", "fluorophores", "export",
    "submit", "status", "view", "report",
]  # fmt: skip
HEAVY = [
    "numpy",
    "numba",
    "dask",
    "distributed",
    "zarr",
    "scipy",
    "pyarrow",
    "matplotlib",
    "simexm.spec",
    "simexm.api",
]
SLOW = ["numba", "dask", "distributed", "scipy", "pyarrow", "matplotlib", "simexm.legacy2017"]
"""To import, and of no use to a plan."""

WIDEFIELD = {
    "stage": "widefield",
    "numerical_aperture": 0.8,
    "pixel_size_nm": 162.5,
    "plane_spacing_nm": 500,
    "channels": [
        {"name": "green", "laser_wavelength_nm": 488, "band_nm": [500, 550], "irradiance_W_per_cm2": 5},
    ],
}
PIPELINES = sorted((Path(__file__).resolve().parents[1] / "pipelines").glob("*.yaml"))


def type_in(*words: object) -> Result:
    """Run the command line in this process."""
    return CliRunner().invoke(app, [str(w) for w in words])


def imported(words: list[str], modules: list[str], folder: Path | None = None) -> list[str]:
    """Which of the modules a command has imported when it is done."""
    program = (
        f"import sys; from simexm.cli import app\ntry: app({words!r})\nexcept SystemExit as end: assert not end.code\n"
        f"print([m for m in {modules!r} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=folder)
    return list(ast.literal_eval(done.stderr.splitlines()[-1]))


@pytest.fixture
def template(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of `simexm new > my.yaml`, in the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.yaml").write_text(type_in("new").stdout)
    return tmp_path / "my.yaml"


@pytest.fixture
def little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A spec on a little phantom, in the working directory."""
    monkeypatch.chdir(tmp_path)
    phantom = {"kind": "phantom", "shape": [24, 32, 32], "voxel_size_nm": [40, 32, 32]}
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(spec() | {"source": phantom}))
    return tmp_path / "my.yaml"


def test_help_and_version_load_nothing_heavy() -> None:
    for words in (["--help"], ["--version"], ["run", "--help"]):
        assert imported(words, HEAVY) == []
    assert type_in("--version").stdout == f"simexm {__version__}\n"


@pytest.mark.parametrize("optics", [confocal(), WIDEFIELD], ids=lambda o: o["stage"])
def test_a_plan_loads_nothing_that_only_a_run_needs(optics: dict[str, Any], tmp_path: Path) -> None:
    zarr.create_array(str(tmp_path / "labels.zarr"), data=np.ones((32, 32, 32), np.uint32))
    source = {"path": "labels.zarr", "voxel_size_nm": [40, 32, 32]}
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(spec(optics=optics) | {"source": source}))
    assert imported(["plan", "my.yaml"], SLOW, tmp_path) == []


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(command: str) -> None:
    result = type_in(command, "--help")
    assert result.exit_code == 0
    assert f"Example: simexm {command}" in result.stdout
    assert "\x1b" not in result.stdout


def test_no_words_and_wrong_words() -> None:
    assert "Simulate" in type_in().output
    for words, hint in (
        (["rnu"], "Did you mean 'run'"),
        (["plan"], "Missing argument"),
        (["plan", "a", "--tile", 1], "3 arguments"),
    ):
        result = type_in(*words)
        assert result.exit_code == 2
        assert hint in result.stderr
        assert not result.stdout


def test_the_template_is_a_good_spec(template: Path) -> None:
    """The schema is one, and knows the template; the template is planned without a warning."""
    schema = json.loads(type_in("schema").stdout)
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    data = yaml.safe_load(template.read_text())
    validator.validate(data)
    assert not validator.is_valid(data | {"sead": 1})
    assert not validator.is_valid(data | {"source": {"kind": "phantom"}})
    assert validator.is_valid(data | {"source": "cortex.zarr"})
    for pipeline in PIPELINES:
        validator.validate(yaml.safe_load(pipeline.read_text()))
    result = type_in("plan", "my.yaml")
    assert result.exit_code == 0
    assert result.stderr == ""
    assert "my-simulation" in result.stdout
    assert "\x1b" not in result.stdout


def test_plan_as_json_is_the_plan(little: Path) -> None:
    result = type_in("plan", "my.yaml", "--json", "--until", "labelling")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == json.loads(
        json.dumps(Simulation.load(little).plan(until="labelling").to_mapping())
    )
    assert [p.name for p in little.parent.iterdir()] == ["my.yaml"]


@pytest.mark.parametrize(
    ("device", "told"),
    [
        ("cpu", ""),
        ("auto", ""),
        ("gpu", "warning: execution.device is gpu, but there is no CUDA device: the run computes on the CPU"),
        ("tpu", "error: --device tpu: Input should be 'auto', 'cpu' or 'gpu'"),
    ],
)
def test_the_device_is_printed(device: str, told: str, little: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cupy_device, "missing", lambda: "there is no CUDA device")
    done = type_in("plan", "my.yaml", "--device", device)
    assert done.exit_code == (2 if device == "tpu" else 0)
    assert any(line.startswith(told) for line in done.stderr.splitlines()) or not told
    assert ("device" in done.stdout and "CPU" in done.stdout) == (device != "tpu")
    assert ("CUDA" in done.stderr) == (device == "gpu")


def test_a_preview_is_a_png(little: Path) -> None:
    result = type_in("preview", "my.yaml", "-o", "seen.txt")
    assert result.exit_code == 2
    assert "type --output seen.png" in result.stderr


def test_preview_draws_a_picture(little: Path) -> None:
    result = type_in("preview", "my.yaml", "-o", "seen.png")
    assert result.exit_code == 0, result.output
    assert (little.parent / "seen.png").read_bytes().startswith(b"\x89PNG")
    assert result.stdout.startswith("seen.png: pixels")


def test_run_and_info(little: Path) -> None:
    result = type_in("run", "my.yaml")
    assert result.exit_code == 0, result.output
    assert "my.zarr: 1 x" in result.stdout
    assert "picture: my.run/preview.png" in result.stdout
    found = Simulated.open("my.zarr")
    shown = type_in("info", "my.zarr").stdout
    for word in ("green", "cells, membrane", found.provenance["hash"], f"simexm {__version__}"):
        assert word in shown
    assert json.loads(type_in("info", "my.zarr", "--json").stdout) == found.attributes


@pytest.mark.parametrize("name", ["nowhere.zarr", "my.toml", ".", "other.zarr"])
def test_info_of_what_is_no_result(name: str, little: Path) -> None:
    (little.parent / "other.zarr").mkdir()
    (little.parent / "other.zarr" / "zarr.json").write_text('{"attributes": [1')
    result = type_in("info", name)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {name} ")
    assert "simexm run SPEC --output NAME.zarr" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_info_of_a_damaged_result(little: Path) -> None:
    """A result whose image was deleted by hand."""
    root: dict[str, Any] = {"simexm": {"hash": "0", "status": "complete", "pixel_size_expanded_um": [1, 1, 1]}}
    (little.parent / "bad.zarr").mkdir()
    (little.parent / "bad.zarr" / "zarr.json").write_text(
        json.dumps({"attributes": root, "zarr_format": 3, "node_type": "group"})
    )
    result = type_in("info", "bad.zarr")
    assert result.exit_code == 2
    assert "holds no array 0" in result.stderr
    assert "Traceback" not in result.output


def test_our_warnings_are_one_line_and_others_none(little: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those of the spec's validation; colours only on a terminal."""
    data = yaml.safe_load(little.read_text())
    next(s for s in data["stages"] if s["stage"] == "confocal")["refractive_index"] = 1.5
    little.write_text(yaml.safe_dump(data))
    real = Simulation.plan

    def plan(self: Simulation, **how: Any) -> Any:
        warnings.warn("deep inside a library", DeprecationWarning, stacklevel=1)
        return real(self, **how)

    monkeypatch.setattr(Simulation, "plan", plan)
    result = type_in("plan", "my.yaml", "--json")
    assert result.exit_code == 0
    told = result.stderr.splitlines()
    assert told
    assert all(line.startswith("warning: ") for line in told)
    assert "refractive_index 1.5 is far from water's" in told[0]
    assert "library" not in result.output
    assert "\x1b" not in result.stderr
    assert "\x1b[33mwarning: " in CliRunner().invoke(app, ["plan", "my.yaml"], color=True).stderr
    with pytest.warns(SimexmWarning):
        Simulation.load(little)


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (MemoryError(), 1, "lower execution.memory_GiB"),
        (PermissionError(13, "Permission denied", "thing"), 1, "thing: Permission denied"),
        (ZeroDivisionError("division by zero"), 1, "ZeroDivisionError: division by zero (in test_cli.py, line"),
    ],
)
def test_whatever_happens_there_is_no_traceback(
    error: BaseException, code: int, words: str, little: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def plan(self: Simulation, **_: Any) -> Any:
        raise error

    monkeypatch.setattr(Simulation, "plan", plan)
    result = type_in("plan", "my.yaml")
    assert result.exit_code == code
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not result.stdout
