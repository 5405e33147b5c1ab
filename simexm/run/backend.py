"""Choose what computes the blocks of a run: the user's cluster, a new one, or threads of this process."""

from __future__ import annotations

import contextlib
import math
import reprlib
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence, Sized
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from simexm.arguments import whole_number
from simexm.errors import SimexmWarning, SpecError
from simexm.jobs.children import why_no_workers
from simexm.jobs.events import LOG, Execute, Message
from simexm.jobs.progress import LogFile
from simexm.jobs.shared import shared
from simexm.kernels.devices import cupy_device
from simexm.machine import MemoryLimit, cpus, memory_limits
from simexm.planning.gpu import refuse_full, visible_gpus
from simexm.planning.plan import Plan
from simexm.result.place import Place
from simexm.units import GiB, size

if TYPE_CHECKING:
    import distributed

    from simexm.jobs.batch.cluster_file import BatchFile, LocalFile
    from simexm.jobs.clusters import Cluster


class Work(Protocol):
    """The plan of a simulation or of an analysis, as far as the choice of workers depends on it."""

    @property
    def blocks(self) -> Sized: ...
    @property
    def core_seconds(self) -> float: ...
    @property
    def memory(self) -> WorkerMemory: ...
    @property
    def device(self) -> str: ...
    def smaller(self, nbytes: int) -> str:
        """Return what to type so that a worker with so many bytes suffices."""


class WorkerMemory(Protocol):
    """Predicted memory of a worker, bytes."""

    @property
    def total(self) -> int: ...
    @property
    def one_block(self) -> int: ...
    def at_once(self, blocks: int) -> int:
        """Return the peak of a process that computes so many blocks at once, in threads."""


THREADS_SECONDS = 20.0
"""A job of less expected time runs in threads of this process: to start workers costs each core some five seconds and hundreds
of MB. More than `_MOST_THREADS` threads do not speed it up further."""
_MOST_THREADS = 4


@dataclass(frozen=True)
class Backend:
    """What computes the blocks."""

    client: distributed.Client | None  # of the user's cluster
    cluster: Cluster | None  # to start from a cluster file
    workers: int  # processes or threads of this machine, if there is neither client nor cluster
    threads: bool  # whether these are threads of this process
    gpus: tuple[str, ...] = ()  # of this machine, one for each worker; empty on the CPU

    @classmethod
    def of(
        cls,
        work: Work,
        client: distributed.Client | None = None,
        cluster: Cluster | None = None,
        workers: int | None = None,
    ) -> Backend:
        """Choose workers for a plan; see `Simulation.run` for the parameters.

        Raises SpecError if a worker, or its GPU, has too little memory for a tile, or fewer than one worker is requested.
        """
        gpus: tuple[str, ...] = ()
        on_gpu = isinstance(work, Plan) and work.device == "gpu"
        if isinstance(work, Plan) and on_gpu and client is None and not workers_have_gpus(client, cluster):
            gpus = visible_gpus()
            refuse_full(work, cupy_device.free_bytes())
        if client is not None or cluster is not None:
            _refuse_small_workers(work, client, cluster)
            return cls(client, cluster, 0, False, gpus)
        workers = None if workers is None else whole_number("workers", workers, 1)
        blocks = _count(work)
        if workers is not None and workers > blocks:
            warnings.warn(
                f"{blocks} instead of {workers} workers: there are only {blocks} blocks, and the others would be idle; set "
                f"execution.min_blocks to {workers} or more for smaller blocks, whose halos cost more in total",
                SimexmWarning,
                stacklevel=2,
            )
        most = min(blocks, len(gpus) or cpus()) if workers is None else min(workers, blocks, len(gpus) or workers)
        # a single GPU is used by this process
        threads = workers is None and (most == 1 if gpus else _is_small(work, most))
        if not threads and not gpus and (why := why_no_workers()):
            threads = True
            if workers is not None:
                warnings.warn(f"threads instead of workers: {why}; the bytes are the same", SimexmWarning, stacklevel=2)
        return cls(None, None, _fitting(most, work, threads), threads, gpus)

    @property
    def at_once(self) -> int:
        """Number of blocks that one process computes at the same time."""
        return self.workers if self.threads else 1

    @contextlib.contextmanager
    def start(self, where: Place, blocks: int, quiet: bool) -> Iterator[Execute]:
        """Start the workers for at most so many blocks, and yield the function that runs blocks on them."""
        if self.threads:
            from simexm.jobs.threads import execute_in_threads

            yield partial(execute_in_threads, threads=self.workers)
            return
        from simexm.jobs.executor import execute

        with self.connected(where, blocks, quiet) as client:
            yield partial(execute, client=client, keep=_keeper(client))

    @contextlib.contextmanager
    def connected(self, where: Place, blocks: int, quiet: bool) -> Iterator[distributed.Client]:
        """Start the workers for at most so many blocks, unless they are threads, and yield their client."""
        if self.client is not None:
            yield self.client
            return
        if self.cluster is not None:
            log = LogFile(where.run / LOG)

            def report(text: str) -> None:
                log(Message(text))
                if not quiet:
                    print(text, file=sys.stderr, flush=True)

            with _caller_hidden(), self.cluster.start(where.jobs, report, blocks, self.gpus) as started:
                yield started
            return
        from simexm.jobs.local_cluster import local_client

        with _caller_hidden(), local_client(self.workers, gpus=self.gpus) as started:
            yield started


