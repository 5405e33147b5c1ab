"""The workers of a Dask client as the executor sees them, and the loss of their scheduler."""

from __future__ import annotations

import contextlib
import time
from concurrent.futures import CancelledError
from typing import Any

import distributed

from simexm.errors import RunError
from simexm.jobs.task import Work

# Raised by calls to a scheduler that is gone: comm errors are OSErrors; a closed client raises the other two.
_GONE = (OSError, CancelledError, ValueError)


class Workers:
    """The workers of `client`."""

    def __init__(self, client: distributed.Client) -> None:
        self.client: Any = client  # its methods are untyped
        self.threads: dict[str, int] = {}  # by address, as of the last `refresh`
        self.absent_s = 0.0  # time without any worker
        self._asked_s = time.monotonic()
        self._ask()

    @property
    def total_threads(self) -> int:
        return sum(self.threads.values())

    @property
    def scheduler(self) -> str:
        return str(self.client.scheduler.address) if self.client.scheduler else "an unknown address"

    @property
    def dashboard(self) -> str | None:
        """Link to the dashboard, if there is one."""
        try:
            return self.client.dashboard_link or None
        except KeyError:  # a scheduler that was started without one
            return None

    def refresh(self, max_age_s: float) -> bool:
        """Ask the scheduler for its workers if the last answer is older than `max_age_s`; return whether it was.

        Raises RunError if the scheduler is lost.
        """
        age_s = time.monotonic() - self._asked_s
        if age_s < max_age_s:
            return False
        self._asked_s += age_s
        self._ask()
        self.absent_s = 0.0 if self.threads else self.absent_s + age_s
        return True

    def _ask(self) -> None:
        try:
            self.threads = dict(self.client.nthreads())
        except _GONE as error:
            raise self.lost(error) from error

    def other_than(self, worker: str, choice: int) -> str | None:
        """Choose a worker other than `worker`, on another host where there is one; None if there is no other."""
        others = [other for other in self.threads if other != worker]
        candidates = [other for other in others if _host(other) != _host(worker)] or others
        return candidates[choice % len(candidates)] if candidates else None

    def install(self, work: Work) -> None:
        """Send `work` to all workers, those that join later included.

        Raises RunError if a worker cannot load it, or the scheduler is lost.
        """
        try:
            self.client.register_plugin(work)
        except (OSError, CancelledError) as error:
            raise self.lost(error) from error
        except Exception as error:
            raise cannot_load(f"{type(error).__name__}: {error}") from error

    def forget_history(self) -> None:
        """Empty the lists in which Dask's spans store some 300 bytes for each submission and never free them."""
        with contextlib.suppress(Exception):  # saves memory only: a scheduler without spans runs as well
            self.client.run_on_scheduler(_forget_submissions)

    def retire(self, worker: str) -> None:
        """Shut a worker down gracefully; does not wait for it."""
        if (scheduler := self.client.scheduler) is not None:
            self.client.loop.add_callback(scheduler.retire_workers, workers=[worker], close_workers=True)

    def dismiss(self, name: str, futures: list[distributed.Future[Any]]) -> None:
        """Cancel what is in flight and unregister the work called `name`, if the scheduler still listens."""
        with contextlib.suppress(*_GONE):
            if self.client.status == "running":
                if futures:
                    self.client.cancel(futures)
                self.client.unregister_worker_plugin(name)

    def lost(self, error: BaseException) -> RunError:
        """Make the error to raise when the scheduler is gone."""
        return RunError(
            f"the Dask scheduler at {self.scheduler} was lost or restarted ({error}): no more blocks can be submitted. "
            "Finished blocks are kept; start the cluster again and type the same command for the rest"
        )


def cannot_load(reason: str) -> RunError:
    """Make the error to raise when workers cannot unpickle what they should run."""
    return RunError(
        f"workers cannot load simexm ({reason}): nothing can run. Install the same simexm and Python packages on every "
        "worker, then type the same command again"
    )


def _forget_submissions(dask_scheduler: distributed.Scheduler) -> None:
    for span in dask_scheduler.extensions["spans"].spans.values():
        if span._metadata:
            span._metadata["collections"].clear()


def _host(worker: str) -> str:
    return worker.rpartition(":")[0]
