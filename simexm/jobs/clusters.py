"""Start the workers of a cluster file: on this machine, or in the jobs of a batch queue."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import signal
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import dask
import distributed
from distributed.security import Security

from simexm.errors import RunError, SimexmWarning, SpecError
from simexm.jobs.batch import cluster_file, options, scripts
from simexm.jobs.batch.cluster import Jobs, cluster_class
from simexm.jobs.batch.cluster_file import BatchFile, ClusterFile, LocalFile
from simexm.jobs.batch.queues import QUEUES
from simexm.jobs.batch.record import Record, clear_queue
from simexm.jobs.batch.values import parse_jobs
from simexm.jobs.local_cluster import CONFIG, local_client
from simexm.jobs.lock import lock
from simexm.jobs.nodes import Scheduler
from simexm.jobs.shared import shared
from simexm.machine import raise_open_files
from simexm.store.location import usable

_POLL_S = 0.25
_FILES, _FILES_PER_WORKER = 256, 2
"""Open files of a driver, mostly connections; the usual limit of a login node, 1024, may not be enough."""
_PLACEHOLDER = "tcp://<driver>:0"


class Cluster:
    """Workers that can be started. Made by `simexm.cluster`.

    Use it as a context manager for a Dask client, or pass it to `Simulation.run`, which starts it after all checks.

    Attributes
    ----------
    file
        Content of the cluster file.
    jobs
        Smallest and largest number of jobs.
    """

    def __init__(self, file: ClusterFile, jobs: tuple[int, int] | None = None) -> None:
        if isinstance(file, LocalFile) and jobs is not None:
            raise SpecError("jobs are for batch queues, but the cluster file's kind is local; leave --jobs out")
        self.file = file
        self.jobs = jobs or (file.jobs if isinstance(file, BatchFile) else (1, 1))
        self._stack: contextlib.ExitStack | None = None
        if isinstance(file, BatchFile):
            self.job_script()  # raises early if dask-jobqueue cannot use the cluster file

    def job_script(self, folder: Path | None = None) -> str:
        """Make the script of a job of workers, as it would be submitted; empty if workers run on this machine.

        Raises SpecError if dask-jobqueue cannot make one.
        """
        if not isinstance(self.file, BatchFile):
            return ""
        record = Record(folder or Path("simexm-jobs"))
        try:
            with _settings(self.file.kind)():
                made = scripts.job_options(self.file, record.name, record.folder, _credential_paths(record.folder))
                job = cluster_class(self.file.kind).job_cls(_PLACEHOLDER, name="<worker>", **made)
                text: str = job.job_script()
        except (TypeError, ValueError, KeyError) as error:
            hint = "; set options: {lsf_units: mb}" if isinstance(error, KeyError) else ""
            raise SpecError(
                f"the installed dask-jobqueue cannot make a job script from this cluster file: {type(error).__name__}: "
                f"{error}{hint}"
            ) from error
        return text

    @contextlib.contextmanager
    def start(
        self, folder: Path, report: Callable[[str], None], most_blocks: int | None = None, gpus: Sequence[str] = ()
    ) -> Iterator[distributed.Client]:
        """Start the workers, wait for the first, and yield a client; all jobs are cancelled afterwards.

        Parameters
        ----------
        folder
            For records and output of jobs; nothing else may use it meanwhile.
        report
            Called with messages for the user while it waits.
        most_blocks
            Number of blocks to do, above which there are no workers.
        gpus
            GPUs of this machine for workers on it, one each; empty on the CPU.
        """
        if not isinstance(self.file, BatchFile):
            with local_client(self.file.workers, self.file.memory_per_worker, gpus=gpus) as client:
                yield client
            return
        with contextlib.ExitStack() as stack:
            client, jobs = _submit(stack, self.file, Record(folder), self.jobs)
            while True:
                for text in jobs.keep(most_blocks):
                    report(text)
                if jobs.workers:
                    break
                time.sleep(_POLL_S)
            yield client

    def __enter__(self) -> distributed.Client:
        folder = Path("simexm-jobs").resolve()
        with contextlib.ExitStack() as stack:
            if isinstance(self.file, BatchFile):
                Record(folder).make()
                stack.enter_context(lock(folder / "lock"))
                Record(folder).cancel_leftovers()
            client = stack.enter_context(self.start(folder, print))
            self._stack = stack.pop_all()
        return client

    def __exit__(self, *exc: Any) -> None:
        assert self._stack is not None
        self._stack.__exit__(*exc)
        self._stack = None


def cluster(path: str | Path, jobs: int | str | tuple[int, int] | None = None) -> Cluster:
    """Read a cluster file.

    Parameters
    ----------
    path
        See `cluster_configs/` for examples to edit.
    jobs
        Number of jobs, or smallest and largest number; by default that of the file.

    Raises
    ------
    SpecError
        The file or the number of jobs is wrong.

    Examples
    --------
    >>> with simexm.cluster("cluster_configs/slurm.yaml", jobs=(2, 10)) as client:  # doctest: +SKIP
    ...     simexm.Simulation.load("my.yaml").run("out.zarr", client=client)
    """
    try:
        return Cluster(cluster_file.read(Path(usable(path))), None if jobs is None else parse_jobs(jobs))
    except ValueError as error:
        if isinstance(error, SpecError):
            raise
        raise SpecError(f"jobs: {error}") from None


def jobs_of(client: distributed.Client) -> Jobs | None:
    """Return the batch jobs in which a client's workers run, if `Cluster` started them."""
    found = getattr(client.cluster, "simexm_jobs", None)
    return found if isinstance(found, Jobs) else None


