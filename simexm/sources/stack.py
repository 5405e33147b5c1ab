"""Stored volumes of numbers that `ingest` reads box by box, and their conversion to ids, masks and grey values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from simexm.errors import SimexmError, SourceError, SourceGoneError, SpecError
from simexm.geometry.grid import Box, Spacing, Triple
from simexm.sources.axes import implausible
from simexm.sources.state import FilesState
from simexm.sources.whole_numbers import WHOLE, NotWholeError, whole_numbers
from simexm.sources.words import words

ORIGIN: Spacing = (Fraction(0), Fraction(0), Fraction(0))


class Stack(Protocol):
    """A stored volume of numbers. Several threads may read it at once; no file stays open between reads.

    Attributes
    ----------
    where
        Name in messages.
    shape
        Voxels along z, y, x.
    dtype
        Dtype of what `read` returns, in native byte order.
    grain
        Voxels along z, y, x that are decoded together: a page's strip, a chunk.
    voxel_size_nm
        Size of a voxel, nm; None if unknown.
    origin_nm
        Lower corner of voxel (0, 0, 0), nm.

    A stack may have `size_doubt`, too: why its voxel size is unknown, as the end of a sentence.
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
        """Return the stored numbers in a box inside the volume, (z, y, x); raises SourceError if they are damaged."""

    def plane(self, z: int) -> str:
        """Return the name of a plane for messages: its page, its file."""

    def state(self, box: Box) -> FilesState | None:
        """Return the state of the files that hold a box; None if it cannot be found. Raises OSError if one is missing."""


class PlanesByZ:
    """Names planes by the volume and z."""

    where: str

    def plane(self, z: int) -> str:
        """Return the name of a plane for messages."""
        return f"{self.where}, z = {z}"


@runtime_checkable
class TimeSeries(Protocol):
    """A stack with a number of time points, `times`. It reads the first until another is chosen.

    `seconds_per_time` are the seconds between time points; None if unknown.
    """

    @property
    def times(self) -> int: ...
    @property
    def seconds_per_time(self) -> float | None: ...

    def at(self, time: int) -> Self:
        """Return the stack at one time point; raises SourceError if there is no such one."""


def times_of(stack: Stack) -> int:
    """Return the number of time points of a stack."""
    return stack.times if isinstance(stack, TimeSeries) else 1


def seconds_of(stack: Stack) -> float | None:
    """Return the seconds between time points of a stack; None if unknown."""
    return stack.seconds_per_time if isinstance(stack, TimeSeries) else None


def at_time(stack: Stack, time: int) -> Stack:
    """Return a stack at a time point; one without time axis is the same at all."""
    return stack.at(time) if isinstance(stack, TimeSeries) and stack.times > 1 else stack


@dataclass(frozen=True, slots=True)
class Numbers:
    """The voxels to write."""

    shape: Triple  # voxels along z, y, x
    dtype: np.dtype[Any]  # dtype of what is written
    grain: Triple  # voxels along z, y, x that are decoded together
    read: Callable[[Box], NDArray[Any]]  # returns a box, (z, y, x), in `dtype`
    # whether they are measured values: coarser levels hold their means, and the most frequent of other numbers
    measured: bool = False


def cell_ids(stack: Stack, crop: Box) -> Numbers:
    """Return a crop's numbers as ids: integers in the unsigned dtype of the same width, floats as integers.

    Raises SourceError if the dtype cannot hold ids. `read` raises it for a negative id, or a float that is no integer
    or may stand for several.
    """
    if stack.dtype.kind == "f" and stack.dtype in WHOLE:
        return Numbers(crop.shape, WHOLE[stack.dtype].ids, stack.grain, partial(_whole, stack, crop))
    if stack.dtype.kind not in "iub":
        raise SourceError(
            f"{stack.where} holds {stack.dtype}, and ids are integers. Save the segmentation as an unsigned integer type."
        )
    dtype = np.dtype(f"u{stack.dtype.itemsize}")

    def read(box: Box) -> NDArray[Any]:
        stored = _read(stack, box.shifted(crop.start))
        if stored.dtype.kind == "i" and stored.min() < 0:
            z = crop.start[0] + box.start[0] + int(np.argmin(stored.min(axis=(1, 2))))
            raise SourceError(
                f"{stack.plane(z)}: the negative id {stored.min()}; a cell's id is positive, and 0 is outside every cell. "
                "Write a copy with the ids renumbered, as an unsigned type."
            )
        return stored.view(dtype)

    return Numbers(crop.shape, dtype, stack.grain, read)


