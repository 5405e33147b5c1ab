"""Laws of the executor, on a real cluster: every block once, failures contained, bounded memory."""

from __future__ import annotations

import contextlib
import gc
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any, cast

import distributed
import pytest
from distributed.scheduler import TaskState

from simexm.errors import RunError
from simexm.jobs.events import (
    BlockDone,
    BlockFailed,
    Event,
    Listener,
    Outcome,
    Retried,
    RunFinished,
    RunStarted,
    WorkerLost,
)
from simexm.jobs.executor import MOST_BLOCKS, TASKS_PER_THREAD, execute
from simexm.jobs.journal import Journal
from simexm.jobs.local_cluster import local_client
from simexm.jobs.retries import Task
from simexm.jobs.task import BlockReport, TaskReport
from tests.jobs import blocks as work

Go = Callable[..., Outcome]


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal.open(tmp_path / "journal", "hash")


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
def go(client: distributed.Client, journal: Journal, tmp_path: Path, events: list[Event]) -> Go:
    """Run the function on blocks; keywords other than `blocks` and `listeners` go into the context."""

    def go(function: Any, blocks: Any, listeners: tuple[Listener, ...] = (), **context: Any) -> Outcome:
        return execute(
            client=client,
            function=function,
            context={"folder": str(tmp_path)} | context,
            blocks=blocks,
            journal=journal,
            listeners=[events.append, *listeners],
        )

    return go


def of_kind(events: list[Event], kind: type) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


def test_every_block_runs_once_and_is_recorded(go: Go, journal: Journal, tmp_path: Path) -> None:
    outcome = go(work.note, range(500))
    assert (outcome.done, outcome.failed) == (500, [])
    assert work.counts(tmp_path) == dict.fromkeys(range(500), 1)
    assert {r.block: r.result["square"] for r in journal.records()} == {b: b * b for b in range(500)}


def test_order_of_blocks_changes_no_result(go: Go, journal: Journal, tmp_path: Path) -> None:
    shuffled = random.Random(1).sample(range(300), 300)
    assert go(work.note, shuffled).done == 300
    assert {r.block: r.result for r in journal.records()} == {
        b: {"square": b * b, "empty": b % 2 == 0} for b in range(300)
    }


def test_events_begin_and_end_with_the_run(go: Go, events: list[Event]) -> None:
    go(work.nothing, range(50))
    assert isinstance(events[0], RunStarted)
    assert (events[0].workers, events[0].threads) == (2, 2)
    assert isinstance(events[-1], RunFinished)
    assert (events[-1].done, events[-1].failed, events[-1].complete) == (50, 0, True)
    assert sorted(event.block for event in of_kind(events, BlockDone)) == list(range(50))


def test_no_blocks_is_a_finished_run(go: Go) -> None:
    assert go(work.nothing, []).done == 0


def test_block_that_raises_once_is_tried_on_the_other_worker(go: Go, journal: Journal, tmp_path: Path) -> None:
    outcome = go(work.bad_block_raises, range(200), bad=150, times=1)
    assert (outcome.done, outcome.failed_count) == (200, 0)
    assert {r.block: r.attempt for r in journal.records()} == {b: 2 if b == 150 else 1 for b in range(200)}
    assert work.counts(tmp_path) == {b: 2 if b == 150 else 1 for b in range(200)}
    assert len({worker for block, worker in work.runs(tmp_path) if block == 150}) == 2


def test_block_that_always_raises_is_set_aside_and_harms_no_other(
    go: Go, journal: Journal, tmp_path: Path, events: list[Event]
) -> None:
    outcome = go(work.bad_block_raises, range(200), bad=150, times=99)
    (failure,) = outcome.failed
    assert (outcome.done, failure.block, failure.attempts) == (199, 150, 3)
    assert failure.error == "ValueError: block 150 is bad"
    assert "bad_block_raises" in failure.traceback
    assert work.counts(tmp_path) == {b: 3 if b == 150 else 1 for b in range(200)}
    assert 150 not in journal.done
    assert [event.attempt for event in of_kind(events, Retried)] == [1, 2]
    assert [event.failure for event in of_kind(events, BlockFailed)] == [failure]


def test_worker_that_dies_once_costs_only_its_task(go: Go, tmp_path: Path, events: list[Event]) -> None:
    outcome = go(work.bad_block_kills, range(400), bad=300, times=1)
    assert (outcome.done, outcome.failed_count) == (400, 0)
    (lost,) = of_kind(events, WorkerLost)
    assert 300 in lost.blocks
    again = {block for block, count in work.counts(tmp_path).items() if count > 1}
    # A task that was finished, but not fetched yet, is lost with its worker too.
    assert len(again) <= 2 * MOST_BLOCKS
    assert set(work.counts(tmp_path)) == set(range(400))


