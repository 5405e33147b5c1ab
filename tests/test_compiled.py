"""Functions that numba compiles at their first call."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from simexm.compiled import njit

INNER = """
from simexm.compiled import njit

@njit(cache=True)
def double(x: float) -> float:
    "Twice."
    return 2.0 * x

@njit(cache=True, inline="always")
def squared(x: float) -> float:
    return x * x
"""
OUTER = """
import inner
from inner import squared
from simexm.compiled import njit

@njit(cache=True, error_model="numpy")
def outer(x: float) -> float:
    return inner.double(squared(x)) / 0.0
"""
USE = """
import sys, outer, inner
assert "numba" not in sys.modules
assert inner.double.__doc__ == "Twice." and inner.double.py_func(1.5) == 3.0
assert outer.outer(3.0) == float("inf")  # numba's own error model would raise
hits = sum(outer.outer.stats.cache_hits.values())
print(hits, len(outer.outer.signatures), len(inner.double.inner.signatures))
"""


def test_compiled_at_the_first_call_and_kept_for_other_processes(tmp_path: Path) -> None:
    """The second process takes all from the cache, and so compiles nothing that is only called from compiled code."""
    for name, text in (("inner", INNER), ("outer", OUTER)):
        (tmp_path / f"{name}.py").write_text(text)
    told = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", USE],
            cwd=tmp_path,
            env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache")},
            capture_output=True,
            text=True,
        )
        assert not done.returncode, done.stderr
        told.append(done.stdout.split())
    assert told == [["0", "1", "1"], ["1", "1", "0"]]


def test_constants_and_counters_are_integers_like_others() -> None:
    """A function is compiled once for them, and so is all that it calls."""

    @njit()
    def after(n: int) -> int:
        return n + 1

    @njit()
    def six() -> int:
        n = 0
        for _ in range(2):
            n = after(n)
        return int(n + after(3))

    assert six() == 6
    assert len(after.inner.signatures) == 1
    assert after.signatures == []
    assert after(2) == 3, "from Python, too"
    assert len(after.signatures) == len(after.inner.signatures) == 1


def test_a_process_waits_for_another_one_that_compiles_and_loads_what_it_stored(tmp_path: Path) -> None:
    for name, text in (("inner", INNER), ("outer", OUTER)):
        (tmp_path / f"{name}.py").write_text(text)

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", USE],
            cwd=tmp_path,
            env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache")},
            stdout=subprocess.PIPE,
            text=True,
        )

    assert start().communicate()[0].split() == ["0", "1", "1"]
    (lock,) = (tmp_path / "cache").rglob("outer.outer-*.lock")
    stored = {path: path.read_bytes() for path in lock.parent.iterdir()}
    for path in stored.keys() - {lock}:
        path.unlink()
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        waiting = start()
        end_s = time.monotonic() + 60
        while str(lock) not in (file.path for file in psutil.Process(waiting.pid).open_files()):
            assert time.monotonic() < end_s
            time.sleep(0.05)
        for path in stored.keys() - {lock}:
            path.write_bytes(stored[path])
    assert waiting.communicate()[0].split() == ["1", "1", "0"]


@pytest.mark.slow
def test_a_torn_cache_is_made_again_and_one_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    for name, text in (("inner", INNER), ("outer", OUTER)):
        (tmp_path / f"{name}.py").write_text(text)
    cache = tmp_path / "cache"

    def use(**more: str) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-c", USE],
            cwd=tmp_path,
            env={**os.environ, "NUMBA_CACHE_DIR": str(cache), **more},
            capture_output=True,
            text=True,
        )
        assert not done.returncode, done.stderr
        return done.stdout.split()

    assert use() == ["0", "1", "1"]
    for pattern in ("*.nbi", "*.nbc"):
        for path in cache.rglob(pattern):
            path.write_bytes(path.read_bytes()[:20])
        assert use() == ["0", "1", "1"]
        assert use() == ["1", "1", "0"]
    assert use(NUMBA_CACHE_LOCATOR_CLASSES="IPythonCacheLocator") == ["0", "1", "1"]  # which takes no file of ours
