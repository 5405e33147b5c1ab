"""What the procedural neuropil knows of each voxel beside its cell: part of the neuron, organelles, and a grey value.

A second pass over ids that `blocks.fill` has found: the capsule of the voxel's own cell that is nearest tells its part, and
the nearest other cell the distance from its membrane.
"""

from __future__ import annotations

import math

import numpy as np

from simexm.kernels.neuropil.blocks import gather, scene
from simexm.kernels.neuropil.capsules import cost_at, distance_to
from simexm.kernels.neuropil.cells import (
    BEST,
    BRICK,
    BRICK_NM,
    CELL_NM,
    CLEFT_NM,
    HALF_GAP,
    MATTERS_NM,
    SIDE,
    SYNAPSE_DEPTH_NM,
    X,
    Y,
    Z,
    ball,
    pick,
    place,
    soft_of,
    voxels_of,
)
from simexm.kernels.neuropil.grey import OUTSIDE_NM, grey_of
from simexm.kernels.neuropil.organelles import (
    AXON_SHAFT,
    BOUTON,
    BOUTON_NM,
    DENDRITE,
    DENSITY,
    MITOCHONDRION,
    MYELIN,
    NUCLEUS,
    NUCLEUS_OF_SOMA,
    PSD_NM,
    SOMA,
    SPINE_HEAD,
    SPINE_NECK,
    VESICLES,
    cloud_of,
    code_of_synapse,
    in_mitochondrion,
    in_mitochondrion_of_body,
    place_of,
    sheath_of,
)
from simexm.kernels.neuropil.skeleton import AXON, HEAD, NECK
from simexm.kernels.neuropil.skeleton import SOMA as BODY
from simexm.kernels.neuropil.tubes import is_neuron, jit

_DEEP_NM = 0.5 * MATTERS_NM
NEVER = 1e9
_LATTICE = 8  # steps from the middle of a synapse to its edge
_CLOUD_NM = 500.0  # largest distance of a bouton's points from the edge of its synapse


@jit
def annotate(ids, synapse, start, voxel_nm, out, k0, k1):  # type: ignore[no-untyped-def]
    """Write compartment (uint8), bits of organelles (uint8), grey value (uint8) and synapse (int64) of each voxel of a block.

    `ids` and `synapse` are what `blocks.fill` found there, `out` the four arrays, (z, y, x).
    """
    grid, (capsules, ids_of, origins), (patches, pairs, directions, tips), (offsets, listed) = scene(
        start, ids.shape, voxel_nm, k0, k1
    )
    first, shape = grid
    near_offsets, near = gather(patches, patches[:, 6] + _CLOUD_NM, first, shape)
    cell = np.empty(3, np.int64)
    for a in range(1, shape[0] - 1):
        for b in range(1, shape[1] - 1):
            for c in range(1, shape[2] - 1):
                n = (a * shape[1] + b) * shape[2] + c
                cell[0], cell[1], cell[2] = first[0] + a, first[1] + b, first[2] + c
                m, p = listed[offsets[n] : offsets[n + 1]], near[near_offsets[n] : near_offsets[n + 1]]
                some = capsules[m], ids_of[m], origins[m]
                synapses = patches[p], pairs[p], directions[p], tips[p]
                _annotate_cell(ids, synapse, start, voxel_nm, out, cell, some, synapses, k0, k1)


@jit
def _annotate_cell(ids, synapse, start, voxel_nm, out, cell, some, synapses, k0, k1):  # type: ignore[no-untyped-def]
    """Annotate the voxels of one cell of space, brick by brick; `some` and `synapses` are what can matter in it."""
    capsules, ids_of, _ = some
    soft = soft_of(cell, k0, k1)
    side, lo, hi = np.empty(3, np.int64), np.empty(3, np.int64), np.empty(3, np.int64)
    for axis in range(3):
        side[axis] = min(SIDE, max(1, int(BRICK_NM / voxel_nm[axis])))
        lo[axis], hi[axis] = voxels_of(cell[axis], voxel_nm[axis], start[axis], ids.shape[axis])
    buffer, bounds, kept = np.empty(8 * BRICK, np.float32), np.empty(len(capsules)), np.empty(len(capsules), np.int64)
    everything, near = np.arange(len(capsules)), np.empty(len(capsules), np.int64)
    met = np.empty(len(synapses[0]), np.int64)
    origin, centre, from_, to = cell * CELL_NM, np.empty(3), np.empty(3, np.int64), np.empty(3, np.int64)
    part, end = (side + 1) // 2, np.empty(3, np.int64)
    for a in range(lo[0], hi[0], side[0]):
        for b in range(lo[1], hi[1], side[1]):
            for c in range(lo[2], hi[2], side[2]):
                from_[0], from_[1], from_[2] = a, b, c
                end[:] = np.minimum(from_ + side, hi)
                half = ball(start, voxel_nm, from_, end, centre)
                number, _ = pick(capsules, ids_of, everything, near, bounds, centre, half, MATTERS_NM)
                meets = _meet(synapses[0], centre, half, met)
                # eighths, in each of which fewer capsules matter
                for from_[0] in range(a, end[0], part[0]):
                    for from_[1] in range(b, end[1], part[1]):
                        for from_[2] in range(c, end[2], part[2]):
                            to[:] = np.minimum(from_ + part, end)
                            half = ball(start, voxel_nm, from_, to, centre)
                            some_near, _ = pick(capsules, ids_of, near[:number], kept, bounds, centre, half, MATTERS_NM)
                            place(buffer, start, voxel_nm, from_, to, origin, soft)
                            brick = some, kept[:some_near], synapses, met[:meets]
                            _annotate_brick(
                                ids, synapse, start, voxel_nm, out, from_, to, origin, buffer, brick, k0, k1
                            )


