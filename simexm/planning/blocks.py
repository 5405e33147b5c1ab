"""Choose the shapes of blocks and tiles."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simexm.geometry.grid import Triple, triple

LARGEST = 512
FEWEST, ENOUGH = 4, 16
WORTH_SECONDS = 5.0
"""Least core-seconds of a block if there are more than `FEWEST` blocks: halos cost most in small ones (the 512^3 benchmark took
24 core-seconds in 16 blocks, 18 in 4)."""
WORKERS = (2, 4)
"""Numbers of workers among which blocks should be shared fairly; not the actual number, which must not change the output."""
ALIKE = 1.03
"""Times up to so many times the shortest count as equal; of these the smallest block is chosen, which needs the least memory."""
ALIGN: Triple = (8, 16, 16)
"""Blocks are multiples of this, so that the factors of the first pyramid levels divide them."""


FRAME_ALIGN, MOST_FRAMES = 8, 256
"""Spans of time are multiples of the first, the frames of a chunk, and at most the second."""
SPAN_BYTES = 48 << 20
"""Bytes of a span of time that a block holds."""


def choose_block(
    shape: Triple,
    cost: Callable[[int, int], float],
    fits: Callable[[Triple], bool],
    seconds_per_cost: float,
    fewest: int | None = None,
) -> Triple:
    """Choose the shape of a block, at most 512 pixels a side.

    Of the shapes that make enough blocks and fit into memory, choose the one for which `WORKERS` take the shortest
    time, or the smallest of those that take hardly longer. The actual number of workers is not used, so that it cannot
    change the output.

    `shape` is that of the image, in pixels. The cost of a block is the product of `cost(axis, pixels)` over the axes,
    and takes `seconds_per_cost` core-seconds for each 1. `fits` says whether a block can be computed at once. `fewest`
    is the least number of blocks, if the image allows; by default 4, or up to 16 by the amount of work.
    """
    sizes = [_sizes(n, a) for n, a in zip(shape, ALIGN, strict=True)]
    costs = [
        [_costs(n, b, axis, cost) for b in options] for axis, (n, options) in enumerate(zip(shape, sizes, strict=True))
    ]
    totals = _outer([np.array([sum(parts) for parts in axis], np.float64) for axis in costs])
    first = _outer(
        [np.array([parts[0] for parts in axis], np.float64) for axis in costs]
    )  # all but the last cost as much
    limits = sum(np.maximum(totals, n * first) for n in WORKERS) / len(WORKERS)
    counts = _outer([np.array([len(parts) for parts in axis]) for axis in costs])
    many = counts > 16 * max(WORKERS)  # then the last blocks hardly matter
    wanted = fewest or np.clip(totals * (seconds_per_cost / WORTH_SECONDS), FEWEST, ENOUGH)
    possible = counts >= np.minimum(wanted, counts.max())
    least = math.inf
    found: list[tuple[float, int]] = []
    order = np.argsort(totals, axis=None, kind="stable")
    listed = (values.ravel()[order].tolist() for values in (totals, limits, many))
    for flat, total, limit, is_many in zip(order.tolist(), *listed, strict=True):
        if total >= ALIKE * least:
            break
        if limit >= ALIKE * least or not possible.item(flat):
            continue
        where = _indices(flat, totals.shape)
        needed = limit if is_many else _duration([axis[n] for axis, n in zip(costs, where, strict=True)])
        if needed >= ALIKE * least:
            continue
        if needed >= least or fits(triple(axis[n] for axis, n in zip(sizes, where, strict=True))):
            found.append((needed, flat))
            least = min(least, needed)
        else:
            possible[tuple(slice(n, None) for n in where)] = False  # larger ones do not fit either
    pixels = _outer([np.array(options) for options in sizes])
    for _, flat in sorted((pixels.item(flat), flat) for needed, flat in found if needed < ALIKE * least):
        block = triple(axis[n] for axis, n in zip(sizes, _indices(flat, totals.shape), strict=True))
        if fits(block):
            return block
    return triple(options[0] for options in sizes)


def frames_together(shape: Triple, block: Triple, times: int, frame_bytes: int) -> int:
    """Return the frames that share a shard: of movies of a plane as many as fill it, else 1.

    `frame_bytes` are those of a frame's pixel, all channels together. Such a block computes only these frames.
    """
    if shape[0] > 1 or times < 2 * FRAME_ALIGN:
        return 1
    most = SPAN_BYTES // (math.prod(block) * max(1, frame_bytes))
    wanted = min(most, MOST_FRAMES, -(-times // FRAME_ALIGN) * FRAME_ALIGN)
    return max(1, wanted // FRAME_ALIGN * FRAME_ALIGN)


def _indices(flat: int, shape: tuple[int, ...]) -> Triple:
    """Return the indices along z, y and x of an element of a flattened array."""
    rest, x = divmod(flat, shape[2])
    return (*divmod(rest, shape[1]), x)


def smaller(tile: Triple, fits: Callable[[Triple], bool]) -> Triple | None:
    """Return the largest tile made by halving sides of `tile` that fits; None if not even the smallest does.

    The longest side is halved first. If no such tile fits, z is halved first: with a wide halo only planes matter.
    """
    by_planes = partial(_halved, tile, fits, lambda t: (t[0] * LARGEST if t[0] > 1 else 0, *t[1:]))
    return _halved(tile, fits, lambda t: t) or by_planes()


def _halved(tile: Triple, fits: Callable[[Triple], bool], weights: Callable[[Triple], Triple]) -> Triple | None:
    """Halve the side of the largest weight, down to 8, until the tile fits."""
    while not fits(tile):
        weight = weights(tile)
        longest = max(range(3), key=lambda a: (weight[a], a))
        if weight[longest] <= 8:
            return None
        tile = triple(-(-n // 2) if a == longest else n for a, n in enumerate(tile))
    return tile


def clipped(a: Triple, b: Triple) -> Triple:
    """Return the smaller of two lengths along each axis."""
    return triple(min(m, n) for m, n in zip(a, b, strict=True))


def _duration(costs: list[list[float]]) -> float:
    """Return worker time, busy or idle, until all blocks are done, on average over `WORKERS`.

    `costs` are those of blocks along each axis, in the order of computation.
    """
    needed = 0.0
    for n in WORKERS:
        busy = [0.0] * n
        for z, y, x in itertools.product(*costs):
            heapq.heapreplace(busy, busy[0] + z * y * x)
        needed += n * max(busy)
    return needed / len(WORKERS)


def _outer(axes: list[NDArray[Any]]) -> NDArray[Any]:
    """Multiply values along z, y and x, each with each."""
    z, y, x = axes
    return np.asarray(z[:, None, None] * y[:, None] * x)


def _sizes(n: int, align: int) -> list[int]:
    most = min(LARGEST, -(-n // align) * align)
    return list(range(align, most + 1, align))


def _costs(n: int, block: int, axis: int, cost: Callable[[int, int], float]) -> list[float]:
    """List the cost of each block along an axis."""
    full, rest = divmod(n, block)
    return [cost(axis, block)] * full + [cost(axis, rest)] * (rest > 0)
