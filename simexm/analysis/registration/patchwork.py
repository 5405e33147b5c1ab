"""Displacements of blocks, put together to one: by weights, with stand-ins for blocks without a fit, and without folds."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simexm.geometry.grid import Box, Tiling, Triple, three, triple
from simexm.kernels.registration import lattice

FITTED, EMPTY, OUTSIDE, WORSE = range(4)
"""States of a block: it has a fit; it is empty; the moving volume does not cover it; its fit was no better than its start."""
STATES = ("fitted", "empty", "outside", "worse")
_NEAR = tuple(itertools.product((-1, 0, 1), repeat=3))
_FADED = 1 / 16
"""Share of a block's displacement below which it is left out."""

ReadFit = Callable[[int], Mapping[str, NDArray[Any]]]
"""Returns the state, coefficients or stand-in shift of a block."""


class Patchwork:
    """Blocks with displacements of their own.

    Parameters
    ----------
    tiling
        The blocks.
    overlap
        Voxels around a block that its fit covers.
    """

    def __init__(self, tiling: Tiling, overlap: int) -> None:
        self.tiling, self.overlap = tiling, overlap
        self.whole = tiling.box

    def wide(self, number: int) -> Box:
        """A block with the voxels around it."""
        return self.tiling[number].grown((self.overlap,) * 3).intersect(self.whole)

    def around(self, number: int) -> Iterator[int]:
        """A block and its neighbours."""
        (nz, ny, nx), (z, y, x) = self.tiling.counts, self.tiling.position(number)
        for a, b, c in _NEAR:
            if 0 <= z + a < nz and 0 <= y + b < ny and 0 <= x + c < nx:
                yield ((z + a) * ny + y + b) * nx + x + c

    def displacement(self, number: int, box: Box, fit: ReadFit, scale: Callable[[int], float]) -> NDArray[np.float32]:
        """The joint displacement, (3, z, y, x), um, in a box that reaches at most one voxel beyond a block.

        `scale` is the share of each block's displacement that counts.
        """
        ranges = [lattice.nodes(a, b) for a, b in zip(box.start, box.stop, strict=True)]
        first = three(a for a, _ in ranges)
        total = np.zeros((3, *(b - a for a, b in ranges)), np.float32)
        for each in self.around(number):
            share = scale(each)
            weights = self._weights(each, ranges)
            if share > 0 and all(w.any() for w in weights):
                self._add(total, first, weights, share, each, fit(each))
        return lattice.spread(total, first, box.start, box.stop)

    def _weights(self, number: int, ranges: list[tuple[int, int]]) -> list[NDArray[np.float32]]:
        box, reach = self.tiling[number], self.overlap / 2
        axes = zip(ranges, box.start, box.stop, self.whole.stop, strict=True)
        return [lattice.weight(a, b - a, start, stop, whole, reach) for (a, b), start, stop, whole in axes]

    def _add(
        self,
        total: NDArray[np.float32],
        first: Triple,
        weights: list[NDArray[np.float32]],
        share: float,
        number: int,
        fit: Mapping[str, NDArray[Any]],
    ) -> None:
        """Add a block's coefficients, by its weights, at the nodes where these are not 0."""
        some = [np.flatnonzero(w) for w in weights]
        at = tuple(slice(int(s[0]), int(s[-1]) + 1) for s in some)
        z, y, x = (w[s] for w, s in zip(weights, at, strict=True))
        weight = np.float32(share) * z[:, None, None] * y[:, None] * x
        if int(fit["state"]) != FITTED:
            total[:, *at] += weight * fit["shift"][:, None, None, None]
            return
        own = [lattice.nodes(a, b)[0] for a, b in zip(*_ends(self.wide(number)), strict=True)]
        moved = tuple(slice(s.start + f - o, s.stop + f - o) for s, f, o in zip(at, first, own, strict=True))
        total[:, *at] += weight * fit["coefficients"][:, *moved]

    def stand_in(self, number: int, fit: ReadFit) -> NDArray[np.float32]:
        """Mean shift, (3,), um, of the neighbours that have a fit; 0 if none has."""
        found = [fit(each) for each in self.around(number) if each != number]
        shifts = [f["shift"] for f in found if int(f["state"]) == FITTED]
        return np.asarray(np.mean(shifts, axis=0) if shifts else np.zeros(3), np.float32)

    def fade_folds(
        self, least: Mapping[int, float], limit: float, again: Callable[[int, Any], float]
    ) -> NDArray[np.float32]:
        """Lower the shares of blocks that fold together until none does, (blocks,).

        Around a block whose smallest Jacobian is below the limit, all shares are halved, in the end to 0, and the blocks that
        see the change are computed again: `again(number, shares)`. Where all shares are 0, nothing more can be done.
        """
        shares = np.ones(len(self.tiling), np.float32)
        pending = {number for number, value in least.items() if value < limit}
        while pending:
            number = min(pending)
            pending.discard(number)
            near = [*self.around(number)]
            if not shares[near].any() or again(number, shares) >= limit:
                continue
            halved = shares[near] / 2
            shares[near] = np.where(halved < _FADED, 0, halved)
            for each in near:
                pending.update(self.around(each))
        return shares


def _ends(box: Box) -> tuple[Triple, Triple]:
    return box.start, box.stop


def one_more(box: Box, whole: Box) -> Box:
    """A box with one more voxel at its far ends, as cells between voxel centres need."""
    return Box(box.start, triple(b + 1 for b in box.stop)).intersect(whole)
