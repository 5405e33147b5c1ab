"""Write OME-Zarr 0.5 groups and arrays (https://ngff.openmicroscopy.org/0.5).

Scales are in micrometres of tissue before expansion. The translation is the centre of the first element: origin + half an
element, at every level, of images, labels and ingested sources alike.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Protocol

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec
from zarr.core.buffer import Buffer
from zarr.storage import MemoryStore

from simexm.geometry.grid import Spacing
from simexm.store.files import Files, Stored
from simexm.store.location import zarr_store
from simexm.store.presence import watched
from simexm.store.pyramid import Level
from simexm.store.shards import ZSTD_LEVEL, Encoder, encode_shard

VERSION = "0.5"


class TimeAxis(Protocol):
    """Points in time, and their unit as OME-Zarr spells it; "" for plain numbers."""

    @property
    def coordinates(self) -> tuple[float, ...]: ...
    @property
    def unit(self) -> str: ...


_NM_PER_UM = 1000


def multiscales(
    name: str,
    levels: tuple[Level, ...],
    origin_nm: Spacing,
    *,
    channels: bool,
    method: str,
    time: TimeAxis | None = None,
) -> list[dict[str, Any]]:
    """Return the `multiscales` metadata of an image, with the axes (t,) (c,) z, y, x.

    Viewers show `name`. Level n is the array called "n". Spacings, and the corner of the first element, z, y, x, are in
    nm of tissue before expansion. `channels` says whether there is a channel axis; `method` is how levels are
    downsampled, "mean" or "mode". Of the time axis, if any, OME-Zarr stores the first step only; its coordinates are
    stored elsewhere.
    """
    axes: list[dict[str, str]] = [{"name": a, "type": "space", "unit": "micrometer"} for a in "zyx"]
    if channels:
        axes.insert(0, {"name": "c", "type": "channel"})
    if time is not None:
        axes.insert(0, {"name": "t", "type": "time", **({"unit": time.unit} if time.unit else {})})
        first, second = (*time.coordinates, time.coordinates[0] + 1)[:2]
    datasets = []
    for n, level in enumerate(levels):
        scale = [micrometres(s) for s in level.spacing]
        translation = [micrometres(o + s / 2) for o, s in zip(origin_nm, level.spacing, strict=True)]
        if channels:
            scale.insert(0, 1.0)
            translation.insert(0, 0.0)
        if time is not None:
            scale.insert(0, float(second - first))
            translation.insert(0, float(first))
        transforms = [{"type": "scale", "scale": scale}, {"type": "translation", "translation": translation}]
        datasets.append({"path": str(n), "coordinateTransformations": transforms})
    return [{"name": name, "axes": axes, "datasets": datasets, "type": method}]


def image_attributes(scales: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """Return the attributes of an image group; `more` goes beside `multiscales` (`omero`)."""
    return {"ome": {"version": VERSION, "multiscales": scales, **more}}


def omero(channels: Iterable[tuple[str, str, Mapping[str, float]]], planes: int) -> dict[str, Any]:
    """Return the display settings of channels, each of name, RRGGBB and window; viewers open the middle plane."""
    shown = [{"label": name, "color": color, "active": True, "window": window} for name, color, window in channels]
    return {"channels": shown, "rdefs": {"model": "color", "defaultZ": planes // 2, "defaultT": 0}}


def label_attributes(scales: list[dict[str, Any]], *, image: str | None = None) -> dict[str, Any]:
    """Return the attributes of a label image's group.

    `image` is the path from there to the image that it labels, such as "../../"; None if there is no image.
    """
    label: dict[str, Any] = {"version": VERSION}
    if image is not None:
        label["source"] = {"image": image}
    return {"ome": {"version": VERSION, "multiscales": scales, "image-label": label}}


def labels_group_attributes(names: list[str]) -> dict[str, Any]:
    """Return the attributes of the group that holds an image's label images."""
    return {"ome": {"version": VERSION, "labels": names}}


def collection_attributes() -> dict[str, Any]:
    """Return the attributes of a group of several images, in the layout "bioformats2raw" of OME-Zarr 0.5.

    Its child group `OME` gets `series_attributes`.
    """
    return {"ome": {"version": VERSION, "bioformats2raw.layout": 3}}


def series_attributes(paths: list[str]) -> dict[str, Any]:
    """Return the attributes of the group `OME`, which lists a collection's images in order."""
    return {"ome": {"version": VERSION, "series": paths}}


