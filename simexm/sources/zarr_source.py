"""Labels read from OME-Zarr (0.5 and 0.4, sharded or not) and from plain Zarr arrays, on disk or behind a URL."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import zarr
import zarr.errors
from numpy.typing import NDArray

from simexm.errors import SourceError, SourceNotFoundError, SpecError
from simexm.grid import Box, Spacing, Triple, exact3
from simexm.sources import ngff
from simexm.sources.base import INGESTED, ZarrSource
from simexm.sources.chunk_cache import CACHE_BYTES, ChunkCache
from simexm.sources.identity import array_identity, digest_of
from simexm.sources.kinds import TOLD, ingest_command, kind_of
from simexm.sources.words import words
from simexm.store.location import is_url, location, zarr_store
from simexm.store.reading import Reader
from simexm.store.refusals import RemoteError
from simexm.store.remote import Remote

_CHUNKS = ChunkCache(CACHE_BYTES)
_TOKENS = itertools.count()


@dataclass(frozen=True)
class Volume:
    """A three-dimensional Zarr array, its leading axes of length 1 taken away.

    Attributes
    ----------
    where
        What to call it in messages: path and dataset.
    group
        The group that holds the array; None where it stands alone.
    token
        Tells what this opening reads from what another one of the same place might.
    """

    where: str
    array: zarr.Array[Any]
    geometry: ngff.Geometry
    group: zarr.Group | None
    token: int = field(default_factory=lambda: next(_TOKENS), compare=False)

    @property
    def shape(self) -> Triple:
        """Voxels along z, y, x."""
        z, y, x = (self.array.shape[i] for i in self.geometry.axes)
        return z, y, x

    def read(self, box: Box) -> NDArray[Any]:
        """Return what is stored in a box, (z, y, x); raises SourceError where that cannot be decoded."""
        if not Box.of_shape(self.shape).contains(box):
            raise IndexError(f"{box} reaches outside {self.where}, whose shape is {self.shape}")
        z, y, x = (self.array.chunks[i] for i in self.geometry.axes)
        name = (self.token, self.array.path)
        return _CHUNKS.read(name, box, (z, y, x), self.shape, self.array.dtype.itemsize, partial(self._read, box))

    @cached_property
    def _reader(self) -> Reader:
        return Reader.of(self.array)

    def _read(self, wanted: Box, box: Box) -> NDArray[Any]:
        try:
            return self._reader.read(box, (0,) * (self.array.ndim - 3))
        except (RuntimeError, ValueError, OSError) as error:
            raise SourceError(
                f"{self.where}: voxels {wanted.start} to {wanted.stop} cannot be read, a chunk is damaged or gone: {error}"
            ) from error


@dataclass(frozen=True)
class ZarrLabels:
    """A `LabelSource` that reads Zarr arrays."""

    labels: Volume
    masks: Mapping[str, Volume]
    voxel_size_nm: Spacing
    origin_nm: Spacing

    @property
    def shape(self) -> Triple:
        """Voxels along z, y, x."""
        return self.labels.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Unsigned type of the ids, as wide as the stored ones."""
        return np.dtype(f"u{self.labels.array.dtype.itemsize}")

    @property
    def region_names(self) -> tuple[str, ...]:
        """Names that `read_region` knows."""
        return tuple(self.masks)

    @property
    def coarser(self) -> tuple[Volume, ...]:
        """The coarser levels of the multiscale image whose level the labels are."""
        group, array = self.labels.group, self.labels.array
        if group is None:
            return ()
        levels = ngff.datasets(dict(group.attrs))
        own = array.path.removeprefix(f"{group.path}/")
        below = [group[p] for p in levels[levels.index(own) + 1 :] if p in group] if own in levels else []
        return tuple(replace(self.labels, array=a) for a in below if isinstance(a, zarr.Array) and a.ndim == array.ndim)

    @property
    def identity(self) -> str:
        """Digest of the labels and the masks; `simexm.sources.identity.array_identity` says how far it sees."""
        parts = []
        for name, volume in {"": self.labels, **self.masks}.items():
            try:
                parts += [name, array_identity(volume.array, _ingested(volume.group))]
            except OSError as error:
                raise SourceError(
                    f"{volume.where} cannot be read: {error}. Check that all its files are there and that you may read them."
                ) from error
        return digest_of(*parts)

    def read(self, box: Box) -> NDArray[np.unsignedinteger[Any]]:
        """Return the ids in a box inside the volume, (z, y, x).

        Raises
        ------
        SourceError
            If a stored chunk cannot be decoded, or holds a negative id.
        """
        stored = self.labels.read(box)
        if stored.dtype.kind == "i" and stored.size and stored.min() < 0:
            raise SourceError(
                f"{self.labels.where} holds the negative id {stored.min()}, and a cell's id is positive (0 is outside "
                "every cell). Write a copy with the ids renumbered, as an unsigned type."
            )
        return stored.astype(stored.dtype.newbyteorder("="), copy=False).view(self.dtype)

    def read_region(self, name: str, box: Box) -> NDArray[np.bool_]:
        """Return where the mask of region `name` is not zero, (z, y, x)."""
        return self.masks[name].read(box) != 0


