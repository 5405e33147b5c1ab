"""Apply transforms to a volume of any size, block by block and in one interpolation, or to a table of points."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.csv  # type: ignore[import-untyped]
import pyarrow.parquet  # type: ignore[import-untyped]
from numpy.typing import NDArray
from pydantic import Field

from simexm.analysis.contract import Analysis, Bench, Conclusion, Measured
from simexm.analysis.grid import Grid
from simexm.analysis.registration.align import Side, absolute, frame_of
from simexm.analysis.registration.transform import Floats, Frame, StoredTransform
from simexm.analysis.registration.truth import transform_at
from simexm.analysis.volume import Volume
from simexm.errors import OutputError, SpecError
from simexm.geometry.grid import Box, exact3, triple
from simexm.jobs.sums_by_id import CellSums
from simexm.kernels.registration import warp
from simexm.names import FreeText
from simexm.sources.stack import cell_ids, grey
from simexm.stages.products import Product, labels
from simexm.store.location import Location

IMAGE, LABELS, POINTS = "image", "ids", "points"
PLACE = ("z_um", "y_um", "x_um")
TABLES = (".csv", ".parquet")


class Apply(Analysis):
    """Bring a volume or a table of points from the moving side of transforms to the fixed side.

    Inputs are one or several transforms, then the volume or table. Of several transforms, the moving side of each is the fixed
    side of the next; they are composed, so that the volume is interpolated once. Blocks make it work at any size. A table is
    .csv or .parquet with the columns z_um, y_um, x_um.

    Attributes
    ----------
    content
        image, interpolated; or labels, whose ids are looked up and stay as they are.
    interpolation
        Of an image: linear or cubic.
    outside
        Values where the volume has none: zero, or those of the nearest voxel.
    inverse
        Go from the fixed side to the moving one.
    tolerance_um
        Largest error of an inverse, which is found by iteration.
    like
        Volume whose grid the output has. Default: that of the fixed volume of the first transform (inverse: of the moving
        volume of the last).
    volume
        Dataset, level and voxel size of the volume, if needed.
    block_voxels
        Side of a block.
    """

    analysis: Literal["apply"] = "apply"
    content: Literal["image", "labels"] = "image"
    interpolation: Literal["linear", "cubic"] = "linear"
    outside: warp.Outside = "zero"
    inverse: bool = False
    tolerance_um: float = Field(default=1e-3, gt=0)
    like: FreeText | None = None
    volume: Side = Side()
    block_voxels: int = Field(default=128, ge=32, le=512)

    def opened(self, inputs: Sequence[Any]) -> tuple[Any, ...]:
        """Open the transforms, and the volume or table."""
        if len(inputs) < 2:
            raise OutputError("apply reads transforms and a volume or table; type: simexm apply TRANSFORM... VOLUME")
        *transforms, last = inputs
        given = [one if isinstance(one, StoredTransform) else transform_at(absolute(_path(one))) for one in transforms]
        if isinstance(last, Volume):
            return (*given, last)
        path = _path(last)
        return (*given, PointTable(absolute(path)) if path.lower().endswith(TABLES) else self.volume.open(path))

    def open(self, inputs: tuple[Any, ...]) -> Bench:
        """Check that the inputs fit each other."""
        *transforms, last = inputs
        chain = Chain(transforms, self.inverse, self.tolerance_um)
        return ApplyToPoints(chain, last) if isinstance(last, PointTable) else ApplyToVolume(self, chain, last)


def _path(one: Any) -> str:
    return str(getattr(one, "path", one))


class Chain:
    """Transforms one after the other, each read only near the points."""

    def __init__(self, transforms: Sequence[StoredTransform], inverse: bool, tolerance_um: float) -> None:
        self.transforms, self.inverse, self.tolerance_um = tuple(transforms), inverse, tolerance_um

    def to_moving(self, points: Floats) -> Floats:
        """Points of the moving side for points (3, ...), um, of the fixed one."""
        for each in self.transforms:
            points = each.near(points)(points)
        return points

    def to_fixed(self, points: Floats) -> Floats:
        """Points of the fixed side for points (3, ...), um, of the moving one; NaN where the iteration does not converge."""
        flat = points.reshape(3, -1)
        for each in reversed(self.transforms):
            flat = each.whole.inverse(flat, self.tolerance_um)
        return flat.reshape(points.shape)

    @property
    def look_up(self) -> Callable[[Floats], Floats]:
        """From points of the output to where they are looked up in the volume."""
        return self.to_fixed if self.inverse else self.to_moving

    @property
    def field_bytes(self) -> int:
        """Memory of the displacements, which an inverse holds whole."""
        return sum(24 * math.prod(t.frame.shape) for t in self.transforms if t.frame) if self.inverse else 0

    @property
    def inputs(self) -> dict[str, str]:
        """Hash of each transform, by its name."""
        return {f"transform {n}": t.identity for n, t in enumerate(self.transforms, 1)}

    @property
    def frame(self) -> Frame | None:
        """Grid of the output's side, if the transforms know it."""
        return self.transforms[-1].moving if self.inverse else self.transforms[0].frame


