"""Displacement fields as OME-Zarr 0.6 (RFC-5): a multiscale image of displacements that is declared to be a transform.

Component i is the displacement along axis i, in the unit of the axes; the coordinates are those of the fixed volume. The layout
is that of ngff-zarr's `declare_field_transform`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simexm.analysis.registration.foreign.content import Content, refuse_not_finite
from simexm.analysis.registration.transform import Frame, identity
from simexm.errors import SpecError
from simexm.geometry.grid import Box, Tiling, three, triple
from simexm.store.files import Files
from simexm.store.location import zarr_store
from simexm.store.omezarr import ShardedArray, write_group

LEVEL = "0"
SHARD = 128
_UM = {"nanometer": 1e-3, "micrometer": 1.0, "millimeter": 1e3, None: 1.0}
_PATH = r"[\w-][\w.-]*(/[\w-][\w.-]*)*"
"""Path below the group; no part begins with a dot."""
_PLANES = 16


def read(path: Path) -> Content | None:
    """Open a displacement field; None if the folder is no Zarr with such a transform.

    Raises SpecError for one in a layout or unit that simexm does not know.
    """
    try:
        attributes = json.loads((path / "zarr.json").read_bytes())["attributes"]["ome"]
        image = attributes["multiscales"][0]
        declared = image["coordinateTransformations"]
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return None
    fields = [one for one in declared if isinstance(one, dict) and one.get("type") == "displacements"]
    if len(declared) != 1 or not fields:
        if fields:
            raise SpecError(
                f"{path} declares {len(declared)} transforms; simexm reads one displacement field of a volume"
            )
        return None
    try:
        return _field(path, image, str(fields[0]["path"]))
    except SpecError:
        raise
    except (KeyError, TypeError, ValueError, IndexError, OSError) as error:
        raise SpecError(f"{path} is a damaged OME-Zarr: {type(error).__name__}: {error}") from None


def _field(path: Path, image: Mapping[str, Any], name: str) -> Content:
    import zarr

    if not re.fullmatch(_PATH, name):
        raise SpecError(f"{path} names the displacements {name!r}, which is no path below it; correct its zarr.json")
    dataset = next((d for d in image["datasets"] if d["path"] == name), None)
    if dataset is None:
        raise SpecError(
            f"{path} names the displacements {name!r}, which are none of its datasets; correct its zarr.json"
        )
    transform = dataset["coordinateTransformations"][0]
    parts = transform["transformations"] if transform["type"] == "sequence" else [transform]
    found = {part["type"]: np.array(part[part["type"]], np.float64) for part in parts}
    systems = {system["name"]: system["axes"] for system in image["coordinateSystems"]}
    axes = systems[transform["output"]["name"]]
    kinds, units = [a.get("type") for a in axes], {a.get("unit") for a in axes[1:]}
    if [a["name"] for a in axes[1:]] != ["z", "y", "x"] or kinds != ["displacement", "space", "space", "space"]:
        raise SpecError(
            f"the axes of {path} are {', '.join(a['name'] for a in axes)}; simexm reads displacements along z, y, x, in the first"
            " axis, of a volume with the axes z, y, x"
        )
    if {*found} - {"scale", "translation"} or len(units) != 1 or not units <= {*_UM}:
        raise SpecError(
            f"the grid of {path} is given by {', '.join(found)} in {units}; simexm reads scale and translation in one unit of "
            f"{', '.join(filter(None, _UM))}"
        )
    factor = _UM[units.pop()]
    array = zarr.open_array(zarr_store(path / name), mode="r")
    voxel = factor * found["scale"][1:]
    first = factor * found.get("translation", np.zeros(4))[1:]
    if array.ndim != 4 or array.shape[0] != 3 or 0 in array.shape or array.dtype.kind != "f" or not voxel.min() > 0:
        raise SpecError(
            f"{path} holds {array.dtype} of the shape {array.shape}, at {voxel.tolist()} um; displacements of a volume are "
            "floats, (3, z, y, x), at a positive distance"
        )
    frame = Frame(triple(array.shape[1:]), three(map(float, voxel)), three(map(float, first - voxel / 2)))
    values: Any = array if factor == 1 else factor * np.asarray(array[...], np.float32)
    return Content(_digest(array, frame, str(path)), identity(), values, frame)


def _digest(array: Any, frame: Frame, where: str) -> str:
    """Digest of the grid and of the values in sixteen planes, which must be finite."""
    found = hashlib.blake2b(str(frame).encode(), digest_size=16)
    depth = frame.shape[0]
    for z in sorted({n * (depth - 1) // (_PLANES - 1) for n in range(_PLANES)}):
        plane = np.ascontiguousarray(array[:, z : z + 1])
        refuse_not_finite(plane, where, z)
        found.update(plane.tobytes())
    return found.hexdigest()


def write(files: Files, frame: Frame, box_of: Callable[[Box], NDArray[np.float32]], written_by: str) -> None:
    """Write displacements block by block; the group's metadata come last.

    Parameters
    ----------
    files
        Folder of the group.
    frame
        Grid of the displacements.
    box_of
        Displacements (3, z, y, x), um, of a box of voxels.
    written_by
        Command that writes it.
    """
    side = triple(min(SHARD, 1 << (n - 1).bit_length()) for n in frame.shape)
    array = ShardedArray(
        files, LEVEL, (3, *frame.shape), (3, *side), (1, *(min(64, n) for n in side)), "float32", "czyx"
    )
    array.create()
    tiling = Tiling(Box.of_shape(frame.shape), side)
    for number in range(len(tiling)):
        box = tiling[number]
        position = (0, *(a // n for a, n in zip(box.start, side, strict=True)))
        array.write(position, np.ascontiguousarray(box_of(box), np.float32))
    write_group(files, "", {"ome": _attributes(frame), "simexm": {"written_by": written_by}})


def _attributes(frame: Frame) -> dict[str, Any]:
    space = [{"name": name, "type": "space", "unit": "micrometer"} for name in "zyx"]
    component = {"name": "c", "type": "displacement", "discrete": True}
    grid = [
        {"type": "scale", "scale": [1.0, *frame.voxel_um]},
        {"type": "translation", "translation": [0.0, *map(float, frame.first_um)]},
    ]
    placed = {"type": "sequence", "input": {"path": LEVEL}, "output": {"name": "grid"}, "transformations": grid}
    moved = {
        "type": "displacements",
        "input": {"name": "physical"},
        "output": {"name": "physical"},
        "path": LEVEL,
        "interpolation": "linear",
    }
    image = {
        "name": "displacement",
        "coordinateSystems": [{"name": "grid", "axes": [component, *space]}, {"name": "physical", "axes": space}],
        "datasets": [{"path": LEVEL, "coordinateTransformations": [placed]}],
        "coordinateTransformations": [moved],
    }
    return {"version": "0.6", "multiscales": [image]}
