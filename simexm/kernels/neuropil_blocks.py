"""Blocks of the neuropil of `neuropil`: ids of voxels, and the synapses between the cells that touch there.

Positions are nm in real space, z, y, x; a voxel is what owns its centre. Every number is computed from global indices, in
the same order whatever block is asked for, so that blocks agree to the bit.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from simexm.kernels.neuropil import new_memory, owner_at
from simexm.kernels.neuropil_tubes import is_astrocyte, jit
from simexm.random import philox
from simexm.random import unit_float32word as unit

# Octaves of bending: lattice spacing; amplitude of the displacement; amplitude of the noise that widens the gaps.
OCTAVES = ((24000.0, 26000.0, 0.0), (6500.0, 7500.0, 0.0), (2300.0, 2500.0, 0.0), (800.0, 560.0, 1.0))
GAP_MEAN_NM, GAP_SPREAD_NM = 14.0, 45.0
SYNAPSE_PITCH_NM = 1000.0
SYNAPSE_RADIUS_NM = (150.0, 250.0)
SEARCH_NM, SEARCH_STEP_NM = 600.0, 20.0
CONTACT_NM = 80.0

_OCTAVE = np.array(OCTAVES)
_OCTAVES = len(OCTAVES)
_PER_NM = 1.0 / _OCTAVE[:, 0]
_NOISE, _SYNAPSE = 40, 50


@jit
def _noise_lattice(octave, start, shape, k0, k1):  # type: ignore[no-untyped-def]
    """Spline coefficients of one octave, uniform in (-1, 1), (z, y, x, 4): bending along z, y, x and width of gaps."""
    out = np.empty((shape[0], shape[1], shape[2], 4))
    for z in range(shape[0]):
        for y in range(shape[1]):
            for x in range(shape[2]):
                words = philox(start[0] + z, start[1] + y, start[2] + x, _NOISE + octave, k0, k1)
                for c in range(4):
                    out[z, y, x, c] = 2.0 * unit(words[c]) - 1.0
    return out


@jit
def noise(low, high, k0, k1):  # type: ignore[no-untyped-def]
    """Return what bends the box of positions [low, high], nm: a lattice for each octave, and their first indices."""
    starts = np.empty((_OCTAVES, 3), np.int64)
    shapes = np.empty((_OCTAVES, 3), np.int64)
    for o in range(_OCTAVES):
        for axis in range(3):
            starts[o, axis] = math.floor(low[axis] * _PER_NM[o])
            shapes[o, axis] = math.floor(high[axis] * _PER_NM[o]) + 4 - starts[o, axis]
    lattices = (
        _noise_lattice(0, starts[0], shapes[0], k0, k1),
        _noise_lattice(1, starts[1], shapes[1], k0, k1),
        _noise_lattice(2, starts[2], shapes[2], k0, k1),
        _noise_lattice(3, starts[3], shapes[3], k0, k1),
    )
    return lattices, starts


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
def _collapse(z, y, x_low, x_high, lattices, starts, line):  # type: ignore[no-untyped-def]
    """Sum the splines over z and y: `line` (octave, x, 4) then bends the row (z, y) between x_low and x_high."""
    for o in range(_OCTAVES):
        per_nm = _PER_NM[o]
        tz, ty = z * per_nm, y * per_nm
        iz, iy = math.floor(tz), math.floor(ty)
        wz, wy = _spline(tz - iz), _spline(ty - iy)
        iz, iy = iz - starts[o, 0], iy - starts[o, 1]
        lattice = lattices[o]
        first = math.floor(x_low * per_nm) - starts[o, 2]
        last = math.floor(x_high * per_nm) - starts[o, 2] + 4
        for x in range(first, last):
            for c in range(4):
                line[o, x, c] = 0.0
        for a in range(4):
            for b in range(4):
                weight = wz[a] * wy[b]
                for x in range(first, last):
                    for c in range(4):
                        line[o, x, c] += weight * lattice[iz + a, iy + b, x, c]


@jit
def _bend(z, y, x, line, starts, q):  # type: ignore[no-untyped-def]
    """Put the point's place in bent space into q and return half the width of the gaps there, nm."""
    dz = dy = dx = width = 0.0
    for o in range(_OCTAVES):
        t = x * _PER_NM[o]
        n = math.floor(t)
        weights = _spline(t - n)
        n -= starts[o, 2]
        az = ay = ax = ag = 0.0
        for a in range(4):
            az += weights[a] * line[o, n + a, 0]
            ay += weights[a] * line[o, n + a, 1]
            ax += weights[a] * line[o, n + a, 2]
            ag += weights[a] * line[o, n + a, 3]
        dz += az * _OCTAVE[o, 1]
        dy += ay * _OCTAVE[o, 1]
        dx += ax * _OCTAVE[o, 1]
        width += ag * _OCTAVE[o, 2]
    q[0], q[1], q[2] = z + dz, y + dy, x + dx
    return max(0.0, GAP_MEAN_NM + GAP_SPREAD_NM * width)


