"""A smooth random displacement of tissue: the lattice that defines it, computed where it is needed and kept for a while."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simexm.errors import SpecError
from simexm.geometry.grid import Box, triple
from simexm.kernels.deformation import lattice as kernel
from simexm.kernels.deformation import points
from simexm.kernels.deformation.lattice import Step
from simexm.kernels.deformation.points import Region
from simexm.random import derive_key

Array = NDArray[np.float64]
Way = Literal["forward", "inverse"]

_STEP_LIMIT = 0.5
"""Largest row sum of the gradient of a step; below 1 a step is invertible (a contraction is added to the identity)."""
_FINER = 3
"""Nodes of the lattice between two nodes of the finest step."""
_WHOLE = 4
"""Boxes of nodes begin and end at multiples of it."""
_KEPT = 4
"""Regions that are kept for each way."""
_MAKING = 4
"""Arrays of the size of a region while it is made: places before and after, and those of the filter."""
_OF_CUBICS = 0.2
"""Error of cubics between places one spacing of nodes apart, over the largest coefficient; steps add up as squares."""
_SLACK = 1.1
"""The spline may exceed the steps' largest displacement by as much, since it is filtered."""
_LIKELY, _NEVER = 5.5, 8.0
"""Standard deviations that a few places of a large volume exceed, and that none does: one of 10^15 normal numbers."""
_LARGEST_REGION = 1 << 21
"""Nodes that are computed for a box, or for points together; for larger boxes the largest possible displacement is the bound."""


class Scale(NamedTuple):
    """One scale of a displacement: standard deviations along z, y, x, nm, and the distance at which correlation is 1 / e."""

    rms_nm: tuple[float, float, float]
    correlation_nm: float

    @property
    def spacing_nm(self) -> float:
        """Spacing of the spline's nodes."""
        return self.correlation_nm / CORRELATION

    @property
    def steps(self) -> int:
        """Steps into which the displacement is divided, so that each is invertible."""
        row_sum = kernel.ROW_SUM * kernel.LARGEST * kernel.PER_RMS * max(self.rms_nm) / self.spacing_nm
        return max(1, math.ceil((row_sum / _STEP_LIMIT) ** 2))


CORRELATION = 1.184696
"""Distance in spacings at which the correlation of a spline with independent coefficients, averaged over positions, is 1 / e."""


