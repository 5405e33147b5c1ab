"""Labels that vanish, or change, while a run reads them: it fails, keeps what is done, and never calls itself complete."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

from simexm.api import Simulation
from simexm.errors import GoneError, OutputError, RunError, SourceError
from simexm.ingestion.ingest import ingest
from simexm.result import place
from simexm.result.place import Place
from simexm.result.result import Result
from simexm.run import folders, guard
from simexm.run.passes import all_passes
from simexm.run.repair import repair
from simexm.run.same_source import SameSource
from simexm.run.verify import Verification
from simexm.run.worker import Context, count_block, run_block
from simexm.view.report.page import write_report
from tests.model2017 import small_2017
from tests.run.conftest import VOXEL_NM, cells, fingerprint, spec

pytestmark = pytest.mark.filterwarnings("ignore::simexm.errors.SimexmWarning")

SHAPE = (16, 48, 48)


@pytest.fixture(scope="module")
def labels_here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same labels as another program's Zarr of many chunks, plain.zarr, and ingested, with a mask, own.zarr."""
    folder = tmp_path_factory.mktemp("labels")
    ids: NDArray[Any] = cells(SHAPE)
    for name, a in (("plain.zarr", ids), ("mask", (ids % 3 == 0).astype(np.uint8))):
        zarr.create_array(folder / name, shape=SHAPE, dtype=a.dtype, chunks=(8, 16, 16))[...] = a
    ingest(str(folder / "plain.zarr"), folder / "own.zarr", VOXEL_NM, regions={"third": folder / "mask"})
    return folder


def simulation(source: Path) -> Simulation:
    """A simulation of a few blocks."""
    return Simulation.from_mapping({**spec(""), "source": {"path": str(source), "voxel_size_nm": VOXEL_NM}})


@pytest.fixture(params=["plain.zarr", pytest.param("own.zarr", marks=pytest.mark.slow)])
def source(request: pytest.FixtureRequest, labels_here: Path, tmp_path: Path) -> Path:
    """A copy that may be moved away."""
    return Path(shutil.copytree(labels_here / request.param, tmp_path / request.param))