def open_zarr(source: ZarrSource) -> ZarrLabels:
    """Open the labels and the masks that a source names.

    Raises
    ------
    SourceNotFoundError
        If there is nothing at the path, or no such dataset or mask.
    SourceError
        If it is no Zarr, ids are not integers, axes are not z, y, x, the volume is empty, its voxel size is not known,
        or a mask does not lie on the labels' grid.
    """
    root = _open_root(source.path)
    labels = _locate(root, source.path, source.dataset)
    dtype = labels.array.dtype
    if dtype.kind not in "iub":
        raise SourceError(
            f"{labels.where} holds {dtype}, and ids are integers. Name the segmentation, or write it as an unsigned integer type "
            f"(whole numbers that were stored as floats: simexm ingest {source.path} NAME.zarr)."
        )
    if source.voxel_size_nm is not None:
        size, origin = exact3(source.voxel_size_nm), exact3((0, 0, 0))
    elif labels.geometry.voxel_size_nm is not None:
        size, origin = labels.geometry.voxel_size_nm, labels.geometry.origin_nm
    else:
        raise SourceError(
            f"{labels.where} does not say how large its voxels are (no scale with a unit), and every distance would be "
            f"a guess. {words().voxel_size}"
        )
    masks: dict[str, Volume] = {}
    for name, path in {**stored_regions(labels.group), **source.regions}.items():
        masks[name] = _mask(root, source.path, path, name)
        _check_mask(name, masks[name], labels)
    return ZarrLabels(labels, masks, size, origin)


def locate(path: str, dataset: str | None) -> Volume:
    """Find the array of labels, or of a mask, that a path means; raises what `open_zarr` does of a path."""
    return _locate(_open_root(path), path, dataset)


def stored_regions(group: zarr.Group | None) -> dict[str, str]:
    """Names and paths (from the root of the Zarr) of the masks that ingest left beside the labels."""
    if group is None:
        return {}
    return {str(name): f"{group.path}/{name}".lstrip("/") for name in _mark(group).get("regions", ())}


def holds(path: str, dataset: str) -> bool:
    """Whether there is such a dataset inside the Zarr at a path; raises what `open_zarr` does."""
    return _holds(_open_root(path), dataset)


def _holds(root: zarr.Group | zarr.Array[Any], path: str) -> bool:
    outside = is_url(path) or {".", ".."} & set(path.split("/"))  # Zarr's own names have no such parts
    return not outside and isinstance(root, zarr.Group) and path in root


def _mask(root: zarr.Group | zarr.Array[Any], root_path: str, path: str, name: str) -> Volume:
    if _holds(root, path):
        return _locate(root, root_path, path)
    try:
        return _locate(_open_root(path), path, None)
    except SourceNotFoundError as error:
        raise SourceNotFoundError(
            f"region {name!r}: {path} is neither inside {root_path} nor a path. {error}"
        ) from error


def _check_mask(name: str, mask: Volume, labels: Volume) -> None:
    if mask.shape != labels.shape:
        raise SourceError(
            f"region {name!r}: {mask.where} has shape {mask.shape}, the labels {labels.shape}; a mask needs one voxel "
            "for each of theirs. Resample it onto the labels' grid."
        )
    own = mask.geometry.voxel_size_nm
    theirs = labels.geometry.voxel_size_nm
    if own is not None and theirs is not None and own != theirs:
        raise SourceError(
            f"region {name!r}: {mask.where} has voxels of {_nm(own)} nm, the labels of {_nm(theirs)} nm; they "
            "would not lie on each other. Resample the mask onto the labels' grid."
        )


