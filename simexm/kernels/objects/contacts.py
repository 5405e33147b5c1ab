"""Contacts between values: crossings from voxel to neighbouring voxel in thirteen directions, faces, positions, and normals.

Areas follow from the counts: by faces (the three directions along the axes, each times the area of a voxel's face) or by
Crofton's formula on all thirteen (see `simexm.kernels.labels.regions`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from simexm.compiled import njit
from simexm.geometry.grid import Triple
from simexm.kernels.labels.cells import CellIndex
from simexm.kernels.labels.regions import crofton_weights
from simexm.kernels.objects.pairs import FACTOR, FIRST, SHIFT, by_value, grown, place_of
from simexm.kernels.objects.runs import Runs

DIRECTIONS = (
    (0, 0, 1), (0, 1, 0), (1, 0, 0),
    (0, 1, -1), (0, 1, 1), (1, -1, 0), (1, 0, -1), (1, 0, 1), (1, 1, 0),
    (1, -1, -1), (1, -1, 1), (1, 1, -1), (1, 1, 1),
)  # fmt: skip
"""The directions z, y, x to a later neighbour, one of each pair; the first three cross faces."""
CROSSINGS = tuple(f"crossings_{n}" for n in range(len(DIRECTIONS)))
SIGNED = ("signed_x", "signed_y", "signed_z")
PLACES = tuple(f"place_{axis}_{face}" for face in "xyz" for axis in "zyx")
CONTACT_COLUMNS = (*CROSSINGS, *SIGNED, *PLACES)
"""Integers of a contact: crossings by direction; faces whose smaller id comes first minus the others, by the axis across;
and the sums of twice the z, y, x of the faces' centres, in voxels, by the axis across."""

_INDEX = np.full((3, 3, 3), -1, np.int64)
for _n, _d in enumerate(DIRECTIONS):
    _INDEX[_d[0] + 1, _d[1] + 1, _d[2] + 1] = _n
    _INDEX[1 - _d[0], 1 - _d[1], 1 - _d[2]] = _n
_INDEX.setflags(write=False)


def face_areas_um2(voxel_nm: tuple[float, float, float]) -> NDArray[np.float64]:
    """Area of a crossing of each direction by faces, um^2, (13,)."""
    z, y, x = voxel_nm
    return np.array([z * y, z * x, y * x, *[0.0] * 10]) * 1e-6


def crofton_areas_um2(voxel_nm: tuple[float, float, float]) -> NDArray[np.float64]:
    """Area of a crossing of each direction by Crofton's formula, um^2, (13,)."""
    weights = crofton_weights(voxel_nm, False)
    return np.array([weights[z + 1, y + 1, x + 1] for z, y, x in DIRECTIONS])


def areas_um2(crossings: NDArray[np.int64], each: NDArray[np.float64]) -> NDArray[np.float64]:
    """Areas from crossings (n, 13), added in a fixed order of directions."""
    area = np.zeros(len(crossings))
    for d in range(each.size):
        area += crossings[:, d] * each[d]
    return area


