"""A Dask cluster on this machine, for as long as a `with` block lasts."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import dask
import distributed

from simexm.errors import SpecError
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


@contextlib.contextmanager
def local_client(
    workers: int | None = None,
    memory_limit: int | str | None = None,
    dashboard: bool = True,
    gpus: Sequence[str] = (),
) -> Iterator[distributed.Client]:
    """Start worker processes of one thread each, reachable from this machine only, and yield a client.

    Parameters
    ----------
    workers
        Number of processes; None for one on each core that this process may use.
    memory_limit
        Resident memory of one worker, bytes or text such as "2 GiB", above which it is killed and started again; None
        for no limit.
    dashboard
        Whether to serve Dask's dashboard, on a free port. Without bokeh there is none.
    gpus
        As CUDA_VISIBLE_DEVICES names them: each worker sees one of its own, and there are no more workers than these. None
        where workers compute on the CPU.

    Raises
    ------
    SpecError
        Fewer than one worker.
    """
    if workers is not None and workers < 1:
        raise SpecError(f"{workers} workers would compute nothing. Give --workers 1 or more")
    refuse_lost_folder()
    refuse_no_processes(len(gpus) or workers or cpus())
    has_dashboard = dashboard and importlib.util.find_spec("bokeh") is not None
    config = {**CONFIG, "distributed.deploy.lost-worker-timeout": _NEVER}
    if not has_dashboard:
        config["distributed.dashboard.link"] = ""  # or one that leads nowhere would be shown
    with (
        dask.config.set(config),
        _environment(ENVIRONMENT),
        tempfile.TemporaryDirectory(prefix="simexm-workers-", ignore_cleanup_errors=True) as folder,
        _LocalCluster(
            gpus,
            n_workers=0 if gpus else workers or cpus(),
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",  # even without: Dask's web server would take 8787 and warn where it cannot
            scheduler_kwargs={"dashboard": has_dashboard},
            memory_limit=memory_limit or 0,
            silence_logs=logging.CRITICAL,
            local_directory=folder,
            env={"NUMBA_NUM_THREADS": "1"},  # set inside the worker only: this process may have numba threads running
            preload=["simexm.engine.task"],
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        if gpus:
            count = min(workers or len(gpus), len(gpus))
            cluster.scale(count)
            client.wait_for_workers(count)
        yield client


class _LocalCluster(distributed.LocalCluster):
    """Workers of which each sees one GPU."""

    def __init__(self, gpus: Sequence[str], **options: Any) -> None:
        self._gpus = tuple(gpus)
        super().__init__(**options)

    def new_worker_spec(self) -> dict[Any, Any]:
        """See `distributed.SpecCluster`."""
        made: dict[Any, Any] = super().new_worker_spec()
        if not self._gpus:
            return made
        taken = {spec["options"]["env"]["CUDA_VISIBLE_DEVICES"] for spec in self.worker_spec.values()}
        gpu = next(g for g in self._gpus if g not in taken)
        for name, spec in made.items():  # one
            env = {**spec["options"]["env"], "CUDA_VISIBLE_DEVICES": gpu}
            made[name] = {**spec, "options": {**spec["options"], "env": env}}
        return made


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables, for processes started meanwhile; what they were before comes back."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
