"""What a program found in a movie: footprints, traces, spikes, shifts and fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from simexm.errors import OutputError

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Extraction:
    """Units of a movie, in the order of all its arrays."""

    name: str
    """Path and format, for messages."""
    shape: tuple[int, int]
    """Rows and columns of the image."""
    footprints: Any
    """Weights, (unit, pixel), sparse in rows; pixels row by row."""
    traces: Array | None = None
    """Calcium or fluorescence, (unit, frame)."""
    spikes: Array | None = None
    """Spikes, or deconvolved activity in any unit, (unit, frame)."""
    shifts_px: Array | None = None
    """Shift of each frame along y and x, (frame, 2), in pixels, of either sign."""
    fields: Mapping[str, Array] = field(default_factory=dict)
    """Images by name, such as a vignette."""

    def __post_init__(self) -> None:
        units = self.footprints.shape[0]
        for what in ("traces", "spikes"):
            found = getattr(self, what)
            if found is not None and (found.ndim != 2 or len(found) != units):
                raise OutputError(
                    f"{self.name} holds {what} of the shape {found.shape} for {units} footprints; store one row for each unit"
                )
        if not np.isfinite(self.footprints.data).all():
            raise OutputError(f"{self.name} holds footprints that are no numbers; store 0 where a unit has no weight")
        if self.shifts_px is not None and (self.shifts_px.ndim != 2 or self.shifts_px.shape[1] != 2):
            raise OutputError(
                f"{self.name} holds shifts of the shape {self.shifts_px.shape}; store (frame, 2), y and x"
            )

    @property
    def units(self) -> int:
        """Number of units."""
        return int(self.footprints.shape[0])

    @property
    def frames(self) -> int | None:
        """Number of frames of whatever has frames."""
        arrays = (self.traces, self.spikes)
        lengths = [a.shape[1] for a in arrays if a is not None]
        lengths += [] if self.shifts_px is None else [len(self.shifts_px)]
        return lengths[0] if lengths else None


def from_images(images: NDArray[Any], name: str) -> tuple[Any, tuple[int, int]]:
    """Return footprints and the image's shape from images (unit, y, x)."""
    if images.ndim != 3:
        raise OutputError(f"{name} holds footprints of the shape {images.shape}; store (unit, y, x)")
    filled = np.nan_to_num(images.astype(np.float64))
    return sparse.csr_array(filled.reshape(len(filled), -1)), (images.shape[1], images.shape[2])


def from_pixels(
    unit: NDArray[Any], y: NDArray[Any], x: NDArray[Any], weight: NDArray[Any], units: int, shape: tuple[int, int]
) -> Any:
    """Return footprints from the rows of a table; pixels outside the image are left out."""
    inside = (y >= 0) & (y < shape[0]) & (x >= 0) & (x < shape[1])
    at = (unit[inside], y[inside].astype(np.int64) * shape[1] + x[inside].astype(np.int64))
    return sparse.csr_array((weight[inside].astype(np.float64), at), shape=(units, shape[0] * shape[1]))
