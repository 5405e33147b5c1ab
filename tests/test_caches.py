"""Caches of libraries where the home folder cannot be written; and the systems that simexm runs on."""

from __future__ import annotations

import os
import resource
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import tifffile

from simexm import caches, machine

NOWHERE = "/proc/none/at-all"
"""A folder that even root cannot make."""


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary folder as /tmp is, and a matplotlib that cannot write its cache."""
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp").chmod(0o1777)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    for name in ("NUMBA_CACHE_DIR", "CUPY_CACHE_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("MPLCONFIGDIR", NOWHERE)
    return tmp_path / "tmp"


def settled() -> list[str]:
    caches.redirect_unwritable()
    return list(caches.pending_warnings())


def test_a_cache_that_cannot_be_written_goes_to_a_private_folder(temporary: Path) -> None:
    """One warning with the folder and the variable; child processes use the folder without a warning."""
    (told,) = settled()
    folder = temporary / f"simexm-{os.geteuid()}"
    assert told.startswith(f"matplotlib cannot write their caches ({NOWHERE}: ")
    assert str(folder) in told
    assert "set MPLCONFIGDIR to" in told
    assert os.environ["MPLCONFIGDIR"] == str(folder / "matplotlib")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    code = "import warnings; warnings.simplefilter('error'); import simexm; simexm.Simulation"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert settled() == []


def plant_open(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o777)


def plant_link(folder: Path) -> None:
    (folder.parent / "theirs").mkdir(mode=0o700)
    folder.symlink_to("theirs")


def plant_owned(folder: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("to give a folder away takes the rights of root")
    folder.mkdir(mode=0o700)
    os.chown(folder, 4321, 4321)


def plant_file(folder: Path) -> None:
    folder.write_text("")


@pytest.mark.parametrize("plant", [plant_open, plant_link, plant_owned, plant_file])
def test_what_others_put_there_is_not_used(temporary: Path, plant: object) -> None:
    """Caches hold code that is run."""
    planted = temporary / f"simexm-{os.geteuid()}"
    plant(planted)  # type: ignore[operator]
    (told,) = settled()
    taken = Path(os.environ["MPLCONFIGDIR"]).parent
    assert taken.parent == temporary
    assert taken.resolve() not in (planted, temporary / "theirs")
    assert str(taken) in told
    assert stat.S_IMODE(taken.stat().st_mode) == 0o700


def test_no_folder_is_trusted_that_others_may_replace(temporary: Path) -> None:
    temporary.chmod(0o777)
    (told,) = settled()
    assert "no temporary folder is safe" in told
    assert os.environ["MPLCONFIGDIR"] == NOWHERE
    assert os.environ.pop("CUPY_CACHE_IN_MEMORY") == "1"


def test_a_cache_that_can_be_written_is_left_alone(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that numba does not need, since it writes beside the code, too; the check leaves no file."""
    monkeypatch.setenv("MPLCONFIGDIR", str(temporary / "a" / "b"))
    monkeypatch.setenv("NUMBA_CACHE_DIR", NOWHERE)
    assert settled() == []
    assert list(temporary.iterdir()) == []
    assert os.environ["NUMBA_CACHE_DIR"] == NOWHERE


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="to mount takes the rights of root")
@pytest.mark.parametrize("home", ["read-only", "full"])
def test_installation_and_home_that_cannot_be_written(tmp_path: Path, home: str) -> None:
    """As in a container: labels are ingested, with one line about the caches, which are kept for the next command."""
    # the package of the commands below, which is not that of the tests where it is installed and tested from a clone
    show = [sys.executable, "-c", "import simexm; print(*simexm.__path__)"]
    package = subprocess.run(show, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.strip()
    script = f"""
        set -e
        mkdir home tmp; chmod 1777 tmp
        mount --bind {package} {package}; mount -o remount,ro,bind {package}
        if [ {home} = full ]; then
            mount -t tmpfs -o size=16k none home; head -c 20000 /dev/zero > home/fill 2> /dev/null || true
        else
            mount --bind home home; mount -o remount,ro,bind home
        fi
        python=$1
        $python -m simexm.cli ingest labels.tif -o a.zarr --voxel-size 40 32 32 --quiet 2> first
        touch made
        $python -m simexm.cli ingest labels.tif -o b.zarr --voxel-size 40 32 32 --quiet 2> second
    """
    tifffile.imwrite(tmp_path / "labels.tif", np.arange(8 * 16 * 16, dtype=np.uint32).reshape(8, 16, 16) // 300)
    kept = {k: v for k, v in os.environ.items() if k not in ("NUMBA_CACHE_DIR", "CUPY_CACHE_DIR", "MPLCONFIGDIR")}
    done = subprocess.run(
        ["unshare", "-m", "bash", "-c", script, "bash", sys.executable],
        cwd=tmp_path, env={**kept, "HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path / "tmp")},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + (tmp_path / "first").read_text()
    for name in ("first", "second"):
        told = [line for line in (tmp_path / name).read_text().splitlines() if "caches" in line]
        assert len(told) == 1
        assert told[0].startswith("warning: numba and matplotlib cannot write their caches")
    compiled = [path.stat().st_mtime for path in (tmp_path / "tmp" / "simexm-0" / "numba").rglob("*.nb?")]
    assert 0 < max(compiled) <= (tmp_path / "made").stat().st_mtime
    assert (tmp_path / "b.zarr" / "zarr.json").is_file()


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="to mount takes the rights of root")
def test_workers_that_can_share_no_locks_are_refused(tmp_path: Path) -> None:
    """Dask would wait for them without end."""
    code = "import simexm.jobs.local_cluster as c; c.local_client(1).__enter__()"
    script = 'umount -l /dev/shm 2> /dev/null; mount -t tmpfs -o ro none /dev/shm; "$@"'
    words = ["unshare", "-m", "bash", "-c", script, "bash", sys.executable, "-c", code]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert "RunError: worker processes cannot start, since processes cannot share locks" in done.stderr


def test_files_that_may_be_open() -> None:
    """The limit is raised as far as allowed; more workers than it allows are refused."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(100, soft), hard))
        assert machine.raise_open_files(200) == 200
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    code = "from simexm.machine import refuse_no_processes as r; r(2); r(9)"
    few = lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))  # noqa: E731
    done = subprocess.run([sys.executable, "-c", code], preexec_fn=few, capture_output=True, text=True)
    assert "RunError: 9 workers need about 134 open files" in done.stderr


def test_windows_is_refused_in_one_line() -> None:
    """By the command, and to a program that imports simexm."""
    begin = "import sys; sys.platform = 'win32'; "
    told = subprocess.run(
        [sys.executable, "-c", begin + "sys.argv[0] = 'x/simexm.exe'; import simexm.cli"], capture_output=True
    )
    assert told.returncode == 2
    assert told.stderr.decode().startswith("error: simexm runs on Linux and macOS, not on Windows")
    assert told.stderr.count(b"\n") == 1
    told = subprocess.run([sys.executable, "-c", begin + "import simexm"], capture_output=True)
    assert b"ImportError: simexm runs on Linux and macOS" in told.stderr
