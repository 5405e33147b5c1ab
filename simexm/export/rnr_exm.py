"""The submission file of the RnR-ExM challenge (ISBI 2023): displacements in voxels for the test pairs of a species.

Dataset pairN of SPECIES_test.h5 is (z, y, x, 3), float32, components z, y, x: voxel x of the fixed volume is looked up at
x + d(x), in voxels of the moving one. It is rounded to 2 decimals and compressed with gzip.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from simexm.errors import OutputError
from simexm.sources.needs import need
from simexm.store.atomic_file import refuse as refuse_file

if TYPE_CHECKING:
    from simexm.export.transforms import Total

SPECIES = ("zebrafish", "mouse", "c_elegan")
_DECIMALS = 2
_CHUNK = (8, 128, 128, 3)


def name_of(pair: str | None) -> str:
    """File of a pair, SPECIES/N; raises OutputError for any other name."""
    return f"{_parts(pair)[0]}_test.h5"


def _parts(pair: str | None) -> tuple[str, str]:
    found = re.fullmatch(rf"({'|'.join(SPECIES)})/([0-9]{{1,2}})", pair or "")
    if found is None:
        given = "no pair is named" if pair is None else f"the pair {pair!r} is unknown"
        raise OutputError(
            f"{given}, so the file of the challenge would have no name; type --pair SPECIES/N, such as --pair zebrafish/5, with "
            f"one of {', '.join(SPECIES)}"
        )
    return found[1], f"pair{found[2]}"


def refuse(path: Path, pair: str, *, overwrite: bool) -> None:
    """Raise OutputError if the file holds the pair already and may not be replaced, or is no HDF5; other pairs stay."""
    refuse_file([path], overwrite=True)
    if path.exists():
        with _opened(path, "r") as file:
            if _parts(pair)[1] in file and not overwrite:
                raise OutputError(f"{path} holds {_parts(pair)[1]}, which would be lost. Replace it with --overwrite.")


@contextmanager
def _opened(path: Path, mode: str) -> Iterator[Any]:
    h5py = need("h5py", f"{path} is an HDF5 file")
    try:
        file = h5py.File(path, mode)
    except OSError as error:
        raise OutputError(f"{path} is no HDF5 file that can be opened: {error}. Name another folder.") from error
    with file:
        yield file


def write(partial: Path, path: Path, pair: str, total: Total) -> None:
    """Write a pair to `partial`, beside the other pairs that `path` holds."""
    name = _parts(pair)[1]
    shape = (*total.frame.shape, 3)
    with _opened(partial, "w") as file:
        if path.exists():
            with _opened(path, "r") as before:
                for other in before:
                    if other != name:
                        before.copy(other, file)
        chunk = tuple(min(n, c) for n, c in zip(shape, _CHUNK, strict=True))
        data = file.create_dataset(name, shape, np.float32, chunks=chunk, compression="gzip")
        for start in range(0, shape[0], total.step):
            stop = min(start + total.step, shape[0])
            data[start:stop] = _voxels(total, start, stop)


def _voxels(total: Total, start: int, stop: int) -> NDArray[np.float32]:
    """Displacements of planes, in voxels, (z, y, x, 3)."""
    size = (stop - start, *total.frame.shape[1:])
    points = total.frame.centres((start, 0, 0), size)
    own = np.indices(size, dtype=np.float64)
    own[0] += start
    found = total.moving.voxels(total.transform.near(points)(points)) - own
    return np.asarray(np.round(np.moveaxis(found, 0, -1), _DECIMALS), np.float32)
