"""The lock of an output in an object store: an object that only one driver can create.

It is created by a put that the store refuses if the object exists (If-None-Match), and written again every `BEAT_S`
seconds by a put that the store refuses if the holder did not write the stored version (If-Match). Stores that ignore
such conditions are detected: there the driver that wrote last holds the lock, after a second of waiting.
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
from simexm.jobs.lock_owner import BEAT_S, beating, held, is_alive_locally, me, owner_in, perhaps_held
from simexm.store.refusals import RemoteError
from simexm.store.remote import Remote

_SETTLE_S = 1.0


@contextlib.contextmanager
def object_lock(path: Remote) -> Iterator[None]:
    """Hold the lock for the length of the block, and remove it afterwards.

    A holder is dead if, on its own machine, its process is gone, or, seen from another machine, it has not written the
    object for `STALE_S` seconds by the store's clock. Then the lock is taken over; if several drivers try, one gets it.
    Raises OutputError if another driver holds the lock or may still hold it, or the store refuses the write.
    """
    lock = _Lock(path)
    try:
        lock.take()
    except RemoteError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from error
    try:
        with beating(lock.beat):
            yield
    finally:
        with contextlib.suppress(OSError):
            lock.release()


class _Lock:
    def __init__(self, path: Remote) -> None:
        self.path = path
        self.owner = {**me(), "token": uuid.uuid4().hex}
        self.version = ""
        self.beats = 0

    def take(self) -> None:
        """Create the object, or take it over from a dead holder; raise if another driver holds it."""
        while True:
            try:
                if self.path.is_file():  # for stores without conditions
                    self._take_over()
                else:
                    self.version = self.path.create(self._text())
                break
            except (FileExistsError, FileNotFoundError):  # created, or removed by its holder, meanwhile
                continue
        if not self._has_conditions():
            time.sleep(_SETTLE_S)  # others may take it at the same moment: the last to write holds it
        if not self._is_mine():
            raise held(self.path, self._read())

    def _take_over(self) -> None:
        about, owner = self.path.stat(), self._read()
        alive = is_alive_locally(owner)
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
        """Write it again every `BEAT_S` seconds until `ended`, or until another driver holds it."""
        while not ended.wait(BEAT_S):
            self.beats += 1
            try:
                if not self._is_mine():
                    return  # the new holder removed the claims before it wrote anything
                self.version = self.path.replace_version(self._text(), self.version)
            except FileExistsError:  # taken over, or only a request sent twice: the next heartbeat shows which
                with contextlib.suppress(OSError):
                    self.version = self.path.stat().version
            except OSError:  # the network may be down for a while
                continue

    def release(self) -> None:
        """Remove it, if this process still holds it."""
        if self._is_mine():
            self.path.unlink(missing_ok=True)

    def _is_mine(self) -> bool:
        return bool(self._read().get("token") == self.owner["token"])

    def _has_conditions(self) -> bool:
        """Return whether the store refuses to create an object that exists."""
        try:
            self.version = self.path.create(self._text(more=True))
        except FileExistsError:
            return True
        return False

    def _now(self) -> float:
        """Read the store's clock."""
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
        """Make the object's content; it differs each time, so that each version has its own tag."""
        return json.dumps({**self.owner, "beat": self.beats + more}).encode() + b"\n"
