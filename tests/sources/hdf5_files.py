"""Small HDF5 files as other programs write them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py  # type: ignore[import-untyped]
import numpy as np

from simexm.geometry.grid import exact3
from simexm.sources.opening import open_stack
from simexm.sources.stack import Stack
from tests.sources.volumes import SHAPE, ids

A = ids("uint32")
SIZE = exact3((40, 4, 3.5))
UM = (0.04, 0.004, 0.0035)
BEGIN = exact3((80, 12, 7))
Make = Callable[[h5py.File], Any]


def write(path: Path, make: Make, name: str = "a.h5") -> str:
    """Write a file; returns its path."""
    with h5py.File(path / name, "w") as file:
        make(file)
    return str(path / name)


def open_made(path: Path, make: Make, dataset: str | None = None) -> Stack:
    """Open the volume of a file that is written first."""
    return open_stack(write(path, make), dataset=dataset)


def holding(value: Any, name: str = "labels", **options: Any) -> Make:
    """A file that holds one data set."""
    return lambda file: file.create_dataset(name, data=value, **options)


def stored(file: h5py.File, order: str, name: str = "labels") -> h5py.Dataset:
    """A data set whose axes are in this order; others than z, y, x are of length 1."""
    axes = np.transpose(A, ["zyx".index(a) for a in order if a in "zyx"])
    return file.create_dataset(name, data=axes.reshape([SHAPE["zyx".index(a)] if a in "zyx" else 1 for a in order]))


def tags(order: str, **resolution: float) -> str:
    """The attribute axistags of ilastik."""
    return json.dumps({"axes": [{"key": a, "typeFlags": 2, "resolution": resolution.get(a, 0)} for a in order]})


def scaled(file: h5py.File, order: str, unit: str = "") -> None:
    """With a unit: the coordinates of voxels of SIZE that begin at BEGIN."""
    data = stored(file, order)
    for i, a in enumerate(order):
        first, step = (float(BEGIN["zyx".index(a)]), float(SIZE["zyx".index(a)])) if unit else (0, 1)
        file[a] = first + step * (np.arange(data.shape[i]) + 0.5 * bool(unit))
        file[a].attrs["units"] = unit
        file[a].make_scale(a)
        data.dims[i].attach_scale(file[a])


def attributed(size: Any, where: str = "labels", order: str = "zyx", **more: Any) -> Make:
    """A volume of which a data set, group or root has these attributes."""

    def make(file: h5py.File) -> None:
        data = stored(file, order, "volumes/labels" if where != "labels" else where)
        if order != "zyx":
            data.attrs["axes"] = list(order)
        file[where].attrs.update({**size, **more})

    return make


def filtered(file: h5py.File, code: int, values: tuple[int, ...] = ()) -> None:
    """A data set as a program with this filter writes it, which need not be installed here."""
    created = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    created.set_chunk(SHAPE)
    created.set_filter(code, h5py.h5z.FLAG_OPTIONAL, values)
    data = h5py.h5d.create(file.id, b"labels", h5py.h5t.NATIVE_UINT32, h5py.h5s.create_simple(SHAPE), created)
    data.write_direct_chunk((0, 0, 0), A.tobytes())
