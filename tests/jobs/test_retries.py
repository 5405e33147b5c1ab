"""Who is blamed for what, without a cluster."""

from __future__ import annotations

from simexm.jobs.retries import Blame, Task


def drain(blame: Blame, now_s: float) -> list[Task]:
    tasks = []
    while task := blame.next_task(now_s):
        tasks.append(task)
    return tasks


def test_run_of_blocks_is_taken_apart_and_nobody_is_blamed() -> None:
    blame = Blame(attempts=1)
    assert blame.worker_died(Task((4, 5, 6)), workers=1)
    assert [task.blocks for task in drain(blame, 0)] == [(4,), (5,), (6,)]
    assert [blame.tries(block) for block in (4, 5, 6)] == [0, 0, 0]


def test_only_a_block_that_killed_alone_is_given_up() -> None:
    blame = Blame(attempts=3)
    for _ in range(10):  # a bystander may be hit as often as it likes
        assert blame.worker_died(Task((4,)), workers=1)
        assert drain(blame, 0) == []
        task = blame.next_alone("w")
        assert task == Task((4,), "w", alone=True)
    assert not blame.worker_died(task, workers=1)


def test_block_that_kills_alone_has_all_its_attempts() -> None:
    blame = Blame(attempts=3)
    assert blame.worker_died(Task((4,)), workers=1)
    assert blame.worker_died(blame.next_alone("w"), workers=1)
    assert not blame.worker_died(blame.next_alone("w"), workers=1)
    assert blame.tries(4) == 3


def test_block_that_raised_waits_longer_each_time() -> None:
    blame = Blame(attempts=3)
    waits = []
    for _ in range(2):
        assert blame.raised(4, now_s=0.0, elsewhere="other")
        assert drain(blame, 0.0) == []
        waits.append(next(t / 100 for t in range(1000) if blame.next_task(t / 100) == Task((4,), "other")))
    assert waits[1] > 2 * waits[0]
    assert not blame.raised(4, now_s=0.0, elsewhere="other")


def test_settled_blocks_are_forgotten() -> None:
    blame = Blame(attempts=2)
    assert blame.raised(4, now_s=0.0, elsewhere=None)
    blame.settled(4)
    assert blame.tries(4) == 0
    assert blame.raised(4, now_s=0.0, elsewhere=None)
