"""Places of cells: random points of a given density that keep a distance from each other.

Matern's second hard-core process (Matern, "Spatial variation", 1960): Poisson points carry random marks, and a point stays if
no other within the distance has a smaller mark. Of Poisson points of density l, (1 - exp(-l V)) / V stay, with the volume V
of the ball; this is inverted for the wanted density. Points beyond the borders take part, so that the density is even up to
them. A point is a function of the key and of its cube in space.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from simexm.kernels.numbers.detmath import log_array
from simexm.kernels.numbers.draws import poisson_quantile
from simexm.random import Key, philox_array, unit_double_array, unit_float32word_array

Array = NDArray[np.float64]
_CUBE_UM = 50.0


def ball_um3(radius_um: float) -> float:
    """Volume of a ball."""
    return 4 / 3 * math.pi * radius_um**3


def tried_per_um3(density_per_um3: float, distance_um: float) -> float:
    """Density of Poisson points of which the wanted density stays; infinite if so many do not fit."""
    filled = density_per_um3 * ball_um3(distance_um)
    if filled >= 1:
        return math.inf
    return density_per_um3 if filled < 1e-6 else float(-log_array(1 - filled)) / ball_um3(distance_um)


def places(
    density_per_um3: float, distance_um: float, start_um: tuple[float, ...], stop_um: tuple[float, ...], key: Key
) -> Array:
    """Return z, y, x of all points in a box, um, (n, 3), in an order that does not depend on the box."""
    tried = tried_per_um3(density_per_um3, distance_um)
    low = [math.floor((a - distance_um) / _CUBE_UM) for a in start_um]
    high = [math.floor((b + distance_um) / _CUBE_UM) + 1 for b in stop_um]
    cubes = np.stack(np.meshgrid(*map(np.arange, low, high), indexing="ij"), -1).reshape(-1, 3)
    words = philox_array(cubes[:, 0], cubes[:, 1], cubes[:, 2], 0, key)
    u = unit_double_array(words[0], words[1])
    counts = np.array([poisson_quantile(float(v), tried * _CUBE_UM**3) for v in u], np.int64)
    owner = np.repeat(np.arange(len(cubes)), counts)
    number = np.arange(owner.size) - np.repeat(np.cumsum(counts) - counts, counts)
    z, y, x = (cubes[owner, axis] for axis in range(3))
    words = philox_array(z, y, x, number + 1, key)
    points = (cubes[owner] + np.stack([unit_float32word_array(w) for w in words[:3]], -1)) * _CUBE_UM
    stays = _stays(points, words[3], distance_um)
    inside = stays & np.all((points >= start_um) & (points < stop_um), axis=1)
    return np.asarray(points[inside])


def _stays(points: Array, marks: NDArray[np.uint32], distance_um: float) -> NDArray[np.bool_]:
    """Whether no other point within the distance has a smaller mark."""
    stays = np.ones(len(points), np.bool_)
    if distance_um > 0 and len(points) > 1:
        from scipy.spatial import cKDTree  # which loads large libraries

        pairs = cKDTree(points).query_pairs(distance_um, output_type="ndarray")
        a, b = pairs.T
        later = np.where((marks[a] < marks[b]) | ((marks[a] == marks[b]) & (a < b)), b, a)
        stays[later] = False
    return stays


def apart(points: Array, others: Array, distance_um: float) -> NDArray[np.bool_]:
    """Return which points lie farther than the distance from all others."""
    if not len(others) or not len(points) or distance_um <= 0:
        return np.ones(len(points), np.bool_)
    from scipy.spatial import cKDTree

    near = cKDTree(others).query_ball_point(points, distance_um, return_length=True)
    return np.asarray(near == 0)
