"""Write animated GIFs, frame by frame."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import GifImagePlugin, Image

from simexm.export.stack import Head, Plane
from simexm.store.atomic_file import atomic_file

MILLISECONDS = 100
"""Display time of a plane, or of a frame whose time is unknown."""

LONGEST_SIDE = 65535
"""Most pixels a side that the format allows."""

_GRAY = np.repeat(np.arange(256, dtype=np.uint8), 3).tobytes()
_FOREVER = b"\x21\xff\x0bNETSCAPE2.0\x03\x01\x00\x00\x00"


@contextmanager
def write_gif(path: Path, head: Head) -> Iterator[Callable[[Plane], None]]:
    """Yield a function that adds the next plane to an animation, 8-bit gray or red, green and blue.

    Gray values are exact; a colour frame gets its best 256 colours. Pillow holds all frames of an animation in memory, so the
    few bytes between frames are written here (GIF89a, with a colour table for each frame).
    """
    _, rows, columns = head.shape
    shown = (
        MILLISECONDS if head.frame_s is None else max(20, round(head.frame_s * 100) * 10)
    )  # browsers slow down below 20
    with atomic_file(path) as partial, partial.open("wb") as file:
        file.write(b"GIF89a" + struct.pack("<HHBBB", columns, rows, 0x70, 0, 0) + _FOREVER)

        def add(plane: Plane) -> None:
            image = Image.fromarray(np.ascontiguousarray(plane))
            if head.rgb:
                image = image.quantize(256)
            else:
                image.putpalette(_GRAY)
            file.writelines(GifImagePlugin.getdata(image, duration=shown, include_color_table=True))

        yield add
        file.write(b";")
