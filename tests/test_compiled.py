"""Functions that numba compiles at their first call."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

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
print(hits, len(outer.outer.signatures), len(inner.double.signatures))
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
