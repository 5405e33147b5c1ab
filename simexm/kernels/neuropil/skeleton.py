"""Skeleton of the procedural neuropil in a box: every process as a chain of tapered `capsules` in real space.

The straight frame of `tubes` is tilted and bent by `bend`. Only nodes are bent, so that radii stay the same.
"""

from __future__ import annotations

import math

import numpy as np

from simexm.kernels.neuropil.bend import TILT, bent, lattices_of, origins_of, tilted
from simexm.kernels.neuropil.tubes import (
    AXES,
    DENDRITES,
    FAMILY,
    NEVER,
    SOMA_PITCH_NM,
    SOMA_RADIUS_NM,
    STEP,
    TUBES,
    body_of,
    cell_of,
    code_of,
    fork_of,
    jit,
    node_of,
    owner_of,
    piece_of,
    tube_of,
)
from simexm.random import philox
from simexm.random import unit_float32word as unit

_SPINE, _SPINY = 48, 56
SOMA, DENDRITE, NECK, HEAD, AXON = range(5)
"""Parts of a neuron that a capsule is, column 0 of `origins`."""
_REACH_NM = np.array(
    [2000.0] * DENDRITES + [1300.0] * (TUBES - DENDRITES)
)  # largest distance of a spine or branch from its node
_LEFT_OUT_NM = 150.0  # depth inside a cell body at which processes end


@jit
def _far(x, bounds, reach):  # type: ignore[no-untyped-def]
    """True if nothing within `reach` of x is bent into the box."""
    far = False
    for axis in range(3):
        far |= x[axis] < bounds[0, axis] - reach or x[axis] > bounds[1, axis] + reach
    return far


@jit
def _bodies(bounds, lattices, k0, k1):  # type: ignore[no-untyped-def]
    """Cell bodies near a box: capsules, ids and origins, as `skeleton` returns them."""
    reach = 2.0 * SOMA_RADIUS_NM[1]
    first, last = np.empty(3, np.int64), np.empty(3, np.int64)
    for axis in range(3):
        first[axis] = math.floor((bounds[2, axis] - reach) / SOMA_PITCH_NM)
        last[axis] = math.floor((bounds[3, axis] + reach) / SOMA_PITCH_NM) + 1
    room = np.prod(last - first)
    out, ids, origins = np.empty((room, 8)), np.empty(room, np.int64), np.zeros((room, 5), np.int64)
    n = 0
    for a in range(first[0], last[0]):
        for b in range(first[1], last[1]):
            for c in range(first[2], last[2]):
                s0, s1, s2, radius = body_of(a, b, c, k0, k1)
                x = tilted((s0, s1, s2))
                if _far(x, bounds, reach):
                    continue
                p = bent(x, lattices)
                # Slightly elongated, along the first family.
                for axis in range(3):
                    stretch = 0.2 * radius * TILT[axis, 0]
                    out[n, axis], out[n, 3 + axis] = p[axis] - stretch, p[axis] + stretch
                out[n, 6] = out[n, 7] = radius
                ids[n] = code_of(0, a, b, c)
                origins[n, 0], origins[n, 1], origins[n, 2], origins[n, 3] = SOMA, a, b, c
                n += 1
    return out[:n], ids[:n], origins[:n]


@jit
def _inside(p, bodies):  # type: ignore[no-untyped-def]
    """True if a point is deep inside a cell body."""
    for n in range(len(bodies)):
        d0 = p[0] - 0.5 * (bodies[n, 0] + bodies[n, 3])
        d1 = p[1] - 0.5 * (bodies[n, 1] + bodies[n, 4])
        d2 = p[2] - 0.5 * (bodies[n, 2] + bodies[n, 5])
        depth = bodies[n, 6] - _LEFT_OUT_NM
        if d0 * d0 + d1 * d1 + d2 * d2 < depth * depth:
            return True
    return False


@jit
def _put(filled, n, a, b, r_a, r_b, cell, part, tube, node):  # type: ignore[no-untyped-def]
    out, ids, origins = filled
    for axis in range(3):
        out[n, axis], out[n, 3 + axis] = a[axis], b[axis]
    out[n, 6], out[n, 7] = r_a, r_b
    ids[n] = cell
    origins[n, 0], origins[n, 1], origins[n, 2], origins[n, 3], origins[n, 4] = part, tube[0], tube[1], tube[2], node
    return n + 1


@jit
def _spine(k, i, j, n, a, b, radius, k0, k1):  # type: ignore[no-untyped-def]
    """Spine on segment n of a dendrite: centre and radius of its head, radius of its neck (0: no spine), direction."""
    words, more = philox(i, j, n, _SPINE + k, k0, k1), philox(i, j, n, _SPINY + k, k0, k1)
    d0, d1, d2 = 2.0 * unit(words[0]) - 1.0, 2.0 * unit(words[1]) - 1.0, 2.0 * unit(words[2]) - 1.0
    e0, e1, e2 = b[0] - a[0], b[1] - a[1], b[2] - a[2]
    along = (d0 * e0 + d1 * e1 + d2 * e2) / (e0 * e0 + e1 * e1 + e2 * e2)
    d0, d1, d2 = d0 - along * e0, d1 - along * e1, d2 - along * e2
    norm = math.sqrt(d0 * d0 + d1 * d1 + d2 * d2)
    if norm < 0.1 or unit(more[0]) > 0.95:
        return (0.0, 0.0, 0.0), 0.0, 0.0, (0.0, 0.0, 0.0)
    d0, d1, d2 = d0 / norm, d1 / norm, d2 / norm
    size = unit(words[3])
    length = radius + 300.0 + 700.0 * unit(more[1])
    head = 150.0 + 150.0 * size * size
    return (a[0] + length * d0, a[1] + length * d1, a[2] + length * d2), head, 55.0 + 35.0 * size, (d0, d1, d2)


