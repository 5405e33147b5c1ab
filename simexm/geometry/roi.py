"""A part of a volume as a user names it: z0:z1,y0:y1,x0:x1."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Sequence
from numbers import Integral
from typing import Any

from simexm.errors import SpecError
from simexm.geometry.grid import Box, Triple

Roi = str | Sequence[slice]
"""Voxels along z, y and x: the text of the option --roi, or three slices, such as `numpy.s_[0:40, :, 100:300]`."""

_RANGE = re.compile(r"\s*(\d{0,18})\s*:\s*(\d{0,18})\s*", re.ASCII)


def box_of(roi: Roi | None, shape: Triple, where: str) -> Box:
    """Return the box that a user chose in a volume.

    Parameters
    ----------
    roi
        The voxels to take; a start or a stop that is left out is 0 or the volume's end. None: the whole volume.
    shape
        Voxels of the volume along z, y, x.
    where
        What the volume is called in messages.

    Raises
    ------
    SpecError
        If it is no region, is empty, or reaches outside.
    """
    ranges = _ranges(roi)
    start = tuple(0 if low is None else low for low, _ in ranges)
    stop = tuple(n if high is None else high for (_, high), n in zip(ranges, shape, strict=True))
    if not all(0 <= a < b <= n for a, b, n in zip(start, stop, shape, strict=True)):
        chosen, whole = (
            ",".join(f"{a}:{b}" for a, b in zip(*ends, strict=True)) for ends in ((start, stop), ((0,) * 3, shape))
        )
        raise SpecError(
            f"--roi {chosen} (z, y, x) is empty or reaches outside {where}, whose voxels are {whole}; choose a part of these"
        )
    return Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))


def _ranges(roi: Any) -> list[tuple[int | None, int | None]]:
    """Start and stop along z, y, x; None where one is left out."""
    if roi is None:
        return [(None, None)] * 3
    found: list[Any]
    if isinstance(roi, str):
        matches = [_RANGE.fullmatch(part) for part in roi.split(",")]
        found = [m and tuple(int(end) if end else None for end in m.groups()) for m in matches]
    else:
        parts = list(roi) if isinstance(roi, Sequence) else [None]
        found = [(p.start, p.stop) if isinstance(p, slice) and p.step in (None, 1) else None for p in parts]
    if len(found) != 3 or not all(ends and all(end is None or _is_whole(end) for end in ends) for ends in found):
        raise SpecError(
            f"--roi {reprlib.repr(roi)} is no part of a volume; give first and last-plus-one voxel along z, y and x, as "
            "z0:z1,y0:y1,x0:x1, such as 0:40,100:300,: (from Python, that text or three slices)"
        )
    return found


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)
