"""Neuropil as a pure function of position: which process owns a point of a tissue that nobody stored.

Space is first bent by smooth noise. Then families of tubes are laid into it one after the other. The tubes of a family
are parallel in bent space, one to each cell of a plane lattice across their axis, each inside a disc that stays in its
cell. A point inside a tube belongs to it. A point in the disc round a tube is moved towards the tube's axis, by a map
that shrinks the tube to (almost) a line and leaves the disc's rim where it is, and is then asked of the next family.
So later, finer tubes run round earlier, thicker ones and are not cut by them, however long they are. What no tube has
taken is shared out by a Voronoi lattice of fine processes, some of which are astrocytes. Cell bodies come first.

All lengths are nm, coordinates of bent space are q = (z, y, x); everything is float64 in a fixed order for each voxel,
without transcendental functions, so that a voxel never depends on the box that it is read in.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from simexm.kernels.neuropil_tubes import (
    AXES,
    CORE,
    INVERSE,
    NEVER,
    NODE,
    REACH,
    SOMA_PITCH_NM,
    SPINE,
    TUBES,
    body_of,
    cell_of,
    jit,
    node_of,
    owner_of,
    radius_of,
    site_of,
    size_of,
)
from simexm.random import philox
from simexm.random import unit_float32word as unit

SPINE_STEP_NM = 650.0
_SPINY = 2  # families that have spines

# Columns of the memory that all its rows share.
_ID, _SPINE_MET, _LO, _HI = 3, 4, 10, 11
_OWNERS = (TUBES + 2) << 6  # its first row for owners, which are dear to find


@jit
def _shrink(d: float, radius: float, r_out: float) -> float:
    """Factor by which a point at distance d from an axis is moved towards it, radius < distance < r_out."""
    s = (d - radius) / (r_out - radius)
    core = radius * CORE
    g = core + (r_out - core) * s
    return g / d


@jit
def new_memory() -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return an empty memory of the lattice cells met last; it saves time and changes no result."""
    rows = _OWNERS + ((TUBES + 1) << 10)
    return np.full((rows, 5), NEVER), np.empty((rows, 16))


@jit
def _place(k, i, j):  # type: ignore[no-untyped-def]
    """Row of the memory that cell (i, j) of family k shares with few others."""
    return (k << 6) | ((i & 7) << 3) | (j & 7)


@jit
def _recall(k, i, j, w, gap, met, facts, k0, k1):  # type: ignore[no-untyped-def]
    """Owner of a tube at w, 0 in the gap between the end of one piece and the beginning of the next."""
    p = _OWNERS + ((k << 10) | ((i & 31) << 5) | (j & 31))
    if met[p, 0] != i or met[p, 1] != j or not facts[p, _LO] <= w < facts[p, _HI]:
        met[p, 0], met[p, 1] = i, j
        met[p, _ID], facts[p, _LO], facts[p, _HI] = owner_of(k, i, j, w, k0, k1)
    return 0 if w < facts[p, _LO] + gap or w >= facts[p, _HI] - gap else met[p, _ID]


@jit
def _in_spine(k, i, j, du, dv, w, d2, radius, r_out, met, facts, k0, k1):  # type: ignore[no-untyped-def]
    """Depth (nm, negative outside) inside the spine of a dendrite that is nearest to w along it."""
    p = _place(k, i, j)
    m = math.floor(w / SPINE_STEP_NM)
    if met[p, _SPINE_MET] != m:
        met[p, _SPINE_MET] = m
        words = philox(i, j, m, SPINE + k, k0, k1)
        a, b = 2.0 * unit(words[0]) - 1.0, 2.0 * unit(words[1]) - 1.0
        norm = math.sqrt(a * a + b * b)
        facts[p, 12], facts[p, 13] = a / norm, b / norm
        facts[p, 14], facts[p, 15] = unit(words[2]), unit(words[3])
    along = du * facts[p, 12] + dv * facts[p, 13]
    head = 130.0 + 110.0 * facts[p, 14]
    reach = min(r_out, radius + 350.0 + 900.0 * facts[p, 15]) - head
    if along <= 0.0 or reach < radius:
        return -1e9
    dw = w - (m + 0.5) * SPINE_STEP_NM
    off2 = d2 - along * along + dw * dw
    tip = head - math.sqrt(off2 + (along - reach) * (along - reach))
    if along < reach:
        return max(tip, 60.0 + 40.0 * facts[p, 14] - math.sqrt(off2))
    return tip


