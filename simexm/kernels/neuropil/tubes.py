"""Processes of the procedural neuropil: course, radius, and neuron of each.

Processes follow straight lines, interleaved so that they pass each other: three families of dendrites and three of
axons, each parallel to one axis of a cubic frame, with one tube per cell of a square lattice across the axis. Axons
swerve around dendrites. `skeleton` tilts and bends the frame, so that no direction is special.

Everything is a hash of lattice indices. Lengths are nm; coordinates s = (0, 1, 2) are those of the straight frame.
"""

from __future__ import annotations

import math

import numpy as np

from simexm.compiled import njit
from simexm.random import philox
from simexm.random import unit_float32word as unit

_P = 3000.0
_Q = _P / 3.0
# Families: axis; lattice pitch, and cell centres along the two other axes; largest offset from there; smallest and largest
# radius; skew of radii; share of empty cells; distance between nodes; largest lateral shift of a node; relative change of
# calibre; probability that the process ends within a soma pitch; probability that it begins as a branch, and the parent's
# family. Axes of different families pass each other at half the pitch, dendrites and axons at a quarter of the finer one.
_AXIS, PITCH, _CENTRE, _OFFSET, _R_MIN, _R_MAX, _SKEW, _EMPTY, STEP, _WANDER, _SWELL, _END, _BRANCH, _PARENT = (
    0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14,
)  # fmt: skip
FAMILIES = (
    (0, _P, 0.50 * _P, 0.50 * _P, 270.0, 380.0, 820.0, 0.6, 0.0, 420.0, 60.0, 0.12, 0.10, 0.0, 0),
    (2, _P, 0.50 * _P, 0.00 * _P, 270.0, 280.0, 700.0, 0.6, 0.0, 420.0, 60.0, 0.14, 0.15, 0.6, 0),
    (1, _P, 0.00 * _P, 0.00 * _P, 270.0, 240.0, 600.0, 0.6, 0.1, 420.0, 60.0, 0.16, 0.20, 0.6, 1),
    (0, _Q, 0.25 * _Q, 0.25 * _Q, 210.0, 100.0, 300.0, 0.8, 0.12, 400.0, 100.0, 0.30, 0.20, 0.0, 3),
    (2, _Q, 0.25 * _Q, 0.75 * _Q, 210.0, 100.0, 300.0, 0.8, 0.12, 400.0, 100.0, 0.30, 0.25, 0.5, 3),
    (1, _Q, 0.75 * _Q, 0.75 * _Q, 210.0, 100.0, 300.0, 0.8, 0.12, 400.0, 100.0, 0.30, 0.30, 0.5, 4),
)
TUBES = len(FAMILIES)
DENDRITES = 3
FAMILY = np.array(FAMILIES)
AXES = np.array([[int(f[_AXIS]), *sorted({0, 1, 2} - {int(f[_AXIS])})] for f in FAMILIES])

ASTROCYTE = 7  # kind of id, its highest bits; a cell body is 0, families are 1 ... 6
SOMA_PITCH_NM = 24000.0
SOMA_RADIUS_NM = (3700.0, 5000.0)
_LONGEST = 12  # soma pitches after which every process ends
NEVER = -(2**62)

# Counters of the streams of random numbers; 0 ... 5 are the nodes of the families.
_SIZE, _BREAK, _FORK, _SOMA = 8, 16, 24, 32

# Longest axis of a volume whose ids are unique: 2**20 lattice cells on either side of the origin, in the tilted frame.
LARGEST_NM = 4e8

jit = njit(cache=True, nogil=True)


@jit
def cell_of(k: int, c: int, s: float) -> int:
    """Index of the lattice cell of family k that contains s; c is 0 for the first transverse axis, 1 for the second."""
    index: int = math.floor((s - FAMILY[k, _CENTRE + c]) / FAMILY[k, PITCH] + 0.5)
    return index