def contacts(
    runs: Runs, start: Triple, stop: Triple, corner: Triple, *, faces_only: bool = False
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Count the contacts of values that begin in a box.

    Parameters
    ----------
    runs
        Of an array that reaches one voxel further than the box on each side, where the volume does.
    start, stop
        The box in this array: a crossing belongs to the box that holds its first voxel.
    corner
        The array's first voxel in the volume, for positions.
    faces_only
        Leave out the ten directions to edges and corners, at half the time.

    Returns
    -------
    pairs
        (n, 2): smaller and larger value, in ascending order.
    counts
        (n, 25): see `CONTACT_COLUMNS`.
    """
    known = CellIndex()
    index = known.add(runs.value)
    box = np.array([*start, *stop, *corner], np.int64)
    keys, flat = _contacts(runs.shape, runs.first, runs.begin, runs.end, index, box, _FACES if faces_only else _ALL)
    pairs, counts = by_value(keys, flat, known.ids, known.ids, _WIDTH)
    swapped = pairs[:, 0] > pairs[:, 1]
    pairs[swapped] = pairs[swapped, ::-1]
    counts[swapped, 13:16] *= -1
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    return pairs[order], counts[order]


_WIDTH = len(CONTACT_COLUMNS)
_INTO = np.array([(0, 0, 0, 0), (3, 1, 4, 1), (9, 5, 10, -1), (6, 2, 7, 2), (11, 8, 12, -1)])
"""By row, see `_ALL`: the directions to x - 1, x and x + 1, and the axis, from x, of the faces among them, -1 without any."""
_ALL, _FACES = np.arange(5), np.array([0, 1, 3])
"""Rows that hold later neighbours of a row: itself, the next, and the three of the next plane."""


@njit(cache=True, nogil=True)
def _contacts(shape, first, begin, end, value, box, steps):  # type: ignore[no-untyped-def]  # noqa: C901
    nz, ny = shape[0], shape[1]
    slots, keys = np.full(4 * FIRST, -1, np.int32), np.empty(FIRST, np.int64)
    counts = np.zeros(FIRST * _WIDTH, np.int64)
    known = 0
    for row in range(box[0] * ny + box[1], (box[3] - 1) * ny + box[4]):
        z, y = row // ny, row % ny
        if not box[1] <= y < box[4]:
            continue
        for step in steps:
            dz, dy = (0, step) if step < 2 else (1, step - 3)
            if z + dz >= nz or not 0 <= y + dy < ny:
                continue
            before_at, same_at, after_at, across = _INTO[step]
            j, last = first[row + dz * ny + dy], first[row + dz * ny + dy + 1]
            for i in range(first[row], first[row + 1]):
                low, high = max(np.int64(begin[i]), box[2]), min(np.int64(end[i]), box[5])
                if low >= high:
                    continue
                while j < last and end[j] < low:
                    j += 1
                a = value[i]
                for k in range(j, last):
                    left, right, b = np.int64(begin[k]), np.int64(end[k]), value[k]
                    if left > high:
                        break
                    if a == b or (step == 0 and left != high):
                        continue
                    # voxels of the run whose neighbour at x - 1, x and x + 1 lies in the other
                    before = max(min(high, right + 1) - max(low, left + 1), 0)
                    same = max(min(high, right) - max(low, left), 0)
                    after = max(min(high, right - 1) - max(low, left - 1), 0)
                    if before + same + after == 0:
                        continue
                    # written out, since a call costs more than all of it; see `place_of`
                    key = (np.int64(min(a, b)) << np.int64(32)) | np.int64(max(a, b))
                    mask = slots.size - 1
                    place = np.int64((np.uint64(key) * FACTOR) >> SHIFT) & mask
                    while slots[place] >= 0 and keys[slots[place]] != key:
                        place = (place + 1) & mask
                    if slots[place] < 0:
                        if known == keys.size:
                            slots, keys, counts = grown(keys, counts)
                            place = place_of(slots, keys, key)
                        slots[place] = known
                        keys[known] = key
                        known += 1
                    at = slots[place] * _WIDTH
                    counts[at + before_at] += before
                    counts[at + same_at] += same
                    counts[at + after_at] += after
                    if across >= 0:
                        n = same if step else after
                        counts[at + 13 + across] += n if a < b else -n
                        at += 16 + 3 * across
                        counts[at] += n * (2 * (z + box[6]) + dz + 1)
                        counts[at + 1] += n * (2 * (y + box[7]) + dy + 1)
                        # twice the mean x: first and last, and one more
                        counts[at + 2] += n * (2 * box[8] + max(low, left) + min(high, right))
    return keys[:known], counts[: known * _WIDTH]


@njit(cache=True, nogil=True)
def surfaces(shape, first, begin, end, value, box, own_first, own_begin, own_end, own_value, component, index, out):  # type: ignore[no-untyped-def]
    """Add the crossings from each component to voxels of another value, 0 included, to `out`, (components, 13).

    `first` to `value` are runs of an array that reaches one voxel further than the box (start and stop in this array) where the
    volume does; `own_*` those of the box, with the component, from 1 on, of each. Outside the volume is no neighbour.
    """
    nz, ny, nx = shape
    own_ny = box[4] - box[1]
    for own_row in range(own_first.size - 1):
        z, y = own_row // own_ny + box[0], own_row % own_ny + box[1]
        for dz in range(-1, 2):
            for dy in range(-1, 2):
                if not (0 <= z + dz < nz and 0 <= y + dy < ny):
                    continue
                other = (z + dz) * ny + y + dy
                j, last = first[other], first[other + 1]
                for i in range(own_first[own_row], own_first[own_row + 1]):
                    low, high = own_begin[i] + box[2], own_end[i] + box[2]
                    into = out[component[i] - 1]
                    for dx in range(-1, 2):
                        if dz == 0 and dy == 0 and dx == 0:
                            continue
                        into[index[dz + 1, dy + 1, dx + 1]] += min(high + dx, nx) - max(low + dx, 0)
                    while j < last and end[j] < low:
                        j += 1
                    k = j
                    while k < last and begin[k] <= high:
                        if value[k] == own_value[i]:
                            for dx in range(-1, 2):
                                if dz == 0 and dy == 0 and dx == 0:
                                    continue
                                n = min(high + dx, end[k]) - max(low + dx, begin[k])
                                if n > 0:
                                    into[index[dz + 1, dy + 1, dx + 1]] -= n
                        k += 1


def surface_crossings(
    around: Runs, start: Triple, stop: Triple, own: Runs, component: NDArray[np.int32], count: int
) -> NDArray[Any]:
    """See `surfaces`; returns (count, 13)."""
    out = np.zeros((count, len(DIRECTIONS)), np.int64)
    box = np.array([*start, *stop], np.int64)
    surfaces(
        around.shape, around.first, around.begin, around.end, around.value, box,
        own.first, own.begin, own.end, own.value, component, _INDEX, out,
    )  # fmt: skip
    return out
