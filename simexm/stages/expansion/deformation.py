"""Expansion that is not even: a smooth displacement of the tissue, then a matrix about the middle of the specimen."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from simexm.geometry.grid import NmBox, exact3
from simexm.geometry.transform import SLABS, Points, Transform
from simexm.kernels.deformation import points
from simexm.stages.expansion.field import Field

Array = NDArray[np.float64]
Matrix = tuple[tuple[float, float, float], tuple[float, float, float], tuple[float, float, float]]

NO_CHANGE: Matrix = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
_MARGIN_NM = 1e-2
"""More than rounding and the residual of inversions make."""


@dataclass(frozen=True)
class Deformation(Transform):
    """x moves to scale * (c + matrix (x + u(x) - c) + shift), with the displacement u and the middle c of the specimen.

    The displacement is that of the position in the volume, so that a crop is displaced like the whole; the middle is that
    of the crop, so that it stays in the image.
    """

    scale: Fraction
    matrix: Matrix
    """Linear part beside the scale, rows and columns z, y, x; its determinant is positive."""
    middle_nm: tuple[float, float, float]
    corner_nm: tuple[float, float, float]
    """Corner of the specimen in the volume."""
    field: Field | None = None
    shift_nm: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @cached_property
    def _forward(self) -> tuple[Array, Array]:
        """Matrix and shift from displaced tissue to expanded tissue."""
        scale, linear, c = float(self.scale), self.matrix, self.middle_nm
        shift = [c[i] - sum(a * b for a, b in zip(linear[i], c, strict=True)) + self.shift_nm[i] for i in range(3)]
        return scale * np.array(linear), scale * np.array(shift)

    @cached_property
    def _back(self) -> tuple[Array, Array]:
        """Matrix and shift from expanded tissue to displaced tissue."""
        m, shift = self._forward
        (a, b, c), (d, e, f), (g, h, i) = m.tolist()
        # by cofactors: libraries of linear algebra round differently on different CPUs
        adjugate = (
            (e * i - f * h, c * h - b * i, b * f - c * e),
            (f * g - d * i, a * i - c * g, c * d - a * f),
            (d * h - e * g, b * g - a * h, a * e - b * d),
        )
        determinant = a * adjugate[0][0] + b * adjugate[1][0] + c * adjugate[2][0]
        inverse = [[v / determinant for v in row] for row in adjugate]
        back = [-sum(p * q for p, q in zip(row, shift.tolist(), strict=True)) for row in inverse]
        return np.array(inverse), np.array(back)

    @property
    def _corner(self) -> Array:
        return np.array(self.corner_nm)[:, None]

    def apply(self, points_nm: Points) -> Points:
        """Displace, then expand."""
        at = _joined(points_nm)
        if self.field is not None:
            at += self._corner
            self.field.displace(at)
            at -= self._corner
        return _parted(points.linear(at, *self._forward), points_nm)

    def invert(self, points_nm: Points, near_nm: Points | None = None) -> Points:
        """Shrink, then find the place that was displaced to here, within a hundredth of a nanometre."""
        at = points.linear(_joined(points_nm), *self._back)
        if self.field is not None:
            at += self._corner
            self.field.undisplace(at, None if near_nm is None else _joined(near_nm) + self._corner)
            at -= self._corner
        return _parted(at, points_nm)

    def bound(self, box: NmBox) -> NmBox:
        """Bound what the lattice and the matrix make of the box."""
        low, high = _corners(box)
        if self.field is not None:
            least, most = self.field.range_nm(low + self.corner_nm, high + self.corner_nm)
            low, high = low + least, high + most
        return _box(*_mapped(low, high, *self._forward))

    def bound_inverse(self, box: NmBox) -> NmBox:
        """Bound by what the lattice does where the box comes from."""
        low, high = _mapped(*_corners(box), *self._back)
        if self.field is None:
            return _box(low, high)
        corner = np.array(self.corner_nm)
        self.field.prepare(low + corner, high + corner)
        first, last = self.field.before(low + corner, high + corner)
        least, most = self.field.range_nm(first, last)
        return _box(low - most, high - least)

    def interpolated_error_nm(self, apart_nm: float) -> float:
        """See `Transform`; none for a matrix, and the third power of the distance for splines."""
        back = float(np.abs(self._back[0]).sum(axis=1).max())
        return 0.0 if self.field is None else self.field.interpolated_error_nm(apart_nm * back)

    def rough(self) -> Transform:
        """Take the displacement's standard deviation for bounds, not its lattice."""
        return self if self.field is None else replace(self, field=replace(self.field, rough=True))

    def lowest_z(self, z_nm: float, within: NmBox) -> float:
        """Take the lowest of the layers of the box at `z_nm` or above."""
        if z_nm == -math.inf:
            return z_nm
        faces, low, _ = _layers(self, within)
        along = self._forward[0][0, 0]
        above = slice(min(int(np.searchsorted(faces[1:], z_nm, "right")), low.size - 1), None)
        return float((np.maximum(faces[:-1], z_nm) * along + low)[above].min())

    def depth(self, depth_nm: Fraction | float, within: NmBox) -> Fraction | float:
        """Take the largest depth of the layers of the box that such a layer may touch."""
        faces, low, high = _layers(self, within)
        along = self._forward[0][0, 0]
        floors = np.minimum.accumulate((faces[:-1] * along + low)[::-1])[::-1]
        tops = np.maximum.accumulate(faces[1:] * along + high)
        ends = np.searchsorted(faces[1:], faces[1:] + float(depth_nm)).clip(max=low.size - 1)
        return float((tops[ends] - floors).max())


