"""Ids stored as floats, up to the largest integer that the dtype holds exactly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class _Range:
    """Ids that a float dtype holds exactly: those below `end`, of dtype `ids`."""

    ids: np.dtype[Any]
    end: int


WHOLE = {
    np.dtype(np.float16): _Range(np.dtype(np.uint16), 2**11),
    np.dtype(np.float32): _Range(np.dtype(np.uint32), 2**24),
    np.dtype(np.float64): _Range(np.dtype(np.uint64), 2**53),
}
"""From `end` on the dtype rounds: 2^24 + 1 is stored as 2^24 in 32 bits, so 2^24 may be two cells."""


class NotWholeError(ValueError):
    """A float that cannot be an id; `plane` is its index along the first axis."""

    def __init__(self, message: str, plane: int) -> None:
        super().__init__(message)
        self.plane = plane


def whole_numbers(values: NDArray[Any]) -> NDArray[Any]:
    """Return floats, of a dtype in `WHOLE` and any shape, as unsigned integers.

    Raises NotWholeError at the first value that is fractional, negative, NaN, infinite, or so large that its type
    rounds.
    """
    known = WHOLE[values.dtype]
    good = (values >= 0) & (values < known.end)  # both are False for NaN
    good &= np.floor(values) == values
    if not good.all():
        at = np.unravel_index(int(np.argmin(good)), values.shape)
        value = float(values[at])
        why = (
            f"{values.dtype} rounds from {known.end} on, so that neighbouring ids become one cell"
            if known.end <= value < float("inf")
            else "an id is an integer, and 0 is outside every cell"
        )
        raise NotWholeError(f"the value {value:.12g} is no id: {why}", int(at[0]))
    return values.astype(known.ids)
