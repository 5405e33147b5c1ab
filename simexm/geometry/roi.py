"""Parse a region of interest as a user types it: z0:z1,y0:y1,x0:x1."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Sequence
from numbers import Integral
from typing import Any

from simexm.errors import SpecError
from simexm.geometry.grid import Box, Triple, three

Roi = str | Sequence[slice]
"""Voxels along z, y, x: the text of the option --roi, or three slices, such as `numpy.s_[0:40, :, 100:300]`."""

_RANGE = re.compile(r"\s*(\d{0,18})\s*:\s*(\d{0,18})\s*", re.ASCII)


def box_of(roi: Roi | None, shape: Triple, where: str) -> Box:
    """Return the box that a user chose in a volume of this shape; `where` is the volume's name in messages.

    A missing start or stop is 0 or the volume's end; None is the complete volume. Raises SpecError if `roi` is no region, is
    empty, or reaches outside.
    """
    ranges = _ranges(roi)
    start = three(0 if low is None else low for low, _ in ranges)
    stop = three(n if high is None else high for (_, high), n in zip(ranges, shape, strict=True))
    if not all(0 <= a < b <= n for a, b, n in zip(start, stop, shape, strict=True)):
        chosen = ",".join(f"{a}:{b}" for a, b in zip(start, stop, strict=True))
        full = ",".join(f"0:{n}" for n in shape)
        raise SpecError(
            f"--roi {chosen} (z, y, x) is empty or reaches outside {where}, whose voxels are {full}; choose a part of these"
        )
    return Box(start, stop)


def _ranges(roi: Any) -> list[tuple[int | None, int | None]]:
    """Parse start and stop along z, y, x; None for a missing one."""
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
