"""Convert the image of a result to stacks: channels one by one, three by three, or merged in their colours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from simexm.errors import OutputError
from simexm.export.frames import is_movie, read_frames, seconds_per_frame
from simexm.export.scaling import To8Bit, in_colors, side_by_side, to_8bit
from simexm.export.stack import Channel, Convert, Head, Job, Plane, largest, read_planes, single
from simexm.geometry.grid import Triple, three
from simexm.result.result import Result

UINT8 = np.dtype(np.uint8)


@dataclass(frozen=True)
class Image:
    """One level of a finished result's image."""

    result: Result
    level: int
    array: zarr.Array[Any]  # (c, z, y, x)
    channels: tuple[Channel, ...]
    by_maximum: bool  # scale 8 bits by each channel's maximum, as the 2017 program did, not by its display window
    series: zarr.Array[Any] | None = None  # of a movie of one plane, (t, c, 1, y, x): its planes are the frames

    @property
    def shape(self) -> Triple:
        """Pixels along z, or frames, and along y, x."""
        shape = three(self.array.shape[1:])
        return shape if self.series is None else (self.series.shape[0], *shape[1:])

    @property
    def still(self) -> Image:
        """The same without its time axis, as label images are."""
        return replace(self, series=None)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the stored values; 8 bits for a movie of a detector that counts no further."""
        tops = [c["window"]["max"] for c in self.result.channels]
        small = self.series is not None and self.array.dtype.kind == "u" and max(tops) <= 255
        return UINT8 if small else self.array.dtype

    def head(self, dtype: np.dtype[Any], channels: Sequence[Channel], what: str, *, labels: bool = False) -> Head:
        """Describe a stack on this level's grid; `what` names its part of the result. See `Head`."""
        scales = self.result.attributes["ome"]["multiscales"][0]
        transforms = scales["datasets"][self.level]["coordinateTransformations"]
        z, y, x = next(t["scale"][-3:] for t in transforms if t["type"] == "scale")
        w, v, u = next((t["translation"][-3:] for t in transforms if t["type"] == "translation"), (0.0, 0.0, 0.0))
        return Head(
            name=scales["name"],
            source=f"{self.result.provenance['hash']} {what} {self.level}",
            shape=self.shape,
            dtype=dtype,
            voxel_um=(z, y, x),
            expansion=self.result.provenance.get("expansion_factor", 1.0),
            channels=tuple(channels),
            labels=labels,
            centre_um=(w, v, u),
            times_s=() if self.series is None else _times(self.result),
            frame_s=None if self.series is None else seconds_per_frame(self.result),
        )

    def to_8bit(self, channel: int) -> To8Bit:
        """Return a channel's conversion to 8 bits; reads the channel once if it needs a maximum that is not recorded."""
        low, high = self.channels[channel].window
        if self.by_maximum:
            recorded = self.result.largest() if self.level == 0 else None
            low, high = 0, recorded[channel] if recorded else largest(lambda: self.read(channel))
        return to_8bit(low, high, self.array.dtype)

    def planes(self, channel: int, *, eight_bit: bool) -> Iterator[Plane]:
        """Read one channel, plane by plane, as stored or in 8 bits."""
        yield from self.read(channel, convert=self.to_8bit(channel) if eight_bit else None)

    def read(self, channel: int, share: int = 1, convert: Convert | None = None) -> Iterator[Plane]:
        """Read one channel, plane by plane; see `read_planes` and `read_frames`."""
        if self.series is None:
            return read_planes(self.array, channel, share, convert)
        small = self.dtype if convert is None and self.dtype != self.array.dtype else None
        return read_frames(self.series, channel, share, convert if small is None else lambda v: v.astype(small))

    def together(self, channels: Sequence[int]) -> Iterator[tuple[Plane, ...]]:
        """Read several channels side by side, in 8 bits."""
        stacks = [self.read(c, len(channels), self.to_8bit(c)) for c in channels]
        yield from zip(*stacks, strict=True)


def open_image(result: Result, level: int, *, by_maximum: bool) -> Image:
    """Open one level of a result; raises OutputError if the result is not finished or has no such level."""
    if not result.complete:
        raise OutputError(
            f"{result.path} is not finished, so planes would be missing. Type its `simexm run` command again to continue."
        )
    if not 0 <= level < min(result.levels(), len(result.attributes["ome"]["multiscales"][0]["datasets"])):
        raise OutputError(f"{result.path} has no level {level}. Type --level 0 (the finest) to {result.levels() - 1}.")
    shown = zip(result.channels, result.windows, strict=True)
    channels = tuple(Channel(c["label"], c["color"], window) for c, window in shown)
    series = result.series(level) if is_movie(result, level) else None
    return Image(result, level, result.array(level), channels, by_maximum, series)


def _times(result: Result) -> tuple[float, ...]:
    time = result.acquisition.time
    return () if time is None else time.coordinates


def one_by_one(image: Image, paths: Sequence[Path], *, eight_bit: bool) -> list[Job]:
    """Return a gray stack for each channel, in 8 bits or with the stored values."""
    dtype = UINT8 if eight_bit else image.dtype

    def job(c: int, path: Path) -> Job:
        shown = _shown(image.channels[c], eight_bit=eight_bit)
        return single(path, image.head(dtype, [shown], shown.name), lambda: image.planes(c, eight_bit=eight_bit))

    return [job(c, path) for c, path in enumerate(paths)]


def all_in_one(image: Image, path: Path, *, eight_bit: bool) -> Job:
    """Return one stack of all channels, one after the other."""
    dtype = UINT8 if eight_bit else image.dtype
    channels = [_shown(c, eight_bit=eight_bit) for c in image.channels]

    def planes() -> Iterator[Plane]:
        for c in range(len(channels)):
            yield from image.planes(c, eight_bit=eight_bit)

    return single(path, image.head(dtype, channels, "channels"), planes)


def three_by_three(image: Image, paths: Sequence[Path]) -> list[Job]:
    """Return an 8-bit stack for every three channels, in red, green and blue whatever their display colours."""

    def job(first: int, path: Path) -> Job:
        channels = range(first, min(first + 3, len(image.channels)))
        head = image.head(UINT8, (), f"channels from {first}")
        return single(path, head, lambda: (side_by_side(planes) for planes in image.together(channels)))

    return [job(3 * i, path) for i, path in enumerate(paths)]


def colored(image: Image, path: Path) -> Job:
    """Return an 8-bit stack of all channels added in their colours."""
    colors = [c.color for c in image.channels]
    head = image.head(UINT8, (), "colours")
    return single(path, head, lambda: (in_colors(planes, colors) for planes in image.together(range(len(colors)))))


def _shown(channel: Channel, *, eight_bit: bool) -> Channel:
    """Return the channel with the display window of the values that are written."""
    return Channel(channel.name, channel.color, (0.0, 255.0)) if eight_bit else channel
