"""Blocks of the procedural neuropil: ids of voxels, and synapses between touching cells.

Space is divided into cubic cells; this module gathers the capsules near each cell, and `cells` fills its voxels.
Everything depends on positions in nm only and is computed in the same order for any block, so blocks agree to the bit.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from simexm.kernels.neuropil.capsules import cost_at, distance_to, with_facts
from simexm.kernels.neuropil.cells import CELL_NM, FAR_NM, MATTERS_NM, fill_cell
from simexm.kernels.neuropil.skeleton import skeleton
from simexm.kernels.neuropil.tubes import is_neuron, jit

SYNAPSE_RADIUS_NM = (150.0, 250.0)


@jit
def gather(things, reaches, first, shape):  # type: ignore[no-untyped-def]
    """List the capsules within their reach of each cell of a grid: offsets by cell, and indices of capsules."""
    half = 0.5 * math.sqrt(3.0) * CELL_NM
    counts = np.zeros(shape[0] * shape[1] * shape[2] + 1, np.int64)
    listed = np.empty(0, np.int64)
    lo, hi = np.empty(3, np.int64), np.empty(3, np.int64)
    for filling in range(2):
        if filling:
            counts = np.cumsum(counts)
            listed = np.empty(counts[-1], np.int64)
        # A cell's entries are filled in from the last, so that counts end up as offsets.
        for n in range(len(things) - 1, -1, -1):
            capsule, reach = things[n], reaches[n]
            for axis in range(3):
                a, b = capsule[axis], capsule[3 + axis]
                lo[axis] = max(0, math.floor((min(a, b) - reach) / CELL_NM) - first[axis])
                hi[axis] = min(shape[axis], math.floor((max(a, b) + reach) / CELL_NM) + 1 - first[axis])
            for a in range(lo[0], hi[0]):
                for b in range(lo[1], hi[1]):
                    for c in range(lo[2], hi[2]):
                        z, y, x = first[0] + a + 0.5, first[1] + b + 0.5, first[2] + c + 0.5
                        if distance_to(z * CELL_NM, y * CELL_NM, x * CELL_NM, capsule)[0] < half + reach:
                            cell = (a * shape[1] + b) * shape[2] + c
                            if filling:
                                counts[cell] -= 1
                                listed[counts[cell]] = n
                            else:
                                counts[cell] += 1
    return counts, listed


@jit
def _synapses(capsules, ids, tips, tip_ids, first, shape, offsets, listed):  # type: ignore[no-untyped-def]
    """Synapses at the tips of spines: centre and radius as capsules, ids of both neurons (post, pre), and index of the tip."""
    out, pairs, which = np.empty((len(tips), 8)), np.empty((len(tips), 2), np.int64), np.empty(len(tips), np.int64)
    found = 0
    for n in range(len(tips)):
        cell, inside = 0, True
        for axis in range(3):
            c = math.floor(tips[n, axis] / CELL_NM) - first[axis]
            inside &= 0 <= c < shape[axis]
            cell = cell * shape[axis] + c
        if not inside:
            continue
        best, other = MATTERS_NM, 0
        for m in listed[offsets[cell] : offsets[cell + 1]]:
            if ids[m] != tip_ids[n]:
                d, r = distance_to(tips[n, 0], tips[n, 1], tips[n, 2], capsules[m])
                cost = cost_at(d, r, capsules[m, 10])
                if cost < best:
                    best, other = cost, ids[m]
        if is_neuron(other):
            least, most = SYNAPSE_RADIUS_NM
            share = tips[n, 3] * tips[n, 3]  # the direction is random
            for axis in range(3):
                out[found, axis] = out[found, 3 + axis] = tips[n, axis]
            out[found, 6] = out[found, 7] = least + (most - least) * share
            pairs[found, 0], pairs[found, 1], which[found] = tip_ids[n], other, n
            found += 1
    return with_facts(out[:found]), pairs[:found], which[:found]


@jit
def scene(start, count, voxel_nm, k0, k1):  # type: ignore[no-untyped-def]
    """All that can matter in a block of `count` voxels (z, y, x) from `start`.

    Return the grid of cells (first, shape); capsules with their ids and origins, and synapses with the ids of their neurons,
    their directions (n, 3) and origins (n, 4), see `skeleton`; and, of both, the lists by cell (offsets, indices).
    """
    first, shape = np.empty(3, np.int64), np.empty(3, np.int64)
    for axis in range(3):
        # One more cell on each side, whose synapses can reach into the box.
        first[axis] = math.floor((start[axis] + 0.5) * voxel_nm[axis] / CELL_NM) - 1
        stop = math.floor((start[axis] + count[axis] - 0.5) * voxel_nm[axis] / CELL_NM) + 2
        shape[axis] = stop - first[axis]
    low, high = first * CELL_NM - FAR_NM[1], (first + shape) * CELL_NM + FAR_NM[1]
    (capsules, ids, origins), (tips, tip_ids, tip_origins) = skeleton(low, high, k0, k1)
    capsules = with_facts(capsules)
    reaches = np.maximum(capsules[:, 6], capsules[:, 7]) + FAR_NM[1] + MATTERS_NM
    offsets, listed = gather(capsules, reaches, first, shape)
    patches, pairs, which = _synapses(capsules, ids, tips, tip_ids, first, shape, offsets, listed)
    return (
        (first, shape), (capsules, ids, origins), (patches, pairs, tips[which, 3:], tip_origins[which]), (offsets, listed)
    )  # fmt: skip


@jit
def fill(
    ids_out: NDArray[np.uint64],
    synapse: NDArray[np.bool_],
    start: NDArray[np.int64],
    voxel_nm: NDArray[np.float64],
    k0: int,
    k1: int,
) -> None:
    """Fill a block (z, y, x) with ids, 0 for extracellular space, and whether voxels lie in a synapse.

    `start` is the index of the first voxel in the volume, (k0, k1) the random key of the tissue.
    """
    grid, (capsules, ids, _), (patches, pairs, _, _), (offsets, listed) = scene(start, ids_out.shape, voxel_nm, k0, k1)
    first, shape = grid
    synapse[:] = False
    patch_offsets, patch_listed = gather(patches, patches[:, 6].copy(), first, shape)
    cell = np.empty(3, np.int64)
    for a in range(1, shape[0] - 1):
        for b in range(1, shape[1] - 1):
            for c in range(1, shape[2] - 1):
                n = (a * shape[1] + b) * shape[2] + c
                cell[0], cell[1], cell[2] = first[0] + a, first[1] + b, first[2] + c
                m, p = listed[offsets[n] : offsets[n + 1]], patch_listed[patch_offsets[n] : patch_offsets[n + 1]]
                fill_cell(ids_out, synapse, start, voxel_nm, cell, capsules[m], ids[m], patches[p], pairs[p], k0, k1)
