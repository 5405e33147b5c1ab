"""From proteins to dyes at points, many voxels at a time.

A hit is a sub-cell of a voxel with at least one protein. Hundreds of hits are drawn together, each step a loop over
arrays that the compiler vectorises; a call per dye took three times as long. Draws depend on the voxel alone, so the
order does not matter.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simexm.compiled import njit
from simexm.geometry.grid import Triple
from simexm.kernels.numbers.detmath import normal_quantile_cut, normal_quantile_cut_many
from simexm.kernels.numbers.draws import binomial_quantile, poisson_quantile
from simexm.random import Key, philox, unit_double, unit_float32word

POISSON, BINOMIAL = 0, 1

POINTS_OF_CLUMP = 8
"""Points that share the dyes of a sub-cell drawn at once: a random one and its mirror images in the sub-cell's middle
planes, so that the centroid does not fluctuate more than that of many separate dyes."""

HITS = 512
"""Hits drawn together."""

_COUNTS = [(name, np.int64) for name in ("number", "z", "y", "x", "sub", "proteins")]
HIT = np.dtype([*_COUNTS, ("cell", np.int32), ("own", np.bool_)])
"""A hit: its number (see `emit`), voxel in the volume, sub-cell, proteins, cell index, and whether its dyes are counted."""

_MAX_DYES_BITS = 12
_LARGE = 4096


IDENTITY = ("z", "y", "x", "part", "draw", "kind")
"""Columns that identify an emitter within its layer: voxel in the volume, part of the voxel (sub-cell or, for
amplicons, the index of the region), number of its draw, and kind (`PROTEIN`, `UNSPECIFIC` or `AMPLICON`). The lowest 12
bits of the draw number the dyes of a protein."""
PROTEIN, UNSPECIFIC, AMPLICON = 0, 1, 2

_UNIDENTIFIED = np.empty((0, len(IDENTITY)), np.int32)


class Emitters(NamedTuple):
    """Dyes as points, n of them; z, y, x are in nm from the corner of the specimen (the crop).

    Identities are the same in any tile and on any device; (0, 6) if no stage needs them.
    """

    z: NDArray[np.float64]
    y: NDArray[np.float64]
    x: NDArray[np.float64]
    weight: NDArray[np.int32]  # dyes at the point
    cell: NDArray[np.int32]  # index in the block's `CellIndex`
    own: NDArray[np.uint8]  # 1 if the protein's voxel lies in the box whose emitters are counted; 0 in the halo
    identity: NDArray[np.int32] = _UNIDENTIFIED  # (n, 6), columns of `IDENTITY`

    @classmethod
    def empty(cls, capacity: int, identified: bool = False) -> Emitters:
        """Uninitialised buffers of `capacity` emitters."""
        return cls(
            np.empty(capacity), np.empty(capacity), np.empty(capacity),
            np.empty(capacity, np.int32), np.empty(capacity, np.int32), np.empty(capacity, np.uint8),
            np.empty((capacity * identified, len(IDENTITY)), np.int32),
        )  # fmt: skip

    def first(self, count: int) -> Emitters:
        """View of the first `count` emitters."""
        return self.select(slice(0, count))

    def select(self, which: slice | NDArray[np.bool_]) -> Emitters:
        """Some of the emitters."""
        identity = self.identity[which, ...] if self.identity.shape[0] else self.identity
        return Emitters(
            self.z[which], self.y[which], self.x[which], self.weight[which], self.cell[which], self.own[which], identity
        )

    def moved(self, move: Callable[[tuple[Any, Any, Any]], tuple[Any, Any, Any]]) -> Emitters:
        """Emitters at the positions that `move` returns for the arrays z, y, x."""
        z, y, x = move((self.z, self.y, self.x))
        return self._replace(z=z, y=y, x=x)


class EmissionLaw(NamedTuple):
    """Distribution of one layer's emitters in a voxel, as plain numbers.

    Dyes per protein are Poisson(dyes * kept) or Binomial(dyes, kept), by `kind`. With `clumped`, the dyes of a sub-cell
    are drawn at once and shared among a few points, instead of protein by protein.
    """

    mean: float  # proteins per voxel or, with `by_surface`, per um^2 of its surface
    by_surface: bool
    region_bits: int  # a voxel must have one of them; 0: all voxels of the tissue
    kind: int  # POISSON or BINOMIAL
    dyes: float
    kept: float
    sigma: tuple[float, float, float]  # standard deviation of the linker, nm of tissue; zeros: no linker
    subcells: Triple  # of a voxel; by Poisson splitting each draws its own proteins
    clumped: bool
    marked: int = PROTEIN  # kind in the identity of its emitters: PROTEIN or UNSPECIFIC
    # a grey value v makes the mean this share of itself: at_zero + per_value * v, cut to least ... 1; see `Factors.grey`
    grey: tuple[float, float, float] = (1.0, 0.0, 1.0)  # at_zero, per_value, least


class Factors(NamedTuple):
    """What multiplies the mean of a law in each voxel; arrays of a device.

    Attributes
    ----------
    cell
        Factor by cell index, float64; 0: not labelled. Laws of all tissue (`region_bits` 0) do not use it.
    depth
        Factors by plane, row and column of the arrays' box, joined, float64, at most 1; the largest of a voxel's three
        applies. Empty: 1 everywhere.
    grey
        Grey values in the arrays' box, z y x, float32, for `EmissionLaw.grey`. Of shape (0, 0, 0): 1 everywhere.
    """

    cell: NDArray[np.float64]
    depth: NDArray[np.float64]
    grey: NDArray[np.float32]


NO_DEPTH: NDArray[np.float64] = np.empty(0)
NO_GREY: NDArray[np.float32] = np.empty((0, 0, 0), np.float32)


class LayerKeys(NamedTuple):
    """Keys of a layer's random streams: number of proteins, their place and dyes, and linkers."""

    number: Key
    place: Key
    linker: Key


