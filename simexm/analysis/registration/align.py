"""Align a moving volume with a fixed one: find the transform, and store it with the aligned image."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
from numpy.typing import NDArray
from pydantic import Field, model_validator

from simexm.analysis.contract import Analysis, Bench, Conclusion, Measured, Score
from simexm.analysis.grid import Grid
from simexm.analysis.registration import fit, itk
from simexm.analysis.registration.images import Picture, pulled
from simexm.analysis.registration.overlap import refuse_apart
from simexm.analysis.registration.steps import Deform, Features, Step, order_fault
from simexm.analysis.registration.transform import (
    CONVENTION,
    DISPLACEMENT,
    GROUP,
    Frame,
    StoredTransform,
    Transform,
)
from simexm.analysis.volume import Volume
from simexm.errors import OutputError, SpecError
from simexm.geometry.grid import Box, three
from simexm.jobs.sums_by_id import CellSums, add_up
from simexm.kernels.registration import similarity, warp
from simexm.names import FreeText
from simexm.settings import Frozen
from simexm.sources.opening import open_stack
from simexm.sources.stack import grey
from simexm.stages.products import Product
from simexm.store.location import is_url

UmSize = tuple[float, float, float]
STEPS, AFFINE, MEASURES = "steps", "affine", "measures"
"""Tables of the result."""


class Side(Frozen):
    """Where a volume of an alignment is stored, if its path does not say all.

    Attributes
    ----------
    dataset
        Volume inside a Zarr, HDF5 or N5. Default: the only one.
    level
        Level of its pyramid, 0 the finest.
    voxel_um
        Size of a voxel along z, y, x, um, if the metadata do not hold it.
    mask
        Volume of the same shape that is 0 where voxels do not count. Default: all count.
    """

    dataset: FreeText | None = None
    level: int = Field(default=0, ge=0)
    voxel_um: UmSize | None = None
    mask: FreeText | None = None

    def open(self, path: str) -> Volume:
        """Open the volume; raises SourceError or SpecError if it cannot be read or has no voxel size."""
        if self.voxel_um is None and open_stack(absolute(path), dataset=self.dataset).voxel_size_nm is None:
            raise SpecError(
                f"{path} does not say how large its voxels are, so the transform would have no unit; add to the settings: "
                "fixed, moving or volume: {voxel_um: [z, y, x]}"
            )
        nm = None if self.voxel_um is None else three(1000 * v for v in self.voxel_um)
        return Volume(absolute(path), self.dataset, self.level, nm)


class Align(Analysis):
    """Find the transform from a fixed volume to a moving one, and store it with the moving image on the fixed grid.

    Both volumes, of any size of voxels, are aligned in the memory of one worker.

    Attributes
    ----------
    steps
        What to do, in this order. Default: match features and draw a smooth displacement through them, then deform.
    start
        Begin from this transform: a result of align, or a text file with the 3 rows of an affine map, um, z y x.
    fixed, moving
        Dataset, level, voxel size and mask of each volume, if needed.
    interpolation
        Of the aligned image: linear or cubic.
    outside
        Values of the aligned image where the moving one has none: zero, or those of the nearest voxel.
    """

    analysis: Literal["align"] = "align"
    steps: tuple[Step, ...] = Field(default=(Features(), Deform()), min_length=1, max_length=32)
    start: FreeText | None = None
    fixed: Side = Side()
    moving: Side = Side()
    interpolation: Literal["linear", "cubic"] = "linear"
    outside: warp.Outside = "zero"

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if fault := order_fault(self.steps, self.start is not None):
            raise ValueError(fault)
        return self

    def opened(self, inputs: Sequence[Any]) -> tuple[Any, ...]:
        """Open the two volumes, and after them the start and the masks, if any."""
        if len(inputs) != 2:
            raise OutputError(f"align reads two volumes, not {len(inputs)}; type: simexm align FIXED MOVING")
        if all(isinstance(one, Volume) for one in inputs):
            volumes = [*inputs]
        else:
            volumes = [side.open(str(p)) for side, p in zip((self.fixed, self.moving), inputs, strict=True)]
        return (*volumes, *([StoredTransform(self.start)] if self.start else []))

    def open(self, inputs: tuple[Any, ...]) -> AlignBench:
        """Open the volumes; raises SpecError if they cannot be compared."""
        return AlignBench(self, inputs)


def absolute(path: str) -> str:
    """A path that does not depend on the working folder."""
    return path if is_url(path) else str(Path(path).expanduser().absolute())


def frame_of(volume: Volume) -> Frame:
    """The grid of a volume, um."""
    voxel, corner = (three(float(v / 1000) for v in each) for each in (volume.voxel_nm, volume.origin_nm))
    return Frame(volume.shape, voxel, corner)


def grid_of(volume: Volume) -> Grid:
    """The grid of images on a volume's voxels, in one block."""
    side = 1 << (max(volume.shape) - 1).bit_length()
    return Grid(volume.shape, volume.voxel_nm, volume.origin_nm, largest_shard=side)


