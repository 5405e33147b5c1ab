"""How an image is cut into blocks: shapes only."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simexm.geometry.grid import Triple, triple

LARGEST = 512
FEWEST, ENOUGH = 4, 16
WORTH_SECONDS = 5.0
"""A block should be worth so many core-seconds before an image is cut into more than `FEWEST`, for halos cost most in small
blocks: the 512^3 benchmark took 24 core-seconds in 16 blocks, 18 in 4."""
WORKERS = (2, 4)
"""Among so many blocks should be fairly shared. Not how many there are: that may not change what is written."""
ALIKE = 1.03
"""Up to so many times the least is as good, so that the smallest block is chosen: it takes less memory."""
ALIGN: Triple = (8, 16, 16)
"""Blocks are multiples of this, so that the first levels of the pyramid divide them."""


def choose_block(
    shape: Triple,
    cost: Callable[[int, int], float],
    fits: Callable[[Triple], bool],
    seconds_per_cost: float,
    fewest: int | None = None,
) -> Triple:
    """Choose the shape of a block.

    At most 512 pixels a side; of those that leave enough blocks and fit into memory, the one that holds `WORKERS` shortest, or
    the smallest of those that hold them hardly longer. The number of workers plays no part, so that it cannot change what
    is written.

    Parameters
    ----------
    shape
        Pixels of the image.
    cost
        Relative cost of a block along one axis: called with (axis, pixels); the cost of a block is the product.
    fits
        Whether a block of this shape can be computed at once.
    seconds_per_cost
        Core-seconds of a block of cost 1.
    fewest
        Blocks that there should be at least where the image allows; left out, 4, or up to 16 by the work.
    """
    sizes = [_sizes(n, a) for n, a in zip(shape, ALIGN, strict=True)]
    costs = [
        [_costs(n, b, axis, cost) for b in options] for axis, (n, options) in enumerate(zip(shape, sizes, strict=True))
    ]
    totals = _outer([np.array([sum(parts) for parts in axis], np.float64) for axis in costs])
    counts = _outer([np.array([len(parts) for parts in axis]) for axis in costs])
    wanted = fewest or np.clip(totals * (seconds_per_cost / WORTH_SECONDS), FEWEST, ENOUGH)
    possible = counts >= np.minimum(wanted, counts.max())
    least = math.inf
    found: list[tuple[float, Triple]] = []
    for flat in np.argsort(totals, axis=None, kind="stable"):
        where = np.unravel_index(flat, totals.shape)
        if totals[where] >= ALIKE * least:
            break
        if not possible[where]:
            continue
        needed = _held([axis[n] for axis, n in zip(costs, where, strict=True)], float(totals[where]), ALIKE * least)
        if needed >= ALIKE * least:
            continue
        block = triple(axis[n] for axis, n in zip(sizes, where, strict=True))
        if needed >= least or fits(block):
            found.append((needed, block))
            least = min(least, needed)
        else:
            possible[tuple(slice(n, None) for n in where)] = False  # nor do larger ones
    alike = sorted((math.prod(block), block) for needed, block in found if needed < ALIKE * least)
    return next((block for _, block in alike if fits(block)), triple(s[0] for s in sizes))


def smaller(tile: Triple, fits: Callable[[Triple], bool]) -> Triple | None:
    """Return the largest tile made by halving sides of `tile` that fits; None if not even the smallest does.

    The longest side is halved first. If that leads to nothing, planes are: where the halo is wide, they alone decide.
    """
    return _halved(tile, fits, lambda t: t) or _halved(
        tile, fits, lambda t: (t[0] * LARGEST if t[0] > 1 else 0, *t[1:])
    )


def _halved(tile: Triple, fits: Callable[[Triple], bool], weights: Callable[[Triple], Triple]) -> Triple | None:
    """The largest tile that fits, the side of the largest weight being halved each time, down to 8."""
    while not fits(tile):
        weight = weights(tile)
        longest = max(range(3), key=lambda a: (weight[a], a))
        if weight[longest] <= 8:
            return None
        tile = triple(-(-n // 2) if a == longest else n for a, n in enumerate(tile))
    return tile


def clipped(a: Triple, b: Triple) -> Triple:
    """The smaller of two lengths along each axis."""
    return triple(min(m, n) for m, n in zip(a, b, strict=True))


def _held(costs: list[list[float]], total: float, bound: float) -> float:
    """How long workers are held on average over `WORKERS`, who take blocks of these costs along each axis in order.

    `total` is what all blocks cost together. What takes at least as long as `bound` is not worked out to the end.
    """
    # all blocks along an axis cost the same, but for the last, which is smaller
    least = sum(max(total, n * math.prod(c[0] for c in costs)) for n in WORKERS) / len(WORKERS)
    if least >= bound or math.prod(len(c) for c in costs) > 16 * max(WORKERS):  # the last blocks hardly count
        return least
    needed = 0.0
    for n in WORKERS:
        busy = [0.0] * n
        for z, y, x in itertools.product(*costs):
            heapq.heapreplace(busy, busy[0] + z * y * x)
        needed += n * max(busy)
    return needed / len(WORKERS)


def _outer(axes: list[NDArray[Any]]) -> NDArray[Any]:
    """Products of a value along z, one along y and one along x."""
    z, y, x = axes
    return z[:, None, None] * y[:, None] * x


def _sizes(n: int, align: int) -> list[int]:
    most = min(LARGEST, -(-n // align) * align)
    return list(range(align, most + 1, align))


def _costs(n: int, block: int, axis: int, cost: Callable[[int, int], float]) -> list[float]:
    """Of each block along an axis."""
    full, rest = divmod(n, block)
    return [cost(axis, block)] * full + [cost(axis, rest)] * (rest > 0)