@njit(cache=True, nogil=True)
def _dyes_of(u, kind, dyes, kept, proteins):  # type: ignore[no-untyped-def]
    """Draw the total number of dyes on `proteins` proteins by the quantile of their sum."""
    if kind == POISSON:
        return poisson_quantile(u, dyes * kept * proteins)
    n = np.int64(dyes) * proteins
    if kept >= 1.0:
        return n
    if n <= _LARGE:
        return binomial_quantile(u, n, kept)
    # thousands of dyes: the normal limit, cut at 4 sigma, is within 1 / sqrt(n) of the binomial
    mean = n * kept
    draw = np.floor(mean + np.sqrt(mean * (1.0 - kept)) * normal_quantile_cut(u) + 0.5)
    return np.int64(min(max(draw, 0.0), n))


@njit(cache=True, nogil=True)
def _words(hits, of, draw, count, key, out):  # type: ignore[no-untyped-def]
    """Set out[:, j] to the Philox words of draw `draw[j]` of hit `of[j]`; uint32, (4, count)."""
    z, y, x = np.empty(count, np.int64), np.empty(count, np.int64), np.empty(count, np.int64)
    k = np.empty(count, np.int64)
    for j in range(count):
        hit = hits[of[j]]
        z[j], y[j], x[j] = hit.z, hit.y, hit.x
        k[j] = key[1] ^ hit.sub
    _philox_many(z, y, x, draw, key[0], k, count, out)


@njit(cache=True, nogil=True)
def _philox_many(z, y, x, draw, k0, k1, count, out):  # type: ignore[no-untyped-def]
    a, b, c, d = out[0], out[1], out[2], out[3]
    for j in range(count):
        a[j], b[j], c[j], d[j] = philox(z[j], y[j], x[j], draw[j], k0, k1[j])


