"""Organelles of the procedural neuropil, as simple geometry along its capsules.

Lengths are nm. Numbers follow electron microscopy of rodent cortex and hippocampus, where a source is named:

- Mitochondria of dendrites are 1.31 to 13.28 um long, those of axons 0.45 to 1.13 um (Lewis et al., Nat. Commun. 9, 5008, 2018);
  they take 44 % of a dendrite's length and 11 % of an excitatory axon's (rat cortex, as collected in table 4 of
  PMC10357692), hence `_MITO_NM`. 150 nm is the radius of one of 0.056 um^3 and 0.8 um, the mean of boutons in the same table.
- A bouton holds about 200 vesicles (Schikorski & Stevens, J. Neurosci. 17, 5858, 1997), 44 nm across; the postsynaptic
  density is 44 nm thick (Chen et al., J. Cell Biol. 181, 791, 2008).
- The ratio of a myelinated axon's inner to its outer diameter is 0.77 (Chomiak & Hu, PLoS ONE 4, e7754, 2009).
- A fifth of the neurons are inhibitory (Gabbott & Somogyi, Exp. Brain Res. 61, 323, 1986).

No measurement stands behind the size of nuclei, the axons that have myelin, and the length of its stretches.
"""

from __future__ import annotations

import math

import numpy as np

from simexm.kernels.neuropil.tubes import ASTROCYTE, DENDRITES, FAMILY, STEP, jit, tube_of
from simexm.random import philox
from simexm.random import unit_float32word as unit

SOMA, NUCLEUS_OF_SOMA, DENDRITE, SPINE_NECK, SPINE_HEAD, AXON_SHAFT, BOUTON = range(1, 8)
"""Compartments; 0 is extracellular space and glia."""
MITOCHONDRION, VESICLES, DENSITY, MYELIN = 1, 2, 4, 8
"""Bits of organelles."""
EXCITATORY, INHIBITORY, GLIA = 1, 2, 3
"""Types of cells; 0 is extracellular space."""

NUCLEUS = 0.7  # radius of a nucleus over that of its cell body: a third of the volume
PSD_NM = 44.0
VESICLE_NM = 44.0  # diameter
BOUTON_NM = 200.0  # thickness of the shell around a cloud of vesicles that still belongs to the bouton
_INHIBITORY_SHARE = 0.2

_MITO, _BODY_MITO, _MYELIN, _TYPE = 64, 96, 104, 112  # counters of streams of random numbers
# Dendrites, axons: length of a stretch with one mitochondrion, and its shortest and longest length.
_MITO_NM = ((16500.0, 1310.0, 13280.0), (7200.0, 450.0, 1130.0))
_MITO_RADIUS_NM = 150.0
_MITO_ALONE_NM = 380.0  # least radius of a process with three lines of mitochondria
_MITO_FILLS = 0.6  # largest share of the radius of its process
_MITO_DEPTH_NM = 25.0  # least distance from the membrane
_BODY_MITO_NM = 700.0  # lattice of the mitochondria of cell bodies, a tenth of their cytosol
_BODY_MITO_HALF_NM = 180.0
_MYELINATED_NM = 240.0  # least mean radius of an axon with sheaths, and the one that has the ratio above
_INTERNODE_NM, _NODE_NM, _INTERNODES = 40000.0, 1000.0, 0.7  # length, gap, and share of stretches with a sheath
_SHEATH_NM = (1.0 - 0.77) * _MYELINATED_NM


@jit
def type_of(cell, k0, k1):  # type: ignore[no-untyped-def]
    """Type of a cell: `EXCITATORY`, `INHIBITORY` or `GLIA`; 0 for extracellular space."""
    if cell == 0:
        return 0
    if cell >> 58 == ASTROCYTE:
        return GLIA
    u = unit(philox(cell, cell >> 32, 0, _TYPE, k0, k1)[0])
    return INHIBITORY if u < _INHIBITORY_SHARE else EXCITATORY


@jit
def types_of(ids, out, k0, k1):  # type: ignore[no-untyped-def]
    """Write the type of each voxel's cell."""
    cell, kind = np.int64(0), 0
    for z in range(ids.shape[0]):
        for y in range(ids.shape[1]):
            for x in range(ids.shape[2]):
                if np.int64(ids[z, y, x]) != cell:
                    cell = np.int64(ids[z, y, x])
                    kind = type_of(cell, k0, k1)
                out[z, y, x] = kind


@jit
def _from_axis(p, capsule, shift):  # type: ignore[no-untyped-def]
    """Distance of a point from a capsule's axis that is displaced by `shift` (nm) across it."""
    a0, a1, a2 = capsule[3] - capsule[0], capsule[4] - capsule[1], capsule[5] - capsule[2]
    q0, q1, q2 = p[0] - capsule[0], p[1] - capsule[1], p[2] - capsule[2]
    along = min(1.0, max(0.0, (q0 * a0 + q1 * a1 + q2 * a2) * capsule[8]))
    along -= (shift[0] * a0 + shift[1] * a1 + shift[2] * a2) * capsule[8]
    q0, q1, q2 = q0 - along * a0 - shift[0], q1 - along * a1 - shift[1], q2 - along * a2 - shift[2]
    return math.sqrt(q0 * q0 + q1 * q1 + q2 * q2)