BYTES_PER_VOXEL = 260
SECONDS_PER_VOXEL = 1e-5
"""Memory, and rough work, of the steps for a voxel of the fixed volume, without those of matching spots."""


class AlignBench(Bench):
    """Two volumes, aligned as one block."""

    def __init__(self, settings: Align, inputs: tuple[Any, ...]) -> None:
        self.settings = settings
        self.volumes: tuple[Volume, Volume] = inputs[:2]
        self.start: StoredTransform | None = inputs[2] if len(inputs) > 2 else None
        fixed, moving = self.volumes
        self.frames = frame_of(fixed), frame_of(moving)
        itk.simpleitk()  # before any work
        self._masks = tuple(
            _mask_of(side, volume) for side, volume in zip((settings.fixed, settings.moving), self.volumes, strict=True)
        )
        for volume in self.volumes:
            if min(volume.shape) < FEWEST:
                raise SpecError(
                    f"{volume.where} has {' x '.join(map(str, volume.shape))} voxels, and aligning needs at least {FEWEST} "
                    "along each axis; name a volume, not a plane"
                )
        if self.start is not None:
            self._refuse_foreign_start()
        began = self.start
        refuse_apart(
            settings.steps,
            *self.frames,
            (lambda p: p) if began is None else (lambda p: began.near(p)(p)),
            began is not None,
        )
        self.dtype = grey(moving.stack, Box.of_shape(moving.shape)).dtype
        if self.dtype.kind == "i":
            self.dtype = np.dtype(np.float32)
        self.grid = grid_of(fixed)
        self.inputs = {
            "fixed": fixed.identity,
            "moving": moving.identity,
            **({"start": self.start.identity} if self.start else {}),
            **{f"{name} mask": m.identity for name, m in zip(("fixed", "moving"), self._masks, strict=True) if m},
        }
        self.blocks, self.voxels = 1, math.prod(fixed.shape)
        self.core_seconds = SECONDS_PER_VOXEL * self.voxels * len(settings.steps)
        self.block_bytes = (
            BYTES_PER_VOXEL * self.voxels + 16 * math.prod(moving.shape) + _features_bytes(settings.steps)
        )
        self.products = (
            Product("aligned", "image", "czyx", self.dtype.name, "of the moving image", ("moving",)),
            Product(DISPLACEMENT, "image", "czyx", "float32", "um", ("z", "y", "x"), about={"group": GROUP}),
            Product(STEPS, "table", columns={"step": "str", "correlation": "float64", "remark": "str"}),
        )
        self.columns = {AFFINE: ("z", "y", "x", "shift"), MEASURES: ("value",)}

    def _refuse_foreign_start(self) -> None:
        assert self.start is not None
        frame = self.start.frame
        if frame is not None and not np.allclose(frame.extent_um, self.frames[0].extent_um, rtol=_ALIKE):
            one, other = (" x ".join(f"{v:.4g}" for v in f.extent_um) for f in (frame, self.frames[0]))
            raise SpecError(
                f"start: {self.start.path} is a transform of a fixed volume of {one} um, and {self.volumes[0].where} has {other} "
                "um, so it belongs to another pair; name a transform of this pair"
            )

    def measure(self, number: int) -> Mapping[str, Measured]:
        """Fit the transform, and look up the moving image at it."""
        fixed, moving = (
            Picture(_values(volume), frame, None if mask is None else mask.numbers("mask")(_all(mask)) != 0)
            for volume, frame, mask in zip(self.volumes, self.frames, self._masks, strict=True)
        )
        _refuse_flat(fixed, self.volumes[0])
        _refuse_flat(moving, self.volumes[1])
        start = self.start.whole if self.start else Transform()
        found, reports = fit.fit(fixed, moving, self.settings.steps, start)
        at = self.frames[1].voxels(found(self.frames[0].centres()))
        raw = self.volumes[1].stack.read(_all(self.volumes[1]))
        values = warp.image_at(raw, at, 1 if self.settings.interpolation == "linear" else 3)
        if self.settings.outside == "zero":
            values = np.where(warp.inside(raw.shape, at), values, 0)
        field = found.displacement
        if field is None:
            field = np.zeros((3, *self.frames[0].shape), np.float32)
        measures = np.array(list(alignment_measures(fixed, moving, found).values()))
        return {
            "aligned": warp.as_type(values, self.dtype)[None],
            DISPLACEMENT: field,
            STEPS: {
                "step": np.array([r.step for r in reports], object),
                "correlation": np.array([r.correlation for r in reports]),
                "remark": np.array([r.remark for r in reports], object),
            },
            AFFINE: bits(dict(zip(self.columns[AFFINE], found.affine.T, strict=True))),
            MEASURES: bits({"value": measures}),
        }

    def conclude(self, sums: Mapping[str, Iterable[CellSums]]) -> Conclusion:
        """Store the affine map beside the displacement, and the measures as scores."""
        affine, measures = (add_up([*sums[name]]) for name in (AFFINE, MEASURES))
        columns = [numbers_of(affine.columns[name]) for name in self.columns[AFFINE]]
        matrix = np.stack(columns, axis=1)
        record = {
            "convention": CONVENTION,
            "affine_um": matrix.tolist(),
            "displacement": DISPLACEMENT,
            **{side: asdict(frame) for side, frame in zip(("fixed", "moving"), self.frames, strict=True)},
        }
        table = pa.table(dict(zip(("z", "y", "x", "shift_um"), columns, strict=True)))
        scores = tuple(
            Score(name, float(value), unit, definition, subset)
            for ((name, subset), (unit, definition)), value in zip(
                MEASURED.items(), numbers_of(measures.columns["value"]), strict=True
            )
        )
        return Conclusion({AFFINE: table}, scores, {GROUP: {"simexm": record}})


