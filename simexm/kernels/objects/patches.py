"""Patches: the connected parts of a contact.

The voxels of the smaller id that share a face with the other are joined where they are neighbours (26). A voxel may belong to
patches of several pairs, so they are found in a sorted list of (pair, voxel) instead of an image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simexm.compiled import njit
from simexm.geometry.grid import Triple
from simexm.kernels.objects.components import find, unite
from simexm.kernels.objects.contacts import CROSSINGS, PLACES, SIGNED
from simexm.kernels.objects.faces import Faces, unpacked

PATCH_COLUMNS = (*CROSSINGS[:3], *SIGNED, *PLACES)
"""Of the columns of a contact, those of its faces; the smaller id is the first."""


@dataclass(frozen=True)
class Patches:
    """The patches of a box, numbered 0, 1, ... by pair and smallest voxel index."""

    pairs: NDArray[np.uint64]
    """(patches, 2): smaller and larger id."""
    first: NDArray[np.int64]
    """(patches, 3): z, y, x of the voxel of the smallest index in the volume."""
    counts: NDArray[np.int64]
    """(patches, 15): see `PATCH_COLUMNS`."""
    voxels: NDArray[np.int64]
    """(n, 3): z, y, x of all voxels in the volume, once for each patch."""
    patch: NDArray[np.int64]
    """(n,): the patch of each."""

    @classmethod
    def of(cls, values: NDArray[Any], start: Triple, stop: Triple, corner: Triple) -> Patches:
        """Find the patches of the voxels in a box of an array (z, y, x) that reaches one voxel further where the volume does."""
        found = Faces.of(values, start, stop)
        order = np.lexsort((found.places, found.keys))
        keys, places, faces = found.keys[order], found.places[order], found.faces[order]
        new = np.ones(keys.size, np.bool_)
        new[1:] = (keys[1:] != keys[:-1]) | (places[1:] != places[:-1])
        node = np.cumsum(new) - 1
        keys, places = keys[new], places[new]
        parent = np.arange(keys.size)
        _, ny, nx = values.shape
        _join(keys, places, _earlier(ny + 2, nx + 2), parent)
        roots, patch = np.unique(_roots(parent), return_inverse=True)
        voxels = unpacked(places, found.shape) + np.array(corner)
        counts = np.zeros((roots.size, len(PATCH_COLUMNS)), np.int64)
        if keys.size:
            add_faces(counts, patch[node], voxels[node], faces)
        return cls(found.pairs_of(keys[roots]), voxels[roots], counts, voxels, patch)


def _earlier(ny: int, nx: int) -> NDArray[np.int64]:
    """How far before a voxel, in an array with rows of nx and planes of ny rows, its thirteen earlier neighbours lie."""
    offsets = [(z, y, x) for z in (-1, 0, 1) for y in (-1, 0, 1) for x in (-1, 0, 1) if (z, y, x) < (0, 0, 0)]
    return np.array([(z * ny + y) * nx + x for z, y, x in offsets], np.int64)


@njit(cache=True, nogil=True)
def search(keys, places, low, high, key, place):  # type: ignore[no-untyped-def]
    """Row of (key, place) in [low, high) of a sorted list; -1 if there is none."""
    end = high
    while low < high:
        middle = (low + high) // 2
        if keys[middle] < key or (keys[middle] == key and places[middle] < place):
            low = middle + 1
        else:
            high = middle
    return low if low < end and keys[low] == key and places[low] == place else -1


@njit(cache=True, nogil=True)
def _join(keys, places, earlier, parent):  # type: ignore[no-untyped-def]
    begin = 0
    for n in range(keys.size):
        if keys[n] != keys[begin]:
            begin = n
        for offset in earlier:
            other = search(keys, places, begin, n, keys[n], places[n] + offset)
            if other >= 0:
                unite(parent, n, other)


@njit(cache=True, nogil=True)
def _roots(parent):  # type: ignore[no-untyped-def]
    out = np.empty_like(parent)
    for n in range(parent.size):
        out[n] = find(parent, n)
    return out


@njit(cache=True, nogil=True)
def add_faces(counts, patch, voxels, faces):  # type: ignore[no-untyped-def]
    """Add faces, of voxels (n, 3), to the counts of their patches, (patches, 15); see `PATCH_COLUMNS`."""
    for n in range(faces.size):
        into = counts[patch[n]]
        across, sign = faces[n] // 2, 1 - 2 * (faces[n] % 2)
        into[across] += 1
        into[3 + across] += sign
        for axis in range(3):
            into[6 + 3 * across + axis] += 2 * voxels[n, axis] + 1 + (sign if axis == 2 - across else 0)


def touching_patches(
    one: tuple[NDArray[np.uint64], NDArray[np.int64]],
    other: tuple[NDArray[np.uint64], NDArray[np.int64]],
    shape: Triple,
) -> NDArray[np.int64]:
    """Return the rows (n, 2) of voxels of one block and of another that are neighbours and belong to the same pair.

    Each is pairs of ids, (n, 2), and voxels z, y, x in a volume of this shape, (n, 3).
    """
    _, pair = np.unique(np.concatenate([one[0], other[0]]), axis=0, return_inverse=True)
    _, ny, nx = shape
    places = [((v[:, 0] + 1) * (ny + 2) + v[:, 1] + 1) * (nx + 2) + v[:, 2] + 1 for v in (one[1], other[1])]
    mine, theirs = pair[: len(one[0])].astype(np.int64), pair[len(one[0]) :].astype(np.int64)
    order = np.lexsort((places[1], theirs))
    earlier = _earlier(ny + 2, nx + 2)
    found = _touching(mine, places[0], theirs[order], places[1][order], np.concatenate([earlier, -earlier]))
    return np.stack([found[:, 0], order[found[:, 1]]], axis=1) if len(found) else found


@njit(cache=True, nogil=True)
def _touching(mine, places, theirs, their_places, offsets):  # type: ignore[no-untyped-def]
    found = np.empty((mine.size * 26, 2), np.int64)
    count = 0
    for n in range(mine.size):
        for offset in offsets:
            other = search(theirs, their_places, 0, theirs.size, mine[n], places[n] + offset)
            if other >= 0:
                found[count, 0] = n
                found[count, 1] = other
                count += 1
    return found[:count].copy()
