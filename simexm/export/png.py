"""Write folders of PNG images, one for each plane."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import imagecodecs
import numpy as np

from simexm.export.stack import Head, Plane
from simexm.store.atomic_file import atomic_folder


@contextmanager
def write_png(path: Path, head: Head) -> Iterator[Callable[[Plane], None]]:
    """Yield a function that writes the next plane, 8 or 16 bits of gray or 8 bits of colour: image_00.png, ..."""
    digits = max(2, len(str(head.shape[0] - 1)))
    number = 0
    with atomic_folder(path) as partial:

        def add(plane: Plane) -> None:
            nonlocal number
            encoded = imagecodecs.png_encode(np.ascontiguousarray(plane))
            (partial / f"image_{number:0{digits}d}.png").write_bytes(encoded)
            number += 1

        yield add
