"""Blocks in threads of this process: the same record as on a cluster."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from simexm.jobs.events import BlockDone, BlockFailed, Event, Retried
from simexm.jobs.journal import Journal
from simexm.jobs.threads import execute_in_threads


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal.open(tmp_path / "journal", "hash")


@pytest.mark.parametrize("threads", [1, 3])
def test_every_block_is_run_once_and_recorded(journal: Journal, threads: int) -> None:
    seen: list[int] = []
    events: list[Event] = []

    def block(context: str, number: int) -> dict[str, int]:
        assert context == "context"
        seen.append(number)
        return {"twice": 2 * number}

    outcome = execute_in_threads(
        threads=threads, function=block, context="context", blocks=range(20), journal=journal, listeners=[events.append]
    )
    assert (outcome.done, outcome.failed_count) == (20, 0)
    assert sorted(seen) == list(range(20))
    again = Journal.open(journal.path, "hash")
    assert {r.block: r.result["twice"] for r in again.records()} == {n: 2 * n for n in range(20)}
    assert sum(isinstance(e, BlockDone) for e in events) == 20


def test_as_many_at_once_as_there_are_threads(journal: Journal) -> None:
    meeting = threading.Barrier(3, timeout=20)

    def block(_: None, number: int) -> dict[str, int]:
        meeting.wait()
        return {}

    assert execute_in_threads(threads=3, function=block, context=None, blocks=range(6), journal=journal).done == 6


def test_what_raises_once_is_run_again_and_what_always_raises_is_set_aside(journal: Journal) -> None:
    tries: dict[int, int] = {}
    events: list[Event] = []

    def block(_: None, number: int) -> dict[str, int]:
        tries[number] = tries.get(number, 0) + 1
        if number == 3 or (number == 5 and tries[number] == 1):
            raise ValueError(f"block {number}")
        return {}

    outcome = execute_in_threads(
        threads=2, function=block, context=None, blocks=range(8), journal=journal, listeners=[events.append]
    )
    assert (outcome.done, outcome.failed_count) == (7, 1)
    assert outcome.failed[0].block == 3
    assert "ValueError: block 3" in outcome.failed[0].error
    assert (tries[3], tries[5], tries[0]) == (2, 2, 1)
    assert [e.failure.block for e in events if isinstance(e, BlockFailed)] == [3]
    assert sorted(e.block for e in events if isinstance(e, Retried)) == [3, 5]


def test_ctrl_c_keeps_what_is_done(journal: Journal) -> None:
    def block(_: None, number: int) -> dict[str, int]:
        return {}

    def stop(event: Event) -> None:
        if isinstance(event, BlockDone) and event.block == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute_in_threads(threads=1, function=block, context=None, blocks=range(50), journal=journal, listeners=[stop])
    done = {r.block for r in Journal.open(journal.path, "hash").records()}
    assert {0, 1, 2, 3, 4} <= done
    assert len(done) < 10