@jit
def _meet(patches, centre, half, met):  # type: ignore[no-untyped-def]
    """List in `met` the synapses that can reach into a ball; return their number."""
    number = 0
    for s in range(len(patches)):
        if distance_to(centre[0], centre[1], centre[2], patches[s])[0] < patches[s, 6] + _CLOUD_NM + half:
            met[number] = s
            number += 1
    return number


@jit
def _annotate_brick(ids, synapse, start, voxel_nm, out, from_, to, origin, buffer, brick, k0, k1):  # type: ignore[no-untyped-def]
    """Annotate the voxels of a brick whose positions are in the buffer."""
    (capsules, ids_of, origins), kept, synapses, met = brick
    compartments, organelles, greys, contacts = out
    size = (voxel_nm[0] * voxel_nm[1] * voxel_nm[2]) ** (1.0 / 3.0)
    n = 0
    for z in range(from_[0], to[0]):
        for y in range(from_[1], to[1]):
            for x in range(from_[2], to[2]):
                p = origin[0] + buffer[Z + n], origin[1] + buffer[Y + n], origin[2] + buffer[X + n]
                far, width = np.float64(buffer[BEST + n]), np.float64(buffer[HALF_GAP + n])
                n += 1
                own = np.int64(ids[z, y, x])
                gap = max(0.0, min(width, CLEFT_NM)) if synapse[z, y, x] else width
                m, depth, other = _nearest(p, own, far, gap, capsules, ids_of, kept)
                part, bits, nucleus_nm = 0, 0, OUTSIDE_NM
                if own != 0 and m >= 0:
                    part, bits, nucleus_nm = _inside(p, m, max(depth, 0.0), capsules, origins, k0, k1)
                part, bits, contact = _at_synapses(p, own, other, part, bits, depth, synapse[z, y, x], synapses, met)
                compartments[z, y, x], organelles[z, y, x], contacts[z, y, x] = part, bits, contact
                voxel = start[0] + z, start[1] + y, start[2] + x
                greys[z, y, x] = grey_of(p, voxel, size, own, part, bits, depth, nucleus_nm, k0, k1)


@jit
def _nearest(p, own, far, gap, capsules, ids_of, kept):  # type: ignore[no-untyped-def]
    """Nearest capsule of cell `own` to a point (-1: glia), depth below its membrane, nm, and id of the nearest other cell.

    `far` is the cost of glia, `gap` half the width of gaps, as costs. In extracellular space (`own` 0) the nearest cell
    counts as the point's own, and the depth is negative. Depth is known to `_DEEP_NM`.
    """
    nearest, best, second, other = -1, far, far, 0
    rate, other_rate = 0.0, 0.0  # change of the costs per nm
    if own == 0:
        for m in kept:
            d, r = distance_to(p[0], p[1], p[2], capsules[m])
            cost = cost_at(d, r, capsules[m, 10])
            if cost < best:
                best, own = cost, ids_of[m]
    if is_neuron(own):
        best = NEVER
    else:
        second = NEVER
    for m in kept:
        d, r = distance_to(p[0], p[1], p[2], capsules[m])
        cost = cost_at(d, r, capsules[m, 10])
        if ids_of[m] == own:
            if cost < best:
                nearest, best, rate = m, cost, (1.0 if cost > 0.0 else capsules[m, 10])
        elif cost < second:
            second, other, other_rate = cost, ids_of[m], (1.0 if cost > 0.0 else capsules[m, 10])
    across = 0.5 * (second - best)
    if across >= _DEEP_NM:  # a cell that far away may not be in `kept`
        return nearest, _DEEP_NM, other
    return nearest, min((across - gap) / max(0.5, 0.5 * (rate + other_rate)), _DEEP_NM), other


