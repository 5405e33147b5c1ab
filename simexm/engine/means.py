"""What computes the blocks of a run: a cluster of the user's, one of our own, or threads of this very process."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import psutil

from simexm.engine.children import why_none
from simexm.engine.events import Execute, Message
from simexm.engine.gpu import refuse_full, visible_gpus
from simexm.engine.plan import GiB, Plan
from simexm.engine.planning import smaller_tile
from simexm.engine.progress import LogFile
from simexm.engine.shared import shared
from simexm.errors import SimexmWarning, SpecError
from simexm.kernels import cupy_device
from simexm.machine import cpus
from simexm.store.place import Place

if TYPE_CHECKING:
    import distributed

    from simexm.engine.clusters import Cluster

HERE_SECONDS = 20.0
"""Where threads of this process are thought to need less, they do the work: to start workers, and to import all in each, takes
some five seconds of every core, and hundreds of MB. Many threads would get into each other's way."""
_HERE_THREADS = 4


@dataclass(frozen=True)
class Means:
    """Who computes.

    Attributes
    ----------
    client
        The user's cluster, if any.
    cluster
        One that is to be started as a cluster file says, if any.
    workers
        How many processes or threads of this machine, where there is neither.
    here
        Whether they are threads of this process.
    gpus
        GPUs of this machine that the workers share out, one each; none where the run computes on the CPU.
    """

    client: distributed.Client | None
    cluster: Cluster | None
    workers: int
    here: bool
    gpus: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        plan: Plan,
        client: distributed.Client | None = None,
        cluster: Cluster | None = None,
        workers: int | None = None,
    ) -> Means:
        """What fits a plan; see `Simulation.run` for the parameters.

        Raises
        ------
        SpecError
            If a worker, or its GPU, would have too little memory for a tile, or less than one is asked for.
        """
        gpus: tuple[str, ...] = ()
        if plan.world.device == "gpu" and not workers_have_gpus(client, cluster) and client is None:
            gpus = visible_gpus()
            refuse_full(plan, cupy_device.free_bytes())
        if client is not None or cluster is not None:
            _refuse_small_workers(plan, client, cluster)
            return cls(client, cluster, 0, False, gpus)
        blocks = len(plan.blocks)
        if workers is not None and workers > blocks:
            warnings.warn(
                f"{blocks} instead of {workers} workers: there are no more blocks, and others would be idle; set "
                f"execution.min_blocks to {workers} or more for smaller blocks, which cost more in all for their halos",
                SimexmWarning,
                stacklevel=2,
            )
        most = min(blocks, len(gpus) or cpus())
        fitting = _fitting_workers(most if workers is None else min(workers, blocks, len(gpus) or workers), plan)
        here = workers is None and plan.core_seconds < HERE_SECONDS * min(fitting, _HERE_THREADS)
        if not here and not gpus and (why := why_none()):
            here = True
            if workers is not None:
                warnings.warn(f"threads instead of workers: {why}; the bytes are the same", SimexmWarning, stacklevel=2)
        # one process for each GPU, and this one for the first
        return cls(None, None, fitting, fitting == 1 if gpus and workers is None else here, gpus)

    @contextlib.contextmanager
    def way(self, where: Place, blocks: int, quiet: bool) -> Iterator[Execute]:
        """How so many blocks are run, while a `with` block lasts."""
        if self.here:
            from simexm.engine.here import execute_here

            yield partial(execute_here, threads=self.workers)
            return
        from simexm.engine.executor import execute

        if self.client is not None:
            yield partial(execute, client=self.client, keep=_keeper(self.client))
            return
        if self.cluster is not None:
            log = LogFile(where.run / "log.txt")

            def tell(text: str) -> None:
                log(Message(text))
                if not quiet:
                    print(text, file=sys.stderr, flush=True)

            with _caller_hidden(), self.cluster.start(where.jobs, tell, blocks, self.gpus) as started:
                yield partial(execute, client=started, keep=_keeper(started))
            return
        from simexm.engine.cluster import local_client

        with _caller_hidden(), local_client(self.workers, gpus=self.gpus) as started:
            yield partial(execute, client=started)


def workers_have_gpus(client: distributed.Client | None, cluster: Cluster | None) -> bool | None:
    """Whether the jobs of a batch queue ask for GPUs; None where workers are not in such jobs."""
    if client is None and cluster is None:
        return None
    from simexm.engine.batch.files import BatchFile
    from simexm.engine.clusters import jobs_of

    jobs = jobs_of(client) if client is not None else None
    file = cluster.file if cluster is not None else jobs.file if jobs is not None else None
    return file.gpu is not None if isinstance(file, BatchFile) else None


def _keeper(client: distributed.Client) -> Callable[[int | None], Sequence[str]] | None:
    from simexm.engine.clusters import jobs_of

    jobs = jobs_of(client)
    return None if jobs is None else jobs.keep


def _refuse_small_workers(plan: Plan, client: distributed.Client | None, cluster: Cluster | None) -> None:
    from simexm.engine.clusters import jobs_of, refuse_plan

    jobs = jobs_of(client) if client is not None else None
    if cluster is not None:
        refuse_plan(plan, cluster.file)
    elif jobs is not None:
        refuse_plan(plan, jobs.file)


@shared
@contextlib.contextmanager
def _caller_hidden() -> Iterator[None]:
    """Keep new processes from importing the caller's script, of which they need nothing.

    A script without `if __name__ == "__main__":` would start its run anew in each worker. (Python's multiprocessing finds
    the script by these two names when it starts a process, and Dask starts one whenever a worker has died.)
    """
    main = sys.modules["__main__"]
    before: dict[str, Any] = {name: vars(main)[name] for name in ("__file__", "__spec__") if name in vars(main)}
    main.__spec__ = None
    vars(main).pop("__file__", None)
    try:
        yield
    finally:
        vars(main).update(before)


def _fitting_workers(count: int, plan: Plan) -> int:
    """As many workers as the machine's free memory holds; the tile stays as planned, for it decides bytes.

    Raises
    ------
    SpecError
        If not even one fits, or less than one is asked for.
    """
    if count < 1:
        raise SpecError(f"{count} workers would compute nothing; give 1 or more")
    needed = plan.memory.total
    free = psutil.virtual_memory().available
    if needed > free:
        raise SpecError(
            f"a worker needs {needed / GiB:.2f} GiB, but {free / GiB:.2f} GiB are free on this machine: it would be killed; "
            f"{smaller_tile(plan, free)}, or end other programs"
        )
    fitting = min(count, free // needed)
    if fitting < count:
        warnings.warn(
            f"{fitting} instead of {count} workers: each needs {needed / GiB:.2f} GiB and {free / GiB:.2f} GiB are free; "
            "lower execution.memory_GiB for smaller tiles and more workers",
            SimexmWarning,
            stacklevel=2,
        )
    return fitting
