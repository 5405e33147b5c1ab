"""Faults for the tests, in every Python process that finds this folder on its PYTHONPATH and is told where to look.

Python imports a module of this name when it starts; nothing of it exists in simexm. What `SIMEXM_TEST_FAULTS` names is a
folder: `fault.json` in it, if any, says what shall happen, where and how often (see `tests.faults.faults.Fault`), and
every block that is begun or ended is noted there.
"""

from __future__ import annotations

import errno
import functools
import importlib.machinery
import json
import os
import re
import signal
import sys
import time
from pathlib import Path
from typing import Any

FOLDER = Path(os.environ.get("SIMEXM_TEST_FAULTS", ""))
_current = {"block": -1}


def happen(point: str, name: str) -> None:
    """Do what `fault.json` wants, if this is the point, and as often as it says among all processes."""
    try:
        fault = json.loads((FOLDER / "fault.json").read_text())
    except (OSError, ValueError):
        return
    if fault["point"] != point or not re.search(fault["match"], name):
        return
    if fault["block"] is not None and fault["block"] != _current["block"]:
        return
    for n in range(fault["times"]):
        try:
            with (FOLDER / f"fired-{n}").open("x") as file:
                file.write(str(os.getpid()))
            break
        except FileExistsError:
            continue
    else:
        return
    act(fault["action"])


def act(action: str) -> None:
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif action == "raise":
        raise ValueError("this block is bad")
    elif action == "memory":
        hoard = []
        while True:  # until something kills this process
            hoard.append(b"x" * (32 << 20))
            time.sleep(0.02)
    else:
        code = getattr(errno, action)
        raise OSError(code, os.strerror(code))


def note(kind: str, text: str) -> None:
    with (FOLDER / f"{kind}-{os.getpid()}").open("a") as file:
        file.write(f"{text}\n")


def patch_files(module: Any) -> None:
    publish = module.publish

    @functools.wraps(publish)
    def faulty(partial: Path, path: Path) -> None:
        happen("before publish", str(path))
        publish(partial, path)
        happen("after publish", str(path))

    module.publish = faulty


def patch_worker(module: Any) -> None:
    for name in ("run_block", "count_block"):
        setattr(module, name, _noted(getattr(module, name)))


def _noted(run_block: Any) -> Any:
    @functools.wraps(run_block)
    def faulty(context: Any, number: int) -> Any:
        _current["block"] = number
        kind = "pass " if context.counting else ""
        note("begun", f"{kind}{number}")
        try:
            happen("before block", run_block.__name__)
            result = run_block(context, number)
            happen("after block", run_block.__name__)
        except BaseException as error:
            note("ended", f"{kind}{number} {type(error).__name__}: {error}")
            raise
        finally:
            _current["block"] = -1
        note("ended", f"{kind}{number}")
        return result

    return faulty


PATCHES = {"simexm.store.files": patch_files, "simexm.run.worker": patch_worker}


class Finder:
    """Wraps the loaders of the modules that are to be patched."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> Any:
        if name not in PATCHES:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        assert spec is not None
        assert spec.loader is not None
        execute = spec.loader.exec_module

        def exec_module(module: Any) -> None:
            execute(module)
            PATCHES[name](module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


if FOLDER.is_dir() and Path() != FOLDER:
    sys.meta_path.insert(0, Finder)