@dataclass(frozen=True)
class Field:
    """A displacement: where a number of invertible steps lead, on a lattice of cubic B-splines.

    Positions are in nm from the corner of the volume, so that a crop is displaced like the whole.
    """

    spacing_nm: float
    steps: tuple[Step, ...]
    """In order."""
    rough: bool = False
    """Whether bounds are computed without the lattice; see `Transform.rough`."""

    @classmethod
    def of(cls, scales: Sequence[Scale], seed: int, *parts: str | int) -> Field:
        """Compose steps for each scale; `parts` name the random stream."""
        found = []
        for number, scale in enumerate(scales):
            for step in range(scale.steps):
                most = [kernel.LARGEST * kernel.PER_RMS * rms / math.sqrt(scale.steps) for rms in scale.rms_nm]
                found.append((scale.spacing_nm, (most[0], most[1], most[2]), derive_key(seed, *parts, number, step)))
        return cls(min(s for s, _, _ in found) / _FINER, tuple(found))

    @cached_property
    def most_nm(self) -> Array:
        """Largest displacement along z, y, x; a lattice that exceeds it, which is possible but never seen, is refused."""
        steps = np.array([most for _, most, _ in self.steps])
        return np.asarray(np.minimum(_SLACK * steps.sum(axis=0), _NEVER * self._rms_nm))

    @property
    def _rms_nm(self) -> Array:
        steps = np.array([most for _, most, _ in self.steps])
        return np.asarray(np.sqrt(np.square(steps).sum(axis=0))) / (kernel.LARGEST * kernel.PER_RMS)

    @property
    def _bound_nm(self) -> Array:
        """Displacement that no box exceeds or, roughly, hardly any."""
        return _LIKELY * self._rms_nm if self.rough else self.most_nm

    def interpolated_error_nm(self, apart_nm: float) -> float:
        """Error of cubics between places this far apart: the third derivative of a step jumps at its nodes.

        The factor is what an interpolated inverse shows; truth measures whether it holds.
        """
        largest = ((max(most), apart_nm / spacing) for spacing, most, _ in self.steps)
        return float(_OF_CUBICS * np.sqrt(sum((most * part * part * part) ** 2 for most, part in largest)))

    def nodes(self, low_nm: Sequence[float] | Array, high_nm: Sequence[float] | Array) -> Box:
        """Nodes that decide the spline between two corners."""
        # a point on the upper face may round up to the next cell
        start = triple(math.floor(v / self.spacing_nm) - 1 for v in low_nm)
        return Box(start, triple(math.floor(v / self.spacing_nm) + 4 for v in high_nm))

    def region(self, way: Way, box: Box) -> Region:
        """Coefficients of a box of nodes, or of more; for "inverse", those at all points that move into it."""
        recent = _recent.regions[way]
        for field, whole, region in recent:
            if whole.contains(box) and field == self:
                return region
        box = _round(box)
        found = _computed(self, box) if way == "forward" else self.region("forward", self._reached(box))
        recent.append((self, box, found))
        del recent[:-_KEPT]
        return found

    def _reached(self, box: Box) -> Box:
        """Nodes that decide the displacement at points that move into a box of nodes, in that box, and a little around."""
        low, high = (np.array(corner, np.float64) * self.spacing_nm for corner in (box.start, box.stop))
        return self._both((low, high), self.before(low, high))

    def _both(self, one_nm: tuple[Array, Array], two_nm: tuple[Array, Array]) -> Box:
        """Nodes that decide the spline in two boxes, and a little around."""
        return self.nodes(np.minimum(one_nm[0], two_nm[0]), np.maximum(one_nm[1], two_nm[1])).grown((1, 1, 1))

    def prepare(self, low_nm: Array, high_nm: Array) -> None:
        """Compute all that points between two corners of displaced tissue need, together."""
        box = self.nodes(low_nm, high_nm)
        if not self.rough and box.size <= _LARGEST_REGION:
            self.region("inverse", box)

    def before(self, low_nm: Array, high_nm: Array) -> tuple[Array, Array]:
        """See `_before`; the last are kept."""
        low, high = _before(self, tuple(low_nm.tolist()), tuple(high_nm.tolist()))
        return low.copy(), high.copy()

    def _came_from(self, low_nm: Array, high_nm: Array) -> tuple[Array, Array]:
        """Corners between which all points lie that are displaced to between two corners.

        They are guessed from a few places around, and proven: if each face of a box is moved beyond the face of another that
        it lies at, and nothing folds, all that moves into the other lies in the box. Otherwise the largest displacement counts.
        """
        generous = low_nm - self._bound_nm, high_nm + self._bound_nm
        if self.rough or self.nodes(*generous).size > _LARGEST_REGION:
            return generous
        every = _FINER * self.spacing_nm
        along = [
            np.arange(math.floor(a / every), math.ceil(b / every) + 1) * every for a, b in zip(*generous, strict=True)
        ]
        places = np.stack([axis.ravel() for axis in np.meshgrid(*along, indexing="ij")])
        pushed = kernel.displaced(places, self.steps)
        margin = self.spacing_nm / 2
        low, high = low_nm - pushed.max(axis=1) - margin, high_nm - pushed.min(axis=1) + margin
        # of all that is needed of both boxes, and of larger boxes that mostly follow, so that there is one region
        wanted = self._both((low_nm, high_nm), (low, high))
        if not any(f == self and whole.contains(wanted) for f, whole, _ in _recent.regions["forward"]):
            self.region("forward", wanted.grown((_WHOLE,) * 3))
        inside = self._cut(self.nodes(low, high))
        for axis in range(3):
            # four nodes decide the displacement of a face
            first, last = (inside.take(some, axis=axis)[..., axis] for some in (range(4), range(-5, 0)))
            if low[axis] + first.max() >= low_nm[axis] or high[axis] + last.min() <= high_nm[axis]:
                return generous
        return low, high

    def range_nm(self, low_nm: Sequence[float] | Array, high_nm: Sequence[float] | Array) -> tuple[Array, Array]:
        """Smallest and largest displacement along z, y, x between two corners: bounds, from the nodes there."""
        box = self.nodes(low_nm, high_nm)
        if self.rough or box.size > _LARGEST_REGION:
            return -self._bound_nm, self._bound_nm
        inside = self._cut(box)
        return inside.min(axis=(0, 1, 2)), inside.max(axis=(0, 1, 2))

    def layers(
        self, low_nm: Sequence[float] | Array, high_nm: Sequence[float] | Array, along: Array
    ) -> tuple[Array, Array, Array]:
        """Bounds of `along` times the displacement between two corners, for each layer of cells along z.

        Returns the z of the layers' faces, (n + 1,), and lower and upper bounds, (n,).
        """
        box = self.nodes(low_nm, high_nm)
        if self.rough or box.size > _LARGEST_REGION:
            most = float(np.abs(along) @ self._bound_nm)
            return np.array([low_nm[0], high_nm[0]]), np.array([-most]), np.array([most])
        pushed = self._cut(box) @ along
        low, high = pushed.min(axis=(1, 2)), pushed.max(axis=(1, 2))
        faces: Array = np.arange(box.start[0] + 1, box.stop[0] - 1) * np.float64(self.spacing_nm)
        four = np.arange(faces.size - 1)[:, None] + np.arange(4)
        return faces, np.asarray(low[four].min(axis=1)), np.asarray(high[four].max(axis=1))

    def _cut(self, box: Box) -> Array:
        region = self.region("forward", box)
        return region.lattice[box.relative_to(triple(region.first)).slices]

    def displace(self, at_nm: Array) -> None:
        """Displace points, (3, n), in place."""
        for some, box in self._together(at_nm):
            region = self.region("forward", box)
            part = np.ascontiguousarray(at_nm[:, some])
            points.displace(part, 1.0 / self.spacing_nm, region)
            at_nm[:, some] = part

    def undisplace(self, at_nm: Array, near_nm: Array | None = None) -> None:
        """Move points, (3, n), back to where they were displaced from, in place; the search begins at `near_nm`."""
        start = at_nm.copy() if near_nm is None else near_nm
        for some, box in self._together(at_nm):
            part, begin = at_nm[:, some], start[:, some]
            found = points.undisplace(part, begin, self.most_nm, 1.0 / self.spacing_nm, self.region("inverse", box))
            lost = np.isnan(found[0])
            if lost.any():
                around = box.grown(triple(math.ceil(m / self.spacing_nm) + 4 for m in self.most_nm))
                region = self.region("forward", around)
                found[:, lost] = points.undisplace(
                    part[:, lost], begin[:, lost], self.most_nm, 1.0 / self.spacing_nm, region
                )
            at_nm[:, some] = found

    def _together(self, at_nm: Array) -> Iterable[tuple[slice | NDArray[np.int64], Box]]:
        """Divide points into groups that lie near each other, each with the nodes that it needs."""
        if not at_nm.shape[1]:
            return
        box = self.nodes(at_nm.min(axis=1).tolist(), at_nm.max(axis=1).tolist())
        if box.size <= _LARGEST_REGION:
            yield slice(None), box
            return
        cells = np.floor(at_nm / (4 * _WHOLE * self.spacing_nm))
        _, group = np.unique(cells, axis=1, return_inverse=True)
        order = np.argsort(group.ravel(), kind="stable")
        for some in np.split(order, np.flatnonzero(np.diff(group.ravel()[order])) + 1):
            part = at_nm[:, some]
            yield some, self.nodes(part.min(axis=1).tolist(), part.max(axis=1).tolist())

    def region_bytes(self, extent_nm: Sequence[float]) -> int:
        """Bytes of the lattices that points in a box of this extent need, and of their making."""
        lengths = [(e + 4 * m) / self.spacing_nm + 2 * _WHOLE for e, m in zip(extent_nm, self.most_nm, strict=True)]
        nodes = min(math.prod(lengths), 2 * _LARGEST_REGION)
        return int(24 * nodes * (_KEPT + _MAKING))


