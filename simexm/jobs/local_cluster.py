"""A Dask cluster on this machine, for as long as a `with` block lasts."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
import traceback
from collections.abc import Iterator, Sequence

import dask
import distributed
from distributed.security import Security

from simexm.errors import RunError, SpecError
from simexm.jobs.children import have_workers, why_none
from simexm.jobs.nodes import LocalCluster, Nanny, Scheduler
from simexm.jobs.shared import shared
from simexm.machine import cpus, refuse_lost_folder, refuse_no_processes

CONFIG = {
    # Tasks wait at the scheduler, not at busy workers: a worker that dies then takes only what it was running.
    "distributed.scheduler.worker-saturation": 1.0,
    # The executor counts deaths itself, block by block.
    "distributed.scheduler.allowed-failures": 0,
    # Dask sees none of our memory: blocks write to disk and return a few hundred bytes. So there is nothing to spill,
    # and a paused worker would never wake. A worker above its limit is killed and its block is tried again.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 1.0,
    # Start up fast, and let nothing sample or remember more than the dashboard shows.
    "distributed.worker.profile.enabled": False,
    "distributed.diagnostics.nvml": False,
    "distributed.admin.system-monitor.gil.enabled": False,
    "distributed.admin.log-length": 1000,
    "distributed.admin.low-level-log-length": 100,
    "distributed.scheduler.dashboard.tasks.task-stream-length": 10000,
}

# So long after a worker's death Dask closes its nanny if the worker is not there just then, be it that it died once more and
# is being started again: the cluster would be one worker short for good. Nannies of this machine need no such help.
_NEVER = "365 days"

_STARTS = 3  # tries to start a cluster
_START_S = 180.0  # until a worker that does not come is given up; it imports much, and the machine may be busy

# Each worker computes in one thread; libraries that start their own would fight over the cores, and the order in which
# they add would follow their number. These are read when a library is loaded, so they must stand before the process.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    "VECLIB_MAXIMUM_THREADS": "1",
    # Dask's default gives each freed array back to the system at once, and the next one costs its page faults again:
    # temporaries were measured 2 to 10 times slower. One arena keeps those below 32 MiB; larger ones would stay resident
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "33554432",
    "MALLOC_TRIM_THRESHOLD_": "33554432",
}

_SET_BY_DASK = ("PYTHONHASHSEED", "__DASK_PARENT_PID")  # in this process, and left there


@contextlib.contextmanager
def local_client(
    workers: int | None = None,
    memory_limit: int | str | None = None,
    dashboard: bool = True,
    gpus: Sequence[str] = (),
) -> Iterator[distributed.Client]:
    """Start worker processes of one thread each, reachable by nobody but this process, and yield a client.

    All of them listen on loopback, where any user of the machine could talk to them. So they talk over TLS, with a key that
    is made for this one cluster, is held in memory and goes to the workers through pipes. (OpenSSL takes keys from files only:
    each process writes it for an instant into a folder that only the user can read.)

    Parameters
    ----------
    workers
        Number of processes; None for one on each core that this process may use.
    memory_limit
        Resident memory of one worker, bytes or text such as "2 GiB", above which it is killed and started again; None
        for no limit.
    dashboard
        Whether to serve Dask's dashboard, on a free port and below an address that nobody guesses. Without bokeh there is none.
    gpus
        As CUDA_VISIBLE_DEVICES names them: each worker sees one of its own, and there are no more workers than these. None
        where workers compute on the CPU.

    Raises
    ------
    SpecError
        Fewer than one worker, or this process can start none.
    RunError
        Workers cannot be started.
    """
    if workers is not None and workers < 1:
        raise SpecError(f"{workers} workers would compute nothing. Give --workers 1 or more")
    refuse_lost_folder()
    if why := why_none():
        raise SpecError(
            f"there can be no workers: {why}. Start them elsewhere, or spawn processes instead of forking them"
        )
    count = min(workers or len(gpus), len(gpus)) if gpus else workers or cpus()
    refuse_no_processes(count)
    have_workers()
    with (
        _settings(),
        tempfile.TemporaryDirectory(prefix="simexm-workers-", ignore_cleanup_errors=True) as folder,
        _started(count, memory_limit or 0, dashboard, gpus, folder) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        yield client


def _started(
    count: int, memory_limit: int | str, dashboard: bool, gpus: Sequence[str], folder: str
) -> distributed.SpecCluster:
    """A cluster whose workers are there; tried again where one did not come up, as happens on machines that are overloaded."""
    security = Security.temporary()
    both = {"security": security, "protocol": "tls://", "host": "127.0.0.1"}
    options = {
        **both,
        "nthreads": 1,
        "memory_limit": memory_limit,
        "silence_logs": logging.CRITICAL,
        "local_directory": folder,
        "preload": ["simexm.jobs.task"],
        "death_timeout": _START_S,
    }
    env = {"NUMBA_NUM_THREADS": "1"}  # set inside the worker only: this process may have numba threads running
    envs = [env | {"CUDA_VISIBLE_DEVICES": gpu} for gpu in gpus] or [env] * count
    for left in reversed(range(_STARTS)):
        try:
            return LocalCluster(
                scheduler={"cls": Scheduler, "options": {**both, "dashboard": dashboard}},
                workers={n: {"cls": Nanny, "options": {**options, "env": envs[n]}} for n in range(count)},
                security=security,
                silence_logs=logging.CRITICAL,
            )
        except Exception as error:
            if not left:
                raise RunError(
                    f"{count} workers could not be started on this machine, {_STARTS} times: {_innermost(error)}. Look for "
                    "limits on processes, memory or open files (ulimit -a), or give fewer --workers"
                ) from error
    raise AssertionError


def _innermost(error: BaseException) -> str:
    """What an error says that was raised first of all; Dask wraps it in others that say only that something did not start."""
    while error.__cause__ is not None:
        error = error.__cause__
    return "".join(traceback.format_exception_only(error)).strip()


@shared
@contextlib.contextmanager
def _settings() -> Iterator[None]:
    """Dask's settings and environment variables, for processes started meanwhile; what they were before comes back."""
    with dask.config.set({**CONFIG, "distributed.deploy.lost-worker-timeout": _NEVER}):
        before = {name: os.environ.get(name) for name in (*ENVIRONMENT, *_SET_BY_DASK)}
        os.environ.update(ENVIRONMENT)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value