@njit(cache=True, nogil=True)
def _spread(hits, law, specimen, voxel_nm, words, at, linker, of, mirror, weight, count, n, out):  # type: ignore[no-untyped-def]
    """Write `count` points from out[n].

    Point j = corner of hit `of[j]` + uniform (from words[:, at[j]]) * size + linker[:, j] * sigma, mirrored along the
    axes whose bits are set in `mirror[j]`.
    """
    cuts = law.subcells
    size = (voxel_nm[0] / cuts[0], voxel_nm[1] / cuts[1], voxel_nm[2] / cuts[2])
    linked = linker.shape[1] > 0
    for j in range(count):
        hit = hits[of[j]]
        sub = hit.sub
        far = ((mirror[j] & 4) != 0, (mirror[j] & 2) != 0, (mirror[j] & 1) != 0)
        u = (unit_float32word(words[0, at[j]]), unit_float32word(words[1, at[j]]), unit_float32word(words[2, at[j]]))
        z = (hit.z - specimen[0]) * voxel_nm[0] + sub // (cuts[1] * cuts[2]) * size[0]
        y = (hit.y - specimen[1]) * voxel_nm[1] + sub // cuts[2] % cuts[1] * size[1]
        x = (hit.x - specimen[2]) * voxel_nm[2] + sub % cuts[2] * size[2]
        z += (1.0 - u[0] if far[0] else u[0]) * size[0]
        y += (1.0 - u[1] if far[1] else u[1]) * size[1]
        x += (1.0 - u[2] if far[2] else u[2]) * size[2]
        if linked:
            z += (-law.sigma[0] if far[0] else law.sigma[0]) * linker[0, j]
            y += (-law.sigma[1] if far[1] else law.sigma[1]) * linker[1, j]
            x += (-law.sigma[2] if far[2] else law.sigma[2]) * linker[2, j]
        out.z[n + j] = z
        out.y[n + j] = y
        out.x[n + j] = x
        out.weight[n + j] = weight[j]
        out.cell[n + j] = hit.cell
        out.own[n + j] = hit.own


@njit(cache=True, nogil=True)
def _identify(hits, of, draw, law, count, n, out):  # type: ignore[no-untyped-def]
    """Write the identities of `count` points from out[n]: draw `draw[j]` of hit `of[j]`."""
    for j in range(count):
        hit, row = hits[of[j]], out.identity[n + j]
        row[0], row[1], row[2] = hit.z, hit.y, hit.x
        row[3], row[4], row[5] = hit.sub, draw[j], law.marked


@njit(cache=True, nogil=True)
def _linkers(hits, of, draw, count, key, out):  # type: ignore[no-untyped-def]
    """Set out[:, j] to normal numbers, cut at 4 sigma, of draw `draw[j]` of hit `of[j]`; float64, (3, count)."""
    words = np.empty((4, count), np.uint32)
    _words(hits, of, draw, count, key, words)
    u = np.empty(count)
    for axis in range(3):
        for j in range(count):
            u[j] = unit_float32word(words[axis, j])
        normal_quantile_cut_many(u, out[axis])


