"""Read what minian saves: a folder with A.zarr, C.zarr, S.zarr and motion.zarr (Zarr 2), or all in one netCDF file.

Each array is read with its own unit_id and matched by it, since the temporal update of minian changes the order of units.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from simexm.analysis.traces.extraction import Extraction, from_images
from simexm.errors import OutputError
from simexm.sources.needs import need

_AXES = {"A": ("unit_id", "height", "width"), "C": ("unit_id", "frame"), "S": ("unit_id", "frame")}


def is_one(path: Path) -> bool:
    """Whether a folder is minian's."""
    return (path / "A.zarr").is_dir() or (path / "A" / ".zarray").is_file()


def read(path: Path) -> Extraction:
    """Read a folder: NAME.zarr for each variable, or one Zarr group of all."""
    found = {}
    for name in (*_AXES, "motion"):
        group = path / f"{name}.zarr" if (path / f"{name}.zarr").is_dir() else path
        if (group / name).is_dir():
            found[name] = _from_zarr(group, name)
    return _made(found, f"{path} (minian)")


def _from_zarr(group: Path, name: str) -> tuple[tuple[str, ...], NDArray[Any], NDArray[Any] | None]:
    opened = zarr.open_group(group, mode="r", zarr_format=2)
    array = opened[name]
    assert isinstance(array, zarr.Array)
    named: Any = array.attrs.get("_ARRAY_DIMENSIONS", ())
    axes = tuple(str(name) for name in named)
    ids = np.asarray(opened["unit_id"]) if "unit_id" in opened else None
    return axes, np.asarray(array[...]), ids


def read_netcdf(path: Path) -> Extraction:
    """Read a netCDF-4 file, which is HDF5 whose axes are named by their scales."""
    h5py = need("h5py", f"{path} is netCDF-4")
    found = {}
    with h5py.File(path, "r") as file:
        for name in (*_AXES, "motion"):
            if name in file:
                stored = file[name]
                axes = tuple(d[0].name.rsplit("/", 1)[-1] if len(d) else "" for d in stored.dims)
                found[name] = axes, stored[...], file["unit_id"][...] if "unit_id" in file else None
    return _made(found, f"{path} (minian)")


def _made(found: Mapping[str, tuple[tuple[str, ...], NDArray[Any], NDArray[Any] | None]], name: str) -> Extraction:
    if "A" not in found:
        raise OutputError(f"{name} holds no footprints A; save them with save_minian")
    arrays = {key: _ordered(key, *found[key], name) for key in _AXES if key in found}
    ids = {key: found[key][2] for key in arrays}
    for key in ("C", "S"):
        one, other = ids["A"], ids.get(key)
        if key in arrays and one is not None and other is not None:
            place = {int(unit): row for row, unit in enumerate(other)}
            if missing := [unit for unit in one if int(unit) not in place]:
                raise OutputError(f"{name} holds no {key} of the unit {missing[0]}; save A, {key} of the same units")
            arrays[key] = arrays[key][[place[int(unit)] for unit in one]]
    shifts = None
    if "motion" in found and found["motion"][1].ndim == 2:
        axes, values, _ = found["motion"]
        shifts = (values if axes[:1] == ("frame",) else values.T).astype(np.float64)
    footprints, shape = from_images(arrays["A"], name)
    return Extraction(name, shape, footprints, arrays.get("C"), arrays.get("S"), shifts)


def _ordered(key: str, axes: tuple[str, ...], values: NDArray[Any], _: Any, name: str) -> NDArray[Any]:
    """Transpose to the usual order of axes."""
    wanted = _AXES[key]
    if sorted(axes) != sorted(wanted):
        raise OutputError(f"{name} holds {key} with the axes {', '.join(axes) or 'unknown'}, not {', '.join(wanted)}")
    return values.transpose([axes.index(axis) for axis in wanted])