@jit
def _in_body(q, met, facts, k0, k1):  # type: ignore[no-untyped-def]
    """Id of the cell body that holds q, else 0 and q moved towards a near body's centre.

    A body sits on a dendrite of the first family, which it swallows, and so has its processes.
    """
    p = (TUBES + 1) << 6
    per_nm = 1.0 / SOMA_PITCH_NM
    cz, cy, cx = math.floor(q[0] * per_nm), math.floor(q[1] * per_nm), math.floor(q[2] * per_nm)
    if met[p, 0] != cz or met[p, 1] != cy or met[p, 2] != cx:
        met[p, 0], met[p, 1], met[p, 2] = cz, cy, cx
        facts[p, 0], facts[p, 1], facts[p, 2], facts[p, 3], i, j = body_of(cz, cy, cx, k0, k1)
        met[p, _ID] = owner_of(0, i, j, facts[p, 0], k0, k1)[0]
    dz, dy, dx = q[0] - facts[p, 0], q[1] - facts[p, 1], q[2] - facts[p, 2]
    d2 = dz * dz + dy * dy + dx * dx
    radius = facts[p, 3]
    r_out = REACH * radius
    if d2 >= r_out * r_out:
        return 0
    if d2 < radius * radius:
        return met[p, _ID]
    shrink = _shrink(math.sqrt(d2), radius, r_out)
    q[0], q[1], q[2] = facts[p, 0] + shrink * dz, facts[p, 1] + shrink * dy, facts[p, 2] + shrink * dx
    return 0


@jit
def owner_at(q, core, gap, met, facts, k0, k1):  # type: ignore[no-untyped-def]
    """Return the id of the process at a point of bent space, 0 in the extracellular space.

    Parameters
    ----------
    q
        The point, float64 (3,), nm; overwritten.
    core
        Room for three numbers.
    gap
        Half the width of the gaps between processes, nm.
    met, facts
        What `new_memory` gave.
    k0, k1
        Key of the tissue.
    """
    body = _in_body(q, met, facts, k0, k1)
    if body != 0:
        return body
    closeness = 0.0
    for k in range(TUBES):
        aw, au, av = AXES[k, 0], AXES[k, 1], AXES[k, 2]
        w, u, v = q[aw], q[au], q[av]
        i, j = cell_of(k, 0, u), cell_of(k, 1, v)
        p = _place(k, i, j)
        if met[p, 0] != i or met[p, 1] != j:
            met[p, 0], met[p, 1], met[p, 2], met[p, _SPINE_MET] = i, j, NEVER, NEVER
            facts[p, 0], facts[p, 1], facts[p, 2], facts[p, 3] = size_of(k, i, j, k0, k1)
        r_out = facts[p, 1]
        t = w * INVERSE[k, NODE] - facts[p, 2]
        n = math.floor(t)
        if met[p, 2] != n:
            met[p, 2] = n
            facts[p, 4], facts[p, 5], facts[p, 6] = node_of(k, i, j, n, r_out, k0, k1)
            facts[p, 7], facts[p, 8], facts[p, 9] = node_of(k, i, j, n + 1, r_out, k0, k1)
        t -= n
        t = t * t * (3.0 - 2.0 * t)
        cu, cv = facts[p, 4] + t * (facts[p, 7] - facts[p, 4]), facts[p, 5] + t * (facts[p, 8] - facts[p, 5])
        du, dv = u - cu, v - cv
        d2 = du * du + dv * dv
        if d2 >= r_out * r_out:
            continue
        radius = radius_of(k, facts[p, 0], r_out, facts[p, 6] + t * (facts[p, 9] - facts[p, 6]))
        depth = radius - math.sqrt(d2)
        if depth < 0.0 and k < _SPINY and facts[p, 3] < 0.75:
            spine = _in_spine(k, i, j, du, dv, w, d2, radius, r_out, met, facts, k0, k1)
            if spine >= 0.0:
                return 0 if spine < gap else _recall(k, i, j, w, gap, met, facts, k0, k1)
        if depth >= 0.0:
            return 0 if depth < gap else _recall(k, i, j, w, gap, met, facts, k0, k1)
        near = 1.0 + depth / (r_out - radius)
        if near > closeness:
            closeness = near
            core[aw], core[au], core[av] = w, cu, cv
        shrink = _shrink(radius - depth, radius, r_out)
        q[au], q[av] = cu + shrink * du, cv + shrink * dv
    return _rest(q, core, closeness, gap, met, facts, k0, k1)