@pytest.fixture(scope="module")
def undisturbed(labels_here: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, str]]:
    """The bytes of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    made: dict[str, dict[str, str]] = {}

    def of(name: str) -> dict[str, str]:
        if name not in made:
            made[name] = _bytes(simulation(labels_here / name).run(folder / name, quiet=True))
        return made[name]

    return of


def _bytes(result: Result) -> dict[str, str]:
    """All but what tells where the labels are."""
    found = fingerprint(result.path)
    del found["zarr.json"]
    return found


@contextlib.contextmanager
def while_running(output: Path, act: Callable[[], Any]) -> Iterator[None]:
    """Do something as soon as a block is in its place."""

    def watch() -> None:
        while not any((output / "0" / "c").glob("*/*/*/*")) and not ended.wait(0.001):
            pass
        act()

    ended = threading.Event()
    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def test_a_run_whose_labels_vanish_goes_on_when_they_are_back(
    source: Path, undisturbed: Callable[[str], dict[str, str]], tmp_path: Path
) -> None:
    output, away = tmp_path / "out.zarr", tmp_path / "away"
    with (
        while_running(output, lambda: source.rename(away)),
        pytest.raises(RunError, match=r"same command again") as told,
    ):
        simulation(source).run(output, quiet=True)
    assert told.value.exit_code == 1
    assert not Result.open(output).complete
    assert list(Verification(Place.where(output))) == []
    with pytest.raises(SourceError, match="does not exist"):
        simulation(source).run(output, quiet=True)
    away.rename(source)
    result = simulation(source).run(output, quiet=True)
    assert result.complete
    assert _bytes(result) == undisturbed(source.name)


def _prepared(simulation: Simulation, output: Path) -> Context:
    """A run that is about to begin its blocks."""
    plan, where = simulation.plan(), Place.at(output).claimed()
    folders.prepare(plan, where)
    return Context(plan, where, listed=SameSource.begin(plan, where).listed)


@pytest.mark.parametrize("gone", ["", "third"])
def test_a_block_that_misses_labels_or_a_mask_fails(labels_here: Path, tmp_path: Path, gone: str) -> None:
    source = Path(shutil.copytree(labels_here / "own.zarr", tmp_path / "own.zarr"))
    data = spec(source)
    data["stages"][1]["layers"][1]["region"] = "third"
    context = _prepared(Simulation.from_mapping(data), tmp_path / "out.zarr")
    (source / gone).rename(tmp_path / "away")
    with pytest.raises(SourceError):
        run_block(context, 3)
    assert not list((tmp_path / "out.zarr").rglob("c"))
    (tmp_path / "away").rename(source / gone)
    assert run_block(context, 3)["voxels"] > 0


def test_a_pass_that_misses_labels_fails(labels_here: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(labels_here / "plain.zarr", tmp_path / "plain.zarr"))
    data = {**small_2017(), "source": {"path": str(source), "voxel_size_nm": VOXEL_NM}}
    context = _prepared(Simulation.from_mapping(data), tmp_path / "out.zarr")
    wanted = next(all_passes(context.plan))[1].name
    context = Context(context.plan, context.place, wanted, listed=context.listed)
    (source / "c" / "1").rename(tmp_path / "away")  # the array is still there, but not all that was when the run began
    with pytest.raises(SourceError, match="was written, but is not there any more"):
        [count_block(context, number) for number in range(len(context.plan.blocks))]
    (tmp_path / "away").rename(source / "c" / "1")
    assert sum(count_block(context, number)["rows"] for number in range(len(context.plan.blocks)))


def test_chunks_that_vanish_are_no_zeros_even_where_the_array_stays(labels_here: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(labels_here / "plain.zarr", tmp_path / "plain.zarr"))
    output, away = tmp_path / "out.zarr", tmp_path / "away"
    context = _prepared(simulation(source), output)
    (source / "c" / "0").rename(away)
    with pytest.raises(SourceError, match="was written, but is not there any more"):
        run_block(context, 0)
    with pytest.raises(OutputError, match=r"other parameters, or of other labels"):
        simulation(source).run(output, quiet=True)
    away.rename(source / "c" / "0")
    assert run_block(context, 0)["voxels"] > 0


def test_a_resumed_run_finds_as_many_files_as_it_began_with(labels_here: Path, tmp_path: Path) -> None:
    """Identity looks into some thousand files at most."""
    source = Path(shutil.copytree(labels_here / "plain.zarr", tmp_path / "plain.zarr"))
    context = _prepared(simulation(source), tmp_path / "out.zarr")
    (source / "c/1/1/1").rename(tmp_path / "away")
    with pytest.raises(RunError, match=r"has 17 chunk files.* began with 18.*Restore them.*or .*--overwrite") as told:
        SameSource.begin(context.plan, context.place)
    assert told.value.exit_code == 1
    (tmp_path / "away").rename(source / "c/1/1/1")
    SameSource.begin(context.plan, context.place).end()


def _touch(path: Path) -> None:
    os.utime(path, (1, 1))


def _edit(path: Path) -> None:
    path.write_bytes(path.read_bytes())


@pytest.mark.parametrize("change", [_touch, _edit, Path.unlink])
def test_labels_that_change_during_a_run_are_noticed(
    labels_here: Path, tmp_path: Path, change: Callable[[Path], None]
) -> None:
    """Even where identity does not see it; and from then on only a run from the beginning will do."""
    source = Path(shutil.copytree(labels_here / "plain.zarr", tmp_path / "plain.zarr"))
    context = _prepared(simulation(source), tmp_path / "out.zarr")
    begun = SameSource.begin(context.plan, context.place)
    begun.end()
    chunk = source / "c/1/1/1"
    kept = chunk.read_bytes(), chunk.stat()
    change(chunk)
    with pytest.raises(
        RunError, match=r"were changed while the run read them.*not marked complete.*--overwrite"
    ) as told:
        begun.end()
    assert told.value.exit_code == 1
    chunk.write_bytes(kept[0])
    os.utime(chunk, ns=(kept[1].st_atime_ns, kept[1].st_mtime_ns))
    with pytest.raises(RunError, match=r"were changed.*--overwrite"):
        SameSource.begin(context.plan, context.place)
    guard.clear(context.place)  # as --overwrite does
    _prepared(simulation(source), tmp_path / "out.zarr")


@pytest.mark.parametrize(
    "told",
    ["[" * 100_000 + "]" * 100_000, '{"volumes": {}, "changed": {"a": 1}}', '{"volumes": {"": 1}, "volumes": {}}'],
)
def test_what_was_kept_of_the_labels_is_read_as_if_anybody_had_written_it(
    labels_here: Path, tmp_path: Path, told: str
) -> None:
    """What no driver writes counts as nothing, and is replaced."""
    context = _prepared(simulation(labels_here / "plain.zarr"), tmp_path / "out.zarr")
    kept = context.place.run / place.SOURCE
    before = kept.read_bytes()
    kept.write_text(told)
    SameSource.begin(context.plan, context.place)
    assert kept.read_bytes() == before


def test_labels_that_are_gone_at_the_end_leave_the_result_unfinished(labels_here: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(labels_here / "own.zarr", tmp_path / "own.zarr"))
    context = _prepared(simulation(source), tmp_path / "out.zarr")
    begun = SameSource.begin(context.plan, context.place)
    source.rename(tmp_path / "away")
    with pytest.raises(RunError, match=r"not marked complete.*same command again"):
        begun.end()
    (tmp_path / "away").rename(source)
    begun.end()


@pytest.mark.parametrize("copied", [True, False], ids=["copied", "moved"])
def test_labels_may_be_moved_or_copied_between_the_parts_of_a_run(
    labels_here: Path, tmp_path: Path, copied: bool
) -> None:
    """A copy's files are of other times; an edited chunk alone is of another time than the rest."""
    first = Path(shutil.copytree(labels_here / "plain.zarr", tmp_path / "plain.zarr"))
    _prepared(simulation(first), tmp_path / "out.zarr")
    second = tmp_path / "elsewhere.zarr"
    shutil.copytree(first, second, copy_function=shutil.copyfile) if copied else first.rename(second)
    _prepared(simulation(second), tmp_path / "out.zarr")
    _touch(second / "c/1/1/1")
    with pytest.raises(RunError, match=r"written again since the run .* began.*--overwrite"):
        _prepared(simulation(second), tmp_path / "out.zarr")


