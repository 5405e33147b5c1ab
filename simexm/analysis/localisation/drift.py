"""Lateral drift: given, or found by correlating the pictures of segments of a movie, all with all.

Redundant cross-correlation: Wang et al., Opt. Express 22, 15982 (2014).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from simexm.analysis.stored_table import StoredTable
from simexm.errors import OutputError
from simexm.settings import Frozen

if TYPE_CHECKING:
    import pyarrow as pa  # type: ignore[import-untyped]

TABLE = "shifts"
Array = NDArray[np.float64]
Columns = Mapping[str, NDArray[Any]]
_LARGEST = 2048
"""Most pixels of a picture along each axis."""
_MOST_SEGMENTS = 64
_OUTLIER_PX = 0.5
"""Shifts of pairs that disagree more than this with the others are left out."""


class Correlation(Frozen):
    """How drift is found.

    Attributes
    ----------
    segments
        Parts of the movie that are compared.
    pixel_nm
        Of their pictures; larger where the field would have more than 2048 of them.
    reach_nm
        Largest drift between two segments.
    """

    segments: int = Field(default=10, ge=2, le=_MOST_SEGMENTS)
    pixel_nm: float = Field(default=20.0, gt=0, le=1000)
    reach_nm: float = Field(default=1000.0, gt=0)


def given(path: str, frames: int) -> Array:
    """Read the shift z, y, x of each frame, nm (frames, 3), from a table with the columns time, y_um, x_um and, if known, z_um.

    Raises OutputError if it is no such table, or has not one row for each frame.
    """
    stored = StoredTable.of(path, TABLE, ("time", "y_um", "x_um"))
    columns = stored.whole()
    time = columns["time"]
    if time.size != frames or not np.array_equal(np.sort(time), np.arange(frames)):
        raise OutputError(
            f"the drift {path} has {time.size} rows, and the movie {frames} frames from 0 to {frames - 1}; give a row for each, "
            "or the others would stay uncorrected"
        )
    order = np.argsort(time)
    axes = [columns[f"{a}_um"][order] if f"{a}_um" in columns else np.zeros(frames) for a in "zyx"]
    return 1000 * np.stack(axes, axis=1).astype(np.float64)


def table(drift: Array) -> pa.Table:
    """Return the shift of each frame as a table, as simulated movies have it."""
    import pyarrow as pa

    frames = np.arange(len(drift), dtype=np.int64)
    return pa.table({"time": frames, **{f"{a}_um": drift[:, n] / 1000 for n, a in enumerate("zyx")}})


def correlated(pieces: Iterable[Columns], settings: Correlation, shape: tuple[int, int, int], pixel_nm: float) -> Array:
    """Drift of each frame of a movie relative to the mean, (frames, 3), z 0.

    `shape` is frames, rows and columns of `pixel_nm`; the pieces hold `time`, and `y_nm`, `x_nm` from the first pixel's corner.
    """
    frames = shape[0]
    count = min(settings.segments, frames)
    step = max(settings.pixel_nm, max(shape[1:]) * pixel_nm / _LARGEST)
    size = [max(2, int(np.ceil(n * pixel_nm / step))) for n in shape[1:]]
    pictures = np.zeros((count, *size), np.float32)
    times = np.zeros((count, 2))
    for piece in pieces:
        segment = piece["time"] * count // frames
        at = [np.floor(piece[f"{a}_nm"] / step).astype(np.int64) for a in "yx"]
        inside = np.all([(p >= 0) & (p < n) for p, n in zip(at, size, strict=True)], axis=0)
        np.add.at(pictures, (segment[inside], at[0][inside], at[1][inside]), 1)
        np.add.at(times, segment, np.column_stack([np.ones(segment.size), piece["time"]]))
    if (times[:, 0] == 0).any():
        raise OutputError(
            f"a part of the movie, of {count}, has no localisation, so its drift is unknown; set drift.segments lower"
        )
    shifts = _shifts(pictures, max(2, round(settings.reach_nm / step))) * step
    middle = times[:, 1] / times[:, 0]
    found = np.zeros((frames, 3))
    found[:, 1:] = _interpolated(middle, shifts, np.arange(frames, dtype=np.float64))
    found -= found.mean(axis=0)
    return found


def _shifts(pictures: NDArray[np.float32], reach: int) -> Array:
    """Place of each picture relative to the first, pixels, from all pairs by least squares."""
    from scipy import fft
    from scipy.ndimage import gaussian_filter

    count = len(pictures)
    spectra = [fft.rfft2(gaussian_filter(p, 1.5) - p.mean()) for p in pictures]
    pairs = [(a, b) for a in range(count) for b in range(a + 1, count)]
    rows = np.zeros((len(pairs), count - 1))
    values = np.zeros((len(pairs), 2))
    for n, (a, b) in enumerate(pairs):
        values[n] = _peak(fft.irfft2(spectra[a].conj() * spectra[b], pictures.shape[1:]), reach)
        rows[n, b - 1] = 1
        if a:
            rows[n, a - 1] = -1
    kept = np.ones(len(pairs), np.bool_)
    found = np.linalg.lstsq(rows, values, rcond=None)[0]
    while True:
        miss = np.abs(rows @ found - values).max(axis=1) * kept
        worst = int(miss.argmax())
        without = kept.copy()
        without[worst] = False
        if miss[worst] <= _OUTLIER_PX or np.linalg.matrix_rank(rows[without]) < count - 1:
            break
        kept = without
        found = np.linalg.lstsq(rows[kept], values[kept], rcond=None)[0]
    return np.concatenate([np.zeros((1, 2)), found])


def _peak(correlation: Array, reach: int) -> Array:
    """Place of the highest value within reach, by the Gaussian through its neighbours."""
    shape = np.array(correlation.shape)
    reaches = np.minimum(reach, (shape - 1) // 2 - 1)
    near = [np.arange(-r - 1, r + 2) for r in reaches]
    part = correlation[np.ix_(*near)]
    y, x = np.unravel_index(int(part[1:-1, 1:-1].argmax()), part[1:-1, 1:-1].shape)
    around = np.maximum(part[y : y + 3, x : x + 3], 1e-12 * abs(part).max())
    found = []
    for line, at, r in ((around[:, 1], y, reaches[0]), (around[1], x, reaches[1])):
        low, top, high = np.log(line)
        bend = low - 2 * top + high
        found.append(at - r + (0.5 * (low - high) / bend if bend < 0 else 0.0))
    return np.array(found)


def _interpolated(middle: Array, shifts: Array, frames: Array) -> Array:
    """Cubic spline through the segments' shifts, straight beyond the outermost."""
    from scipy.interpolate import CubicSpline

    if len(middle) < 3:
        return np.stack([np.interp(frames, middle, line) for line in shifts.T], axis=1)
    spline = CubicSpline(middle, shifts, bc_type="natural")
    inside = np.clip(frames, middle[0], middle[-1])
    found: Array = spline(inside) + spline(inside, 1) * (frames - inside)[:, None]
    return found