def _whole(stack: Stack, crop: Box, box: Box) -> NDArray[Any]:
    """Read floats as ids."""
    absolute = box.shifted(crop.start)
    try:
        return whole_numbers(_read(stack, absolute))
    except NotWholeError as error:
        raise SourceError(
            f"{stack.plane(absolute.start[0] + error.plane)}: {error}. Save the segmentation as an unsigned integer type; if "
            "this is a map of probabilities or intensities, name the segmentation."
        ) from error


def mask(stack: Stack, crop: Box) -> Numbers:
    """Return a crop as a mask of 8 bits, 1 where numbers are not 0; `read` raises SourceError for NaN."""

    def read(box: Box) -> NDArray[Any]:
        absolute = box.shifted(crop.start)
        stored = _read(stack, absolute)
        if stored.dtype.kind == "f" and np.isnan(stored).any():
            z = absolute.start[0] + int(np.argmax(np.isnan(stored).any(axis=(1, 2))))
            raise SourceError(
                f"{stack.plane(z)}: the mask holds NaN, which is neither inside nor outside. Write a copy of 0 and 1."
            )
        inside: NDArray[np.bool_] = stored != 0
        return inside.view(np.uint8)

    return Numbers(crop.shape, np.dtype(np.uint8), stack.grain, read)


def grey(stack: Stack, crop: Box) -> Numbers:
    """Return a crop's measured values unchanged, but floats of 16 bits as floats of 32.

    Raises SourceError if they are neither integers of at most 32 bits nor floats.
    """
    dtype = np.dtype(np.float32) if stack.dtype == np.float16 else stack.dtype
    if dtype.kind not in "uif" or (dtype.kind in "ui" and dtype.itemsize > 4) or dtype.itemsize > 8:
        raise SourceError(
            f"{stack.where} holds {stack.dtype}, and grey values are integers of at most 32 bits, or floats of at most 64. "
            "Write a copy of such a type."
        )

    def read(box: Box) -> NDArray[Any]:
        return _read(stack, box.shifted(crop.start)).astype(dtype, copy=False)

    return Numbers(crop.shape, dtype, stack.grain, read, measured=True)


def _read(stack: Stack, box: Box) -> NDArray[Any]:
    try:
        return stack.read(box)
    except SimexmError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise gone_error(stack.where, error.__cause__) from error
        raise
    except OSError as error:
        raise gone_error(stack.where, error) from error


def gone_error(where: str, error: OSError) -> SourceGoneError:
    """Return the error for a volume whose files vanished after it was opened."""
    return SourceGoneError(
        f"{where} cannot be read any more ({error}): it was moved, deleted or replaced meanwhile, or its disk is not mounted. "
        "Nothing that was written so far was kept. Bring it back, then type the same command again."
    )


def size_and_origin(stack: Stack, given: Spacing | None) -> tuple[Spacing, Spacing]:
    """Return voxel size and origin, nm: as given, with the origin at 0, or from the metadata.

    Raises SpecError if there is neither, and SourceError if the size in the metadata is implausible.
    """
    if given is not None:
        return given, ORIGIN
    if stack.voxel_size_nm is None:
        doubt = getattr(stack, "size_doubt", None)
        if doubt:
            raise SpecError(f"{stack.where}: its voxel size is uncertain: {doubt}. {words().voxel_size}")
        raise SpecError(
            f"{stack.where} does not say (in known units of length, and the same in all its files) how large its voxels "
            f"are, and every distance would be a guess. {words().voxel_size}"
        )
    why = implausible(stack.voxel_size_nm)
    if why:
        raise SourceError(f"{stack.where}: its metadata have voxels of {why}. {words().voxel_size}")
    return stack.voxel_size_nm, stack.origin_nm
