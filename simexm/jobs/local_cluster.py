"""Start a Dask cluster on this machine for the length of a `with` block."""

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
from simexm.jobs.children import note_workers, why_no_workers
from simexm.jobs.nodes import LocalCluster, Nanny, Scheduler
from simexm.jobs.shared import shared
from simexm.machine import cpus, refuse_lost_folder, refuse_no_processes

CONFIG = {
    # Tasks wait at the scheduler, not at busy workers: a worker that dies loses only what it was running.
    "distributed.scheduler.worker-saturation": 1.0,
    # The executor counts deaths itself, block by block.
    "distributed.scheduler.allowed-failures": 0,
    # Dask holds no data: blocks write to disk and return a few hundred bytes. So there is nothing to spill, and a paused
    # worker would never resume. A worker above its limit is killed and its block is tried again.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 1.0,
    # Start fast; sample and store no more than the dashboard shows.
    "distributed.worker.profile.enabled": False,
    "distributed.diagnostics.nvml": False,
    "distributed.admin.system-monitor.gil.enabled": False,
    "distributed.admin.log-length": 1000,
    "distributed.admin.low-level-log-length": 100,
    "distributed.scheduler.dashboard.tasks.task-stream-length": 10000,
}

# Dask's timeout for the return of a dead worker. After it Dask closes the nanny, even if the worker is just being started
# again, and the cluster would lack a worker until its end. Nannies on this machine do not get lost.
_NEVER = "365 days"

_STARTS = 3  # attempts to start a cluster
_START_S = 180.0  # timeout for a worker to connect; its imports are slow, and the machine may be busy

# Each worker computes in one thread: threads of libraries would compete for the cores, and their number would change the
# order of sums. Libraries read these when they are loaded, so they are set before the process starts.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    "VECLIB_MAXIMUM_THREADS": "1",
    # By Dask's default each freed array is returned to the system at once, and the next one costs page faults again:
    # temporaries were measured 2 to 10 times slower. One arena keeps those below 32 MiB; larger ones would stay resident.
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "33554432",
    "MALLOC_TRIM_THRESHOLD_": "33554432",
}

_SET_BY_DASK = ("PYTHONHASHSEED", "__DASK_PARENT_PID")  # in this process, and never restored


@contextlib.contextmanager
def local_client(
    workers: int | None = None,
    memory_limit: int | str | None = None,
    dashboard: bool = True,
    gpus: Sequence[str] = (),
) -> Iterator[distributed.Client]:
    """Start worker processes of one thread each that only this process can reach, and yield a client.

    They listen on loopback, which any user of the machine can reach. So they use TLS, with a key made for this cluster,
    held in memory and passed to the workers through pipes. (OpenSSL reads keys from files only: each process writes it
    for an instant into a folder that only the user can read.)

    By default there is one process on each core that this process may use. A worker whose resident memory exceeds
    `memory_limit`, bytes or text such as "2 GiB", is killed and restarted. The dashboard (it needs bokeh) is on a free
    port and below a secret path. `gpus` are names as in CUDA_VISIBLE_DEVICES, empty on the CPU: each worker sees one of
    its own, and there is at most one worker for each.

    Raises SpecError if `workers` is below 1, or this process can start none, and RunError if workers cannot be started.
    """
    if workers is not None and workers < 1:
        raise SpecError(f"{workers} workers would compute nothing. Set --workers to 1 or more")
    refuse_lost_folder()
    if why := why_no_workers():
        raise SpecError(
            f"no workers can be started: {why}. Start them from another process, or spawn processes instead of forking them"
        )
    count = min(workers or len(gpus), len(gpus)) if gpus else workers or cpus()
    refuse_no_processes(count)
    note_workers()
    with (
        _settings(),
        tempfile.TemporaryDirectory(prefix="simexm-workers-", ignore_cleanup_errors=True) as folder,
        _started(count, memory_limit or 0, dashboard, gpus, folder) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,  # type: ignore[no-untyped-call]
    ):
        yield client


def _started(
    count: int, memory_limit: int | str, dashboard: bool, gpus: Sequence[str], folder: str
) -> distributed.SpecCluster:
    """Start a cluster with all its workers; try again if one does not start, as happens on overloaded machines."""
    security = Security.temporary()  # type: ignore[no-untyped-call]
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
            return LocalCluster(  # type: ignore[no-untyped-call]
                scheduler={"cls": Scheduler, "options": {**both, "dashboard": dashboard}},
                workers={n: {"cls": Nanny, "options": {**options, "env": envs[n]}} for n in range(count)},
                security=security,
                silence_logs=logging.CRITICAL,
            )
        except Exception as error:
            if not left:
                raise RunError(
                    f"{count} workers could not be started on this machine in {_STARTS} attempts: {_innermost(error)}. Check "
                    "the limits on processes, memory and open files (ulimit -a), or set fewer --workers"
                ) from error
    raise AssertionError


def _innermost(error: BaseException) -> str:
    """Return the message of the first error in a chain; Dask wraps it in errors that only say that a start failed."""
    while error.__cause__ is not None:
        error = error.__cause__
    return "".join(traceback.format_exception_only(error)).strip()


@shared
@contextlib.contextmanager
def _settings() -> Iterator[None]:
    """Set Dask's settings and environment variables for processes started meanwhile, and restore them afterwards."""
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
