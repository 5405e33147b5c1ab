"""Assign the voxels of a cell of space to the capsules of the procedural neuropil.

A point belongs to the process with the nearest surface (d - r for a capsule of radius r whose axis is at distance d),
or in which it lies deepest. Depth is scaled to be equal on every axis, so that a thick process never cuts a thin one.
Points far from every process belong to an astrocyte; where two processes are about equally near there is extracellular
space. So processes fill the room that their neighbours leave.

Voxels are processed in bricks, each with only the capsules that can matter in it.
"""

from __future__ import annotations

import math

import numpy as np

from simexm.kernels.neuropil.capsules import cost_at, distance_to
from simexm.kernels.neuropil.tubes import ASTROCYTE, code_of, jit
from simexm.random import philox
from simexm.random import unit_float32word as unit

CELL_NM = 1024.0
ASTROCYTE_CELLS = 44  # per side of an astrocyte's domain
FAR_NM = (75.0, 260.0)  # range over space of the distance from processes at which astrocytes begin
GAP_NM = (-8.0, 25.0)  # range over space of half the width of gaps; no gap if negative
CLEFT_NM = 10.0  # largest half width of a gap in a synapse
SYNAPSE_DEPTH_NM = 60.0  # on both sides of the middle of the cleft
MATTERS_NM = 2.0 * max(GAP_NM[1], SYNAPSE_DEPTH_NM)  # excess cost beyond which a capsule is irrelevant
_SOFT = 60
_NOBODY = 1e9
_IN_SYNAPSE = 1024.0  # added to the gap to mark a voxel

BRICK_NM, SIDE = 330.0, 8  # size of a brick's side, and its most voxels
BRICK = SIDE**3
# Parts of a brick's buffer: positions; the two lowest costs and their owners; half the width of the gap.
Z, Y, X, BEST, _SECOND, _OWN, _OTHER, HALF_GAP = (
    0,
    BRICK,
    2 * BRICK,
    3 * BRICK,
    4 * BRICK,
    5 * BRICK,
    6 * BRICK,
    7 * BRICK,
)


@jit
def _compare(buffer, count, capsule, origin, own):  # type: ignore[no-untyped-def]
    """Update the two lowest costs in a brick with a capsule's. In float32 and without branches, for speed."""
    az, ay, ax = (
        np.float32(capsule[0] - origin[0]),
        np.float32(capsule[1] - origin[1]),
        np.float32(capsule[2] - origin[2]),
    )
    dz, dy, dx = (
        np.float32(capsule[3] - capsule[0]),
        np.float32(capsule[4] - capsule[1]),
        np.float32(capsule[5] - capsule[2]),
    )
    zero, one, inverse = np.float32(0.0), np.float32(1.0), np.float32(capsule[8])
    radius, taper = np.float32(capsule[6]), np.float32(capsule[7] - capsule[6])
    slope, own = np.float32(capsule[10]), np.float32(own)
    for n in range(count):
        z, y, x = buffer[Z + n] - az, buffer[Y + n] - ay, buffer[X + n] - ax
        t = (z * dz + y * dy + x * dx) * inverse
        t = t if t > zero else zero
        t = t if t < one else one
        z, y, x = z - t * dz, y - t * dy, x - t * dx
        e = np.sqrt(z * z + y * y + x * x) - (radius + t * taper)
        inner = e * slope
        cost = e if e > zero else inner
        best, second, who, other = buffer[BEST + n], buffer[_SECOND + n], buffer[_OWN + n], buffer[_OTHER + n]
        same, wins = who == own, cost < best
        next_ = cost if cost < second else second
        other_next = own if cost < second else other
        lost = best if wins else next_
        other_lost = who if wins else other_next
        buffer[_SECOND + n] = second if same else lost
        buffer[_OTHER + n] = other if same else other_lost
        buffer[BEST + n] = cost if wins else best
        buffer[_OWN + n] = own if wins else who


@jit
def soft_of(cell, k0, k1):  # type: ignore[no-untyped-def]
    """Half gap and far distance at the corners of a cell, for interpolation, (2, 2, 2, 2)."""
    out = np.empty((2, 2, 2, 2), np.float32)
    for a in range(2):
        for b in range(2):
            for c in range(2):
                words = philox(cell[0] + a, cell[1] + b, cell[2] + c, _SOFT, k0, k1)
                out[0, a, b, c] = GAP_NM[0] + (GAP_NM[1] - GAP_NM[0]) * unit(words[0])
                out[1, a, b, c] = FAR_NM[0] + (FAR_NM[1] - FAR_NM[0]) * unit(words[1])
    return out


