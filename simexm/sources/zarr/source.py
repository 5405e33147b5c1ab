"""Labels in OME-Zarr (0.1 to 0.6, sharded or not) and plain Zarr arrays: on disk, in a ZIP file, behind a URL."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from simexm.errors import SimexmWarning, SourceError, SourceNotFoundError
from simexm.geometry.grid import Box, Spacing, Triple, exact3
from simexm.sources.base import ZarrSource, given_by
from simexm.sources.fields import Field, check_kind, class_of, with_classes
from simexm.sources.identity import array_identity, digest_of
from simexm.sources.mark import digest_in, shards_in, stored_fields
from simexm.sources.state import FilesState
from simexm.sources.times import refuse_other_times
from simexm.sources.words import words
from simexm.sources.zarr.finding import Found, find, open_root
from simexm.sources.zarr.geometry import Node
from simexm.sources.zarr.volume import Volume
from simexm.store.location import is_url
from simexm.store.ngff import datasets
from simexm.store.shard_list import ShardList
from simexm.units import times


@dataclass(frozen=True)
class ZarrLabels:
    """A `LabelSource` that reads Zarr arrays."""

    labels: Volume
    volumes: Mapping[str, Volume]
    fields: Mapping[str, Field]
    voxel_size_nm: Spacing
    origin_nm: Spacing

    @property
    def shape(self) -> Triple:
        return self.labels.shape

    @property
    def times(self) -> int:
        return self.labels.times

    @property
    def seconds_per_time(self) -> float | None:
        """Seconds between time points; None if unknown, or there is one."""
        return self.labels.geometry.seconds_per_time if self.times > 1 else None

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(f"u{self.labels.array.dtype.itemsize}")

    @property
    def coarser(self) -> tuple[Volume, ...]:
        """The coarser levels of the multiscale image whose level the labels are."""
        group, array = self.labels.group, self.labels.array
        if group is None:
            return ()
        levels = datasets(dict(group.attrs))
        own = array.path.removeprefix(f"{group.path}/")
        below = [group[p] for p in levels[levels.index(own) + 1 :] if p in group] if own in levels else []
        arrays = [a for a in below if isinstance(a, zarr.Array) and a.ndim == array.ndim]
        return tuple(replace(self.labels, array=a, listed=shards_in(group, a)) for a in arrays)

    @property
    def identity(self) -> str:
        """Digest of labels and fields at all time points, and of the chosen one; see `array_identity` for its limits."""
        parts = [] if self.labels.time is None else ["time", str(self.labels.time)]
        for name, volume in {"": self.labels, **self.volumes}.items():
            try:
                parts += [name, array_identity(volume.array, digest_in(volume.group))]
            except OSError as error:
                raise _unreadable(volume, error) from error
        return digest_of(*parts)

    def state(self, box: Box, masks: Sequence[str]) -> dict[str, FilesState]:
        """Return the state of the chunk files of a box, by mask name, "" for the labels; empty if they cannot be listed.

        Raises SourceError if an array is missing, or its files cannot be listed.
        """
        states = {}
        for name, volume in {"": self.labels, **{v: self.volumes[v] for v in map(self._volume_of, masks)}}.items():
            try:
                found = volume.state(box)
            except OSError as error:
                raise _unreadable(volume, error) from error
            if found is not None:
                states[name] = found
        return states

    def expecting(self, listed: Mapping[str, ShardList]) -> ZarrLabels:
        """Return the same source, which raises for a missing chunk that is listed for its array; see `state`."""
        known = {n: replace(v, listed=v.listed or listed.get(n)) for n, v in {"": self.labels, **self.volumes}.items()}
        return replace(self, labels=known.pop(""), volumes=known)

    def read(self, box: Box, time: int = 0) -> NDArray[np.unsignedinteger[Any]]:
        """Return the ids in a box inside the volume at a time point, (z, y, x).

        Raises SourceError if a stored chunk cannot be decoded, or holds a negative id.
        """
        stored = self.labels.read(box, time)
        if stored.dtype.kind == "i" and stored.size and stored.min() < 0:
            raise SourceError(
                f"{self.labels.where} holds the negative id {stored.min()}, and a cell's id is positive (0 is outside "
                "every cell). Write a copy with the ids renumbered, as an unsigned type."
            )
        return stored.astype(stored.dtype.newbyteorder("="), copy=False).view(self.dtype)

    def read_field(self, name: str, box: Box, time: int = 0) -> NDArray[Any]:
        """Return the values of a field, (z, y, x); of a mask or class, where it is."""
        field, number = class_of(name, self.fields) or (name, None)
        stored = self.volumes[field].read(box, time)
        if number is not None:
            return np.asarray(stored == number)
        if self.fields[name].kind == "mask":
            return np.asarray(stored != 0)
        return stored.astype(stored.dtype.newbyteorder("="), copy=False)

    def _volume_of(self, name: str) -> str:
        """Return the name of the field that stores a field: for a class, its classes; otherwise itself."""
        found = class_of(name, self.fields)
        return name if found is None else found[0]

    def reading_bytes(self, shape: Triple, regions: Sequence[str]) -> int:
        """Return the peak memory of reading a box of this shape, without the box and the chunk cache, bytes."""
        ids = self.dtype.itemsize
        found = [self.labels.reading_bytes(shape)]
        for name in regions:
            mask = self.volumes[self._volume_of(name)]
            # the box of ids is counted elsewhere, and a mask may take more
            wider = max(0, mask.array.dtype.itemsize + 1 - ids) * math.prod(shape)
            found.append(mask.reading_bytes(shape) + wider)
        return max(found)


def _unreadable(volume: Volume, error: OSError) -> SourceError:
    return SourceError(
        f"{volume.where} cannot be read: {error}. Check that all its files exist and that you may read them."
    )


def open_zarr(source: ZarrSource) -> ZarrLabels:
    """Open the labels and the fields that a source names.

    Raises SourceNotFoundError if nothing exists at the path, or it has no such dataset or mask. Raises SourceError if
    it is no Zarr, ids are not integers, axes are not z, y, x, the volume is empty, its voxel size is unknown, or a
    field is not on the labels' grid, or holds values of another kind.
    """
    root, dataset = open_root(source.path, source.dataset)
    found = find(root, source.path, dataset)
    labels = _volume(found)
    dtype = labels.array.dtype
    if dtype.kind not in "iub":
        raise SourceError(
            f"{labels.where} holds {dtype}, and ids are integers. Name the segmentation, or write it as an unsigned integer "
            f"type (integers that were stored as floats: simexm ingest {source.path} -o NAME.zarr)."
        )
    if found.is_image:
        warn_of_image(labels.where)
    size, origin = _size_and_origin(source, labels)
    volumes: dict[str, Volume] = {}
    fields: dict[str, Field] = {}
    stored_beside = stored_fields(labels.group)
    masks = {name: path for name, (kind, path) in stored_beside.items() if kind == "mask"}
    for name, path in {**masks, **source.regions}.items():
        volumes[name] = _mask(root, source.path, path, f"region {name!r}", labels)
        fields[name] = Field(name, "mask", "bool")
    for name, given in {**given_by(stored_beside), **source.fields}.items():
        if name in volumes:
            raise SourceError(f"there is a region and a field {name!r}; give one of them another name")
        volumes[name] = _mask(root, source.path, given.path, f"field {name!r}", labels)
        stored = volumes[name].array.dtype.newbyteorder("=")
        check_kind(f"field {name!r}: {volumes[name].where}", given.kind, stored)
        fields[name] = Field(name, given.kind, stored.name, given.names)
    if source.time is not None:
        volumes = {name: volume.at(source.time) if volume.times > 1 else volume for name, volume in volumes.items()}
        labels = labels.at(source.time)
    return ZarrLabels(labels, volumes, with_classes(fields), size, origin)


def _size_and_origin(source: ZarrSource, labels: Volume) -> tuple[Spacing, Spacing]:
    """Return voxel size and origin as given, with the origin at 0, or from the metadata."""
    place = labels.geometry
    if source.voxel_size_nm is not None:
        return exact3(source.voxel_size_nm), exact3((0, 0, 0))
    if place.voxel_size_nm is not None:
        return place.voxel_size_nm, place.origin_nm
    if place.doubt:
        raise SourceError(f"{labels.where} has no certain voxel size: {place.doubt}. {words().voxel_size}")
    raise SourceError(
        f"{labels.where} does not say how large its voxels are (no scale with a unit), and every distance would be "
        f"a guess. {words().voxel_size}"
    )


def warn_of_image(where: str) -> None:
    """Warn that labels are an image by their metadata."""
    warnings.warn(
        f"{where} has display channels (omero) and no image-label, so by its metadata it is an image: each of its grey values "
        "becomes a cell. Name the segmentation, unless these are ids",
        SimexmWarning,
        stacklevel=3,
    )


def _volume(found: Found) -> Volume:
    return Volume(found.where, found.array, found.geometry, found.group, listed=shards_in(found.group, found.array))


def locate(path: str, dataset: str | None) -> tuple[Volume, bool]:
    """Find the array of labels or of a mask, and whether it is an image; raises what `open_zarr` does."""
    root, dataset = open_root(path, dataset)
    found = find(root, path, dataset)
    return _volume(found), found.is_image


def holds(path: str, dataset: str) -> bool:
    """Whether the Zarr at a path has such a dataset; raises what `open_zarr` does."""
    return _holds(open_root(path)[0], dataset)


def _holds(root: Node, path: str) -> bool:
    outside = is_url(path) or {".", ".."} & set(path.split("/"))  # never parts of names in a Zarr
    return not outside and isinstance(root, zarr.Group) and path in root


def _mask(root: Node, root_path: str, path: str, what: str, labels: Volume) -> Volume:
    """Open a field on the labels' grid; `what` is its name in messages."""
    if _holds(root, path):
        found = _volume(find(root, root_path, path))
    else:
        try:
            found = _volume(find(open_root(path)[0], path, None))
        except SourceNotFoundError as error:
            raise SourceNotFoundError(f"{what}: {path} is neither inside {root_path} nor a path. {error}") from error
    _check_grid(what, found, labels)
    return found


def _check_grid(what: str, mask: Volume, labels: Volume) -> None:
    if mask.shape != labels.shape:
        raise SourceError(
            f"{what}: {mask.where} has shape {mask.shape}, the labels {labels.shape}; it needs one voxel for each of theirs. "
            "Resample it onto the labels' grid."
        )
    refuse_other_times(f"{what}: {mask.where}", mask.times, labels.where, labels.times)
    own = mask.geometry.voxel_size_nm
    theirs = labels.geometry.voxel_size_nm
    if own is not None and theirs is not None and own != theirs:
        raise SourceError(
            f"{what}: {mask.where} has voxels of {times(own)} nm, the labels of {times(theirs)} nm, so they would not match. "
            "Resample it onto the labels' grid."
        )
