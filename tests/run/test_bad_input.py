"""What a tired person types: one message that says what to type instead, the right exit code, and nothing left behind."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import yaml
import zarr
from numpy.typing import NDArray
from typer.testing import CliRunner, Result

from simexm.api import Simulation
from simexm.cli import app
from simexm.jobs.lock import lock
from simexm.result.result import Result as Simulated
from simexm.store.omezarr import ShardedArray
from tests.run.conftest import VOXEL_NM, fingerprint, spec

pytestmark = pytest.mark.filterwarnings("ignore:.*:ResourceWarning")
CLI = [sys.executable, "-m", "simexm.cli"]
CROP = {"shape": [24, 32, 32]}
Data = dict[str, Any]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def type_in(*words: object) -> Result:
    """Run the command line in this process."""
    return CliRunner().invoke(app, [str(w) for w in words])


def write(path: Path, data: Data) -> Path:
    path.write_text(yaml.safe_dump(data))
    return path


def save(path: Path, data: Any) -> None:
    """Write a plain Zarr array."""
    zarr.save_array(str(path), data)


def small(stored: Path, **changes: Any) -> Data:
    """A run of a few seconds."""
    return spec(stored, crop=CROP, **changes)


def message(result: Result) -> str:
    """The one message on the standard error stream, warnings apart."""
    lines = [line for line in result.stderr.splitlines() if not line.startswith("warning: ")]
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    return lines[0]


def shell(*words: object, **how: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*CLI, *map(str, words)], capture_output=True, text=True, timeout=120, check=False, **how)


def told(done: subprocess.CompletedProcess[str]) -> str:
    """The message of a real process, which is never a traceback."""
    assert "Traceback" not in done.stderr + done.stdout
    errors = [line for line in done.stderr.splitlines() if not line.startswith("warning: ")]
    assert len(errors) == 1, done.stderr
    return errors[0]


# -------------------------------------------------------------------- sources


def _array(name: str, data: Callable[[NDArray[np.uint64]], NDArray[Any]], size: bool = True) -> Callable[..., Any]:
    def make(folder: Path, labels: NDArray[np.uint64], stored: Path) -> Any:
        save(folder / name, data(labels))
        return {"path": name, "voxel_size_nm": list(VOXEL_NM)} if size else name

    return make


def _without_unit(folder: Path, labels: NDArray[np.uint64], stored: Path) -> str:
    _copy(stored, folder / "unitless.zarr")
    path = folder / "unitless.zarr" / "zarr.json"
    group = json.loads(path.read_text())
    for axis in group["attributes"]["ome"]["multiscales"][0]["axes"]:
        del axis["unit"]
    path.write_text(json.dumps(group))
    return "unitless.zarr"


def _damaged(folder: Path, labels: NDArray[np.uint64], stored: Path) -> str:
    _copy(stored, folder / "damaged.zarr")
    for shard in (folder / "damaged.zarr" / "0" / "c").rglob("*"):
        if shard.is_file():
            shard.write_bytes(shard.read_bytes()[:99])
    return "damaged.zarr"


def _copy(source: Path, target: Path) -> None:
    for path in source.rglob("*"):
        if path.is_file():
            copy = target / path.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())


def _tiff(folder: Path, labels: NDArray[np.uint64], stored: Path) -> str:
    (folder / "cells.tif").write_bytes((stored.parent / "cells.tif").read_bytes())
    return "cells.tif"


def _with(stored: Path, **keys: Any) -> Data:
    return {"path": str(stored), **keys}


def _near(folder: Path, labels: NDArray[np.uint64], stored: Path) -> str:
    (folder / "cortex.zarr").mkdir()
    return "cortx.zarr"


@dataclass(frozen=True)
class BadSource:
    """A source that cannot serve, and words of the message: what, and what to type instead."""

    name: str
    make: Callable[..., Any]
    words: tuple[str, ...]


SOURCES = [
    BadSource("missing", _near, ("cortx.zarr does not exist", "Beside it there is: cortex.zarr", "simexm ingest FILE -o cortx.zarr")),
    BadSource("TIFF", _tiff, ("is a TIFF file", "simexm ingest", "--voxel-size Z Y X")),
    BadSource("floats", _array("a.zarr", lambda a: a.astype(np.float32)), ("holds float32", "unsigned integer type")),
    BadSource("complex", _array("a.zarr", lambda a: a.astype(np.complex64)), ("holds complex64", "unsigned integer type")),
    BadSource("negative", _array("a.zarr", lambda a: -a.astype(np.int64)), ("negative id -", "renumbered")),
    BadSource("no voxel size", _array("a.zarr", lambda a: a, False), ("voxel_size_nm", "voxel_size_nm: [z, y, x]")),
    BadSource("no unit", _without_unit, ("voxel_size_nm", "voxel_size_nm: [z, y, x]")),
    BadSource("all zero", _array("a.zarr", lambda a: np.zeros_like(a)), ("every label in the crop is 0", "check the source's path")),
    BadSource("a plane", _array("a.zarr", lambda a: a[0]), ("has 2 axes", "z, y, x")),
    BadSource("empty", _array("a.zarr", lambda a: a[:0]), ("a.zarr is empty",)),
    BadSource("damaged", _damaged, ("cannot be read", "damaged or gone")),
    BadSource("folder of Zarrs", lambda f, a, s: str(s.parent), ("is not a Zarr", "cells.zarr: name one")),
    BadSource("no voxel", lambda f, a, s: _with(s, voxel_size_nm=[0, 32, 32]), ("source.voxel_size_nm[0]", "greater than 0")),
    BadSource("two numbers", lambda f, a, s: _with(s, voxel_size_nm=[32, 32]), ("source.voxel_size_nm has 2 values only",)),
    BadSource("key", lambda f, a, s: _with(s, voxel_size=[1, 1, 1]), ("source: there is no key", "'voxel_size_nm'")),
    BadSource("kind", lambda f, a, s: {"kind": "phantm", "shape": [9, 9, 9]}, ("source: 'phantm' is unknown", "'phantom'")),
    BadSource("nothing", lambda f, a, s: None, ("source: should be a mapping", "is empty")),
]  # fmt: skip


@pytest.mark.parametrize("case", SOURCES, ids=[c.name for c in SOURCES])
def test_a_source_that_cannot_serve(case: BadSource, folder: Path, stored: Path, labels: NDArray[np.uint64]) -> None:
    write(folder / "my.yaml", spec("x") | {"source": case.make(folder, labels, stored)})
    before = fingerprint(folder)
    result = type_in("run", "my.yaml", "--output", "new/out.zarr")
    assert result.exit_code == 2
    for word in case.words:
        assert word in message(result)
    assert fingerprint(folder) == before
    assert not (folder / "new").exists()


# -------------------------------------------------------------------- specs


@pytest.mark.parametrize(
    ("changes", "options", "words"),
    [
        ({"crop": {"shape": [0, 8, 8]}}, (), ("crop.shape [0, 8, 8]", "at least 1")),
        ({"crop": {"offset": [50, 0, 0], "shape": [10, 8, 8]}}, (), ("reaches outside", "[56, 72, 88]", "offset + shape")),
        ({"sead": 3}, (), ("no key 'sead'", "did you mean 'seed'")),
        ({"execution": {"tile": [0, 8, 8]}}, (), ("execution.tile[0]", "greater than or equal to 1")),
        ({"execution": {"memory_GiB": 0.1}}, (), ("execution.memory_GiB", "greater than 0.", "got 0.1")),
        ({}, ("--until", "labeling"), ("--until labeling", "labelling, expansion, confocal, camera")),
        ({}, ("--tile", 0, 8, 8), ("0 x 8 x 8", "at least 1")),
    ],
)  # fmt: skip
def test_a_spec_that_cannot_run(
    changes: Data, options: tuple[object, ...], words: tuple[str, ...], folder: Path, stored: Path
) -> None:
    write(folder / "my.yaml", spec(stored, **changes))
    result = type_in("run", "my.yaml", *options)
    assert result.exit_code == 2
    assert all(word in message(result) for word in words), result.stderr
    assert [p.name for p in folder.iterdir()] == ["my.yaml"]


def test_memory_that_suffices_for_no_tile(folder: Path) -> None:
    """A PSF of 32 um, and half a GiB."""
    phantom = {"kind": "phantom", "shape": [600, 1200, 1200], "voxel_size_nm": [40, 32, 32]}
    data = spec("") | {"source": phantom, "execution": {"memory_GiB": 0.61, "tile": [64, 64, 64]}}
    data["stages"][3]["axial_range_um"] = 16
    write(folder / "my.yaml", data)
    result = type_in("run", "my.yaml")
    assert result.exit_code == 2
    assert "execution.memory_GiB is 0.61: workers would be killed" in message(result)
    assert "raise memory_GiB" in message(result)
    assert [p.name for p in folder.iterdir()] == ["my.yaml"]


def test_a_machine_that_is_too_full(folder: Path, stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder / "my.yaml", small(stored))
    memory = psutil.virtual_memory()._replace(available=1 << 28)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    result = type_in("run", "my.yaml")
    assert result.exit_code == 2
    assert "256 MiB are free on this machine" in message(result)
    assert "no tile is small enough" in message(result)
    assert [p.name for p in folder.iterdir()] == ["my.yaml"]


def test_a_tile_that_fits_is_named_and_does_fit(folder: Path, stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = spec(stored)
    write(folder / "my.yaml", data)
    simulation = Simulation.from_mapping(data)
    least = simulation.with_tile((2, 8, 8)).plan().memory.total
    memory = psutil.virtual_memory()._replace(available=(least + simulation.plan().memory.total) // 2)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    result = type_in("run", "my.yaml")
    assert result.exit_code == 2
    found = re.search(r"set --tile (\d+) (\d+) (\d+), or", message(result))
    assert found, message(result)
    assert type_in("run", "my.yaml", "--tile", *found.groups(), "--until", "labelling").exit_code == 0


def test_a_real_process_prints_one_line_and_no_traceback(folder: Path, stored: Path) -> None:
    write(folder / "my.yaml", spec(stored, sead=3))
    done = shell("run", "my.yaml")
    assert (done.returncode, done.stdout) == (2, "")
    assert told(done) == "error: my.yaml: the spec: there is no key 'sead'; did you mean 'seed'?"
    assert "\x1b" not in done.stderr
    debug = shell("--debug", "run", "my.yaml")
    assert debug.returncode == 1
    assert "Traceback" in debug.stderr


# -------------------------------------------------------------------- outputs in the way


def _file(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("mine")


def _foreign_zarr(folder: Path) -> None:
    save(folder / "out.zarr", np.ones((3, 3)))


def _marked_otherwise(folder: Path) -> None:
    zarr.create_group(folder / "out.zarr", attributes={"simexm": {"written_by": "simexm ingest"}})


def _old_run_folder(folder: Path) -> None:
    """A foreign Zarr, where a run's folder is left from before."""
    _foreign_zarr(folder)
    _file(folder / "out.run" / "plan.json")
    (folder / "out.run" / "plan.json").write_text('{"hash": "0"}')