@jit
def pick(capsules, ids, among, kept, bounds, centre, half, matters):  # type: ignore[no-untyped-def]
    """List in `kept` those of `among` that matter in a ball; return their number, and whether one id fills the ball."""
    least, only = FAR_NM[1], 0
    for n in range(len(among)):
        capsule = capsules[among[n]]
        d, r = distance_to(centre[0], centre[1], centre[2], capsule)
        spread, slope = half * capsule[9] + 0.1, capsule[10]
        bounds[n] = cost_at(d - spread, r, slope)
        most = cost_at(d + spread, r, slope)
        if most < least:
            least, only = most, ids[among[n]]
    number, alone = 0, least < FAR_NM[0] - matters
    for n in range(len(among)):
        if bounds[n] <= least + matters:
            kept[number] = among[n]
            number += 1
            alone &= ids[among[n]] == only
    return number, alone


@jit
def voxels_of(cell, size, first, count):  # type: ignore[no-untyped-def]
    """Range, along one axis, of voxels with centres in a cell, among `count` voxels from `first`."""
    low = math.floor(cell * CELL_NM / size) - 1
    while math.floor((low + 0.5) * size / CELL_NM) < cell:
        low += 1
    high = max(low, math.floor((cell + 1) * CELL_NM / size) - 1)
    while math.floor((high + 0.5) * size / CELL_NM) <= cell:
        high += 1
    return max(0, low - first), min(count, high - first)


