"""Transforms of a simulation, exact: from its image to the tissue, and from its first round of imaging to another."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from simexm.analysis.registration.transform import Floats, Frame, StoredTransform, Transform
from simexm.analysis.result_image import ROUND
from simexm.errors import NoResultError, OutputError
from simexm.geometry.geometry import Geometry
from simexm.geometry.grid import Spacing, Triple, three
from simexm.geometry.transform import IDENTITY
from simexm.geometry.transform import Transform as Expansion
from simexm.result.place import SIMULATION
from simexm.result.result import Result


@dataclass(frozen=True)
class _Moves:
    """Two transforms of one specimen: points of the image of `fixed` lie elsewhere in that of `moving`."""

    fixed: Expansion
    moving: Expansion
    origin_nm: Floats
    """Corner of the specimen, (3, 1)."""

    def there(self, points_um: Floats, fixed: Expansion, moving: Expansion) -> Floats:
        """Points of the image of `moving`, (3, ...), um, for points of that of `fixed`."""
        z, y, x = (1e3 * points_um.reshape(3, -1) - self.origin_nm) * float(fixed.scale)
        moved = np.stack(moving.apply(fixed.invert((z, y, x)))) / float(moving.scale)
        return np.asarray((moved + self.origin_nm) / 1e3).reshape(points_um.shape)


@dataclass(frozen=True)
class ExactTransform(Transform):
    """A transform that is computed at each point; `displacement` is what it is at the centres of a grid."""

    moves: _Moves | None = None

    def __call__(self, points: Floats) -> Floats:
        """See `Transform`."""
        assert self.moves is not None
        return self.moves.there(points, self.moves.fixed, self.moves.moving)

    def inverse(self, points: Floats, tolerance_um: float) -> Floats:
        """See `Transform`; within a hundredth of a nanometre."""
        assert self.moves is not None
        return self.moves.there(points, self.moves.moving, self.moves.fixed)


class TrueTransform(StoredTransform):
    """The transform of a simulation, by the path of its result (image to tissue) or of a later round in it (first round to it).

    Raises OutputError if the result has no such round.
    """

    def __init__(self, path: str) -> None:
        self.path, self.held_bytes = path, 0
        name, number = _parted(path)
        result = Result.open(name)
        plan = result.plan()
        g, rounds = plan.geometry, result.rounds
        if number is not None and not 1 <= number <= rounds:
            raise OutputError(f"{name} has {rounds} rounds of imaging, so there is no round {number}; name another")
        self.affine, self.places = np.eye(3, 4), result.places
        self.identity = f"{plan.hash}/{number or 'tissue'}"
        origin = np.array([float(v) for v in g.specimen_origin_nm])[:, None]
        moving: Expansion = IDENTITY
        if number is None:
            self.moving = _frame(g.volume, g.voxel_nm, g.origin_nm)
        else:
            self.moving = _image(g)
            frame = next(f for f in plan.frames if f.round == number)
            moving = plan.context.at(frame).geometry.transform
        self.frame = _image(g)
        self._moves = _Moves(g.transform, moving, origin)

    def __reduce__(self) -> tuple[type[StoredTransform], tuple[str]]:
        return TrueTransform, (self.path,)

    @cached_property
    def whole(self) -> Transform:
        """The transform, with the displacement at the centres of the image's pixels."""
        assert self.frame is not None
        centres = self.frame.centres()
        at = ExactTransform(moves=self._moves)(centres) - centres
        return ExactTransform(displacement=at.astype(np.float32), frame=self.frame, moves=self._moves)

    def on(self, frame: Frame) -> Transform:
        """See `StoredTransform`."""
        found = np.empty((3, *frame.shape), np.float32)
        for planes, points in frame.slabs():
            found[:, planes] = self.near(points)(points) - points
        return Transform(self.affine, found, frame)

    def near(self, points: Floats) -> Transform:
        """The transform."""
        return ExactTransform(moves=self._moves)


def transform_at(path: str) -> StoredTransform:
    """Open the transform of a simulation, of a result of align, or in a file."""
    try:
        kind = Result.open(_parted(path)[0]).kind
    except NoResultError:
        kind = ""
    return TrueTransform(path) if kind == SIMULATION else StoredTransform(path)


def _parted(path: str) -> tuple[str, int | None]:
    """A result, and the round in it that a path names."""
    found = ROUND.fullmatch(path)
    return (path, None) if found is None else (found["result"], int(found["number"]))


def _image(g: Geometry) -> Frame:
    return _frame(g.shape, g.pixel_tissue_nm, g.image_origin_nm)


def _frame(shape: Triple, voxel_nm: Spacing, corner_nm: Spacing) -> Frame:
    voxel, corner = (three(float(v) / 1e3 for v in each) for each in (voxel_nm, corner_nm))
    return Frame(shape, voxel, corner)
