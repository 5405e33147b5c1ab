"""Tapered capsules, the elements of the procedural neuropil, and their cost at a point.

A capsule is the array a (z, y, x), b (z, y, x), r_a, r_b, nm: the points within a radius of the segment a-b that varies
linearly from r_a to r_b.
"""

from __future__ import annotations

import math

import numpy as np

from simexm.kernels.neuropil.tubes import jit

AXIS_DEPTH_NM = 250.0


@jit
def cost_at(d, r, slope):  # type: ignore[no-untyped-def]
    """Cost of a capsule at distance d from its axis, where its radius is r; the lowest wins. `slope` applies inside."""
    e = d - r
    return e if e > 0.0 else e * slope


@jit
def with_facts(capsules):  # type: ignore[no-untyped-def]
    """Append derived values to capsules, from (n, 8) to (n, 11).

    These are the inverse squared length (0 for a ball), the largest change of cost per nm outside, and that inside,
    chosen so that the depth on the axis is at least `AXIS_DEPTH_NM`.
    """
    out = np.empty((len(capsules), 11))
    for n in range(len(capsules)):
        capsule = capsules[n]
        length2 = (capsule[3] - capsule[0]) ** 2 + (capsule[4] - capsule[1]) ** 2 + (capsule[5] - capsule[2]) ** 2
        for column in range(8):
            out[n, column] = capsule[column]
        out[n, 8] = 1.0 / length2 if length2 > 0.0 else 0.0
        out[n, 9] = 1.0 + abs(capsule[7] - capsule[6]) * math.sqrt(out[n, 8])
        out[n, 10] = max(1.0, AXIS_DEPTH_NM / (0.5 * (capsule[6] + capsule[7])))
    return out


@jit
def distance_to(p0, p1, p2, capsule):  # type: ignore[no-untyped-def]
    """Distance of a point from a capsule's axis, and the radius at the nearest point of the axis."""
    z, y, x = p0 - capsule[0], p1 - capsule[1], p2 - capsule[2]
    dz, dy, dx = capsule[3] - capsule[0], capsule[4] - capsule[1], capsule[5] - capsule[2]
    t = min(1.0, max(0.0, (z * dz + y * dy + x * dx) * capsule[8]))
    z, y, x = z - t * dz, y - t * dy, x - t * dx
    return math.sqrt(z * z + y * y + x * x), capsule[6] + t * (capsule[7] - capsule[6])
