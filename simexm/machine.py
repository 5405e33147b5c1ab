"""What this machine gives to this process."""

from __future__ import annotations

import contextlib
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

from simexm.errors import RunError, SpecError

if TYPE_CHECKING:
    import psutil

_CGROUP = Path("/sys/fs/cgroup")


def cpus() -> int:
    """CPUs that this process may use: those that it is bound to, and no more than its control group's quota.

    As `dask.system.CPU_COUNT`, whose import takes longer than a small run's planning.
    """
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(count, _quota()))


def refuse_lost_folder() -> None:
    """Refuse to work in a folder that is gone: relative paths would lead nowhere, and no worker could start.

    Raises
    ------
    SpecError
        It was removed, or the disk that it is on.
    """
    try:
        os.getcwd()
    except OSError as error:
        raise SpecError(
            f"the folder that you are in is gone ({error.strerror}): no path and no worker can start from it; type cd FOLDER to "
            "one that is there, then the command again"
        ) from error


def refuse_no_processes(count: int) -> None:
    """Refuse to start worker processes where none would come up: Dask would wait for them for ever.

    Raises
    ------
    RunError
        With what stands in the way.
    """
    import multiprocessing
    import resource

    import psutil

    try:
        multiprocessing.get_context("spawn").Lock()
    except OSError as error:
        raise RunError(
            f"no worker process can be started, since processes cannot share locks here (/dev/shm: {error.strerror}): make "
            "/dev/shm writable (docker run --tmpfs /dev/shm), or leave --workers out where the run is small enough for threads"
        ) from error
    _refuse_few_files(count)
    limit, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    if limit == resource.RLIM_INFINITY or os.geteuid() == 0 or limit > _MANY:
        return
    running = sum(p.info["num_threads"] or 0 for p in psutil.process_iter(["uids", "num_threads"]) if _is_mine(p))
    needed = running + _DRIVER_THREADS + count * _WORKER_THREADS
    if needed > limit:
        raise RunError(
            f"{count} workers would need about {needed - running} more processes and threads, but you may have {limit} and "
            f"{running} are there: they would never come up; raise that (ulimit -u), or give fewer --workers"
        )


def _refuse_few_files(count: int) -> None:
    wanted = _DRIVER_FILES + count * _WORKER_FILES
    allowed = raise_open_files(wanted)
    if wanted > allowed:
        raise RunError(
            f"{count} workers would take about {wanted} open files and connections of this process, and {allowed} are allowed: "
            "they would never come up; raise that (ulimit -n), or give fewer --workers"
        )


def raise_open_files(wanted: int) -> int:
    """Let this process have so many files and connections open, or as many as the system lets it; how many that are."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return max(soft, wanted)
    more = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (more, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def _is_mine(process: psutil.Process) -> bool:
    uids = process.info["uids"]
    return uids is not None and uids.real == os.getuid()


_DRIVER_THREADS, _WORKER_THREADS = 10, 5
"""As many as were counted, one or two more; numba and BLAS start none in workers."""
_MANY = 10_000
_DRIVER_FILES, _WORKER_FILES = 26, 12


def _quota() -> int:
    """CPUs of the control group's quota, versions 2 and 1; a large number where there is none."""
    try:
        if (_CGROUP / "cpu.max").is_file():
            quota, period = (_CGROUP / "cpu.max").read_text().split()
        else:
            quota, period = ((_CGROUP / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        if quota != "max" and int(quota) > 0:
            return math.ceil(int(quota) / int(period))
    except (OSError, ValueError):
        pass
    return 1 << 30
