"""Who holds an output's lock, and what a second driver is told."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import psutil
from pydantic import BaseModel, ConfigDict, Field

from simexm.errors import OutputError
from simexm.store.documents import MalformedError, obey, parse_mapping
from simexm.store.location import Location
from simexm.store.remote import Remote

BEAT_S = 10.0  # how often a holder touches its lock
STALE_S = 90.0  # untouched for so long, a lock's holder is dead; network file systems show a touch up to a minute late


@dataclass(frozen=True)
class Holder:
    """Who holds, or held, a lock.

    Attributes
    ----------
    host, pid
        Its machine and process.
    alive
        Whether it lives: on its own machine as the processes there tell, from elsewhere by its last sign of life.
    """

    host: str
    pid: int
    alive: bool


def holder(path: Location) -> Holder | None:
    """Who holds the lock, by looking alone; None where there is none."""
    try:
        owner, touched_s = owner_in(path.read_bytes()), path.stat().st_mtime
    except OSError:
        return None
    if not owner:
        return None
    host, pid = owner["host"], owner["pid"]
    if isinstance(path, Remote) and (alive := lives_here(owner)) is not None:
        return Holder(host, pid, alive)
    if isinstance(path, Remote) or (host, owner.get("machine")) != (socket.gethostname(), machine()):
        return Holder(host, pid, time.time() - touched_s < STALE_S)
    try:
        return Holder(host, pid, psutil.Process(pid).create_time() < touched_s + 1.0)  # or another got its number
    except psutil.Error:
        return Holder(host, pid, False)


class _Owner(BaseModel):
    """What `me` told."""

    model_config = ConfigDict(strict=True, extra="allow")

    host: Annotated[str, Field(pattern=r"^[\w.:-]+$", max_length=255)]
    pid: Annotated[int, Field(ge=1, lt=1 << 31)]


def owner_in(data: bytes) -> dict[str, Any]:
    """What a lock says of its holder; nothing where that is torn, or nothing that a holder writes."""
    try:
        owner = parse_mapping(data)
        obey(_Owner, owner)
    except MalformedError:
        return {}
    return owner


def machine() -> str:
    """Identify the machine since it was started; containers on it share its kernel, and so its advisory locks."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return socket.gethostname()


def namespace() -> str:
    """Among whose processes the numbers of processes count; containers have their own."""
    with contextlib.suppress(OSError):
        return os.readlink("/proc/self/ns/pid")
    return ""


def lives_here(owner: Mapping[str, Any]) -> bool | None:
    """Whether a holder on this machine lives, by no clock but the machine's own; None for holders elsewhere.

    Parameters
    ----------
    owner
        What `me` said in the holder.
    """
    mine = me()
    if any(owner.get(k) != mine[k] for k in ("host", "machine", "namespace")):
        return None
    try:
        return bool(psutil.Process(int(owner["pid"])).create_time() == owner["started"])  # or another got its number
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
    """The error where another driver holds the lock."""
    return OutputError(
        f"{path} is held by {_who(owner)}: two runs into one output would do all work twice. Wait for it, or end it there "
        f"with: kill {owner.get('pid', '<pid>')}"
    )


def perhaps_held(path: Location, owner: Mapping[str, Any], age_s: float) -> OutputError:
    """The error where another driver may hold it still."""
    return OutputError(
        f"{path} is held by {_who(owner)}, which gave a sign of life {max(0.0, age_s):.0f} s ago: two runs into one output "
        f"would do all work twice. Wait for it, or end it there; if it is dead, type the same command again in "
        f"{STALE_S - age_s:.0f} s"
    )


def _who(owner: Mapping[str, Any]) -> str:
    return f"process {owner.get('pid', '?')} on {owner.get('host', 'an unknown host')}"
