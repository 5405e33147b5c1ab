"""Changes to this process that several threads share."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack


def shared(change: Callable[[], AbstractContextManager[None]]) -> Callable[[], AbstractContextManager[None]]:
    """Let several threads make the same change to the process: the first makes it, the last undoes it.

    If each saved and restored the state, the second would save what the first has set, and leave that behind.
    """
    lock, stack, holders = threading.Lock(), ExitStack(), 0

    @contextlib.contextmanager
    def hold() -> Iterator[None]:
        nonlocal holders
        with lock:
            if not holders:
                stack.enter_context(change())
            holders += 1
        try:
            yield
        finally:
            with lock:
                holders -= 1
                if not holders:
                    stack.close()

    return hold