FEWEST = 8
"""Fewest voxels along an axis that can be aligned."""
_ALIKE = 1e-3
_NCC = "correlation coefficient of fixed and moving image over the voxels that the moving one covers"
_LOCAL = "mean correlation coefficient in cubes of 9 voxels, over the half of them with the larger variance in the fixed image"
_JACOBIAN = (
    "smallest ratio of volumes of the displacement in a cell between eight voxel centres, over the corners of cells"
)
MEASURED: dict[tuple[str, str], tuple[str, str]] = {
    ("correlation", "identity"): ("", f"{_NCC}, without a transform"),
    ("correlation", ""): ("", _NCC),
    ("local_correlation", "identity"): ("", f"{_LOCAL}, without a transform"),
    ("local_correlation", ""): ("", _LOCAL),
    ("covered", ""): ("", "share of the fixed volume that the moving one covers"),
    ("smallest_jacobian", ""): ("", _JACOBIAN),
    ("folds", ""): ("cells", "cells between eight voxel centres whose smallest ratio of volumes is not positive"),
}
"""Unit and definition of each score, by its name and subset."""


def alignment_measures(fixed: Picture, moving: Picture, found: Transform) -> dict[tuple[str, str], float]:
    """Compute the scores of an alignment that need no truth; see `MEASURED`."""
    values: dict[tuple[str, str], float] = {}
    covered = 0.0
    for subset, transform in (("identity", Transform()), ("", found)):
        image, where = pulled(moving, transform, fixed.frame)
        covered = float(where.mean())
        if fixed.mask is not None:
            where &= fixed.mask
        values["correlation", subset] = similarity.correlation(fixed.values, image, where)
        values["local_correlation", subset] = similarity.local_correlation(fixed.values, image, where)
    values["covered", ""] = covered
    values["smallest_jacobian", ""] = found.smallest_jacobian()
    values["folds", ""] = float(found.folds())
    return {key: values[key] for key in MEASURED}


def bits(columns: Mapping[str, NDArray[Any]]) -> CellSums:
    """Floats by row as the integers with their bits, which the sum over a single block keeps."""
    raw = {name: np.ascontiguousarray(values, np.float64).view(np.int64) for name, values in columns.items()}
    return CellSums(np.arange(len(next(iter(raw.values()))), dtype=np.uint64), raw)


def numbers_of(values: NDArray[np.int64]) -> NDArray[np.float64]:
    """The floats whose bits are these integers."""
    return np.ascontiguousarray(values, np.int64).view(np.float64)


def _features_bytes(steps: Sequence[Step]) -> int:
    """Memory of matching spots: cubes of both volumes, a slab of their correlations, and the covariance of matches."""
    found = [s for s in steps if isinstance(s, Features)]
    return sum(s.most * (12 * (2 * s.half + 1) ** 3 + 16 * 4096 + 32 * s.most) for s in found)


def _all(volume: Volume) -> Box:
    return Box.of_shape(volume.shape)


def _values(volume: Volume) -> NDArray[np.float32]:
    return np.ascontiguousarray(volume.stack.read(_all(volume)), np.float32)


def _mask_of(side: Side, volume: Volume) -> Volume | None:
    if side.mask is None:
        return None
    found = Volume(absolute(side.mask), None, 0, tuple(float(v) for v in volume.voxel_nm))
    if found.shape != volume.shape:
        raise SpecError(
            f"the mask {found.where} has the shape {found.shape}, and {volume.where} has {volume.shape}, so its voxels "
            "would mask others; give a mask of the same shape"
        )
    return found


def _refuse_flat(picture: Picture, volume: Volume) -> None:
    where = picture.values if picture.mask is None else picture.values[picture.mask]
    if not where.size or where.min() == where.max():
        raise SpecError(
            f"{volume.where} has one value in all voxels that count, so nothing can be aligned; name an image"
        )
