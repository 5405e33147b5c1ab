"""Sweeps: points, replicates, scores in one table, resume, failures of points, and what is refused before any work."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import distributed
import numpy as np
import pytest

from simexm.api import Simulation
from simexm.errors import OutputError, SimexmWarning, SpecError
from simexm.jobs.local_cluster import local_client
from simexm.result.result import Result
from simexm.sweep.points import points_of
from simexm.sweep.run import POINTS
from simexm.sweep.settings import Sweep
from simexm.view.report.page import write_report
from tests.build import layer, spec

pytestmark = pytest.mark.filterwarnings("ignore::simexm.errors.SimexmWarning")

PROGRAM = """
import json, sys
from pathlib import Path
image, out, limit = sys.argv[1:]
if Path(limit).exists() and Path(limit).read_text() in Path(image).with_suffix(".yaml").read_text():
    sys.exit("cannot read this one")
Path(out).write_text(json.dumps({"planes": json.loads((Path(image) / "0" / "zarr.json").read_text())["shape"][1]}))
"""
AXES: dict[str, Any] = {
    "expansion.factor": [2, 3],
    "labelling.layers.membrane.density_per_um2": {"first": 50, "last": 200, "count": 2},
}


def small(**changes: Any) -> Simulation:
    phantom = {"kind": "phantom", "shape": [12, 40, 40], "voxel_size_nm": [40, 32, 32], "seed": 1}
    return Simulation.from_mapping(spec(layer(), source=phantom, **changes))


@pytest.fixture(scope="module")
def client() -> Iterator[distributed.Client]:
    with local_client(1, dashboard=False) as found:
        yield found


@pytest.fixture
def measure(tmp_path: Path) -> dict[str, Any]:
    """True labels on the grid as objects, scored; and a program that writes its own scores, and fails for what a file names."""
    (tmp_path / "program.py").write_text(PROGRAM)
    return {
        "objects": {"analysis": "objects", "inputs": ["{image}/labels/cells"], "score": "segmentation"},
        "mine": {"command": f"{sys.executable} {tmp_path / 'program.py'} {{image}} {{scores}} {tmp_path / 'fails'}"},
    }


def test_points_are_all_combinations_and_replicates() -> None:
    sweep = Sweep.from_mapping({"axes": AXES, "replicates": {"specimens": 2, "noise": 2}})
    points = points_of(small(seed=5), sweep)
    assert [p.number for p in points] == [n for n in range(4) for _ in range(4)]
    assert [p.values["expansion.factor"] for p in points[::4]] == [2, 2, 3, 3]
    assert [p.values["labelling.layers.membrane.density_per_um2"] for p in points[::4]] == [50, 200, 50, 200]
    assert [(p.spec.source.seed, p.spec.seed) for p in points[:4]] == [(1, 5), (1, 6), (2, 5), (2, 6)]  # type: ignore[union-attr]
    assert len({p.hash for p in points}) == 16
    assert float(points[-1].spec.transform().scale) == 3


def test_zipped_axes_vary_together_and_a_hypercube_has_each_stratum_once() -> None:
    both = Sweep.from_mapping(
        {"axes": {"seed": [1, 2, 3], "expansion.factor": [2, 3, 4]}, "zipped": [["seed", "expansion.factor"]]}
    )
    assert [tuple(p.values()) for p in both.combinations()] == [(1, 2), (2, 3), (3, 4)]
    cube = Sweep.from_mapping(
        {
            "axes": {
                "a": {"first": 1, "last": 100, "count": 2, "scale": "log"},
                "b": {"first": 0, "last": 1, "count": 2},
            },
            "hypercube": 8,
        }
    )
    points = cube.combinations()
    assert points == cube.combinations()
    for values in (np.log10([p["a"] for p in points]) / 2, np.array([p["b"] for p in points])):
        assert sorted((values * 8).astype(int)) == list(range(8))


def test_equal_points_are_simulated_once() -> None:
    points = points_of(small(), Sweep.from_mapping({"axes": {"seed": [3, 3]}}))
    assert len(points) == 2
    assert points[0].hash == points[1].hash
    assert points[0].plan is points[1].plan


def test_a_sweep_is_one_table_and_goes_on_where_it_stopped(
    client: distributed.Client, measure: dict[str, Any], tmp_path: Path
) -> None:
    settings = {"axes": AXES, "measure": measure, "keep": "scores"}
    (tmp_path / "fails").write_text("factor: 3")
    out = tmp_path / "out.zarr"
    with pytest.warns(SimexmWarning, match="cannot read this one"):
        first = small().sweep(settings, out, client=client, quiet=True)
    assert not first.complete
    why = first.table(POINTS)["failure"].to_pylist()
    assert [bool(text) for text in why] == [False, False, True, True]
    assert {*first.scores()["expansion.factor"].to_pylist()} == {2.0}
    done = {path: path.stat().st_mtime_ns for path in (out.with_suffix(".run") / POINTS).glob("*.json")}

    (tmp_path / "fails").unlink()
    second = small().sweep(settings, out, client=client, quiet=True)
    assert second.complete
    assert all(path.stat().st_mtime_ns == time for path, time in done.items())
    left = {path.suffix for path in (out.with_suffix(".run") / POINTS).iterdir()}
    assert left == {".json", ".yaml"}

    whole = small().sweep(settings, tmp_path / "whole.zarr", client=client, quiet=True)
    for name in ("scores.parquet", f"tables/{POINTS}.parquet"):
        assert (out.with_suffix(".run") / name).read_bytes() == (tmp_path / "whole.run" / name).read_bytes()

    rows = whole.scores().to_pylist()
    planes = {row["expansion.factor"]: row["value"] for row in rows if row["score"] == "planes"}
    assert planes[3.0] > planes[2.0]
    assert {row["kind"] for row in rows} == {"objects", "mine"}
    bytes_of = whole.table(POINTS)["bytes"].to_pylist()
    assert bytes_of[2] > bytes_of[0]
    page = tmp_path / "report.html"
    write_report(whole, page)
    text = page.read_text()
    assert text.count("<svg") >= 2
    assert "density_per_um2 200" in text
    with pytest.raises(OutputError, match="complete"):
        small().sweep(settings, out, client=client, quiet=True)


def test_kept_points_are_results_of_a_run(client: distributed.Client, tmp_path: Path) -> None:
    """A point's bytes are those of its spec run by itself."""
    swept = small().sweep({"axes": {"seed": [4]}}, tmp_path / "out.zarr", client=client, quiet=True)
    folder = Path(str(swept.place.run)) / POINTS
    (name,) = (path.stem for path in folder.glob("*.yaml"))
    alone = Simulation.load(folder / f"{name}.yaml").run(tmp_path / "alone.zarr", client=client, quiet=True)
    kept = Result.open(folder / f"{name}.zarr")
    assert kept.provenance["hash"] == alone.provenance["hash"] == name
    assert np.array_equal(kept.array()[:], alone.array()[:])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"axes": {"expansion.factr": [2]}}, "did you mean 'factor'"),
        ({"axes": {"expansio.factor": [2]}}, "did you mean 'expansion'"),
        ({"axes": {"labelling.layers.membrne.density_per_um2": [2]}}, "did you mean 'membrane'"),
        ({"axes": {"expansion.factor": [2, -1, -2]}}, "2 points are wrong"),
        ({"axes": {"seed": [1]}, "zipped": [["sed"]]}, "none of the axes"),
        ({"axes": {"seed": [1, 2], "name": ["a"]}, "zipped": [["seed", "name"]]}, "equally many"),
        ({"axes": {"seed": [1]}, "measure": {"a": {}}}, "either an analysis or a command"),
        ({"axes": {"seed": [1]}, "measure": {"a": {"analysis": "objcts"}}}, "objcts"),
        ({"axes": {"seed": [1]}, "measure": {"a": {"command": "x {imge}"}}}, "imge"),
        ({"axes": {"seed": {"first": 0, "last": 1, "count": 3, "scale": "log"}}}, "above 0"),
        ({"axes": {"seed": [1]}, "replicates": {"crops": [[0, 0, 0]]}}, "crop.shape"),
    ],
)
def test_what_is_wrong_is_told_before_any_work(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=message):
        small().sweep(settings, tmp_path / "out.zarr")
    assert not list(tmp_path.iterdir())


def test_one_volume_is_one_specimen(tmp_path: Path) -> None:
    stored = Simulation.from_mapping({**small().to_mapping(), "source": str(tmp_path / "cells.zarr")})
    with pytest.raises(SpecError, match=r"replicates\.crops"):
        points_of(stored, Sweep.from_mapping({"axes": {"seed": [1]}, "replicates": {"specimens": 3}}))


def test_the_settings_to_edit_are_valid() -> None:
    from simexm import templates
    from simexm.settings import parse

    sweep = Sweep.from_mapping(parse(templates.sweep_text(), "sweep.yaml", "settings file"))
    assert len(sweep.combinations()) == 9
    assert json.loads(sweep.model_dump_json())["keep"] == "scores"
