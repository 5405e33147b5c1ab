"""A missing chunk is a chunk of fill values only while its array is there.

zarr-python, and every store, take a chunk that is not found for one that was never written, whether it was deleted, moved,
unmounted or never there. So whoever finds none looks for the array's metadata afterwards, which are written once and stay.
"""

from __future__ import annotations

import asyncio
import errno
from typing import Any

import zarr
from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import StorePath, WrapperStore

from simexm.errors import GoneError
from simexm.store.location import Location
from simexm.store.shard_list import ShardList, chunk_position


def gone(array: str) -> GoneError:
    """The error for an array whose metadata are not there any more."""
    return GoneError(
        errno.ENOENT,
        f"{array} is gone: it was moved or deleted, or its disk or network share is not mounted. Its chunks were not taken "
        "for zeros. Bring it back, then type the same command again",
    )


def lost(name: str) -> FileNotFoundError:
    """The error for a chunk file that existed once."""
    return FileNotFoundError(errno.ENOENT, "it was written, but is not there any more", name)


def refuse_gone(folder: Location) -> None:
    """Raise GoneError where an array of Zarr 3 in this folder is not there any more; to be called after a miss."""
    if not (folder / "zarr.json").is_file():
        raise gone(str(folder))


def watched(array: zarr.Array[Any], listed: ShardList | None = None) -> zarr.Array[Any]:
    """The same array, which raises where a missing chunk is no proof that it was never written.

    Parameters
    ----------
    array
        Any array; zarr-python reads it.
    listed
        Chunk files that exist: where one of these is missing, FileNotFoundError is raised. Whatever is listed, GoneError is
        raised where a chunk is missing and the array's metadata are, too.
    """
    if isinstance(array.store, _Watched):
        return array
    store = _Watched(array.store, array, listed)
    return zarr.Array(zarr.AsyncArray(array.metadata, StorePath(store, array.path), array.config))


class _Watched(WrapperStore[Any]):
    """A store that looks whether an array is there whenever one of its chunks is not."""

    def __init__(self, store: Any, array: zarr.Array[Any], listed: ShardList | None) -> None:
        super().__init__(store)
        about: Any = array.metadata
        self._name = str(array.store_path)
        self._prefix = f"{array.path}/".lstrip("/")
        self._metadata = self._prefix + ("zarr.json" if about.zarr_format == 3 else ".zarray")
        self._listed = listed
        self._missed = self._answered = 0
        self._looking: tuple[asyncio.AbstractEventLoop, asyncio.Lock] | None = None

    def __str__(self) -> str:
        return str(self._store)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_looking": None}

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """What is stored; see `watched` for what is raised where there is nothing."""
        found = await super().get(key, prototype, byte_range)
        if found is None and key.startswith(self._prefix):
            await self._look()
            name = key.removeprefix(self._prefix)
            if self._listed is not None and chunk_position(name) in self._listed:
                raise lost(f"{self._name}/{name}")
        return found

    async def _look(self) -> None:
        """Look for the array, once for all chunks that were missed before; to see it earlier would prove nothing."""
        self._missed += 1
        mine = self._missed
        loop = asyncio.get_running_loop()
        if self._looking is None or self._looking[0] is not loop:
            self._looking = loop, asyncio.Lock()
        async with self._looking[1]:
            if self._answered >= mine:
                return
            missed = self._missed
            if not await self._store.exists(self._metadata):
                raise gone(self._name)
            self._answered = missed
