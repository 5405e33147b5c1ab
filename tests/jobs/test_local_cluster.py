"""The local cluster: private, single-threaded, without traces."""

from __future__ import annotations

import contextlib
import os
import signal
import time

import distributed
import psutil
import pytest

from simexm.errors import SpecError
from simexm.jobs.local_cluster import local_client


def test_workers_compute_in_one_thread_and_ignore_ctrl_c(client: distributed.Client) -> None:
    assert set(client.nthreads().values()) == {1}  # type: ignore[no-untyped-call]
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    for variables in client.run(lambda: dict(os.environ)).values():
        assert {variables[name] for name in names} == {"1"}
    assert set(client.run(lambda: signal.getsignal(signal.SIGINT) is signal.SIG_IGN).values()) == {True}


@pytest.mark.slow
def test_each_worker_sees_a_gpu_of_its_own() -> None:
    """One process for each, also when more are asked for; and a worker that dies comes back with the same."""

    def seen(client: distributed.Client) -> list[str]:
        return sorted(client.run(lambda: os.environ["CUDA_VISIBLE_DEVICES"]).values())

    with local_client(5, dashboard=False, gpus=("1", "GPU-3b1")) as client:
        assert seen(client) == ["1", "GPU-3b1"]
        victim = next(iter(client.run(os.getpid).values()))
        os.kill(victim, signal.SIGKILL)
        psutil.wait_procs([psutil.Process(victim)] if psutil.pid_exists(victim) else [], timeout=10)
        client.wait_for_workers(2, timeout=30)
        for _ in range(100):
            with contextlib.suppress(Exception):
                if len(found := seen(client)) == 2:
                    break
            time.sleep(0.1)
        assert found == ["1", "GPU-3b1"]
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


def test_no_workers_is_refused() -> None:
    with pytest.raises(SpecError, match="--workers"), local_client(0):
        pass


@pytest.mark.slow
def test_a_worker_that_dies_twice_comes_back() -> None:
    """Dask looks 15 s after a death whether that worker is back, and gives it up if it happens to have died once more."""
    with local_client(1, dashboard=False) as client:

        def kill() -> float:
            os.kill(next(iter(client.run(os.getpid).values())), signal.SIGKILL)
            return time.monotonic()

        first = kill()
        time.sleep(1)
        client.wait_for_workers(1, timeout=30)
        time.sleep(max(0.0, first + 14.7 - time.monotonic()))
        kill()
        time.sleep(3)
        client.wait_for_workers(1, timeout=30)
        assert client.submit(sum, [1, 2]).result(timeout=30) == 3