def test_block_that_always_kills_is_set_aside_and_no_other(go: Go, tmp_path: Path, events: list[Event]) -> None:
    outcome = go(work.bad_block_kills, range(100), bad=60, times=99)
    assert (outcome.done, [failure.block for failure in outcome.failed]) == (99, [60])
    assert outcome.failed[0].attempts == 3
    assert max(count for block, count in work.counts(tmp_path).items() if block != 60) <= 3


def test_feed_is_drawn_only_as_there_is_room(go: Go, journal: Journal) -> None:
    drawn = 0

    def endless() -> Iterator[int]:
        nonlocal drawn
        while True:
            drawn += 1
            yield drawn - 1

    def stop_at_500(event: Event) -> None:
        if isinstance(event, BlockDone) and len(journal.done) >= 500:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        go(work.nothing, endless(), listeners=(stop_at_500,))
    assert drawn <= 500 + (2 * TASKS_PER_THREAD + 2) * MOST_BLOCKS


def test_interrupted_run_keeps_what_was_reported(
    go: Go, journal: Journal, client: distributed.Client, events: list[Event]
) -> None:
    def stop_at_100(event: Event) -> None:
        if isinstance(event, BlockDone) and len(journal.done) == 100:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        go(work.nothing, range(3000), listeners=(stop_at_100,))
    reported = {event.block for event in of_kind(events, BlockDone)}
    assert len(reported) >= 100
    assert {record.block for record in Journal.open(journal.path, "hash").records()} == reported
    assert isinstance(events[-1], RunFinished)
    assert not events[-1].complete
    assert go(work.nothing, journal.done.missing(3000)).done == 3000 - len(reported)  # the cluster is still sound


def test_hopeless_run_is_stopped(go: Go) -> None:
    with pytest.raises(RunError, match="no source here"):
        go(work.always_raises, range(1_000_000))


def test_work_that_workers_cannot_load(client: distributed.Client, journal: Journal) -> None:
    with pytest.raises(RunError, match="Install the same"):
        execute(client=client, function=work.nothing, context=Unloadable(), blocks=range(9), journal=journal)


class Unloadable:
    def __reduce__(self) -> Any:
        return _fail, ()


def _fail() -> None:
    raise ModuleNotFoundError("no module here")


@contextlib.contextmanager
def second_client(owner: distributed.Client) -> Iterator[distributed.Client]:
    """Another client of the same scheduler, which may be lost before it."""
    connect: Any = distributed.Client
    address = cast(Any, owner.scheduler).address
    client = connect(address, security=owner.security, set_as_default=False, timeout="2s")
    try:
        yield client
    finally:
        with contextlib.suppress(ValueError):  # Tornado's, where a peer ends between the handshakes of TCP and of TLS
            client.close()


def test_lost_scheduler_ends_the_run_with_what_to_type(journal: Journal, tmp_path: Path) -> None:
    with local_client(1, dashboard=False) as owner, second_client(owner) as client:
        closing = Thread(target=cast(Any, owner.cluster).close)

        def close_after_a_block(event: Event) -> None:
            if isinstance(event, BlockDone) and closing.ident is None:
                closing.start()

        with pytest.raises(RunError, match="type the same command"):
            execute(
                client=client,
                function=work.note,
                context={"folder": str(tmp_path), "seconds": 0.1},
                blocks=range(1000),
                journal=journal,
                listeners=[close_after_a_block],
            )
        closing.join()
    assert 0 < len(journal.done) < 1000
    assert {record.block for record in Journal.open(journal.path, "hash").records()} <= set(work.counts(tmp_path))


def test_nothing_grows_with_the_number_of_blocks(client: distributed.Client, journal: Journal) -> None:
    living: list[int] = []

    def count_living(event: Event) -> None:
        if isinstance(event, BlockDone) and len(journal.done) % 600 == 0:
            kinds = BlockReport, TaskReport, Task, distributed.Future, TaskState
            gc.collect()
            living.append(sum(isinstance(thing, kinds) for thing in gc.get_objects()))

    execute(
        client=client,
        function=work.nothing,
        context=None,
        blocks=range(6000),
        journal=journal,
        listeners=[count_living],
    )
    assert len(living) == 10
    assert max(living[5:]) < 2 * TASKS_PER_THREAD * (MOST_BLOCKS + 4)
    run_on_scheduler: Any = client.run_on_scheduler
    assert run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks)) == 0
    assert client.futures == {}


def test_cheap_blocks_share_tasks(client: distributed.Client, journal: Journal) -> None:
    def transitions() -> int:
        run_on_scheduler: Any = client.run_on_scheduler
        return int(run_on_scheduler(lambda dask_scheduler: dask_scheduler.transition_counter))

    before = transitions()
    execute(client=client, function=work.nothing, context=None, blocks=range(5000), journal=journal)
    assert transitions() - before < 5000  # a task takes about five
