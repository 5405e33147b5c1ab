"""A driver that is killed or stopped from outside, and what the next one does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from simexm.errors import OutputError
from simexm.jobs.executor import MOST_BLOCKS, TASKS_PER_THREAD
from simexm.jobs.journal import Journal
from simexm.jobs.lock import lock
from tests.jobs import blocks as work

BLOCKS = 600
ROOT = Path(__file__).parents[2]


def start_driver(folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.jobs.blocks", str(folder), str(BLOCKS)]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True)


def wait_for_segments(folder: Path, driver: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 30
    while len(list((folder / "journal").glob("*.jsonl"))) < 2:
        assert driver.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)


def recorded(folder: Path) -> set[int]:
    return {record.block for record in Journal.open(folder / "journal", "hash").records()}


@pytest.mark.slow
def test_killed_driver_is_resumed_without_doing_blocks_again(tmp_path: Path) -> None:
    driver = start_driver(tmp_path)
    wait_for_segments(tmp_path, driver)
    workers = psutil.Process(driver.pid).children(recursive=True)
    with pytest.raises(OutputError, match=rf"kill {driver.pid}"), lock(tmp_path / "lock"):
        pass
    driver.kill()
    driver.communicate()
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert alive == []  # workers end with their driver
    first = work.counts(tmp_path)
    done = recorded(tmp_path)
    assert 0 < len(done) < BLOCKS
    assert done <= set(first)

    work.drive(tmp_path, BLOCKS)
    assert recorded(tmp_path) == set(range(BLOCKS))
    both = work.counts(tmp_path)
    assert all(both[block] == 1 for block in done)
    assert all(both[block] <= 2 for block in range(BLOCKS))
    # What was done again: blocks in the window, and those of the last second before the kill (0.01 s each, two workers).
    assert sum(both.values()) - BLOCKS <= 2 * (TASKS_PER_THREAD + 1) * MOST_BLOCKS
    assert not (tmp_path / "lock").exists()


@pytest.mark.slow
def test_ctrl_c_in_a_terminal_ends_all_quietly_and_keeps_blocks(tmp_path: Path) -> None:
    driver = start_driver(tmp_path)
    wait_for_segments(tmp_path, driver)
    os.killpg(driver.pid, signal.SIGINT)  # as a terminal does: driver and workers alike
    _, text = driver.communicate(timeout=20)
    assert driver.returncode != 0
    assert text.count("Traceback") == 1  # the driver's own KeyboardInterrupt, which a command line catches
    assert text.rstrip().endswith("KeyboardInterrupt")
    assert not (tmp_path / "lock").exists()
    assert 0 < len(recorded(tmp_path)) < BLOCKS
    assert recorded(tmp_path) <= set(work.counts(tmp_path))