@njit(cache=True, nogil=True)
def _place_proteins(hits, count, law, keys, specimen, voxel_nm, n, out, dyes_of_cell):  # type: ignore[no-untyped-def]
    """Draw protein by protein, and with linkers dye by dye; see `place_hits`."""
    linked = law.sigma[0] > 0.0 or law.sigma[1] > 0.0 or law.sigma[2] > 0.0
    proteins = 0
    for h in range(count):
        proteins += hits[h].proteins
    of, draw = np.empty(proteins, np.int64), np.empty(proteins, np.int64)
    j = 0
    for h in range(count):
        for p in range(hits[h].proteins):
            of[j], draw[j] = h, p
            j += 1
    words = np.empty((4, proteins), np.uint32)
    _words(hits, of, draw, proteins, keys.place, words)
    dyes = np.empty(proteins, np.int64)
    room = out.z.size - n
    points, j, done = 0, 0, count
    for h in range(count):
        hit = hits[h]
        here, new = 0, 0
        for p in range(j, j + hit.proteins):
            dyes[p] = _dyes_of(unit_float32word(words[3, p]), law.kind, law.dyes, law.kept, 1)
            here += int(dyes[p])
            new += int(dyes[p]) if linked else int(dyes[p] > 0)
        if points + new > room:
            done = h
            break
        points += new
        j += hit.proteins
        if hit.own:
            dyes_of_cell[hit.cell] += here
    hit_of, at, weight = np.empty(points, np.int64), np.empty(points, np.int64), np.empty(points, np.int64)
    numbers = np.empty(points, np.int64)
    i = 0
    for p in range(j):
        for d in range(dyes[p] if linked else np.int64(dyes[p] > 0)):
            hit_of[i], at[i], weight[i] = of[p], p, 1 if linked else dyes[p]
            numbers[i] = (draw[p] << _MAX_DYES_BITS) | d
            i += 1
    linker = np.empty((3, points if linked else 0))
    if linked:
        _linkers(hits, hit_of, numbers, points, keys.linker, linker)
    mirror = np.zeros(points, np.int64)
    _spread(hits, law, specimen, voxel_nm, words, at, linker, hit_of, mirror, weight, points, n, out)
    if out.identity.shape[0] > 0:
        _identify(hits, hit_of, numbers, law, points, n, out)
    return n + points, done


@njit(cache=True, nogil=True)
def _place_clumps(hits, count, law, keys, specimen, voxel_nm, n, out, dyes_of_cell):  # type: ignore[no-untyped-def]
    """Draw all dyes of a sub-cell at once and share them among a few points; see `place_hits`."""
    linked = law.sigma[0] > 0.0 or law.sigma[1] > 0.0 or law.sigma[2] > 0.0
    each, zero = np.arange(count), np.zeros(count, np.int64)
    words = np.empty((4, count), np.uint32)
    _words(hits, each, zero, count, keys.number, words)
    dyes = np.empty(count, np.int64)
    room = out.z.size - n
    points, done = 0, count
    for h in range(count):
        hit = hits[h]
        u = unit_double(words[2, h], words[3, h])
        dyes[h] = _dyes_of(u, law.kind, law.dyes, law.kept, hit.proteins)
        if points + min(dyes[h], POINTS_OF_CLUMP) > room:
            done = h
            break
        points += min(dyes[h], POINTS_OF_CLUMP)
        if hit.own:
            dyes_of_cell[hit.cell] += dyes[h]
    _words(hits, each, zero, done, keys.place, words)
    of_hit = np.empty((3, done if linked else 0))
    if linked:
        _linkers(hits, each, zero, done, keys.linker, of_hit)
    hit_of, mirror, weight = np.empty(points, np.int64), np.empty(points, np.int64), np.empty(points, np.int64)
    linker, number = np.empty((3, points if linked else 0)), np.empty(points, np.int64)
    i = 0
    for h in range(done):
        some = min(dyes[h], POINTS_OF_CLUMP)
        for p in range(some):
            hit_of[i], number[i], mirror[i] = h, p, p // 2 ^ (7 if p % 2 else 0)
            weight[i] = dyes[h] // some + (1 if p < dyes[h] % some else 0)
            if linked:
                linker[0, i], linker[1, i], linker[2, i] = of_hit[0, h], of_hit[1, h], of_hit[2, h]
            i += 1
    _spread(hits, law, specimen, voxel_nm, words, hit_of, linker, hit_of, mirror, weight, points, n, out)
    if out.identity.shape[0] > 0:
        _identify(hits, hit_of, number, law, points, n, out)
    return n + points, done


@njit(cache=True, nogil=True)
def place_hits(hits, count, law, keys, specimen, voxel_nm, n, out, dyes_of_cell):  # type: ignore[no-untyped-def]
    """Write the emitters of `count` hits from out[n].

    Return (emitters in `out`, hits written); a hit whose emitters do not all fit is not written.
    """
    if law.clumped:
        return _place_clumps(hits, count, law, keys, specimen, voxel_nm, n, out, dyes_of_cell)
    return _place_proteins(hits, count, law, keys, specimen, voxel_nm, n, out, dyes_of_cell)
