"""OME-Zarr 0.5 groups and arrays as simexm writes them.

The scale is in micrometres of the tissue before expansion, and the translation is the centre of the first element:
origin + half an element, at every level, of images, labels and ingested sources alike.
https://ngff.openmicroscopy.org/0.5
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
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
    """Points in time and their unit, as OME-Zarr spells it; "" for plain numbers."""

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
    """Return the `multiscales` metadata of an image (c, z, y, x) or of labels (z, y, x), or of such with time before.

    Parameters
    ----------
    name
        The name that viewers show.
    levels
        The levels, with spacings in nm of tissue before expansion; level n is the array called "n".
    origin_nm
        Where the first element begins, z, y, x, nm of tissue before expansion.
    channels
        True where a channel axis leads.
    method
        How levels are made, in words: "mean" or "mode".
    time
        The axis of time, where there is one. OME-Zarr knows it by its first step alone; coordinates are kept elsewhere.
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


def label_attributes(scales: list[dict[str, Any]], *, image: str | None = None) -> dict[str, Any]:
    """Return the attributes of a label image's group.

    Parameters
    ----------
    scales
        Its `multiscales`.
    image
        Path from this group to the image that it labels ("../../" below an image's labels/), None where it stands
        alone.
    """
    label: dict[str, Any] = {"version": VERSION}
    if image is not None:
        label["source"] = {"image": image}
    return {"ome": {"version": VERSION, "multiscales": scales, "image-label": label}}


def labels_group_attributes(names: list[str]) -> dict[str, Any]:
    """Return the attributes of the group that holds an image's label images."""
    return {"ome": {"version": VERSION, "labels": names}}


def collection_attributes() -> dict[str, Any]:
    """Return the attributes of a group that holds several images; `series_attributes` are those of its child `OME`.

    This is the "bioformats2raw.layout" of OME-Zarr 0.5, the one collection of images that it knows.
    """
    return {"ome": {"version": VERSION, "bioformats2raw.layout": 3}}


def series_attributes(paths: list[str]) -> dict[str, Any]:
    """Return the attributes of the group `OME`, which lists a collection's images in order."""
    return {"ome": {"version": VERSION, "series": paths}}


def write_group(files: Files, path: str, attributes: Mapping[str, Any]) -> None:
    """Write a Zarr v3 group's metadata, in one step, at `path` below the root ("" for the root itself)."""
    files.put(f"{path}/zarr.json".lstrip("/"), group_bytes(attributes))


def group_bytes(attributes: Mapping[str, Any]) -> bytes:
    """The metadata file of a group."""
    return json.dumps({"attributes": dict(attributes), "zarr_format": 3, "node_type": "group"}, indent=2).encode()


def shard_key(array: str, position: tuple[int, ...]) -> str:
    """Path of a shard of an array, the array's path before it."""
    return "/".join([array, "c", *map(str, position)])


@dataclass(frozen=True, slots=True)
class ShardedArray:
    """A sharded Zarr v3 array, fill value 0, that is written one whole shard at a time. Cheap to pickle.

    Attributes
    ----------
    files
        Where it is stored.
    path
        The array's path below the root, such as "labels/cells/0".
    shape, shard, chunk
        Elements along each axis; `chunk` divides `shard`, which may be larger than the array.
    dtype
        Name of the NumPy data type, such as "uint16".
    axes
        One letter an axis, such as "czyx".
    """

    files: Files
    path: str
    shape: tuple[int, ...]
    shard: tuple[int, ...]
    chunk: tuple[int, ...]
    dtype: str
    axes: str

    def create(self) -> None:
        """Write the array's metadata."""
        self.files.put(f"{self.path}/zarr.json", self._metadata())

    def is_created(self) -> bool:
        """Whether they are as `create` writes them."""
        try:
            return (self.files.root / f"{self.path}/zarr.json").read_bytes() == self._metadata()
        except FileNotFoundError:
            return False

    def _metadata(self) -> bytes:
        made: dict[str, Buffer] = {}
        zarr.create_array(
            MemoryStore(made),
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
        return made[f"{self.path}/zarr.json"].to_bytes()

    def key(self, position: tuple[int, ...]) -> str:
        """Path below the root of the shard with these shard coordinates."""
        return shard_key(self.path, position)

    def extent(self, position: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the part of the array that a shard holds, clipped where the array ends."""
        return tuple(min(s, n - p * s) for p, s, n in zip(position, self.shard, self.shape, strict=True))

    def write(self, position: tuple[int, ...], data: NDArray[np.generic]) -> Stored:
        """Replace one whole shard in one step; where all of `data` is zero the shard has no file.

        Parameters
        ----------
        position
            The shard's coordinates, counted in shards.
        data
            All of the array's elements in that shard, in the array's data type.

        Raises
        ------
        ValueError
            If shape or data type is another one: a part of a shard is never written.
        """
        if data.shape != self.extent(position) or data.dtype != np.dtype(self.dtype):
            raise ValueError(
                f"shard {position} of {self.path} holds {self.extent(position)} of {self.dtype}, "
                f"not {data.shape} of {data.dtype}"
            )
        return self.files.put(self.key(position), encode_shard(data, self.shard, self.chunk))

    def encoder(self) -> Encoder:
        """An empty shard, to be filled chunk by chunk."""
        return Encoder(self.shard, self.chunk, np.dtype(self.dtype))

    def put(self, position: tuple[int, ...], encoder: Encoder) -> Stored:
        """Replace one whole shard in one step by all that was added to `encoder`; where that is zero it has no file."""
        return self.files.put(self.key(position), encoder.to_bytes())

    def write_region(self, start: tuple[int, ...], data: NDArray[np.generic]) -> tuple[Stored, ...]:
        """Replace all shards of a region that begins and ends where shards do, or ends where the array does.

        Parameters
        ----------
        start
            The first element, a multiple of the shard along each axis.
        data
            All elements of the region.

        Raises
        ------
        ValueError
            If the region cuts a shard.
        """
        if any(a % s for a, s in zip(start, self.shard, strict=True)):
            raise ValueError(f"{start} is not where a shard of {self.shard} begins")
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
    """A length of metadata."""
    return float(nm / _NM_PER_UM)