@jit
def tube_of(k: int, i: int, j: int, k0: int, k1: int) -> tuple[float, float, float, float]:
    """Place (u, v) of a tube across its axis, mean radius (0 where the cell is empty) and phase of its nodes."""
    words = philox(i, j, 0, _SIZE + k, k0, k1)
    offset = FAMILY[k, _OFFSET]
    u = i * FAMILY[k, PITCH] + FAMILY[k, _CENTRE] + offset * (2.0 * unit(words[0]) - 1.0)
    v = j * FAMILY[k, PITCH] + FAMILY[k, _CENTRE + 1] + offset * (2.0 * unit(words[1]) - 1.0)
    h = (unit(words[2]) - FAMILY[k, _EMPTY]) / (1.0 - FAMILY[k, _EMPTY])
    if h < 0.0:
        return u, v, 0.0, 0.0
    skew = FAMILY[k, _SKEW]
    radius = FAMILY[k, _R_MIN] + (FAMILY[k, _R_MAX] - FAMILY[k, _R_MIN]) * h * (1.0 - skew + skew * h * h)
    return u, v, radius, unit(words[3])


@jit
def _swerve(k, w, u, v, radius, k0, k1):  # type: ignore[no-untyped-def]
    """Displacement of an axon at (u, v) and w that makes it avoid the dendrites."""
    aw, au = AXES[k, 0], AXES[k, 1]
    du = dv = 0.0
    for d in range(DENDRITES):
        r_out = 0.5 * FAMILY[d, PITCH]
        across = w, u, v
        # The dendrite's axes, as indices into (w, u, v).
        first = 0 if AXES[d, 1] == aw else (1 if AXES[d, 1] == au else 2)
        second = 0 if AXES[d, 2] == aw else (1 if AXES[d, 2] == au else 2)
        i, j = cell_of(d, 0, across[first]), cell_of(d, 1, across[second])
        a, b, thick, _ = tube_of(d, i, j, k0, k1)
        if thick == 0.0:
            continue
        core = thick + radius
        a, b = across[first] - a, across[second] - b
        if AXES[d, 0] == aw:
            # Parallel: the disc of radius r_out is mapped evenly to a ring with the same outline.
            dist2 = a * a + b * b
            if dist2 < r_out * r_out:
                grown = math.sqrt(core * core / max(dist2, 1.0) + 1.0 - core * core / (r_out * r_out)) - 1.0
                du += a * grown
                dv += b * grown
            continue
        # Crossing: over or under, on the side where the lattice puts it.
        along, off = (a, b) if first == 0 else (b, a)
        bump = 1.0 - (along / r_out) ** 2
        share = 1.0 - abs(off) / r_out
        if bump > 0.0 and share > 0.0:
            shift = core * bump * bump * share
            if off < 0.0:
                shift = -shift
            if AXES[d, 0] == au:
                dv += shift
            else:
                du += shift
    return du, dv


@jit
def node_of(k: int, i: int, j: int, n: int, k0: int, k1: int) -> tuple[float, float, float, float]:
    """Position in the straight frame and radius of node n of a tube, which is not empty."""
    u, v, mean, phase = tube_of(k, i, j, k0, k1)
    w = (n + phase) * FAMILY[k, STEP]
    words = philox(i, j, n, k, k0, k1)
    swell = unit(words[2])
    radius = mean * (1.0 + FAMILY[k, _SWELL] * (4.0 * swell * swell * swell - 1.0))
    wander = FAMILY[k, _WANDER]
    du, dv = wander * (2.0 * unit(words[0]) - 1.0), wander * (2.0 * unit(words[1]) - 1.0)
    if k >= DENDRITES:
        pu, pv = _swerve(k, w, u, v, mean, k0, k1)
        du, dv = du + pu, dv + pv
    return (*on_axes(k, w, u + du, v + dv), radius)


@jit
def on_axes(k: int, w: float, u: float, v: float) -> tuple[float, float, float]:
    """Reorder coordinates along (w) and across (u, v) the axis of family k to the frame's axes."""
    if AXES[k, 0] == 0:
        return w, u, v
    if AXES[k, 0] == 1:
        return u, w, v
    return u, v, w


@jit
def body_of(c0: int, c1: int, c2: int, k0: int, k1: int) -> tuple[float, float, float, float]:
    """Centre in the straight frame and radius of the cell body of a lattice cell."""
    words = philox(c0, c1, c2, _SOMA, k0, k1)
    least, most = SOMA_RADIUS_NM
    radius = least + (most - least) * (words[3] % np.uint32(1024)) / 1024.0
    margin = radius + _P
    room = SOMA_PITCH_NM - 2.0 * margin
    return (
        c0 * SOMA_PITCH_NM + margin + room * unit(words[0]),
        c1 * SOMA_PITCH_NM + margin + room * unit(words[1]),
        c2 * SOMA_PITCH_NM + margin + room * unit(words[2]),
        radius,
    )