@lru_cache(maxsize=16)
def _before(field: Field, low_nm: tuple[float, ...], high_nm: tuple[float, ...]) -> tuple[Array, Array]:
    return field._came_from(np.array(low_nm), np.array(high_nm))


def _round(box: Box) -> Box:
    """Grow a box to multiples of `_WHOLE`, so that requests for points nearby are for the same box."""
    start = triple(a // _WHOLE * _WHOLE for a in box.start)
    return Box(start, triple(-(-b // _WHOLE) * _WHOLE for b in box.stop))


class _Recent(threading.local):
    """Regions that a thread computed last, the newest at the end."""

    def __init__(self) -> None:
        self.regions: dict[Way, list[tuple[Field, Box, Region]]] = {"forward": [], "inverse": []}


_recent = _Recent()


def _computed(field: Field, box: Box) -> Region:
    """Coefficients in a box of nodes; SpecError if the displacement folds there."""
    found = kernel.composed(box.start, box.shape, field.spacing_nm, field.steps)
    if (np.abs(found) > field.most_nm).any() or not kernel.never_folds(found, field.spacing_nm):
        raise SpecError(
            "expansion: the displacement is so uneven that the tissue might fold over itself, where a pixel would have no one "
            "place in it; make rms_nm smaller, or correlation_um longer"
        )
    return Region(np.array(box.start, np.int64), found)