def test_a_zip_file_may_be_copied_but_not_edited_between_the_parts_of_a_run(labels_here: Path, tmp_path: Path) -> None:
    archive, output = tmp_path / "plain.zarr.zip", tmp_path / "out.zarr"
    shutil.make_archive(str(archive.with_suffix("")), "zip", labels_here / "plain.zarr")
    _prepared(simulation(archive), output)
    copy = Path(shutil.copyfile(archive, tmp_path / "copy.zarr.zip"))
    _prepared(simulation(copy), output)
    context = _prepared(simulation(archive), output)
    begun = SameSource.begin(context.plan, context.place)
    _touch(archive)
    begun.end()
    folder = Path(shutil.copytree(labels_here / "plain.zarr", tmp_path / "edited"))
    data = bytearray((folder / "c/1/1/1").read_bytes())
    data[-1] ^= 1
    (folder / "c/1/1/1").write_bytes(data)
    shutil.make_archive(str(archive.with_suffix("")), "zip", folder)
    with pytest.raises(RunError, match="were changed while the run read them"):
        begun.end()
    archive.write_bytes(b"no ZIP file")
    with pytest.raises(RunError, match="cannot be read any more"):
        begun.end()


def test_a_link_that_is_set_to_other_labels_changes_no_run(labels_here: Path, tmp_path: Path) -> None:
    """The labels that a run began with are read to its end."""
    link = tmp_path / "link.zarr"
    link.symlink_to(labels_here / "own.zarr")
    context = _prepared(simulation(link), tmp_path / "out.zarr")
    begun = SameSource.begin(context.plan, context.place)
    link.unlink()
    link.symlink_to(tmp_path)
    assert run_block(context, 0)
    begun.end()


