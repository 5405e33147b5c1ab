"""Find spots in frames: local maxima of a matched filter, in standard deviations of its noise."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from simexm.compiled import njit

Frames = NDArray[np.float32]
_WIDE = 2.5  # the second Gaussian, which takes the background away, over the first
_BACKGROUND = 6.0  # the one that measures the background
_CLIP = 2.0  # standard deviations above it that count as background


def find(frames: Frames, read_variance: Frames, excess: float, sigma_px: float, threshold: float) -> NDArray[np.int64]:
    """Return frame, row and column of each spot, ascending, (n, 3).

    The filter is a Gaussian as wide as a spot minus a wider one. The variance of its output follows from that of the camera,
    `excess` * background + `read_variance` (y, x), and the background from a wide mean of the frame, whose bright pixels are cut
    first. Each frame is filtered by itself.
    """
    spots = _smooth(frames, sigma_px)
    spots -= _smooth(frames, _WIDE * sigma_px)
    variance = _background(frames, read_variance, excess, _BACKGROUND * sigma_px)
    variance *= np.float32(excess)
    variance += read_variance
    least = np.sqrt(variance, out=variance)
    least *= np.float32(threshold * math.sqrt(_squares(sigma_px)))
    found: NDArray[np.int64] = _maxima(spots, least, max(1, round(1.5 * sigma_px)))
    return found


def _smooth(frames: Frames, sigma: float) -> Frames:
    from scipy.ndimage import gaussian_filter1d

    rows = gaussian_filter1d(frames, sigma, axis=1, mode="nearest", truncate=3.0)
    found: Frames = gaussian_filter1d(rows, sigma, axis=2, mode="nearest", truncate=3.0)
    return found


def _background(frames: Frames, read_variance: Frames, excess: float, sigma: float) -> Frames:
    """Mean of each pixel's surroundings, without spots: those pixels are cut at a few standard deviations."""
    found = np.maximum(_mean(frames, sigma), np.float32(0))
    for _ in range(2):
        top = found + np.float32(_CLIP) * np.sqrt(np.float32(excess) * found + read_variance)
        found = np.maximum(_mean(np.minimum(frames, top), sigma), np.float32(0))
    return found


def _mean(frames: Frames, sigma: float) -> Frames:
    """A wide mean, by two running means of the same variance, whose time does not grow with the width."""
    from scipy.ndimage import uniform_filter1d

    size = 2 * round(math.sqrt(1.5) * sigma) + 1
    for _ in range(2):
        for axis in (1, 2):
            frames = uniform_filter1d(frames, size, axis=axis, mode="nearest")
    return frames


def _squares(sigma: float) -> float:
    """Sum of the squared weights of the filter: the variance of its output for noise of variance 1."""
    weights = []
    for width in (sigma, _WIDE * sigma):
        reach = int(3.0 * width + 0.5)
        line = np.exp(-0.5 * (np.arange(-reach, reach + 1) / width) ** 2)
        weights.append(line / line.sum())
    small, large = weights
    padded = np.pad(small, (large.size - small.size) // 2)
    plane = np.outer(padded, padded) - np.outer(large, large)
    return float((plane**2).sum())


@njit(cache=True, nogil=True)
def _maxima(spots, least, reach):  # type: ignore[no-untyped-def]
    """Pixels above `least` that no other within `reach` rows and columns exceeds; of equal ones the first."""
    t, height, width = spots.shape
    found = np.empty((1024, 3), np.int64)
    n = 0
    for k in range(t):
        for i in range(height):
            for j in range(width):
                own = spots[k, i, j]
                if own <= least[k, i, j]:
                    continue
                highest = True
                for a in range(max(0, i - reach), min(height, i + reach + 1)):
                    for b in range(max(0, j - reach), min(width, j + reach + 1)):
                        other = spots[k, a, b]
                        if other > own or (other == own and (a < i or (a == i and b < j))):
                            highest = False
                            break
                    if not highest:
                        break
                if highest:
                    if n == len(found):
                        longer = np.empty((2 * n, 3), np.int64)
                        longer[:n] = found
                        found = longer
                    found[n, 0], found[n, 1], found[n, 2] = k, i, j
                    n += 1
    return found[:n].copy()
