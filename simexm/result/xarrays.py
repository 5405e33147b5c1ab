"""Results as xarray: named axes, and coordinates with units, read when they are used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from simexm.errors import OutputError

if TYPE_CHECKING:
    from simexm.result.result import Result

Names = Literal["simexm", "minian"]
_MINIAN = {"t": "frame", "y": "height", "x": "width"}
_UNITS = {"second": "s", "millisecond": "ms", "minute": "min", "micrometer": "um"}


def to_xarray(result: Result, level: int, of: str, names: str) -> Any:
    """See `Result.to_xarray`."""
    try:
        xarray = import_module("xarray")
    except ImportError as error:
        raise OutputError(
            'to_xarray needs xarray, which is not installed. Type: pip install "simexm[movies]"; or use dask() or array()'
        ) from error
    if names not in ("simexm", "minian"):
        raise OutputError(
            f"names is {names!r}, which is unknown; choose 'simexm' (t, c, z, y, x) or 'minian' (frame, height, width)"
        )
    data = result.dask(level, of)
    axes = "tczyx"[5 - data.ndim :] if not of.startswith("labels/") else "tzyx"[4 - data.ndim :]
    coordinates = {
        axis: (axis, *_coordinate(result, level, of, axis, n)) for axis, n in zip(axes, data.shape, strict=True)
    }
    about = {"source": str(result.path), "hash": result.provenance["hash"], "level": level}
    found = xarray.DataArray(
        data, dims=list(axes), coords=coordinates, name=of.rsplit("/", 1)[-1] or "image", attrs=about
    )
    return found if names == "simexm" else _as_minian(result, found)


def _as_minian(result: Result, found: Any) -> Any:
    """Frames, counted from 0, by rows and columns of pixels."""
    more = [axis for axis in found.dims if axis not in _MINIAN]
    if "t" not in found.dims or any(found.sizes[axis] > 1 for axis in more):
        raise OutputError(
            f"{result.path} has the axes {', '.join(f'{a} of {n}' for a, n in found.sizes.items())}, and minian reads movies "
            "of one plane and channel; choose names='simexm' and select one"
        )
    plain = found.isel(dict.fromkeys(more, 0), drop=True).rename(_MINIAN)
    plain.attrs["frame_s"] = [float(t) for t in found["t"].values[:2]]
    return plain.assign_coords({axis: np.arange(plain.sizes[axis]) for axis in _MINIAN.values()})


def _coordinate(result: Result, level: int, of: str, axis: str, size: int) -> tuple[Any, dict[str, str]]:
    """Values of an axis and their attributes: times, names of channels, centres of pixels in tissue."""
    if axis == "t":
        time = result.acquisition.time
        assert time is not None
        return np.array(time.coordinates), {"units": _UNITS.get(time.unit, time.unit)} if time.unit else {}
    if axis == "c":
        return _channels(result, of, size), {}
    dataset = result.multiscale(of)["datasets"][level]["coordinateTransformations"]
    scale = next(t["scale"][-3:] for t in dataset if t["type"] == "scale")
    start = next((t["translation"][-3:] for t in dataset if t["type"] == "translation"), [0.0, 0.0, 0.0])
    at = "zyx".index(axis)
    return start[at] + scale[at] * np.arange(size), {"units": "um", "long_name": f"{axis} in tissue, centres of pixels"}


def _channels(result: Result, of: str, size: int) -> list[str]:
    """Names of channels; those of the main image, if there are as many."""
    names = [str(c["label"]) for c in result.channels] if result.attributes.get("ome") else []
    return names if len(names) == size else [str(n) for n in range(size)]
