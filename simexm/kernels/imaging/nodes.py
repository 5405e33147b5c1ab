"""Deposit points on coarse nodes by quadratic weights in fixed-point integers.

The nodes lie at the centres of cells. Along each axis a dye is distributed over its nearest node and the two neighbours by
the quadratic B-spline, whose weights add up to one exactly wherever the dye lies.
"""

from __future__ import annotations

import numpy as np

from simexm.compiled import njit

FRACTION_BITS = 10
"""Bits of a weight along one axis."""
UNIT = 1 << (3 * FRACTION_BITS)
"""Sum that one dye adds to the nodes."""


@njit(cache=True, nogil=True)
def _weights(fraction):  # type: ignore[no-untyped-def]
    """Weights of the nodes below, at and above a point that lies `fraction` (0 to 1) past the start of its cell."""
    one = np.int64(1 << FRACTION_BITS)
    t = np.int64(fraction * one + 0.5)
    above = t * t // (2 * one)
    below = above - t + one // 2
    return below, one - below - above, above


@njit(cache=True, nogil=True)
def deposit_nodes(z, y, x, weight, per_nm, start, out):  # type: ignore[no-untyped-def]
    """Add emitters to nodes, int64, z y x; those beyond `out`, whose first node is `start`, are left out.

    Cell n covers [n, n + 1) / per_nm.
    """
    nz, ny, nx = out.shape
    for i in range(z.size):
        pz, py, px = z[i] * per_nm[0], y[i] * per_nm[1], x[i] * per_nm[2]
        fz, fy, fx = np.floor(pz), np.floor(py), np.floor(px)
        kz, ky, kx = np.int64(fz) - 1 - start[0], np.int64(fy) - 1 - start[1], np.int64(fx) - 1 - start[2]
        if kz <= -3 or kz >= nz or ky <= -3 or ky >= ny or kx <= -3 or kx >= nx:
            continue
        wz, wy, wx = _weights(pz - fz), _weights(py - fy), _weights(px - fx)
        for dz in range(max(0, -kz), min(3, nz - kz)):
            a = wz[dz] * weight[i]
            for dy in range(max(0, -ky), min(3, ny - ky)):
                b = a * wy[dy]
                for dx in range(max(0, -kx), min(3, nx - kx)):
                    out[kz + dz, ky + dy, kx + dx] += b * wx[dx]