_CROP = 8
"""Most voxels of the volume that are read at once, in blocks; a block that needs more is made in parts."""
SECONDS_PER_VOXEL = 1.5e-6
BYTES_PER_VOXEL = 220


class ApplyToVolume(Bench):
    """A volume looked up at the transformed centres of the output's voxels."""

    def __init__(self, settings: Apply, chain: Chain, volume: Volume) -> None:
        self.settings, self.chain, self.source = settings, chain, volume
        self.frame, self.own = self._output_frame(), frame_of(volume)
        whole = Box.of_shape(volume.shape)
        if settings.content == "labels":
            numbers = cell_ids(volume.stack, whole)
            self.products: tuple[Product, ...] = (labels(LABELS, numbers.dtype.name),)
        else:
            numbers = grey(volume.stack, whole)
            kind = np.dtype(np.float32) if numbers.dtype.kind == "i" else numbers.dtype
            self.products = (Product(IMAGE, "image", "czyx", kind.name, "of the volume", ("moved",)),)
        self.read, self.dtype = numbers.read, np.dtype(self.products[0].dtype)
        self._refuse_apart()
        voxel_nm, corner_nm = (exact3(1000 * v for v in each) for each in (self.frame.voxel_um, self.frame.corner_um))
        self.grid = Grid(self.frame.shape, voxel_nm, corner_nm, largest_shard=settings.block_voxels)
        self.inputs = {**chain.inputs, "volume": volume.identity}
        self.blocks, self.voxels = len(self.grid.blocks), math.prod(self.frame.shape)
        self.core_seconds = SECONDS_PER_VOXEL * self.voxels
        block = math.prod(self.grid.storage[0].shard)
        self.block_bytes = block * (BYTES_PER_VOXEL + _CROP * (numbers.dtype.itemsize + 8)) + chain.field_bytes

    def _output_frame(self) -> Frame:
        if self.settings.like is not None:
            return frame_of(Volume(absolute(self.settings.like)))
        if self.chain.frame is None:
            raise SpecError(
                "like: a text file with an affine map has no grid, so the size of the output is unknown; name a volume with the "
                "grid that you want (like: FIXED)"
            )
        return self.chain.frame

    def _refuse_apart(self) -> None:
        """Raise SpecError if no voxel of the output is looked up inside the volume."""
        steps = [np.linspace(0, n - 1, min(n, _PROBES)) for n in self.frame.shape]
        at = np.stack(np.meshgrid(*steps, indexing="ij")).reshape(3, -1)
        points = self.frame.first_um[:, None] + at * np.asarray(self.frame.voxel_um)[:, None]
        found = self.own.voxels(self.chain.look_up(points))
        if not warp.inside(self.source.shape, found).any():
            raise SpecError(
                f"none of {at.shape[1]} places of the output lies inside {self.source.where}, so it would be empty; check the "
                "order of the transforms, `inverse`, and that they belong to this volume"
            )

    def measure(self, number: int) -> Mapping[str, Measured]:
        """Look up one block."""
        assert self.grid is not None
        found = self._looked_up(self.grid.blocks[number])
        return {LABELS: found} if self.settings.content == "labels" else {IMAGE: found[None]}

    @cached_property
    def _margin(self) -> int:
        cubic = self.settings.content == "image" and self.settings.interpolation == "cubic"
        return warp.SPLINE_MARGIN if cubic else 1

    def _looked_up(self, box: Box) -> NDArray[Any]:
        at = self.own.voxels(self.chain.look_up(self.frame.centres(box.start, box.shape)))
        known = np.isfinite(at).all(axis=0)
        where = known & warp.inside(self.source.shape, at)
        used = where if self.settings.outside == "zero" else known
        out = np.zeros(box.shape, self.dtype)
        if not used.any():
            return out
        last = np.asarray(self.source.shape)[:, None] - 1.0
        inside = np.clip(at[:, used], 0, last)
        low, high = np.floor(inside.min(axis=1)).astype(int), np.ceil(inside.max(axis=1)).astype(int) + 1
        crop = Box(triple(low), triple(high)).grown((self._margin,) * 3).intersect(Box.of_shape(self.source.shape))
        if crop.size > _CROP * self.settings.block_voxels**3 and max(box.shape) > _SMALLEST:
            return self._in_halves(box)
        part = self.read(crop)
        at_crop = inside - np.asarray(crop.start)[:, None]
        if self.settings.content == "labels":
            out[used] = warp.labels_at(part, at_crop)
        else:
            order: Literal[1, 3] = 1 if self.settings.interpolation == "linear" else 3
            out[used] = warp.as_type(warp.image_at(part, at_crop, order), self.dtype)
        return out

    def _in_halves(self, box: Box) -> NDArray[Any]:
        axis = int(np.argmax(box.shape))
        middle = box.start[axis] + box.shape[axis] // 2
        one, other = (
            Box(
                triple(v if a != axis or not upper else middle for a, v in enumerate(box.start)),
                triple(v if a != axis or upper else middle for a, v in enumerate(box.stop)),
            )
            for upper in (False, True)
        )
        return np.concatenate([self._looked_up(one), self._looked_up(other)], axis=axis)

    def conclude(self, sums: Mapping[str, Iterable[CellSums]]) -> Conclusion:
        """Nothing to add."""
        return Conclusion({})


