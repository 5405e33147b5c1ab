"""What `ingest` reads from: a stored volume of numbers, of which any box can be read, and what becomes of its numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from simexm.errors import SourceError, SpecError
from simexm.grid import Box, Spacing, Triple, exact3

ORIGIN: Spacing = (Fraction(0), Fraction(0), Fraction(0))


class Stack(Protocol):
    """A stored volume of numbers. Several threads may read it at once, and it holds no file open in between.

    Attributes
    ----------
    where
        What to call it in messages.
    shape
        Voxels along z, y, x.
    dtype
        Type of what `read` returns, in native byte order.
    grain
        Voxels along z, y, x that are decoded together: a page's strip, a chunk.
    voxel_size_nm
        Size of a voxel, nm; None where nothing tells it.
    origin_nm
        Where voxel (0, 0, 0) begins, nm.
    """

    @property
    def where(self) -> str: ...
    @property
    def shape(self) -> Triple: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    @property
    def grain(self) -> Triple: ...
    @property
    def voxel_size_nm(self) -> Spacing | None: ...
    @property
    def origin_nm(self) -> Spacing: ...

    def read(self, box: Box) -> NDArray[Any]:
        """Return what is stored in a box inside the volume, (z, y, x); raises SourceError where it is damaged."""

    def plane(self, z: int) -> str:
        """What to call a plane in messages: its page, its file."""


@dataclass(frozen=True, slots=True)
class Numbers:
    """The voxels to write.

    Attributes
    ----------
    shape
        Voxels along z, y, x.
    dtype
        Unsigned type.
    grain
        Voxels along z, y, x that are best read together.
    read
        Returns a box, (z, y, x), in `dtype`.
    """

    shape: Triple
    dtype: np.dtype[Any]
    grain: Triple
    read: Callable[[Box], NDArray[Any]]


def cell_ids(stack: Stack, crop: Box) -> Numbers:
    """Return a crop's numbers as ids: each as it is, in the unsigned type of the same width.

    Raises
    ------
    SourceError
        At once if the numbers are no integers; from `read` if one is negative.
    """
    if stack.dtype.kind not in "iub":
        raise SourceError(
            f"{stack.where} holds {stack.dtype}, and ids are integers: with floats, neighbouring ids above 2^24 become one "
            "cell. Save the segmentation as an unsigned integer type."
        )
    dtype = np.dtype(f"u{stack.dtype.itemsize}")

    def read(box: Box) -> NDArray[Any]:
        stored = stack.read(box.shifted(crop.start))
        if stored.dtype.kind == "i" and stored.min() < 0:
            z = crop.start[0] + box.start[0] + int(np.argmin(stored.min(axis=(1, 2))))
            raise SourceError(
                f"{stack.plane(z)}: the negative id {stored.min()}; a cell's id is positive, and 0 is outside every cell. "
                "Write a copy with the ids renumbered, as an unsigned type."
            )
        return stored.view(dtype)

    return Numbers(crop.shape, dtype, stack.grain, read)


def mask(stack: Stack, crop: Box) -> Numbers:
    """Return where a crop's numbers are not 0, as 1 and 0 of 8 bits."""

    def read(box: Box) -> NDArray[Any]:
        return (stack.read(box.shifted(crop.start)) != 0).view(np.uint8)

    return Numbers(crop.shape, np.dtype(np.uint8), stack.grain, read)


def crop_box(stack: Stack, offset: Triple | None, shape: Triple | None) -> Box:
    """The box that an offset (left out: 0) and a shape (left out: up to the end) choose, z y x.

    Raises
    ------
    SpecError
        If it is empty or reaches outside.
    """
    whole = Box.of_shape(stack.shape)
    start = (0, 0, 0) if offset is None else offset
    box = Box(start, stack.shape) if shape is None else Box.at(start, shape)
    if min(start) < 0 or not all(a < b for a, b in zip(box.start, box.stop, strict=True)) or not whole.contains(box):
        raise SpecError(
            f"the crop from {list(box.start)} to {list(box.stop)} is empty or reaches outside {stack.where}, whose shape is "
            f"{list(stack.shape)} voxels (z y x). Type --offset Z Y X --shape Z Y X with offset + shape at most that."
        )
    return box


def positive(voxel_size_nm: Spacing | tuple[float, float, float]) -> Spacing:
    """A voxel size that was given; raises SpecError if it is none."""
    if not all(0 < s < math.inf for s in voxel_size_nm):
        raise SpecError(
            f"voxel size {[float(s) for s in voxel_size_nm]}: a voxel has a positive size along z, y and x, in nm. "
            "Type --voxel-size Z Y X, such as --voxel-size 40 32 32."
        )
    return exact3(voxel_size_nm)


def size_and_origin(stack: Stack, given: Spacing | None) -> tuple[Spacing, Spacing]:
    """Size of a voxel and where the first one begins, nm: as given, then beginning at 0, or as the metadata tell.

    Raises
    ------
    SpecError
        If neither tells it.
    """
    if given is not None:
        return given, ORIGIN
    if stack.voxel_size_nm is None:
        doubt = getattr(stack, "size_doubt", None)
        if doubt:
            raise SpecError(
                f"{stack.where}: how large a voxel is, is not certain: {doubt}. Type --voxel-size Z Y X (nm), such as "
                "--voxel-size 40 32 32."
            )
        raise SpecError(
            f"{stack.where} does not say (in lengths that can be read) how large its voxels are, and every distance would be "
            "a guess. Type --voxel-size Z Y X (nm), such as --voxel-size 40 32 32."
        )
    return stack.voxel_size_nm, stack.origin_nm
