"""Deposit points on a grid by the weights of `gridding`, integers, so that the order of summation does not matter."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

from simexm.compiled import njit
from simexm.geometry.grid import Triple
from simexm.kernels.imaging.gridding import NODES, STEP_BITS, STEPS, UNIT, WEIGHTS


@njit(cache=True, nogil=True)
def deposit(z, y, x, weight, per_nm, shift, node, base, end, weights, ring):  # type: ignore[no-untyped-def]
    """Add emitters to a ring of planes, int64; return how many reach planes above the ring and are left out.

    Position p (nm) lies at p * per_nm - shift nodes. `node` is the first node of the grid, `base` the first plane in
    the ring, `end` that after the grid; plane k is at index k % len(ring). `weights` are those of `gridding`; those
    outside the grid or below `base` are dropped.
    """
    depth, ny, nx = ring.shape
    top = min(end, base + depth)
    low = base % depth
    early = 0
    for i in range(z.size):
        tz = np.int64(np.floor((z[i] * per_nm[0] - shift[0]) * STEPS))
        ty = np.int64(np.floor((y[i] * per_nm[1] - shift[1]) * STEPS))
        tx = np.int64(np.floor((x[i] * per_nm[2] - shift[2]) * STEPS))
        # the lowest of the four nodes
        kz, ky, kx = (tz >> STEP_BITS) - 1, (ty >> STEP_BITS) - 1 - node[1], (tx >> STEP_BITS) - 1 - node[2]
        if ky <= -NODES or ky >= ny or kx <= -NODES or kx >= nx or kz + 3 < base or kz >= end:
            continue
        if kz + 3 >= top and top < end:
            early += 1
            continue
        wz, wy, wx = weights[tz & (STEPS - 1)], weights[ty & (STEPS - 1)], weights[tx & (STEPS - 1)]
        inner = 0 <= ky < ny - 3 and 0 <= kx < nx - 3
        for dz in range(NODES):
            k = kz + dz
            if k < base or k >= top:
                continue
            slot = low + k - base
            plane = ring[slot if slot < depth else slot - depth]
            a = np.int64(wz[dz]) * weight[i]
            if inner:
                for dy in range(NODES):
                    b = a * wy[dy]
                    plane[ky + dy, kx] += b * wx[0]
                    plane[ky + dy, kx + 1] += b * wx[1]
                    plane[ky + dy, kx + 2] += b * wx[2]
                    plane[ky + dy, kx + 3] += b * wx[3]
                continue
            for dy in range(max(0, -ky), min(NODES, ny - ky)):
                b = a * wy[dy]
                for dx in range(max(0, -kx), min(NODES, nx - kx)):
                    plane[ky + dy, kx + dx] += b * wx[dx]
    return early


@njit(cache=True, nogil=True)
def _take(rows, dyes):  # type: ignore[no-untyped-def]
    """Move some rows of the ring to `dyes` (dyes per node, float32), whose rows may be longer; clear the ring's."""
    for r in range(rows.shape[0]):
        row, out = rows[r], dyes[r]
        for i in range(row.size):
            out[i] = np.float32(row[i] * (1.0 / UNIT))
            row[i] = 0


@njit(cache=True, nogil=True)
def deposit_counts(z, y, x, weight, per_nm, start, out):  # type: ignore[no-untyped-def]
    """Add each emitter to the pixel whose half-open box contains it; `start` is the first pixel of `out` (int64, z y x)."""
    for i in range(z.size):
        k = np.int64(np.floor(z[i] * per_nm[0])) - start[0]
        r = np.int64(np.floor(y[i] * per_nm[1])) - start[1]
        c = np.int64(np.floor(x[i] * per_nm[2])) - start[2]
        if 0 <= k < out.shape[0] and 0 <= r < out.shape[1] and 0 <= c < out.shape[2]:
            out[k, r, c] += weight[i]


def refuse_early(count: int) -> None:
    """Raise ValueError if `count` emitters lie above the ring."""
    if count:
        raise ValueError(f"{count} emitters lie beyond the reach that their stream announced, and would be lost")


class Ring:
    """A window of planes of the simulation grid that moves up along z and yields the planes that it leaves.

    The grid has `shape` nodes from `node`, z y x. The window has `depth` planes, the reach of a chunk of emitters. Rows
    of the yielded planes are padded with zeros to `width`.
    """

    def __init__(self, node: Triple, shape: Triple, depth: int, width: int) -> None:
        self.node, self.shape = node, shape
        self.base = node[0]
        self.planes = np.zeros((depth, shape[1], shape[2]), np.int64)
        self._touched = [range(0)] * depth  # rows of each plane that may hold dyes
        self._taken = np.zeros((0, width), np.float32)

    @property
    def end(self) -> int:
        """End of the grid along z, exclusive."""
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
        """Deposit emitters; ValueError if some lie beyond the reach that their stream announced."""
        if not z.size:
            return
        planes = _reached(z, per_nm[0], shift[0], range(self.base, self.base + len(self.planes)))
        rows = _reached(y, per_nm[1], shift[1] + self.node[1], range(self.shape[1]))
        for plane in planes:
            slot = plane % len(self.planes)
            before = self._touched[slot]
            self._touched[slot] = range(min(before.start, rows.start), max(before.stop, rows.stop)) if before else rows
        refuse_early(deposit(z, y, x, weight, per_nm, shift, self.node, self.base, self.end, WEIGHTS, self.planes))

    def advance(self, plane: int) -> Iterator[tuple[int, range, Callable[[int, int], NDArray[np.float32]]]]:
        """Move the window up to `plane`; yield (plane, rows, take) for each plane with dyes that it leaves.

        Call `take(first, stop)` once for each range of the rows: it returns dyes per node, float32, (rows, `width`),
        valid until the next call.
        """
        plane = min(plane, self.end)
        depth = len(self.planes)
        while self.base < plane:
            slot = self.base % depth
            if self._touched[slot]:
                yield self.base, self._touched[slot], partial(self._take, self.planes[slot])
                self._touched[slot] = range(0)
            self.base += 1

    def _take(self, plane: NDArray[np.int64], first: int, stop: int) -> NDArray[np.float32]:
        rows = plane[first:stop]
        if len(self._taken) != len(rows):
            self._taken = np.zeros((len(rows), self._taken.shape[1]), np.float32)
        _take(rows, self._taken)
        return self._taken


def _reached(position: NDArray[np.float64], per_nm: float, shift: float, within: range) -> range:
    """Nodes that positions can touch along one axis, with a margin of one for rounding."""
    low, high = (math.floor(v * per_nm - shift) for v in (float(position.min()), float(position.max())))
    return range(max(within.start, low - 2), min(within.stop, high + 4))
