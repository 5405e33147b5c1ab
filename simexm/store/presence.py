"""Check that an array still exists when one of its chunks is missing.

zarr-python reads a missing chunk as fill values, whether it was never written, or the array was deleted, moved or
unmounted. So after a missing chunk, the array's metadata are looked up, which are written once and stay.
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
    """Return the error for an array whose metadata are gone."""
    return GoneError(
        errno.ENOENT,
        f"{array} is gone: it was moved or deleted, or its disk or network share is not mounted. Its chunks were not read "
        "as zeros. Bring it back, then type the same command again",
    )


def lost(name: str) -> FileNotFoundError:
    """Return the error for a chunk file that was written and is missing."""
    return FileNotFoundError(errno.ENOENT, "it was written, but is not there any more", name)


def refuse_gone(folder: Location) -> None:
    """Raise GoneError if the Zarr 3 array in this folder is gone; call it after a missing chunk."""
    if not (folder / "zarr.json").is_file():
        raise gone(str(folder))


def watched(array: zarr.Array[Any], listed: ShardList | None = None) -> zarr.Array[Any]:
    """Return the array, read by zarr-python, with an error for a missing chunk that may have been written.

    GoneError is raised if the array's metadata are missing, too; FileNotFoundError if the chunk is `listed` as existing.
    """
    if isinstance(array.store, _Watched):
        return array
    store = _Watched(array.store, array, listed)
    return zarr.Array(zarr.AsyncArray(array.metadata, StorePath(store, array.path), array.config))


class _Watched(WrapperStore[Any]):
    """A store that checks that an array exists whenever one of its chunks is missing."""

    def __init__(self, store: Any, array: zarr.Array[Any], listed: ShardList | None) -> None:
        super().__init__(store)
        about: Any = array.metadata
        self._name = str(array.store_path)
        self._prefix = f"{array.path}/".lstrip("/")
        self._metadata = self._prefix + ("zarr.json" if about.zarr_format == 3 else ".zarray")
        self._listed = listed
        self._missed = self._answered = 0
        self._checking: tuple[asyncio.AbstractEventLoop, asyncio.Lock] | None = None

    def __str__(self) -> str:
        return str(self._store)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_checking": None}

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """Read a key; see `watched` for what is raised if it is missing."""
        found = await super().get(key, prototype, byte_range)
        if found is None and key.startswith(self._prefix):
            await self._check_array()
            name = key.removeprefix(self._prefix)
            if self._listed is not None and chunk_position(name) in self._listed:
                raise lost(f"{self._name}/{name}")
        return found

    async def _check_array(self) -> None:
        """Check that the array exists, once for all chunks missed so far; an earlier check would prove nothing."""
        self._missed += 1
        mine = self._missed
        loop = asyncio.get_running_loop()
        if self._checking is None or self._checking[0] is not loop:
            self._checking = loop, asyncio.Lock()
        async with self._checking[1]:
            if self._answered >= mine:
                return
            missed = self._missed
            if not await self._store.exists(self._metadata):
                raise gone(self._name)
            self._answered = missed
