"""What was damaged after a run: `simexm verify` names it, and `--repair` makes only that again, to the byte."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from simexm.api import Simulation
from simexm.cli import app
from simexm.result.result import Result
from tests import rounds_build
from tests.faults.faults import all_bytes, model_of_2017, recorded, simulation
from tests.run.conftest import fingerprint

Spoil = Callable[[Path], None]


def flip(path: Path) -> None:
    """One bit of the file's middle."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def garble(path: Path) -> None:
    path.write_bytes(b"\0" * path.stat().st_size)


def lose_last_line(path: Path) -> None:
    """Of the last segment of a journal."""
    segment = sorted(path.glob("*.jsonl"))[-1]
    segment.write_bytes(b"".join(segment.read_bytes().splitlines(keepends=True)[:-1]) + b'{"block": 3, "ha')


def copied(result: Result, folder: Path) -> Result:
    """A copy to be spoilt, at the same times."""
    for each in (result.place.zarr, result.place.run):
        shutil.copytree(each, folder / each.name)
    return Result.open(folder / result.path.name)


def times(folder: Path) -> dict[Path, int]:
    """When each file was written."""
    return {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


def verify(path: Path, *options: str) -> tuple[int, str, list[str]]:
    """Exit code, output, and the damage told."""
    told = CliRunner().invoke(app, ["verify", str(path), *options])
    assert told.exception is None or isinstance(told.exception, SystemExit), told.exception
    return told.exit_code, told.output, [s for s in told.stderr.splitlines() if s.startswith("damaged: ")]


@pytest.fixture(scope="module")
def whole(reference: Result, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """The undisturbed run, as it came from the cluster."""
    return copied(reference, tmp_path_factory.mktemp("whole"))


def test_a_sound_result_is_sound(whole: Result) -> None:
    before = times(whole.path.parent)
    code, told, damaged = verify(whole.path)
    assert (code, damaged) == (0, [])
    assert "all as they were written" in told
    files = sum(p.is_file() for p in [*whole.path.rglob("*"), *whole.place.tables.rglob("*")])
    assert int(told.split(": ")[1].split(" files")[0]) >= files
    assert verify(whole.path, "--repair", "-q")[0] == 0
    assert times(whole.path.parent) == before


TILING = simulation().plan().blocks
AT = ["/".join(map(str, TILING.position(n))) for n in range(len(TILING))]
"""Where the shards of each block are."""

# what is spoilt, how, and which block is told
BLOCKS: list[tuple[str, Spoil, str]] = [
    (f"small.zarr/0/c/1/{AT[2]}", flip, "block 2: "),
    (f"small.zarr/1/c/0/{AT[9]}", cut, "block 9: "),
    (f"small.zarr/labels/cells/0/c/{AT[7]}", os.unlink, "block 7: "),
    (f"small.zarr/labels/cytosol/1/c/{AT[4]}", garble, "block 4: "),
    ("small.run/tables/cells.parts/block-0000003.parquet", flip, "block 3: "),
    ("small.run/tables/emitters/block-0000011.parquet", cut, "block 11: "),
]
OTHERS: list[tuple[str, Spoil, str]] = [
    ("small.zarr/2/c/1/0/0/0", flip, "level 2, shard 0: "),
    ("small.run/tables/cells.parquet", garble, ""),
    ("small.zarr/1/zarr.json", flip, ""),
    ("small.zarr/labels/cells/0/zarr.json", os.unlink, ""),
    ("small.zarr/labels/zarr.json", garble, ""),
]
SINGLY: list[tuple[str, Spoil, str]] = [
    ("small.zarr/zarr.json", garble, ""),
    ("small.run/plan.json", garble, ""),
    ("small.run/plan.json", os.unlink, ""),
    ("small.run/files.json", garble, ""),
    ("small.run/journal", lose_last_line, ""),
]


def test_damage_is_named_and_only_that_is_made_again(whole: Result, reference: Result, tmp_path: Path) -> None:
    result = copied(whole, tmp_path)
    for name, spoil, _ in (*BLOCKS, *OTHERS):
        spoil(tmp_path / name)
    code, told, damaged = verify(result.path)
    assert code == 1
    assert f"{len(BLOCKS) + len(OTHERS)} are damaged" in told
    assert sorted(s.partition("small.")[0] for s in damaged) == sorted(
        f"damaged: {whose}{tmp_path}/" for _, _, whose in (*BLOCKS, *OTHERS)
    )
    for name, _, whose in (*BLOCKS, *OTHERS):
        assert any(f"{whose}{tmp_path / name} " in s for s in damaged)
    before, journal = times(tmp_path), len(_lines(result))
    code, told, damaged = verify(result.path, "--repair", "-q")
    assert (code, len(damaged)) == (0, len(BLOCKS) + len(OTHERS))
    assert "are as they were written again" in told
    assert all_bytes(result) == all_bytes(reference)
    again = {json.loads(line)["block"] for line in _lines(result)[journal:]}
    assert again == {2, 3, 4, 7, 9, 11}
    written = {p for p, t in times(result.path).items() if "c" in p.parts and before.get(p) != t}
    assert {result.path / f"0/c/1/{AT[2]}", result.path / "2/c/1/0/0/0"} <= written
    assert all("2" in p.relative_to(result.path).parts[:3] or _block(p) in again for p in written)
    assert verify(result.path)[0] == 0


def _lines(result: Result) -> list[str]:
    segments = sorted(p for p in result.place.journal.glob("*.jsonl"))
    return [line for p in segments for line in p.read_text().splitlines()]


def _block(shard: Path) -> int:
    return AT.index("/".join(shard.parts[-3:]))


@pytest.mark.parametrize(("name", "spoil", "whose"), SINGLY, ids=[f"{n} {s.__name__}" for n, s, _ in SINGLY])
def test_damage_to_what_tells_of_the_rest(
    whole: Result, reference: Result, tmp_path: Path, name: str, spoil: Spoil, whose: str
) -> None:
    result = copied(whole, tmp_path)
    spoil(tmp_path / name)
    code, _, damaged = verify(result.path)
    assert code == 1
    assert damaged
    assert all(s.startswith(f"damaged: {whose}") for s in damaged)
    assert any(str(tmp_path / name) in s for s in damaged)
    assert verify(result.path, "--repair", "-q")[0] == 0
    assert all_bytes(result) == all_bytes(reference)
    assert verify(result.path)[0] == 0


def test_a_shard_that_should_not_be_there(tmp_path: Path) -> None:
    """Of a block that is all zeros no file is kept; one that appears would be read."""
    data = simulation(keep=[]).to_mapping()
    data["stages"] = [s for s in data["stages"] if s["stage"] not in ("camera",)]
    data["source"]["shape"] = (16, 80, 80)
    data["stages"][1]["layers"] = [{**data["stages"][1]["layers"][0], "cell_fraction": 1e-9}]
    result = Simulation.from_mapping(data).run(tmp_path / "small.zarr", quiet=True)
    before = fingerprint(result.path)
    extra = result.path / "labels/membrane/0/c/0/0/0"
    assert not extra.exists()
    extra.parent.mkdir(parents=True)
    extra.write_bytes(b"left over")
    code, _, damaged = verify(result.path)
    assert code == 1
    assert "exists, although the block was empty" in damaged[0]
    assert verify(result.path, "--repair", "-q")[0] == 0
    assert fingerprint(result.path) == before


def test_passes_are_made_again_as_a_whole(tmp_path: Path) -> None:
    """The model of 2017 counts voxels before it labels; these tables have checksums, too."""
    result = model_of_2017().run(tmp_path / "small.zarr", quiet=True)
    before = all_bytes(result)
    (table,) = result.place.passes.glob("*_voxels/table/*.arrow")
    flip(table)
    code, _, damaged = verify(result.path)
    assert code == 1
    assert [str(table) in s for s in damaged] == [True]
    assert verify(result.path, "--repair", "-q")[0] == 0
    assert all_bytes(result) == before


def test_rounds_are_repaired_one_by_one(tmp_path: Path) -> None:
    source = {"kind": "phantom", "shape": (24, 60, 60)}
    result = rounds_build.simulation(source, ("expected", "emitters")).run(tmp_path / "small.zarr", quiet=True)
    before = all_bytes(result)
    assert verify(result.path)[0] == 0
    spoilt = [
        next(p for p in (result.path / "round_02/expected/0/c").rglob("*") if p.is_file()),
        next((result.place.tables / "amplicons").iterdir()),
        result.path / "OME/zarr.json",
        result.path / "round_03/zarr.json",
        result.path / "OME/METADATA.ome.xml",
        result.place.tables / "barcodes.parquet",
    ]
    for path in spoilt:
        flip(path)
    code, _, damaged = verify(result.path)
    assert (code, len(damaged)) == (1, len(spoilt))
    assert all(any(f"{path} " in s for s in damaged) for path in spoilt)
    assert verify(result.path, "--repair", "-q")[0] == 0
    assert all_bytes(result) == before


def test_what_cannot_be_verified_or_repaired(whole: Result, tmp_path: Path) -> None:
    code, told, _ = verify(tmp_path / "none.zarr")
    assert (code, "does not exist" in told) == (2, True)
    assert list(tmp_path.iterdir()) == []
    result = copied(whole, tmp_path)
    flip(result.path / "0/c/0/0/0/0")
    simulation(seed=12).save(tmp_path / "other.yaml")
    code, told, _ = verify(result.path, "--repair", "--spec", str(tmp_path / "other.yaml"))
    assert (code, "its spec or its labels differ" in told) == (2, True)
    for path in (result.place.run / "plan.json", result.path / "zarr.json"):
        text = json.loads(path.read_text())
        inner = text if "versions" in text else text["attributes"]["simexm"]
        inner["hash"], inner["versions"]["numpy"] = "0" * 32, "0.1"
        path.write_text(json.dumps(text))
    code, told, _ = verify(result.path, "--repair")
    assert (code, "numpy 0.1, now" in told) == (2, True)
    assert recorded(result.path) == {}


def test_an_unfinished_result_is_told_and_finished(whole: Result, reference: Result, tmp_path: Path) -> None:
    result = copied(whole, tmp_path)
    text = json.loads((result.path / "zarr.json").read_text())
    text["attributes"] = {"simexm": {**text["attributes"]["simexm"], "status": "incomplete"}}
    (result.path / "zarr.json").write_text(json.dumps(text))
    lose_last_line(result.place.journal)
    flip(result.path / f"0/c/1/{AT[2]}")
    code, told, damaged = verify(result.path)
    assert (code, len(damaged)) == (1, 2)  # the shard, and the torn line
    assert "unfinished: 1 blocks are missing" in told
    assert verify(result.path, "--repair", "-q")[0] == 0
    assert all_bytes(result) == all_bytes(reference)