def _open_root(path: str) -> zarr.Group | zarr.Array[Any]:
    if is_url(path):
        try:
            where = location(path)
            if isinstance(where, Remote) and where.can_list:
                next(where.iterdir(), None)  # Zarr takes every refusal for absence
            return zarr.open(zarr_store(where), mode="r")
        except SpecError as error:
            raise SourceError(str(error)) from error
        except RemoteError as error:
            raise SourceError(f"{path} cannot be read: {error.strerror}") from error
        except FileNotFoundError as error:
            raise SourceNotFoundError(
                f"{path}: there is no Zarr at this URL. Check it, or open it in a browser. (A Neuroglancer precomputed "
                f"volume is ingested first: simexm ingest precomputed://{path} NAME.zarr)"
            ) from error
        except Exception as error:  # remote file systems raise types of their own
            raise SourceError(f"{path} cannot be read: {type(error).__name__}: {error}") from error
    try:
        kind = kind_of(path)
    except SourceNotFoundError as error:
        raise SourceNotFoundError(
            f"{error} Correct the path, or make it from your segmentation: simexm ingest FILE {Path(path).name} --voxel-size "
            "Z Y X (nm)"
        ) from error
    if kind != "Zarr":
        raise SourceError(
            f"{path} {TOLD[kind]}, which cannot be read box by box. Convert it once: {ingest_command(path, kind)}"
        )
    local = Path(path).expanduser()
    try:
        return zarr.open(str(local), mode="r")
    except (FileNotFoundError, zarr.errors.BaseZarrError) as error:
        raise SourceError(f"{path} is not a Zarr: it has no zarr.json, .zarray or .zgroup that can be read.") from error
    except (ValueError, TypeError, KeyError) as error:
        raise SourceError(f"{path}: the Zarr metadata cannot be read: {error}") from error


def _locate(root: zarr.Group | zarr.Array[Any], root_path: str, dataset: str | None) -> Volume:
    """Follow the metadata from `root` to one array and what is known of its axes and size."""
    node: zarr.Group | zarr.Array[Any] = root
    parts = [p for p in (dataset or "").split("/") if p]
    above: list[tuple[zarr.Group, int]] = []  # the groups passed, each with the number of parts of its own path
    for n, part in enumerate(parts):
        if not isinstance(node, zarr.Group) or part not in node:
            members = sorted(node) if isinstance(node, zarr.Group) else []
            raise SourceNotFoundError(
                f"{root_path} holds no {'/'.join(parts[: n + 1])!r}; "
                + (f"beside it there are: {', '.join(members[:10])}." if members else "there is nothing below it.")
            )
        above.append((node, n))
        node = node[part]
    while isinstance(node, zarr.Group):
        part = _choose(node, root_path, parts)
        above.append((node, len(parts)))
        parts += part.split("/")
        node = node[part]
    where = "/".join([root_path.rstrip("/"), *parts])
    if 0 in node.shape:
        raise SourceError(f"{where} is empty: its shape is {node.shape}.")
    geometry = _geometry(where, node, above, parts)
    leading = node.shape[:-3]
    if any(n != 1 for n in leading):
        raise SourceError(
            f"{where} has shape {node.shape}: besides z, y, x there are axes longer than 1, and it is not known which "
            "of their volumes is meant. Write the one that is meant as an array of its own."
        )
    return Volume(where, node, geometry, above[-1][0] if above else None)


def _mark(group: zarr.Group | None) -> Mapping[str, Any]:
    """What ingest left in the attributes of what it wrote; empty where it did not."""
    mark = None if group is None else group.attrs.get("simexm")
    return mark if isinstance(mark, Mapping) and mark.get("written_by") == INGESTED else {}


def _ingested(group: zarr.Group | None) -> str | None:
    mark = _mark(group)
    return str(mark["digest"]) if "digest" in mark else None


def _choose(group: zarr.Group, root_path: str, parts: list[str]) -> str:
    """Path, below a group, of the next node on the way to the labels."""
    where = "/".join([root_path.rstrip("/"), *parts])
    attributes = dict(group.attrs)
    names = ngff.label_names(attributes)
    prefix = ""
    if not names and "labels" in group and isinstance(group["labels"], zarr.Group):
        names = ngff.label_names(dict(group["labels"].attrs)) or tuple(sorted(group["labels"]))
        prefix = "labels/"
    if not names:
        levels = ngff.datasets(attributes)
        if levels:
            if levels[0] not in group:
                raise SourceError(f"{where}: its metadata names the level {levels[0]!r}, which is not there.")
            return levels[0]
        names = tuple(sorted(group))
    if len(names) == 1 and prefix + names[0] in group:
        return prefix + names[0]
    if not names:
        raise SourceError(f"{where} is a Zarr group with nothing in it.")
    choices = ", ".join("/".join([*parts, prefix + n]) for n in names[:20])
    raise SourceError(
        f"{where} holds {len(names)} candidates, and it is not known which are the labels. {words().dataset}, with one of "
        f"{choices}."
    )


def _geometry(
    where: str, array: zarr.Array[Any], above: list[tuple[zarr.Group, int]], parts: list[str]
) -> ngff.Geometry:
    for group, depth in reversed(above):
        attributes, level = dict(group.attrs), "/".join(parts[depth:])
        if level in ngff.datasets(attributes):
            return ngff.multiscale_geometry(where, attributes, level, array.ndim)
    return ngff.plain_geometry(where, getattr(array.metadata, "dimension_names", None), array.ndim)


def _nm(spacing: Spacing) -> str:
    return " x ".join(f"{float(s):g}" for s in spacing)
