"""Read the frames of a movie of one plane, in order and in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import zarr
from numpy.typing import NDArray

from simexm.errors import OutputError
from simexm.export.stack import SLAB_BYTES, Convert, Plane
from simexm.result.result import Result, elements


def is_movie(result: Result, level: int = 0) -> bool:
    """Whether a result has a time axis and a single plane, so that its frames are the planes of a stack."""
    return result.acquisition.time is not None and result.array(level).shape[-3] == 1


def read_frames(
    series: zarr.Array[Any], channel: int, share: int = 1, convert: Convert | None = None
) -> Iterator[Plane]:
    """Yield the frames (rows, columns) of one channel of a series (t, c, 1, y, x).

    Two slabs of frames are held: one is read while the other is used. A slab is a chunk's frames, and fewer if both would pass
    `SLAB_BYTES` / `share`, where `share` is the number of channels that are read side by side.
    """
    frames, _, _, rows, columns = series.shape
    fitting = SLAB_BYTES // (2 * share * rows * columns * series.dtype.itemsize)
    depth = max(1, min(fitting, series.chunks[0]))

    def read(first: int) -> NDArray[Any]:
        slab = elements(series, (slice(first, min(first + depth, frames)), channel, 0))
        return slab if convert is None else convert(slab)

    with ThreadPoolExecutor(1, "frames") as pool:
        following = pool.submit(read, 0)
        for first in range(0, frames, depth):
            slab = following.result()
            if first + depth < frames:
                following = pool.submit(read, first + depth)
            for frame in slab:
                yield frame.copy()  # a caller that holds a frame does not hold the slab
            del slab, frame


def seconds_per_frame(result: Result) -> float | None:
    """Return the time between frames, s; None if there is one frame, or frames are not equally spaced in seconds."""
    time = result.acquisition.time
    if time is None or len(time.coordinates) < 2 or time.unit != "second":
        return None
    first, last = time.coordinates[0], time.coordinates[-1]
    step = (last - first) / (len(time.coordinates) - 1)
    even = all(abs(first + n * step - t) < 1e-3 * step for n, t in enumerate(time.coordinates))
    return float(f"{step:.12g}") if even and step > 0 else None  # not 0.0499999


def require_movie(result: Result, level: int, form: str) -> None:
    """Raise OutputError unless a result is a movie of one plane."""
    if not is_movie(result, level):
        what = "has no time axis" if result.acquisition.time is None else "has several planes at each time"
        raise OutputError(
            f"{result.path} {what}, and {form} is a format of movies of one plane; type --format ome-tiff for a stack"
        )
