"""`--profile`: where the blocks' time went, added up from all workers."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from simexm.api import Simulation
from simexm.cli import app
from simexm.jobs.journal import Journal
from simexm.result.result import Result
from simexm.run.profile import REST, UNTIMED, Row, profile
from tests.run.conftest import fingerprint, spec

pytestmark = [
    pytest.mark.filterwarnings("ignore::simexm.errors.SimexmWarning"),
    pytest.mark.filterwarnings("ignore:.*:ResourceWarning"),
]


@pytest.fixture(scope="module")
def plain(stored: Path, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """A run without a profile."""
    return small(stored).run(tmp_path_factory.mktemp("plain") / "small.zarr", quiet=True)


@pytest.fixture(
    scope="module", params=[pytest.param(None, id="threads"), pytest.param(2, id="processes", marks=pytest.mark.slow)]
)
def timed(request: pytest.FixtureRequest, stored: Path, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """The same with one, in threads and on a cluster."""
    folder = tmp_path_factory.mktemp("timed")
    return small(stored).run(folder / "small.zarr", workers=request.param, quiet=True, profile=True)


def small(stored: Path) -> Simulation:
    return Simulation.from_mapping(spec(stored, keep=["expected", "labelled", "emitters"], execution={"min_blocks": 4}))


def bytes_below(folders: Iterable[Path]) -> int:
    return sum(p.stat().st_size for folder in folders for p in folder.rglob("*") if p.is_file())


def by_name(result: Result) -> dict[str, Row]:
    return {row.name: row for row in profile(result)}


def test_it_changes_no_byte(plain: Result, timed: Result) -> None:
    assert fingerprint(plain.place.zarr) == fingerprint(timed.place.zarr)
    assert fingerprint(plain.place.tables) == fingerprint(timed.place.tables)


def test_every_kind_of_work_has_its_row(timed: Result) -> None:
    rows = by_name(timed)
    assert {
        "labels: read and decode", "cells: index", "cells: count voxels", "regions", "emission: membrane", "emission: cytosol",
        "imaging: deposit", "imaging: forward transforms", "imaging: sum over planes", "imaging: inverse transforms",
        "confocal", "camera", "truth", "labelled: count dyes", "pyramid", "write images", "write labels", "tables",
    } <= rows.keys()  # fmt: skip
    assert UNTIMED not in rows
    assert all(row.seconds >= 0 for row in rows.values())


def test_the_rows_add_up_to_the_blocks_core_seconds(timed: Result) -> None:
    rows = by_name(timed)
    whole = sum(r.seconds for r in Journal(timed.place.journal, timed.provenance["hash"]).records())
    blocks = sum(row.seconds for row in rows.values() if row.name != "coarse levels")
    assert blocks == pytest.approx(whole, rel=1e-3)
    assert 0 <= rows[REST].seconds < 0.1 * whole


def test_bytes_are_those_of_the_files(timed: Result) -> None:
    rows, zarr = by_name(timed), timed.place.zarr
    levels = sum(s.owned for s in small(Path(timed.provenance["spec"]["source"]["path"])).plan().volumes.storage)
    images = (zarr / kind / str(n) / "c" for kind in (".", "expected", "labelled") for n in range(levels))
    labels = (group / str(n) / "c" for group in (zarr / "labels").iterdir() for n in range(levels) if group.is_dir())
    assert rows["write images"].written == bytes_below(images)
    assert rows["write labels"].written == bytes_below(labels)
    assert rows["tables"].written > bytes_below([timed.place.tables / "emitters"]) > 0


def test_bytes_read_are_those_of_the_shards(stored: Path, tmp_path: Path) -> None:
    """A fresh worker decodes the labels' only shard once and keeps it."""
    result = Simulation.from_mapping(spec(stored, execution={"min_blocks": 4})).run(
        tmp_path / "small.zarr", workers=1, quiet=True, profile=True
    )
    assert by_name(result)["labels: read and decode"].read == bytes_below([stored / "0" / "c"])


def test_a_result_without_says_so(plain: Result) -> None:
    rows = by_name(plain)
    assert set(rows) - {"coarse levels"} == {UNTIMED}
    assert rows[UNTIMED].seconds > 0


def test_the_command_prints_it(stored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my.yaml").write_text(yaml.safe_dump(spec(stored)))
    told = CliRunner().invoke(app, ["run", "my.yaml", "--quiet", "--profile"])
    assert told.exit_code == 0, told.output
    shares = [float(w[:-1]) for line in told.stdout.splitlines() for w in line.split() if w.endswith("%")]
    assert sum(shares[:-1]) == pytest.approx(shares[-1], abs=2)
    assert shares[-1] == 100
    assert "imaging: deposit" in told.stdout
