"""Who is blamed for what, without a cluster."""

from __future__ import annotations

from simexm.jobs.retries import Retries, Task


def drain(retries: Retries, now_s: float) -> list[Task]:
    tasks = []
    while task := retries.next_task(now_s):
        tasks.append(task)
    return tasks


def test_run_of_blocks_is_taken_apart_and_nobody_is_blamed() -> None:
    retries = Retries(attempts=1)
    assert retries.worker_died(Task((4, 5, 6)), workers=1)
    assert [task.blocks for task in drain(retries, 0)] == [(4,), (5,), (6,)]
    assert [retries.tries(block) for block in (4, 5, 6)] == [0, 0, 0]


def test_only_a_block_that_killed_alone_is_given_up() -> None:
    retries = Retries(attempts=3)
    for _ in range(10):  # a bystander may be hit as often as it likes
        assert retries.worker_died(Task((4,)), workers=1)
        assert drain(retries, 0) == []
        task = retries.next_alone("w")
        assert task == Task((4,), "w", alone=True)
    assert not retries.worker_died(task, workers=1)


def test_block_that_kills_alone_has_all_its_attempts() -> None:
    retries = Retries(attempts=3)
    assert retries.worker_died(Task((4,)), workers=1)
    assert retries.worker_died(retries.next_alone("w"), workers=1)
    assert not retries.worker_died(retries.next_alone("w"), workers=1)
    assert retries.tries(4) == 3


def test_block_that_raised_waits_longer_each_time() -> None:
    retries = Retries(attempts=3)
    waits = []
    for _ in range(2):
        assert retries.raised(4, now_s=0.0, elsewhere="other")
        assert drain(retries, 0.0) == []
        waits.append(next(t / 100 for t in range(1000) if retries.next_task(t / 100) == Task((4,), "other")))
    assert waits[1] > 2 * waits[0]
    assert not retries.raised(4, now_s=0.0, elsewhere="other")


def test_settled_blocks_are_forgotten() -> None:
    retries = Retries(attempts=2)
    assert retries.raised(4, now_s=0.0, elsewhere=None)
    retries.settled(4)
    assert retries.tries(4) == 0
    assert retries.raised(4, now_s=0.0, elsewhere=None)
