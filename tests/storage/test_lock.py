"""Two drivers never hold one output in a store."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from simexm.errors import OutputError
from simexm.jobs import lock_owner, object_lock
from simexm.jobs.lock import lock
from simexm.jobs.lock_owner import Holder, holder
from simexm.store.remote import Remote

ELSEWHERE = {"host": "elsewhere", "machine": "another kernel", "namespace": "", "pid": 1, "started": 0.0, "token": "t"}


@pytest.fixture
def path(bucket: Remote) -> Remote:
    """Where a lock goes."""
    return bucket / "out.run/lock"


def _write(path: Remote, owner: dict[str, Any]) -> None:
    path.put(json.dumps(owner).encode())


def test_second_driver_is_refused_until_the_first_ends(path: Remote) -> None:
    assert holder(path) is None
    with lock(path):
        assert holder(path) == Holder(lock_owner.me()["host"], os.getpid(), True)
        with pytest.raises(OutputError, match=rf"process {os.getpid()} on .* kill {os.getpid()}"), lock(path):
            pass
        assert path.exists()
    assert not list(path.parent.files())
    with lock(path):
        pass


def test_lock_of_a_dead_process_is_taken_over(path: Remote) -> None:
    die = (
        "import os, sys, simexm.jobs.lock as m\nfrom simexm.store.remote import Remote\n"
        "with m.lock(Remote(sys.argv[1])): os._exit(1)"
    )
    subprocess.run([sys.executable, "-c", die, str(path)], check=False)
    found = holder(path)
    assert found is not None
    assert not found.alive
    with lock(path):
        assert json.loads(path.read_text())["pid"] == os.getpid()


def test_lock_of_a_dead_host_is_told_from_that_of_a_live_one(path: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(path, ELSEWHERE)
    with pytest.raises(OutputError, match=r"process 1 on elsewhere, .* last heartbeat was \d s ago"), lock(path):
        pass
    assert json.loads(path.read_text()) == ELSEWHERE
    assert [p.name for p in path.parent.files()] == ["lock"]
    monkeypatch.setattr(lock_owner, "STALE_S", 0.5)
    time.sleep(2)
    assert holder(path) == Holder("elsewhere", 1, False)
    with lock(path):
        assert json.loads(path.read_text())["pid"] == os.getpid()
    assert not path.exists()


def test_holder_shows_that_it_lives(path: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_lock, "BEAT_S", 0.05)
    with lock(path):
        first = path.stat()
        end_s = time.monotonic() + 10
        while (last := path.stat()).st_mtime <= first.st_mtime:  # times are whole seconds
            assert time.monotonic() < end_s
            time.sleep(0.05)
        assert last.version != first.version
    assert not path.exists()


def test_whoever_was_taken_for_dead_leaves_the_lock_to_the_other(path: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_lock, "BEAT_S", 0.05)
    with lock(path):
        _write(path, ELSEWHERE)
        time.sleep(0.5)
    assert json.loads(path.read_text()) == ELSEWHERE


@pytest.mark.parametrize("stale", [False, True])
@pytest.mark.parametrize("conditions", [True, False], ids=["conditions", "no conditions"])
def test_one_only_of_many_has_it(path: Remote, stale: bool, conditions: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the store knows conditional puts, or takes every put."""
    if stale:
        _write(path, ELSEWHERE)
        time.sleep(1.2)
        monkeypatch.setattr(lock_owner, "STALE_S", 0.0)
    if not conditions:
        monkeypatch.setattr(Remote, "create", lambda self, data: self.put(data))
        monkeypatch.setattr(Remote, "replace_version", lambda self, data, version: self.put(data))
    at_once, inside, most, refused = threading.Barrier(6), [0], [0], [0]
    counting = threading.Condition()

    def drive(_: int) -> bool:
        at_once.wait()
        try:
            with lock(path), counting:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                counting.wait_for(lambda: refused[0] == 5, timeout=2.5)  # all others have tried meanwhile
                inside[0] -= 1
            return True
        except OutputError:
            with counting:
                refused[0] += 1
                counting.notify_all()
            return False

    with ThreadPoolExecutor(6) as pool:
        held = list(pool.map(drive, range(6)))
    assert most == [1]
    assert any(held)


@pytest.mark.parametrize("text", [b"", b"{", b"[1]"])
def test_a_lock_that_makes_no_sense_is_held_until_it_is_old(path: Remote, text: bytes) -> None:
    path.put(text)
    with pytest.raises(OutputError, match="an unknown host"), lock(path):
        pass