@lru_cache(maxsize=8)
def _layers(deformation: Deformation, within: NmBox) -> tuple[Array, Array, Array]:
    """Faces of layers of a box along z, and what is added to z * matrix[z, z] in each, in expanded nm: bounds."""
    low, high = _corners(within)
    matrix, shift = deformation._forward
    least, most = sorted_products(matrix[0, 1:], low[1:], high[1:])
    faces, below, above = np.array([low[0], high[0]]), np.zeros(1), np.zeros(1)
    if deformation.field is not None:
        corner = np.array(deformation.corner_nm)
        faces, below, above = deformation.field.layers(low + corner, high + corner, matrix[0])
        faces = faces - corner[0]
    # cells of a coarse lattice are divided
    parts = -(-SLABS // below.size)
    fine = (faces[:-1, None] + np.diff(faces)[:, None] * (np.arange(parts) / parts)).ravel()
    constant = shift[0] + np.array([least.sum() - _MARGIN_NM, most.sum() + _MARGIN_NM])
    return np.append(fine, faces[-1]), np.repeat(below, parts) + constant[0], np.repeat(above, parts) + constant[1]


def sorted_products(factors: Array, low: Array, high: Array) -> tuple[Array, Array]:
    """Smallest and largest factor * v with v between `low` and `high`."""
    return np.minimum(factors * low, factors * high), np.maximum(factors * low, factors * high)


def _mapped(low: Array, high: Array, matrix: Array, shift: Array) -> tuple[Array, Array]:
    """Bounds of matrix * v + shift with v between `low` and `high`."""
    least, most = sorted_products(matrix, low, high)
    return least.sum(axis=1) + shift, most.sum(axis=1) + shift


def _corners(box: NmBox) -> tuple[Array, Array]:
    return np.array([float(v) for v in box.start]), np.array([float(v) for v in box.stop])


def _box(low: Array, high: Array) -> NmBox:
    return NmBox(exact3(low - _MARGIN_NM), exact3(high + _MARGIN_NM))


def _joined(points_nm: Points) -> Array:
    """Copy coordinates into one array, (3, n)."""
    return np.stack([np.asarray(axis, np.float64).ravel() for axis in points_nm])


def _parted(at: Array, like: Points) -> Points:
    z, y, x = (row.reshape(np.shape(axis)) for row, axis in zip(at, like, strict=True))
    return z, y, x
