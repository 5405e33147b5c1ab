"""Apply transforms to a volume of any size, block by block and in one interpolation, or to a table of points."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field

from simexm.analysis.contract import Analysis, Bench, Conclusion, Measured
from simexm.analysis.grid import Grid
from simexm.analysis.registration.chain import Chain
from simexm.analysis.registration.lookup import CROP, How, Lookup
from simexm.analysis.registration.overlap import refuse_unlinked
from simexm.analysis.registration.points import TABLES, ApplyToPoints, PointTable
from simexm.analysis.registration.sides import Side, absolute, frame_of
from simexm.analysis.registration.transform import Frame, StoredTransform
from simexm.analysis.registration.truth import transform_at
from simexm.analysis.volume import Volume
from simexm.errors import OutputError, SpecError
from simexm.geometry.grid import Box, exact3
from simexm.jobs.sums_by_id import CellSums
from simexm.kernels.registration import warp
from simexm.names import FreeText
from simexm.sources.stack import cell_ids, grey
from simexm.stages.products import Product, labels

IMAGE, LABELS = "image", "ids"


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
        refuse_unlinked(transforms)
        chain = Chain(transforms, self.inverse, self.tolerance_um)
        return ApplyToPoints(chain, last) if isinstance(last, PointTable) else ApplyToVolume(self, chain, last)


def _path(one: Any) -> str:
    return str(getattr(one, "path", one))


SECONDS_PER_VOXEL = 1.5e-6
BYTES_PER_VOXEL = 220


class ApplyToVolume(Bench):
    """A volume looked up at the transformed centres of the output's voxels."""

    def __init__(self, settings: Apply, chain: Chain, volume: Volume) -> None:
        self.settings, self.chain, self.source = settings, chain, volume
        self.frame = self._output_frame()
        whole = Box.of_shape(volume.shape)
        if settings.content == "labels":
            numbers = cell_ids(volume.stack, whole)
            self.products: tuple[Product, ...] = (labels(LABELS, numbers.dtype.name),)
        else:
            numbers = grey(volume.stack, whole)
            kind = np.dtype(np.float32) if numbers.dtype.kind == "i" else numbers.dtype
            self.products = (Product(IMAGE, "image", "czyx", kind.name, "of the volume", ("moved",)),)
        how: How = "labels" if settings.content == "labels" else settings.interpolation
        self.look_up = Lookup(
            numbers.read,
            volume.shape,
            frame_of(volume),
            np.dtype(self.products[0].dtype),
            how,
            settings.outside,
            settings.block_voxels,
        )
        self._refuse_apart()
        voxel_nm, corner_nm = (exact3(1000 * v for v in each) for each in (self.frame.voxel_um, self.frame.corner_um))
        self.grid = Grid(self.frame.shape, voxel_nm, corner_nm, largest_shard=settings.block_voxels)
        self.inputs = {**chain.inputs, "volume": volume.identity}
        self.blocks, self.voxels = len(self.grid.blocks), math.prod(self.frame.shape)
        self.core_seconds = SECONDS_PER_VOXEL * self.voxels
        block = math.prod(self.grid.storage[0].shard)
        self.block_bytes = block * (BYTES_PER_VOXEL + CROP * (numbers.dtype.itemsize + 8)) + chain.field_bytes

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
        found = self.look_up.frame.voxels(self.chain.look_up(points))
        if not warp.inside(self.source.shape, found).any():
            raise SpecError(
                f"none of {at.shape[1]} places of the output lies inside {self.source.where}, so it would be empty; check the "
                "order of the transforms, `inverse`, and that they belong to this volume"
            )

    def measure(self, number: int) -> Mapping[str, Measured]:
        """Look up one block."""
        assert self.grid is not None
        found = self.look_up(self.chain.look_up, self.frame, self.grid.blocks[number])
        return {LABELS: found} if self.settings.content == "labels" else {IMAGE: found[None]}

    def conclude(self, sums: Mapping[str, Iterable[CellSums]]) -> Conclusion:
        """Nothing to add."""
        return Conclusion({})


_PROBES = 8
"""Places along an axis at which it is checked that the output meets the volume."""
