"""One point in time of an array that has an axis of time, read as the array of that time alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import zarr


class AtTime:
    """What of a Zarr array (t, ...) lies at one time; reads as an array of the other axes does.

    Parameters
    ----------
    array
        The whole series.
    time
        Number of the point in time, from 0 on.
    """

    def __init__(self, array: zarr.Array[Any], time: int) -> None:
        self.series, self.time = array, time
        self.shape: tuple[int, ...] = array.shape[1:]
        self.chunks: tuple[int, ...] = array.chunks[1:]
        self.shards: tuple[int, ...] | None = array.shards[1:] if array.shards else None
        self.ndim, self.dtype = array.ndim - 1, array.dtype
        self.nbytes = array.nbytes // array.shape[0]
        self.store, self.store_path = array.store, array.store_path

    def __getitem__(self, at: Any) -> Any:
        return self.series[(self.time, *(at if isinstance(at, tuple) else (at,)))]