@jit
def skeleton(low, high, k0, k1):  # type: ignore[no-untyped-def]
    """Capsules that reach into the box `low` to `high` of real space, nm, and possibly more, always in the same order.

    Return capsules (n, 8), their ids (n,), their origins (n, 5): part of the neuron, family, lattice cell (2) and node of
    its tube, or lattice cell (3) of a body; tips of spine heads with the directions of the spines (m, 6), their ids (m,),
    and their origins (m, 4): family, lattice cell and node.
    """
    lattices = lattices_of(low, high, k0, k1)
    bounds = origins_of(low, high, lattices)
    bodies, body_ids, body_origins = _bodies(bounds, lattices, k0, k1)
    first, last = np.empty((TUBES, 3), np.int64), np.empty((TUBES, 3), np.int64)
    room = len(bodies)
    for k in range(TUBES):
        for c in range(2):
            first[k, c] = cell_of(k, c, bounds[2, AXES[k, 1 + c]] - _REACH_NM[k])
            last[k, c] = cell_of(k, c, bounds[3, AXES[k, 1 + c]] + _REACH_NM[k]) + 1
        first[k, 2] = math.floor((bounds[2, AXES[k, 0]] - _REACH_NM[k]) / FAMILY[k, STEP]) - 1
        last[k, 2] = math.floor((bounds[3, AXES[k, 0]] + _REACH_NM[k]) / FAMILY[k, STEP]) + 2
        room += (4 if k < DENDRITES else 2) * np.prod(last[k] - first[k])
    out, ids, origins = np.empty((room, 8)), np.empty(room, np.int64), np.empty((room, 5), np.int64)
    tips, tip_ids, tip_origins = (
        np.empty((room // 2, 6)),
        np.empty(room // 2, np.int64),
        np.empty((room // 2, 4), np.int64),
    )
    n, tip = len(bodies), 0
    for m in range(n):
        ids[m] = body_ids[m]
        for column in range(8):
            out[m, column] = bodies[m, column]
        for column in range(5):
            origins[m, column] = body_origins[m, column]
    for k in range(TUBES):
        for i in range(first[k, 0], last[k, 0]):
            for j in range(first[k, 1], last[k, 1]):
                if tube_of(k, i, j, k0, k1)[2] > 0.0:
                    nodes, filled = (
                        (first[k, 2], last[k, 2]),
                        ((out, ids, origins), n, (tips, tip_ids, tip_origins), tip),
                    )
                    n, tip = _follow(k, i, j, nodes, bounds, lattices, bodies, filled, k0, k1)
    return (out[:n], ids[:n], origins[:n]), (tips[:tip], tip_ids[:tip], tip_origins[:tip])


@jit
def _follow(k, i, j, nodes, bounds, lattices, bodies, filled, k0, k1):  # type: ignore[no-untyped-def]
    """Append the capsules of one tube between two nodes, with spines and joints to parent branches; return both counts."""
    (first, last), (put, n, (tips, tip_ids, tip_origins), tip) = nodes, filled
    tube, part = (k, i, j), (DENDRITE if k < DENDRITES else AXON)
    reach, step = _REACH_NM[k], FAMILY[k, STEP]
    phase = tube_of(k, i, j, k0, k1)[3]
    before, r_before, linked = (0.0, 0.0, 0.0), 0.0, False
    begin, end, cell, number, body = 0.0, -1e300, 0, 0, 0
    for node in range(first, last):
        s0, s1, s2, radius = node_of(k, i, j, node, k0, k1)
        x = tilted((s0, s1, s2))
        if _far(x, bounds, reach):
            linked = False
            continue
        here = bent(x, lattices)
        w = (node + phase) * step
        if not begin <= w < end:
            begin, end, number, body = piece_of(k, i, j, w, k0, k1)
            cell = owner_of(k, i, j, w, k0, k1)
            linked = False
        if w - step < begin and body == NEVER:
            parent, pi, pj, along = fork_of(k, i, j, begin, number, k0, k1)
            if parent >= 0:
                at = math.floor(along / FAMILY[parent, STEP] - tube_of(parent, pi, pj, k0, k1)[3] + 0.5)
                s0, s1, s2, r_parent = node_of(parent, pi, pj, at, k0, k1)
                there = bent(tilted((s0, s1, s2)), lattices)
                n = _put(put, n, there, here, min(radius, r_parent), radius, cell, part, tube, node)
        if _inside(here, bodies):
            linked = False
            continue
        if linked:
            n = _put(put, n, before, here, r_before, radius, cell, part, tube, node)
            if k < DENDRITES and (i ^ j) & 7 != 0:
                centre, head, neck, out_ = _spine(k, i, j, node, before, here, radius, k0, k1)
                if neck > 0.0:
                    n = _put(put, n, before, centre, neck, neck, cell, NECK, tube, node)
                    n = _put(put, n, centre, centre, head, head, cell, HEAD, tube, node)
                    for axis in range(3):
                        tips[tip, axis], tips[tip, 3 + axis] = centre[axis] + head * out_[axis], out_[axis]
                    tip_ids[tip] = cell
                    tip_origins[tip, 0], tip_origins[tip, 1], tip_origins[tip, 2], tip_origins[tip, 3] = k, i, j, node
                    tip += 1
        before, r_before, linked = here, radius, True
    return n, tip