def write_group(files: Files, path: str, attributes: Mapping[str, Any]) -> None:
    """Write a Zarr v3 group's metadata atomically, at `path` below the root ("" for the root itself)."""
    files.put(f"{path}/zarr.json".lstrip("/"), group_bytes(attributes))


def group_bytes(attributes: Mapping[str, Any]) -> bytes:
    """Return the content of a group's `zarr.json`."""
    return json.dumps({"attributes": dict(attributes), "zarr_format": 3, "node_type": "group"}, indent=2).encode()


def shard_key(array: str, position: tuple[int, ...]) -> str:
    """Path of an array's shard, relative to where `array` is."""
    return "/".join([array, "c", *map(str, position)])


@dataclass(frozen=True, slots=True)
class ShardedArray:
    """A sharded Zarr v3 array with fill value 0, written one complete shard at a time. Cheap to pickle."""

    files: Files
    path: str  # below the root of `files`, such as "labels/cells/0"
    shape: tuple[int, ...]
    shard: tuple[int, ...]  # may be larger than the array
    chunk: tuple[int, ...]  # divides `shard`
    dtype: str
    axes: Sequence[str]  # one name each, such as "czyx"

    def create(self) -> None:
        """Write the array's metadata."""
        self.files.put(f"{self.path}/zarr.json", self._metadata())

    def is_created(self) -> bool:
        """Whether the stored metadata are those that `create` writes."""
        try:
            return (self.files.root / f"{self.path}/zarr.json").read_bytes() == self._metadata()
        except FileNotFoundError:
            return False

    def _metadata(self) -> bytes:
        stored: dict[str, Buffer] = {}
        zarr.create_array(
            MemoryStore(stored),
            name=self.path,
            shape=self.shape,
            dtype=self.dtype,
            chunks=self.chunk,
            shards=self.shard,
            compressors=ZstdCodec(level=ZSTD_LEVEL),
            fill_value=0,
            dimension_names=tuple(self.axes),
            zarr_format=3,
        )
        return stored[f"{self.path}/zarr.json"].to_bytes()

    def key(self, position: tuple[int, ...]) -> str:
        """Path of a shard below the root; `position` counts shards along each axis."""
        return shard_key(self.path, position)

    def extent(self, position: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the part of the array in a shard, clipped where the array ends."""
        return tuple(min(s, n - p * s) for p, s, n in zip(position, self.shard, self.shape, strict=True))

    def write(self, position: tuple[int, ...], data: NDArray[np.generic]) -> Stored:
        """Replace a shard atomically by `data`, all of its elements; a shard of zeros has no file.

        Raises ValueError if `data` differs in shape or data type: parts of shards are never written.
        """
        if data.shape != self.extent(position) or data.dtype != np.dtype(self.dtype):
            raise ValueError(
                f"shard {position} of {self.path} holds {self.extent(position)} of {self.dtype}, "
                f"not {data.shape} of {data.dtype}"
            )
        return self.files.put(self.key(position), encode_shard(data, self.shard, self.chunk))

    def encoder(self) -> Encoder:
        """Return an empty shard to be filled chunk by chunk."""
        return Encoder(self.shard, self.chunk, np.dtype(self.dtype))

    def put(self, position: tuple[int, ...], encoder: Encoder) -> Stored:
        """Replace a shard atomically by what was added to `encoder`; a shard of zeros has no file."""
        return self.files.put(self.key(position), encoder.to_bytes())

    def write_region(self, start: tuple[int, ...], data: NDArray[np.generic]) -> tuple[Stored, ...]:
        """Replace all shards of a region from `start` to a shard's or the array's end; raises ValueError if it cuts a shard."""
        if any(a % s for a, s in zip(start, self.shard, strict=True)):
            raise ValueError(f"no shard of {self.shard} begins at {start}")
        counts = [range(-(-n // s)) for n, s in zip(data.shape, self.shard, strict=True)]
        stored = []
        for cell in itertools.product(*counts):
            part = data[tuple(slice(i * s, (i + 1) * s) for i, s in zip(cell, self.shard, strict=True))]
            position = tuple(a // s + i for a, s, i in zip(start, self.shard, cell, strict=True))
            stored.append(self.write(position, part))
        return tuple(stored)

    def open(self) -> zarr.Array[Any]:
        """Open the array for reading."""
        return watched(zarr.open_array(zarr_store(self.files.root), path=self.path, mode="r"))


def micrometres(nm: Fraction) -> float:
    """Convert nanometres."""
    return float(nm / _NM_PER_UM)
