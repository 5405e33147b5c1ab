"""Grey values of the procedural neuropil, as in an electron micrograph: heavy metal is dark.

No physics of electrons: each compartment has a typical value, membranes are dark lines 8 nm on either side of the surface,
averaged over the voxel, and every voxel has noise of its own.
"""

from __future__ import annotations

import math

from simexm.kernels.neuropil.bend import tilted
from simexm.kernels.neuropil.organelles import (
    DENSITY,
    MITOCHONDRION,
    MYELIN,
    NUCLEUS_OF_SOMA,
    VESICLE_NM,
    VESICLES,
)
from simexm.kernels.neuropil.tubes import ASTROCYTE, jit
from simexm.random import philox
from simexm.random import unit_float32word as unit

_MEMBRANE_NM = 8.0
_DARK = 45.0  # membranes and the walls of organelles
_OUTSIDE, _GLIA = 205.0, 190.0
# By compartment: none, soma, nucleus, dendrite, spine neck and head, axon, bouton.
_LEVEL = (_GLIA, 160.0, 150.0, 172.0, 165.0, 162.0, 158.0, 150.0)
_MITO, _PSD, _SHEATH, _CLOUD = 95.0, 40.0, 30.0, 120.0
_CHROMATIN_NM, _CHROMATIN = 500.0, 45.0  # size of clumps, and how much darker they are
_NOISE = 7.0
OUTSIDE_NM = -1e9
"""Depth in a nucleus far from any."""
_LOOSE_NM = 16.0  # between vesicles
_NOISE_KEY, _CHROMATIN_KEY, _VESICLE_KEY = 120, 121, 122  # counters of streams of random numbers


@jit
def _covered(middle, size, low, high):  # type: ignore[no-untyped-def]
    """Share of a voxel of this size at `middle` that lies between `low` and `high`, along one axis."""
    return max(0.0, min(middle + 0.5 * size, high) - max(middle - 0.5 * size, low)) / size


@jit
def _clumps(p, k0, k1):  # type: ignore[no-untyped-def]
    """Smooth noise in 0 ... 1, of clumps of two sizes whose lattices are tilted against each other."""
    return 0.6 * _smooth(p, _CHROMATIN_NM, k0, k1) + 0.4 * _smooth(tilted(p), 0.37 * _CHROMATIN_NM, k0, k1)


@jit
def _smooth(p, pitch, k0, k1):  # type: ignore[no-untyped-def]
    """Noise in 0 ... 1, interpolated between the points of a lattice."""
    q0, q1, q2 = p[0] / pitch, p[1] / pitch, p[2] / pitch
    c0, c1, c2 = math.floor(q0), math.floor(q1), math.floor(q2)
    f0, f1, f2 = q0 - c0, q1 - c1, q2 - c2
    f0, f1, f2 = f0 * f0 * (3 - 2 * f0), f1 * f1 * (3 - 2 * f1), f2 * f2 * (3 - 2 * f2)
    total = 0.0
    for a in range(2):
        for b in range(2):
            for c in range(2):
                u = unit(philox(c0 + a, c1 + b, c2 + c, _CHROMATIN_KEY, k0, k1)[0])
                total += u * (f0 if a else 1 - f0) * (f1 if b else 1 - f1) * (f2 if c else 1 - f2)
    return total


@jit
def _vesicle(p, k0, k1):  # type: ignore[no-untyped-def]
    """Distance from the centre of the vesicle in the lattice cell of a point."""
    pitch = VESICLE_NM + _LOOSE_NM
    c0, c1, c2 = math.floor(p[0] / pitch), math.floor(p[1] / pitch), math.floor(p[2] / pitch)
    words = philox(c0, c1, c2, _VESICLE_KEY, k0, k1)
    z = p[0] - (c0 + 0.5) * pitch - _LOOSE_NM * (unit(words[0]) - 0.5)
    y = p[1] - (c1 + 0.5) * pitch - _LOOSE_NM * (unit(words[1]) - 0.5)
    x = p[2] - (c2 + 0.5) * pitch - _LOOSE_NM * (unit(words[2]) - 0.5)
    return math.sqrt(z * z + y * y + x * x)


@jit
def grey_of(p, voxel, size, own, part, bits, depth, nucleus_nm, k0, k1):  # type: ignore[no-untyped-def]
    """Grey value, 0 ... 255, of a voxel of this size (nm) at point p.

    `own` is its cell, `part` its compartment, `bits` its organelles (see `organelles`), `depth` its distance below the
    membrane, and `nucleus_nm` that below the surface of the nucleus; both negative outside.
    """
    level = _OUTSIDE if own == 0 else (_GLIA if own >> 58 == ASTROCYTE else _LEVEL[part])
    if part == NUCLEUS_OF_SOMA:
        clumps = _clumps(p, k0, k1) + 0.6 * _covered(nucleus_nm, size, 0.0, 150.0)
        level -= _CHROMATIN * min(1.0, max(0.0, 4.0 * (clumps - 0.52)))
    if bits & MITOCHONDRION:
        level = _MITO
    if bits & VESICLES:
        if size > 0.5 * VESICLE_NM:
            level = _CLOUD
        else:
            wall = _covered(_vesicle(p, k0, k1), size, 0.5 * VESICLE_NM - 8.0, 0.5 * VESICLE_NM)
            level += (_DARK - level) * wall
    if bits & DENSITY:
        level = _PSD
    if bits & MYELIN:
        level = _SHEATH
    dark = _covered(depth, size, -_MEMBRANE_NM, _MEMBRANE_NM)
    if nucleus_nm != OUTSIDE_NM:
        dark = max(dark, _covered(nucleus_nm, size, -10.0, 10.0))
    level += (_DARK - level) * dark if level > _DARK else 0.0
    words = philox(voxel[0], voxel[1], voxel[2], _NOISE_KEY, k0, k1)
    level += _NOISE * 2.0 * (unit(words[0]) + unit(words[1]) + unit(words[2]) - 1.5)
    return int(min(255.0, max(0.0, level)))
