"""The volumes of an alignment: where they are stored, their grids, masks and values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from simexm.analysis.grid import Grid
from simexm.analysis.registration.images import Mask, Picture
from simexm.analysis.registration.transform import Frame
from simexm.analysis.result_image import ImageVolume, image_of
from simexm.analysis.volume import Volume
from simexm.errors import SpecError
from simexm.geometry.grid import Box, three
from simexm.names import FreeText
from simexm.settings import Frozen
from simexm.sources.opening import open_stack
from simexm.sources.stack import grey
from simexm.store.location import is_url

UmSize = tuple[float, float, float]
FEWEST = 8
"""Fewest voxels along an axis that can be aligned."""


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
    channel
        Name or number of the channel, of a simulated result with several.
    mask
        Volume of the same shape that is 0 where voxels do not count. Default: all count.
    """

    dataset: FreeText | None = None
    level: int = Field(default=0, ge=0)
    voxel_um: UmSize | None = None
    channel: FreeText | None = None
    mask: FreeText | None = None

    def open(self, path: str) -> Volume:
        """Open the volume; raises SourceError or SpecError if it cannot be read or has no voxel size."""
        whole = self.dataset is None and self.level == 0 and self.voxel_um is None
        if whole and (found := image_of(absolute(path), self.channel)) is not None:
            return found
        if self.channel is not None:
            raise SpecError(
                f"{path} is no image of a simulated result, so it has no channel {self.channel!r}; leave it out"
            )
        if self.voxel_um is None and open_stack(absolute(path), dataset=self.dataset).voxel_size_nm is None:
            raise SpecError(
                f"{path} does not say how large its voxels are, so the transform would have no unit; type --voxel-size Z Y X "
                "(nm), or if the two differ add to the settings: fixed, moving or volume: {voxel_um: [z, y, x]}"
            )
        nm = None if self.voxel_um is None else three(1000 * v for v in self.voxel_um)
        return Volume(absolute(path), self.dataset, self.level, nm)


def absolute(path: str) -> str:
    """A path that does not depend on the working folder."""
    return path if is_url(path) else str(Path(path).expanduser().absolute())


def name_of(volume: Volume) -> str:
    """Name of one of all rounds of a result, such as round_02; empty for one of two volumes."""
    number = volume.round_number if isinstance(volume, ImageVolume) and not volume.alone else None
    return f"round_{number:02d}" if number else ""


def frame_of(volume: Volume) -> Frame:
    """The grid of a volume, um."""
    voxel, corner = (three(float(v / 1000) for v in each) for each in (volume.voxel_nm, volume.origin_nm))
    return Frame(volume.shape, voxel, corner)


def grid_of(volume: Volume, block_voxels: int | None = None) -> Grid:
    """The grid of images on a volume's voxels; in one block, if no side of a block is given."""
    side = block_voxels or 1 << (max(volume.shape) - 1).bit_length()
    return Grid(volume.shape, volume.voxel_nm, volume.origin_nm, largest_shard=side)


@dataclass(frozen=True)
class Opened:
    """A volume to align, with its mask; boxes of it are read as pictures."""

    volume: Volume
    mask: Volume | None = None

    @classmethod
    def of(cls, side: Side, volume: Volume) -> Opened:
        """Open the mask of a volume; raises SpecError if it has another shape, or the volume is too small."""
        if min(volume.shape) < FEWEST:
            raise SpecError(
                f"{volume.where} has {' x '.join(map(str, volume.shape))} voxels, and aligning needs at least {FEWEST} "
                "along each axis; name a volume, not a plane"
            )
        if side.mask is None:
            return cls(volume)
        mask = Volume(absolute(side.mask), None, 0, tuple(float(v) for v in volume.voxel_nm))
        if mask.shape != volume.shape:
            raise SpecError(
                f"the mask {mask.where} has the shape {mask.shape}, and {volume.where} has {volume.shape}, so its voxels "
                "would mask others; give a mask of the same shape"
            )
        return cls(volume, mask)

    @property
    def frame(self) -> Frame:
        """Its grid."""
        return frame_of(self.volume)

    @property
    def whole(self) -> Box:
        """The box of all voxels."""
        return Box.of_shape(self.volume.shape)

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """Data type of images of its values: unsigned integers or floats."""
        kind = grey(self.volume.stack, self.whole).dtype
        return np.dtype(np.float32) if kind.kind == "i" else kind

    @cached_property
    def read(self) -> Callable[[Box], NDArray[Any]]:
        """Return a box of its values."""
        return grey(self.volume.stack, self.whole).read

    @cached_property
    def _read_mask(self) -> Callable[[Box], NDArray[Any]] | None:
        return None if self.mask is None else self.mask.numbers("mask")

    def masked(self, box: Box) -> Mask | None:
        """Where voxels of a box count; None if all do."""
        return None if self._read_mask is None else self._read_mask(box) != 0

    def picture(self, box: Box) -> Picture:
        """A box of the volume."""
        values = np.ascontiguousarray(self.read(box), np.float32)
        return Picture(values, self.frame.part(box.start, box.shape), self.masked(box))

    def whole_picture(self) -> Picture:
        """The whole volume in memory; raises SpecError if it has one value."""
        found = self.picture(self.whole)
        values = found.values if found.mask is None else found.values[found.mask]
        if not values.size or values.min() == values.max():
            raise SpecError(
                f"{self.volume.where} has one value in all voxels that count, so nothing can be aligned; name an image"
            )
        return Picture(found.values, self.frame, found.mask)
