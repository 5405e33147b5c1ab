"""One time point of an array with a time axis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import zarr


class AtTime:
    """Time point `time` (from 0) of a Zarr array (t, ...), read like an array of the other axes."""

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
