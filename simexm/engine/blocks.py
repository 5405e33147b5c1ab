"""How an image is cut into blocks: shapes only."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from simexm.grid import Triple

LARGEST = 256
FEWEST = 16
FEWEST_OF_ROUNDS = 8
"""Blocks of several rounds are worth more work each, and halos cost most in small ones: of 32 x 151 x 151 pixels, 16 blocks
transform 1.6 times as many nodes as 8."""
ALIGN: Triple = (8, 32, 32)
"""Blocks are multiples of this, so that the first levels of the pyramid divide them."""


def choose_block(
    shape: Triple, cost: Callable[[int, int], float], fits: Callable[[Triple], bool], fewest: int = FEWEST
) -> Triple:
    """Choose the shape of a block.

    At most 256 pixels a side, and small enough for at least `fewest` blocks where the image allows; of those that fit into
    memory, the one that costs least over the whole image. The number of workers plays no part, so that it cannot change
    what is written.

    Parameters
    ----------
    shape
        Pixels of the image.
    cost
        Relative cost of a block along one axis: called with (axis, pixels); the cost of a block is the product.
    fits
        Whether a block of this shape can be computed at once.
    fewest
        Blocks that there should be at least.
    """
    sizes = [_sizes(n, a) for n, a in zip(shape, ALIGN, strict=True)]
    totals = [
        {b: _axis_cost(n, b, axis, cost) for b in options}
        for axis, (n, options) in enumerate(zip(shape, sizes, strict=True))
    ]
    enough = [b for b in itertools.product(*sizes) if _count(shape, b) >= fewest]
    candidates = enough or [_triple(tuple(s[0] for s in sizes))]
    candidates.sort(key=lambda b: (totals[0][b[0]] * totals[1][b[1]] * totals[2][b[2]], b))
    for block in candidates:
        if fits(_triple(block)):
            return _triple(block)
    return _triple(min(candidates, key=lambda b: b[0] * b[1] * b[2]))


def _sizes(n: int, align: int) -> list[int]:
    most = min(LARGEST, -(-n // align) * align)
    return list(range(align, most + 1, align))


def _axis_cost(n: int, block: int, axis: int, cost: Callable[[int, int], float]) -> float:
    full, rest = divmod(n, block)
    return full * cost(axis, block) + (cost(axis, rest) if rest else 0.0)


def _count(shape: Triple, block: tuple[int, ...]) -> int:
    z, y, x = (-(-n // b) for n, b in zip(shape, block, strict=True))
    return z * y * x


def _triple(values: tuple[int, ...]) -> Triple:
    z, y, x = values
    return z, y, x
