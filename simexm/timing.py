"""Profile a block: seconds and bytes by activity, counted while a stopwatch runs in the thread.

Every second counts once: nested times are subtracted from the outer ones. Without a stopwatch, `timed` costs one look-up.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")
PROFILE = "profile"
"""Key of the rows in a block's record."""
Span = contextlib.AbstractContextManager[object]


class Stopwatch:
    """Counts in one thread during a `with` block; `rows` holds seconds, bytes read and bytes written by name."""

    def __init__(self) -> None:
        self.rows: dict[str, tuple[float, int, int]] = {}
        self.spans: list[_Span] = []
        self._since = 0.0
        self._outer: Stopwatch | None = None

    def __enter__(self) -> Stopwatch:
        self._outer, _here.watch = _running(), self
        return self

    def __exit__(self, *_: object) -> None:
        _here.watch = self._outer

    def charge(self) -> None:
        """Add the time since the last charge to the innermost span."""
        now = time.perf_counter()
        if self.spans:
            self.spans[-1].seconds += now - self._since
        self._since = now

    def add(self, name: str, seconds: float = 0.0, read: int = 0, written: int = 0) -> None:
        """Add seconds and bytes to a name."""
        s, r, w = self.rows.get(name, (0.0, 0, 0))
        self.rows[name] = s + seconds, r + read, w + written

    def to_mapping(self) -> dict[str, list[float]]:
        """The rows as plain data."""
        return {name: [round(s, 6), r, w] for name, (s, r, w) in self.rows.items()}


_here = threading.local()
_OFF = contextlib.nullcontext()


def _running() -> Stopwatch | None:
    return getattr(_here, "watch", None)


class _Span:
    """Time that counts under one name, which may change until the span ends."""

    __slots__ = ("name", "seconds", "watch")

    def __init__(self, watch: Stopwatch, name: str) -> None:
        self.watch, self.name, self.seconds = watch, name, 0.0

    def __enter__(self) -> _Span:
        self.watch.charge()
        self.watch.spans.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        self.watch.charge()
        self.watch.spans.pop()
        self.watch.add(self.name, self.seconds)


def timed(name: str) -> Span:
    """Count the seconds of a `with` block under a name. The block must not contain a `yield`: see `timed_each`."""
    watch = _running()
    return _OFF if watch is None else _Span(watch, name)


def timed_each(items: Iterator[T], name: str, of: Callable[[T], str] = lambda item: "") -> Iterator[T]:
    """Yield the items and count the seconds that it takes to produce them, under `of(item)` or else `name`."""
    watch = _running()
    if watch is None:
        yield from items
        return
    while True:
        with _Span(watch, name) as span:
            try:
                item = next(items)
            except StopIteration:
                return
            span.name = of(item) or name
        yield item


@contextlib.contextmanager
def timed_threads() -> Iterator[Callable[[str], Span]]:
    """Distribute the seconds of a `with` block in proportion to those that its threads count.

    Yields the function that replaces `timed` in the threads.
    """
    watch = _running()
    if watch is None:
        yield timed
        return
    spent: dict[str, float] = {}
    lock = threading.Lock()

    @contextlib.contextmanager
    def timed_there(name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        with lock:
            spent[name] = spent.get(name, 0.0) + time.perf_counter() - start

    span = _Span(watch, "")
    watch.charge()
    watch.spans.append(span)
    try:
        yield timed_there
    finally:
        watch.charge()
        watch.spans.pop()
        for name, seconds in spent.items():
            watch.add(name, span.seconds * seconds / sum(spent.values()))


def moved(name: str = "", *, read: int = 0, written: int = 0) -> None:
    """Count bytes under a name, by default that of the running span."""
    watch = _running()
    if watch is None:
        return
    if not name and watch.spans:
        name = watch.spans[-1].name
    watch.add(name, read=read, written=written)