IN_THE_WAY: list[tuple[str, Callable[[Path], None], str]] = [
    ("a file", lambda f: _file(f / "out.zarr"), "out.zarr exists and is no simexm result"),
    ("a folder", lambda f: _file(f / "out.zarr" / "notes.txt"), "out.zarr exists and is no simexm result"),
    ("a Zarr", _foreign_zarr, "out.zarr exists and is no simexm result"),
    ("ingested labels", _marked_otherwise, "out.zarr exists and is no simexm result"),
    ("a Zarr beside an old run folder", _old_run_folder, "out.zarr exists and is no simexm result"),
    ("a dead link", lambda f: (f / "out.zarr").symlink_to("gone"), "does not end in .zarr"),
    ("a run folder of others", lambda f: _file(f / "out.run" / "notes.txt"), "is no simexm run folder"),
    ("journal of others", lambda f: _file(f / "out.run" / "journal" / "1.txt"), "is no simexm run folder"),
    ("a file for the run folder", lambda f: _file(f / "out.run"), "is no simexm run folder"),
    ("plan of others", lambda f: _file(f / "out.run" / "plan.json"), "is no simexm run folder"),
]


@pytest.mark.parametrize("overwrite", [(), ("--overwrite",)], ids=["", "overwrite"])
@pytest.mark.parametrize(("make", "words"), [c[1:] for c in IN_THE_WAY], ids=[c[0] for c in IN_THE_WAY])
def test_what_is_no_result_is_never_touched(
    make: Callable[[Path], None], words: str, overwrite: tuple[str, ...], folder: Path, stored: Path
) -> None:
    write(folder / "my.yaml", small(stored))
    make(folder)
    before = fingerprint(folder)
    result = type_in("run", "my.yaml", "-o", "out.zarr", *overwrite)
    assert result.exit_code == 2
    assert words in message(result)
    assert "choose another --output" in message(result) or "type --output" in message(result)
    assert fingerprint(folder) == before


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("out", "type --output out.zarr"),
        ("sub/out.tif", "type --output sub/out.zarr"),
        ("my.yaml/out.zarr", "my.yaml is a file"),
    ],
)
def test_an_output_that_cannot_be(output: str, words: str, folder: Path, stored: Path) -> None:
    write(folder / "my.yaml", small(stored))
    result = type_in("run", "my.yaml", "-o", output)
    assert result.exit_code == 2
    assert words in message(result)
    assert [p.name for p in folder.iterdir()] == ["my.yaml"]