@jit
def in_mitochondrion(tube, place, p, capsule, r, depth, k0, k1):  # type: ignore[no-untyped-def]
    """Whether a point p of a process, in its capsule, lies in a mitochondrion.

    `place` is its position along the tube, r the radius there, `depth` that below the membrane. Mitochondria lie on the
    axis, those of thick processes on three lines around it.
    """
    if depth < _MITO_DEPTH_NM:
        return False
    if r < _MITO_ALONE_NM:
        return _in_line(tube, 0, place, _from_axis(p, capsule, (0.0, 0.0, 0.0)), r, k0, k1)
    off = 0.5 * r
    return (
        _in_line(tube, 0, place, _from_axis(p, capsule, (off, 0.0, 0.0)), r, k0, k1)
        or _in_line(tube, 1, place, _from_axis(p, capsule, (-0.5 * off, 0.87 * off, 0.0)), r, k0, k1)
        or _in_line(tube, 2, place, _from_axis(p, capsule, (-0.5 * off, -0.43 * off, 0.75 * off)), r, k0, k1)
    )


@jit
def _in_line(tube, line, place, d, r, k0, k1):  # type: ignore[no-untyped-def]
    """Whether a point at distance d from a line along a tube, and at `place` along it, lies in a mitochondrion on it."""
    k, i, j = tube
    stretch, shortest, longest = _MITO_NM[0] if k < DENDRITES else _MITO_NM[1]
    radius = min(_MITO_RADIUS_NM, _MITO_FILLS * r)
    if d >= radius:
        return False
    number = math.floor(place / stretch)
    words = philox(i, j, number, _MITO + 8 * line + k, k0, k1)
    length = shortest + (longest - shortest) * unit(words[0])
    along = place - number * stretch - (stretch - length) * unit(words[1])
    end = min(along, length - along)  # distance from the nearer end
    if end <= 0.0:
        return False
    if end < radius:
        radius = math.sqrt(radius * radius - (radius - end) ** 2)
    return d < radius


@jit
def in_mitochondrion_of_body(p, d, r, depth, k0, k1):  # type: ignore[no-untyped-def]
    """Whether point p of a cell body lies in a mitochondrion; d, r and `depth` as in `in_mitochondrion`."""
    if depth < 2.0 * _MITO_DEPTH_NM or d < NUCLEUS * r + 2.0 * _MITO_DEPTH_NM:
        return False
    c0, c1, c2 = math.floor(p[0] / _BODY_MITO_NM), math.floor(p[1] / _BODY_MITO_NM), math.floor(p[2] / _BODY_MITO_NM)
    words = philox(c0, c1, c2, _BODY_MITO, k0, k1)
    d0, d1, d2 = unit(words[0]) - 0.5, unit(words[1]) - 0.5, unit(words[2]) - 0.5
    norm = math.sqrt(d0 * d0 + d1 * d1 + d2 * d2) + 1e-9
    z, y, x = p[0] - (c0 + 0.5) * _BODY_MITO_NM, p[1] - (c1 + 0.5) * _BODY_MITO_NM, p[2] - (c2 + 0.5) * _BODY_MITO_NM
    t = (z * d0 + y * d1 + x * d2) / norm
    t = min(max(t, -_BODY_MITO_HALF_NM), _BODY_MITO_HALF_NM)
    z, y, x = z - t * d0 / norm, y - t * d1 / norm, x - t * d2 / norm
    return z * z + y * y + x * x < _MITO_RADIUS_NM * _MITO_RADIUS_NM


@jit
def sheath_of(tube, place, k0, k1):  # type: ignore[no-untyped-def]
    """Thickness of an axon's myelin at a position along its tube; 0: none."""
    k, i, j = tube
    if tube_of(k, i, j, k0, k1)[2] < _MYELINATED_NM:
        return 0.0
    number = math.floor(place / _INTERNODE_NM)
    if place - number * _INTERNODE_NM < _NODE_NM or unit(philox(i, j, number, _MYELIN + k, k0, k1)[0]) > _INTERNODES:
        return 0.0
    return _SHEATH_NM


@jit
def place_of(origin, t):  # type: ignore[no-untyped-def]
    """Position along its tube of a point at the share t of a capsule of this origin."""
    return (origin[4] - 1 + t) * FAMILY[origin[1], STEP]


@jit
def cloud_of(patch, direction):  # type: ignore[no-untyped-def]
    """Centre (z, y, x) and radius of the cloud of vesicles behind a synapse."""
    radius = patch[6] + 20.0
    out = 0.9 * radius
    return patch[0] + out * direction[0], patch[1] + out * direction[1], patch[2] + out * direction[2], radius


@jit
def code_of_synapse(origin):  # type: ignore[no-untyped-def]
    """Unique id of a synapse from the origin of its spine's tip: 2, 19, 19 and 22 bits."""
    tube = ((origin[0] + 1) << 19 | (origin[1] + (1 << 18))) << 19 | (origin[2] + (1 << 18))
    return tube << 22 | (origin[3] + (1 << 21))
