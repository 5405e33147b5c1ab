"""What `ingest` reads from: a stored volume of numbers, of which any box can be read, and what becomes of its numbers."""

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

    A stack may have `size_doubt`, too: why its metadata tell no voxel size, as the end of a sentence.
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

    def state(self, box: Box) -> FilesState | None:
        """How the files that hold a box are; None where nobody can tell. Raises OSError if one is gone."""


@runtime_checkable
class TimeSeries(Protocol):
    """What a stack has, too, where its format knows of time. It reads the first time point until another is chosen.

    Attributes
    ----------
    times
        Time points.
    seconds_per_time
        Between two of them; None where nothing tells it.
    """

    @property
    def times(self) -> int: ...
    @property
    def seconds_per_time(self) -> float | None: ...

    def at(self, time: int) -> Self:
        """Return the stack at one time point; raises SourceError if there is no such one."""


def times_of(stack: Stack) -> int:
    """Time points of a stack."""
    return stack.times if isinstance(stack, TimeSeries) else 1


def seconds_of(stack: Stack) -> float | None:
    """Seconds between two time points of a stack; None where nothing tells it."""
    return stack.seconds_per_time if isinstance(stack, TimeSeries) else None


def at_time(stack: Stack, time: int) -> Stack:
    """Return a stack at a time point; one of a single time point is the same at all times."""
    return stack.at(time) if isinstance(stack, TimeSeries) and stack.times > 1 else stack


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
    measured
        Whether they are measured values, of which coarser levels hold means; they hold the most frequent of other numbers.
    """

    shape: Triple
    dtype: np.dtype[Any]
    grain: Triple
    read: Callable[[Box], NDArray[Any]]
    measured: bool = False


def cell_ids(stack: Stack, crop: Box) -> Numbers:
    """Return a crop's numbers as ids: integers as they are, in the unsigned type of the same width; floats as integers.

    Raises
    ------
    SourceError
        At once if the numbers are complex or no numbers; from `read` if one is negative, or a float that is no whole number
        or may stand for several.
    """
    if stack.dtype.kind == "f" and stack.dtype in WHOLE:
        return Numbers(crop.shape, WHOLE[stack.dtype].ids, stack.grain, partial(_whole, stack, crop))
    if stack.dtype.kind not in "iub":
        raise SourceError(
            f"{stack.where} holds {stack.dtype}, and an id is a whole number. Save the segmentation as an unsigned integer type."
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
    here = box.shifted(crop.start)
    try:
        return whole_numbers(_read(stack, here))
    except NotWholeError as error:
        raise SourceError(
            f"{stack.plane(here.start[0] + error.plane)}: {error}. Save the segmentation as an unsigned integer type; if this "
            "is a map of probabilities or intensities, name the segmentation."
        ) from error


def mask(stack: Stack, crop: Box) -> Numbers:
    """Return where a crop's numbers are not 0, as 1 and 0 of 8 bits; `read` raises SourceError where one is NaN."""

    def read(box: Box) -> NDArray[Any]:
        here = box.shifted(crop.start)
        stored = _read(stack, here)
        if stored.dtype.kind == "f" and np.isnan(stored).any():
            z = here.start[0] + int(np.argmax(np.isnan(stored).any(axis=(1, 2))))
            raise SourceError(
                f"{stack.plane(z)}: the mask holds NaN, which is neither inside nor outside. Write a copy of 0 and 1."
            )
        return (stored != 0).view(np.uint8)

    return Numbers(crop.shape, np.dtype(np.uint8), stack.grain, read)


def grey(stack: Stack, crop: Box) -> Numbers:
    """Return a crop's measured values as they are; floats of 16 bits as floats of 32.

    Raises
    ------
    SourceError
        If they are no numbers of at most 32 bits, or floats.
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
            raise gone(stack.where, error.__cause__) from error
        raise
    except OSError as error:
        raise gone(stack.where, error) from error


def gone(where: str, error: OSError) -> SourceGoneError:
    """The error for a volume whose files were there when it was opened, and are not any more."""
    return SourceGoneError(
        f"{where} cannot be read any more ({error}): it was moved, deleted or replaced meanwhile, or its disk is not mounted. "
        "Nothing was kept of what was written so far. Bring it back, then type the same command again."
    )


def size_and_origin(stack: Stack, given: Spacing | None) -> tuple[Spacing, Spacing]:
    """Size of a voxel and where the first one begins, nm: as given, then beginning at 0, or as the metadata tell.

    Raises
    ------
    SpecError
        If neither tells it.
    SourceError
        If no voxel has the size that the metadata tell.
    """
    if given is not None:
        return given, ORIGIN
    if stack.voxel_size_nm is None:
        doubt = getattr(stack, "size_doubt", None)
        if doubt:
            raise SpecError(f"{stack.where}: how large a voxel is, is not certain: {doubt}. {words().voxel_size}")
        raise SpecError(
            f"{stack.where} does not say (in lengths that can be read, and the same in all its files) how large its voxels "
            f"are, and every distance would be a guess. {words().voxel_size}"
        )
    why = implausible(stack.voxel_size_nm)
    if why:
        raise SourceError(f"{stack.where}: its metadata tell voxels of {why}. {words().voxel_size}")
    return stack.voxel_size_nm, stack.origin_nm