@functools.cache
def _settings(kind: str) -> Callable[[], AbstractContextManager[None]]:
    """Set Dask's configuration for jobs: simexm's, and none of the user's for job queues."""
    return shared(lambda: dask.config.set({**CONFIG, f"jobqueue.{kind}": options.defaults(kind)}))


def _credential_paths(folder: Path) -> dict[str, Path]:
    return {
        "distributed.comm.tls.ca-file": folder / "tls-ca.pem",
        "distributed.comm.tls.worker.cert": folder / "tls-worker.pem",
        "distributed.comm.tls.worker.key": folder / "tls-worker.key",
    }


def _submit(
    stack: contextlib.ExitStack, file: BatchFile, record: Record, limits: tuple[int, int]
) -> tuple[distributed.Client, Jobs]:
    """Start the scheduler; closing `stack` ends it and all jobs."""
    kind = file.kind
    raise_open_files(_FILES + _FILES_PER_WORKER * limits[1] * file.workers)
    stack.enter_context(_settings(kind)())
    record.make()
    security = Security.temporary() if file.tls else None  # type: ignore[no-untyped-call]
    paths = _credential_paths(record.folder)
    if security is not None:
        tls = security.get_tls_config_for_role("worker")
        stack.enter_context(_private(dict(zip(paths.values(), (tls["ca_file"], tls["cert"], tls["key"]), strict=True))))
    try:
        started = cluster_class(kind)(
            **scripts.job_options(file, record.name, record.folder, paths),
            security=security,
            silence_logs=logging.CRITICAL,
            scheduler_cls=Scheduler,
            scheduler_options={**_listen(file), "dashboard": True, "dashboard_address": "127.0.0.1:0", "port": 0},
            submitted=lambda job: record.submitted(kind, job),
        )
    except (OSError, RuntimeError) as error:
        raise RunError(f"the scheduler cannot be started on the interface {file.interface!r}: {error}") from error
    started.simexm_jobs = Jobs(started, file, record, limits)
    stack.callback(_end, started, record, kind)
    client = distributed.Client(started, set_as_default=False)  # type: ignore[no-untyped-call]
    stack.callback(client.close)
    if started.dashboard_link:  # in a file, since a driver in a job has no terminal, and others may read its output
        stack.enter_context(_private({record.folder / "dashboard.txt": started.dashboard_link + "\n"}))
    return client, started.simexm_jobs


def _listen(file: BatchFile) -> dict[str, str]:
    """Return the address on which the scheduler listens; never all of them."""
    if file.interface == "auto":
        return {"host": distributed.utils.get_ip()}  # type: ignore[no-untyped-call]
    try:
        return {"host": distributed.utils.get_ip_interface(file.interface)}  # type: ignore[no-untyped-call]
    except ValueError as error:
        known = ", ".join(name for _, name in socket.if_nameindex())
        raise SpecError(
            f"interface: {socket.gethostname()} has no network interface {file.interface!r} with an address; it has {known}"
        ) from error


def _end(started: Any, record: Record, kind: str) -> None:
    """Cancel every job and end the scheduler, whatever signals arrive."""
    with _signals_ignored():
        queue = QUEUES[kind]
        queue.cancel(queue.states(record.name) or ())  # with one command
        for job in list(started.workers.values()):
            job.job_id = None  # or Dask would cancel each by a command of its own
        with contextlib.suppress(Exception):
            started.close(timeout=30)
        left = clear_queue(queue, record.name)
        if left is None or left:
            which = " ".join(left or (entry["id"] for entry in record.jobs()))
            warnings.warn(
                f"the queue did not end all jobs in time: check with `{queue.list_command}`, and cancel them: "
                f"{queue.cancel_command} {which}",
                SimexmWarning,
                stacklevel=2,
            )
        else:
            record.write_state(kind, {}, 0)


@contextlib.contextmanager
def _signals_ignored() -> Iterator[None]:
    """Ignore Ctrl-C and SIGTERM for the length of the block."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _private(texts: Mapping[Path, str]) -> Iterator[None]:
    """Write files that only the user can read, for the length of the block."""
    try:
        for path, text in texts.items():
            path.unlink(missing_ok=True)
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
                file.write(text)
        yield
    finally:
        for path in texts:
            path.unlink(missing_ok=True)
