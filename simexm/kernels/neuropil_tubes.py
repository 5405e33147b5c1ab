"""The processes of the procedural neuropil: where each runs, how thick it is, and which neuron it belongs to.

Everything here is a hash of lattice indices; `neuropil` says what happens at a point. Lengths are nm of bent space.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from simexm.random import philox
from simexm.random import unit_float32word as unit

# Families in the order in which they take space: axis (0 = z, 1 = y, 2 = x), lattice pitch and place of the cells'
# centres along the two other axes, least and greatest radius of a tube, distance of the nodes between which its
# course is interpolated, relative change of calibre along it, distance between the points where a process may begin,
# probability that it begins there as a branch, and the family that it branches from (itself: from a cell body). The
# lattices of dendrites are woven: their axes pass each other at a quarter of the pitch or more, so that none meets
# another head-on.
_AXIS, _PITCH, _CENTRE, _R_MIN, _R_MAX, NODE, _SWELL, _LENGTH, _BRANCH, _PARENT = 0, 1, 3, 5, 6, 7, 8, 9, 10, 11
_P = 2300.0
_WANDER = 0.11 * _P
FAMILIES = (
    (0, _P, _P, 0.5 * _P, 0.5 * _P, 280.0, 900.0, 4000.0, 0.1, 240000.0, 0.0, 0),  # dendrites
    (2, _P, _P, 0.5 * _P, 0.0, 220.0, 800.0, 3000.0, 0.12, 120000.0, 1.0, 1),  # dendrites
    (1, _P, _P, 0.0, 0.0, 150.0, 650.0, 2500.0, 0.2, 120000.0, 1.0, 2),  # thin dendrites, thick axons
    (0, 0.5 * _P, 0.5 * _P, 0.0, 0.25 * _P, 120.0, 270.0, 1100.0, 0.45, 80000.0, 0.6, 1),  # axons
    (2, 0.5 * _P, _P, 0.25 * _P, 0.5 * _P, 120.0, 270.0, 1000.0, 0.45, 80000.0, 0.6, 3),  # axons
    (1, 680.0, 680.0, 340.0, 340.0, 0.0, 0.0, 1300.0, 0.0, 70000.0, 0.4, 4),  # the rest: axons and astrocytes
)
TUBES = len(FAMILIES) - 1
_DENDRITES = 3
FAMILY = np.array(FAMILIES)
INVERSE = 1.0 / np.maximum(FAMILY, 1.0)  # of lengths

AXES = np.array([[int(f[_AXIS]), *sorted({0, 1, 2} - {int(f[_AXIS])})] for f in FAMILIES])


ASTROCYTE = 7  # kind of id, its highest bits
ASTROCYTE_NM = 45000.0
SOMA_PITCH_NM = 24000.0
REACH = 1.75  # a cell body disturbs what lies within this multiple of its radius
CORE = 0.25  # a tube of radius R is shrunk to R * CORE, not to a line: what runs into it head-on is parted, not torn

# Counters of the streams of random numbers; 0 ... 5 are the nodes of the families.
_SIZE, _BREAK, SPINE, _SITE, _SOMA = 8, 16, 24, 32, 33
NEVER = -(2**62)

# Longest axis of a volume whose ids are unique: 2**21 cells of the finest lattice, less what bending may add.
LARGEST_NM = 1.2e9

jit = numba.njit(cache=True, nogil=True)


@jit
def cell_of(k: int, c: int, q: float) -> int:
    """Index of the lattice cell of family k that holds q; c is 0 for the first axis across, 1 for the second."""
    return math.floor((q - FAMILY[k, _CENTRE + c]) * INVERSE[k, _PITCH + c] + 0.5)


@jit
def node_of(k: int, i: int, j: int, n: int, r_out: float, k0: int, k1: int) -> tuple[float, float, float]:
    """Centre (u, v) and swelling of tube (i, j) of family k at node n."""
    words = philox(i, j, n, k, k0, k1)
    pu, pv = FAMILY[k, _PITCH], FAMILY[k, _PITCH + 1]
    room_u, room_v = min(_WANDER, 0.5 * pu - r_out), min(_WANDER, 0.5 * pv - r_out)
    u = i * pu + FAMILY[k, _CENTRE] + room_u * (2.0 * unit(words[0]) - 1.0)
    v = j * pv + FAMILY[k, _CENTRE + 1] + room_v * (2.0 * unit(words[1]) - 1.0)
    return u, v, unit(words[2])


@jit
def size_of(k: int, i: int, j: int, k0: int, k1: int) -> tuple[float, float, float, float]:
    """Radius of the tube, radius of the disc that it may disturb, phase of its nodes and a hash for its kind."""
    words = philox(i, j, 0, _SIZE + k, k0, k1)
    h = unit(words[0])
    radius = FAMILY[k, _R_MIN] + (FAMILY[k, _R_MAX] - FAMILY[k, _R_MIN]) * h * (0.3 + 0.7 * h)
    most = 0.495 * min(FAMILY[k, _PITCH], FAMILY[k, _PITCH + 1])
    r_out = most - 0.3 * max(0.0, most - 1.6 * radius) * unit(words[1])
    return radius, r_out, unit(words[2]), unit(words[3])


@jit
def radius_of(k: int, radius: float, r_out: float, swell: float) -> float:
    return min(radius * (1.0 + FAMILY[k, _SWELL] * (4.0 * swell * swell * swell - 1.0)), 0.75 * r_out)


@jit
def course_of(k: int, i: int, j: int, w: float, k0: int, k1: int) -> tuple[float, float, float]:
    """Centre (u, v) and radius of tube (i, j) of family k at w along its axis (last family: its site, radius 150)."""
    if k == TUBES:
        u, v, _ = site_of(i, j, k0, k1)
        return u, v, 150.0
    radius, r_out, phase, _ = size_of(k, i, j, k0, k1)
    t = w * INVERSE[k, NODE] - phase
    n = math.floor(t)
    t -= n
    t = t * t * (3.0 - 2.0 * t)
    u0, v0, f0 = node_of(k, i, j, n, r_out, k0, k1)
    u1, v1, f1 = node_of(k, i, j, n + 1, r_out, k0, k1)
    return u0 + t * (u1 - u0), v0 + t * (v1 - v0), radius_of(k, radius, r_out, f0 + t * (f1 - f0))


@jit
def site_of(i: int, j: int, k0: int, k1: int) -> tuple[float, float, float]:
    """Position and power of a Voronoi site of the last family."""
    words = philox(i, j, 0, _SITE, k0, k1)
    pitch = FAMILY[TUBES, _PITCH]
    return (
        (i + 0.15 + 0.7 * unit(words[0])) * pitch,
        (j + 0.15 + 0.7 * unit(words[1])) * pitch,
        0.12 * pitch * pitch * unit(words[2]),
    )


@jit
def body_of(cz: int, cy: int, cx: int, k0: int, k1: int) -> tuple[float, float, float, float, int, int]:
    """Centre (z, y, x) and radius of the cell body of a lattice cell, and the dendrite of family 0 that it sits on."""
    words = philox(cz, cy, cx, _SOMA, k0, k1)
    radius = 3800.0 + 1500.0 * (words[3] % np.uint32(1024)) / 1024.0
    margin = REACH * radius + _P
    room = SOMA_PITCH_NM - 2.0 * margin
    z = cz * SOMA_PITCH_NM + margin + room * unit(words[0])
    i = cell_of(0, 0, cy * SOMA_PITCH_NM + margin + room * unit(words[1]))
    j = cell_of(0, 1, cx * SOMA_PITCH_NM + margin + room * unit(words[2]))
    y, x, _ = course_of(0, i, j, z, k0, k1)
    return z, y, x, radius, i, j


@jit
def _from_body(k: int, i: int, j: int, m: int, begin: float, k0: int, k1: int) -> tuple[float, int, int, float]:
    """Like `_branch_point`: the first cell body that dendrite (i, j) of family k runs into in piece m."""
    centre = np.zeros(3)
    u, v, radius = course_of(k, i, j, begin, k0, k1)
    first, last = (
        math.floor(m * FAMILY[k, _LENGTH] / SOMA_PITCH_NM),
        math.floor((m + 1) * FAMILY[k, _LENGTH] / SOMA_PITCH_NM),
    )
    for a in range(first, last):
        cells = [0, 0, 0]
        cells[AXES[k, 0]], cells[AXES[k, 1]], cells[AXES[k, 2]] = (
            a,
            math.floor(u / SOMA_PITCH_NM),
            math.floor(v / SOMA_PITCH_NM),
        )
        z, y, x, body, bi, bj = body_of(cells[0], cells[1], cells[2], k0, k1)
        centre[0], centre[1], centre[2] = z, y, x
        w = centre[AXES[k, 0]]
        u, v, radius = course_of(k, i, j, w, k0, k1)
        du, dv = u - centre[AXES[k, 1]], v - centre[AXES[k, 2]]
        touch = body * CORE + 0.7 * radius
        if du * du + dv * dv < touch * touch:
            return w, bi, bj, z
    return begin, 0, NEVER, 0.0


@jit
def _branch_point(k: int, i: int, j: int, m: int, k0: int, k1: int) -> tuple[float, int, int, float]:
    """Where piece m of tube (i, j) of family k begins, and the tube (i, j, w) of its parent family that it grows from.

    A process that is a branch begins on the axis of the first tube of that family that its own axis meets. Without
    one, the third number is `NEVER`.
    """
    words = philox(i, j, m, _BREAK + k, k0, k1)
    length = FAMILY[k, _LENGTH]
    begin = (m + 0.5 * unit(words[0])) * length
    if unit(words[1]) >= FAMILY[k, _BRANCH]:
        return begin, 0, NEVER, 0.0
    parent = int(FAMILY[k, _PARENT])
    if parent == k:
        return _from_body(k, i, j, m, begin, k0, k1)
    own_first = AXES[k, 1] == AXES[parent, 0]  # is the parent's axis our u?
    across_first = AXES[parent, 1] == AXES[k, 0]  # is our axis the parent's u?
    c = 0 if across_first else 1
    first = cell_of(parent, c, begin) + 1
    for a in range(first, first + 12):
        w = a * FAMILY[parent, _PITCH + c] + FAMILY[parent, _CENTRE + c]
        for _ in range(2):
            u, v, radius = course_of(k, i, j, w, k0, k1)
            along, other = (u, v) if own_first else (v, u)
            b = cell_of(parent, 1 - c, other)
            pi, pj = (a, b) if across_first else (b, a)
            pu, pv, parent_radius = course_of(parent, pi, pj, along, k0, k1)
            w, beside = (pu, pv) if across_first else (pv, pu)
        if abs(other - beside) < radius + CORE * parent_radius:
            return w, pi, pj, along
    return begin, 0, NEVER, 0.0


@jit
def code_of(kind: int, a: int, b: int, c: int) -> int:
    """Pack a kind and three lattice indices into an id, one for one: 3, 21, 21 and 17 bits."""
    return (((kind << 21 | (a + 4096)) << 21) | (b + 4096)) << 17 | (c + 64)


@jit
def is_astrocyte(cell: int) -> bool:
    """True if an id is that of an astrocyte."""
    return cell >> 59 == ASTROCYTE


@jit
def _in_sheet(i: int, j: int, k0: int, k1: int) -> bool:
    """Sheets of the last family, joined by walls: thin astrocyte lamellae that hang together."""
    band = j // 8
    return j - 8 * band == 0 or (i % 24 == philox(band, 0, 1, _SITE, k0, k1)[0] % np.uint32(24))


@jit
def owner_of(k: int, i: int, j: int, w: float, k0: int, k1: int) -> tuple[int, float, float]:
    """Id of the neuron that tube (i, j) of family k belongs to at w, and the stretch [lo, hi) where this holds."""
    lo, hi = 0.0, 0.0
    for depth in range(TUBES + 1):
        if k == TUBES and _in_sheet(i, j, k0, k1):
            c = math.floor(w / ASTROCYTE_NM)
            a = math.floor(i * FAMILY[k, _PITCH] / ASTROCYTE_NM)
            b = math.floor(j * FAMILY[k, _PITCH] / ASTROCYTE_NM)
            return code_of(ASTROCYTE, a, b, c), c * ASTROCYTE_NM, (c + 1) * ASTROCYTE_NM
        m = math.floor(w / FAMILY[k, _LENGTH])
        begin, pi, pj, pw = _branch_point(k, i, j, m, k0, k1)
        if w < begin:
            end = begin
            m -= 1
            begin, pi, pj, pw = _branch_point(k, i, j, m, k0, k1)
        else:
            end = _branch_point(k, i, j, m + 1, k0, k1)[0]
        if depth == 0:
            lo, hi = begin, end
        if pj == NEVER:
            return code_of(k + 1, i, j, m), lo, hi
        k = 0 if k < _DENDRITES else int(FAMILY[k, _PARENT])
        i, j, w = pi, pj, pw
    return 0, lo, hi