@jit
def _inside(p, m, depth, capsules, origins, k0, k1):  # type: ignore[no-untyped-def]
    """Compartment and organelles at a point whose nearest capsule is m, and its depth in a nucleus (negative outside)."""
    capsule, origin = capsules[m], origins[m]
    d, r = distance_to(p[0], p[1], p[2], capsule)
    if origin[0] == BODY:
        deep = NUCLEUS * r - d
        if deep > 0.0:
            return NUCLEUS_OF_SOMA, 0, deep
        return SOMA, (MITOCHONDRION if in_mitochondrion_of_body(p, d, r, depth, k0, k1) else 0), deep
    if origin[0] == HEAD:
        return SPINE_HEAD, 0, OUTSIDE_NM
    if origin[0] == NECK:
        return SPINE_NECK, 0, OUTSIDE_NM
    t = 0.0
    for axis in range(3):
        t += (p[axis] - capsule[axis]) * (capsule[3 + axis] - capsule[axis])
    along = place_of(origin, min(1.0, max(0.0, t * capsule[8])))
    tube, bits = (origin[1], origin[2], origin[3]), 0
    sheath = sheath_of(tube, along, k0, k1) if origin[0] == AXON else 0.0
    if depth < sheath:
        bits = MYELIN
    elif in_mitochondrion(tube, along, p, capsule, r, depth - sheath, k0, k1):
        bits = MITOCHONDRION
    return (AXON_SHAFT if origin[0] == AXON else DENDRITE), bits, OUTSIDE_NM


@jit
def _at_synapses(p, own, other, part, bits, depth, marked, synapses, met):  # type: ignore[no-untyped-def]
    """Compartment and organelles of a voxel as the synapses near it change them, and the synapse that it belongs to."""
    patches, pairs, directions, tips = synapses
    contact = 0
    for s in met:
        post, pre = pairs[s]
        if own != post and own != pre:
            continue
        if marked and contact == 0 and other in (post, pre):
            z, y, x = p[0] - patches[s, 0], p[1] - patches[s, 1], p[2] - patches[s, 2]
            if z * z + y * y + x * x < (patches[s, 6] + 1.0) ** 2:
                contact = code_of_synapse(tips[s])
                if own == post and depth < PSD_NM:
                    bits |= DENSITY
        if own == pre and part in (AXON_SHAFT, BOUTON):  # a dendrite's side has no vesicles
            c0, c1, c2, radius = cloud_of(patches[s], directions[s])
            distance = math.sqrt((p[0] - c0) ** 2 + (p[1] - c1) ** 2 + (p[2] - c2) ** 2)
            if distance < radius + BOUTON_NM:
                part, bits = BOUTON, bits & ~MYELIN
            if distance < radius and bits & MITOCHONDRION == 0 and depth > 10.0:
                bits |= VESICLES
    return part, bits, contact


@jit
def synapses_in(start, count, voxel_nm, k0, k1):  # type: ignore[no-untyped-def]
    """Synapses whose centre lies in a block: ids (n,), ids of the neurons post and pre (n, 2), centres z y x and radii (n, 4).

    One that no point belongs to, as other cells come between, is left out.
    """
    grid, (capsules, ids, _), (patches, pairs, _, tips), lists = scene(start, count, voxel_nm, k0, k1)
    codes, n = np.empty(len(patches), np.int64), 0
    both, places = np.empty((len(patches), 2), np.int64), np.empty((len(patches), 4))
    for s in range(len(patches)):
        inside = True
        for axis in range(3):
            inside &= start[axis] <= math.floor(patches[s, axis] / voxel_nm[axis]) < start[axis] + count[axis]
        if inside and _is_real(patches[s], pairs[s], grid, capsules, ids, lists):
            codes[n], both[n] = code_of_synapse(tips[s]), pairs[s]
            places[n, :3], places[n, 3] = patches[s, :3], patches[s, 6]
            n += 1
    return codes[:n], both[:n], places[:n]


@jit
def _is_real(patch, pair, grid, capsules, ids, lists):  # type: ignore[no-untyped-def]
    """Whether the two neurons face each other at any point of a lattice in a synapse's ball."""
    (first, shape), (offsets, listed) = grid, lists
    step = patch[6] / _LATTICE
    for far in range(_LATTICE + 1):  # from the middle outwards, since most do there
        for a in range(-far, far + 1):
            for b in range(-far, far + 1):
                for c in range(-far, far + 1):
                    if max(abs(a), abs(b), abs(c)) != far or a * a + b * b + c * c >= _LATTICE * _LATTICE:
                        continue
                    p = patch[0] + a * step, patch[1] + b * step, patch[2] + c * step
                    cell, within = 0, True
                    for axis in range(3):
                        place = math.floor(p[axis] / CELL_NM) - first[axis]
                        within &= 0 <= place < shape[axis]
                        cell = cell * shape[axis] + place
                    if within and _faces(p, pair, capsules, ids, listed[offsets[cell] : offsets[cell + 1]]):
                        return True
    return False


@jit
def _faces(p, pair, capsules, ids, near):  # type: ignore[no-untyped-def]
    """Whether the two cells nearest to a point are those of a pair, and nearly as near as each other."""
    best, second, own, other = NEVER, NEVER, np.int64(0), np.int64(0)
    for m in near:
        d, r = distance_to(p[0], p[1], p[2], capsules[m])
        cost = cost_at(d, r, capsules[m, 10])
        if ids[m] == own:
            best = min(best, cost)
        elif cost < best:
            best, second, own, other = cost, best, ids[m], own
        elif cost < second:
            second, other = cost, ids[m]
    facing = (own == pair[0] and other == pair[1]) or (own == pair[1] and other == pair[0])
    return facing and second - best < 2.0 * SYNAPSE_DEPTH_NM
