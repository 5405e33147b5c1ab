"""Points into a grid by linear weights in fixed-point integers, so that no order of summation changes a bit."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from simexm.grid import Triple

FRACTION_BITS = 10
"""Bits of a weight along one axis: positions are told to 1/1024 of a cell."""

UNIT = 1 << (3 * FRACTION_BITS)
"""What one dye adds to the grid in all."""


@numba.njit(cache=True, nogil=True)
def deposit(z, y, x, weight, per_nm, shift, node, base, ring):  # type: ignore[no-untyped-def]
    """Add emitters to a ring of planes.

    Parameters
    ----------
    z, y, x
        Positions, nm, float64, (n,).
    weight
        Dyes at each position, int32, (n,).
    per_nm, shift
        Position p lies at p * per_nm - shift nodes (z y x triples of float).
    node
        First node (z y x) that the grid holds; what falls outside is left out, cell by cell.
    base
        First plane that the ring holds now; plane k lies at index k % len(ring), and planes before `base` are lost.
    ring
        int64, (planes, rows, columns), changed in place.
    """
    one = np.int64(1 << FRACTION_BITS)
    depth, ny, nx = ring.shape
    for i in range(z.size):
        pz = z[i] * per_nm[0] - shift[0]
        py = y[i] * per_nm[1] - shift[1]
        px = x[i] * per_nm[2] - shift[2]
        fz, fy, fx = np.floor(pz), np.floor(py), np.floor(px)
        kz, ky, kx = np.int64(fz), np.int64(fy) - node[1], np.int64(fx) - node[2]
        if ky < -1 or ky >= ny or kx < -1 or kx >= nx or kz < base - 1 or kz >= base + depth:
            continue
        wz = np.int64((pz - fz) * one + 0.5)
        wy = np.int64((py - fy) * one + 0.5)
        wx = np.int64((px - fx) * one + 0.5)
        for dz in range(2):
            k = kz + dz
            if k < base or k >= base + depth:
                continue
            a = (wz if dz else one - wz) * weight[i]
            plane = ring[k % depth]
            for dy in range(2):
                r = ky + dy
                if r < 0 or r >= ny:
                    continue
                b = a * (wy if dy else one - wy)
                if kx >= 0:
                    plane[r, kx] += b * (one - wx)
                if kx + 1 < nx:
                    plane[r, kx + 1] += b * wx


@numba.njit(cache=True, nogil=True)
def deposit_counts(z, y, x, weight, per_nm, start, out):  # type: ignore[no-untyped-def]
    """Add each emitter to the pixel whose half-open box holds it; `start` is the first pixel of `out` (int64, z y x)."""
    for i in range(z.size):
        k = np.int64(np.floor(z[i] * per_nm[0])) - start[0]
        r = np.int64(np.floor(y[i] * per_nm[1])) - start[1]
        c = np.int64(np.floor(x[i] * per_nm[2])) - start[2]
        if 0 <= k < out.shape[0] and 0 <= r < out.shape[1] and 0 <= c < out.shape[2]:
            out[k, r, c] += weight[i]


class Ring:
    """A window of planes of the simulation grid that moves up the z axis; planes that it leaves are handed over.

    Parameters
    ----------
    node
        First node of the grid, z y x.
    shape
        Nodes along z, y, x.
    depth
        Planes held at a time: what one chunk of emitters can reach along z.
    """

    def __init__(self, node: Triple, shape: Triple, depth: int) -> None:
        self.node, self.shape = node, shape
        self.base = node[0]
        self.planes = np.zeros((depth, shape[1], shape[2]), np.int64)
        self._touched = np.zeros(depth, np.bool_)

    @property
    def end(self) -> int:
        """First plane that the grid no longer holds."""
        return self.node[0] + self.shape[0]

    def add(
        self,
        z: NDArray[np.float64],
        y: NDArray[np.float64],
        x: NDArray[np.float64],
        weight: NDArray[np.int32],
        per_nm: tuple[float, float, float],
        shift: tuple[float, float, float],
    ) -> None:
        """Deposit emitters; all of them must lie below plane `base + depth - 1`."""
        self._touched[:] = True
        deposit(z, y, x, weight, per_nm, shift, self.node, self.base, self.planes)

    def advance(self, plane: int):  # type: ignore[no-untyped-def]
        """Move the window up to `plane` and yield (plane, dyes per node as float32) of each plane that it leaves."""
        plane = min(plane, self.end)
        depth = len(self.planes)
        while self.base < plane:
            slot = self.base % depth
            if self._touched[slot]:
                held = self.planes[slot]
                yield self.base, (held * (1.0 / UNIT)).astype(np.float32)
                held[:] = 0
                self._touched[slot] = False
            self.base += 1
