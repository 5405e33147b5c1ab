"""Two drivers never hold one output."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from simexm.errors import OutputError
from simexm.jobs import lock as module
from simexm.jobs.lock import lock
from simexm.jobs.lock_owner import STALE_S, Holder, holder


def test_second_driver_is_refused_until_the_first_ends(tmp_path: Path) -> None:
    path = tmp_path / "out.run" / "lock"
    with lock(path):
        assert json.loads(path.read_text())["pid"] == os.getpid()
        with pytest.raises(OutputError, match=rf"process {os.getpid()} on .* kill {os.getpid()}"), lock(path):
            pass
        assert path.exists()
    assert not path.exists()
    with lock(path):
        pass


def test_what_stopped_the_work_is_told_where_the_lock_cannot_be_removed_either(tmp_path: Path) -> None:
    """As on a disk that became read-only; the next driver takes it all the same."""
    path = tmp_path / "out.run" / "lock"

    def work() -> None:
        with lock(path):
            path.parent.rename(tmp_path / "away")
            path.parent.write_text("a file, below which nothing can be looked at")
            raise InterruptedError

    with pytest.raises(InterruptedError):
        work()
    with lock(tmp_path / "away" / "lock"):
        pass


def test_lock_of_a_dead_process_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    die = "import os, pathlib, sys, simexm.jobs.lock as m\nwith m.lock(pathlib.Path(sys.argv[1])): os._exit(1)"
    subprocess.run([sys.executable, "-c", die, str(path)], check=False)
    assert path.exists()
    with lock(path):
        assert json.loads(path.read_text())["pid"] == os.getpid()


def test_lock_of_a_dead_host_is_told_from_that_of_a_live_one(tmp_path: Path) -> None:
    """A live holder touches its lock; where its kernel cannot be asked, that decides."""
    path = tmp_path / "lock"
    path.write_text(json.dumps({"host": "elsewhere", "machine": "another kernel", "pid": 1}))
    age(path, 0.5 * STALE_S)
    with (
        pytest.raises(OutputError, match=r"process 1 on elsewhere, .* 45 s ago.*same command again in 45 s"),
        lock(path),
    ):
        pass
    assert "elsewhere" in path.read_text()
    age(path, STALE_S + 1)
    with lock(path):
        assert json.loads(path.read_text())["pid"] == os.getpid()
    assert not path.exists()


def test_holder_shows_that_it_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BEAT_S", 0.05)
    path = tmp_path / "lock"
    with lock(path):
        age(path, 1000)
        time.sleep(0.3)
        assert time.time() - path.stat().st_mtime < 10


def test_file_system_without_advisory_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There the beat alone decides, on the same machine, too; and one only of several takes a stale lock over."""

    def none(descriptor: int, path: Path, patience_s: float) -> bool:
        return False

    monkeypatch.setattr(module, "_flock", none)
    monkeypatch.setattr(module, "_SETTLE_S", 0.2)
    path = tmp_path / "lock"
    with lock(path), pytest.raises(OutputError, match="last heartbeat was 0 s ago"), lock(path):
        pass
    path.write_text(json.dumps({"host": "elsewhere", "machine": "another kernel", "pid": 1}))
    age(path, STALE_S + 1)
    with lock(path), pytest.raises(OutputError), lock(path):
        pass


def test_lock_torn_by_a_crash_is_taken_over_when_it_is_old(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_text('{"host": "he')
    with pytest.raises(OutputError, match="an unknown host"), lock(path):
        pass
    age(path, STALE_S + 1)
    with lock(path):
        pass


def age(path: Path, seconds: float) -> None:
    """Let a file look as if it was touched some time ago."""
    os.utime(path, (time.time() - seconds,) * 2)


def test_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write"), lock(tmp_path / "file" / "lock"):
        pass


def _enter_and_count(path: Path, inside: Path, held: int) -> None:
    for _ in range(held):
        while True:
            try:
                with lock(path):
                    inside.touch(exist_ok=False)  # fails if another is in here
                    inside.unlink()
                break
            except OutputError:
                continue


def test_looking_at_a_lock_tells_whether_its_holder_lives(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert holder(path) is None
    with lock(path):
        assert holder(path) == Holder(socket.gethostname(), os.getpid(), True)
        told = json.loads(path.read_text())
    with subprocess.Popen([sys.executable, "-c", "pass"]) as ended:
        pass
    for owner, seconds, alive in (
        (told, 0.0, True),
        ({**told, "pid": ended.pid}, 0.0, False),
        (told, 1e7, False),  # this process began later: it only got the number of the one that held the lock
        ({**told, "host": "elsewhere"}, STALE_S / 2, True),
        ({**told, "host": "elsewhere"}, STALE_S * 2, False),
    ):
        path.write_text(json.dumps(owner))
        age(path, seconds)
        assert holder(path) == Holder(owner["host"], owner["pid"], alive), seconds
    path.write_text("{torn")
    assert holder(path) is None


def test_many_at_once_never_hold_it_together(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    arguments = (tmp_path / "lock", tmp_path / "inside", 50)
    processes = [context.Process(target=_enter_and_count, args=arguments) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
