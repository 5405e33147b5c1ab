"""The transform that an alignment finds: from points of the fixed volume to those of the moving one, um, z y x.

A point p of the fixed volume lies at A (p + u(p)) + t in the moving one. An image is aligned by looking up each of its voxels
there (pull-back). u is stored at the centres of voxels, is linear between them, and stays as it is beyond the outer ones.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simexm.errors import OutputError, SpecError
from simexm.geometry.grid import Triple, three, triple
from simexm.kernels.registration import fields
from simexm.result.result import Result, elements

KIND = "align"
GROUP, DISPLACEMENT = "transforms", "displacement"
CONVENTION = (
    "pull-back: a point p of the fixed volume, um, z y x, lies at affine applied to (p + displacement(p)) "
    "in the moving volume"
)
Floats = NDArray[np.float64]
Um = tuple[float, float, float]
_SLAB = 1 << 18
"""Voxels whose places are in memory at once."""


def identity() -> Floats:
    """The affine map that changes nothing, (3, 4)."""
    return np.eye(3, 4)


@dataclass(frozen=True)
class Frame:
    """A grid of voxels: number along z, y, x, size and lower corner of the first, um."""

    shape: Triple
    voxel_um: Um
    corner_um: Um = (0.0, 0.0, 0.0)

    @property
    def first_um(self) -> Floats:
        """Centre of the first voxel, (3,)."""
        return np.asarray(self.corner_um) + np.asarray(self.voxel_um) / 2

    @property
    def extent_um(self) -> Floats:
        """Size of the volume, (3,)."""
        return np.asarray(np.asarray(self.shape) * np.asarray(self.voxel_um), np.float64)

    @property
    def centre_um(self) -> Floats:
        """Middle of the volume, (3,)."""
        return np.asarray(self.corner_um) + self.extent_um / 2

    def centres(self, start: Sequence[int] = (0, 0, 0), shape: Sequence[int] | None = None) -> Floats:
        """Centres of the voxels of a box, um, (3, z, y, x)."""
        numbers = zip(start, self.shape if shape is None else shape, self.first_um, self.voxel_um, strict=True)
        axes = [first + step * np.arange(a, a + n) for a, n, first, step in numbers]
        return np.stack(np.meshgrid(*axes, indexing="ij"))

    def slabs(self) -> Iterator[tuple[slice, Floats]]:
        """Go through the planes, a few at a time: yield their range and the centres of their voxels; see `centres`."""
        depth, *plane = self.shape
        step = max(1, _SLAB // math.prod(plane))
        for start in range(0, depth, step):
            stop = min(depth, start + step)
            yield slice(start, stop), self.centres((start, 0, 0), (stop - start, *plane))

    def part(self, start: Sequence[int], shape: Sequence[int]) -> Frame:
        """The grid of a box of its voxels."""
        corner = three(c + v * int(a) for c, v, a in zip(self.corner_um, self.voxel_um, start, strict=True))
        return Frame(triple(shape), self.voxel_um, corner)

    def voxels(self, points: Floats) -> Floats:
        """Coordinates of points (3, ...), um, that count voxels from the centre of the first."""
        along = (3, *(1,) * (points.ndim - 1))
        return np.asarray((points - self.first_um.reshape(along)) / np.asarray(self.voxel_um).reshape(along))


@dataclass(frozen=True)
class Transform:
    """An affine map after a displacement; see the module.

    Attributes
    ----------
    affine
        (3, 4), um: the linear part A, and the shift t in the last column.
    displacement
        u, (3, z, y, x), um, at the centres of `frame`; None for none.
    frame
        Grid of the displacement.
    """

    affine: Floats = field(default_factory=identity)
    displacement: NDArray[np.float32] | None = None
    frame: Frame | None = None

    def __call__(self, points: Floats) -> Floats:
        """Points of the moving volume, (3, ...), um, for points of the fixed one."""
        if self.displacement is not None and self.frame is not None:
            points = points + fields.sample(self.displacement, self.frame.voxels(points))
        return affine_at(self.affine, points)

    def near(self, points: Floats) -> Transform:
        """The part that decides where points lie: all, since it is in memory; see `StoredTransform.near`."""
        return self

    def on(self, frame: Frame) -> Transform:
        """The transform with its displacement on another grid."""
        if self.displacement is None or self.frame is None or self.frame == frame:
            return self
        return self.before(np.zeros((3, *frame.shape), np.float32), frame)

    def before(self, field: NDArray[np.float32], frame: Frame) -> Transform:
        """Let a displacement (3, z, y, x), um, at the centres of `frame` act first: the two as one transform."""
        if self.displacement is None or self.frame is None:
            return Transform(self.affine, field, frame)
        total = np.empty_like(field)
        for planes, points in frame.slabs():
            part = field[:, planes]
            total[:, planes] = part + fields.sample(self.displacement, self.frame.voxels(points + part))
        return Transform(self.affine, total, frame)

    def inverse(self, points: Floats, tolerance_um: float) -> Floats:
        """Points of the fixed volume, (3, n), um, for points of the moving one; NaN where the tolerance is not reached."""
        back = affine_at(inverted(self.affine), points)
        if self.displacement is None or self.frame is None:
            return back
        return fields.invert(self.displacement, self.frame.voxel_um, back, self.frame.first_um, tolerance_um)

    def _jacobians(self) -> NDArray[np.float32]:
        if self.displacement is None or self.frame is None:
            return np.ones((1, 1, 1), np.float32)
        return np.asarray(fields.smallest_jacobian(self.displacement, np.asarray(self.frame.voxel_um)))

    def folds(self) -> int:
        """Number of cells between voxel centres in which the displacement folds."""
        return int((self._jacobians() <= 0).sum())

    def smallest_jacobian(self) -> float:
        """Smallest ratio of volumes of the displacement, over the corners of all cells between voxel centres."""
        return float(self._jacobians().min())

    def with_affine(self, affine: Floats) -> Transform:
        """The same displacement with another affine map."""
        return replace(self, affine=affine)


def affine_at(affine: Floats, points: Floats) -> Floats:
    """Points (3, ...) under an affine map (3, 4)."""
    return np.asarray(np.tensordot(affine[:, :3], points, 1) + affine[:, 3].reshape(3, *(1,) * (points.ndim - 1)))


def inverted(affine: Floats) -> Floats:
    """The inverse of an affine map (3, 4)."""
    back = np.linalg.inv(affine[:, :3])
    return np.column_stack([back, -back @ affine[:, 3]])


def refuse_mirror(affine: Floats, where: str) -> None:
    """Raise SpecError for a map that mirrors or flattens: no specimen does, and the axes are probably in another order."""
    if np.linalg.det(affine[:, :3]) <= 0:
        raise SpecError(
            f"the affine map of {where} has the determinant {np.linalg.det(affine[:, :3]):.3g}, so it mirrors or flattens the "
            "specimen; check the order of its axes, which is z y x"
        )


_ROUND = r"round_\d\d+"


def _of_round(records: Mapping[str, Any], path: str, name: str | None) -> Any:
    """The record of a round; raises OutputError if it is missing, or not named."""
    if name is not None and name in records:
        return records[name]
    if not records:
        raise OutputError(f"{path}: the result holds one transform, not rounds; leave {name} out")
    raise OutputError(
        f"{path} holds the transforms of {', '.join(records)}; name one after the result, as in NAME.zarr/{next(iter(records))}"
    )


class StoredTransform:
    """A transform in a result of `align` or in a file of another program; only the boxes asked for are read.

    Raises OutputError for a result of another kind or an unfinished one, SpecError for a file that holds no transform; see
    `simexm.analysis.registration.foreign`.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._array: Any = None
        self.frame: Frame | None = None
        self.moving: Frame | None = None
        self.held_bytes = 0
        from simexm.analysis.registration import foreign  # which builds on this module

        if (content := foreign.read(Path(path))) is not None:
            self.affine, self.places, self.identity = content.affine, [Path(path).resolve()], content.digest
            self._array, self.frame, self.held_bytes = content.displacement, content.frame, content.held_bytes
            return
        found = re.fullmatch(rf"(.+)/({_ROUND})/?", path)
        result = Result.open(path if found is None else found[1])
        if result.kind != KIND:
            raise OutputError(
                f"{path} holds the output of `simexm {result.kind}`, not a transform; name one of `simexm align`"
            )
        result.require_complete()
        from simexm.store.metadata import read_group

        record = read_group(result.path / GROUP)["simexm"]
        if "rounds" in record or found is not None:
            record = _of_round(record.get("rounds", {}), path, None if found is None else found[2])
        self.affine = np.asarray(record["affine_um"], np.float64)
        self.places, self.identity = result.places, str(result.provenance["hash"])
        self.frame, self.moving = (
            Frame(triple(record[side]["shape"]), three(record[side]["voxel_um"]), three(record[side]["corner_um"]))
            for side in ("fixed", "moving")
        )
        self._array = result.array(of=f"{GROUP}/{record['displacement']}")

    def __reduce__(self) -> tuple[type[StoredTransform], tuple[str]]:
        return StoredTransform, (self.path,)

    @cached_property
    def whole(self) -> Transform:
        """The transform, read into memory once."""
        if self._array is None or self.frame is None:
            return Transform(self.affine)
        return Transform(self.affine, np.asarray(elements(self._array, ...), np.float32), self.frame)

    def on(self, frame: Frame) -> Transform:
        """The transform with its displacement on another grid, read a few planes at a time."""
        if self._array is None or self.frame == frame:
            return self.whole
        found = np.empty((3, *frame.shape), np.float32)
        for planes, points in frame.slabs():
            part = self.near(points)
            assert part.displacement is not None
            assert part.frame is not None
            found[:, planes] = fields.sample(part.displacement, part.frame.voxels(points))
        return Transform(self.affine, found, frame)

    def near(self, points: Floats) -> Transform:
        """The part of the transform that decides where these points, (3, ...), um, lie in the moving volume."""
        if self._array is None or self.frame is None:
            return Transform(self.affine)
        flat = self.frame.voxels(points).reshape(3, -1)
        last = np.asarray(self.frame.shape) - 1
        low = np.clip(np.floor(flat.min(axis=1)), 0, last).astype(int)
        high = np.clip(np.ceil(flat.max(axis=1)), 0, last).astype(int) + 1
        at = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
        part = np.asarray(elements(self._array, (slice(None), *at)), np.float32)
        return Transform(self.affine, part, self.frame.part(low, part.shape[1:]))