@jit
def _line(lattices):  # type: ignore[no-untyped-def]
    longest = 0
    for o in range(_OCTAVES):
        longest = max(longest, lattices[o].shape[2])
    return np.zeros((_OCTAVES, longest, 4))


@jit
def fill_ids(
    out: NDArray[np.uint64], start: NDArray[np.int64], voxel_nm: NDArray[np.float64], k0: int, k1: int
) -> None:
    """Write the ids of the voxels from `start` on into `out`, (z, y, x); 0 is extracellular space.

    Parameters
    ----------
    out
        Filled.
    start
        Global index of the first voxel, (3,).
    voxel_nm
        Voxel size, nm, (3,).
    k0, k1
        Key of the tissue.
    """
    low, high = (start + 0.5) * voxel_nm, (start + np.array(out.shape) - 0.5) * voxel_nm
    lattices, starts = noise(low, high, k0, k1)
    line, q, core = _line(lattices), np.zeros(3), np.zeros(3)
    met, facts = new_memory()
    for a in range(out.shape[0]):
        z = (start[0] + a + 0.5) * voxel_nm[0]
        for b in range(out.shape[1]):
            y = (start[1] + b + 0.5) * voxel_nm[1]
            _collapse(z, y, low[2], high[2], lattices, starts, line)
            for c in range(out.shape[2]):
                gap = _bend(z, y, (start[2] + c + 0.5) * voxel_nm[2], line, starts, q)
                out[a, b, c] = owner_at(q, core, gap, met, facts, k0, k1)


@jit
def _synapse(cell, lattices, starts, line, memory, k0, k1, centre):  # type: ignore[no-untyped-def]
    """Find the synapse of a lattice cell: its radius and the two ids that meet there, radius 0 where there is none.

    From a random point a line runs in a random direction until it leaves one neuron for another; there is `centre`.
    """
    met, facts, q, core = memory
    words = philox(cell[0], cell[1], cell[2], _SYNAPSE, k0, k1)
    way = philox(cell[0], cell[1], cell[2], _SYNAPSE + 1, k0, k1)
    origin, step = np.empty(3), np.empty(3)
    for axis in range(3):
        origin[axis] = (cell[axis] + unit(words[axis])) * SYNAPSE_PITCH_NM
        step[axis] = 2.0 * unit(way[axis]) - 1.0
    norm = math.sqrt(step[0] * step[0] + step[1] * step[1] + step[2] * step[2])
    before, left = 0, 0
    for n in range(int(SEARCH_NM / SEARCH_STEP_NM)):
        for axis in range(3):
            centre[axis] = origin[axis] + n * SEARCH_STEP_NM * step[axis] / norm
        _collapse(centre[0], centre[1], centre[2], centre[2], lattices, starts, line)
        gap = _bend(centre[0], centre[1], centre[2], line, starts, q)
        here = owner_at(q, core, gap, met, facts, k0, k1)
        if here == 0 or is_astrocyte(here):
            continue
        if before != 0 and here != before and n - left <= 3:
            for axis in range(3):
                centre[axis] -= 0.5 * (n - left) * SEARCH_STEP_NM * step[axis] / norm
            least, most = SYNAPSE_RADIUS_NM
            return least + (most - least) * unit(words[3]), before, here
        before, left = here, n
    return 0.0, 0, 0


