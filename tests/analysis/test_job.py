"""Analyses as jobs: workers, resume, journal, tables and scores; those of other packages without a change of simexm."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from simexm.analysis import installed
from simexm.analysis.contract import Analysis
from simexm.cli import app
from simexm.errors import OutputError, RunError, SpecError
from simexm.result.result import Result
from simexm.run.status import status
from tests.build import confocal, forget_packages, layer, simulation

COUNTER = '''
from typing import ClassVar, Literal
import numpy as np
import pyarrow as pa
from simexm.analysis.contract import Analysis, Bench, Conclusion, Score
from simexm.geometry.grid import Box, Tiling
from simexm.jobs.sums_by_id import CellSums, add_up
from simexm.result.result import elements


class Volumes(Analysis):
    """Count the pixels of each cell in the truth, block by block.

    Attributes
    ----------
    side
        Pixels of a block along each axis.
    stumble
        File without which a block fails; "" for none.
    """

    analysis: Literal["volumes"] = "volumes"
    side: int = 8
    stumble: str = ""

    def open(self, inputs):
        return OfResult(self, inputs[0])


class OfResult(Bench):
    def __init__(self, settings, result):
        self.settings = settings
        self.array = result.array(of="labels/cells")
        self.tiling = Tiling(Box.of_shape(self.array.shape), (settings.side,) * 3)
        self.inputs = {"result": result.provenance["hash"]}
        self.blocks, self.voxels = len(self.tiling), self.array.size
        self.core_seconds, self.block_bytes = 1e-8 * self.array.size, 64 * settings.side**3
        self.columns = {"pixels": ("pixels",)}

    def measure(self, number):
        import os
        if self.settings.stumble and number == 1 and not os.path.exists(self.settings.stumble):
            raise ValueError("stumbled")
        ids, pixels = np.unique(elements(self.array, self.tiling[number].slices), return_counts=True)
        cells = ids != 0
        return {"pixels": CellSums(ids[cells].astype(np.uint64), {"pixels": pixels[cells]})}

    def conclude(self, sums):
        found = add_up([CellSums.none(["pixels"]), *sums["pixels"]])
        table = pa.table({"id": found.ids, "pixels": found.columns["pixels"], "what": ["cell"] * found.ids.size})
        return Conclusion({"volumes": table}, (Score("cells", float(found.ids.size), "cells", "cells in the image"),))
'''


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """A finished run."""
    small = {"kind": "phantom", "shape": [24, 32, 32], "voxel_size_nm": [40, 32, 32]}
    return simulation(layer(), optics=confocal(axial_range_um=4.0), source=small).run(
        tmp_path_factory.mktemp("run") / "made.zarr", quiet=True
    )


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[type[Analysis]]:
    """The analysis of a package that is installed for these tests."""
    site = tmp_path_factory.mktemp("site")
    about = site / "counter-1.2.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: counter\nVersion: 1.2\n")
    (about / "entry_points.txt").write_text("[simexm.analyses]\nvolumes = counter:Volumes\n")
    (site / "counter.py").write_text(COUNTER)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(site)
        forget_packages()
        yield installed.load("volumes")
    forget_packages()
    sys.modules.pop("counter", None)


def true_volumes(result: Result) -> dict[int, int]:
    """Pixels of each cell, counted at once."""
    ids, pixels = np.unique(np.asarray(result.array(of="labels/cells")[:]), return_counts=True)
    return {int(i): int(n) for i, n in zip(ids, pixels, strict=True) if i}


def test_an_installed_analysis_finds_the_same_in_blocks_of_any_size(
    result: Result, volumes: type[Analysis], tmp_path: Path
) -> None:
    wanted = true_volumes(result)
    for side in (8, 64):
        found = volumes.model_validate({"side": side}).run(result, output=tmp_path / f"{side}.zarr", quiet=True)
        table = found.table("volumes")
        assert dict(zip(table["id"].to_pylist(), table["pixels"].to_pylist(), strict=True)) == wanted
        assert found.scores()["value"].to_pylist() == [len(wanted)]
        assert found.provenance["versions"]["counter"].startswith("1.2+")
        assert found.kind == "volumes"
        assert status(found.path).complete
        assert status(found.path).done == status(found.path).blocks > (side == 8)


def test_workers_and_threads_find_the_same(
    result: Result, volumes: type[Analysis], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(sys.modules[volumes.__module__].__file__ or "").parent))
    threads = volumes().run(result, output=tmp_path / "threads.zarr", quiet=True)
    workers = volumes().run(result, output=tmp_path / "workers.zarr", workers=1, quiet=True)
    assert workers.table("volumes").equals(threads.table("volumes"))
    assert workers.provenance == threads.provenance


def test_what_failed_is_done_by_the_same_command_again(result: Result, volumes: type[Analysis], tmp_path: Path) -> None:
    out, repaired = tmp_path / "out.zarr", tmp_path / "repaired"
    analysis = volumes.model_validate({"stumble": str(repaired)})
    with pytest.raises(RunError, match=r"1 of .* blocks failed.*stumbled"):
        analysis.run(result, output=out, quiet=True)
    before = status(out)
    assert (before.done, before.failed, before.complete) == (before.blocks - 1, 1, False)
    assert "incomplete" in CliRunner().invoke(app, ["info", str(out)]).output
    repaired.touch()
    again = analysis.run(result, output=out, quiet=True)
    assert again.table("volumes").equals(volumes().run(result, output=tmp_path / "b.zarr", quiet=True).table("volumes"))
    with pytest.raises(OutputError, match="complete"):
        analysis.run(result, output=out, quiet=True)
    with pytest.raises(OutputError, match="other parameters"):
        volumes().run(result, output=out, quiet=True)


def test_a_changed_table_is_damage(result: Result, volumes: type[Analysis], tmp_path: Path) -> None:
    found = volumes().run(result, output=tmp_path / "out.zarr", quiet=True)
    assert CliRunner().invoke(app, ["verify", str(found.path)]).exit_code == 0
    table = Path(str(found.place.tables)) / "volumes.parquet"
    table.write_bytes(table.read_bytes()[:-1] + b"x")
    done = CliRunner().invoke(app, ["verify", str(found.path)])
    assert done.exit_code == 1
    assert "volumes.parquet" in done.output


def test_an_output_does_not_replace_its_input(result: Result, volumes: type[Analysis]) -> None:
    with pytest.raises(OutputError, match="is read from"):
        volumes().run(result, output=Path(str(result.path)), overwrite=True, quiet=True)


def test_an_installed_analysis_is_a_command(result: Result, volumes: type[Analysis], tmp_path: Path) -> None:
    def typed(*words: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, list(words))
        return done.exit_code, " ".join(done.output.split())

    settings, out = tmp_path / "settings.yaml", str(tmp_path / "out.zarr")
    code, told = typed("volumes", "--help")
    assert code == 0
    assert "Pixels of a block along each axis." in told
    assert typed("new", "volumes", "-o", str(settings))[0] == 0
    assert settings.read_text().splitlines() == [
        "# Count the pixels of each cell in the truth, block by block.", "analysis: volumes",
        "", "# Pixels of a block along each axis.", "side: 8",
        "", '# File without which a block fails; "" for none.', "stumble: ''",
    ]  # fmt: skip
    settings.write_text(settings.read_text().replace("8", "16"))
    code, told = typed("volumes", str(result.path), "-o", out, "--settings", str(settings), "--json", "-q")
    assert code == 0, told
    assert str(len(true_volumes(result))) in told
    assert Result.open(out).provenance["settings"]["side"] == 16
    settings.write_text("sid: 16\n")
    code, told = typed("volumes", str(result.path), "-o", out, "--settings", str(settings), "--overwrite")
    assert code == 2
    assert "did you mean 'side'" in told
    assert typed("no_such_verb")[0] == 2


def test_what_is_no_analysis_is_refused() -> None:
    with pytest.raises(SpecError, match=r"there are .*decode"):
        installed.load("nothing_of_this_name")
