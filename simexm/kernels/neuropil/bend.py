"""Tilt the straight frame of `tubes`, x = T s, and bend it by smooth noise, x + D(x).

Lengths are nm; coordinates x and those of real space are z, y, x.
"""

from __future__ import annotations

import math

import numpy as np

from simexm.kernels.neuropil.tubes import jit
from simexm.random import philox
from simexm.random import unit_float32word as unit

# Tilt of the frame: orthogonal, its own inverse, with no axis near one of the volume's.
TILT = np.array([[1.0, 2.0, 2.0], [2.0, 1.0, -2.0], [2.0, -2.0, 1.0]]) / 3.0
# Octaves of the bend: lattice spacing and amplitude. The gradient of D is well below 1, so that bending is invertible.
OCTAVES = ((24000.0, 18000.0), (7000.0, 3800.0), (2300.0, 900.0))
_FARTHEST = sum(amplitude for _, amplitude in OCTAVES)
_NOISE = 40
AROUND_NM = 15000.0  # margin around the origins of a box within which D is known
_SAMPLE_NM = 1500.0
_SLACK_NM = 700.0  # bound of the bulge of bent space between two samples


@jit
def _lattice(octave, low, high, k0, k1):  # type: ignore[no-untyped-def]
    """Spline coefficients of one octave of D in a box: index of the first, and coefficients (z, y, x, 3)."""
    spacing, amplitude = OCTAVES[octave]
    start, shape = np.empty(3, np.int64), np.empty(3, np.int64)
    for axis in range(3):
        start[axis] = math.floor(low[axis] / spacing) - 1
        shape[axis] = math.floor(high[axis] / spacing) + 5 - start[axis]
    out = np.empty((shape[0], shape[1], shape[2], 3))
    for z in range(shape[0]):
        for y in range(shape[1]):
            for x in range(shape[2]):
                words = philox(start[0] + z, start[1] + y, start[2] + x, _NOISE + octave, k0, k1)
                for c in range(3):
                    out[z, y, x, c] = amplitude * (2.0 * unit(words[c]) - 1.0)
    return start, out


@jit
def lattices_of(low, high, k0, k1):  # type: ignore[no-untyped-def]
    """Lattices of the bend that a box needs."""
    margin = _FARTHEST + AROUND_NM
    low, high = low - margin, high + margin
    return _lattice(0, low, high, k0, k1), _lattice(1, low, high, k0, k1), _lattice(2, low, high, k0, k1)


@jit
def _spline(t):  # type: ignore[no-untyped-def]
    """Weights of the uniform cubic B-spline at t in [0, 1)."""
    s = 1.0 - t
    return (
        s * s * s / 6.0,
        (3.0 * t * t * (t - 2.0) + 4.0) / 6.0,
        (3.0 * s * s * (s - 2.0) + 4.0) / 6.0,
        t * t * t / 6.0,
    )


@jit
def _shift(x, lattices):  # type: ignore[no-untyped-def]
    """D at x = (z, y, x)."""
    d0 = d1 = d2 = 0.0
    for o in range(len(OCTAVES)):
        start, lattice = lattices[o]
        tz, ty, tx = x[0] / OCTAVES[o][0], x[1] / OCTAVES[o][0], x[2] / OCTAVES[o][0]
        iz, iy, ix = math.floor(tz), math.floor(ty), math.floor(tx)
        wz, wy, wx = _spline(tz - iz), _spline(ty - iy), _spline(tx - ix)
        iz, iy, ix = iz - start[0], iy - start[1], ix - start[2]
        for a in range(4):
            for b in range(4):
                weight = wz[a] * wy[b]
                e0 = e1 = e2 = 0.0
                for c in range(4):
                    e0 += wx[c] * lattice[iz + a, iy + b, ix + c, 0]
                    e1 += wx[c] * lattice[iz + a, iy + b, ix + c, 1]
                    e2 += wx[c] * lattice[iz + a, iy + b, ix + c, 2]
                d0 += weight * e0
                d1 += weight * e1
                d2 += weight * e2
    return d0, d1, d2


@jit
def tilted(s):  # type: ignore[no-untyped-def]
    """Tilt a point."""
    return (
        TILT[0, 0] * s[0] + TILT[0, 1] * s[1] + TILT[0, 2] * s[2],
        TILT[1, 0] * s[0] + TILT[1, 1] * s[1] + TILT[1, 2] * s[2],
        TILT[2, 0] * s[0] + TILT[2, 1] * s[1] + TILT[2, 2] * s[2],
    )


@jit
def bent(x, lattices):  # type: ignore[no-untyped-def]
    """Bend a point."""
    d = _shift(x, lattices)
    return x[0] + d[0], x[1] + d[1], x[2] + d[2]


@jit
def origins_of(low, high, lattices):  # type: ignore[no-untyped-def]
    """Bounds of the points that tilting and bending map into a box: before bending (rows 0, 1), before tilting (2, 3)."""
    bounds = np.empty((4, 3))
    bounds[0::2], bounds[1::2] = 1e300, -1e300
    counts = np.ceil((high - low) / _SAMPLE_NM).astype(np.int64)
    for a in range(counts[0] + 1):
        for b in range(counts[1] + 1):
            for c in range(counts[2] + 1):
                p0 = low[0] + (high[0] - low[0]) * a / counts[0]
                p1 = low[1] + (high[1] - low[1]) * b / counts[1]
                p2 = low[2] + (high[2] - low[2]) * c / counts[2]
                x = (p0, p1, p2)
                for _ in range(16):
                    d = _shift(x, lattices)
                    x = (p0 - d[0], p1 - d[1], p2 - d[2])
                s = tilted(x)
                for axis in range(3):
                    bounds[0, axis], bounds[1, axis] = min(bounds[0, axis], x[axis]), max(bounds[1, axis], x[axis])
                    bounds[2, axis], bounds[3, axis] = min(bounds[2, axis], s[axis]), max(bounds[3, axis], s[axis])
    for axis in range(3):
        # number by number here and in what follows: to assign slices, numba compiles strings for the message of an error
        bounds[0, axis] -= _SLACK_NM
        bounds[1, axis] += _SLACK_NM
        bounds[2, axis] -= _SLACK_NM
        bounds[3, axis] += _SLACK_NM
    return bounds
