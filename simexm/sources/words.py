"""Remedies in messages, in the user's interface: options of a command, keys of a spec, arguments of a function."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True)
class Words:
    """How the user gives something."""

    voxel_size: str  # how to give the voxel size, as a sentence
    dataset: str  # how to name a volume inside a file, as the beginning of a sentence
    time: str  # how to choose a time point, as a sentence without its full stop


SPEC = Words(
    voxel_size="Give it in the spec: source: {path: ..., voxel_size_nm: [z, y, x]}.",
    dataset="Name one in the spec: source: {path: ..., dataset: NAME}",
    time="Choose one in the spec: source: {path: ..., time: N}",
)
COMMAND = Words(
    voxel_size="Type --voxel-size Z Y X (nm), such as --voxel-size 40 32 32.",
    dataset="Name one: --dataset NAME",
    time="Choose one: --time N",
)
ARRAYS = Words(voxel_size="Give voxel_size_nm=(z, y, x) in nm.", dataset="Give the array", time="Choose one: time=N")
_spoken: ContextVar[Words] = ContextVar("words", default=SPEC)


def words() -> Words:
    """Return the words of the user's interface: a spec, unless `speaking` sets another."""
    return _spoken.get()


@contextmanager
def speaking(chosen: Words) -> Iterator[None]:
    """Set the words of messages, in a `with` block or a decorated function."""
    token = _spoken.set(chosen)
    try:
        yield
    finally:
        _spoken.reset(token)
