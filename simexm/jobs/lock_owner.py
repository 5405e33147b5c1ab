"""The holder of an output's lock, and the errors that a second driver raises."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import psutil
from pydantic import BaseModel, ConfigDict, Field

from simexm.errors import OutputError
from simexm.store.documents import MalformedError, parse_mapping, validate
from simexm.store.location import Location
from simexm.store.remote import Remote

BEAT_S = 10.0  # heartbeat of a holder: it touches its lock
STALE_S = 90.0  # without a heartbeat the holder is dead; network file systems show a touch up to a minute late


@contextlib.contextmanager
def beating(beat: Callable[..., None], *arguments: Any) -> Iterator[None]:
    """Call `beat(*arguments, ended)` in a thread for the length of the block; it returns when `ended` is set."""
    ended = threading.Event()
    thread = threading.Thread(target=beat, args=(*arguments, ended), name="simexm-lock", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@dataclass(frozen=True)
class Holder:
    """The process that holds, or held, a lock."""

    host: str
    pid: int
    alive: bool  # by the list of processes on the same machine, from another one by the last heartbeat


def holder(path: Location) -> Holder | None:
    """Read who holds the lock, without taking it; None where there is no lock."""
    try:
        owner, touched_s = owner_in(path.read_bytes()), path.stat().st_mtime
    except OSError:
        return None
    if not owner:
        return None
    host, pid = owner["host"], owner["pid"]
    if isinstance(path, Remote) and (alive := is_alive_locally(owner)) is not None:
        return Holder(host, pid, alive)
    if isinstance(path, Remote) or (host, owner.get("machine")) != (socket.gethostname(), machine()):
        return Holder(host, pid, time.time() - touched_s < STALE_S)
    try:
        return Holder(host, pid, psutil.Process(pid).create_time() < touched_s + 1.0)  # later: the pid was reused
    except psutil.Error:
        return Holder(host, pid, False)


class _Owner(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")

    host: Annotated[str, Field(pattern=r"^[\w.:-]+$", max_length=255)]
    pid: Annotated[int, Field(ge=1, lt=1 << 31)]


def owner_in(data: bytes) -> dict[str, Any]:
    """Parse the content of a lock; empty if it is torn or was not written by a holder."""
    try:
        owner = parse_mapping(data)
        validate(_Owner, owner)
    except MalformedError:
        return {}
    return owner


def machine() -> str:
    """Identify the machine since its boot; containers on it share its kernel, and so its advisory locks."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return socket.gethostname()


def namespace() -> str:
    """Identify the namespace of process numbers; containers have their own."""
    with contextlib.suppress(OSError):
        return os.readlink("/proc/self/ns/pid")
    return ""


def is_alive_locally(owner: Mapping[str, Any]) -> bool | None:
    """Return whether a holder on this machine is alive, by the machine's own clock; None for holders elsewhere."""
    mine = me()
    if any(owner.get(k) != mine[k] for k in ("host", "machine", "namespace")):
        return None
    try:
        return bool(psutil.Process(int(owner["pid"])).create_time() == owner["started"])  # otherwise the pid was reused
    except psutil.Error:
        return False


def me() -> dict[str, Any]:
    """Identify the process among all processes of all machines."""
    return {
        "host": socket.gethostname(),
        "machine": machine(),
        "namespace": namespace(),
        "pid": os.getpid(),
        "started": psutil.Process().create_time(),
    }


def held(path: Location, owner: Mapping[str, Any]) -> OutputError:
    """Make the error to raise when another driver holds the lock."""
    return OutputError(
        f"{path} is held by {_who(owner)}: two runs into one output would do all work twice. Wait for it, or end it there "
        f"with: kill {owner.get('pid', '<pid>')}"
    )


def perhaps_held(path: Location, owner: Mapping[str, Any], age_s: float) -> OutputError:
    """Make the error to raise when another driver may still hold the lock."""
    return OutputError(
        f"{path} is held by {_who(owner)}, whose last heartbeat was {max(0.0, age_s):.0f} s ago: two runs into one output "
        f"would do all work twice. Wait for it, or end it there; if it is dead, type the same command again in "
        f"{STALE_S - age_s:.0f} s"
    )


def _who(owner: Mapping[str, Any]) -> str:
    return f"process {owner.get('pid', '?')} on {owner.get('host', 'an unknown host')}"
