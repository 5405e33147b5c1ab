"""Axes, size and chunks of a Zarr array, from its metadata and those of the groups above it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import zarr
from zarr.storage import LocalStore

from simexm.errors import SourceError
from simexm.sources.attributes import axis_names, place_of
from simexm.sources.axes import space_and_time, spatial_order
from simexm.sources.foreign_files import RENAME, Parts, grid_names, refuse_foreign_files
from simexm.sources.limits import refuse_absurd, refuse_large
from simexm.sources.webknossos import mag_at
from simexm.sources.zarr import ngff
from simexm.store.location import folder_of
from simexm.store.ngff import datasets, ome

Node = zarr.Group | zarr.Array[Any]
Above = list[tuple[Mapping[str, Any], str]]
"""Attributes of each group above an array, and the array's path below it; the outermost group first."""


def checked_geometry(where: str, array: zarr.Array[Any], above: Above) -> ngff.Geometry:
    """Return the geometry of an array; raises SourceError if it cannot be read, or foreign files are among its chunks."""
    try:
        chunks = array.chunks
    except NotImplementedError as error:
        raise SourceError(f"{where} has chunks of different sizes, which are not supported. Write a copy.") from error
    stored = array.shards or chunks
    if 0 in array.shape:
        raise SourceError(f"{where} is empty: its shape is {array.shape}.")
    refuse_absurd(where, array.shape, stored if array.shards else chunks, 1 if array.shards else array.dtype.itemsize)
    geometry = _geometry(where, array, above or list(_around(array)))
    folder = folder_of(array)
    if folder is not None and len(stored) == array.ndim:
        grid = [-(-n // c) for n, c in zip(array.shape, stored, strict=True)]
        separator, prefix = _key_encoding(array)
        names = grid_names(grid, separator, prefix)

        def hint(path: Parts) -> str:
            other = "/" if separator == "." else "."
            likely = grid_names(grid, other, prefix).is_chunk(path)
            if likely and array.metadata.zarr_format == 2:
                return f'If its chunks are named so, add "dimension_separator": "{other}" to {where}/.zarray.'
            if likely:
                return f'If its chunks are named so, set the separator in {where}/zarr.json (chunk_key_encoding) to "{other}".'
            return RENAME

        refuse_foreign_files(where, folder, names, hint)
    return geometry


def _key_encoding(array: zarr.Array[Any]) -> tuple[str, tuple[str, ...]]:
    """Return the separator in the names of chunks, and the parts before the numbers."""
    metadata: Any = array.metadata
    if metadata.zarr_format == 2:
        return metadata.dimension_separator, ()
    encoding = metadata.chunk_key_encoding
    return encoding.separator, ("c",) if encoding.name == "default" else ()


def unreadable(path: str, error: Exception) -> SourceError:
    """Return the error for a Zarr whose metadata cannot be read."""
    nested = isinstance(error, RecursionError)
    why = "it is nested too deeply" if nested else f"{type(error).__name__}: {error}".rstrip(".")
    remedy = "Copy it again from where it came."
    if "Codec" in type(error).__name__:
        remedy = "Write a copy with a codec that Zarr itself knows, such as Zstd."
    return SourceError(f"{path}: the Zarr metadata cannot be read: {why}. {remedy}")


def attributes_of(where: str, node: Node) -> dict[str, Any]:
    """Return the attributes of a group or array; raises SourceError if they are no mapping."""
    try:
        return dict(node.attrs)
    except Exception as error:  # for a list, for example
        raise unreadable(where, error) from error


def _around(array: zarr.Array[Any]) -> Iterator[tuple[Mapping[str, Any], str]]:
    """Yield the groups around an array that was opened by its own path."""
    if not isinstance(array.store, LocalStore) or array.path:
        return
    folder = array.store.root.resolve()
    for above in list(folder.parents)[1::-1]:
        if any((above / name).is_file() for name in (".zgroup", "zarr.json")):
            try:
                for name in ("zarr.json", ".zattrs"):
                    if (above / name).is_file():
                        refuse_large(name, (above / name).stat().st_size)
                group = zarr.open_group(above, mode="r", use_consolidated=False)
                yield dict(group.attrs), folder.relative_to(above).as_posix()
            except Exception:  # some other folder: the array can be read without it
                continue


def _geometry(where: str, array: zarr.Array[Any], above: Above) -> ngff.Geometry:
    dimension_names = getattr(array.metadata, "dimension_names", None)
    attributes = attributes_of(where, array)
    for parent, level in reversed(above):
        if level not in datasets(parent):
            continue
        own = next(d for d in ome(parent)["multiscales"][0]["datasets"] if str(d["path"]) == level)
        if "transform" in own and "coordinateTransformations" not in own:  # COSEM's, under the same name
            attributes = {"transform": own["transform"], **attributes}
            break
        geometry = ngff.multiscale_geometry(where, parent, level, array.shape)
        named = axis_names(where, {}, dimension_names)
        if named and set("zyx") <= set(named) and space_and_time(where, named, array.shape)[0] != geometry.axes:
            raise SourceError(
                f"{where}: its dimension_names are {', '.join(named)}, and the axes of its multiscale image have another "
                "order, so it is unclear which are z, y and x. Correct the one that is wrong."
            )
        return geometry
    return _plain_geometry(where, array, attributes, above[-1][0] if above else {}, dimension_names)


def _plain_geometry(
    where: str, array: zarr.Array[Any], attributes: Mapping[str, Any], group: Mapping[str, Any], dimension_names: Any
) -> ngff.Geometry:
    """Return the geometry of an array without OME metadata."""
    names = axis_names(where, attributes, dimension_names)
    mag = None
    if names is None or sorted(names) == ["c", "x", "y", "z"]:
        folder = folder_of(array)
        mag = mag_at(folder) if folder is not None else None
    if names is None and mag is not None:
        names = list(mag.axes)
    named = names is not None
    if names is None:
        names = list(ngff.default_axes(where, array.ndim))
        if array.ndim > 3 and array.order == "F":
            raise SourceError(
                f"{where} has {array.ndim} axes without names and is stored in Fortran order, as by programs that use x, y, "
                "z, so it is unclear which axes are z, y and x. Name them in the attribute _ARRAY_DIMENSIONS (in a list, "
                "such as c, x, y, z)."
            )
    # an axis without a name may not be time
    axes, time = (
        space_and_time(where, names, array.shape) if named else (spatial_order(where, names, array.shape), None)
    )
    if mag is not None:
        return ngff.Geometry(axes, mag.voxel_size_nm, doubt=mag.doubt)
    if axes[0] is None:
        return ngff.Geometry(axes, doubt=ngff.NO_DEPTH, time=time)
    try:
        found = place_of(array.path.rpartition("/")[2], attributes, group, names, reversed_pixels=True)
    except ngff.UnclearError as error:
        return ngff.Geometry(axes, doubt=str(error), time=time)
    return ngff.Geometry(axes, time=time) if found is None else ngff.Geometry(axes, *found, time=time)
