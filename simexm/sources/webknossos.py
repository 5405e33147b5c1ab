"""WEBKNOSSOS datasets: choose a layer and magnification, and find its format and place.

The file `datasource-properties.json` lists the layers and their magnifications, each an array in its own folder
(https://docs.webknossos.org/webknossos/data/concepts.html). The corner of voxel (0, 0, 0) of a magnification is at 0.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import prod
from pathlib import Path
from typing import Any

from simexm.errors import SourceError, SourceNotFoundError
from simexm.geometry.grid import Spacing, exact
from simexm.sources.axes import nm_per
from simexm.sources.limits import read_json
from simexm.sources.words import words
from simexm.sources.zarr.ngff import UnclearError, checked_size
from simexm.store.location import Location
from simexm.store.remote import Remote

FILE = "datasource-properties.json"
_ABOVE = 3
_CXYZ = {"c": 0, "x": 1, "y": 2, "z": 3}


@dataclass(frozen=True, slots=True)
class Mag:
    """One magnification of a layer."""

    layer: str  # the layer's name
    folder: Location  # folder of the array
    form: str  # "zarr", "zarr3", "wkw", "n5", "neuroglancerPrecomputed"
    axes: tuple[str, ...]  # names of the array's axes
    voxel_size_nm: Spacing | None  # z, y, x; None with `doubt` for why
    doubt: str | None
    # first voxel and end of the layer, x y z, in voxels of this magnification; None if unknown
    box: tuple[tuple[int, ...], tuple[int, ...]] | None
    coarseness: int
    is_segmentation: bool


def mag_at(folder: Location) -> Mag | None:
    """Return the magnification in an array's folder by the dataset around it; None if no dataset lists it."""
    for above in list(folder.parents)[:_ABOVE]:
        properties = _load(above)
        if properties is not None:
            return next((m for m in _mags(above, properties) if m.folder == folder), None)
    return None


def choose(path: str, dataset: str | None) -> Mag:
    """Return the finest magnification in a dataset or layer folder: of the only segmentation, or of the named layer.

    `dataset` is a layer, or a layer and a magnification, such as "segmentation/2-2-1". Raises SourceNotFoundError if
    there is no such one, and SourceError if there are several, or their file cannot be read.
    """
    folder = Path(path).expanduser().resolve()
    properties = _load(folder)
    layer = None
    if properties is None:
        folder, layer = folder.parent, folder.name
        properties = _load(folder) or {}
    mags = list(_mags(folder, properties))
    wanted = "/".join(filter(None, [layer, (dataset or "").strip("/")]))
    if wanted:
        found = [m for m in mags if wanted in (m.layer, m.folder.relative_to(folder).as_posix(), _full_name(m))]
        if not found:
            raise SourceNotFoundError(f"{path} holds no {wanted!r}; it holds {', '.join(map(_full_name, mags[:20]))}.")
    else:
        found = [m for m in mags if m.is_segmentation]
        if len({m.layer for m in found}) != 1:
            names = sorted({m.layer for m in found or mags})
            raise SourceError(
                f"{path} holds {len(found) and len(names)} segmentation layers, and it is unclear which holds the labels. "
                f"{words().dataset}, with one of {', '.join(names[:20]) or 'no layer at all'}."
            )
    return min(found, key=lambda m: m.coarseness)


def _full_name(mag: Mag) -> str:
    return f"{mag.layer}/{mag.folder.name}"


def _load(folder: Location) -> Mapping[str, Any] | None:
    if isinstance(folder, Remote):
        try:
            found = json.loads((folder / FILE).read_bytes())
        except (OSError, ValueError, RecursionError):
            return None
    else:
        found = read_json(folder / FILE)
    return found if isinstance(found, Mapping) and "dataLayers" in found else None


def _mags(folder: Location, properties: Mapping[str, Any]) -> Iterator[Mag]:
    try:
        for layer in properties["dataLayers"]:
            for mag in layer.get("mags") or layer.get("wkwResolutions") or ():
                yield _mag(folder, properties.get("scale"), layer, mag)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise SourceError(
            f"{folder / FILE} cannot be interpreted ({type(error).__name__}: {error}). Copy it again, or name the array's "
            "folder itself and give the voxel size."
        ) from error


def _mag(folder: Location, scale: Any, layer: Mapping[str, Any], mag: Mapping[str, Any]) -> Mag:
    by = mag.get("mag", mag.get("resolution", 1))
    factors = [int(f) for f in by] if isinstance(by, Sequence) else [int(by)] * 3
    if min(factors) < 1:
        raise ValueError(f"the magnification {by}")
    name = str(factors[0]) if len(set(factors)) == 1 else "-".join(map(str, factors))
    inside = str(mag.get("path") or f"{layer['name']}/{name}").removeprefix("./")
    if "://" in inside or inside.startswith("/") or ".." in inside.split("/"):
        inside = f"{layer['name']}/{name}"  # only the dataset's own folder is read
    if ".." in inside.split("/") or inside.startswith("/"):
        raise ValueError(f"the layer's name {layer['name']!r}")
    order = {str(k): int(v) for k, v in (mag.get("axisOrder") or _CXYZ).items()}
    size, doubt = None, None
    try:
        size = _size(scale, factors)
    except UnclearError as error:
        doubt = f"in {FILE}, {error}"
    box = layer.get("boundingBox")
    corners = None
    if isinstance(box, Mapping):
        start = [int(v) for v in box["topLeft"]]
        if min(start) < 0:
            raise ValueError(f"the corner {start} of the bounding box")
        stop = [a + int(box[side]) for a, side in zip(start, ("width", "height", "depth"), strict=True)]
        corners = (
            tuple(a // f for a, f in zip(start, factors, strict=True)),
            tuple(-(-b // f) for b, f in zip(stop, factors, strict=True)),
        )
    axes = tuple(sorted(order, key=order.__getitem__))
    kind, is_segmentation = str(layer.get("dataFormat", "wkw")), layer.get("category") == "segmentation"
    return Mag(str(layer["name"]), folder / inside, kind, axes, size, doubt, corners, prod(factors), is_segmentation)


def _size(scale: Any, factors: Sequence[int]) -> Spacing:
    """Return the voxel size, nm, z y x, from `scale`: x y z in nm, or with a unit."""
    values: Any
    values, unit = scale, "nm"
    if isinstance(scale, Mapping):
        values, unit = scale.get("factor"), scale.get("unit", "nanometer")
    per = nm_per(str(unit))
    if per is None:
        raise UnclearError(f"the unit {unit!r} of its scale is no known unit of length")
    try:
        x, y, z = (exact(v) * per * Fraction(f) for v, f in zip(values, factors, strict=True))
    except (TypeError, ValueError):
        raise UnclearError(f"its scale {values!r} cannot be read as x, y, z") from None
    return checked_size((z, y, x))
