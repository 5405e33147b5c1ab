"""Two drivers never hold one output."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from simexm.engine.lock import lock
from simexm.errors import OutputError


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


def test_lock_of_a_dead_process_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    die = "import os, pathlib, sys, simexm.engine.lock as m\nwith m.lock(pathlib.Path(sys.argv[1])): os._exit(1)"
    subprocess.run([sys.executable, "-c", die, str(path)], check=False)
    assert path.exists()
    with lock(path):
        assert json.loads(path.read_text())["pid"] == os.getpid()


def test_lock_of_another_host_is_refused_with_what_to_type(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_text(json.dumps({"host": "elsewhere", "pid": 1, "started": "2026-01-01"}))
    with pytest.raises(OutputError, match=rf"elsewhere.*{socket.gethostname()}.*rm '"), lock(path):
        pass
    assert path.exists()


def test_lock_torn_by_a_crash_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_text('{"host": "he')
    with lock(path):
        pass


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


def test_many_at_once_never_hold_it_together(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    arguments = (tmp_path / "lock", tmp_path / "inside", 50)
    processes = [context.Process(target=_enter_and_count, args=arguments) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
