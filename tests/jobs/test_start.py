"""How a local cluster starts and ends: tried again, told in one line, without traces. No other cluster lives meanwhile."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from simexm.errors import RunError, SpecError
from simexm.jobs.local_cluster import local_client
from simexm.jobs.shared import shared


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
        pytest.raises(RunError, match=r"could not be started.* 3 attempts: .*ulimit -a"),
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
