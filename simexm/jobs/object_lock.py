"""The lock of an output in an object store: an object that only one driver can have made.

It is made by a put that the store refuses where there is one (If-None-Match), and written anew every `BEAT_S` seconds by
a put that the store refuses where it is not the version that the holder wrote last (If-Match). Stores that do not know
such conditions are found out, and then the last to write has the lock after a second of waiting.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

from simexm.errors import OutputError
from simexm.jobs import lock_owner
from simexm.jobs.lock_owner import BEAT_S, held, lives_here, me, owner_in, perhaps_held
from simexm.store.refusals import RemoteError
from simexm.store.remote import Remote

_SETTLE_S = 1.0


@contextlib.contextmanager
def object_lock(path: Remote) -> Iterator[None]:
    """Hold the lock for the length of the block, and remove it afterwards.

    A dead holder is known by one of two signs: on its own machine its process is gone; from elsewhere, its object has not
    been written for `STALE_S` seconds by the store's clock. Then the lock is taken over, by one only of several that try.

    Raises
    ------
    OutputError
        Another driver holds the lock, or may do so still; or the store refuses.
    """
    lock = _Lock(path)
    try:
        lock.take()
    except RemoteError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from error
    ended = threading.Event()
    beat = threading.Thread(target=lock.beat, args=(ended,), name="simexm-lock", daemon=True)
    beat.start()
    try:
        yield
    finally:
        ended.set()
        beat.join()
        with contextlib.suppress(OSError):
            lock.release()


class _Lock:
    def __init__(self, path: Remote) -> None:
        self.path = path
        self.owner = {**me(), "token": uuid.uuid4().hex}
        self.version = ""
        self.beats = 0

    def take(self) -> None:
        """Make the object, or take a dead holder's over; raises where another holds it."""
        while True:
            try:
                if self.path.is_file():  # for stores that know no conditions
                    self._take_over()
                else:
                    self.version = self.path.create(self._text())
                break
            except (FileExistsError, FileNotFoundError):  # made, or removed by its holder, just now
                continue
        if not self._conditions_count():
            time.sleep(_SETTLE_S)  # others may have come to the same end at this moment: the last to write has it
        if not self._is_mine():
            raise held(self.path, self._read())

    def _take_over(self) -> None:
        about, owner = self.path.stat(), self._read()
        alive = lives_here(owner)
        if alive:
            raise held(self.path, owner)
        if alive is None:
            age_s = self._now() - about.st_mtime
            if age_s < lock_owner.STALE_S:
                raise perhaps_held(self.path, owner, age_s)
        try:
            self.version = self.path.replace_version(self._text(), about.version)
        except FileExistsError:
            raise held(self.path, self._read()) from None

    def beat(self, ended: threading.Event) -> None:
        """Write it anew from time to time until `ended`, or until another has it."""
        while not ended.wait(BEAT_S):
            self.beats += 1
            try:
                if not self._is_mine():
                    return  # another has it, and took the claims away before it wrote anything
                self.version = self.path.replace_version(self._text(), self.version)
            except FileExistsError:  # or an answer was lost and the request sent again: the next beat tells
                with contextlib.suppress(OSError):
                    self.version = self.path.stat().version
            except OSError:  # a network that is away for a while
                continue

    def release(self) -> None:
        """Remove it, if it is still this process's."""
        if self._is_mine():
            self.path.unlink(missing_ok=True)

    def _is_mine(self) -> bool:
        return self._read().get("token") == self.owner["token"]

    def _conditions_count(self) -> bool:
        """Whether the store refuses to make what is there."""
        try:
            self.version = self.path.create(self._text(more=True))
        except FileExistsError:
            return True
        return False

    def _now(self) -> float:
        """The store's clock, which need not be this machine's."""
        probe = self.path.with_name("probe")
        probe.put(uuid.uuid4().bytes)
        now_s = probe.stat().st_mtime
        probe.unlink(missing_ok=True)
        return now_s

    def _read(self) -> dict[str, Any]:
        try:
            return owner_in(self.path.read_bytes())
        except FileNotFoundError:
            return {}

    def _text(self, more: bool = False) -> bytes:
        """What is written; another text each time, so that each version has a name of its own."""
        return json.dumps({**self.owner, "beat": self.beats + more}).encode() + b"\n"
