"""Small volumes whose three axes cannot be taken for each other, and how to lay them down."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray

from simexm.geometry.grid import Box
from simexm.sources.stack import Stack

SHAPE = (5, 14, 23)
SIZE = (40, 32, 31)


def ids(dtype: str = "uint16", shape: tuple[int, int, int] = SHAPE) -> NDArray[Any]:
    """Random ids up to the largest that the type holds, some 0."""
    a = np.random.default_rng(7).integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)
    a[:, :3, :4] = 0
    return a


def whole(stack: Stack) -> NDArray[Any]:
    """All of a stack."""
    return stack.read(Box.of_shape(stack.shape))


def write_slice(path: Path, a: NDArray[Any]) -> None:
    """Write a slice in the format that the name ends in."""
    if path.suffix == ".png":
        path.write_bytes(imagecodecs.png_encode(a))
    elif path.suffix == ".bmp":
        path.write_bytes(imagecodecs.bmp_encode(a))
    else:
        tifffile.imwrite(path, a, compression="lzw")


def write_slices(folder: Path, a: NDArray[Any], name: str = "slice_{}.png") -> Path:
    """Write a folder of slices, numbered from 8 so that text order and natural order differ."""
    folder.mkdir()
    for n, plane in enumerate(a):
        write_slice(folder / name.format(n + 8), plane)
    return folder
