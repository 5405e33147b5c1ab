"""The local cluster: private, single-threaded, without traces."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import distributed
import psutil
import pytest

from simexm.engine.cluster import local_client
from simexm.engine.shared import shared
from simexm.errors import RunError, SpecError


def test_workers_compute_in_one_thread_and_ignore_ctrl_c(client: distributed.Client) -> None:
    assert set(client.nthreads().values()) == {1}
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    for variables in client.run(lambda: dict(os.environ)).values():
        assert {variables[name] for name in names} == {"1"}
    assert set(client.run(lambda: signal.getsignal(signal.SIGINT) is signal.SIG_IGN).values()) == {True}


def test_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    for name in ("MALLOC_ARENA_MAX", "PYTHONHASHSEED", "__DASK_PARENT_PID"):
        monkeypatch.delenv(name, raising=False)
    environment = dict(os.environ)
    with local_client(1, memory_limit="1 GiB", dashboard=False) as client:
        (worker,) = client.scheduler_info(n_workers=-1)["workers"].values()
        assert worker["memory_limit"] == 1 << 30
        assert client.dashboard_link == ""
        scratch = Path(worker["local_directory"])
        assert scratch.is_dir()
        pid = next(iter(client.run(os.getpid).values()))
    assert dict(os.environ) == environment
    assert list(tmp_path.iterdir()) == []
    assert not scratch.exists()
    assert not psutil.pid_exists(pid)


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
        time.sleep(first + 14.7 - time.monotonic())
        kill()
        time.sleep(3)
        client.wait_for_workers(1, timeout=30)
        assert client.submit(sum, [1, 2]).result(timeout=30) == 3


DIES = """
import os, sys
from pathlib import Path
left = {left}
if "--multiprocessing-fork" in sys.orig_argv:
    for n in range(left):
        try:
            Path({folder!r}, f"died-{{n}}").touch(exist_ok=False)
        except FileExistsError:
            continue
        os._exit(3)
"""


def let_die(times: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many processes that Python spawns from now on end as they start."""
    (folder / "sitecustomize.py").write_text(DIES.format(left=times, folder=str(folder)))
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)


def test_start_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    let_die(1, tmp_path, monkeypatch)
    with local_client(1, dashboard=False) as client:
        assert (tmp_path / "died-0").exists()
        assert client.submit(sum, [1, 2]).result(timeout=30) == 3


@pytest.mark.slow
def test_start_that_fails_again_and_again_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    let_die(100, tmp_path, monkeypatch)
    with (
        pytest.raises(RunError, match=r"could not be started.* 3 times: .*ulimit -a"),
        local_client(1, dashboard=False),
    ):
        pass
    assert len(list(tmp_path.glob("died-*"))) == 3


def test_process_that_may_start_no_others_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of a multiprocessing.Pool, in which Dask would wait for ever."""
    monkeypatch.setitem(multiprocessing.current_process()._config, "daemon", True)  # type: ignore[attr-defined]
    with pytest.raises(SpecError, match="Pool"), local_client(1):
        pass


def test_threads_share_a_change_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was there before comes back with the last of them, and not what another has set."""
    monkeypatch.setenv("SIMEXM_SHARED", "mine")

    @shared
    @contextlib.contextmanager
    def change() -> Iterator[None]:
        before = os.environ["SIMEXM_SHARED"]
        os.environ["SIMEXM_SHARED"] = "changed"
        yield
        os.environ["SIMEXM_SHARED"] = before

    for _ in range(2):
        first, second = change(), change()
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert os.environ["SIMEXM_SHARED"] == "changed"
        second.__exit__(None, None, None)
        assert os.environ["SIMEXM_SHARED"] == "mine"