def test_a_run_never_overwrites_its_own_source(folder: Path, stored: Path) -> None:
    """Labels of an earlier result as source, and that result as output."""
    zarr.create_group(folder / "out.zarr", attributes={"simexm": {"hash": "0", "status": "complete"}})
    _copy(stored, folder / "out.zarr" / "labels" / "cells")
    write(folder / "my.yaml", small(folder / "out.zarr" / "labels" / "cells"))
    before = fingerprint(folder)
    result = type_in("run", "my.yaml", "-o", "out.zarr", "--overwrite")
    assert result.exit_code == 2
    assert "is read from" in message(result)
    assert fingerprint(folder) == before


# -------------------------------------------------------------------- results in the way


@pytest.fixture(scope="module")
def finished(stored: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with my.yaml and its result out.zarr."""
    folder = tmp_path_factory.mktemp("finished")
    write(folder / "my.yaml", small(stored))
    with contextlib.chdir(folder):
        done = type_in("run", "my.yaml", "-o", "out.zarr")
    assert done.exit_code == 0, done.stderr
    return folder


@pytest.fixture
def again(finished: Path, folder: Path) -> Path:
    """A copy of it as working directory."""
    _copy(finished, folder)
    return folder


def test_a_result_is_not_made_twice(again: Path, stored: Path) -> None:
    before = fingerprint(again)
    result = type_in("run", "my.yaml", "-o", "out.zarr")
    assert result.exit_code == 2
    assert "complete and with these parameters" in message(result)
    assert "--overwrite" in message(result)
    write(again / "other.yaml", small(stored, seed=12))
    result = type_in("run", "other.yaml", "-o", "out.zarr")
    assert result.exit_code == 2
    assert "other parameters" in message(result)
    assert "--overwrite" in message(result)
    (again / "other.yaml").unlink()
    assert fingerprint(again) == before


def test_additions_to_a_result_stop_overwrite(again: Path) -> None:
    save(again / "out.zarr" / "labels" / "mine", np.ones((3, 3, 3)))
    before = fingerprint(again)
    result = type_in("run", "my.yaml", "-o", "out.zarr", "--overwrite")
    assert result.exit_code == 2
    assert "holds labels/mine, which no run wrote" in message(result)
    assert fingerprint(again) == before


def test_tables_without_their_image_are_not_lost(again: Path) -> None:
    (again / "out.zarr").rename(again / "kept.zarr")
    before = fingerprint(again)
    result = type_in("run", "my.yaml", "-o", "out.zarr")
    assert result.exit_code == 2
    assert "tables of an earlier run" in message(result)
    assert fingerprint(again) == before


def test_overwrite_replaces_a_result_through_links_and_leaves_notes(again: Path, stored: Path) -> None:
    """Another seed: what comes is that seed's, and a file that the user put into NAME.run stays."""
    (again / "disk").mkdir()
    for name in ("out.zarr", "out.run"):
        (again / name).rename(again / "disk" / name)
    (again / "out.zarr").symlink_to(again / "disk" / "out.zarr")
    (again / "disk" / "out.run" / "notes.txt").write_text("mine")
    former = fingerprint(again / "disk" / "out.zarr")
    write(again / "my.yaml", small(stored, seed=12))
    result = type_in("run", "my.yaml", "-o", "out.zarr", "--overwrite", "-q")
    assert result.exit_code == 0, result.stderr
    assert (again / "out.zarr").is_symlink()
    assert Simulated.open(again / "out.zarr").provenance["seed"] == 12
    assert fingerprint(again / "disk" / "out.zarr") != former
    assert (again / "disk" / "out.run" / "notes.txt").read_text() == "mine"


def test_a_removal_that_was_interrupted_goes_on(again: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while an old result is removed, and while a new one is prepared: never an image, and the same command goes on."""
    calls: list[str] = []

    def interrupted(*_: Any) -> None:
        calls.append("")
        if len(calls) == 3:
            raise KeyboardInterrupt

    def stopping(real: Callable[..., Any]) -> Callable[..., Any]:
        calls.clear()

        def call(*args: Any, **options: Any) -> None:
            interrupted()
            real(*args, **options)

        return call

    whole = fingerprint(again / "out.zarr")
    for owner, name in ((shutil, "rmtree"), (ShardedArray, "create")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, stopping(getattr(owner, name)))
            result = type_in("run", "my.yaml", "-o", "out.zarr", "--overwrite")
        assert result.exit_code == 130
        assert "type the same command again" in result.stderr
        assert not Simulated.open(again / "out.zarr").complete
        assert "ome" not in Simulated.open(again / "out.zarr").attributes
        assert "incomplete" in type_in("info", "out.zarr").stdout
    result = type_in("run", "my.yaml", "-o", "out.zarr", "-q")
    assert result.exit_code == 0, result.stderr
    assert fingerprint(again / "out.zarr") == whole


def test_another_run_holds_the_lock(folder: Path, stored: Path) -> None:
    write(folder / "my.yaml", small(stored))
    (folder / "out.run").mkdir()
    with lock(folder / "out.run" / "lock"):
        result = type_in("run", "my.yaml", "-o", "out.zarr")
        assert result.exit_code == 2
        assert f"held by process {os.getpid()}" in message(result)
        assert f"kill {os.getpid()}" in message(result)
    assert not (folder / "out.zarr").exists()


# -------------------------------------------------------------------- disks


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a disk of its own with such options; the folder where it is."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options: str) -> Path:
        kind = ["-o", options] if "remount" in options else ["-t", "tmpfs", "-o", options, "tmpfs"]
        done = subprocess.run(["mount", *kind, str(folder)], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")
        return folder

    yield mount
    if folder.is_mount():
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_at_the_start(disk: Callable[[str], Path], folder: Path, stored: Path) -> None:
    """No room for a byte, or no room for all the files of the arrays' metadata: nothing at all stays."""
    write(folder / "my.yaml", small(stored))
    for options in ("size=16k", "nr_inodes=24"):
        place = disk(options)
        done = type_in("run", "my.yaml", "-o", place / "out.zarr")
        assert done.exit_code == 2
        assert "the disk is full; free some space, or choose another --output" in message(done)
        assert not list(place.iterdir())
        subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_in_mid_run(disk: Callable[[str], Path], folder: Path, finished: Path) -> None:
    """Exit code 1, no image; with room, the same command goes on to the same bytes."""
    place = disk("size=120k")
    command = ("run", finished / "my.yaml", "-o", place / "out.zarr", "-q")
    done = type_in(*command)
    assert done.exit_code == 1, done.stderr
    assert "No space left on device" in message(done)
    assert "type the same command again" in message(done)
    assert "ome" not in Simulated.open(place / "out.zarr").attributes
    disk("remount,size=8m")
    done = type_in(*command)
    assert done.exit_code == 0, done.stderr
    assert fingerprint(place / "out.zarr") == fingerprint(finished / "out.zarr")


def test_a_full_disk_in_ingest(disk: Callable[[str], Path], folder: Path, stored: Path) -> None:
    place = disk("size=16k")
    done = type_in("ingest", stored.parent / "cells.tif", "-o", place / "a.zarr", "--voxel-size", 40, 32, 32)
    assert done.exit_code == 1
    assert "No space left on device" in message(done)
    assert "Nothing of it" in message(done)
    assert not list(place.iterdir())


@pytest.mark.parametrize("command", ["run", "ingest"])
def test_no_write_permission(command: str, disk: Callable[[str], Path], folder: Path, stored: Path) -> None:
    write(folder / "my.yaml", small(stored))
    place = disk("ro")
    if command == "run":
        done = type_in("run", "my.yaml", "-o", place / "new" / "out.zarr")
    else:
        done = type_in("ingest", stored.parent / "cells.tif", "-o", place / "out.zarr", "--voxel-size", 40, 32, 32)
    assert done.exit_code == 2
    assert "cannot be written to" in message(done)
    assert "read-only" in message(done).lower()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users can reach, which pytest's own cannot be."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_a_folder_of_someone_else(open_folder: Path) -> None:
    """As another user where this one is root, whom permissions do not bind."""
    phantom = {"kind": "phantom", "shape": [24, 32, 32], "voxel_size_nm": [40, 32, 32]}
    write(open_folder / "my.yaml", spec("") | {"source": phantom})
    (open_folder / "theirs").mkdir(mode=0o555)
    # what another user cannot read is imported before it becomes one
    program = (
        "import os; from simexm.cli import app; app(['plan', 'my.yaml'], standalone_mode=False)\n"
        "import simexm.run.driver\n"
        "if os.getuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "app(['run', 'my.yaml', '-o', 'theirs/out.zarr'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=open_folder, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 2, done.stderr
    assert "you may not write there; choose another --output, or change its permissions" in told(done)
    assert not list((open_folder / "theirs").iterdir())


# -------------------------------------------------------------------- Python


def test_a_script_needs_no_guard(folder: Path, finished: Path) -> None:
    """Workers do not run the caller's script again, with or without `if __name__ == "__main__":`."""
    (folder / "script.py").write_text(
        "from pathlib import Path\n"
        "from simexm import Simulation\n"
        "Path('times').open('a').write('x')\n"
        f"result = Simulation.load({str(finished / 'my.yaml')!r}).run('out.zarr', workers=1, quiet=True)\n"
        "assert result.complete and __file__\n"
    )
    subprocess.run([sys.executable, "script.py"], cwd=folder, check=True, timeout=100, capture_output=True)
    assert (folder / "times").read_text() == "x"
    assert fingerprint(folder / "out.zarr") == fingerprint(finished / "out.zarr")


def test_python_raises_what_the_command_prints(stored: Path, folder: Path) -> None:
    with pytest.raises(OSError, match=r"does not end in \.zarr"):
        Simulation.from_mapping(small(stored)).run("out")