@jit
def _touches(ids, a, b, c, other, reach, voxel_nm):  # type: ignore[no-untyped-def]
    """True if a voxel of `other` is a face neighbour of voxel (a, b, c) or its centre within CONTACT_NM."""
    for i in range(max(0, a - reach[0]), min(ids.shape[0], a + reach[0] + 1)):
        for j in range(max(0, b - reach[1]), min(ids.shape[1], b + reach[1] + 1)):
            for k in range(max(0, c - reach[2]), min(ids.shape[2], c + reach[2] + 1)):
                if ids[i, j, k] == other:
                    z, y, x = (i - a) * voxel_nm[0], (j - b) * voxel_nm[1], (k - c) * voxel_nm[2]
                    near = z * z + y * y + x * x <= CONTACT_NM * CONTACT_NM
                    if near or abs(i - a) + abs(j - b) + abs(k - c) == 1:
                        return True
    return False


@jit
def mark_synapses(
    out: NDArray[np.bool_],
    start: NDArray[np.int64],
    ids: NDArray[np.uint64],
    ids_start: NDArray[np.int64],
    reach: NDArray[np.int64],
    voxel_nm: NDArray[np.float64],
    k0: int,
    k1: int,
) -> None:
    """Set `out`, (z, y, x), where a voxel from `start` on lies in a synapse, on either of its sides.

    Parameters
    ----------
    out
        Filled; False before.
    start
        Global index of its first voxel, (3,).
    ids, ids_start
        Ids of the box grown by `reach`, (z, y, x), and the global index of the first.
    reach
        Voxels along each axis within which the other side may lie, (3,).
    voxel_nm
        Voxel size, nm, (3,).
    k0, k1
        Key of the tissue.
    """
    margin = SYNAPSE_RADIUS_NM[1] + SEARCH_NM
    low, high = (start + 0.5) * voxel_nm - margin, (start + np.array(out.shape) - 0.5) * voxel_nm + margin
    first, last = np.empty(3, np.int64), np.empty(3, np.int64)
    for axis in range(3):
        first[axis] = math.floor(low[axis] / SYNAPSE_PITCH_NM)
        last[axis] = math.floor(high[axis] / SYNAPSE_PITCH_NM) + 1
    edge = SYNAPSE_PITCH_NM + SEARCH_NM
    lattices, starts = noise(low - edge, high + edge, k0, k1)
    met, facts = new_memory()
    line, memory = _line(lattices), (met, facts, np.zeros(3), np.zeros(3))
    cell, centre = np.empty(3, np.int64), np.empty(3)
    shift = start - ids_start
    from_, to = np.empty(3, np.int64), np.empty(3, np.int64)
    for cell[0] in range(first[0], last[0]):
        for cell[1] in range(first[1], last[1]):
            for cell[2] in range(first[2], last[2]):
                radius, one, two = _synapse(cell, lattices, starts, line, memory, k0, k1, centre)
                if radius == 0.0:
                    continue
                for axis in range(3):
                    from_[axis] = max(0, math.floor((centre[axis] - radius) / voxel_nm[axis]) - start[axis])
                    to[axis] = min(
                        out.shape[axis], math.floor((centre[axis] + radius) / voxel_nm[axis]) + 1 - start[axis]
                    )
                for a in range(from_[0], to[0]):
                    z = (start[0] + a + 0.5) * voxel_nm[0] - centre[0]
                    for b in range(from_[1], to[1]):
                        y = (start[1] + b + 0.5) * voxel_nm[1] - centre[1]
                        for c in range(from_[2], to[2]):
                            x = (start[2] + c + 0.5) * voxel_nm[2] - centre[2]
                            if z * z + y * y + x * x >= radius * radius:
                                continue
                            i, j, k = a + shift[0], b + shift[1], c + shift[2]
                            own = ids[i, j, k]
                            if own == one:
                                out[a, b, c] |= _touches(ids, i, j, k, two, reach, voxel_nm)
                            elif own == two:
                                out[a, b, c] |= _touches(ids, i, j, k, one, reach, voxel_nm)
