"""Files of the surveys of an analysis: small arrays of each block, and what was joined from all."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simexm.result.place import Place
from simexm.store.files import writing
from simexm.store.listing import on_disk
from simexm.store.location import Location

DONE = "done"
"""File that marks the folder of joined arrays as complete."""


def folder(where: Place, name: str) -> Location:
    """Folder of a survey, with its journal and parts."""
    return where.passes / name


def joined_folder(where: Place) -> Location:
    """Folder of the joined arrays."""
    return where.passes / "joined"


def part(where: Place, name: str, number: int) -> Location:
    """File of one block's arrays."""
    return folder(where, name) / "parts" / f"block-{number:07d}.npz"


def write_part(where: Place, name: str, number: int, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write a block's arrays atomically."""
    with writing(part(where, name, number), where.scratch) as partial, partial.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def read_part(where: Place, name: str, number: int) -> dict[str, NDArray[Any]]:
    """Read a block's arrays."""
    with np.load(io.BytesIO(part(where, name, number).read_bytes()), allow_pickle=False) as found:
        return dict(found)


def open_joined(where: Place) -> dict[str, NDArray[Any]]:
    """Open the joined arrays by name, memory-mapped."""
    files = [path for path in joined_folder(where).iterdir() if path.suffix == ".npy"]
    return {path.stem: np.load(on_disk(path), mmap_mode="r", allow_pickle=False) for path in files}
