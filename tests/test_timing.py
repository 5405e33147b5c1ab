"""Profiled seconds: each counts once, however spans are nested."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from simexm.timing import Stopwatch, moved, timed, timed_each, timed_threads

NAP_S = 0.05


def test_what_is_timed_inside_is_taken_away() -> None:
    with Stopwatch() as watch, timed("outer"):
        with timed("inner"):
            time.sleep(4 * NAP_S)
        time.sleep(NAP_S)
    seconds = {name: row[0] for name, row in watch.rows.items()}
    assert seconds["inner"] > 4 * NAP_S
    assert NAP_S < seconds["outer"] < seconds["inner"]


def test_every_second_counts_once() -> None:
    """Also where a generator works on behalf of what asks it."""

    def numbers() -> Iterator[int]:
        for n in range(3):
            with timed("below"):
                time.sleep(NAP_S)
            time.sleep(NAP_S)
            yield n

    start = time.perf_counter()
    with Stopwatch() as watch, timed("whole"):
        for _ in timed_each(numbers(), "made", lambda n: "last" if n == 2 else ""):
            time.sleep(NAP_S)
    whole = time.perf_counter() - start
    assert set(watch.rows) == {"whole", "made", "last", "below"}
    assert sum(row[0] for row in watch.rows.values()) == pytest.approx(whole, rel=0.02)
    assert watch.rows["below"][0] >= 3 * NAP_S
    assert watch.rows["made"][0] >= 2 * NAP_S
    assert watch.rows["whole"][0] >= 3 * NAP_S


def test_what_raises_is_counted_and_leaves_nothing_open() -> None:
    def breaks() -> None:
        with timed("broken"):
            time.sleep(NAP_S)
            raise ZeroDivisionError

    with Stopwatch() as watch:
        with pytest.raises(ZeroDivisionError):
            breaks()
        with timed("next"):
            time.sleep(NAP_S)
    assert watch.spans == []
    assert watch.rows["broken"][0] >= NAP_S
    assert watch.rows["next"][0] >= NAP_S


def test_threads_share_the_seconds_of_the_one_that_waits() -> None:
    with Stopwatch() as watch:
        start = time.perf_counter()
        with timed_threads() as timed_there, ThreadPoolExecutor(2) as pool:

            def nap(name: str) -> None:
                with timed_there(name):
                    time.sleep(4 * NAP_S)

            list(pool.map(nap, ["image", "labels", "labels"]))
        whole = time.perf_counter() - start
    assert watch.rows["image"][0] + watch.rows["labels"][0] == pytest.approx(whole, rel=0.05)
    assert watch.rows["labels"][0] == pytest.approx(2 * watch.rows["image"][0], rel=0.3)


def test_bytes_go_to_what_is_being_timed_or_to_a_name() -> None:
    with Stopwatch() as watch:
        with timed("outer"), timed("inner"):
            moved(read=3)
            moved("outer", written=5)
        moved("outer", read=1)
    assert watch.rows["inner"][1:] == (3, 0)
    assert watch.rows["outer"][1:] == (1, 5)


def test_without_a_stopwatch_nothing_is_kept_and_it_costs_nothing() -> None:
    def naps() -> Iterator[int]:
        yield from range(1000)

    start = time.perf_counter()
    for _ in timed_each(naps(), "made"):
        with timed("nothing"):
            moved(read=1)
    assert time.perf_counter() - start < 0.05  # 50 us each would show in a block of thousands
    with Stopwatch() as watch:
        pass
    assert not watch.rows


def test_another_thread_has_no_stopwatch() -> None:
    def work() -> None:
        with timed("elsewhere"):
            moved(read=1)

    with Stopwatch() as watch, ThreadPoolExecutor(1) as pool:
        pool.submit(work).result()
    assert not watch.rows