def check_types(client: Any, cluster: Any) -> None:
    """Raise SpecError unless these are None, or a Dask client and a cluster of a cluster file."""
    if client is not None:
        from distributed import Client

        if not isinstance(client, Client):
            raise SpecError(f"client is {reprlib.repr(client)}; pass a distributed.Client, or leave it out")
    if cluster is not None:
        from simexm.jobs.clusters import Cluster

        if not isinstance(cluster, Cluster):
            raise SpecError(
                f"cluster is {reprlib.repr(cluster)}; pass the return value of simexm.cluster(path), or leave it out"
            )


def threads_for(work: Work) -> int:
    """Return how many threads compute a small plan on this machine's CPU, memory apart; 0 if workers are started."""
    most = min(_count(work), cpus())
    return most if work.device == "cpu" and _is_small(work, most) else 0


def _count(work: Work) -> int:
    return work.count if isinstance(work, Plan) else len(work.blocks)


def _is_small(work: Work, threads: int) -> bool:
    return work.core_seconds < THREADS_SECONDS * min(threads, _MOST_THREADS)


def workers_have_gpus(client: distributed.Client | None, cluster: Cluster | None) -> bool | None:
    """Return whether the jobs of a batch queue request GPUs; None if workers are not in such jobs."""
    if client is None and cluster is None:
        return None
    from simexm.jobs.batch.cluster_file import BatchFile
    from simexm.jobs.clusters import jobs_of

    jobs = jobs_of(client) if client is not None else None
    file = cluster.file if cluster is not None else jobs.file if jobs is not None else None
    return file.gpu is not None if isinstance(file, BatchFile) else None


def _keeper(client: distributed.Client) -> Callable[[int | None], Sequence[str]] | None:
    from simexm.jobs.clusters import jobs_of

    jobs = jobs_of(client)
    return None if jobs is None else jobs.keep


def _refuse_small_workers(work: Work, client: distributed.Client | None, cluster: Cluster | None) -> None:
    from simexm.jobs.clusters import jobs_of

    jobs = jobs_of(client) if client is not None else None
    if cluster is not None:
        refuse_plan(work, cluster.file)
    elif jobs is not None:
        refuse_plan(work, jobs.file)


@shared
@contextlib.contextmanager
def _caller_hidden() -> Iterator[None]:
    """Keep new processes from importing the caller's script, which they do not need.

    A script without `if __name__ == "__main__":` would start its run again in each worker. (Python's multiprocessing
    finds the script by these two names when it starts a process, and Dask starts one whenever a worker dies.)
    """
    main = sys.modules["__main__"]
    before: dict[str, Any] = {name: vars(main)[name] for name in ("__file__", "__spec__") if name in vars(main)}
    main.__spec__ = None
    vars(main).pop("__file__", None)
    try:
        yield
    finally:
        vars(main).update(before)


def why_too_large(work: Work) -> str | None:
    """Return why a worker of a plan does not fit into this machine's memory; None if it does."""
    return next(filter(None, (_too_little(work, limit) for limit in memory_limits())), None)


def _too_little(work: Work, limit: MemoryLimit) -> str | None:
    needed = work.memory.total
    if needed <= limit.nbytes:
        return None
    return (
        f"a worker needs {size(needed)}, but {limit.in_words}: it would be killed; "
        f"{work.smaller(limit.nbytes)}, or {limit.remedy}"
    )


def _fitting(count: int, work: Work, threads: bool) -> int:
    """Lower the number of processes or threads to what memory allows; the tile stays as planned, since it decides bytes.

    Raises SpecError if not even one fits.
    """
    memory = work.memory
    needed = memory.total
    fitting = count
    for limit in memory_limits():
        why = _too_little(work, limit)
        if why:
            raise SpecError(why)
        if threads:
            fits = (limit.nbytes - memory.at_once(0)) // memory.one_block
        else:
            fits = count if limit.each else limit.nbytes // needed
        if fits < fitting:
            fitting, least = fits, limit
    if fitting < count:
        warnings.warn(
            f"{fitting} instead of {count} workers: each needs {size(needed)}, and {least.in_words}; "
            "lower execution.memory_GiB for smaller tiles and more workers",
            SimexmWarning,
            stacklevel=2,
        )
    return fitting


def refuse_plan(work: Work, file: LocalFile | BatchFile) -> None:
    """Raise SpecError if a plan's blocks need more memory than a worker has."""
    limit, needed = file.memory_per_worker, work.memory.total
    if limit is not None and needed > limit:
        raise SpecError(
            f"a worker needs {size(needed)}, but the cluster file allows {size(limit)}: it would be killed; set "
            f"memory_per_worker to {math.ceil(10 * needed / GiB) / 10:g} GiB or more there, or {work.smaller(limit)}"
        )
