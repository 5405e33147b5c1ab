"""Smooth displacement through scattered, noisy measurements."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

Floats = NDArray[np.float64]


class SmoothDisplacement:
    """Interpolation of displacements by Gaussian-process regression (Rasmussen and Williams 2006, equation 2.23).

    The displacement is assumed to be Gaussian with mean 0 and covariance exp(-d^2 / (2 `length`^2)) times its mean square;
    far from all measurements it falls to 0. Measurements that lie further than `_OUTLYING` times the median, and the noise, from
    what the others predict are left out, the worst first.

    Parameters
    ----------
    points, displacements
        Measurements, (n, 3), in one unit of length.
    length
        Correlation length.
    noise
        Standard deviation of a measurement along each axis.
    """

    def __init__(self, points: Floats, displacements: Floats, length: float, noise: float) -> None:
        self._length = length
        square = float((displacements**2).mean()) if len(points) else 0.0
        ridge = noise**2 / square if square > 0 else 1.0
        keep = np.ones(len(points), bool)
        for _ in range(_ROUNDS):
            self.points = points[keep]
            inverse = np.linalg.inv(self._covariance(self.points, self.points) + ridge * np.eye(len(self.points)))
            self._weights = inverse @ displacements[keep]
            error = np.linalg.norm(self._weights / np.diag(inverse)[:, None], axis=1)
            # what lies beside a wrong measurement is predicted wrongly, too: the worst are taken out first
            outlying = error > max(_OUTLYING * float(np.median(error)), _OUTLYING * noise, float(error.max()) / 2)
            if not outlying.any():
                break
            keep[np.flatnonzero(keep)[outlying]] = False
        self.kept = keep

    def _covariance(self, a: Floats, b: Floats) -> Floats:
        return np.asarray(np.exp(-cdist(a, b, "sqeuclidean") / (2 * self._length**2)), np.float64)

    def at(self, points: Floats, slab: int = 4096) -> Floats:
        """Displacements at points, (m, 3)."""
        found = np.empty_like(points)
        for start in range(0, len(points), slab):
            found[start : start + slab] = self._covariance(points[start : start + slab], self.points) @ self._weights
        return found


_ROUNDS = 6
_OUTLYING = 4.0