@jit
def _body_cell(k, i, j, m):  # type: ignore[no-untyped-def]
    """Lattice cell of cell bodies that contains stretch m of a tube."""
    u = i * FAMILY[k, PITCH] + FAMILY[k, _CENTRE]
    v = j * FAMILY[k, PITCH] + FAMILY[k, _CENTRE + 1]
    return on_axes(k, m, math.floor(u / SOMA_PITCH_NM), math.floor(v / SOMA_PITCH_NM))


@jit
def _break(k, i, j, m, k0, k1):  # type: ignore[no-untyped-def]
    """Whether the process in a tube ends in stretch m (one soma pitch long), and where along the tube.

    0: it continues. 1: it ends and another one begins. 2: it runs into a cell body. 3: it grows from a cell body.
    """
    cell = _body_cell(k, i, j, m)
    body = body_of(cell[0], cell[1], cell[2], k0, k1)
    u, v, _, _ = tube_of(k, i, j, k0, k1)
    du, dv = u - body[AXES[k, 1]], v - body[AXES[k, 2]]
    dist2 = du * du + dv * dv
    if dist2 < body[3] * body[3]:
        primary = k < DENDRITES and dist2 < 0.1 * body[3] * body[3]
        return (3 if primary else 2), body[AXES[k, 0]]
    words = philox(i, j, m, _BREAK + k, k0, k1)
    if unit(words[0]) < FAMILY[k, _END] or m % _LONGEST == 0:
        return 1, (m + unit(words[1])) * SOMA_PITCH_NM
    return 0, 0.0


@jit
def piece_of(k: int, i: int, j: int, w: float, k0: int, k1: int) -> tuple[float, float, int, int]:
    """Process in a tube at w: its begin and end, number, and the stretch of its cell body or NEVER."""
    m = math.floor(w / SOMA_PITCH_NM)
    how, end = _break(k, i, j, m, k0, k1)
    first, last = m, m
    if how != 0 and end > w:
        begin, since, until = 0.0, 0, how
    else:
        begin, since, until = end, how, 0
    while since == 0:
        first -= 1
        since, begin = _break(k, i, j, first, k0, k1)
    while until == 0:
        last += 1
        until, end = _break(k, i, j, last, k0, k1)
    body = first if since == 3 else (last if until == 3 else NEVER)
    return begin, end, first, body


@jit
def fork_of(k: int, i: int, j: int, begin: float, number: int, k0: int, k1: int) -> tuple[int, int, int, float]:
    """Tube from which a process branches: family (-1: none), lattice cell, and position along it."""
    if unit(philox(i, j, number, _FORK + k, k0, k1)[0]) >= FAMILY[k, _BRANCH]:
        return -1, 0, 0, 0.0
    parent = int(FAMILY[k, _PARENT])
    u, v, _, _ = tube_of(k, i, j, k0, k1)
    s = on_axes(k, begin, u, v)
    pi, pj = cell_of(parent, 0, s[AXES[parent, 1]]), cell_of(parent, 1, s[AXES[parent, 2]])
    if tube_of(parent, pi, pj, k0, k1)[2] == 0.0:
        return -1, 0, 0, 0.0
    return parent, pi, pj, s[AXES[parent, 0]]


@jit
def code_of(kind: int, a: int, b: int, c: int) -> int:
    """Pack a kind and three lattice indices into a unique id: 3, 21, 21 and 16 bits."""
    return (((kind << 21 | (a + (1 << 20))) << 21) | (b + (1 << 20))) << 16 | (c + (1 << 15))


@jit
def is_neuron(cell: int) -> bool:
    """Whether an id is a neuron, not extracellular space or an astrocyte."""
    return cell != 0 and cell >> 58 != ASTROCYTE


@jit
def owner_of(k: int, i: int, j: int, w: float, k0: int, k1: int) -> int:
    """Id of the neuron of a tube at w: that of its cell body, of its parent branch, or its own."""
    while True:
        begin, _, number, body = piece_of(k, i, j, w, k0, k1)
        if body != NEVER:
            cell = _body_cell(k, i, j, body)
            return int(code_of(0, cell[0], cell[1], cell[2]))
        parent, pi, pj, along = fork_of(k, i, j, begin, number, k0, k1)
        if parent < 0:
            return int(code_of(k + 1, i, j, number))
        k, i, j, w = parent, pi, pj, along