def test_a_repair_notices_it_too(labels_here: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(labels_here / "plain.zarr", tmp_path / "plain.zarr"))
    result = simulation(source).run(tmp_path / "out.zarr", quiet=True)
    whole = fingerprint(result.path)
    damaged = next(p for p in (result.path / "0" / "c").rglob("*") if p.is_file())
    damaged.unlink()
    away = (source / "c" / "1" / "1").rename(tmp_path / "away")
    with pytest.raises((RunError, OutputError)):  # its identity is another, or its files are
        repair(result.path, lambda damage: None, quiet=True)
    assert not damaged.exists()
    away.rename(source / "c" / "1" / "1")
    assert not repair(result.path, lambda damage: None, quiet=True).sound
    assert fingerprint(result.path) == whole


def test_a_repair_whose_labels_have_moved_mends_the_blocks_too(labels_here: Path, tmp_path: Path) -> None:
    """The plan then names the labels' new place, and has other bytes than were recorded."""
    source = Path(shutil.copytree(labels_here / "plain.zarr", tmp_path / "plain.zarr"))
    result = simulation(source).run(tmp_path / "out.zarr", quiet=True)
    whole = _bytes(result)
    shard = next(p for p in (result.path / "0" / "c").rglob("*") if p.is_file())
    shard.write_bytes(shard.read_bytes()[:9] + b"XX" + shard.read_bytes()[11:])
    moved = source.rename(tmp_path / "moved.zarr")
    told: list[str] = []
    repair(result.path, lambda damage: told.append(str(damage)), simulation=simulation(moved), quiet=True)
    assert any(str(shard) in line for line in told)
    assert _bytes(Result.open(result.path)) == whole
    assert list(Verification(Place.where(result.path))) == []


def test_a_picture_of_a_damaged_result_names_the_remedy(labels_here: Path, tmp_path: Path) -> None:
    """Whether the run draws it at its end, or a report."""
    result = simulation(labels_here / "plain.zarr").run(tmp_path / "out.zarr", quiet=True)
    for shard in [p for p in (result.path / "0" / "c").rglob("*") if p.is_file()]:
        shard.write_bytes(shard.read_bytes()[:9] + b"XX" + shard.read_bytes()[11:])
    with pytest.raises(OutputError, match=r"0 cannot be read: .*verify NAME.zarr --repair"):
        write_report(result, tmp_path / "report.html")
    root = result.path / "zarr.json"
    root.write_text(root.read_text().replace('"complete"', '"incomplete"'))  # as where it was stopped before its end
    with pytest.raises(RunError, match=r"0 cannot be read: .*verify NAME.zarr --repair"):
        simulation(labels_here / "plain.zarr").run(result.path, quiet=True)


def test_a_result_that_vanishes_is_not_read_as_zeros(labels_here: Path, tmp_path: Path) -> None:
    context = _prepared(simulation(labels_here / "own.zarr"), tmp_path / "out.zarr")
    run_block(context, 0)
    image = Result.open(tmp_path / "out.zarr").array()
    assert np.asarray(image[...]).any()
    (tmp_path / "out.zarr").rename(tmp_path / "away.zarr")
    with pytest.raises(GoneError, match="is gone"):
        image[...]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*:ResourceWarning")
def test_with_workers_of_their_own(source: Path, undisturbed: Callable[[str], dict[str, str]], tmp_path: Path) -> None:
    """On the command line: exit code 1, what is done is kept, and the same command again makes the same bytes."""
    output, away = tmp_path / "out.zarr", tmp_path / "away"
    simulation(source).save(tmp_path / "spec.yaml")
    command = [
        sys.executable,
        "-m",
        "simexm.cli",
        "run",
        tmp_path / "spec.yaml",
        "--output",
        output,
        "--workers",
        "2",
        "--quiet",
    ]

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False)

    with while_running(output, lambda: source.rename(away)):
        first = run()
    assert first.returncode == 1
    assert "same command again" in first.stderr
    assert "fault of simexm" not in first.stderr
    assert list(Verification(Place.where(output))) == []
    assert run().returncode == 2  # there are no labels
    away.rename(source)
    again = run()
    assert again.returncode == 0, again.stderr
    result = Result.open(output)
    assert result.complete
    assert _bytes(result) == undisturbed(source.name)
