"""Dendrites: stems that leave a soma in random directions, taper, and branch.

Where a process divides in two, the cubes of the radii add up to that before (Murray 1926). Every number is a function of the
key, the cell's id and the place in the tree.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from simexm.kernels.numbers.detmath import normal_quantile_array
from simexm.random import Key, philox_array, unit_double_array

Array = NDArray[np.float64]
MURRAY = 0.7937005259840998
"""Radius of each of two equal branches over that before, 2^(-1/3)."""
TAPER = 0.8
"""Radius at the end of a piece over that at its beginning."""
SPREAD = 0.5
"""Random part of a piece's direction, relative to that of the piece before."""


class Shape(NamedTuple):
    """What dendrites look like; lengths in um."""

    fewest: int
    most: int
    length_um: float  # from the soma to a tip
    radius_um: float  # of a stem
    orders: int  # pieces from the soma to a tip


def _uniform(ids: NDArray[np.uint64], place: int, part: int, key: Key) -> Array:
    words = philox_array(ids, ids >> np.uint64(32), place, part, key)
    return np.asarray(unit_double_array(words[0], words[1]))


def _direction(ids: NDArray[np.uint64], place: int, key: Key) -> Array:
    """Unit vectors, (n, 3), even over the sphere."""
    v = np.stack([normal_quantile_array(_uniform(ids, place, part, key)) for part in range(1, 4)], -1)
    return np.asarray(v / np.sqrt((v * v).sum(axis=1, keepdims=True)))


def grow(ids: NDArray[np.uint64], centres_um: Array, shape: Shape, key: Key) -> tuple[Array, NDArray[np.int64]]:
    """Return the pieces of all cells' dendrites: (n, 8) of two ends z, y, x, their radii, and the row of each one's cell."""
    stems = shape.fewest + np.floor(_uniform(ids, 0, 0, key) * (shape.most - shape.fewest + 1)).astype(np.int64)
    pieces, cells = [], []
    step = shape.length_um / shape.orders
    place = 1
    for stem in range(shape.most):
        rows = np.flatnonzero(stems > stem)
        grown = [(centres_um[rows], _direction(ids[rows], place, key), shape.radius_um)]
        place += 1
        for _ in range(shape.orders):
            following = []
            for begin, direction, radius in grown:
                end = begin + step * direction
                thin = radius * TAPER
                both = [begin, end, np.full((rows.size, 1), radius), np.full((rows.size, 1), thin)]
                pieces.append(np.concatenate(both, axis=1))
                cells.append(rows)
                for _ in range(2):
                    turned = direction + SPREAD * _direction(ids[rows], place, key)
                    place += 1
                    turned /= np.sqrt((turned * turned).sum(axis=1, keepdims=True))
                    following.append((end, turned, thin * MURRAY))
            grown = following
    return np.concatenate(pieces), np.concatenate(cells).astype(np.int64)