_PROBES, _SMALLEST = 8, 8


class PointTable:
    """A table of points; opened again wherever it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.places: list[Location] = [Path(path)]

    @cached_property
    def table(self) -> pa.Table:
        """Its numeric columns, with z_um, y_um, x_um; raises OutputError without these."""
        try:
            read = pyarrow.csv.read_csv if self.path.lower().endswith(".csv") else pyarrow.parquet.read_table
            found = read(self.path)
        except (OSError, pa.ArrowInvalid) as error:
            raise OutputError(
                f"{self.path} cannot be read as a table: {error}; give a .csv or .parquet file"
            ) from error
        if missing := [name for name in PLACE if name not in found.column_names]:
            raise OutputError(
                f"{self.path} has no column {missing[0]}, so its points have no place; name the columns {', '.join(PLACE)} (um)"
            )
        kept = [f.name for f in found.schema if pa.types.is_integer(f.type) or pa.types.is_floating(f.type)]
        if lost := [name for name in PLACE if name not in kept]:
            raise OutputError(f"the column {lost[0]} of {self.path} holds no numbers; correct it")
        return found.select(kept)

    @cached_property
    def identity(self) -> str:
        """Digest of the file."""
        import hashlib

        with open(self.path, "rb") as file:
            return hashlib.file_digest(file, "blake2b").hexdigest()[:32]

    def __reduce__(self) -> tuple[type[PointTable], tuple[str]]:
        return PointTable, (self.path,)


ROWS = 1 << 18
"""Points of a block."""


class ApplyToPoints(Bench):
    """A table of points, moved."""

    def __init__(self, chain: Chain, points: PointTable) -> None:
        self.chain, self.points = chain, points
        table = points.table
        types = {
            f.name: "float64" if f.name in PLACE else str(np.dtype(f.type.to_pandas_dtype())) for f in table.schema
        }
        self.products = (Product(POINTS, "table", columns=types),)
        self.inputs = {**chain.inputs, "points": points.identity}
        self.blocks = max(1, -(-table.num_rows // ROWS))
        self.voxels = table.num_rows
        self.core_seconds = 1e-5 * table.num_rows
        self.block_bytes = 600 * ROWS + Chain(chain.transforms, True, 1.0).field_bytes + 2 * table.nbytes

    def measure(self, number: int) -> Mapping[str, Measured]:
        """Move a range of rows: to the fixed side, or to the moving one if `inverse`."""
        part = self.points.table.slice(number * ROWS, ROWS)
        columns = {name: part[name].to_numpy() for name in part.column_names}
        place = np.stack([np.asarray(columns[name], np.float64) for name in PLACE])
        if place.shape[1]:
            place = self.chain.to_moving(place) if self.chain.inverse else self.chain.to_fixed(place)
        return {POINTS: {**columns, **dict(zip(PLACE, place, strict=True))}}

    def conclude(self, sums: Mapping[str, Iterable[CellSums]]) -> Conclusion:
        """Nothing to add."""
        return Conclusion({})