@jit
def fill_cell(out, synapse, start, voxel_nm, cell, capsules, ids, patches, pairs, k0, k1):  # type: ignore[no-untyped-def]
    """Fill the voxels of one cell of space, as `blocks.fill` does.

    `capsules` (n, 11), from `with_facts`, and `ids` (n,) are those that can matter in the cell; `patches` (m, 11) are
    synapses that can reach into it, `pairs` (m, 2) the ids of their neurons.
    """
    soft = soft_of(cell, k0, k1)
    domain = (cell[0] // ASTROCYTE_CELLS, cell[1] // ASTROCYTE_CELLS, cell[2] // ASTROCYTE_CELLS)
    astrocyte = code_of(ASTROCYTE, domain[0], domain[1], domain[2])
    side, lo, hi = np.empty(3, np.int64), np.empty(3, np.int64), np.empty(3, np.int64)
    for axis in range(3):
        side[axis] = min(SIDE, max(1, int(BRICK_NM / voxel_nm[axis])))
        lo[axis], hi[axis] = voxels_of(cell[axis], voxel_nm[axis], start[axis], out.shape[axis])
    buffer, bounds = np.empty(8 * BRICK, np.float32), np.empty(len(capsules))
    everything = np.arange(len(capsules))
    near, kept = np.empty_like(everything), np.empty_like(everything)
    origin, centre, from_, to = cell * CELL_NM, np.empty(3), np.empty(3, np.int64), np.empty(3, np.int64)
    half_z, half_y = (side[0] + 1) // 2, (side[1] + 1) // 2
    for a in range(lo[0], hi[0], side[0]):
        for b in range(lo[1], hi[1], side[1]):
            for c in range(lo[2], hi[2], side[2]):
                from_[0], from_[1], from_[2] = a, b, c
                for axis in range(3):
                    to[axis] = min(from_[axis] + side[axis], hi[axis])
                end_z, end_y = to[0], to[1]
                half = ball(start, voxel_nm, from_, to, centre)
                number, alone = pick(capsules, ids, everything, near, bounds, centre, half, MATTERS_NM)
                if alone:
                    out[a : to[0], b : to[1], c : to[2]] = ids[near[0]]
                    continue
                # Quarters, long along x, in each of which fewer capsules matter.
                for from_[0] in range(a, end_z, half_z):
                    for from_[1] in range(b, end_y, half_y):
                        to[0], to[1] = min(from_[0] + half_z, end_z), min(from_[1] + half_y, end_y)
                        half = ball(start, voxel_nm, from_, to, centre)
                        place(buffer, start, voxel_nm, from_, to, origin, soft)
                        _fill_brick(
                            out, synapse, from_, to, centre, half, origin, capsules, ids, near[:number], kept, bounds,
                            patches, pairs, buffer, astrocyte,
                        )  # fmt: skip


@jit
def ball(start, voxel_nm, from_, to, centre):  # type: ignore[no-untyped-def]
    """Write the middle of a brick to `centre`; return the largest distance of a voxel centre from it."""
    half2 = 0.0
    for axis in range(3):
        centre[axis] = (start[axis] + 0.5 * (from_[axis] + to[axis])) * voxel_nm[axis]
        half2 += (0.5 * (to[axis] - from_[axis] - 1) * voxel_nm[axis]) ** 2
    return math.sqrt(half2)


@jit
def _fill_brick(  # type: ignore[no-untyped-def]
    out, synapse, from_, to, centre, half, origin, capsules, ids, near, kept, bounds, patches, pairs, buffer, astrocyte
):
    """Write ids and synapses of the brick in the buffer."""
    meets = False
    for m in range(len(patches)):
        meets |= distance_to(centre[0], centre[1], centre[2], patches[m])[0] < patches[m, 6] + half
    matters = MATTERS_NM if meets else 2.0 * GAP_NM[1]
    number, alone = pick(capsules, ids, near, kept, bounds, centre, half, matters)
    if alone:
        out[from_[0] : to[0], from_[1] : to[1], from_[2] : to[2]] = ids[kept[0]]
        return
    count = (to[0] - from_[0]) * (to[1] - from_[1]) * (to[2] - from_[2])
    for n in range(number):
        own = 0
        while ids[kept[own]] != ids[kept[n]]:
            own += 1
        _compare(buffer, count, capsules[kept[n]], origin, own)
    if meets:
        for m in range(len(patches)):
            _mark(buffer, count, patches[m], pairs[m], origin, ids, kept)
    n = 0
    for z in range(from_[0], to[0]):
        for y in range(from_[1], to[1]):
            for x in range(from_[2], to[2]):
                gap, own = buffer[HALF_GAP + n], int(buffer[_OWN + n])
                marked = gap >= _IN_SYNAPSE
                if marked:
                    gap -= np.float32(_IN_SYNAPSE)
                if np.float32(0.5) * (buffer[_SECOND + n] - buffer[BEST + n]) < gap:
                    out[z, y, x] = 0
                else:
                    out[z, y, x] = ids[kept[own]] if own >= 0 else astrocyte
                    synapse[z, y, x] = marked
                n += 1


@jit
def place(buffer, start, voxel_nm, from_, to, origin, soft):  # type: ignore[no-untyped-def]
    """Initialise the buffer: positions of the brick's voxels, all owned by the astrocyte."""
    per_nm = np.float32(1.0 / CELL_NM)
    n = 0
    for a in range(from_[0], to[0]):
        z = np.float32((start[0] + a + 0.5) * voxel_nm[0] - origin[0])
        for b in range(from_[1], to[1]):
            y = np.float32((start[1] + b + 0.5) * voxel_nm[1] - origin[1])
            gap_low, gap_high = _between(soft[0], z * per_nm, y * per_nm)
            far_low, far_high = _between(soft[1], z * per_nm, y * per_nm)
            for c in range(from_[2], to[2]):
                x = np.float32((start[2] + c + 0.5) * voxel_nm[2] - origin[2])
                buffer[Z + n], buffer[Y + n], buffer[X + n] = z, y, x
                share = x * per_nm
                buffer[BEST + n] = far_low + (far_high - far_low) * share
                buffer[HALF_GAP + n] = gap_low + (gap_high - gap_low) * share
                buffer[_SECOND + n], buffer[_OWN + n], buffer[_OTHER + n] = _NOBODY, -1.0, -1.0
                n += 1


@jit
def _between(soft, z, y):  # type: ignore[no-untyped-def]
    """Interpolate values of `soft_of` along z and y (fractions of the cell), at both ends of x."""
    a, b = soft[0, 0, 0] + (soft[1, 0, 0] - soft[0, 0, 0]) * z, soft[0, 1, 0] + (soft[1, 1, 0] - soft[0, 1, 0]) * z
    c, d = soft[0, 0, 1] + (soft[1, 0, 1] - soft[0, 0, 1]) * z, soft[0, 1, 1] + (soft[1, 1, 1] - soft[0, 1, 1]) * z
    return a + (b - a) * y, c + (d - c) * y


@jit
def _mark(buffer, count, patch, pair, origin, ids, kept):  # type: ignore[no-untyped-def]
    """Mark the voxels of a brick in a synapse, and narrow their gap."""
    z0, y0, x0 = np.float32(patch[0] - origin[0]), np.float32(patch[1] - origin[1]), np.float32(patch[2] - origin[2])
    radius2 = np.float32(patch[6] * patch[6])
    for n in range(count):
        z, y, x = buffer[Z + n] - z0, buffer[Y + n] - y0, buffer[X + n] - x0
        own, other = int(buffer[_OWN + n]), int(buffer[_OTHER + n])
        if z * z + y * y + x * x >= radius2 or own < 0 or other < 0:
            continue
        one, two = ids[kept[own]], ids[kept[other]]
        facing = (one == pair[0] and two == pair[1]) or (one == pair[1] and two == pair[0])
        gap = buffer[HALF_GAP + n]
        if facing and gap < _IN_SYNAPSE and buffer[_SECOND + n] - buffer[BEST + n] < np.float32(2.0 * SYNAPSE_DEPTH_NM):
            buffer[HALF_GAP + n] = np.float32(_IN_SYNAPSE) + max(np.float32(0.0), min(gap, np.float32(CLEFT_NM)))
