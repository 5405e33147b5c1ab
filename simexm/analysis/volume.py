"""Volumes as inputs of analyses: ids, masks or probabilities in any format that `ingest` reads, and label images of results."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from simexm.analysis.contract import Analysis
from simexm.errors import OutputError, SourceError, SpecError
from simexm.geometry.grid import Box, Spacing, Triple, exact3, triple
from simexm.geometry.roi import box_of
from simexm.names import FreeText
from simexm.result.result import Result
from simexm.sources.base import VoxelSizeNm
from simexm.sources.identity import digest_of
from simexm.sources.opening import open_stack
from simexm.sources.stack import Stack, cell_ids, grey, mask, size_and_origin, times_of
from simexm.store.location import Location, is_url, location
from simexm.store.remote import Remote

Content = Literal["labels", "mask", "probability"]
_PLANES, _PLANE = 16, 1024
"""Planes, and their most rows and columns, whose values decide a volume's hash."""


class Volume:
    """A stored volume; it is opened again wherever it is unpickled.

    Parameters
    ----------
    path
        File, folder, glob or URL.
    dataset
        Volume inside it, if it holds several.
    level
        Level of its pyramid.
    voxel_size_nm
        z, y, x; None: from its metadata.
    """

    def __init__(
        self, path: str, dataset: str | None = None, level: int = 0, voxel_size_nm: Sequence[float] | None = None
    ) -> None:
        self._arguments = (path, dataset, level, None if voxel_size_nm is None else tuple(voxel_size_nm))
        self.path = path
        self.stack = _open(path, dataset, level)
        if times_of(self.stack) > 1:
            raise SpecError(
                f"{self.where} holds {times_of(self.stack)} time points, and an analysis reads one volume; write one with "
                f"`simexm ingest {path} --time N`"
            )
        given = None if voxel_size_nm is None else exact3(voxel_size_nm)
        self.voxel_nm, self.origin_nm = size_and_origin(self.stack, given)

    def __reduce__(self) -> tuple[type[Volume], tuple[Any, ...]]:
        return Volume, self._arguments

    @property
    def where(self) -> str:
        """Name in messages."""
        return self.stack.where

    @property
    def shape(self) -> Triple:
        """Voxels along z, y, x."""
        return self.stack.shape

    @property
    def places(self) -> list[Location]:
        """Where it is stored, which the output must not be."""
        place = location(self.path) if is_url(self.path) else Path(self.path).expanduser().resolve()
        return [place, place.with_suffix(".run")] if place.suffix == ".zarr" else [place]

    @cached_property
    def identity(self) -> str:
        """Digest of shape, type, grid and the values of sixteen planes, whatever the format and the path.

        That of a volume that is computed follows from its description.
        """
        if (own := getattr(self.stack, "identity", None)) is not None:
            return digest_of(str(own))
        found = hashlib.blake2b(digest_size=16)
        depth, height, width = self.shape
        for z in sorted({n * (depth - 1) // (_PLANES - 1) for n in range(_PLANES)}):
            box = Box((z, 0, 0), (z + 1, min(height, _PLANE), min(width, _PLANE)))
            found.update(np.ascontiguousarray(self.stack.read(box)).tobytes())
        grid = [str(v) for v in (*self.shape, *self.voxel_nm, *self.origin_nm, self.stack.dtype)]
        return digest_of(*grid, found.hexdigest())

    def numbers(self, content: Content) -> Callable[[Box], NDArray[Any]]:
        """Return the function that reads a box as ids, as a mask of 0 and 1, or as probabilities (float32).

        Raises SourceError if the type of the volume cannot be that. Reading raises it for values that are not.
        """
        whole = Box.of_shape(self.shape)
        if content == "probability":
            return _probabilities(self.stack)
        return (cell_ids if content == "labels" else mask)(self.stack, whole).read


def _open(path: str, dataset: str | None, level: int) -> Stack:
    stack = open_stack(path, dataset=dataset)
    if not level:
        return stack
    levels: list[str] = getattr(stack, "levels", [])
    if level >= len(levels):
        held = f"the levels 0 to {len(levels) - 1}" if levels else "one level"
        raise SpecError(f"{stack.where} has {held}; leave --level {level} out, or name one of these")
    return open_stack(path, dataset=levels[level])


def _probabilities(stack: Stack) -> Callable[[Box], NDArray[np.float32]]:
    dtype = grey(stack, Box.of_shape(stack.shape)).dtype
    scale = 1.0 if dtype.kind == "f" else 1.0 / np.iinfo(dtype).max

    def read(box: Box) -> NDArray[np.float32]:
        values = stack.read(box)
        found = values.astype(np.float32) if dtype.kind == "f" else (values * scale).astype(np.float32)
        wrong = ~((found >= 0) & (found <= 1))
        if wrong.any():
            at = tuple(int(a + n) for a, n in zip(box.start, np.argwhere(wrong)[0], strict=True))
            raise SourceError(
                f"{stack.plane(at[0])}: the value {found[wrong][0]:g} at voxel {at} is no probability, which lies between 0 "
                "and 1, so a threshold would mean something else. Scale the map, or write a mask (content: mask)."
            )
        return found

    return read


class VolumeAnalysis(Analysis):
    """An analysis of stored volumes.

    Attributes
    ----------
    dataset
        Volume inside a Zarr, HDF5 or N5, such as labels/cells of a result. Default: the only one.
    level
        Level of its pyramid, 0 the finest.
    roi
        Voxels to read, "z0:z1,y0:y1,x0:x1", of this level. Outside is nothing. Default: all.
    voxel_size_nm
        Size of a voxel along z, y, x, if the metadata do not hold it.
    block_voxels
        Side of a block. It changes speed and memory, no number.
    """

    dataset: FreeText | None = None
    level: int = Field(default=0, ge=0)
    roi: FreeText | None = None
    voxel_size_nm: VoxelSizeNm | None = None
    block_voxels: int = Field(default=256, ge=16, le=1024)

    def opened(self, inputs: Sequence[Any]) -> tuple[Any, ...]:
        """Open paths or results as volumes."""
        return tuple(self._volume(one) for one in inputs)

    def _volume(self, one: Any) -> Volume:
        if isinstance(one, Volume):
            return one
        if isinstance(one, Result):
            one.require_complete()
            one = one.path
        path = str(one)
        path = path if is_url(path) or isinstance(one, Remote) else str(Path(path).expanduser().absolute())
        return Volume(path, self.dataset, self.level, self.voxel_size_nm)

    def box(self, volume: Volume) -> Box:
        """The voxels to read."""
        return box_of(self.roi, volume.shape, volume.where)

    def refuse_other_count(self, inputs: Sequence[Any], count: int, what: str) -> None:
        """Raise OutputError unless there are so many inputs; `what` names them."""
        if len(inputs) != count:
            raise OutputError(f"{self.tag} reads {what}, not {len(inputs)} inputs; type: simexm {self.tag} {what}")


def corner_nm(volume: Volume, box: Box) -> Spacing:
    """Lower corner of a box, nm."""
    z, y, x = (o + a * v for o, a, v in zip(volume.origin_nm, box.start, volume.voxel_nm, strict=True))
    return z, y, x


def voxel_floats(volume: Volume) -> tuple[float, float, float]:
    """Size of a voxel, nm."""
    z, y, x = map(float, volume.voxel_nm)
    return z, y, x


def same_grid(one: Volume, other: Volume) -> tuple[Triple, Triple, Triple]:
    """Return where the common part of two volumes begins in each, and its shape.

    Raises SpecError if voxels differ in size or do not coincide, or there is no common part.
    """
    if one.voxel_nm != other.voxel_nm:
        sizes = " and ".join(" x ".join(f"{float(v):g}" for v in volume.voxel_nm) for volume in (one, other))
        raise SpecError(
            f"{one.where} and {other.where} have voxels of {sizes} nm, so a voxel of one is no voxel of the other and every "
            "overlap would be a guess; resample one, or choose the level (--level) with the other's voxels"
        )
    shift = [(a - b) / v for a, b, v in zip(other.origin_nm, one.origin_nm, one.voxel_nm, strict=True)]
    if any(s.denominator != 1 for s in shift):
        off = " x ".join(f"{float(s % 1 * v):g}" for s, v in zip(shift, one.voxel_nm, strict=True))
        raise SpecError(
            f"the grids of {one.where} and {other.where} are shifted by {off} nm (z, y, x) beyond whole voxels, so voxels would "
            "overlap in part; resample one, or correct its position"
        )
    start_one = triple(max(0, int(s)) for s in shift)
    start_other = triple(max(0, -int(s)) for s in shift)
    shape = triple(min(n - a, m - b) for n, a, m, b in zip(one.shape, start_one, other.shape, start_other, strict=True))
    if min(shape) < 1:
        raise SpecError(f"{one.where} and {other.where} have no voxel in common; correct the position of one")
    return start_one, start_other, shape
