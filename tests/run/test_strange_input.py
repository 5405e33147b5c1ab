"""Values that no one means to give: each is refused in one message, and none is told as a fault of simexm."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from simexm import Result, Simulation, cluster, ingest, simulate
from simexm.cli import app
from simexm.errors import OutputError, SimexmError, SourceError, SpecError
from simexm.result.place import Place
from simexm.run import folders, guard
from simexm.run.worker import Context, run_block
from simexm.sources.base import open_source
from tests.run.conftest import VOXEL_NM, spec

pytestmark = pytest.mark.filterwarnings("ignore::simexm.errors.SimexmWarning")  # of light left out in so small a volume
PHANTOM = {"kind": "phantom", "shape": [24, 32, 32]}
LAYER = {"name": "n", "dye": "ATTO488", "density_per_um2": 1}


@pytest.fixture
def simulation() -> Simulation:
    return Simulation.from_mapping(spec("-") | {"source": PHANTOM})


@pytest.fixture
def ids() -> np.ndarray[Any, np.dtype[np.uint32]]:
    found = np.zeros((16, 24, 24), np.uint32)
    found[4:12, 4:20, 4:20] = 1
    return found


def typed(*words: str) -> tuple[int, str]:
    """Exit code and message of a command."""
    result = CliRunner().invoke(app, list(words))
    return result.exit_code, result.stderr


# -------------------------------------------------------------------- specs as text


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("name: " + "[" * 2000 + "]" * 2000, ("nest", "line 1")),
        ("- " * 3000, ("nest",)),
        ("seed: " + "9" * 5000, ("9999...", "(5000 characters)", "line 1")),
        ("seed: 0x" + "f" * 9000, ("0xfff",)),
        ("name: 2024-02-30", ("2024-02-30", "quotes")),
        ("name: !!timestamp x", ("cannot be read as a value",)),
    ],
)
def test_yaml_that_python_cannot_take(line: str, words: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(f"{line}\n")
    code, told = typed("plan", str(tmp_path / "a.yaml"))
    assert code == 2
    assert "fault" not in told
    assert all(word in told for word in words), told[:500]


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in (str(tmp_path / "pipe"), "/dev/zero", "/dev/null", str(tmp_path), f"{tmp_path}/a\0b", "x" * 300):
        for command in ("plan", "convert", "info"):
            words = [command, name, *(["-o", "b.yaml"] if command == "convert" else [])]
            code, told = typed(*words)
            assert (code, "fault" in told) == (2, False), (words, told)
    with pytest.raises(SourceError, match="pipe"):
        open_source(str(tmp_path / "pipe"))


def layers(data: dict[str, Any]) -> dict[str, Any]:
    data["stages"][1]["layers"] = [LAYER | {"name": f"n{i}"} for i in range(10_000)]
    return data


def pixels(data: dict[str, Any]) -> dict[str, Any]:
    data["stages"][3]["pixel_size_nm"] = 1e-6
    return data


def huge(data: dict[str, Any]) -> dict[str, Any]:
    data["stages"][3] |= {"pixel_size_nm": 1, "plane_spacing_nm": 40}
    return data | {"source": PHANTOM | {"shape": [10**6] * 3}}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (layers, ("stages[1].layers has 10000 entries", "500")),
        (pixels, ("pixel_size_nm", "greater than or equal to 1")),
        (lambda d: d | {"source": PHANTOM | {"voxel_size_nm": [1e-9, 1, 1]}}, ("voxel_size_nm", "atom")),
        (lambda d: d | {"source": PHANTOM | {"voxel_size_nm": [1e12, 1, 1]}}, ("voxel_size_nm", "most often a unit")),
        (huge, ("4000000 x 128000000 x 128000000 pixels", "crop")),
        (lambda d: d | {"source": {"path": "a.zarr", "regions": {"../x": "b.zarr"}}}, ("'../x'", "letters, digits")),
    ],
)
def test_what_is_absurd_is_refused_at_once(
    change: Callable[[dict[str, Any]], dict[str, Any]], words: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "a.yaml").write_text(json.dumps(change(spec("-") | {"source": PHANTOM})))
    begin = time.process_time()
    code, told = typed("plan", str(tmp_path / "a.yaml"))
    assert time.process_time() - begin < 8  # on a slow machine; it took 45 and more
    assert code == 2
    assert all(word in told for word in words), told


def test_a_wide_halo_is_made_plane_by_plane_and_what_it_needs_is_told() -> None:
    data = spec("-") | {"source": {"kind": "phantom", "shape": [24, 48, 48]}}
    data["stages"][1]["layers"] = [LAYER]
    data["stages"][3] = {
        "stage": "widefield", "numerical_aperture": 1.15, "pixel_size_nm": 10, "plane_spacing_nm": 500,
        "channels": [
            {"name": "green", "laser_wavelength_nm": 488, "band_nm": [500, 560], "irradiance_W_per_cm2": 10}
        ],
    }  # fmt: skip
    data["execution"] = {"memory_GiB": 1.2, "device": "cpu"}
    plan = Simulation.from_mapping(data).plan()
    assert plan.tile[0] <= 2 < plan.block[0]
    assert min(plan.tile[1:]) >= 64
    assert plan.memory.steady <= 1.2 * 2**30
    data["execution"]["memory_GiB"] = 0.9
    with pytest.raises(SpecError, match="raise memory_GiB to ") as told:
        Simulation.from_mapping(data).plan()
    data["execution"]["memory_GiB"] = float(str(told.value).rpartition(" ")[2])
    assert Simulation.from_mapping(data).plan().tile[0] <= 2


# -------------------------------------------------------------------- Python functions


@pytest.mark.parametrize(
    "size", [(40, 32), (40, 32, 32, 1), 40, "40", b"403", (), (0, 32, 32), (np.nan, 1, 1), (1e-9, 1, 1), (1e12, 1, 1),
             ("a", "b", "c"), (True, True, True), np.zeros((3, 2)), {1: 1, 2: 2, 3: 3}, (10**400, 1, 1), object()],
)  # fmt: skip
def test_voxel_sizes_that_are_none(size: Any, ids: Any, simulation: Simulation, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="voxel_size_nm"):
        simulate(ids, simulation, voxel_size_nm=size)
    with pytest.raises(SpecError, match="voxel_size_nm"):
        ingest("-", tmp_path / "a.zarr", size)


def test_sizes_of_numpy_are_sizes(ids: Any, simulation: Simulation) -> None:
    one = simulate(ids.astype(">u4")[::-1], simulation, voxel_size_nm=tuple(np.array(VOXEL_NM, np.float32)))
    other = simulate(ids[::-1].copy(), simulation, voxel_size_nm=VOXEL_NM)
    assert np.array_equal(one.image, other.image)


@pytest.mark.parametrize(
    ("regions", "words"),
    [
        ({1: 0}, "text"),
        ({"../x": 0}, "'../x'"),
        ({"a\0": 0}, "letters"),
        ({"a": "mask"}, "'a' holds"),
        ({"a": object()}, "'a' holds"),
        ({"a": 1}, "shape"),
        ({"a": None}, "'a' holds"),
        (3, "mapping"),
        (["a"], "mapping"),
    ],
)
def test_regions_that_are_none(regions: Any, words: str, ids: Any, simulation: Simulation) -> None:
    with pytest.raises(SourceError, match=words):
        simulate(ids, simulation, regions=regions)


def test_the_mask_of_a_masked_array_is_not_dropped(ids: Any, simulation: Simulation) -> None:
    with pytest.raises(SourceError, match=r"labels\.filled\(0\)"):
        simulate(np.ma.masked_equal(ids, 7), simulation)
    with pytest.raises(SourceError, match=r"'a' are a masked array"):
        simulate(ids, simulation, regions={"a": np.ma.masked_equal(ids, 0)})
    with pytest.raises(SourceError, match=r"holds float64"):
        simulate(ids, simulation, regions={"a": np.where(ids == 1, np.nan, 0)})


PATHS = ["", "a\0b", "\ud800", "x" * 5000, "~nobody-of-this-name/a", None, 3, b"bytes", ["a"], True, "http://", "loop"]


@pytest.mark.parametrize("path", PATHS, ids=[repr(p)[:20] for p in PATHS])
def test_paths_that_are_none(
    path: Any, simulation: Simulation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("loop").symlink_to("loop")
    tasks: list[Callable[[Any], Any]] = [
        Simulation.load, Result.open, cluster, open_source, lambda p: simulation.run(p, quiet=True), simulation.save,
        lambda p: ingest(p, "a.zarr"), lambda p: simulation.replace(source=p),
    ]  # fmt: skip
    for n, task in enumerate(tasks):
        if n == len(tasks) - 1 and path in ("x" * 5000, "http://", "loop"):
            continue  # a spec may name a source that is not there yet
        if n == 5 and path == "http://":
            continue  # a folder of this name may be
        with pytest.raises(SimexmError):
            task(path)
    assert os.listdir() == ["loop"]


NUMBERS = [
    "",
    "a",
    -1,
    1.5,
    float("nan"),
    10**30,
    [1],
    object(),
    (1, 2),
    (-1, -1, -1),
    ("a", "b", "c"),
    np.array([1, 2]),
]


@pytest.mark.parametrize("value", NUMBERS, ids=[repr(v)[:20] for v in NUMBERS])
def test_numbers_that_are_none(value: Any, simulation: Simulation, tmp_path: Path) -> None:
    tasks: list[Callable[[Any], Any]] = [
        simulation.with_tile, lambda v: simulation.preview(at=v), lambda v: simulation.preview(shape=v),
        lambda v: simulation.plan(until=v), lambda v: simulation.run(tmp_path / "a.zarr", workers=v, quiet=True),
        lambda v: simulation.run(tmp_path / "a.zarr", client=v), lambda v: simulation.run(tmp_path / "a.zarr", cluster=v),
        lambda v: simulation.replace(crop=v), lambda v: simulation.replace(stages=v), Simulation.from_mapping,
        lambda v: ingest("-", tmp_path / "a.zarr", roi=v),
        lambda v: ingest("-", tmp_path / "a.zarr", workers=v), lambda v: ingest("-", tmp_path / "a.zarr", cells=v),
        lambda v: ingest("-", tmp_path / "a.zarr", regions=v),
    ]  # fmt: skip
    for task in tasks:
        with pytest.raises(SimexmError):
            task(value)
    assert not list(tmp_path.iterdir())


# -------------------------------------------------------------------- the output


@pytest.mark.parametrize("moved", ["out.zarr", "out.run"])
def test_an_output_that_is_renamed_meanwhile_is_said_to_be(moved: str, simulation: Simulation, tmp_path: Path) -> None:
    plan, where = simulation.plan(), Place.at(tmp_path / "out.zarr").claimed()
    folders.prepare(plan, where)
    shutil.move(tmp_path / moved, tmp_path / "elsewhere")
    with pytest.raises(OSError) as caught:
        run_block(Context(plan, where), 0)
    told = guard.stopped(caught.value, where)
    assert "renamed or removed" in str(told)
    assert "another run" not in str(told)
    if moved == "out.zarr":
        assert isinstance(caught.value, OutputError)