@jit
def _nearest_sites(u, v, met, facts, k0, k1):  # type: ignore[no-untyped-def]
    """The two sites of the last family with the least power at (u, v): (i, j, power) of both."""
    ci, cj = cell_of(TUBES, 0, u), cell_of(TUBES, 1, v)
    best = second = 1e300
    bi = bj = si = sj = 0
    for i in range(ci - 1, ci + 2):
        for j in range(cj - 1, cj + 2):
            p = _place(TUBES, i, j)
            if met[p, 0] != i or met[p, 1] != j:
                met[p, 0], met[p, 1] = i, j
                facts[p, 0], facts[p, 1], facts[p, 2] = site_of(i, j, k0, k1)
            du, dv = u - facts[p, 0], v - facts[p, 1]
            power = du * du + dv * dv - facts[p, 2]
            if power < best:
                second, si, sj = best, bi, bj
                best, bi, bj = power, i, j
            elif power < second:
                second, si, sj = power, i, j
    return bi, bj, best, si, sj, second


@jit
def _rest(q, core, closeness, gap, met, facts, k0, k1):  # type: ignore[no-untyped-def]
    """Owner in the last family, which fills what is left: a power diagram of sites across its axis.

    Where a tube of an earlier family, whose axis is at `core`, runs through a cell of the diagram, the cell beyond
    sends a tongue to the tube's far side, so that the tube runs between two processes, not inside one.
    """
    k = TUBES
    w, u, v = q[AXES[k, 0]], q[AXES[k, 1]], q[AXES[k, 2]]
    bi, bj, best, si, sj, second = _nearest_sites(u, v, met, facts, k0, k1)
    a, b = _place(k, bi, bj), _place(k, si, sj)
    du, dv = facts[b, 0] - facts[a, 0], facts[b, 1] - facts[a, 1]
    wall = (second - best) / (2.0 * math.sqrt(du * du + dv * dv))
    if closeness > 0.3:
        cu, cv = core[AXES[k, 1]], core[AXES[k, 2]]
        ci, cj, _, ti, tj, _ = _nearest_sites(cu, cv, met, facts, k0, k1)
        if ci == bi and cj == bj:
            b = _place(k, ti, tj)
            du, dv = facts[b, 0] - facts[a, 0], facts[b, 1] - facts[a, 1]
            tongue = ((u - cu) * du + (v - cv) * dv) / math.sqrt(du * du + dv * dv) - 150.0 * (1.0 - closeness)
            if tongue > 0.0:
                bi, bj, si, sj = ti, tj, bi, bj
                wall = tongue
            elif -tongue < wall:
                si, sj = ti, tj
                wall = -tongue
    own = _recall(k, bi, bj, w, gap, met, facts, k0, k1)
    if wall < gap and own != _recall(k, si, sj, w, gap, met, facts, k0, k1):
        return 0
    return own
