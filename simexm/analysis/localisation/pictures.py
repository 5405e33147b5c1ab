"""Pictures of localisations: histograms of bounded size, and their Fourier ring correlation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Columns = Mapping[str, NDArray[Any]]
LARGEST = 2048
"""Most pixels of a picture of the whole field along each axis."""
THRESHOLD = 1 / 7


class Halves:
    """Histograms of the localisations of alternating parts of a movie.

    Parameters
    ----------
    low_nm, high_nm
        Ends of the field along y and x.
    pixel_nm
        Of the pictures; larger where the field would have more than `LARGEST` of them.
    frames
        Length of the movie.
    parts
        Parts that go to either half in turn.
    """

    def __init__(self, low_nm: Array, high_nm: Array, pixel_nm: float, frames: int, parts: int) -> None:
        extent = np.maximum(high_nm - low_nm, pixel_nm)
        self.pixel_nm = max(pixel_nm, float(extent.max()) / LARGEST)
        self._low, self._frames, self._parts = low_nm, max(frames, 1), parts
        side = math.ceil(float(extent.max()) / self.pixel_nm) + 1
        self.pictures = np.zeros((2, side, side), np.float32)

    def add(self, piece: Columns) -> None:
        """Add localisations, with `time`, `y_nm` and `x_nm`."""
        half = piece["time"].astype(np.int64) * self._parts // self._frames % 2
        at = [
            np.floor((piece[f"{a}_nm"] - low) / self.pixel_nm).astype(np.int64)
            for a, low in zip("yx", self._low, strict=True)
        ]
        inside = np.all([(p >= 0) & (p < self.pictures.shape[1]) for p in at], axis=0)
        np.add.at(self.pictures, (half[inside], at[0][inside], at[1][inside]), 1)

    def resolution_nm(self) -> float:
        """Resolution at which the correlation of both halves falls below 1/7; NaN if it never does, or begins below."""
        return resolution_nm(ring_correlation(*self.pictures), self.pictures.shape[1], self.pixel_nm)


def ring_correlation(one: NDArray[np.float32], other: NDArray[np.float32]) -> Array:
    """Correlation of two square pictures on rings of whole cycles per side, up to the highest frequency of both axes.

    Their borders are faded out first (Nieuwenhuizen et al., Nat. Methods 10, 557, 2013).
    """
    from scipy import fft

    n = one.shape[0]
    line = np.minimum(1.0, np.minimum(np.arange(n) + 0.5, n - 0.5 - np.arange(n)) * 8 / n)
    window = (np.sin(np.pi / 2 * line) ** 2).astype(np.float32)
    a, b = (fft.rfft2(picture * (window[:, None] * window)) for picture in (one, other))
    radius = np.rint(np.hypot(np.fft.fftfreq(n, 1 / n)[:, None], np.arange(n // 2 + 1))).astype(np.int64).ravel()

    def rings(values: NDArray[Any]) -> Array:
        found: Array = np.bincount(radius, values.ravel().astype(np.float64))[: n // 2].astype(np.float64)
        return found

    both = np.sqrt(rings(np.abs(a) ** 2) * rings(np.abs(b) ** 2))
    return rings((a * b.conj()).real) / np.maximum(both, 1e-300)


def resolution_nm(correlation: Array, side: int, pixel_nm: float) -> float:
    """Inverse of the frequency at which a smoothed ring correlation first falls below the threshold; NaN if there is none."""
    width = max(1, len(correlation) // 100) | 1
    smooth = np.convolve(np.pad(correlation, width // 2, mode="edge"), np.full(width, 1 / width), mode="valid")
    below = np.flatnonzero(smooth[1:] < THRESHOLD) + 1
    if not below.size or below[0] < 2:
        return math.nan
    k = int(below[0])
    share = (smooth[k - 1] - THRESHOLD) / (smooth[k - 1] - smooth[k])
    return side * pixel_nm / (k - 1 + float(share))
