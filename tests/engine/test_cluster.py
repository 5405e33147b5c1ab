"""The local cluster: private, single-threaded, without traces."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import distributed
import psutil
import pytest

from simexm.engine.cluster import local_client
from simexm.errors import SpecError


def test_listens_on_this_machine_only(client: distributed.Client) -> None:
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    listening = {c.laddr.ip for p in processes for c in p.net_connections() if c.status == psutil.CONN_LISTEN}
    assert listening == {"127.0.0.1"}


def test_workers_compute_in_one_thread_and_ignore_ctrl_c(client: distributed.Client) -> None:
    assert set(client.nthreads().values()) == {1}
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    for variables in client.run(lambda: dict(os.environ)).values():
        assert {variables[name] for name in names} == {"1"}
    assert set(client.run(lambda: signal.getsignal(signal.SIGINT) is signal.SIG_IGN).values()) == {True}


def test_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MALLOC_ARENA_MAX", raising=False)
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


def test_no_workers_is_refused() -> None:
    with pytest.raises(SpecError, match="--workers"), local_client(0):
        pass
